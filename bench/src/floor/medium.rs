//! The floor below a file or a block device: a ring that keeps so many reads or writes of it in flight, and nothing else.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use portico_ring::{Arena, ArenaOptions, Class, Options, Payload, Ring, Segments, Wait};

/// What is done to the medium.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many at once.
    pub depth: u32,
    /// Of one read or write, at most 256 KiB.
    pub io_bytes: usize,
    /// Writes instead of reads.
    pub writes: bool,
    /// For how long.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Reads or writes that ended.
    pub count: u64,
    /// From the first to the last.
    pub time: Duration,
}

/// Reads or writes whole blocks anywhere in `file`, whose size is `size_bytes`.
///
/// # Errors
/// What the kernel said, or that an operation was short.
///
/// # Panics
/// Where the load asks for none at once, or for more bytes than a buffer has.
pub fn run(file: File, size_bytes: u64, load: Load) -> io::Result<Outcome> {
    let io_bytes = load.io_bytes as u64;
    let places = size_bytes / io_bytes;
    assert!(load.depth > 0 && load.io_bytes <= Class::Large.bytes() && places > 0);
    let mut ring = Ring::new(Options::default()).map_err(|error| io::Error::other(error.to_string()))?;
    let arena = Arena::new(ArenaOptions { small: 1, medium: 1, large: load.depth })?;
    let file =
        ring.adopt(file.into()).map_err(|_| io::Error::other("the ring owns as many files as it can"))?;
    let mut random = SEED;
    let mut place = move || {
        // xorshift64: any sequence that caches cannot guess.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % places * io_bytes
    };
    let begin = |ring: &mut Ring, segments: Segments, offset_bytes: u64| {
        let begun = if load.writes {
            ring.write(file, 0, offset_bytes, segments, 0, false)
        } else {
            ring.read(file, 0, offset_bytes, segments, 0)
        };
        begun.map_err(|_| io::Error::other("the ring is full"))
    };
    for _ in 0..load.depth {
        let mut buffer = arena.take(Class::Large).expect("there is one for each");
        buffer.truncate(load.io_bytes);
        let mut segments = Segments::with_capacity(1);
        segments.push(buffer).expect("the list has room for one");
        begin(&mut ring, segments, place())?;
    }
    let (start, mut count, mut left) = (Instant::now(), 0, load.depth);
    while left > 0 {
        ring.turn(Wait::Forever, Duration::ZERO)?;
        let is_over = start.elapsed() >= load.time;
        while let Some(completion) = ring.next_completion() {
            let Payload::Segments(segments) = completion.payload else { continue };
            let moved = completion.result.map_err(io::Error::from)?;
            if u64::from(moved) != io_bytes {
                return Err(io::Error::other("a short read or write"));
            }
            count += 1;
            if is_over { left -= 1 } else { begin(&mut ring, segments, place())? }
        }
    }
    Ok(Outcome { count, time: start.elapsed() })
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
