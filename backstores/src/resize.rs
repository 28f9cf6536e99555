//! Another size of a medium while shards work on it.
//!
//! A medium only ever grows here: what is beyond the new end of a unit that shrank is refused by the shards' replicas of the
//! unit, and stays where it is, so that a slip in a configuration destroys nothing. May block, like opening.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::file::FileStore;
use crate::open::current_size_bytes;
use crate::{Backstore, Medium};

/// How many blocks a medium has now, for all shards. Never fewer than before.
#[derive(Debug)]
pub struct BlockCount(AtomicU64);

impl BlockCount {
    /// So many at first.
    pub fn new(blocks: u64) -> Self {
        Self(AtomicU64::new(blocks))
    }

    /// How many there are. A shard may learn of more a moment after they were added: it is told by an Install of the
    /// unit's new size, whose way through a queue orders the two.
    #[inline]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// There are at least so many.
    pub fn grow(&self, blocks: u64) {
        self.0.fetch_max(blocks, Ordering::Relaxed);
    }
}

impl Medium {
    /// Gives it the size that is `asked` for, as far as that can be, or finds out which size it has got from outside.
    /// Tells how many bytes can be served. Blocks.
    ///
    /// # Errors
    /// For people.
    pub fn resize(&self, asked_bytes: Option<u64>) -> Result<u64, String> {
        let geometry = self.geometry();
        let blocks = |bytes: u64| bytes / u64::from(geometry.block_length);
        match self {
            Self::Null(store) => {
                let size = asked_bytes.unwrap_or(geometry.size_bytes());
                store.blocks.grow(blocks(size));
                Ok(size)
            }
            Self::Ram(store) => {
                let size = asked_bytes.unwrap_or(geometry.size_bytes());
                let refused = |error: io::Error| format!("{size} bytes of memory: {error}");
                let length = usize::try_from(size).map_err(|_| refused(io::ErrorKind::OutOfMemory.into()))?;
                store.memory.grow(length).map_err(refused)?;
                store.blocks.grow(blocks(size));
                Ok(size)
            }
            Self::File(store) => {
                let size = resize_file(store, asked_bytes, geometry.read_only)
                    .map_err(|error| format!("its size cannot be changed: {error}"))?;
                store.blocks.grow(blocks(size));
                Ok(size)
            }
            Self::Rbd(store) => {
                let size = store.current_size_bytes()?;
                store.blocks.grow(blocks(size));
                Ok(size)
            }
        }
    }
}

fn resize_file(store: &FileStore, asked_bytes: Option<u64>, read_only: bool) -> io::Result<u64> {
    let Some((file, found)) = store.file().zip(current_size_bytes(store)?) else {
        let had = store.geometry().size_bytes();
        return Ok(asked_bytes.unwrap_or(had));
    };
    let Some(asked) = asked_bytes else { return Ok(found) };
    if asked > found && !read_only && file.metadata()?.is_file() {
        // Before the first write that may punt because of it.
        store.grown.store(true, Ordering::Relaxed);
        file.set_len(asked)?;
        // What is told to initiators holds over a power cut.
        file.sync_all()?;
        return Ok(asked);
    }
    Ok(asked.min(found))
}
