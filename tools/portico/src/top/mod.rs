//! `portico top`: asks the gateway again and again, subtracts, and shows what happened in between.
//!
//! One thread asks, the other draws; between them is one place. On a terminal it is a live view that leaves the terminal as it
//! was, whatever ends it; elsewhere it is lines. All waiting is bounded.

mod answer;
mod chart;
mod distribution;
mod http;
mod interval;
mod table;
mod view;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use answer::Answer;
use interval::Interval;
use view::View;

/// How long one request may take; the gateway itself gives up after five seconds.
const PATIENCE: Duration = Duration::from_secs(6);
/// How often the screen looks for keys and signals.
const KEY_INTERVAL: Duration = Duration::from_millis(50);

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) metrics: SocketAddr,
    pub(crate) interval: Duration,
    pub(crate) once: bool,
}

/// Why it ended.
#[derive(Debug)]
pub(crate) enum Error {
    /// The gateway gives no answer.
    Gateway(SocketAddr, answer::Failure),
    /// The gateway began anew while a single interval was measured.
    Restarted,
    /// The terminal, or the pipe.
    Output(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(address, failure) => write!(
                f,
                "{address}: {failure}\nIs porticod running? Its last line of readiness says metrics=ADDRESS:PORT, \
                 which `portico top --metrics ADDRESS:PORT` takes."
            ),
            Self::Restarted => f.write_str("the gateway was restarted in the meantime"),
            Self::Output(error) => write!(f, "cannot show anything: {error}"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Shows what the gateway does until it is told to end.
///
/// # Errors
/// See [`Error`]. Once something was shown on a terminal, a gateway that is gone is waited for.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let first = ask(options)?;
    let mut out = io::stdout();
    if options.once {
        let interval = next(options, &first)?.ok_or(Error::Restarted)?;
        out.write_all(table::plain(&interval).as_bytes())?;
        return Ok(());
    }
    if out.is_terminal() { live(options, first) } else { lines(options, first, &mut out) }
}

fn ask(options: &Options) -> Result<Answer, Error> {
    Answer::ask(options.metrics, PATIENCE).map_err(|failure| Error::Gateway(options.metrics, failure))
}

fn next(options: &Options, before: &Answer) -> Result<Option<Interval>, Error> {
    thread::sleep(options.interval);
    Ok(Interval::between(before, ask(options)?))
}

/// A table for each interval, until the pipe or the gateway closes.
fn lines(options: &Options, first: Answer, out: &mut impl Write) -> Result<(), Error> {
    let mut before = first;
    loop {
        thread::sleep(options.interval);
        let answer = ask(options)?;
        if let Some(interval) = Interval::between(&before, answer.clone()) {
            let text = table::plain(&interval) + "\n";
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written?,
            }
        }
        before = answer;
    }
}

/// What the asking thread has to say: a new interval, or why there is none.
type Report = Result<Interval, String>;

/// Asks at each interval until nobody listens any more.
fn start_asking(options: Options, first: Answer) -> io::Result<Receiver<Report>> {
    let (sender, receiver) = sync_channel(1);
    thread::Builder::new().name("asks".into()).spawn(move || {
        let mut before = first;
        loop {
            thread::sleep(options.interval);
            let report = match Answer::ask(options.metrics, PATIENCE) {
                Err(failure) => Err(failure.to_string()),
                Ok(answer) => {
                    let interval = Interval::between(&before, answer.clone());
                    before = answer;
                    interval.ok_or_else(|| "the gateway was restarted".to_owned())
                }
            };
            if sender.send(report).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Gives the terminal back when it is dropped.
struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal; a panic on any thread gives it back before it is reported.
    fn take() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn live(options: &Options, first: Answer) -> Result<(), Error> {
    let told_to_end = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::clone(&told_to_end))?;
    }
    let reports = start_asking(*options, first)?;
    let mut view = View::new(options.metrics);
    let mut screen = Screen::take()?;
    let mut stale = true;
    while !told_to_end.load(Ordering::Relaxed) {
        match reports.try_recv() {
            Ok(report) => {
                match report {
                    Ok(interval) => view.show(interval),
                    Err(failure) => view.complain(failure),
                }
                stale = true;
            }
            Err(TryRecvError::Empty) => {}
            // It has panicked, and said so.
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        if std::mem::take(&mut stale) {
            screen.0.draw(|frame| view.draw(frame))?;
        }
        if event::poll(KEY_INTERVAL)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let interrupted =
                        key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                    if interrupted || !view.press(key.code) {
                        break;
                    }
                }
                _ => {}
            }
            stale = true;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::answer::tests::{SESSIONS, units};
    use super::*;

    /// A server on a free port of loopback that answers each request on a connection of its own. Its thread ends with the
    /// test's process.
    pub(super) fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = String::new();
                for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                    if line.is_empty() {
                        break;
                    }
                    request.push_str(&line);
                    request.push_str("\r\n");
                }
                // Who has hung up does not want it.
                let _ = stream.write_all(&answer(&request));
            }
        });
        address
    }

    /// A gateway that does 1,000 reads between one answer and the next, which are a second apart on its clock.
    fn busy_gateway() -> SocketAddr {
        let asked = std::sync::atomic::AtomicU64::new(1);
        serve(move |request| {
            let body = if request.starts_with("GET /v1/units ") {
                let n = asked.fetch_add(1, Ordering::Relaxed);
                units(n * 1_000_000_000, n * 1_000)
            } else {
                SESSIONS.to_owned()
            };
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
        })
    }

    fn options(metrics: SocketAddr) -> Options {
        Options { metrics, interval: Duration::from_millis(1), once: true }
    }

    #[test]
    fn two_answers_of_a_gateway_make_an_interval() {
        let options = options(busy_gateway());
        let first = ask(&options).unwrap();
        let interval = next(&options, &first).unwrap().unwrap();
        assert_eq!(interval.activities[0][0].commands, 1_000);
        assert_eq!(interval.per_second(interval.activities[0][0].commands), 1_000);
    }

    #[test]
    fn a_gateway_that_is_not_there_is_an_error_that_says_what_to_do() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = run(&options(free)).unwrap_err().to_string();
        assert!(error.contains("nobody listens there") && error.contains("--metrics"), "{error}");
    }

    #[test]
    fn lines_end_when_the_gateway_does() {
        let options = options(busy_gateway());
        let first = ask(&options).unwrap();
        struct Full(Vec<u8>);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.extend_from_slice(bytes);
                if self.0.len() > 2_000 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Full(Vec::new());
        lines(&options, first, &mut out).unwrap();
        let text = String::from_utf8(out.0).unwrap();
        assert!(text.matches("disk1").count() > 2, "{text}");
    }

    #[test]
    fn the_asking_thread_brings_intervals_and_complaints() {
        let options = options(busy_gateway());
        let reports = start_asking(options, ask(&options).unwrap()).unwrap();
        let patience = Duration::from_secs(10);
        assert!(reports.recv_timeout(patience).unwrap().is_ok());

        let asked = std::sync::atomic::AtomicU64::new(0);
        let gone = serve(move |request| match asked.fetch_add(1, Ordering::Relaxed) {
            0 if request.starts_with("GET /v1/units ") => {
                format!("HTTP/1.1 200 OK\r\n\r\n{}", units(1, 1)).into_bytes()
            }
            1 => format!("HTTP/1.1 200 OK\r\n\r\n{SESSIONS}").into_bytes(),
            _ => b"HTTP/1.1 503 X\r\n\r\ncontrol does not answer\n".to_vec(),
        });
        let options = self::options(gone);
        let reports = start_asking(options, ask(&options).unwrap()).unwrap();
        let complaint = reports.recv_timeout(patience).unwrap().unwrap_err();
        assert_eq!(complaint, "status 503: control does not answer");
    }
}
