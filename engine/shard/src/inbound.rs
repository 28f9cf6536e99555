//! The bytes that came on a connection and were not yet understood, and where the next ones shall go.
//!
//! A receive has up to three kinds of places, in order: what is missing of the PDU at hand goes into slots of its own,
//! aligned as a medium wants it; predicted PDUs go into pairs of a header window and an aligned slot; everything else goes
//! into staging. A wrong prediction costs a copy, never a byte. Nothing here knows what a PDU means.

use std::collections::VecDeque;
use std::ops::Range;

use portico_ring::{Arena, Buffer, Class, Segments};

/// Bytes of a Basic Header Segment (RFC 7143 §11.2.1).
pub const HEADER_BYTES: usize = 48;

/// A data segment from this size on is worth a slot and a receive of its own.
pub const LARGE_DATA_BYTES: usize = 16 << 10;

/// PDUs without large data after which staging is used in full again: more than the commands of a usual window, which
/// come between the data of two R2Ts.
const LARGE_HOLD: u8 = 64;

/// Equal small writes in a row after which the next ones are predicted.
const STREAK_MIN: u8 = 4;

/// Header and slot pairs of one receive.
const PREDICTED_MAX: usize = 30;

/// Headers between the data of two writes that are still a pattern: a command, and the Data-Out behind it.
const STREAK_HEADERS_MAX: u8 = 2;

/// Staging that is smaller than this is given up for a new chunk, where it cannot be reclaimed.
const STAGING_TAIL_MIN: usize = 1 << 10;

/// Segments that the list of one receive must have room for.
pub const RECEIVE_SEGMENTS: usize = 64;

const _: () = assert!(2 * PREDICTED_MAX + 3 <= RECEIVE_SEGMENTS);

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Inbound {
    arrived: VecDeque<Buffer>,
    arrived_bytes: usize,
    unfilled: VecDeque<Buffer>,
    /// Whether places behind what is missing were predicted for the receive that is under way, or are left of it.
    is_predicted: bool,
    staging: Option<Buffer>,
    staging_class: Class,
    /// Whether the last place of the receive that is under way is staging.
    staging_planned: bool,
    large_hold: u8,
    streak: Streak,
    frame: Frame,
    copied_bytes: u64,
}

/// What stands around data segments on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// A header without AHS: BHS and header digest.
    pub header_bytes: usize,
    /// What follows a data segment: the data digest.
    pub trailer_bytes: usize,
}

impl Frame {
    /// Without digests.
    pub const BARE: Self = Self { header_bytes: HEADER_BYTES, trailer_bytes: 0 };
}

/// What the last PDUs looked like, for a session whose media want aligned memory.
#[derive(Debug, Default, Clone, Copy)]
struct Streak {
    /// Headers in front of each data segment.
    headers: u8,
    data_bytes: usize,
    /// How often it was so in a row.
    length: u8,
    /// Headers since the last data segment.
    pending: u8,
}

/// What a receive shall be planned for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expectation {
    /// Bytes missing of the PDU whose header is known, its data digest included; 0 between PDUs.
    pub missing_bytes: usize,
    /// Of what has arrived, bytes that belong to that PDU's data segment.
    pub arrived_data_bytes: usize,
    /// Whether the data shall end in memory that a medium can take directly (O_DIRECT).
    pub aligned: bool,
    /// Nobody wants what is missing: it is thrown away as it comes, and needs no more memory than staging is.
    pub is_unwanted: bool,
}

impl Inbound {
    /// Nothing arrived; staging of a few headers until there is traffic.
    #[must_use]
    pub fn new() -> Self {
        Self {
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            unfilled: VecDeque::new(),
            is_predicted: false,
            staging: None,
            staging_class: Class::Tiny,
            staging_planned: false,
            large_hold: 0,
            streak: Streak::default(),
            frame: Frame::BARE,
            copied_bytes: 0,
        }
    }

    /// From here on PDUs are framed like this.
    pub fn frame_by(&mut self, frame: Frame) {
        self.frame = frame;
    }

