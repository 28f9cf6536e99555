//! Judges what a read brought: every sector by itself, then the block as a whole. Wrong, old and torn are told apart.
//!
//! SCSI promises nothing about a command of several blocks that meets another one, so a block whose sectors are of different
//! writes, each of them admissible, is only counted.

use std::fmt;

use crate::ledger::{Expectation, Ledger};
use crate::options::Plan;
use crate::sector::{self, BYTES, Sector, Stamp};

/// What is the matter with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Data that does not belong there, or that nobody wrote.
    Wrong,
    /// Data that had been overwritten before the read was sent.
    Old,
    /// Old and new data, in one sector or in one block.
    Torn,
}

impl Kind {
    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Old => "old",
            Self::Torn => "torn",
        }
    }
}

/// A block that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    /// The logical block with the first bad sector.
    pub(crate) lba: u64,
    /// The session that read it.
    pub(crate) session: u32,
    pub(crate) detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LBA {}: {}: {} (read by session {})",
            self.lba,
            self.kind.name(),
            self.detail,
            self.session
        )
    }
}

/// What a block turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// As it should be.
    Good,
    /// As it should be, of more than one write.
    Mixed,
    /// Never written in this run, so that nothing can be said.
    Unwritten,
    /// Not as it should be.
    Bad(Finding),
}

/// A read that has come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    /// Who read.
    pub(crate) session: u32,
    /// The first block of the region.
    pub(crate) block: u64,
    /// When the read was sent, not too late.
    pub(crate) sent_ns: u64,
    /// What each of its blocks may hold.
    pub(crate) expected: &'a [Expectation],
    /// All of the blocks.
    pub(crate) data: &'a [u8],
}

/// Fills a part of a write, from its byte `skip` on: `session` writes its `version` at `block`.
pub(crate) fn stamp(
    plan: &Plan,
    run: u64,
    session: u32,
    block: u64,
    version: u32,
    piece: &mut [u8],
    skip: u64,
) {
    let first = (plan.byte(block) + skip) / BYTES as u64;
    let (sectors, rest) = piece.as_chunks_mut::<BYTES>();
    assert!(rest.is_empty(), "a piece is whole sectors");
    for (address, sector) in (first..).zip(sectors) {
        Stamp { run, address, session, version }.write(sector);
    }
}

/// A write: its session, and which of that session's.
type Write = (u32, u32);

/// One sector, judged.
enum Verdict {
    Good(Write),
    /// From before the run, where nothing else was promised.
    Unwritten,
    Bad {
        kind: Kind,
        detail: String,
        /// The write that should be there, or has replaced what is there, as far as one can be named.
        missing: Option<Write>,
    },
}

/// What is known of a read while its sectors are gone through.
#[derive(Default)]
struct Review {
    bad: Option<(Kind, u64, String)>,
    old: usize,
    unwritten: usize,
    /// Sectors of several writes in one block.
    mixed: bool,
    /// A block has old sectors and others.
    split: bool,
    /// Writes that are missing somewhere, and writes that are there.
    missing: Vec<Write>,
    present: Vec<Write>,
}

impl Review {
    /// Takes the sectors of one block.
    fn take(
        &mut self,
        ledger: &Ledger,
        reading: &Reading<'_>,
        at: usize,
        first: u64,
        sectors: &[[u8; BYTES]],
    ) {
        let (old_before, unwritten_before) = (self.old, self.unwritten);
        let mut writer: Option<Write> = None;
        for (address, sector) in (first..).zip(sectors) {
            match judge_sector(ledger, reading, at, address, sector) {
                Verdict::Good(write) => {
                    self.mixed |= writer.is_some_and(|before| before != write);
                    writer = Some(write);
                    if self.present.last() != Some(&write) {
                        self.present.push(write);
                    }
                }
                Verdict::Unwritten => self.unwritten += 1,
                Verdict::Bad { kind, detail, missing } => {
                    self.old += usize::from(kind == Kind::Old);
                    self.missing.extend(missing);
                    // What is worst is told: wrong before torn before old; of the same kind the first.
                    let is_worse =
                        self.bad.as_ref().is_none_or(|(worst, ..)| gravity(kind) > gravity(*worst));
                    if is_worse {
                        self.bad = Some((kind, address, detail));
                    }
                }
            }
        }
        let old = self.old - old_before;
        self.split |= old > 0 && old < sectors.len();
        self.mixed |= writer.is_some() && self.unwritten > unwritten_before;
    }

