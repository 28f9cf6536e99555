//! The metrics port: a small HTTP/1.1 server on a thread of its own, which reads and never changes anything.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | OpenMetrics text ([`crate::metrics::text`]) |
//! | `/v1/units`, `/v1/sessions` | JSON ([`crate::metrics::json`]) |
//! | `/healthz` | `ok`, if control answers |
//!
//! Only GET. Connections, their life, the size of a request's head and the time for an answer are bounded: a client that
//! says nothing costs one place for a few seconds. It has no encryption and asks nobody who he is: it is meant for
//! loopback, and the daemon says so when it is told another address.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::metrics::{Snapshot, json, text};

/// Bytes that the head of a request may have (the least that hyper allows).
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header fields of a request.
const HEADERS_MAX: usize = 64;

/// Where answers come from. Cloned for each connection.
pub trait Source: Clone + Send + Sync + 'static {
    /// The state of everything; `None` if control is not there any more.
    fn snapshot(&self) -> impl Future<Output = Option<Arc<Snapshot>>> + Send;
}

/// What a client may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at the same time; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// From the accept, or the request before, to the end of a request's head.
    pub head: Duration,
    /// From a request to the snapshot that answers it.
    pub answer: Duration,
    /// Of a connection, whatever it does.
    pub life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 32,
            head: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            life: Duration::from_secs(120),
        }
    }
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    local: SocketAddr,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `source` on `listener` from a thread of its own.
    ///
    /// # Errors
    /// If the listener cannot be used, or the thread not be made.
    pub fn start(listener: TcpListener, source: impl Source, limits: Limits) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = {
            let _guard = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(accept(listener, source, limits));
                // Ends when the sender is dropped; the runtime then drops what it still serves.
                let _ = stopped.await;
            });
        })?;
        Ok(Self { local, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported where it happened.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, source: impl Source, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the semaphore");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: the next attempt must not spin.
                tracing::debug!(%error, "the metrics port cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let source = source.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let source = source.clone();
                async move { Ok::<_, Infallible>(respond(&request, &source, limits.answer).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head)
                .max_buf_size(HEAD_BYTES_MAX)
                .max_headers(HEADERS_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // What a client does wrong is its own affair.
            let _ = timeout(limits.life, connection).await;
            drop(place);
        });
    }
}

async fn respond(
    request: &Request<Incoming>,
    source: &impl Source,
    patience: Duration,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refusal;
    }
    if !request.body().is_end_stream() {
        return plain(StatusCode::BAD_REQUEST, "a GET has no body\n");
    }
    let render: fn(&Snapshot) -> (&'static str, String) = match request.uri().path() {
        "/metrics" => |snapshot| (text::CONTENT_TYPE, text::render(snapshot)),
        "/v1/units" => |snapshot| (json::CONTENT_TYPE, json::units(snapshot)),
        "/v1/sessions" => |snapshot| (json::CONTENT_TYPE, json::sessions(snapshot)),
        "/healthz" => |_| ("text/plain", "ok\n".to_owned()),
        _ => return plain(StatusCode::NOT_FOUND, "/metrics, /v1/units, /v1/sessions, /healthz\n"),
    };
    match timeout(patience, source.snapshot()).await {
        Ok(Some(snapshot)) => {
            let (kind, body) = render(&snapshot);
            answer(StatusCode::OK, kind, body)
        }
        Ok(None) | Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "control does not answer\n"),
    }
}

fn plain(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    answer(status, "text/plain", body.to_owned())
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;

    #[derive(Clone)]
    enum Desk {
        Answers,
        Gone,
        Hangs,
    }

    impl Source for Desk {
        async fn snapshot(&self) -> Option<Arc<Snapshot>> {
            match self {
                Desk::Answers => Some(Arc::new(crate::metrics::tests::sample())),
                Desk::Gone => None,
                Desk::Hangs => std::future::pending().await,
            }
        }
    }

    fn limits() -> Limits {
        let short = Duration::from_millis(300);
        Limits { connections_max: 2, head: short, answer: short, life: Duration::from_secs(10) }
    }

    fn start(desk: Desk) -> Server {
        Server::start(TcpListener::bind("127.0.0.1:0").unwrap(), desk, limits()).unwrap()
    }

    /// Sends these bytes on a connection of its own and reads until the server closes.
    fn ask(server: &Server, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(server.local_addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        // A reset is how some refusals end.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn get(server: &Server, path: &str) -> String {
        ask(server, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
    }

    #[test]
    fn each_path_has_its_answer() {
        let server = start(Desk::Answers);
        let metrics = get(&server, "/metrics");
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
        assert!(metrics.contains("content-type: application/openmetrics-text"));
        assert!(metrics.contains("portico_commands_total{"));
        assert!(get(&server, "/v1/units").contains("\"version\":1"));
        assert!(get(&server, "/v1/sessions").contains("\"initiator\":\"iqn.a\""));
        assert!(get(&server, "/healthz").ends_with("\r\n\r\nok\n"));
        assert!(get(&server, "/").starts_with("HTTP/1.1 404"));
        assert!(get(&server, "/v1/../metrics").starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn nothing_but_get_is_served() {
        let server = start(Desk::Answers);
        for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"] {
            let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = ask(&server, request.as_bytes());
            assert!(
                answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET"),
                "{method}: {answer}"
            );
        }
        let body = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        assert!(ask(&server, body).starts_with("HTTP/1.1 400"));
    }

    #[test]
    fn a_head_that_is_too_large_is_refused() {
        let server = start(Desk::Answers);
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
        let answer = ask(&server, long.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
        let answer = ask(&server, many.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        assert!(ask(&server, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").starts_with("HTTP/1.1 400"), "TLS");
    }

    #[test]
    fn clients_that_say_nothing_hold_the_door_for_a_moment_only() {
        let server = start(Desk::Answers);
        let silent: Vec<_> = (0..limits().connections_max)
            .map(|_| {
                let mut stream = TcpStream::connect(server.local_addr()).unwrap();
                stream.write_all(b"GET /metr").unwrap();
                stream
            })
            .collect();
        let begun = Instant::now();
        assert!(get(&server, "/healthz").ends_with("ok\n"), "served once the silent ones were closed");
        assert!(begun.elapsed() >= limits().head / 2, "every place was taken until then");
        drop(silent);
    }

    #[test]
    fn a_control_that_hangs_or_is_gone_is_an_unavailable_service() {
        for desk in [Desk::Hangs, Desk::Gone] {
            let server = start(desk);
            assert!(get(&server, "/healthz").starts_with("HTTP/1.1 503"));
        }
    }

    #[test]
    fn a_dropped_server_frees_its_port() {
        let server = start(Desk::Answers);
        let address = server.local_addr();
        drop(server);
        TcpListener::bind(address).unwrap();
    }
}
