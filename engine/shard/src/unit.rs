//! This shard's replica of a logical unit, and its queue at the medium.

use std::sync::Arc;

use portico_backstores::MediumQueue;
use portico_iscsi::moment::Moment;
use portico_model::identity::{Generation, ShardId, UnitId};
use portico_model::message::{Opening, Orphan};
use portico_model::meter::{Latencies, Operation, UnitMeter, histogram};
use portico_ring::Segments;
use portico_scsi::reservation::{CommandClass, NexusId};
use portico_scsi::sense::{AdditionalSense, Outcome};
use portico_scsi::unit::LogicalUnit;

use crate::arbiter::Arbiter;
use crate::budget::Share;
use crate::core::{Job, Lines};
use crate::drain::Drains;
use crate::slab::Key;
use crate::tokens::Tokens;

/// The medium of a unit as this shard reaches it.
pub type Queue = MediumQueue<Segments>;

/// A logical unit on this shard.
pub struct Unit {
    /// Its name between threads.
    pub id: UnitId,
    /// The name of the DEVICE.
    pub device: Arc<str>,
    /// What all shards agree on, as of `generation`.
    pub state: Arc<LogicalUnit>,
    /// The version of `state`.
    pub generation: Generation,
    /// The medium; `None` while it is not ready.
    pub queue: Option<Queue>,
    /// Memory that the medium takes directly must begin and end at multiples of this.
    pub memory_alignment: usize,
    /// Its part of the shard's memory.
    pub share: Share,
    /// Tasks that wait, for all sessions.
    pub lines: Lines,
    /// Generations that wait for pieces at the medium.
    pub drains: Drains,
    /// Writes without an owner, on any shard.
    pub orphans: Arc<[Orphan]>,
    /// Which blocks some command has for itself, here or on another shard.
    pub arbiter: Arbiter,
    /// Tokens that stand for blocks of it.
    pub tokens: Tokens,
    /// The medium lends its memory from then on.
    pub lends_from: Moment,
    /// Requests of this shard at the medium.
    pub at_medium: u32,
    /// Whether it stands in the shard's list of units at work.
    pub is_at_work: bool,
    /// Commands in hand.
    pub tasks: u32,
    /// Commands that one nexus may have in hand.
    pub nexus_commands_max: u32,
    /// Work on all of the medium that this shard does.
    pub job: Option<Box<Job>>,
    /// Whether it is on its way out.
    pub closing: Closing,
    /// What is recorded of it, but for `runs`.
    pub meter: UnitMeter,
    runs: [Run; Operation::ALL.len()],
    /// What the next meter gets of which control had not known that it would be needed.
    spare: [Option<Box<Latencies>>; Operation::ALL.len()],
}

impl Unit {
    /// A unit as control describes it, without its medium, on one of so many shards.
    #[must_use]
    pub fn new<M>(opening: &Opening<M>, shard: ShardId, shards: usize) -> Self {
        Self {
            id: opening.unit,
            device: Arc::clone(&opening.device),
            state: Arc::clone(&opening.state),
            generation: opening.generation,
            queue: None,
            memory_alignment: 1,
            share: Share::default(),
            lines: Lines::default(),
            drains: Drains::default(),
            orphans: Arc::from([]),
            arbiter: Arbiter::new(shard, shards),
            tokens: Tokens::default(),
            lends_from: Moment::ORIGIN,
            at_medium: 0,
            is_at_work: false,
            tasks: 0,
            nexus_commands_max: opening.nexus_commands_max,
            job: None,
            closing: Closing::No,
            meter: UnitMeter::new(opening.unit),
            runs: [Run::default(); Operation::ALL.len()],
            spare: [const { None }; Operation::ALL.len()],
        }
    }

    /// One more request of this unit, whose key this is, has been handed to its medium.
    #[inline]
    pub fn begun(&mut self, key: Key<Unit>, at_work: &mut Vec<Key<Unit>>) {
        self.at_medium += 1;
        if !self.is_at_work {
            self.is_at_work = true;
            at_work.push(key);
        }
    }

    /// Makes sure that there is room for the latencies of an operation, in this meter and in the one that follows it: the
    /// first command of its kind pays for all.
    #[inline]
    pub fn furnish(&mut self, operation: Operation) {
        let meter = self.meter.operation(operation);
        if meter.latencies.is_none() {
            meter.latencies = Some(Box::default());
            self.spare[operation as usize] = Some(Box::default());
        }
    }

