//! The task table of a session: every request that has a task tag and has not been retired, found by its tag.
//!
//! All of it is allocated when the session begins, for a bounded number of tasks. Look-up by Initiator Task Tag costs one
//! hash; a [`TaskId`] finds its slot directly, and one that has outlived its task finds nothing.

use super::Seat;
use crate::sn::CmdSn;
use crate::transfer::read::Read;
use crate::transfer::write::Write;
use crate::wire::{InitiatorTaskTag, LogoutRequest, NopOut, ScsiCommand, TaskManagementRequest, TextRequest};

/// Names a task of one session, as long as it lives. Never used twice for different tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskId {
    slot: u16,
    generation: u32,
}

impl TaskId {
    /// Names no task: no session has so many slots.
    pub const NOBODY: Self = Self { slot: NONE, generation: 0 };

    /// The slot: below [`Session::task_slots`](super::Session::task_slots), and unique among the tasks that have not been
    /// retired. For the caller's own tables.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    pub(super) const fn ttt_base(self) -> u32 {
        (self.slot as u32) << 16
    }
}

/// A request that has a task tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// §11.3
    Command(ScsiCommand),
    /// §11.5
    TaskManagement(TaskManagementRequest),
    /// §11.18, one that wants an answer.
    NopOut(NopOut),
    /// §11.10
    Text(TextRequest),
    /// §11.14
    Logout(LogoutRequest),
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody's.
    Free,
    /// Received, and not yet handed to the caller.
    Queued,
    /// Handed to the caller.
    Delivered,
    /// Its status has been emitted, or it has been aborted: nothing of it goes out any more, its tag is free.
    Ended,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) stage: Stage,
    /// The connection that it is allegiant to (§4.2.5.1).
    pub(super) seat: Seat,
    pub(super) request: Request,
    pub(super) write: Write,
    pub(super) read: Read,
    generation: u32,
    /// The next slot with the same hash, or [`NONE`].
    next: u16,
}

pub(super) struct Tasks {
    slots: Box<[Task]>,
    free: Vec<u16>,
    /// Per hash of a tag, the first slot with it.
    heads: Box<[u16]>,
    /// Tasks of immediate requests that have not been retired.
    immediate: u16,
}

const NONE: u16 = u16::MAX;

/// A session of 32 commands keeps its table in 20 KiB, one of 2048 in 1 MiB.
const _: () = assert!(size_of::<Task>() <= 256);

impl Tasks {
    pub(super) fn new(slots_max: u16) -> Self {
        assert!(slots_max < NONE, "a slot of 0xffff would make a reserved transfer tag");
        let blank = Task {
            stage: Stage::Free,
            seat: Seat::LEADING,
            request: Request::Logout(BLANK),
            write: Write::NONE,
            read: Read::default(),
            generation: 0,
            next: NONE,
        };
        let buckets = (usize::from(slots_max) * 2).next_power_of_two();
        Self {
            slots: vec![blank; usize::from(slots_max)].into_boxed_slice(),
            free: (0..slots_max).rev().collect(),
            heads: vec![NONE; buckets].into_boxed_slice(),
            immediate: 0,
        }
    }

    /// A new task, queued. There is a free slot: the window and the bound on immediate requests see to that.
    pub(super) fn insert(&mut self, seat: Seat, request: Request, write: Write, read: Read) -> TaskId {
        let slot = self.free.pop().expect("the window admits no more requests than there are slots");
        let bucket = self.bucket(request.task_tag());
        let next = core::mem::replace(&mut self.heads[bucket], slot);
        let task = &mut self.slots[usize::from(slot)];
        assert_eq!(task.stage, Stage::Free);
        let generation = task.generation;
        *task = Task { stage: Stage::Queued, seat, request, write, read, generation, next };
        self.immediate += u16::from(request.is_immediate());
        TaskId { slot, generation }
    }

    /// The task that has this tag and has not ended.
    pub(super) fn find(&self, tag: InitiatorTaskTag) -> Option<TaskId> {
        let mut slot = self.heads[self.bucket(tag)];
        while slot != NONE {
            let task = &self.slots[usize::from(slot)];
            if task.request.task_tag() == tag {
                return Some(TaskId { slot, generation: task.generation });
            }
            slot = task.next;
        }
        None
    }

    /// The task, if it has not been retired.
    pub(super) fn lookup(&self, id: TaskId) -> Option<&Task> {
        let task = self.slots.get(usize::from(id.slot))?;
        (task.generation == id.generation).then_some(task)
    }

    /// The task, which has not been retired: its holder is the only one to retire it.
    pub(super) fn task(&self, id: TaskId) -> &Task {
        self.lookup(id).expect("the task has not been retired")
    }

    pub(super) fn task_mut(&mut self, id: TaskId) -> &mut Task {
        let task = &mut self.slots[usize::from(id.slot)];
        assert_eq!(task.generation, id.generation, "the task has not been retired");
        task
    }

    /// The task ends: its tag may be used again. Its slot is kept until [`Tasks::retire`].
    pub(super) fn end(&mut self, id: TaskId) {
        let tag = self.task(id).request.task_tag();
        let bucket = self.bucket(tag);
        let after = self.task(id).next;
        if self.heads[bucket] == id.slot {
            self.heads[bucket] = after;
        } else {
            let mut before = self.heads[bucket];
            while self.slots[usize::from(before)].next != id.slot {
                before = self.slots[usize::from(before)].next;
            }
            self.slots[usize::from(before)].next = after;
        }
        self.task_mut(id).stage = Stage::Ended;
    }

