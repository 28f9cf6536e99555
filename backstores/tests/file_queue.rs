//! A file's queue against a ring whose operations end as the test says.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]
#![expect(dead_code, reason = "each of the two rings is used by one of the two tests")]

mod rings;

use portico_backstores::file::RETRIES_MAX;
use portico_backstores::{
    Backstore, Caching, Completion, FileQueue, FileStore, Geometry, MediumError, Queue, QueueFull, Request,
    Submitted, Tag,
};
use rings::{Begun, Scripted, Segments};
use std::sync::Arc;

const BLOCKS: u64 = 64;

fn geometry() -> Geometry {
    Geometry {
        block_length: 512,
        blocks: BLOCKS,
        physical_block_bytes: 4096,
        memory_alignment: 1,
        offset_alignment: 512,
        rotational: false,
        volatile_cache: true,
        read_only: false,
    }
}

fn store(caching: Caching) -> Arc<FileStore> {
    FileStore::simulated(5, geometry(), caching)
}

fn queue(caching: Caching) -> (Scripted, FileQueue<Segments>) {
    let mut ring = Scripted::new();
    let queue = store(caching).open_queue(&mut ring).unwrap();
    (ring, queue)
}

fn read(offset_bytes: u64, length: usize) -> Request<Segments> {
    Request::Read { offset_bytes, segments: vec![vec![0; length]] }
}

fn write(offset_bytes: u64, length: usize) -> Request<Segments> {
    Request::Write { offset_bytes, segments: vec![vec![b'w'; length]], durable: false }
}

fn durable(offset_bytes: u64, length: usize) -> Request<Segments> {
    Request::Write { offset_bytes, segments: vec![vec![b'w'; length]], durable: true }
}

/// Submits what must go to the ring.
fn begin(ring: &mut Scripted, queue: &mut FileQueue<Segments>, tag: u64, request: Request<Segments>) {
    let submitted = queue.submit(ring, Tag(tag), request).unwrap();
    assert!(matches!(submitted, Submitted::InFlight), "{submitted:?}");
}

/// Submits what is answered at once.
fn answer(
    ring: &mut Scripted,
    queue: &mut FileQueue<Segments>,
    request: Request<Segments>,
) -> Result<(), MediumError> {
    match queue.submit(ring, Tag(0), request).unwrap() {
        Submitted::Done(completion) => completion.result,
        Submitted::InFlight => panic!("it went to the ring: {:?}", ring.operations()),
    }
}

fn summary(completion: Option<Completion<Segments>>) -> Option<(u64, Result<(), MediumError>)> {
    completion.map(|completion| (completion.tag.0, completion.result))
}

#[test]
fn a_short_read_goes_on_where_it_stopped_and_gives_its_segments_back() {
    let (mut ring, mut queue) = queue(Caching::default());
    begin(&mut ring, &mut queue, 1, read(1024, 4096));
    assert_eq!(summary(ring.end(&mut queue, Ok(1000))), None);
    assert_eq!(ring.operations(), [&Begun::Read { offset_bytes: 1024, skip_bytes: 1000 }]);
    assert_eq!(summary(ring.end(&mut queue, Ok(3000))), None);
    assert_eq!(ring.operations(), [&Begun::Read { offset_bytes: 1024, skip_bytes: 4000 }]);
    let done = ring.end(&mut queue, Ok(96)).unwrap();
    assert_eq!((done.tag, done.result), (Tag(1), Ok(())));
    assert_eq!(done.segments.unwrap()[0].len(), 4096);
    assert_eq!(Queue::<Segments>::in_flight(&queue), 0);
}

#[test]
fn past_the_page_cache_a_short_write_goes_on_at_a_whole_block() {
    let caching = Caching { direct: true, writes_punt: false, ..Caching::default() };
    let (mut ring, mut queue) = queue(caching);
    begin(&mut ring, &mut queue, 1, durable(512, 4096));
    assert_eq!(summary(ring.end(&mut queue, Ok(1300))), None);
    let again = Begun::Write { offset_bytes: 512, skip_bytes: 1024, durable: true };
    assert_eq!(ring.operations(), [&again]);
    // Less than a block more is no progress, and would go on for ever.
    assert_eq!(summary(ring.end(&mut queue, Ok(100))), Some((1, Err(MediumError::Unrecovered))));
}

fn untorn(offset_bytes: u64, segments: Segments) -> Request<Segments> {
    Request::WriteUntorn { offset_bytes, segments, durable: true }
}