    /// Records how long so many commands took, for which [`Unit::furnish`] has made room.
    #[inline]
    pub fn note(&mut self, operation: Operation, lasted: Lasted, commands: u32) {
        let run = &mut self.runs[operation as usize];
        if run.commands > 0 && run.lasted == lasted {
            run.commands += commands;
        } else {
            self.end_run(operation);
            self.runs[operation as usize] = Run { lasted, commands };
        }
    }

    /// Puts the commands of a run into the histograms.
    fn end_run(&mut self, operation: Operation) {
        let Run { lasted, commands } = std::mem::take(&mut self.runs[operation as usize]);
        let Some(latencies) = &mut self.meter.operation(operation).latencies else { return };
        if commands == 0 {
            return;
        }
        latencies.total.saturating_record_n(lasted.total_ns, commands);
        if let Some(waited_ns) = lasted.waited_ns {
            latencies.waited.saturating_record_n(waited_ns, commands);
        }
        if let Some(at_medium_ns) = lasted.at_medium_ns {
            latencies.at_medium.saturating_record_n(at_medium_ns, commands);
        }
    }

    /// A library has had a request of this operation for so long. The first one pays for its histogram.
    pub fn note_library(&mut self, operation: Operation, time_ns: u64) {
        self.furnish(operation);
        if let Some(latencies) = &mut self.meter.operation(operation).latencies {
            latencies.in_library.get_or_insert_with(histogram).saturating_record(time_ns);
        }
    }

    /// Goes on with a blank meter; the one so far.
    #[must_use]
    pub fn turn_meter(&mut self, mut blank: UnitMeter) -> UnitMeter {
        Operation::ALL.into_iter().for_each(|operation| self.end_run(operation));
        for ((blank, now), spare) in
            blank.operations.iter_mut().zip(&self.meter.operations).zip(&mut self.spare)
        {
            if blank.latencies.is_none() && now.latencies.is_some() {
                blank.latencies = spare.take().or_else(|| Some(Box::default()));
            }
            if let (Some(blank), Some(now)) = (&mut blank.latencies, &now.latencies)
                && now.in_library.is_some()
            {
                blank.in_library.get_or_insert_with(histogram);
            }
        }
        std::mem::replace(&mut self.meter, blank)
    }

    /// Whether a piece of `class` by `nexus`, which comes by `port`, at these blocks may be handed to the medium now.
    ///
    /// # Errors
    /// What the command ends with instead: what the current state says, its size included, or BUSY where a write without an owner may still
    /// land on those blocks.
    #[inline]
    pub fn admits(
        &self,
        nexus: NexusId,
        port: u16,
        class: CommandClass,
        blocks: Blocks,
    ) -> Result<(), Outcome> {
        self.state.recheck(nexus, port, class)?;
        if blocks.end() > self.state.geometry.blocks() {
            // It has shrunk since the command was looked at.
            return Err(Outcome::illegal(AdditionalSense::LBA_OUT_OF_RANGE));
        }
        if !self.orphans.is_empty() && self.orphans.iter().any(|orphan| blocks.overlaps(Blocks::of(orphan))) {
            return Err(Outcome::BUSY);
        }
        Ok(())
    }

    /// Adds an orphan of this shard at once, without waiting for control to announce it to everybody.
    pub fn add_orphan(&mut self, orphan: Orphan) {
        self.orphans = self.orphans.iter().copied().chain([orphan]).collect();
    }

    /// Takes an orphan of this shard out.
    pub fn remove_orphan(&mut self, shard: ShardId, serial: u64) -> Option<Orphan> {
        let is_it = |orphan: &&Orphan| orphan.shard == shard && orphan.serial == serial;
        let found = self.orphans.iter().find(is_it).copied()?;
        self.orphans = self.orphans.iter().filter(|orphan| !is_it(orphan)).copied().collect();
        Some(found)
    }

    /// Control's list of orphans, to which those of this shard that it has not heard of yet are added, and from which
    /// those are taken that are through.
    pub fn install_orphans(&mut self, announced: &Arc<[Orphan]>, shard: ShardId) {
        if announced.is_empty() && self.orphans.is_empty() {
            return;
        }
        let own = self.orphans.iter().filter(|orphan| orphan.shard == shard);
        let others = announced.iter().filter(|orphan| orphan.shard != shard);
        self.orphans = own.chain(others).copied().collect();
    }
}

