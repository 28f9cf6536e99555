//! The binary as a script sees it: what it prints and how it ends.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread;

fn portico(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portico")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What `portico check` says to this file, and its exit status.
fn checked(content: &str) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scst.conf");
    fs::write(&path, content).unwrap();
    let output = portico(&["check", path.to_str().unwrap()]);
    (text(&output.stdout), output.status.code())
}

const GOOD: &str = "HANDLER vdisk_nullio {\n\tDEVICE null\n}\n\
                    TARGET_DRIVER iscsi {\n\tenabled 1\n\tTARGET iqn.2026-11.io.portico:t {\n\
                    \t\tLUN 0 null\n\t\tenabled 1\n\t}\n}\n";

#[test]
fn a_good_file_ends_with_0_and_says_what_it_serves() {
    let (said, status) = checked(GOOD);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("can be applied") && said.contains("iqn.2026-11.io.portico:t"), "{said}");
    assert!(!said.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn a_wrong_file_ends_with_1_and_says_where() {
    let (said, status) = checked(&GOOD.replace("LUN 0 null", "LUN 0 nul"));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("is refused, 1 error") && said.contains("scst.conf:7:"), "{said}");
}

#[test]
fn a_file_that_is_not_there_ends_with_2() {
    let output = portico(&["check", "no/such/scst.conf"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).contains("cannot be read"));
}

#[test]
fn top_says_what_to_do_where_no_gateway_is() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = portico(&["top", "--metrics", &free]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("nobody listens there") && said.contains("Is porticod running?"), "{said}");
}

#[test]
fn top_once_prints_one_table_and_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for asked in 1_u32.. {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            let body = if request[..length].starts_with(b"GET /v1/units ") {
                format!(r#"{{"version":1,"taken_ns":{asked},"shards":1,"shards_late":0,"units":[]}}"#)
            } else {
                r#"{"sessions":[]}"#.to_owned()
            };
            write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}").unwrap();
        }
    });
    let output = portico(&["top", "--once", "--interval", "200ms", "--metrics", &gateway]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with("DEVICE") && said.ends_with("sessions on shards  0: 0\n"), "{said}");
}

#[test]
fn intervals_out_of_range_are_refused() {
    for interval in ["0s", "199ms", "2h", "soon"] {
        assert_eq!(portico(&["top", "--interval", interval]).status.code(), Some(2), "{interval}");
    }
}
