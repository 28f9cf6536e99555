//! The smallest HTTP client that reads a page of metrics: one GET, one answer, the connection closed after it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Context, Failure, Result};

/// The body of `http://ADDRESS/PATH`; `Err` unless the status is 200.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).context(address)?;
    body(&String::from_utf8_lossy(&answer))
}

fn body(answer: &str) -> Result<String> {
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| Failure::new("the answer has no end of headers"))?;
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(Failure::new(format!("the server answers {status:?}")));
    }
    let chunked = lines.any(|line| line.to_ascii_lowercase().replace(' ', "") == "transfer-encoding:chunked");
    if chunked { unchunk(body) } else { Ok(body.to_owned()) }
}

/// RFC 9112 §7.1, without trailers and extensions.
fn unchunk(mut rest: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let cut = || Failure::new("the chunked answer is cut short");
        let (length, after) = rest.split_once("\r\n").ok_or_else(cut)?;
        let length = usize::from_str_radix(length.trim(), 16).context("the length of a chunk")?;
        if length == 0 {
            return Ok(whole);
        }
        whole.push_str(after.get(..length).ok_or_else(cut)?);
        rest = after[length..].strip_prefix("\r\n").ok_or_else(cut)?;
    }
}

const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_body_and_a_chunked_one_read_the_same() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nA: b\r\n\r\nx 1\n").unwrap(), "x 1\n");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nx \r\n2\r\n1\n\r\n0\r\n\r\n";
        assert_eq!(body(chunked).unwrap(), "x 1\n");
    }

    #[test]
    fn a_page_that_is_not_there_is_an_error() {
        assert!(body("HTTP/1.1 404 Not Found\r\n\r\n").is_err());
        assert!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nx").is_err());
    }
}