#[test]
fn an_untorn_write_is_all_that_the_kernel_keeps_whole_and_nothing_of_it_goes_on_alone() {
    let caching = Caching { direct: true, writes_punt: false, untorn_bytes: 4096, ..Caching::default() };
    let (mut ring, mut queue) = queue(caching);
    begin(&mut ring, &mut queue, 1, untorn(8192, vec![vec![b'w'; 4096]]));
    assert_eq!(ring.operations(), [&Begun::WriteUntorn { offset_bytes: 8192, durable: true }]);
    assert_eq!(summary(ring.end(&mut queue, Ok(2048))), Some((1, Err(MediumError::Unrecovered))));
    let unfit = [
        untorn(512, vec![vec![b'w'; 4096]]),
        untorn(0, vec![vec![b'w'; 512]]),
        untorn(0, vec![vec![b'w'; 2048]; 2]),
    ];
    for request in unfit {
        assert_eq!(answer(&mut ring, &mut queue, request), Err(MediumError::Unsupported));
    }
}

#[test]
fn a_file_that_somebody_shortened_is_not_read_as_zeroes() {
    let (mut ring, mut queue) = queue(Caching::default());
    begin(&mut ring, &mut queue, 1, read(0, 4096));
    assert_eq!(summary(ring.end(&mut queue, Ok(512))), None);
    assert_eq!(summary(ring.end(&mut queue, Ok(0))), Some((1, Err(MediumError::BeyondEnd))));
}

#[test]
fn what_the_kernel_says_is_told_by_name() {
    let cases = [
        (libc::EIO, MediumError::Unrecovered),
        (libc::ENOSPC, MediumError::NoSpace),
        (libc::EDQUOT, MediumError::NoSpace),
        (libc::EROFS, MediumError::WriteProtected),
        (libc::EINVAL, MediumError::Refused),
        (libc::ENODEV, MediumError::Gone),
        (libc::ECANCELED, MediumError::Cancelled),
        (libc::EOVERFLOW, MediumError::Other(libc::EOVERFLOW)),
    ];
    let (mut ring, mut queue) = queue(Caching::default());
    for (errno, error) in cases {
        begin(&mut ring, &mut queue, 1, write(0, 512));
        assert_eq!(summary(ring.end(&mut queue, Err(errno))), Some((1, Err(error))));
    }
    assert!(matches!(answer_of_flush(&mut ring, &mut queue), Some(Ok(()))), "no data was lost");
}

fn answer_of_flush(ring: &mut Scripted, queue: &mut FileQueue<Segments>) -> Option<Result<(), MediumError>> {
    match queue.submit(ring, Tag(0), Request::Flush).unwrap() {
        Submitted::Done(completion) => Some(completion.result),
        Submitted::InFlight => ring.end(queue, Ok(0)).map(|completion| completion.result),
    }
}

#[test]
fn after_a_failed_flush_no_flush_succeeds_on_any_shard() {
    let store = store(Caching::default());
    let (mut here, mut there) = (Scripted::new(), Scripted::new());
    let mut on_this_shard = store.open_queue(&mut here).unwrap();
    let mut on_another = store.open_queue(&mut there).unwrap();
    // The other shard's sync runs at the same time; the kernel may tell it nothing.
    begin(&mut there, &mut on_another, 9, Request::Flush);
    begin(&mut here, &mut on_this_shard, 1, Request::Flush);
    assert_eq!(summary(here.end(&mut on_this_shard, Err(libc::EIO))), Some((1, Err(MediumError::DataLost))));
    assert_eq!(summary(there.end(&mut on_another, Ok(0))), Some((9, Err(MediumError::DataLost))));
    // A retry would be answered with success by the kernel. It is not asked.
    assert_eq!(answer(&mut here, &mut on_this_shard, Request::Flush), Err(MediumError::DataLost));
    assert_eq!(answer(&mut there, &mut on_another, Request::Flush), Err(MediumError::DataLost));
    assert!(store.has_lost_data());
    // Reads and writes go on.
    begin(&mut here, &mut on_this_shard, 2, read(0, 512));
    assert_eq!(summary(here.end(&mut on_this_shard, Ok(512))), Some((2, Ok(()))));
}

#[test]
fn a_durable_write_that_fails_through_the_page_cache_may_have_lost_other_writes_too() {
    let (mut ring, mut queue) = queue(Caching::default());
    begin(&mut ring, &mut queue, 1, durable(0, 512));
    assert_eq!(summary(ring.end(&mut queue, Err(libc::EIO))), Some((1, Err(MediumError::DataLost))));
    assert_eq!(answer(&mut ring, &mut queue, Request::Flush), Err(MediumError::DataLost));
}

#[test]
fn a_durable_write_that_fails_past_the_page_cache_fails_alone() {
    let (mut ring, mut queue) = queue(Caching { direct: true, writes_punt: false, ..Caching::default() });
    begin(&mut ring, &mut queue, 1, durable(0, 512));
    assert_eq!(summary(ring.end(&mut queue, Err(libc::EIO))), Some((1, Err(MediumError::Unrecovered))));
    assert_eq!(answer_of_flush(&mut ring, &mut queue), Some(Ok(())));
}

