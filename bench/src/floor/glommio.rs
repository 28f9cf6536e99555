//! The same floor in glommio 0.9: a task for each connection. It has no vectored write for TCP, so the answers of a batch
//! are copied into one buffer, which is the fastest of the ways that it offers.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement, spawn_local};
use portico_iscsi::wire::BHS_BYTES;

use super::batch::Batch;
use super::entry::{Entry, Step};
use super::peer::Peer;
use super::{STAGING_BYTES, Settings, rest_bytes};

/// Serves at a portal until the executor fails; `tell` is told where.
///
/// # Errors
/// What the executor said.
pub fn serve(portal: SocketAddr, settings: &Settings, tell: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let mut builder = LocalExecutorBuilder::new(Placement::Unbound);
    if settings.polls {
        builder = builder.spin_before_park(Duration::from_secs(3600));
    }
    let executor = builder.make().map_err(said)?;
    executor.run(async {
        let listener = TcpListener::bind(portal).map_err(said)?;
        tell(listener.local_addr().map_err(said)?);
        let settings = Rc::new(settings.clone());
        loop {
            let stream = listener.accept().await.map_err(said)?;
            let settings = Rc::clone(&settings);
            spawn_local(async move {
                if let Err(error) = converse(stream, &settings).await
                    && error.kind() != io::ErrorKind::UnexpectedEof
                {
                    eprintln!("a session ends: {error}");
                }
            })
            .detach();
        }
    })
}

async fn converse(stream: TcpStream, settings: &Settings) -> io::Result<()> {
    stream.set_nodelay(true).map_err(said)?;
    let mut stream = stream.buffered_with(glommio::net::Preallocated::new(STAGING_BYTES));
    let mut peer = log_in(&mut stream, settings).await?;
    let mut staging = vec![0; STAGING_BYTES];
    let mut batch = Batch::default();
    let mut out = Vec::new();
    loop {
        let length = stream.read(&mut staging).await?;
        if length == 0 {
            return Ok(());
        }
        peer.receive(&staging[..length], &settings.memory, &mut batch).map_err(io::Error::other)?;
        out.clear();
        for slice in batch.slices(settings.memory.bytes(), 0) {
            out.extend_from_slice(&slice);
        }
        stream.write_all(&out).await?;
        if batch.is_last {
            return Ok(());
        }
        batch.clear();
    }
}

async fn log_in(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    settings: &Settings,
) -> io::Result<Peer> {
    let mut entry = Entry::new(settings);
    loop {
        let mut bhs = [0; BHS_BYTES];
        stream.read_exact(&mut bhs).await?;
        let mut data = vec![0; rest_bytes(&bhs)?];
        stream.read_exact(&mut data).await?;
        let Step { reply, peer } = entry.step(&bhs, &data).map_err(io::Error::other)?;
        stream.write_all(&reply).await?;
        if let Some(peer) = peer {
            return Ok(peer);
        }
    }
}

fn said<T>(error: glommio::GlommioError<T>) -> io::Error {
    io::Error::other(error.to_string())
}