    /// Puts bytes in front of everything that will come: what another shard had received.
    ///
    /// Returns `false` where the arena has no memory for them.
    pub fn inject(&mut self, arena: &Arena, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some(mut buffer) = take_fitting(arena, bytes.len()) else { return false };
            let (now, later) = bytes.split_at(bytes.len().min(buffer.capacity()));
            buffer.set_len(now.len());
            buffer.copy_from_slice(now);
            self.push(buffer);
            bytes = later;
        }
        true
    }

    /// Fills `list` with the places for the next receive. An empty list means that the arena has nothing left.
    pub fn plan(&mut self, arena: &Arena, expected: Expectation, list: &mut Segments) {
        debug_assert!(list.is_empty());
        if self.is_predicted && !self.prediction_holds(expected) {
            // Its places would take what comes now in pieces of the wrong lengths.
            self.unfilled.clear();
        }
        let mut planned = 0;
        while let Some(buffer) = self.unfilled.pop_front() {
            planned += buffer.len();
            list.push(buffer).expect("no more is left unfilled than was planned");
        }
        let missing = expected.missing_bytes.saturating_sub(planned);
        // The digest goes where the next header goes, so that slots are as large as the data.
        let trailer = missing.min(self.frame.trailer_bytes);
        // What is left of a prediction ends where a PDU ends, and the next pairs go on from there.
        let mut predicted = self.is_predicted && planned > expected.missing_bytes;
        if missing > 0 && !expected.is_unwanted && !self.fits_staging(expected) {
            self.plan_slots(arena, expected, missing - trailer, list);
        } else if expected.aligned && (predicted || planned == 0 && missing == 0 && self.arrived_bytes == 0) {
            let pending = if predicted { 0 } else { self.streak.pending };
            self.plan_prediction(arena, pending, list);
            predicted = !list.is_empty();
        }
        self.is_predicted = predicted;
        self.staging_planned = false;
        // Staging behind pairs would take what comes after them unaligned.
        if !predicted {
            self.plan_staging(arena, if expected.is_unwanted { missing } else { trailer }, list);
        }
    }

    /// Whether what is left of a prediction begins with what the connection needs next: the rest of this data segment,
    /// of its digest and the headers behind it, or of the headers before the next one.
    fn prediction_holds(&self, expected: Expectation) -> bool {
        let Some(front) = self.unfilled.front() else { return true };
        let Frame { header_bytes, trailer_bytes } = self.frame;
        let Expectation { missing_bytes: missing, .. } = expected;
        let headers = usize::from(self.streak.headers) * header_bytes;
        if missing > trailer_bytes {
            return front.len() == missing - trailer_bytes;
        }
        if missing > 0 {
            // Behind the last pair there is the digest alone.
            return front.len() == missing + headers || front.len() == missing && self.unfilled.len() == 1;
        }
        let come = usize::from(self.streak.pending) * header_bytes + self.arrived_bytes;
        come < headers && front.len() == headers - come
    }

    fn fits_staging(&self, expected: Expectation) -> bool {
        let room = self.staging.as_ref().map_or(0, Buffer::len);
        expected.missing_bytes < LARGE_DATA_BYTES && expected.missing_bytes + self.frame.header_bytes <= room
    }

    /// Slots for `missing` bytes of a data segment, and the part of it that has arrived moved in front of them.
    fn plan_slots(&mut self, arena: &Arena, expected: Expectation, mut missing: usize, list: &mut Segments) {
        let mut carried = if expected.aligned { expected.arrived_data_bytes } else { 0 };
        if carried > Class::Large.bytes() {
            carried = 0; // a segment of that size is gathered in pieces anyhow
        }
        while missing > 0 && list.len() + 1 < list.capacity() {
            let Some(mut slot) = take_fitting(arena, missing + carried) else { return };
            if carried > 0 && slot.capacity() > carried {
                slot.set_len(slot.capacity());
                let head = slot.split_to(carried);
                self.move_tail_into(head);
            }
            carried = 0;
            let length = missing.min(slot.capacity());
            slot.set_len(length);
            missing -= length;
            list.push(slot).expect("there is room for one more");
        }
    }

    /// Replaces the last `head.len()` bytes that arrived by a copy of them in `head`.
    fn move_tail_into(&mut self, mut head: Buffer) {
        let mut at = head.len();
        self.copied_bytes += at as u64;
        while at > 0 {
            let mut last = self.arrived.pop_back().expect("the data counted as arrived have arrived");
            let tail = last.len().min(at);
            let keep = last.len() - tail;
            head[at - tail..at].copy_from_slice(&last[keep..]);
            at -= tail;
            if keep > 0 {
                last.truncate(keep);
                self.arrived.push_back(last);
            }
        }
        self.arrived.push_back(head);
    }

    /// Pairs of a header window and a slot, for a stream of equal small writes. `pending` headers of the first write have
    /// come already.
    fn plan_prediction(&mut self, arena: &Arena, pending: u8, list: &mut Segments) {
        let Streak { headers: each, data_bytes, length, .. } = self.streak;
        if length < STREAK_MIN || pending >= each || list.len() / 2 >= PREDICTED_MAX || arena.is_short() {
            return;
        }
        let Some(mut headers) = arena.take(Class::Small) else { return };
        let Frame { header_bytes, trailer_bytes } = self.frame;
        let (mut window, mut pairs) = (usize::from(each - pending) * header_bytes, 0);
        while list.len() + 1 < 2 * PREDICTED_MAX {
            // Never a larger one: a few small writes in large chunks would hold all there is.
            let Some(mut slot) = Class::fitting(data_bytes).and_then(|class| arena.take(class)) else {
                break;
            };
            slot.set_len(data_bytes);
            list.push(headers.split_to(window)).expect("the list has room for all pairs");
            list.push(slot).expect("the list has room for all pairs");
            window = trailer_bytes + usize::from(each) * header_bytes;
            pairs += 1;
        }
        if pairs > 0 && trailer_bytes > 0 {
            // A prediction ends where a PDU ends.
            list.push(headers.split_to(trailer_bytes)).expect("the list has room for all pairs");
        }
    }

    /// `ahead` bytes come before the next header.
    fn plan_staging(&mut self, arena: &Arena, ahead: usize, list: &mut Segments) {
        let class = if arena.is_short() { self.staging_class.min(Class::Small) } else { self.staging_class };
        let mut staging = self.staging.take();
        if let Some(buffer) = &mut staging {
            let spent = !buffer.reclaim() && buffer.len() < STAGING_TAIL_MIN;
            staging = staging.filter(|buffer| !spent && buffer.class() == class);
        }
        let Some(mut buffer) = staging.or_else(|| take_staging(arena, class)) else { return };
        let window = ahead + self.frame.header_bytes;
        if self.large_hold > 0 && buffer.len() > window {
            // Data are large: take the next header and not a byte of its data, which then come into a slot.
            self.staging = Some(buffer.split_off(window));
        }
        list.push(buffer).expect("the list has room for staging");
        self.staging_planned = true;
    }

    /// The receive that was planned brought `length` bytes.
    ///
    /// # Panics
    /// When they are more than the places hold.
    pub fn fill(&mut self, list: &mut Segments, mut length: usize) {
        let planned = list.length_bytes();
        let last = list.len().saturating_sub(1);
        let full = length == planned;
        for (at, segment) in list.drain().enumerate() {
            let mut buffer = segment.into_buffer();
            if length >= buffer.len() {
                length -= buffer.len();
                self.push(buffer);
                continue;
            }
            if length > 0 {
                self.push(buffer.split_to(length));
                length = 0;
            }
            if at < last || !self.staging_planned {
                self.unfilled.push_back(buffer);
            } else {
                self.keep_staging(buffer);
            }
        }
        assert_eq!(length, 0, "the kernel received more than it was given room for");
        self.adapt_staging(full);
    }

    fn keep_staging(&mut self, mut buffer: Buffer) {
        if let Some(rest) = self.staging.take() {
            // The rest was set aside by `plan_staging`; undo the split where nothing came between.
            if let Err(rest) = buffer.join(rest) {
                buffer = rest;
            }
        }
        self.staging = Some(buffer);
    }

    fn adapt_staging(&mut self, full: bool) {
        if full && self.staging_planned && self.large_hold == 0 {
            self.staging_class = match self.staging_class {
                Class::Tiny => Class::Small,
                Class::Small => Class::Medium,
                Class::Medium | Class::Large => Class::Large,
            };
        }
    }

    fn push(&mut self, buffer: Buffer) {
        self.arrived_bytes += buffer.len();
        let apart = match self.arrived.back_mut() {
            Some(last) => last.join(buffer).err(),
            None => Some(buffer),
        };
        self.arrived.extend(apart);
    }

    /// Whether the next receive has one place, or two.
    #[must_use]
    pub fn plans_little(&self, expected: Expectation) -> bool {
        let predicts = expected.aligned && self.streak.length >= STREAK_MIN;
        expected.missing_bytes == 0 && self.unfilled.is_empty() && !predicts
    }

    /// Whether it holds more than one that has just begun, and nothing of a PDU.
    #[must_use]
    pub fn could_rest(&self) -> bool {
        self.is_empty() && (self.staging_class > Class::Tiny || !self.unfilled.is_empty())
    }

    /// Lets go of all places, and begins again with staging of a few headers. No receive is under way.
    pub fn rest(&mut self) {
        debug_assert!(self.is_empty(), "what has come is lost");
        self.unfilled.clear();
        self.is_predicted = false;
        self.staging = None;
        self.staging_class = Class::Tiny;
        self.staging_planned = false;
        self.large_hold = 0;
        self.streak = Streak::default();
    }

    /// Large data will come, behind up to [`LARGE_HOLD`] headers.
    pub fn expect_large_data(&mut self) {
        self.large_hold = LARGE_HOLD;
    }

    /// Tells of a PDU whose header was taken, to plan the next receives by it.
    pub fn saw(&mut self, data_bytes: usize) {
        if data_bytes >= LARGE_DATA_BYTES {
            self.large_hold = LARGE_HOLD;
        } else {
            self.large_hold = self.large_hold.saturating_sub(1);
        }
        if data_bytes == 0 {
            self.streak.pending = self.streak.pending.saturating_add(1);
            return;
        }
        let headers = self.streak.pending.saturating_add(1);
        let predictable =
            headers <= STREAK_HEADERS_MAX && data_bytes < LARGE_DATA_BYTES && data_bytes.is_multiple_of(512);
        let same = self.streak.data_bytes == data_bytes && self.streak.headers == headers;
        let length = match (predictable, same) {
            (true, true) => self.streak.length.saturating_add(1),
            (true, false) => 1,
            (false, _) => 0,
        };
        self.streak = Streak { headers, data_bytes, length, pending: 0 };
    }

    /// Bytes that have arrived.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arrived_bytes
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arrived_bytes == 0
    }

    /// The first bytes that arrived, where as many lie in one place.
    #[must_use]
    #[inline]
    pub fn front<const N: usize>(&self) -> Option<&[u8; N]> {
        self.arrived.front()?.first_chunk()
    }

    /// Copies the first bytes that arrived without taking them; `false` when there are not as many.
    #[must_use]
    pub fn peek(&self, into: &mut [u8]) -> bool {
        if self.arrived_bytes < into.len() {
            return false;
        }
        if let Some(first) = self.arrived.front().and_then(|first| first.get(..into.len())) {
            into.copy_from_slice(first);
            return true;
        }
        let mut at = 0;
        for buffer in &self.arrived {
            let length = buffer.len().min(into.len() - at);
            into[at..at + length].copy_from_slice(&buffer[..length]);
            at += length;
            if at == into.len() {
                break;
            }
        }
        true
    }

    /// Shows the bytes of `range`, counted from the first that arrived, to `each`, piece by piece.
    ///
    /// # Panics
    /// When fewer have arrived.
    pub fn view(&self, range: Range<usize>, mut each: impl FnMut(&[u8])) {
        assert!(range.end <= self.arrived_bytes, "{} bytes of {}", range.end, self.arrived_bytes);
        let mut at = 0;
        for buffer in &self.arrived {
            let (start, end) = (at, at + buffer.len());
            if start >= range.end {
                return;
            }
            if end > range.start {
                each(&buffer[range.start.max(start) - start..range.end.min(end) - start]);
            }
            at = end;
        }
    }

    /// Takes the first `length` bytes and gives each range of them to `each`.
    ///
    /// # Panics
    /// When fewer have arrived.
    pub fn take(&mut self, mut length: usize, mut each: impl FnMut(Buffer)) {
        assert!(length <= self.arrived_bytes, "{length} bytes of {}", self.arrived_bytes);
        self.arrived_bytes -= length;
        while length > 0 {
            let first = self.arrived.front_mut().expect("the count of arrived bytes is true");
            if first.len() > length {
                each(first.split_to(length));
                return;
            }
            length -= first.len();
            each(self.arrived.pop_front().expect("it was just there"));
        }
    }

    /// Takes the first `length` bytes away.
    pub fn skip(&mut self, length: usize) {
        match self.arrived.front_mut() {
            Some(first) if first.len() > length => {
                first.advance(length);
                self.arrived_bytes -= length;
            }
            _ => self.take(length, drop),
        }
    }

    /// Takes everything, as bytes on the heap: for a connection that moves to another shard.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.arrived_bytes);
        self.take(self.arrived_bytes, |buffer| bytes.extend_from_slice(&buffer));
        bytes
    }

    /// Bytes that were copied here since the last call.
    pub fn copied_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.copied_bytes)
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Self::new()
    }
}