    /// The slot of an ended task is free again, and `id` names nothing any more.
    pub(super) fn retire(&mut self, id: TaskId) {
        let task = self.task_mut(id);
        assert_eq!(task.stage, Stage::Ended, "a task is answered or aborted before it is retired");
        task.stage = Stage::Free;
        task.generation = task.generation.wrapping_add(1);
        let immediate = task.request.is_immediate();
        self.immediate -= u16::from(immediate);
        self.free.push(id.slot);
    }

    /// Tasks that have not ended.
    pub(super) fn live(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.slots.iter().zip(0_u16..).filter_map(|(task, slot)| {
            let live = matches!(task.stage, Stage::Queued | Stage::Delivered);
            live.then_some((TaskId { slot, generation: task.generation }, task))
        })
    }

    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    pub(super) fn immediate(&self) -> u16 {
        self.immediate
    }

    /// Whether a connection has an unretired immediate request of the same sort: a task management function, or another.
    pub(super) fn has_immediate_like(&self, seat: Seat, request: &Request) -> bool {
        let is_function = |request: &Request| matches!(request, Request::TaskManagement(_));
        self.slots.iter().any(|task| {
            task.stage != Stage::Free
                && task.request.is_immediate()
                && task.seat == seat
                && is_function(&task.request) == is_function(request)
        })
    }

    /// Fibonacci hashing: tags are mostly small numbers that count up.
    fn bucket(&self, tag: InitiatorTaskTag) -> usize {
        let spread = tag.0.wrapping_mul(0x9e37_79b9).rotate_right(16);
        spread as usize & (self.heads.len() - 1)
    }
}

const BLANK: LogoutRequest = LogoutRequest {
    immediate: false,
    reason: crate::wire::LogoutReason::CloseSession,
    initiator_task_tag: InitiatorTaskTag::RESERVED,
    cid: crate::wire::Cid(0),
    cmd_sn: CmdSn(0),
    expected_stat_sn: crate::sn::StatSn(0),
};

impl Request {
    /// The Initiator Task Tag.
    #[must_use]
    pub const fn task_tag(&self) -> InitiatorTaskTag {
        match self {
            Self::Command(pdu) => pdu.initiator_task_tag,
            Self::TaskManagement(pdu) => pdu.initiator_task_tag,
            Self::NopOut(pdu) => pdu.initiator_task_tag,
            Self::Text(pdu) => pdu.initiator_task_tag,
            Self::Logout(pdu) => pdu.initiator_task_tag,
        }
    }

    /// The I bit: outside of the command window.
    #[must_use]
    pub const fn is_immediate(&self) -> bool {
        match self {
            Self::Command(pdu) => pdu.immediate,
            Self::TaskManagement(pdu) => pdu.immediate,
            Self::NopOut(pdu) => pdu.immediate,
            Self::Text(pdu) => pdu.immediate,
            Self::Logout(pdu) => pdu.immediate,
        }
    }

    /// CmdSN.
    #[must_use]
    pub const fn cmd_sn(&self) -> CmdSn {
        match self {
            Self::Command(pdu) => pdu.cmd_sn,
            Self::TaskManagement(pdu) => pdu.cmd_sn,
            Self::NopOut(pdu) => pdu.cmd_sn,
            Self::Text(pdu) => pdu.cmd_sn,
            Self::Logout(pdu) => pdu.cmd_sn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn request(tag: u32) -> Request {
        Request::Logout(LogoutRequest { initiator_task_tag: InitiatorTaskTag(tag), ..BLANK })
    }

    #[test]
    fn an_id_that_has_outlived_its_task_finds_nothing() {
        let mut tasks = Tasks::new(1);
        let first = tasks.insert(Seat::LEADING, request(7), Write::NONE, Read::default());
        tasks.end(first);
        assert!(tasks.lookup(first).is_some(), "ended, and kept until it is retired");
        assert_eq!(tasks.find(InitiatorTaskTag(7)), None);
        tasks.retire(first);
        let second = tasks.insert(Seat::LEADING, request(7), Write::NONE, Read::default());
        assert_eq!(second.slot(), first.slot());
        assert!(tasks.lookup(first).is_none());
        assert_eq!(tasks.find(InitiatorTaskTag(7)), Some(second));
    }

    proptest! {
        /// Steps of tags in and out, against a map; few tags, so that chains of equal hashes are made and broken.
        #[test]
        fn the_index_finds_what_a_map_finds(steps: Vec<(u8, bool)>) {
            let mut tasks = Tasks::new(256);
            let mut map = HashMap::new();
            for (tag, ends) in steps {
                let tag = u32::from(tag) << 24;
                match (map.get(&tag).copied(), ends) {
                    (None, _) => { map.insert(tag, tasks.insert(Seat::LEADING, request(tag), Write::NONE, Read::default())); }
                    (Some(id), true) => { tasks.end(id); tasks.retire(id); map.remove(&tag); }
                    (Some(_), false) => {}
                }
                for tag in (0..=255_u32).map(|tag| tag << 24) {
                    prop_assert_eq!(tasks.find(InitiatorTaskTag(tag)), map.get(&tag).copied());
                }
                prop_assert_eq!(tasks.live().count(), map.len());
                prop_assert_eq!(tasks.free(), 256 - map.len());
            }
        }
    }
}
