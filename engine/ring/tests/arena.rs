//! Buffers of an arena: every byte has one holder, and every chunk comes back.

use portico_ring::{
    Arena, ArenaOptions, Buffer, Class, Message, MessageLimits, Pages, SEGMENTS_MAX, Segments,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

const OPTIONS: ArenaOptions = ArenaOptions { small: 6, medium: 3, large: 2 };

fn used(arena: &Arena) -> usize {
    Class::ALL.into_iter().map(|class| arena.usage(class).used as usize).sum()
}

#[test]
fn chunks_are_aligned_to_their_size_and_run_out_class_by_class() {
    let arena = Arena::new(OPTIONS).unwrap();
    for (class, total) in [(Class::Small, 6), (Class::Medium, 3), (Class::Large, 2)] {
        let taken: Vec<Buffer> = std::iter::from_fn(|| arena.take(class)).collect();
        assert_eq!(taken.len(), total);
        for buffer in &taken {
            assert_eq!((buffer.len(), buffer.capacity()), (class.bytes(), class.bytes()));
            assert!(buffer.is_aligned(class.bytes() - 1), "{buffer:?}");
        }
    }
    assert_eq!(used(&arena), 0);
}

#[test]
fn a_chunk_is_free_when_its_last_range_is_dropped() {
    let arena = Arena::new(ArenaOptions { small: 1, medium: 0, large: 0 }).unwrap();
    let mut rest = arena.take(Class::Small).unwrap();
    let front = rest.split_to(100);
    drop(rest);
    assert!(arena.take(Class::Small).is_none());
    drop(front);
    assert!(arena.take(Class::Small).is_some());
}

#[test]
fn a_buffer_keeps_the_memory_of_a_dropped_arena() {
    let arena = Arena::new(OPTIONS).unwrap();
    let mut buffer = arena.take(Class::Large).unwrap();
    drop(arena);
    buffer.fill(7);
    assert!(buffer.iter().all(|&byte| byte == 7));
}

#[test]
fn a_truncated_buffer_can_be_shown_whole_again_but_no_further() {
    let arena = Arena::new(OPTIONS).unwrap();
    let mut buffer = arena.take(Class::Small).unwrap();
    buffer[4095] = 9;
    buffer.truncate(10);
    assert_eq!((buffer.len(), buffer.capacity()), (10, 4096));
    buffer.set_len(4096);
    assert_eq!(buffer[4095], 9);
    let tail = buffer.split_off(1000);
    assert_eq!((buffer.capacity(), tail.capacity()), (1000, 3096));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| buffer.set_len(1001))).is_err());
}

#[test]
fn a_size_that_no_machine_has_is_refused() {
    assert!(Arena::new(ArenaOptions { small: 0, medium: 0, large: u32::MAX }).is_err());
    assert_eq!(Class::fitting(4097), Some(Class::Medium));
    assert_eq!(Class::fitting(262_145), None);
}

#[test]
fn a_list_takes_its_fill_gives_back_the_rest_and_counts_its_bytes() {
    let arena = Arena::new(OPTIONS).unwrap();
    let mut list = Segments::with_capacity(2);
    assert!(list.capacity() <= SEGMENTS_MAX);
    for _ in 0..list.capacity() {
        let buffer = arena.take(Class::Small).unwrap();
        list.push_range(buffer, 1..513).unwrap();
    }
    let refused = list.push(arena.take(Class::Small).unwrap()).unwrap_err();
    assert_eq!(refused.len(), 4096);
    assert_eq!(list.length_bytes(), 512 * list.len());
    assert!(!list.is_aligned(511), "they begin at 1");
    list.pop().unwrap();
    assert_eq!(list.drain().count(), 1);
    assert_eq!((list.length_bytes(), list.is_empty()), (0, true));
    drop(refused);
    assert_eq!(used(&arena), 0);
}

#[test]
fn a_message_joins_headers_that_follow_each_other_and_says_when_it_is_full() {
    let arena = Arena::new(OPTIONS).unwrap();
    let mut message = Message::new(MessageLimits { parts: 2, header_bytes: 100 });
    message.push_header(48).unwrap().fill(0xff);
    assert!(message.admits(1, 52) && !message.admits(1, 53) && !message.admits(2, 0));
    // Padding of the last PDU and the header of the next are one part.
    message.push_header(4).unwrap().fill(0xff);
    message.push_header(48).unwrap().fill(0xff);
    assert!(message.push_header(1).is_none(), "the slab is full");
    message.push_buffer(arena.take(Class::Small).unwrap()).unwrap();
    let refused = message.push_buffer(arena.take(Class::Small).unwrap()).unwrap_err();
    assert_eq!((message.length_bytes(), refused.len()), (100 + 4096, 4096));
    drop(refused);

    message.clear();
    assert_eq!((message.length_bytes(), used(&arena)), (0, 0));
    assert!(message.push_header(100).unwrap().iter().all(|&byte| byte == 0), "no byte of an earlier header");
}

/// One step of a random life.
#[derive(Clone, Copy, Debug)]
enum Step {
    Take(usize),
    SplitTo(usize, usize),
    SplitOff(usize, usize),
    Truncate(usize, usize),
    SetLength(usize, usize),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = || (any::<usize>(), any::<usize>());
    prop_oneof![
        any::<usize>().prop_map(Step::Take),
        numbers().prop_map(|(which, at)| Step::SplitTo(which, at)),
        numbers().prop_map(|(which, at)| Step::SplitOff(which, at)),
        numbers().prop_map(|(which, at)| Step::Truncate(which, at)),
        numbers().prop_map(|(which, at)| Step::SetLength(which, at)),
        any::<usize>().prop_map(Step::Drop),
    ]
}