    /// Old sectors stand beside others in one block, or one write is there in part.
    fn is_torn(&self) -> bool {
        self.split || self.missing.iter().any(|write| self.present.contains(write))
    }
}

/// Judges what a read brought.
pub(crate) fn judge(plan: &Plan, ledger: &Ledger, reading: &Reading<'_>) -> Judgement {
    let (sectors, rest) = reading.data.as_chunks::<BYTES>();
    assert!(rest.is_empty() && !sectors.is_empty(), "a block is whole sectors");
    let per_block = usize::try_from(plan.block_bytes).expect("32 bits") / BYTES;
    let mut review = Review::default();
    for (at, block) in sectors.chunks(per_block).enumerate() {
        let first = plan.byte(reading.block + at as u64) / BYTES as u64;
        review.take(ledger, reading, at, first, block);
    }
    let is_torn = review.is_torn();
    let Review { bad, old, unwritten, mixed, .. } = review;
    let count = sectors.len();
    let Some((kind, address, detail)) = bad else {
        return match mixed {
            _ if unwritten == count => Judgement::Unwritten,
            true => Judgement::Mixed,
            false => Judgement::Good,
        };
    };
    let lba = address * BYTES as u64 / u64::from(plan.geometry.block_bytes);
    let session = reading.session;
    let (kind, detail) = match kind {
        Kind::Old if old < count => {
            let kind = if is_torn { Kind::Torn } else { Kind::Old };
            (kind, format!("{old} of {count} sectors are old, the first: {detail}"))
        }
        kind => (kind, detail),
    };
    Judgement::Bad(Finding { kind, lba, session, detail })
}

fn gravity(kind: Kind) -> u8 {
    match kind {
        Kind::Old => 0,
        Kind::Torn => 1,
        Kind::Wrong => 2,
    }
}

fn bad(kind: Kind, detail: impl Into<String>) -> Verdict {
    Verdict::Bad { kind, detail: detail.into(), missing: None }
}

fn judge_sector(
    ledger: &Ledger,
    reading: &Reading<'_>,
    at: usize,
    address: u64,
    bytes: &[u8; BYTES],
) -> Verdict {
    let expected = reading.expected[at];
    let not_ours = |kind, detail: &str| {
        if !expected.written {
            return Verdict::Unwritten;
        }
        let missing = (expected.own > 0).then_some((reading.session, expected.own));
        Verdict::Bad { kind, detail: detail.to_owned(), missing }
    };
    match sector::read(bytes) {
        Sector::Intact(stamp) if stamp.run != ledger.run => {
            not_ours(Kind::Old, "a sector of an earlier run, where this one has written")
        }
        Sector::Intact(stamp) => judge_stamp(ledger, reading, at, address, stamp),
        Sector::Zeroes => not_ours(Kind::Old, "zeroes, as if nothing had been written"),
        Sector::Foreign => not_ours(Kind::Wrong, "data that no load has written"),
        Sector::Torn { head, .. } | Sector::Damaged(head) if head.run != ledger.run => {
            not_ours(Kind::Wrong, "a damaged sector of another run")
        }
        Sector::Torn { head, tail_session, tail_version } => bad(
            Kind::Torn,
            format!(
                "one sector begins as write {} of session {} and ends as write {tail_version} of session \
                 {tail_session}",
                head.version, head.session
            ),
        ),
        Sector::Damaged(head) => bad(
            Kind::Wrong,
            format!("the checksum of write {} of session {} does not fit", head.version, head.session),
        ),
    }
}

