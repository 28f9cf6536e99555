//! `portico-floor`: the comparison servers as a program, for `cargo xtask bench`.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use portico_bench::floor::{self, Memory, Settings, medium};

/// Answers an initiator with the bytes of a null logical unit and does nothing else, or reads a file and does nothing else.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    way: Way,
}

#[derive(Debug, Subcommand)]
enum Way {
    /// On a bare io_uring
    Ring(Server),
    /// On epoll and writev
    Epoll(Server),
    /// On glommio, where it was built with that feature
    Glommio(Server),
    /// No server: reads of a file at some depth, past the page cache
    Medium(Medium),
}

#[derive(Debug, Args)]
struct Server {
    /// Where it listens; the line `ready portal=ADDRESS:PORT` says where that came to
    #[arg(long, default_value = "127.0.0.1:0")]
    portal: SocketAddr,
    /// Bytes of the unit
    #[arg(long, default_value_t = 1 << 30)]
    size: u64,
    /// Commands that a session may send at once
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=2048))]
    window: u16,
    /// Answers reads from a place of their own for each block, as a RAM disk does
    #[arg(long)]
    memory: bool,
    /// Looks for work without ever sleeping
    #[arg(long)]
    poll: bool,
}

#[derive(Debug, Args)]
struct Medium {
    /// A file or block device
    path: PathBuf,
    /// Reads at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    depth: u32,
    /// Bytes of one, at most 256 KiB
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(512..=262_144))]
    bs: u32,
    /// Writes instead; destroys what is there
    #[arg(long)]
    write: bool,
    /// For so long
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5000)]
    time: u64,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().way {
        Way::Ring(server) => {
            listen(&server).and_then(|listener| floor::ring::serve(listener, &server.settings()))
        }
        Way::Epoll(server) => {
            listen(&server).and_then(|listener| floor::epoll::serve(listener, &server.settings()))
        }
        Way::Glommio(server) => glommio(&server),
        Way::Medium(medium) => measure(&medium),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portico-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Server {
    fn settings(&self) -> Settings {
        let memory = if self.memory { Memory::whole(self.size) } else { Memory::null() };
        Settings { size_bytes: self.size, window: self.window, polls: self.poll, memory: Arc::new(memory) }
    }
}

fn listen(server: &Server) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(server.portal)?;
    say(listener.local_addr()?);
    Ok(listener)
}

fn say(portal: SocketAddr) {
    println!("ready portal={portal}");
}

#[cfg(feature = "glommio")]
fn glommio(server: &Server) -> io::Result<()> {
    floor::glommio::serve(server.portal, &server.settings(), say)
}

#[cfg(not(feature = "glommio"))]
fn glommio(_server: &Server) -> io::Result<()> {
    Err(io::Error::other("built without the feature `glommio`"))
}

/// One line: how many, in how many nanoseconds.
fn measure(of: &Medium) -> io::Result<()> {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let file = File::options().read(true).write(of.write).custom_flags(direct).open(&of.path)?;
    let size_bytes = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
    let load = medium::Load {
        depth: of.depth,
        io_bytes: usize::try_from(of.bs).expect("32 bits"),
        writes: of.write,
        time: Duration::from_millis(of.time),
    };
    let outcome = medium::run(file, size_bytes, load)?;
    println!("count={} time_ns={}", outcome.count, outcome.time.as_nanos());
    Ok(())
}
