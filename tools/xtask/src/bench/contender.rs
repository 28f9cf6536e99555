//! Who is measured: the gateway, its peer, the floors, the ring below a medium, a target that the caller has named.

use std::fmt;

use super::matrix::{Cell, Media};
use crate::lab::Result;
use crate::lab::floor::{Floor, Way};
use crate::lab::target::{Kind, Peer, Target, Tuning};
use crate::tree::Tree;

/// Whoever answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contender {
    /// Ours, on one core.
    Portico,
    /// Ours, with `poll_us` on.
    Polling,
    /// Ours, recording no latencies.
    Unmeasured,
    /// Ours, with digests of headers and data.
    Digests,
    /// Ours, on so many cores.
    Shards(u32),
    Tgt,
    /// A bare ring.
    Floor {
        polls: bool,
    },
    Epoll,
    Glommio,
    /// No target: a ring that reads the medium.
    Medium,
    /// The caller's.
    Given,
}

impl fmt::Display for Contender {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Contender::Portico => "portico",
            Contender::Polling => "portico-poll",
            Contender::Unmeasured => "portico-no-histograms",
            Contender::Digests => "portico-digests",
            Contender::Shards(count) => return write!(out, "portico-{count}-shards"),
            Contender::Tgt => "tgt",
            Contender::Floor { polls: false } => "floor",
            Contender::Floor { polls: true } => "floor-poll",
            Contender::Epoll => "epoll",
            Contender::Glommio => "glommio",
            Contender::Medium => "medium",
            Contender::Given => "given",
        };
        out.write_str(name)
    }
}

impl Contender {
    /// Whether it is a target whose blocks we may write before the measurement.
    pub(super) fn has_blocks(self) -> bool {
        matches!(
            self,
            Contender::Portico
                | Contender::Polling
                | Contender::Unmeasured
                | Contender::Digests
                | Contender::Shards(_)
                | Contender::Tgt
        )
    }
}

/// The floor without polling.
pub(super) const FLOOR: Contender = Contender::Floor { polls: false };

/// Who is measured in a cell of the matrix.
pub(super) fn of(cell: Cell) -> Vec<Contender> {
    let mut contenders = match cell.media {
        Media::Null | Media::Ram => {
            vec![Contender::Portico, Contender::Tgt, FLOOR, Contender::Epoll, Contender::Glommio]
        }
        Media::File | Media::Loop => vec![Contender::Portico, Contender::Tgt],
        Media::Given => vec![Contender::Given, Contender::Portico, FLOOR],
    };
    if matches!(cell.media, Media::File | Media::Loop) && cell.direction != super::matrix::Direction::Mixed {
        contenders.push(Contender::Medium);
    }
    if cell.is_single() && cell.media == Media::Null {
        contenders.extend([Contender::Polling, Contender::Floor { polls: true }]);
    }
    contenders
}

/// A target that the caller has named.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) url: String,
    /// Its process, where it is one of this machine.
    pub(super) process: Option<u32>,
}

/// A contender at work; it ends when this is dropped.
pub(super) struct Standing {
    pub(super) url: String,
    /// For /proc.
    pub(super) process: Option<u32>,
    _kept: Kept,
}

#[expect(dead_code, reason = "held, so that they run")]
enum Kept {
    Target(Box<Target>),
    Floor(Floor),
    Nothing,
}

impl Standing {
    /// Starts `contender` with the unit that `cell` wants, on these processors. [`Contender::Medium`] is no target.
    pub(super) fn start(
        tree: &Tree,
        contender: Contender,
        cell: Cell,
        cores: &[usize],
        given: Option<&Given>,
    ) -> Result<Standing> {
        let floor = |way, polls| {
            let has_memory = cell.media != Media::Null;
            let size_bytes = size_bytes(cell.media);
            let floor = Floor::start(tree, &Way { name: way, polls, has_memory, size_bytes }, cores)?;
            let (url, process) = (floor.url(), Some(floor.process_id()));
            Ok(Standing { url, process, _kept: Kept::Floor(floor) })
        };
        let poll_us = if contender == Contender::Polling { POLL_US } else { 0 };
        let peer = match contender {
            Contender::Portico
            | Contender::Polling
            | Contender::Unmeasured
            | Contender::Digests
            | Contender::Shards(_) => Peer::Portico,
            Contender::Tgt => Peer::Tgt,
            Contender::Floor { polls } => return floor("ring", polls),
            Contender::Epoll => return floor("epoll", false),
            Contender::Glommio => return floor("glommio", false),
            Contender::Given | Contender::Medium => {
                let given = given.expect("a cell of a given target has one");
                let (url, process) = (given.url.clone(), given.process);
                return Ok(Standing { url, process, _kept: Kept::Nothing });
            }
        };
        let tuning = Tuning {
            cores: cores.to_vec(),
            queued_commands: Some(WINDOW),
            is_direct: matches!(cell.media, Media::File | Media::Loop),
            poll_us,
            has_no_histograms: contender == Contender::Unmeasured,
            has_two_targets: false,
        };
        let target = Target::start_tuned(tree, peer, kind(cell.media), size_bytes(cell.media), tuning)?;
        let (url, process) = (target.url(), target.process_id());
        Ok(Standing { url, process, _kept: Kept::Target(Box::new(target)) })
    }
}

/// What a lab unit of that medium is; beside a given target the gateway serves a RAM disk.
pub(super) fn kind(media: Media) -> Kind {
    match media {
        Media::Null => Kind::Null,
        Media::Ram | Media::Given => Kind::Ram,
        Media::File => Kind::File,
        Media::Loop => Kind::Loop,
    }
}

/// Files are written whole before they are measured.
pub(super) fn size_bytes(media: Media) -> u64 {
    match media {
        Media::File | Media::Loop => 64 << 20,
        Media::Null | Media::Ram | Media::Given => 256 << 20,
    }
}

/// QueuedCommands of the gateway, the floors' window; tgt's is the same by default.
pub(super) const WINDOW: u32 = 128;
/// Longer than the generator takes from an answer to the next command.
const POLL_US: u32 = 1000;