fn judge_stamp(ledger: &Ledger, reading: &Reading<'_>, at: usize, address: u64, stamp: Stamp) -> Verdict {
    let Stamp { session, version, .. } = stamp;
    let (block, reader) = (reading.block + at as u64, reading.session);
    if stamp.address != address {
        let detail =
            format!("sector {} of session {session} at the place of sector {address}", stamp.address);
        return bad(Kind::Wrong, detail);
    }
    if !ledger.may_write(session, reader) {
        return bad(Kind::Wrong, format!("session {session} does not write there"));
    }
    if !ledger.was_issued(session, block, version) {
        return bad(Kind::Wrong, format!("write {version} of session {session}, which it never sent"));
    }
    let later = ledger.replaced_by(session, block, version, reader, reading.expected[at], reading.sent_ns);
    if let Some(later) = later {
        let detail = format!("write {version} of session {session}, which a later one had replaced");
        return Verdict::Bad { kind: Kind::Old, detail, missing: Some((session, later)) };
    }
    Verdict::Good((session, version))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::options::Geometry;

    fn plan(shared: bool) -> Plan {
        Plan {
            sessions: 2,
            first_session: 0,
            sessions_in_all: 2,
            depth: 1,
            is_random: true,
            reads_percent: 50,
            sizes: "4k".parse().unwrap(),
            block_bytes: 4096,
            longest: 1,
            geometry: Geometry { block_bytes: 512, blocks: 1024 },
            first_byte: 8192,
            region: 16,
            shared,
            verify: true,
            count: None,
            amount: None,
            rate: None,
            arrival: crate::pace::Arrival::Linear,
            ramp: Duration::ZERO,
            time: Duration::from_secs(1),
            seed: 1,
        }
    }

    /// A plan, its ledger, a clock, and one block of the medium.
    struct World {
        plan: Plan,
        ledger: Ledger,
        now_ns: u64,
        /// Writes of each session.
        writes: [u32; 2],
        medium: Vec<u8>,
    }

    const BLOCK: u64 = 3;
    /// The logical block at which it begins.
    const LBA: u64 = 16 + 24;

    impl World {
        fn new(shared: bool) -> Self {
            let plan = plan(shared);
            let ledger = Ledger::new(&plan, 77);
            Self { plan, ledger, now_ns: 0, writes: [0; 2], medium: vec![0; 4096] }
        }

        fn now(&mut self) -> u64 {
            self.now_ns += 10;
            self.now_ns
        }

        fn data(&self, session: u32, version: u32) -> Vec<u8> {
            let mut data = vec![0; 4096];
            stamp(&self.plan, 77, session, BLOCK, version, &mut data, 0);
            data
        }

        /// A write is sent.
        fn issue(&mut self, session: u32) -> u32 {
            let count = &mut self.writes[usize::try_from(session).unwrap()];
            *count += 1;
            self.ledger.issue(session, BLOCK, *count);
            *count
        }

        /// A write that is acknowledged; its data.
        fn write(&mut self, session: u32) -> Vec<u8> {
            let version = self.issue(session);
            self.medium = self.data(session, version);
            let now = self.now();
            self.ledger.acknowledge(session, BLOCK, version, now);
            self.medium.clone()
        }

        fn send_read(&mut self, session: u32) -> (Expectation, u64) {
            let now = self.now();
            (self.ledger.expect(session, BLOCK), now)
        }

        fn judge(&self, session: u32, (expected, sent_ns): (Expectation, u64)) -> Judgement {
            let reading =
                Reading { session, block: BLOCK, sent_ns, expected: &[expected], data: &self.medium };
            judge(&self.plan, &self.ledger, &reading)
        }

        fn read(&mut self, session: u32) -> Judgement {
            let expected = self.send_read(session);
            self.judge(session, expected)
        }

        fn finding(&mut self, session: u32) -> (Kind, u64, String) {
            match self.read(session) {
                Judgement::Bad(finding) => (finding.kind, finding.lba, finding.detail),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_was_written_is_good_and_what_was_not_is_unwritten() {
        let mut world = World::new(false);
        assert_eq!(world.read(0), Judgement::Unwritten);
        world.medium.fill(0xaa);
        assert_eq!(world.read(0), Judgement::Unwritten);
        world.write(0);
        assert_eq!(world.read(0), Judgement::Good);
    }

    #[test]
    fn a_block_that_is_behind_its_last_acknowledged_version_is_old() {
        let mut world = World::new(false);
        let first = world.write(0);
        world.write(0);
        world.medium = first;
        let (kind, lba, detail) = world.finding(0);
        assert_eq!((kind, lba), (Kind::Old, LBA));
        assert!(detail.contains("write 1 of session 0"), "{detail}");
        world.medium.fill(0);
        assert_eq!(world.finding(0).0, Kind::Old, "the write was lost");
    }

    #[test]
    fn a_write_under_way_may_be_seen_or_not_or_in_part() {
        let mut world = World::new(false);
        world.write(0);
        let expected = world.send_read(0);
        let version = world.issue(0);
        assert_eq!(world.judge(0, expected), Judgement::Good, "not yet");
        let new = world.data(0, version);
        world.medium[..512].copy_from_slice(&new[..512]);
        assert_eq!(world.judge(0, expected), Judgement::Mixed);
        world.medium = new;
        let now = world.now();
        world.ledger.acknowledge(0, BLOCK, version, now);
        assert_eq!(
            world.judge(0, expected),
            Judgement::Good,
            "even where it is over before the read is back"
        );
    }

    #[test]
    fn a_block_that_stays_in_part_behind_is_torn() {
        let mut world = World::new(false);
        let first = world.write(0);
        world.write(0);
        world.medium[1024..2048].copy_from_slice(&first[1024..2048]);
        let (kind, lba, detail) = world.finding(0);
        assert_eq!((kind, lba), (Kind::Torn, LBA + 2));
        assert!(detail.contains("2 of 8 sectors are old"), "{detail}");
    }

    #[test]
    fn a_sector_of_two_writes_is_torn_even_while_one_is_under_way() {
        let mut world = World::new(false);
        world.write(0);
        let expected = world.send_read(0);
        let version = world.issue(0);
        let new = world.data(0, version);
        world.medium[512..812].copy_from_slice(&new[512..812]);
        let Judgement::Bad(finding) = world.judge(0, expected) else { panic!("torn") };
        assert_eq!((finding.kind, finding.lba), (Kind::Torn, LBA + 1));
    }

    #[test]
    fn the_data_of_another_place_another_session_or_nobody_is_wrong() {
        let mut world = World::new(false);
        world.write(0);
        let mut other = vec![0; 4096];
        stamp(&world.plan, 77, 0, BLOCK + 1, 1, &mut other, 0);
        world.medium = other;
        let (kind, lba, detail) = world.finding(0);
        assert_eq!(
            (kind, lba, detail.as_str()),
            (Kind::Wrong, LBA, "sector 48 of session 0 at the place of sector 40")
        );
        world.medium = world.data(1, 1);
        assert_eq!(world.finding(0).2, "session 1 does not write there");
        world.medium = world.data(0, 2);
        assert_eq!(world.finding(0).2, "write 2 of session 0, which it never sent");
        world.medium = world.data(0, 1);
        world.medium[4000] ^= 1;
        let (kind, lba, _) = world.finding(0);
        assert_eq!((kind, lba), (Kind::Wrong, LBA + 7));
        world.medium.fill(0x55);
        assert_eq!(world.finding(0).0, Kind::Wrong);
    }

    #[test]
    fn what_an_earlier_run_has_left_is_old_only_where_this_one_has_written() {
        let mut world = World::new(false);
        let mut earlier = vec![0; 4096];
        stamp(&world.plan, 76, 0, BLOCK, 9, &mut earlier, 0);
        world.medium = earlier.clone();
        assert_eq!(world.read(0), Judgement::Unwritten);
        world.write(0);
        world.medium = earlier;
        assert_eq!(world.finding(0).0, Kind::Old);
    }

    #[test]
    fn of_several_writers_each_may_be_seen_until_it_is_itself_behind() {
        let mut world = World::new(true);
        let first = world.write(0);
        let other = world.write(1);
        assert_eq!(world.read(0), Judgement::Good);
        world.medium = first.clone();
        assert_eq!(world.read(1), Judgement::Good, "nobody can tell whose write was the last");
        world.write(0);
        world.medium = first.clone();
        assert_eq!(world.finding(1).0, Kind::Old, "session 0 has replaced it before the read was sent");
        assert_eq!(world.finding(0).0, Kind::Old);
        world.medium = [&first[..512], &other[512..]].concat();
        assert_eq!(world.finding(1).0, Kind::Torn);
    }

    #[test]
    fn a_read_that_began_before_the_later_write_was_acknowledged_may_bring_the_earlier() {
        let mut world = World::new(true);
        let first = world.write(0);
        let expected = world.send_read(1);
        world.write(0);
        world.medium = first;
        assert_eq!(world.judge(1, expected), Judgement::Good);
    }

    #[test]
    fn sectors_of_several_sessions_in_one_block_are_only_counted() {
        let mut world = World::new(true);
        let (one, other) = (world.write(0), world.write(1));
        world.medium = [&one[..2048], &other[2048..]].concat();
        assert_eq!(world.read(0), Judgement::Mixed);
    }

    #[test]
    fn a_session_that_there_is_not_is_wrong() {
        let mut world = World::new(true);
        world.write(0);
        world.medium = world.data(2, 1);
        assert_eq!(world.finding(0).2, "session 2 does not write there");
    }

    #[test]
    fn a_write_whose_end_is_unknown_may_be_there_or_not_until_a_later_one_is_acknowledged() {
        let mut world = World::new(false);
        let old = world.write(0);
        let lost = world.issue(0);
        let new = world.data(0, lost);
        for medium in [&old, &new, &old] {
            world.medium.clone_from(medium);
            assert_eq!(world.read(0), Judgement::Good);
        }
        world.medium = [&old[..512], &new[512..]].concat();
        assert_eq!(world.read(0), Judgement::Mixed, "it was done in part");
        world.write(0);
        world.medium = new;
        let (kind, _, detail) = world.finding(0);
        assert_eq!(
            (kind, detail.as_str()),
            (Kind::Old, "write 2 of session 0, which a later one had replaced")
        );
    }

    /// Blocks 8 to 11 of a region whose commands are of one block or of four.
    struct Wide {
        plan: Plan,
        ledger: Ledger,
        medium: Vec<u8>,
        versions: u32,
    }

    impl Wide {
        fn new() -> Self {
            let mut plan = plan(false);
            (plan.sizes, plan.longest) = ("4k/50:16k/50".parse().unwrap(), 4);
            let ledger = Ledger::new(&plan, 77);
            Self { plan, ledger, medium: vec![0; 16384], versions: 0 }
        }

        /// A write of `length` blocks from `block` on that is acknowledged, of which so many blocks reach the medium.
        fn write(&mut self, block: u64, length: u64, done: u64) {
            self.versions += 1;
            for block in block..block + length {
                self.ledger.issue(0, block, self.versions);
                self.ledger.acknowledge(0, block, self.versions, 1);
            }
            let start = usize::try_from(block - 8).unwrap() * 4096;
            let bytes = usize::try_from(done).unwrap() * 4096;
            let piece = &mut self.medium[start..start + bytes];
            stamp(&self.plan, 77, 0, block, self.versions, piece, 0);
        }

        fn read(&self) -> Judgement {
            let expected: Vec<Expectation> = (8..12).map(|block| self.ledger.expect(0, block)).collect();
            let reading =
                Reading { session: 0, block: 8, sent_ns: 2, expected: &expected, data: &self.medium };
            judge(&self.plan, &self.ledger, &reading)
        }

        fn finding(&self) -> (Kind, u64) {
            let Judgement::Bad(finding) = self.read() else { panic!("{:?}", self.read()) };
            (finding.kind, finding.lba)
        }
    }

    #[test]
    fn a_long_read_of_blocks_of_several_writes_is_good() {
        let mut wide = Wide::new();
        wide.write(9, 1, 1);
        assert_eq!(wide.read(), Judgement::Good, "of the others nothing is known");
        wide.write(8, 4, 4);
        wide.write(10, 1, 1);
        assert_eq!(wide.read(), Judgement::Good);
    }

    #[test]
    fn a_short_write_that_is_missing_in_a_long_read_is_old_and_not_torn() {
        let mut wide = Wide::new();
        wide.write(8, 4, 4);
        wide.write(10, 1, 0);
        assert_eq!(wide.finding(), (Kind::Old, 16 + 80));
    }

    #[test]
    fn a_long_write_that_was_done_in_part_is_torn() {
        let mut wide = Wide::new();
        wide.write(8, 4, 4);
        wide.write(8, 4, 2);
        assert_eq!(wide.finding(), (Kind::Torn, 16 + 80));
        let mut first = Wide::new();
        first.write(8, 4, 3);
        assert_eq!(first.finding(), (Kind::Torn, 16 + 88), "over zeroes, too");
    }

    #[test]
    fn a_long_write_that_is_missing_is_old_whatever_stands_between() {
        let mut wide = Wide::new();
        wide.write(8, 4, 4);
        wide.write(8, 4, 0);
        wide.write(9, 1, 1);
        assert_eq!(wide.finding(), (Kind::Old, 16 + 64));
    }
}