#[test]
fn a_durable_write_without_space_is_tried_without_the_sync_to_learn_which_of_them_failed() {
    let (mut ring, mut queue) = queue(Caching::default());
    begin(&mut ring, &mut queue, 1, durable(0, 512));
    assert_eq!(summary(ring.end(&mut queue, Err(libc::ENOSPC))), None);
    assert_eq!(ring.operations(), [&Begun::Write { offset_bytes: 0, skip_bytes: 0, durable: false }]);
    // The write itself has no space: nothing was synced, nothing is lost.
    assert_eq!(summary(ring.end(&mut queue, Err(libc::ENOSPC))), Some((1, Err(MediumError::NoSpace))));
    assert_eq!(answer_of_flush(&mut ring, &mut queue), Some(Ok(())));

    begin(&mut ring, &mut queue, 2, durable(0, 512));
    assert_eq!(summary(ring.end(&mut queue, Err(libc::ENOSPC))), None);
    // The write has space, so it was the sync that had none: a thin pool below the file system is full.
    assert_eq!(summary(ring.end(&mut queue, Ok(512))), Some((2, Err(MediumError::DataLost))));
    assert_eq!(answer(&mut ring, &mut queue, Request::Flush), Err(MediumError::DataLost));
}

#[test]
fn a_cancelled_flush_says_nothing_about_the_medium() {
    let (mut ring, mut queue) = queue(Caching::default());
    begin(&mut ring, &mut queue, 1, Request::Flush);
    assert_eq!(summary(ring.end(&mut queue, Err(libc::ECANCELED))), Some((1, Err(MediumError::Cancelled))));
    assert_eq!(answer_of_flush(&mut ring, &mut queue), Some(Ok(())));
}

#[test]
fn an_interrupted_operation_is_begun_again_but_not_for_ever() {
    let (mut ring, mut queue) = queue(Caching::default());
    begin(&mut ring, &mut queue, 1, write(0, 512));
    for _ in 0..RETRIES_MAX {
        assert_eq!(summary(ring.end(&mut queue, Err(libc::EINTR))), None);
    }
    let given_up = Some((1, Err(MediumError::Other(libc::EINTR))));
    assert_eq!(summary(ring.end(&mut queue, Err(libc::EINTR))), given_up);
}

#[test]
fn write_through_makes_every_write_durable_and_nv_cache_none() {
    let (mut ring, mut through) = queue(Caching { write_through: true, ..Caching::default() });
    begin(&mut ring, &mut through, 1, write(0, 512));
    assert_eq!(ring.operations(), [&Begun::Write { offset_bytes: 0, skip_bytes: 0, durable: true }]);

    let (mut ring, mut nv) = queue(Caching { nv_cache: true, write_through: true, ..Caching::default() });
    begin(&mut ring, &mut nv, 1, durable(0, 512));
    assert_eq!(ring.operations(), [&Begun::Write { offset_bytes: 0, skip_bytes: 0, durable: false }]);
    assert_eq!(answer(&mut ring, &mut nv, Request::Flush), Ok(()));
}

#[test]
fn what_may_be_punted_is_capped_and_waits_in_order_while_reads_pass() {
    let (mut ring, mut queue) = queue(Caching { punted_max: 2, ..Caching::default() });
    for tag in 1..=4 {
        begin(&mut ring, &mut queue, tag, write(tag * 512, 512));
    }
    begin(&mut ring, &mut queue, 5, Request::Flush);
    begin(&mut ring, &mut queue, 6, write(6 * 512, 512));
    begin(&mut ring, &mut queue, 7, read(0, 512));
    let begun = |offset_bytes| Begun::Write { offset_bytes, skip_bytes: 0, durable: false };
    let reading = Begun::Read { offset_bytes: 0, skip_bytes: 0 };
    assert_eq!(ring.operations(), [&begun(512), &begun(1024), &reading]);

    let mut done = Vec::new();
    while !ring.begun.is_empty() {
        let result = if ring.operations()[0] == &Begun::Sync { Ok(0) } else { Ok(512) };
        done.extend(summary(ring.end(&mut queue, result)).map(|(tag, _)| tag));
        let punted = ring.operations().iter().filter(|begun| !matches!(begun, Begun::Read { .. })).count();
        assert!(punted <= 2, "{:?}", ring.operations());
    }
    assert_eq!(done, [1, 2, 7, 3, 4, 5, 6]);
}

#[test]
fn a_short_write_keeps_its_place_under_the_cap() {
    let (mut ring, mut queue) = queue(Caching { punted_max: 1, ..Caching::default() });
    begin(&mut ring, &mut queue, 1, write(0, 1024));
    begin(&mut ring, &mut queue, 2, write(4096, 512));
    assert_eq!(summary(ring.end(&mut queue, Ok(512))), None);
    assert_eq!(ring.operations(), [&Begun::Write { offset_bytes: 0, skip_bytes: 512, durable: false }]);
    assert_eq!(summary(ring.end(&mut queue, Ok(512))), Some((1, Ok(()))));
    assert_eq!(summary(ring.end(&mut queue, Ok(512))), Some((2, Ok(()))));
}

