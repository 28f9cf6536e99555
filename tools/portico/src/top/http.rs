//! One GET over HTTP/1.1, bounded in time and bytes: all that `top` needs of a client.
//!
//! It asks for the connection to be closed and reads to its end. It follows no redirect, keeps no connection, and takes no
//! encoding but the plain one: the gateway's server sends nothing else.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The most that an answer may have, head and body.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection, or it broke.
    Io(io::Error),
    /// Not in time.
    Late,
    /// More than [`ANSWER_BYTES_MAX`].
    TooLong,
    /// Nothing that HTTP/1.1 would say, or cut short.
    NotHttp,
    /// Another status than 200, with its text.
    Status(u16, String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                f.write_str("nobody listens there")
            }
            Self::Io(error) => write!(f, "{error}"),
            Self::Late => f.write_str("no answer in time"),
            Self::TooLong => f.write_str("an answer without an end"),
            Self::NotHttp => f.write_str("what answers there does not speak HTTP"),
            Self::Status(status, text) if text.is_empty() => write!(f, "status {status}"),
            Self::Status(status, text) => write!(f, "status {status}: {text}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late,
            _ => Self::Io(error),
        }
    }
}

/// The body of `path` at `server`, which has to be there within `patience`.
///
/// # Errors
/// See [`Failure`].
pub(crate) fn get(server: SocketAddr, path: &str, patience: Duration) -> Result<Vec<u8>, Failure> {
    let deadline = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_write_timeout(Some(patience))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Late);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => return body(answer),
            length if answer.len() + length > ANSWER_BYTES_MAX => return Err(Failure::TooLong),
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
}

/// The body of a whole answer.
fn body(mut answer: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(Failure::NotHttp)?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| Failure::NotHttp)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).and_then(|line| line.get(2..5));
    let status: u16 = status.and_then(|status| status.parse().ok()).ok_or(Failure::NotHttp)?;
    let mut length = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>().map_err(|_| Failure::NotHttp)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Failure::NotHttp);
        }
    }
    answer.drain(..end + 4);
    if length.is_some_and(|length| length != answer.len()) {
        return Err(Failure::NotHttp);
    }
    if status == 200 {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(&answer[..answer.len().min(200)]);
    Err(Failure::Status(status, text.trim().chars().filter(|c| !c.is_control()).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::serve;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn told(answer: &'static str) -> Result<String, Failure> {
        let server = serve(move |_| answer.as_bytes().to_vec());
        get(server, "/x", PATIENCE).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn the_body_is_what_follows_the_head() {
        assert_eq!(told("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").unwrap(), "hello");
        assert_eq!(told("HTTP/1.1 200 OK\r\n\r\nto the end").unwrap(), "to the end");
    }

    #[test]
    fn the_request_names_its_path_and_asks_to_close() {
        let server = serve(|request| {
            let good =
                request.starts_with("GET /v1/units HTTP/1.1\r\n") && request.contains("Connection: close");
            format!("HTTP/1.1 {} X\r\n\r\n", if good { 200 } else { 400 }).into_bytes()
        });
        assert!(get(server, "/v1/units", PATIENCE).is_ok());
    }

    #[test]
    fn another_status_comes_with_its_text() {
        let failure = told("HTTP/1.1 503 Service Unavailable\r\n\r\ncontrol does not answer\n").unwrap_err();
        assert_eq!(failure.to_string(), "status 503: control does not answer");
    }

    #[test]
    fn what_is_cut_short_or_no_http_is_refused() {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 2\r\n\r\n",
            "",
        ] {
            assert!(matches!(told(answer), Err(Failure::NotHttp)), "{answer}");
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_late() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let failure = get(silent.local_addr().unwrap(), "/", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(failure, Failure::Late), "{failure}");
    }

    #[test]
    fn a_port_that_nobody_holds_says_so() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(get(free, "/", PATIENCE).unwrap_err().to_string(), "nobody listens there");
    }
}