/// How long a command took, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lasted {
    /// Until its first piece was handed to the medium, if one was.
    pub waited_ns: Option<u64>,
    /// From then on until the last was back.
    pub at_medium_ns: Option<u64>,
    /// From its arrival until its status was handed to the connection.
    pub total_ns: u64,
}

/// Commands in a row that took equally long, as those of one turn do at a medium in memory: they go into the histograms
/// together.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    lasted: Lasted,
    commands: u32,
}

/// How far a unit that no session maps any more is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It stays.
    No,
    /// It goes when nothing is at its medium.
    Wanted,
    /// What it was given is being made stable: the next gateway, or the next device, finds it.
    Flushing,
}

/// A range of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// The first.
    pub lba: u64,
    /// How many.
    pub count: u64,
}

impl Blocks {
    /// The blocks of `length_bytes` at `offset_bytes` with blocks of `block_bytes`.
    #[must_use]
    pub fn at(offset_bytes: u64, length_bytes: u64, block_bytes: u32) -> Self {
        let block = u64::from(block_bytes);
        Self { lba: offset_bytes / block, count: length_bytes.div_ceil(block) }
    }

    fn of(orphan: &Orphan) -> Self {
        Self { lba: orphan.lba, count: orphan.blocks }
    }

    /// The block behind the last.
    #[must_use]
    pub fn end(self) -> u64 {
        self.lba.saturating_add(self.count)
    }

    /// Whether the two have a block in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.lba < other.end() && other.lba < self.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_has_room_for_latencies_of_what_was_asked_and_so_has_the_one_that_follows() {
        let address = |meter: &UnitMeter, operation: Operation| {
            meter.operations[operation as usize].latencies.as_deref().map(std::ptr::from_ref)
        };
        let mut unit = crate::tests::idle_unit();
        assert!(Operation::ALL.iter().all(|operation| address(&unit.meter, *operation).is_none()));
        unit.furnish(Operation::Read);
        let spare = unit.spare[Operation::Read as usize].as_deref().map(std::ptr::from_ref);
        assert!(spare.is_some());
        let first = unit.turn_meter(UnitMeter::new(unit.id));
        assert_eq!(address(&unit.meter, Operation::Read), spare, "what was set aside is used");
        assert_eq!(address(&unit.meter, Operation::Write), None);
        let room = address(&first, Operation::Read);
        unit.furnish(Operation::Read);
        let _second = unit.turn_meter(first);
        assert_eq!(address(&unit.meter, Operation::Read), room, "and from then on the two take turns");
        assert!(size_of::<UnitMeter>() <= 160, "what a unit costs that nobody uses");
    }

    #[test]
    fn each_command_is_in_the_histograms_however_long_the_one_before_took() {
        let mut unit = crate::tests::idle_unit();
        let lasted = |total_ns| Lasted { waited_ns: Some(0), at_medium_ns: None, total_ns };
        unit.furnish(Operation::Read);
        unit.furnish(Operation::Write);
        for total_ns in [5000, 5000, 70_000, 5000] {
            unit.note(Operation::Read, lasted(total_ns), 1);
            unit.note(Operation::Write, Lasted::default(), 1);
        }
        let full = unit.turn_meter(UnitMeter::new(unit.id));
        let [read, write] = [Operation::Read, Operation::Write]
            .map(|operation| full.operations[operation as usize].latencies.as_deref().unwrap());
        let counts = |latencies: &Latencies| {
            [&latencies.waited, &latencies.at_medium, &latencies.total].map(|histogram| histogram.len())
        };
        assert_eq!((counts(read), counts(write)), ([4, 0, 4], [0, 0, 4]));
        assert_eq!((read.total.count_at(5000), read.total.count_at(70_000)), (3, 1));
        let none = unit.turn_meter(UnitMeter::new(unit.id));
        let read = none.operations[Operation::Read as usize].latencies.as_deref().unwrap();
        assert_eq!(counts(read), [0; 3], "each once");
    }

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let blocks = |lba, count| Blocks { lba, count };
        assert!(!blocks(0, 8).overlaps(blocks(8, 8)));
        assert!(blocks(0, 9).overlaps(blocks(8, 8)));
        assert!(blocks(10, 1).overlaps(blocks(8, 8)));
        assert!(!blocks(0, 0).overlaps(blocks(0, 0)));
        assert!(blocks(u64::MAX - 1, 5).overlaps(blocks(u64::MAX - 1, 1)));
    }
}