/// A chunk of the smallest class that holds `length` bytes; a smaller one where those are out, since a list may have
/// several, as long as there are many of them; a larger one; the last smaller ones where nothing else is left. Connections
/// that have nothing under way receive into small ones.
#[must_use]
pub fn take_fitting(arena: &Arena, length: usize) -> Option<Buffer> {
    take_class(arena, Class::fitting(length).unwrap_or(Class::Large))
}

/// Where the small chunks are out, a tiny one: a larger one would be held for as long as the connection is quiet.
fn take_staging(arena: &Arena, class: Class) -> Option<Buffer> {
    let tiny = || arena.take(Class::Tiny).filter(|_| class == Class::Small);
    arena.take(class).or_else(tiny).or_else(|| take_class(arena, class))
}

fn take_class(arena: &Arena, class: Class) -> Option<Buffer> {
    arena.take(class).or_else(|| {
        let smaller = Class::ALL.into_iter().rev().filter(|other| *other < class);
        let is_ample = |class: &Class| {
            let usage = arena.usage(*class);
            usage.used < usage.total / 4 * 3
        };
        let larger = Class::ALL.into_iter().filter(|other| *other > class);
        smaller.clone().filter(is_ample).chain(larger).chain(smaller).find_map(|class| arena.take(class))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_ring::ArenaOptions;

    struct Wire {
        arena: Arena,
        inbound: Inbound,
        list: Segments,
    }

    impl Wire {
        fn new() -> Self {
            let arena = Arena::new(ArenaOptions { small: 128, medium: 8, large: 8 }).unwrap();
            Self { arena, inbound: Inbound::new(), list: Segments::with_capacity(RECEIVE_SEGMENTS) }
        }

        /// Receives as much of `bytes` as was planned for; tells how much that was.
        fn receive(&mut self, expected: Expectation, bytes: &[u8]) -> usize {
            self.inbound.plan(&self.arena, expected, &mut self.list);
            let mut left = bytes;
            for place in self.list.slices_mut() {
                let (now, later) = left.split_at(left.len().min(place.len()));
                place[..now.len()].copy_from_slice(now);
                left = later;
            }
            let length = bytes.len() - left.len();
            self.inbound.fill(&mut self.list, length);
            length
        }

        fn take(&mut self, length: usize) -> Vec<Buffer> {
            let mut buffers = Vec::new();
            self.inbound.take(length, |buffer| buffers.push(buffer));
            buffers
        }
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..=250u8).cycle().take(length).collect()
    }

    #[test]
    fn where_small_chunks_are_out_headers_are_received_into_tiny_ones_and_not_into_larger_ones() {
        let mut wire = Wire::new();
        let taken: Vec<Buffer> = std::iter::from_fn(|| wire.arena.take(Class::Small)).collect();
        assert_eq!(wire.receive(Expectation::default(), &pattern(512)), 512, "it fills what it began with");
        assert_eq!(wire.receive(Expectation::default(), &pattern(4096)), 512);
        assert_eq!(wire.arena.usage(Class::Medium).used, 0);
        drop(taken);
        assert_eq!(wire.receive(Expectation::default(), &pattern(4096)), 4096);
    }

    #[test]
    fn bytes_come_out_as_they_came_in_however_they_are_cut() {
        let mut wire = Wire::new();
        let bytes = pattern(300_000);
        let mut seen = Vec::new();
        let mut at = 0;
        for step in [1usize, 47, 48, 49, 4096, 5, 70_000, 1, 100_000].iter().cycle() {
            if at == bytes.len() {
                break;
            }
            let end = (at + step).min(bytes.len());
            let missing = (at * 7) % 40_000;
            at += wire
                .receive(Expectation { missing_bytes: missing, ..Expectation::default() }, &bytes[at..end]);
            let take = wire.inbound.len() / 2;
            seen.extend(wire.take(take).iter().flat_map(|buffer| buffer.to_vec()));
        }
        let rest = wire.inbound.len();
        seen.extend(wire.take(rest).iter().flat_map(|buffer| buffer.to_vec()));
        assert!(seen == bytes);
    }

    #[test]
    fn the_rest_of_a_large_segment_comes_into_one_aligned_slot_with_its_beginning() {
        let mut wire = Wire::new();
        let bytes = pattern(65_536);
        assert_eq!(wire.receive(Expectation::default(), &bytes[..100]), 100);
        let aligned = Expectation { aligned: true, ..Expectation::default() };
        let expected = Expectation { missing_bytes: 65_536 - 100, arrived_data_bytes: 100, ..aligned };
        assert_eq!(wire.receive(expected, &bytes[100..40_000]), 39_900);
        let expected = Expectation { missing_bytes: 65_536 - 40_000, arrived_data_bytes: 40_000, ..aligned };
        assert_eq!(wire.receive(expected, &bytes[40_000..]), 25_536);
        let data = wire.take(65_536);
        assert_eq!(data.len(), 1, "one contiguous range");
        assert!(data[0].is_aligned(4095));
        assert!(*data[0] == bytes[..]);
        assert_eq!(wire.inbound.copied_bytes(), 100, "only what had come before the header was understood");
    }

    #[test]
    fn a_stream_of_equal_writes_is_received_aligned_without_a_copy() {
        let mut wire = Wire::new();
        let pdu = pattern(HEADER_BYTES + 4096);
        let expected = Expectation { aligned: true, ..Expectation::default() };
        for round in 0..20 {
            let mut at = 0;
            while at < pdu.len() {
                at += wire.receive(expected, &pdu[at..]);
            }
            wire.inbound.skip(HEADER_BYTES);
            wire.inbound.saw(4096);
            let data = wire.take(4096);
            let bytes: Vec<u8> = data.iter().flat_map(|buffer| buffer.to_vec()).collect();
            assert!(bytes == pdu[HEADER_BYTES..]);
            if round > usize::from(STREAK_MIN) {
                assert!(data.len() == 1 && data[0].is_aligned(511), "round {round}");
            }
        }
        assert_eq!(wire.inbound.copied_bytes(), 0);
    }

    const DIGESTS: Frame = Frame { header_bytes: HEADER_BYTES + 4, trailer_bytes: 4 };

    /// Feeds PDUs of `headers` headers and 4 KiB, in bursts of 32 as an initiator's window has them, and counts the writes
    /// whose data are not one aligned range.
    fn unaligned_of(frame: Frame, headers: usize, bursts: usize) -> usize {
        let mut wire = Wire::new();
        wire.inbound.frame_by(frame);
        unaligned_in(&mut wire, headers, 4096, (bursts, 32))
    }

    /// Feeds so many bursts of so many PDUs of `headers` headers and `length` bytes, and counts as above.
    fn unaligned_in(
        wire: &mut Wire,
        headers: usize,
        length: usize,
        (bursts, writes): (usize, usize),
    ) -> usize {
        let frame = wire.inbound.frame;
        let (header_bytes, data_bytes) = (frame.header_bytes, length + frame.trailer_bytes);
        let period = headers * header_bytes + data_bytes;
        let mut unaligned = 0;
        for _ in 0..bursts {
            let burst = pattern(writes * period);
            let mut at = 0;
            let mut missing = 0;
            let mut seen = 0;
            while at < burst.len() {
                let arrived_data_bytes = data_bytes - missing;
                let is_unwanted = false;
                let expected =
                    Expectation { missing_bytes: missing, arrived_data_bytes, aligned: true, is_unwanted };
                let expected =
                    if missing == 0 { Expectation { arrived_data_bytes: 0, ..expected } } else { expected };
                at += wire.receive(expected, &burst[at..]);
                loop {
                    if missing == 0 {
                        if wire.inbound.len() < header_bytes {
                            break;
                        }
                        wire.inbound.skip(header_bytes);
                        seen = (seen + 1) % headers;
                        wire.inbound.saw(if seen == 0 { length } else { 0 });
                        if seen != 0 {
                            continue;
                        }
                    }
                    if wire.inbound.len() < data_bytes {
                        missing = data_bytes - wire.inbound.len();
                        break;
                    }
                    missing = 0;
                    let data = wire.take(length);
                    unaligned += usize::from(data.len() != 1 || !data[0].is_aligned(511));
                    wire.inbound.skip(frame.trailer_bytes);
                }
            }
        }
        unaligned
    }

    #[test]
    fn bursts_that_are_longer_than_what_was_predicted_stay_aligned() {
        for frame in [Frame::BARE, DIGESTS] {
            let (few, many) = (unaligned_of(frame, 1, 2), unaligned_of(frame, 1, 50));
            assert_eq!(few, many, "only the first ones, before there is a pattern: {frame:?}");
        }
    }

    #[test]
    fn a_command_and_the_data_behind_it_are_a_pattern_too() {
        for frame in [Frame::BARE, DIGESTS] {
            let (few, many) = (unaligned_of(frame, 2, 2), unaligned_of(frame, 2, 50));
            assert_eq!(few, many, "only the first ones, before there is a pattern: {frame:?}");
        }
    }

    #[test]
    fn a_prediction_that_does_not_hold_is_given_up_at_once() {
        for (frame, headers) in [(Frame::BARE, 1), (DIGESTS, 1), (Frame::BARE, 2), (DIGESTS, 2)] {
            for length in [8192, 512, 2048] {
                let mut wire = Wire::new();
                wire.inbound.frame_by(frame);
                unaligned_in(&mut wire, headers, 4096, (3, 8));
                // One at a time: what was laid out for the stream before would last for many of them.
                let unaligned = unaligned_in(&mut wire, headers, length, (60, 1));
                let learns = usize::from(STREAK_MIN) + 1;
                assert!(unaligned <= learns, "{unaligned} of 60, {length} bytes, {headers}, {frame:?}");
            }
        }
    }

    #[test]
    fn a_request_without_data_in_a_stream_costs_no_write_behind_it_its_place() {
        let mut wire = Wire::new();
        let expected = Expectation { aligned: true, ..Expectation::default() };
        unaligned_in(&mut wire, 1, 4096, (3, 8));
        assert_eq!(wire.receive(expected, &pattern(HEADER_BYTES)), HEADER_BYTES);
        wire.inbound.skip(HEADER_BYTES);
        wire.inbound.saw(0);
        let unaligned = unaligned_in(&mut wire, 1, 4096, (60, 1));
        assert!(unaligned <= usize::from(STREAK_MIN) + 2, "{unaligned} of 60");
    }

    #[test]
    fn a_wrong_prediction_loses_nothing() {
        let mut wire = Wire::new();
        let expected = Expectation { aligned: true, ..Expectation::default() };
        for _ in 0..10 {
            wire.inbound.saw(4096);
        }
        let bytes = pattern(48 * 90);
        assert_eq!(wire.receive(expected, &bytes), bytes.len());
        let seen: Vec<u8> = wire.take(bytes.len()).iter().flat_map(|buffer| buffer.to_vec()).collect();
        assert!(seen == bytes);
    }

    #[test]
    fn after_large_data_only_the_next_header_is_staged() {
        let mut wire = Wire::new();
        wire.inbound.saw(262_144);
        assert_eq!(wire.receive(Expectation::default(), &pattern(10_000)), HEADER_BYTES);
        for _ in 0..LARGE_HOLD {
            wire.inbound.saw(0);
        }
        assert!(wire.receive(Expectation::default(), &pattern(4_000)) > HEADER_BYTES);
    }

    #[test]
    fn the_digest_of_large_data_comes_with_the_next_header_and_slots_are_as_large_as_data() {
        let mut wire = Wire::new();
        wire.inbound.frame_by(DIGESTS);
        wire.inbound.saw(262_144);
        let bytes = pattern(262_144 + 4 + 52);
        let expected = Expectation {
            missing_bytes: 262_148,
            arrived_data_bytes: 0,
            aligned: true,
            ..Expectation::default()
        };
        assert_eq!(wire.receive(expected, &bytes), bytes.len());
        let data = wire.take(262_144);
        assert!(data.len() == 1 && data[0].is_aligned(4095));
        assert_eq!(wire.inbound.len(), 56);
        assert_eq!(wire.inbound.copied_bytes(), 0);
    }

    #[test]
    fn any_range_of_what_has_come_can_be_viewed() {
        let mut wire = Wire::new();
        let bytes = pattern(10_000);
        for piece in bytes.chunks(777) {
            wire.receive(Expectation { missing_bytes: 20_000, ..Expectation::default() }, piece);
        }
        for range in [0..0, 0..1, 5..776, 776..779, 3000..10_000, 0..10_000] {
            let mut seen = Vec::new();
            wire.inbound.view(range.clone(), |piece| seen.extend_from_slice(piece));
            assert!(seen == bytes[range]);
        }
    }

    #[test]
    fn data_that_are_asked_for_begin_in_no_staging_although_none_came_before() {
        let mut wire = Wire::new();
        wire.inbound.expect_large_data();
        assert_eq!(wire.receive(Expectation::default(), &pattern(10_000)), HEADER_BYTES);
    }

    #[test]
    fn a_prediction_takes_no_chunk_that_is_larger_than_it_needs() {
        let mut wire = Wire::new();
        wire.arena = Arena::new(ArenaOptions { small: 20, medium: 8, large: 8 }).unwrap();
        unaligned_in(&mut wire, 1, 4096, (3, 8));
        let expected = Expectation { aligned: true, ..Expectation::default() };
        wire.inbound.plan(&wire.arena, expected, &mut wire.list);
        assert!(wire.list.len() > 10, "it is one, with what there is: {}", wire.list.len());
        assert!(wire.list.drain().all(|place| place.into_buffer().class() == Class::Small));
    }

    #[test]
    fn where_memory_is_short_a_connection_has_one_small_chunk_to_receive_into() {
        let mut wire = Wire::new();
        for _ in 0..4 {
            wire.receive(Expectation::default(), &pattern(300_000));
            let all = wire.inbound.len();
            wire.inbound.skip(all);
        }
        let mut others = Vec::new();
        while !wire.arena.is_short() {
            others.push(take_class(&wire.arena, Class::Large).unwrap());
        }
        wire.inbound.plan(&wire.arena, Expectation::default(), &mut wire.list);
        assert_eq!(wire.list.length_bytes(), Class::Small.bytes());
    }

    #[test]
    fn everything_goes_back_to_the_arena() {
        let mut wire = Wire::new();
        for _ in 0..100 {
            wire.receive(Expectation { missing_bytes: 20_000, ..Expectation::default() }, &pattern(30_000));
            let all = wire.inbound.len();
            wire.inbound.skip(all);
        }
        wire.inbound = Inbound::new();
        wire.list.clear();
        for class in Class::ALL {
            assert_eq!(wire.arena.usage(class).used, 0);
        }
    }
}