#[test]
fn a_full_queue_and_a_full_ring_give_the_request_back() {
    let (mut ring, mut queue) = queue(Caching { depth: 2, ..Caching::default() });
    begin(&mut ring, &mut queue, 1, read(0, 512));
    ring.room = 1;
    let QueueFull(back) = queue.submit(&mut ring, Tag(2), read(512, 512)).unwrap_err();
    assert!(matches!(back, Request::Read { offset_bytes: 512, .. }), "{back:?}");
    ring.room = 9;
    begin(&mut ring, &mut queue, 2, back);
    let QueueFull(back) = queue.submit(&mut ring, Tag(3), Request::Flush).unwrap_err();
    assert!(matches!(back, Request::Flush));
    assert_eq!(Queue::<Segments>::in_flight(&queue), 2);
}

#[test]
fn what_waits_for_room_in_the_ring_is_begun_when_it_has_some() {
    let (mut ring, mut queue) = queue(Caching { punted_max: 1, ..Caching::default() });
    begin(&mut ring, &mut queue, 1, write(0, 512));
    begin(&mut ring, &mut queue, 2, Request::Flush);
    ring.room = 0;
    assert_eq!(summary(ring.end(&mut queue, Ok(512))), Some((1, Ok(()))));
    assert!(ring.begun.is_empty());
    ring.room = 1;
    queue.reap(&mut ring, &mut Vec::new());
    assert_eq!(ring.operations(), [&Begun::Sync]);
    assert_eq!(summary(ring.end(&mut queue, Ok(0))), Some((2, Ok(()))));
    queue.close(&mut ring);
    assert_eq!(ring.released, 1);
}

#[test]
fn what_lies_beyond_the_end_or_changes_a_read_only_medium_never_reaches_the_ring() {
    let (mut ring, mut writable) = queue(Caching::default());
    let last = (BLOCKS - 1) * 512;
    assert_eq!(answer(&mut ring, &mut writable, read(last, 1024)), Err(MediumError::BeyondEnd));
    assert_eq!(answer(&mut ring, &mut writable, write(u64::MAX, 512)), Err(MediumError::BeyondEnd));
    assert_eq!(answer(&mut ring, &mut writable, read(last, 0)), Ok(()));

    let store = FileStore::simulated(5, Geometry { read_only: true, ..geometry() }, Caching::default());
    let mut queue = store.open_queue(&mut ring).unwrap();
    assert_eq!(answer(&mut ring, &mut queue, write(0, 512)), Err(MediumError::WriteProtected));
    assert_eq!(answer(&mut ring, &mut queue, Request::Flush), Ok(()));
}

fn clear(offset_bytes: u64, length_bytes: u64) -> Request<Segments> {
    Request::Clear { offset_bytes, length_bytes, deallocate: true }
}

#[test]
fn clearing_occupies_a_worker_and_waits_for_one() {
    let (mut ring, mut queue) = queue(Caching { punted_max: 1, ..Caching::default() });
    begin(&mut ring, &mut queue, 1, clear(512, 1024));
    begin(&mut ring, &mut queue, 2, clear(4096, 512));
    assert_eq!(
        ring.operations(),
        [&Begun::Clear { offset_bytes: 512, length_bytes: 1024, deallocate: true }]
    );
    assert_eq!(summary(ring.end(&mut queue, Ok(0))), Some((1, Ok(()))));
    assert_eq!(
        ring.operations(),
        [&Begun::Clear { offset_bytes: 4096, length_bytes: 512, deallocate: true }]
    );
    assert_eq!(summary(ring.end(&mut queue, Ok(0))), Some((2, Ok(()))));
}

#[test]
fn a_medium_that_cannot_clear_says_so_and_one_that_is_full_says_that() {
    let (mut ring, mut queue) = queue(Caching::default());
    for errno in [libc::EOPNOTSUPP, libc::EBUSY, libc::EINVAL] {
        begin(&mut ring, &mut queue, 1, clear(0, 512));
        assert_eq!(summary(ring.end(&mut queue, Err(errno))), Some((1, Err(MediumError::Unsupported))));
    }
    begin(&mut ring, &mut queue, 1, clear(0, 512));
    assert_eq!(summary(ring.end(&mut queue, Err(libc::ENOSPC))), Some((1, Err(MediumError::NoSpace))));
    assert_eq!(answer(&mut ring, &mut queue, clear(512 * BLOCKS, 512)), Err(MediumError::BeyondEnd));
}
