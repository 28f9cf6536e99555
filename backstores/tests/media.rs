//! Every kind of medium with real bytes: null, RAM, and files in a temporary folder.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]
#![expect(dead_code, reason = "each of the two rings is used by one of the two tests")]

mod rings;

use portico_backstores::open::{
    BlockOptions, FileOptions, OpenError, Warning, current_size_bytes, open_block, open_file,
};
use portico_backstores::{
    Backstore, Medium, MediumError, MediumQueue, NullStore, Queue, QueueFull, RamStore, Request,
    SharedMemory, Tag,
};
use rings::{Blocking, Segments};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};

const SIZE_BYTES: u64 = 1 << 20;

fn options(folder: &Folder) -> FileOptions {
    FileOptions { size_bytes: Some(SIZE_BYTES), queues: 1, ..FileOptions::new(folder.0.join("medium")) }
}

/// Bytes that tell where they belong.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i % 253).unwrap() ^ seed).collect()
}

fn round_trip(ring: &mut Blocking, queue: &mut MediumQueue<Segments>) {
    let written: Segments = vec![pattern(4096, 1), pattern(512, 2), pattern(65536, 3)];
    let all = written.concat();
    let request = Request::Write { offset_bytes: 8192, segments: written, durable: true };
    assert_eq!(ring.run(queue, request).result, Ok(()));
    assert_eq!(ring.run(queue, Request::Flush).result, Ok(()));
    let segments = vec![vec![0xff; 512], vec![0xff; 1024], vec![0xff; all.len()]];
    let done = ring.run(queue, Request::Read { offset_bytes: 8192 - 512, segments });
    assert_eq!(done.result, Ok(()));
    let read = done.segments.unwrap().concat();
    assert!(read[..512].iter().all(|&byte| byte == 0), "what was never written reads as zeroes");
    assert!(read[512..512 + all.len()] == all, "the bytes differ");
    assert!(read[512 + all.len()..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_medium_in_memory_takes_at_once_what_it_would_take_as_a_request() {
    let store = |read_only| Medium::Ram(RamStore::new(512, SIZE_BYTES / 512, read_only).unwrap());
    let mut ring = Blocking::new();
    let mut queue = store(false).open_queue(&mut ring).unwrap();
    let parts = [pattern(4096, 1), pattern(77, 2), pattern(435, 3)];
    let slices = || parts.iter().map(|part| &part[..]);
    assert!(queue.store(512, 4608, slices()));
    let mut read = vec![0xff; 4608];
    let request = Request::Read { offset_bytes: 512, segments: vec![std::mem::take(&mut read)] };
    assert!(ring.run(&mut queue, request).segments.unwrap().concat() == parts.concat());
    let mut lent = vec![0; 4608];
    queue.lend(512, 4608).unwrap().copy_to(&mut lent);
    assert!(lent == parts.concat());
    assert!(!queue.store(SIZE_BYTES - 4096, 4608, slices()), "beyond the end");
    let read_only = store(true).open_queue(&mut ring).unwrap();
    assert!(!read_only.store(512, 4608, slices()), "read-only");
    let null = Medium::Null(NullStore::new(512, SIZE_BYTES / 512, false).unwrap());
    let null = null.open_queue(&mut ring).unwrap();
    assert!(null.store(512, 4608, slices()) && !null.store(SIZE_BYTES, 4608, slices()));
    let folder = Folder::new("at-once");
    let file = open_file(&options(&folder)).unwrap();
    let file = Medium::File(file.store).open_queue(&mut ring).unwrap();
    assert!(!file.store(0, 4608, slices()), "a file is written by a request");
}

#[test]
fn a_ram_disk_gives_back_what_was_written_and_lends_it() {
    let store = RamStore::new(512, SIZE_BYTES / 512, false).unwrap();
    let medium = Medium::Ram(store);
    let mut ring = Blocking::new();
    let mut queue = medium.open_queue(&mut ring).unwrap();
    round_trip(&mut ring, &mut queue);

    assert!(!queue.compares(0, 512) && !queue.repeats());
    let request = Request::CompareAndWrite { offset_bytes: 0, segments: vec![vec![0; 1024]] };
    assert_eq!(ring.run(&mut queue, request).result, Err(MediumError::Unsupported));

    let lent = queue.lend(8192, 4096).unwrap();
    let bytes: Vec<u8> =
        (*lent.owner).as_ref()[lent.range.clone()].iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
    assert_eq!(bytes, pattern(4096, 1));
    assert!(queue.lend(SIZE_BYTES - 512, 1024).is_none(), "beyond the end");
    drop(queue);
    drop(medium);
    assert_eq!((*lent.owner).as_ref().len(), 1 << 20, "what is lent outlives the disk");
}

#[test]
fn a_ram_disk_is_one_disk_on_every_shard() {
    let store = RamStore::new(4096, 16, false).unwrap();
    let threads: Vec<_> = (0..4u8)
        .map(|shard| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let mut ring = Blocking::new();
                let mut queue = store.open_queue(&mut ring).unwrap();
                let offset_bytes = u64::from(shard) * 4096;
                for round in 0..50 {
                    let segments = vec![pattern(4096, shard ^ round)];
                    let write = Request::Write { offset_bytes, segments, durable: false };
                    assert_eq!(ring.run(&mut queue, write).result, Ok(()));
                    let read = Request::Read { offset_bytes, segments: vec![vec![0; 4096]] };
                    assert_eq!(ring.run(&mut queue, read).segments.unwrap()[0], pattern(4096, shard ^ round));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn of_two_writers_of_the_same_pages_of_a_ram_disk_all_of_one_is_there() {
    const LENGTH: usize = 16 << 10;
    let store = RamStore::new(512, 64, false).unwrap();
    let barrier = Arc::new(Barrier::new(2));
    let threads: Vec<_> = [b'a', b'b']
        .map(|byte| {
            let (store, barrier) = (Arc::clone(&store), Arc::clone(&barrier));
            std::thread::spawn(move || {
                let mut ring = Blocking::new();
                let mut queue = store.open_queue(&mut ring).unwrap();
                for round in 0..2000 {
                    barrier.wait();
                    let segments = vec![vec![byte; 1000], vec![byte; LENGTH - 1000]];
                    let mut request = Request::Write { offset_bytes: 512, segments, durable: false };
                    // Who finds the other there comes again.
                    while let Err(QueueFull(again)) = queue.submit(&mut ring, Tag(round), request) {
                        request = again;
                        std::hint::spin_loop();
                    }
                    barrier.wait();
                    let read = Request::Read { offset_bytes: 512, segments: vec![vec![0; LENGTH]] };
                    let there = ring.run(&mut queue, read).segments.unwrap().remove(0);
                    assert!(there.iter().all(|other| *other == there[0]), "both are there in round {round}");
                }
            })
        })
        .into_iter()
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn who_reads_a_block_beside_its_writer_sees_bytes_of_the_old_or_the_new() {
    let memory = Arc::new(SharedMemory::new(4096).unwrap());
    let written = Arc::clone(&memory);
    let writer = std::thread::spawn(move || {
        for round in 0..2000 {
            written.copy_in(0, &[if round % 2 == 0 { b'o' } else { b'n' }; 4096]);
        }
    });
    let mut block = [0; 4096];
    while !writer.is_finished() {
        memory.copy_out(0, &mut block);
        assert!(block.iter().all(|byte| [0, b'o', b'n'].contains(byte)));
    }
    writer.join().unwrap();
    memory.copy_out(0, &mut block);
    assert_eq!(block, [b'n'; 4096]);
    let beyond = AssertUnwindSafe(|| memory.copy_in(4000, &[0; 97]));
    assert!(std::panic::catch_unwind(beyond).is_err(), "no byte beyond the end is touched");
}

#[test]
fn a_null_medium_forgets_writes_and_lends_zeroes() {
    let medium = Medium::Null(NullStore::new(512, 1 << 40, false).unwrap());
    let mut ring = Blocking::new();
    let mut queue = medium.open_queue(&mut ring).unwrap();
    let write = Request::Write { offset_bytes: 0, segments: vec![vec![1; 512]], durable: false };
    assert_eq!(ring.run(&mut queue, write).result, Ok(()));
    let done = ring.run(&mut queue, Request::Read { offset_bytes: 0, segments: vec![vec![1; 512]] });
    assert_eq!(done.segments.unwrap(), [vec![0; 512]]);
    assert!(queue.compares(0, 512) && queue.repeats());
    let mut compare = |first: u8| {
        let segments = vec![vec![first], vec![0; 511], vec![7; 512]];
        let done = ring.run(&mut queue, Request::CompareAndWrite { offset_bytes: 0, segments });
        (done.result, done.segments.map(|segments| segments.concat().len()))
    };
    assert_eq!(compare(0), (Ok(()), Some(1024)));
    assert_eq!(compare(1), (Err(MediumError::Differs), Some(1024)));
    let repeat =
        |offset_bytes| Request::Repeat { offset_bytes, length_bytes: 1 << 20, segments: vec![vec![1; 512]] };
    assert_eq!(ring.run(&mut queue, repeat(512)).result, Ok(()));
    assert_eq!(ring.run(&mut queue, repeat((1 << 49) - 512)).result, Err(MediumError::BeyondEnd));
    let lent = queue.lend((1 << 49) - (8 << 20), 8 << 20).unwrap();
    assert_eq!(lent.range, 0..8 << 20);
    assert!((*lent.owner).as_ref()[lent.range].iter().all(|byte| byte.load(Ordering::Relaxed) == 0));
    let beyond = Request::Read { offset_bytes: 1 << 49, segments: vec![vec![1; 512]] };
    assert_eq!(ring.run(&mut queue, beyond).result, Err(MediumError::BeyondEnd));
}

#[test]
fn a_file_is_created_sparse_and_gives_back_what_was_written_after_it_was_opened_again() {
    let folder = Folder::new("create");
    let opened = open_file(&options(&folder)).unwrap();
    assert!(opened.created && opened.warnings.is_empty(), "{opened:?}");
    let metadata = fs::metadata(folder.0.join("medium")).unwrap();
    assert_eq!(metadata.len(), SIZE_BYTES);
    assert_eq!((metadata.blocks(), metadata.mode() & 0o777), (0, 0o600));
    assert_eq!(opened.store.geometry().blocks, SIZE_BYTES / 512);
    assert!(opened.store.geometry().volatile_cache);

    let mut ring = Blocking::new();
    let medium = Medium::File(opened.store);
    let mut queue = medium.open_queue(&mut ring).unwrap();
    round_trip(&mut ring, &mut queue);
    queue.close(&mut ring);
    assert_eq!(ring.files(), 0);
    drop(medium);

    let again = open_file(&FileOptions { read_only: true, size_bytes: None, ..options(&folder) }).unwrap();
    assert!(!again.created);
    let mut queue = again.store.open_queue(&mut ring).unwrap();
    let done = ring.run(&mut queue, Request::Read { offset_bytes: 8192, segments: vec![vec![0; 4096]] });
    assert_eq!(done.segments.unwrap()[0], pattern(4096, 1));
}

#[test]
fn requests_that_the_kernel_cuts_short_are_whole_all_the_same() {
    let folder = Folder::new("short");
    let medium = Medium::File(open_file(&options(&folder)).unwrap().store);
    let mut ring = Blocking::new();
    ring.piece_max = 1000;
    let mut queue = medium.open_queue(&mut ring).unwrap();
    round_trip(&mut ring, &mut queue);
}

#[test]
fn a_file_is_opened_by_one_and_the_error_names_the_holder() {
    let folder = Folder::new("lock");
    let held = open_file(&options(&folder)).unwrap();
    let refused = open_file(&options(&folder)).unwrap_err();
    assert!(matches!(refused, OpenError::Held { .. }), "{refused}");
    assert!(refused.to_string().contains("this process has it open already"), "{refused}");
    let reader = FileOptions { read_only: true, ..options(&folder) };
    assert!(matches!(open_file(&reader).unwrap_err(), OpenError::Held { .. }), "a writer excludes readers");
    drop(held);
    let (first, second) = (open_file(&reader).unwrap(), open_file(&reader).unwrap());
    assert_eq!(first.store.geometry(), second.store.geometry());
    assert!(
        matches!(open_file(&options(&folder)).unwrap_err(), OpenError::Held { .. }),
        "readers exclude a writer"
    );
}

#[test]
fn the_lock_lasts_as_long_as_a_queue_is_open() {
    let folder = Folder::new("queue-lock");
    let mut ring = Blocking::new();
    let opened = open_file(&options(&folder)).unwrap();
    let queue = opened.store.open_queue(&mut ring).unwrap();
    drop(opened);
    assert!(matches!(open_file(&options(&folder)).unwrap_err(), OpenError::Held { .. }));
    queue.close(&mut ring);
    open_file(&options(&folder)).unwrap();
}

#[test]
fn a_file_under_another_name_is_held_too() {
    let folder = Folder::new("names");
    let _held = open_file(&options(&folder)).unwrap();
    let (medium, hard, soft) = (folder.0.join("medium"), folder.0.join("hard"), folder.0.join("soft"));
    fs::hard_link(&medium, &hard).unwrap();
    std::os::unix::fs::symlink(&medium, &soft).unwrap();
    for path in [hard, soft] {
        let other = FileOptions { path, ..options(&folder) };
        assert!(matches!(open_file(&other).unwrap_err(), OpenError::Held { .. }));
    }
}

#[test]
fn a_short_file_grows_of_a_long_one_a_part_is_served_and_a_strange_size_is_refused() {
    let folder = Folder::new("size");
    let path = folder.0.join("medium");
    fs::write(&path, vec![0; 3 * 512]).unwrap();
    let short = FileOptions { read_only: true, ..options(&folder) };
    let opened = open_file(&short).unwrap();
    let shorter = Warning::Shorter { size_bytes: 3 * 512, asked_bytes: SIZE_BYTES };
    assert_eq!((opened.store.geometry().blocks, opened.warnings), (3, vec![shorter]));
    drop(opened.store);
    let part = FileOptions { size_bytes: Some(1024), ..options(&folder) };
    let opened = open_file(&part).unwrap();
    let served = Warning::ServedInPart { size_bytes: 3 * 512, asked_bytes: 1024 };
    assert_eq!((opened.store.geometry().blocks, opened.warnings), (2, vec![served]));
    assert_eq!(fs::metadata(&path).unwrap().len(), 3 * 512, "and the rest is left alone");
    drop(opened.store);
    assert_eq!(open_file(&options(&folder)).unwrap().store.geometry().size_bytes(), SIZE_BYTES);
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE_BYTES);
    fs::write(&path, vec![0; 3 * 512]).unwrap();

    let large_blocks = FileOptions { block_length: 4096, size_bytes: None, ..options(&folder) };
    assert!(matches!(open_file(&large_blocks).unwrap_err(), OpenError::UnevenSize { size_bytes: 1536, .. }));
    let odd_blocks = FileOptions { block_length: 520, ..options(&folder) };
    assert!(matches!(open_file(&odd_blocks).unwrap_err(), OpenError::BlockLength(520)));
    fs::write(&path, []).unwrap();
    let empty = FileOptions { size_bytes: None, ..options(&folder) };
    assert!(matches!(open_file(&empty).unwrap_err(), OpenError::Empty(_)));
    fs::remove_file(&path).unwrap();
    assert!(matches!(open_file(&empty).unwrap_err(), OpenError::NoSize(_)));
    let uneven = FileOptions { size_bytes: Some(1000), ..options(&folder) };
    assert!(matches!(open_file(&uneven).unwrap_err(), OpenError::UnevenSize { .. }));
    assert!(!path.exists(), "what is refused leaves nothing behind");
}

#[test]
fn what_is_no_file_or_no_device_is_told() {
    let folder = Folder::new("kind");
    let directory = FileOptions { size_bytes: None, ..FileOptions::new(&folder.0) };
    assert!(matches!(open_file(&directory).unwrap_err(), OpenError::NotAFile(_)));
    let device = FileOptions { size_bytes: None, ..FileOptions::new("/dev/null") };
    assert!(matches!(open_file(&device).unwrap_err(), OpenError::NotAFile(_)));
    let path = folder.0.join("medium");
    fs::write(&path, [0; 512]).unwrap();
    assert!(matches!(open_block(&BlockOptions::new(path)).unwrap_err(), OpenError::NotABlockDevice(_)));
}

#[test]
fn preallocation_takes_the_space_at_once() {
    let folder = Folder::new("preallocate");
    let opened = open_file(&FileOptions { preallocate: true, ..options(&folder) }).unwrap();
    if opened.warnings.is_empty() {
        assert!(fs::metadata(folder.0.join("medium")).unwrap().blocks() * 512 >= SIZE_BYTES);
    } else {
        assert_eq!(opened.warnings, [Warning::NotPreallocated]);
    }
}

#[test]
fn o_direct_is_taken_where_blocks_allow_it_and_else_said_to_be_missing() {
    let folder = Folder::new("direct");
    let opened = open_file(&FileOptions { o_direct: true, block_length: 4096, ..options(&folder) }).unwrap();
    let geometry = opened.store.geometry();
    if opened.store.caching().direct {
        assert!(geometry.offset_alignment <= 4096 && geometry.memory_alignment > 1);
    } else {
        assert!(matches!(opened.warnings[..], [Warning::NotDirect { block_length: 4096, .. }]));
        assert_eq!((geometry.memory_alignment, geometry.offset_alignment), (1, 1));
    }
}

#[test]
fn write_through_and_nv_cache_have_no_volatile_cache() {
    let folder = Folder::new("caching");
    for (write_through, nv_cache) in [(true, false), (false, true)] {
        let opened = open_file(&FileOptions { write_through, nv_cache, ..options(&folder) }).unwrap();
        assert!(!opened.store.geometry().volatile_cache);
    }
}

#[test]
fn a_resized_file_is_noticed() {
    let folder = Folder::new("resize");
    let opened = open_file(&options(&folder)).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(folder.0.join("medium")).unwrap();
    file.write_all(&[0; 4096]).unwrap();
    assert_eq!(current_size_bytes(&opened.store).unwrap(), Some(SIZE_BYTES + 4096));
    assert_eq!(opened.store.geometry().size_bytes(), SIZE_BYTES, "what is served does not change by itself");
    let medium = Medium::File(opened.store);
    assert_eq!(medium.resize(None).unwrap(), SIZE_BYTES + 4096);
    assert_eq!(medium.geometry().size_bytes(), SIZE_BYTES + 4096);
}

#[test]
fn every_medium_with_a_size_of_its_own_grows_under_its_queues_and_never_forgets() {
    let folder = Folder::new("grow");
    let file = open_file(&options(&folder)).unwrap().store;
    let ram = RamStore::new(512, SIZE_BYTES / 512, false).unwrap();
    let null = NullStore::new(512, SIZE_BYTES / 512, false).unwrap();
    for medium in [Medium::File(file), Medium::Ram(ram), Medium::Null(null)] {
        let keeps = !matches!(medium, Medium::Null(_));
        let mut ring = Blocking::new();
        let mut queue = medium.open_queue(&mut ring).unwrap();
        let at_the_end = |offset_bytes| Request::Read { offset_bytes, segments: vec![vec![0xff; 512]] };
        let beyond = ring.run(&mut queue, at_the_end(SIZE_BYTES));
        assert_eq!(beyond.result, Err(MediumError::BeyondEnd));
        assert_eq!(medium.resize(Some(2 * SIZE_BYTES)), Ok(2 * SIZE_BYTES));
        let fresh = ring.run(&mut queue, at_the_end(SIZE_BYTES));
        assert_eq!((fresh.result, fresh.segments), (Ok(()), Some(vec![vec![0; 512]])));
        let offset_bytes = 2 * SIZE_BYTES - 512;
        let request = Request::Write { offset_bytes, segments: vec![pattern(512, 9)], durable: false };
        assert_eq!(ring.run(&mut queue, request).result, Ok(()));
        assert_eq!(medium.resize(Some(512)), Ok(512), "the unit shrinks, the medium need not");
        assert_eq!(medium.resize(Some(2 * SIZE_BYTES)), Ok(2 * SIZE_BYTES));
        let read = ring.run(&mut queue, at_the_end(offset_bytes)).segments.unwrap();
        assert_eq!(read[0] == pattern(512, 9), keeps);
        queue.close(&mut ring);
    }
}

#[test]
fn a_ram_disk_refuses_more_than_there_are_addresses_for() {
    let medium = Medium::Ram(RamStore::new(512, SIZE_BYTES / 512, false).unwrap());
    assert!(medium.resize(Some(1 << 60)).unwrap_err().contains("bytes of memory"));
    assert_eq!(medium.geometry().size_bytes(), SIZE_BYTES);
}

/// A folder of this test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portico-backstores-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Clears a range of which the ends are no pages, and looks at it and its neighbours.
fn clear_and_look(ring: &mut Blocking, queue: &mut MediumQueue<Segments>, deallocate: bool) {
    let filled = Request::Write { offset_bytes: 0, segments: vec![vec![0xaa; 65536]], durable: false };
    assert_eq!(ring.run(queue, filled).result, Ok(()));
    let clear = Request::Clear { offset_bytes: 512, length_bytes: 40_960, deallocate };
    assert_eq!(ring.run(queue, clear).result, Ok(()));
    let read = Request::Read { offset_bytes: 0, segments: vec![vec![0xff; 65536]] };
    let bytes = ring.run(queue, read).segments.unwrap().concat();
    let expected = [vec![0xaa; 512], vec![0; 40_960], vec![0xaa; 65536 - 512 - 40_960]].concat();
    assert!(bytes == expected, "deallocate: {deallocate}");
    let beyond = Request::Clear { offset_bytes: SIZE_BYTES - 512, length_bytes: 1024, deallocate };
    assert_eq!(ring.run(queue, beyond).result, Err(MediumError::BeyondEnd));
}

#[test]
fn a_cleared_range_of_a_ram_disk_reads_as_zeroes_and_its_neighbours_do_not() {
    let medium = Medium::Ram(RamStore::new(512, SIZE_BYTES / 512, false).unwrap());
    let mut ring = Blocking::new();
    let mut queue = medium.open_queue(&mut ring).unwrap();
    clear_and_look(&mut ring, &mut queue, true);
    clear_and_look(&mut ring, &mut queue, false);
}

#[test]
fn space_of_a_file_is_given_back_and_its_size_stays() {
    let folder = Folder::new("cleared");
    let opened = open_file(&options(&folder)).unwrap();
    let mut ring = Blocking::new();
    let mut queue = Medium::File(Arc::clone(&opened.store)).open_queue(&mut ring).unwrap();
    clear_and_look(&mut ring, &mut queue, true);
    assert_eq!(ring.run(&mut queue, Request::Flush).result, Ok(()));
    let metadata = fs::metadata(folder.0.join("medium")).unwrap();
    assert_eq!(metadata.len(), SIZE_BYTES);
    assert!(metadata.blocks() * 512 <= 65536 - 36_864, "{} blocks are allocated", metadata.blocks());
}