/// A buffer and the byte that all it holds was filled with.
struct Holder {
    buffer: Buffer,
    mark: u8,
}

impl Holder {
    fn new(mut buffer: Buffer, mark: u8) -> Self {
        let length = buffer.len();
        buffer.set_len(buffer.capacity());
        buffer.fill(mark);
        buffer.set_len(length);
        Self { buffer, mark }
    }

    fn chunk(&self) -> (usize, Class) {
        (self.buffer.address() & !(self.buffer.class().bytes() - 1), self.buffer.class())
    }
}

fn apply(step: Step, arena: &Arena, holders: &mut Vec<Holder>, mark: u8) {
    let pick = |which: usize| (!holders.is_empty()).then(|| which % holders.len());
    match step {
        Step::Take(which) => {
            let class = Class::ALL[which % 3];
            let all_taken = arena.usage(class).used == arena.usage(class).total;
            let taken = arena.take(class);
            assert_eq!(taken.is_none(), all_taken);
            holders.extend(taken.map(|buffer| Holder::new(buffer, mark)));
        }
        Step::SplitTo(which, at) | Step::SplitOff(which, at) => {
            let Some(index) = pick(which) else { return };
            let buffer = &mut holders[index].buffer;
            let (at, before) = (at % (buffer.len() + 1), (buffer.len(), buffer.capacity()));
            let cut = if let Step::SplitTo(..) = step { buffer.split_to(at) } else { buffer.split_off(at) };
            assert_eq!((buffer.len() + cut.len(), buffer.capacity() + cut.capacity()), before);
            // An empty range at the end of a chunk has the address of the next one; that is not of interest here.
            if cut.capacity() > 0 {
                holders.push(Holder::new(cut, mark));
            }
            holders.retain(|holder| holder.buffer.capacity() > 0);
        }
        Step::Truncate(which, at) => {
            let Some(index) = pick(which) else { return };
            let buffer = &mut holders[index].buffer;
            buffer.truncate(at % (buffer.capacity() + 1));
        }
        Step::SetLength(which, length) => {
            let Some(index) = pick(which) else { return };
            let buffer = &mut holders[index].buffer;
            buffer.set_len(length % (buffer.capacity() + 1));
        }
        Step::Drop(which) => {
            let Some(index) = pick(which) else { return };
            holders.swap_remove(index);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_byte_has_two_holders_and_no_chunk_is_lost(steps in prop::collection::vec(step(), 1..80)) {
        let arena = Arena::new(OPTIONS).unwrap();
        let mut holders = Vec::new();
        for (number, &step) in steps.iter().enumerate() {
            apply(step, &arena, &mut holders, u8::try_from(number + 1).unwrap());
            let chunks: BTreeSet<_> = holders.iter().map(Holder::chunk).collect();
            prop_assert_eq!(used(&arena), chunks.len());
        }
        // Had two of them a byte in common, one would have written the other's mark.
        for holder in &mut holders {
            holder.buffer.set_len(holder.buffer.capacity());
            prop_assert!(holder.buffer.iter().all(|&byte| byte == holder.mark));
        }
        holders.clear();
        prop_assert_eq!(used(&arena), 0);
    }
}

#[test]
fn an_arena_is_short_when_less_than_a_quarter_of_its_bytes_is_free() {
    let arena = Arena::new(ArenaOptions { small: 64, medium: 0, large: 3 }).unwrap();
    let mut taken: Vec<Buffer> = (0..2).map(|_| arena.take(Class::Large).unwrap()).collect();
    taken.extend((0..64).map(|_| arena.take(Class::Small).unwrap()));
    assert!(!arena.is_short(), "256 KiB of 1 MiB");
    taken.push(arena.take(Class::Large).unwrap());
    assert!(arena.is_short());
    taken.truncate(3);
    assert!(!arena.is_short());
}

#[test]
fn an_arena_is_tight_when_half_of_its_bytes_or_of_its_small_chunks_is_taken() {
    let arena = Arena::new(ArenaOptions { small: 64, medium: 0, large: 3 }).unwrap();
    let mut taken: Vec<Buffer> = (0..32).map(|_| arena.take(Class::Small).unwrap()).collect();
    assert!(!arena.is_tight(), "one half of them");
    taken.push(arena.take(Class::Small).unwrap());
    assert!(arena.is_tight(), "though there are 896 KiB of 1 MiB");
    taken.clear();
    taken.extend((0..2).map(|_| arena.take(Class::Large).unwrap()));
    assert!(!arena.is_tight(), "512 KiB of 1 MiB");
    taken.push(arena.take(Class::Small).unwrap());
    assert!(arena.is_tight());
}

#[test]
fn memory_is_the_same_whatever_pages_it_is_made_of() {
    // As many as there are: none are set aside on most machines, and then there is none to be had.
    for pages in [Pages::Advised, Pages::Small, Pages::Reserved] {
        let options = ArenaOptions { small: 64, medium: 4, large: 8 };
        let arena = match Arena::with_pages(options, pages) {
            Err(error) if pages == Pages::Reserved => {
                assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
                continue;
            }
            arena => arena.unwrap(),
        };
        assert_eq!(
            arena.length_bytes(),
            (64 * 5 + 4 * 64 + 8 * 256) << 10,
            "with two tiny chunks for each small one"
        );
        for class in Class::ALL {
            let mut chunks: Vec<Buffer> = std::iter::from_fn(|| arena.take(class)).collect();
            assert_eq!(chunks.len(), arena.usage(class).total as usize);
            assert!(chunks.iter().all(|chunk| chunk.iter().all(|byte| *byte == 0)));
            chunks.iter_mut().for_each(|chunk| chunk.fill(1));
        }
    }
}
