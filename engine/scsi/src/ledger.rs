//! The ledger of a logical unit: who holds it, by name, and what outlives the process.
//!
//! Pure: the single writer applies one change at a time, makes the bytes of [`Ledger::encode`] durable, and installs the
//! view that shards compare [`NexusId`]s against. Only here does a nexus have a name. Today's reservations are RESERVE and
//! RELEASE (SPC-2 §5.5.1); registrations are to join them as further fields of [`Ledger`] and of its encoding.

use std::collections::BTreeMap;
use std::fmt;

use crate::attention::UnitAttention;
use crate::reservation::{NexusId, Reservation};
use crate::sense::Outcome;

/// An I_T nexus by the names of its ends, as they stay the same over a new login (RFC 7143 §4.2.7, §10.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NexusName {
    initiator_port: String,
    target_port: String,
}

/// Longest name of a port, bytes: an iSCSI name of 223, its separator, and an ISID or a portal group tag.
pub const PORT_NAME_BYTES_MAX: usize = 256;
const _: () = assert!(PORT_NAME_BYTES_MAX <= u16::MAX as usize);

impl NexusName {
    /// The nexus between an initiator port (name and ISID) and a target port (name and portal group tag).
    ///
    /// # Panics
    /// When a name is longer than [`PORT_NAME_BYTES_MAX`]: login has bounded both.
    pub fn new(initiator_port: impl Into<String>, target_port: impl Into<String>) -> Self {
        let name = Self { initiator_port: initiator_port.into(), target_port: target_port.into() };
        assert!(name.initiator_port.len() <= PORT_NAME_BYTES_MAX, "initiator port: {}", name.initiator_port);
        assert!(name.target_port.len() <= PORT_NAME_BYTES_MAX, "target port: {}", name.target_port);
        name
    }

    /// Name of the initiator port.
    pub fn initiator_port(&self) -> &str {
        &self.initiator_port
    }

    /// Name of the target port.
    pub fn target_port(&self) -> &str {
        &self.target_port
    }
}

impl fmt::Display for NexusName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.initiator_port, self.target_port)
    }
}

/// Which nexuses something is for. A nexus that the single writer has not granted yet is in none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Every nexus.
    All,
    /// Every nexus but the one that caused it.
    AllBut(NexusId),
    /// These.
    These(Vec<NexusId>),
}

impl Whom {
    /// Whether `nexus` is one of them.
    pub fn includes(&self, nexus: NexusId) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(one) => *one != nexus,
            Self::These(these) => these.contains(&nexus),
        }
    }
}

/// A change that the ledger judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationChange {
    /// RESERVE.
    Reserve,
    /// RELEASE.
    Release,
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether the ledger is another one now: then it is made durable, and the view installed.
    pub changed: bool,
    /// The reservation as replicas shall know it.
    pub view: Reservation,
    /// Unit attentions due.
    pub attentions: Vec<(Whom, UnitAttention)>,
    /// Whose tasks are aborted.
    pub aborts: Option<Whom>,
}

/// Reservations of one logical unit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Nexuses that have a session now. Not part of what is kept.
    attached: BTreeMap<NexusId, NexusName>,
    /// The holder of a RESERVE.
    reserved_by: Option<NexusName>,
}

impl Ledger {
    /// Nobody holds anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// A session opens: from now on `id` stands for `name`. Returns the view, which changes when the nexus that holds the
    /// unit comes back.
    ///
    /// # Panics
    /// When `id` is attached already, or when `name` is, by a session whose loss was not told.
    pub fn attach(&mut self, id: NexusId, name: NexusName) -> Reservation {
        assert!(!self.attached.values().any(|other| *other == name), "{name} is attached twice");
        let before = self.attached.insert(id, name);
        assert!(before.is_none(), "{id:?} is attached twice");
        self.view()
    }

    /// The reservation as replicas shall know it.
    pub fn view(&self) -> Reservation {
        let Some(holder) = &self.reserved_by else {
            return Reservation::None;
        };
        let attached = self.attached.iter().find(|(_, name)| *name == holder);
        Reservation::Exclusive { holder: attached.map(|(id, _)| *id) }
    }

    /// Who holds the unit without having a session: restored from a former process.
    pub fn absent_holder(&self) -> Option<&NexusName> {
        self.reserved_by.as_ref().filter(|holder| !self.attached.values().any(|name| name == *holder))
    }

    /// Applies `change` from `me`.
    ///
    /// # Errors
    /// RESERVATION CONFLICT for RESERVE while another nexus holds the unit. RELEASE by who does not hold it is no error
    /// and changes nothing (SPC-2 §7.16).
    ///
    /// # Panics
    /// When `me` is not attached.
    pub fn apply(&mut self, change: ReservationChange, me: NexusId) -> Result<Applied, Outcome> {
        let name = self.attached.get(&me).expect("a change comes from an attached nexus");
        let mine = self.reserved_by.as_ref() == Some(name);
        match change {
            ReservationChange::Reserve if self.reserved_by.is_some() && !mine => {
                Err(Outcome::RESERVATION_CONFLICT)
            }
            ReservationChange::Reserve => {
                self.reserved_by = Some(name.clone());
                Ok(self.applied(!mine))
            }
            ReservationChange::Release => {
                if mine {
                    self.reserved_by = None;
                }
                Ok(self.applied(mine))
            }
        }
    }

    /// The session of `id` is gone: logout, connection lost for good, or reinstated. A RESERVE goes with it (SPC-2 §5.5.1,
    /// SAM-5 §6.3.4).
    pub fn nexus_lost(&mut self, id: NexusId) -> Applied {
        let name = self.attached.remove(&id);
        let held = name.is_some() && name == self.reserved_by;
        if held {
            self.reserved_by = None;
        }
        self.applied(held)
    }

    /// The holder that a restart left without a session did not come back in time: the same as the loss of its nexus.
    pub fn absent_holder_lost(&mut self) -> Applied {
        let absent = self.absent_holder().is_some();
        if absent {
            self.reserved_by = None;
        }
        self.applied(absent)
    }

    /// Logical unit reset, or target reset: a RESERVE ends (SPC-2 §5.5.1).
    pub fn logical_unit_reset(&mut self) -> Applied {
        let held = self.reserved_by.take().is_some();
        self.applied(held)
    }

    fn applied(&self, changed: bool) -> Applied {
        Applied { changed, view: self.view(), attentions: Vec::new(), aborts: None }
    }
}

/// Tells one run of the kernel from another: under the same id, the ledger is restored whole.
pub type BootId = [u8; 16];

/// Why kept bytes are no ledger. None of these is ever guessed at: the unit stays not ready until a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerDamage {
    /// Shorter than it says or than it can be.
    Truncated {
        /// Bytes that are there.
        bytes: usize,
    },
    /// Something else than a ledger.
    NotALedger,
    /// Written by a version that this one does not know.
    Version(u16),
    /// Something changed since it was written.
    Checksum {
        /// What the bytes say.
        stored: u32,
        /// What they come to.
        computed: u32,
    },
    /// The checksum is right and what it covers is not: a bug wrote it.
    Malformed {
        /// Index of the byte at which it stops making sense.
        at: usize,
    },
}

impl fmt::Display for LedgerDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { bytes } => write!(f, "the ledger breaks off after {bytes} bytes"),
            Self::NotALedger => write!(f, "this is not a ledger of reservations"),
            Self::Version(version) => {
                write!(f, "the ledger is of version {version}, and {VERSION} is what is known here")
            }
            Self::Checksum { stored, computed } => {
                write!(f, "the ledger's checksum is {stored:#010x}, its bytes come to {computed:#010x}")
            }
            Self::Malformed { at } => write!(f, "the ledger makes no sense at byte {at}"),
        }
    }
}

impl std::error::Error for LedgerDamage {}

const MAGIC: [u8; 8] = *b"pLedger\n";
const VERSION: u16 = 1;
/// Magic, version, boot id.
const HEADER_BYTES: usize = 8 + 2 + 16;
const CHECKSUM_BYTES: usize = 4;
/// Longest encoding.
pub const LEDGER_BYTES_MAX: usize = HEADER_BYTES + 1 + 2 * (2 + PORT_NAME_BYTES_MAX) + CHECKSUM_BYTES;

const TAG_NONE: u8 = 0;
const TAG_RESERVE: u8 = 1;

impl Ledger {
    /// The bytes to keep: magic, version, the boot id under which this was written, the reservation, CRC32C of all that.
    pub fn encode(&self, boot: BootId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LEDGER_BYTES_MAX);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(boot);
        match &self.reserved_by {
            None => bytes.push(TAG_NONE),
            Some(holder) => {
                bytes.push(TAG_RESERVE);
                for name in [&holder.initiator_port, &holder.target_port] {
                    let length = u16::try_from(name.len()).expect("bounded by PORT_NAME_BYTES_MAX");
                    bytes.extend(length.to_be_bytes());
                    bytes.extend(name.as_bytes());
                }
            }
        }
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        assert!(bytes.len() <= LEDGER_BYTES_MAX, "a ledger of {} bytes", bytes.len());
        bytes
    }

    /// The ledger in `bytes`, with nobody attached, and the boot id under which it was written.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<(Self, BootId), LedgerDamage> {
        let truncated = LedgerDamage::Truncated { bytes: bytes.len() };
        let magic = bytes.get(..MAGIC.len()).ok_or(truncated)?;
        if magic != MAGIC {
            return Err(LedgerDamage::NotALedger);
        }
        let body_end =
            bytes.len().checked_sub(CHECKSUM_BYTES).filter(|end| *end >= HEADER_BYTES).ok_or(truncated)?;
        // The version comes before the checksum: a later one may be checked in another way.
        match u16::from_be_bytes([bytes[8], bytes[9]]) {
            VERSION => {}
            version => return Err(LedgerDamage::Version(version)),
        }
        let (body, stored) = bytes.split_at(body_end);
        let stored = u32::from_be_bytes(stored.try_into().expect("four bytes"));
        let computed = crc32c::crc32c(body);
        if stored != computed {
            return Err(LedgerDamage::Checksum { stored, computed });
        }
        let boot = body[10..HEADER_BYTES].try_into().expect("sixteen bytes");
        let reserved_by = decode_reservation(body)?;
        Ok((Self { attached: BTreeMap::new(), reserved_by }, boot))
    }

    /// What of a kept ledger holds under `boot`: all of it in the same run of the kernel; after a reboot nothing, since a
    /// RESERVE does not survive a loss of power (SPC-2 §5.5.1).
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn restore(bytes: &[u8], boot: BootId) -> Result<Self, LedgerDamage> {
        let (ledger, written_under) = Self::decode(bytes)?;
        Ok(if written_under == boot { ledger } else { Self::new() })
    }
}

fn decode_reservation(body: &[u8]) -> Result<Option<NexusName>, LedgerDamage> {
    let mut at = HEADER_BYTES;
    let tag = *body.get(at).ok_or(LedgerDamage::Malformed { at })?;
    at += 1;
    let holder = match tag {
        TAG_NONE => None,
        TAG_RESERVE => {
            let initiator_port = decode_name(body, &mut at)?;
            let target_port = decode_name(body, &mut at)?;
            Some(NexusName { initiator_port, target_port })
        }
        _ => return Err(LedgerDamage::Malformed { at: at - 1 }),
    };
    if at == body.len() { Ok(holder) } else { Err(LedgerDamage::Malformed { at }) }
}

fn decode_name(body: &[u8], at: &mut usize) -> Result<String, LedgerDamage> {
    let malformed = LedgerDamage::Malformed { at: *at };
    let (length, rest) = body.get(*at..).and_then(<[u8]>::split_first_chunk::<2>).ok_or(malformed)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let bytes = rest.get(..length).filter(|_| length <= PORT_NAME_BYTES_MAX).ok_or(malformed)?;
    *at += 2 + length;
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: NexusId = NexusId(10);
    const B: NexusId = NexusId(11);
    const BOOT: BootId = [7; 16];

    fn name(initiator: &str) -> NexusName {
        NexusName::new(
            format!("iqn.2026-11.test:{initiator},i,0x400001370001"),
            "iqn.2026-11.test:t,t,0x0001",
        )
    }

    fn two_nexuses() -> Ledger {
        let mut ledger = Ledger::new();
        ledger.attach(A, name("a"));
        ledger.attach(B, name("b"));
        ledger
    }

    fn held_by(id: NexusId) -> Reservation {
        Reservation::Exclusive { holder: Some(id) }
    }

    #[test]
    fn one_reserves_the_other_is_refused_until_the_first_releases() {
        let mut ledger = two_nexuses();
        assert_eq!(ledger.apply(ReservationChange::Reserve, A).unwrap().view, held_by(A));
        assert!(!ledger.apply(ReservationChange::Reserve, A).unwrap().changed, "again is no change");
        assert_eq!(ledger.apply(ReservationChange::Reserve, B), Err(Outcome::RESERVATION_CONFLICT));
        let release = ledger.apply(ReservationChange::Release, B).unwrap();
        assert_eq!((release.changed, release.view), (false, held_by(A)), "not B's to release");
        assert_eq!(ledger.apply(ReservationChange::Release, A).unwrap().view, Reservation::None);
        assert_eq!(ledger.apply(ReservationChange::Reserve, B).unwrap().view, held_by(B));
    }

    #[test]
    fn a_lost_nexus_takes_its_reservation_along_and_no_others() {
        let mut ledger = two_nexuses();
        ledger.apply(ReservationChange::Reserve, A).unwrap();
        assert!(!ledger.nexus_lost(B).changed);
        let lost = ledger.nexus_lost(A);
        assert_eq!((lost.changed, lost.view), (true, Reservation::None));
        assert!(!ledger.nexus_lost(A).changed, "told twice");
    }

    #[test]
    fn a_reset_ends_a_reservation() {
        let mut ledger = two_nexuses();
        ledger.apply(ReservationChange::Reserve, A).unwrap();
        assert_eq!(ledger.logical_unit_reset().view, Reservation::None);
        assert!(!ledger.logical_unit_reset().changed);
    }

    #[test]
    fn a_restart_keeps_the_holder_out_of_reach_of_others_until_it_is_back() {
        let mut ledger = two_nexuses();
        ledger.apply(ReservationChange::Reserve, A).unwrap();
        let mut ledger = Ledger::restore(&ledger.encode(BOOT), BOOT).unwrap();
        assert_eq!(ledger.view(), Reservation::Exclusive { holder: None });
        assert_eq!(ledger.absent_holder(), Some(&name("a")));
        ledger.attach(B, name("b"));
        assert_eq!(ledger.apply(ReservationChange::Reserve, B), Err(Outcome::RESERVATION_CONFLICT));
        let again = NexusId(99);
        assert_eq!(ledger.attach(again, name("a")), held_by(again), "the same names, another session");
        assert_eq!(ledger.absent_holder(), None);
    }

    #[test]
    fn a_holder_that_does_not_come_back_loses_the_unit() {
        let mut ledger = two_nexuses();
        ledger.apply(ReservationChange::Reserve, A).unwrap();
        assert!(!ledger.absent_holder_lost().changed, "it is here");
        let mut ledger = Ledger::restore(&ledger.encode(BOOT), BOOT).unwrap();
        assert_eq!(ledger.absent_holder_lost().view, Reservation::None);
    }

    #[test]
    fn a_reboot_ends_a_reservation() {
        let mut ledger = two_nexuses();
        ledger.apply(ReservationChange::Reserve, A).unwrap();
        assert_eq!(Ledger::restore(&ledger.encode(BOOT), [8; 16]), Ok(Ledger::new()));
    }

    #[test]
    fn what_is_not_a_ledger_is_named_for_what_it_is() {
        let bytes = Ledger::new().encode(BOOT);
        assert_eq!(Ledger::decode(&[]), Err(LedgerDamage::Truncated { bytes: 0 }));
        assert_eq!(Ledger::decode(&bytes[..20]), Err(LedgerDamage::Truncated { bytes: 20 }));
        assert_eq!(Ledger::decode(b"something else altogether, and longer"), Err(LedgerDamage::NotALedger));
        let mut later = bytes.clone();
        later[9] = 2;
        assert_eq!(Ledger::decode(&later), Err(LedgerDamage::Version(2)));
        let mut other = bytes;
        other[HEADER_BYTES] = 9;
        assert!(matches!(Ledger::decode(&other), Err(LedgerDamage::Checksum { .. })));
    }

    #[test]
    fn nonsense_under_a_right_checksum_is_not_believed() {
        let mut bytes = Ledger::new().encode(BOOT);
        bytes.truncate(HEADER_BYTES);
        bytes.push(9);
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        assert_eq!(Ledger::decode(&bytes), Err(LedgerDamage::Malformed { at: HEADER_BYTES }));
    }

    proptest! {
        #[test]
        fn what_is_kept_reads_back(holder: Option<(String, String)>, boot: BootId) {
            let short = |text: String| text.chars().take(PORT_NAME_BYTES_MAX / 4).collect::<String>();
            let reserved_by = holder.map(|(i, t)| NexusName::new(short(i), short(t)));
            let ledger = Ledger { attached: BTreeMap::new(), reserved_by };
            prop_assert_eq!(Ledger::decode(&ledger.encode(boot)), Ok((ledger, boot)));
        }

        #[test]
        fn no_flipped_bit_and_no_cut_goes_unseen(flip: prop::sample::Index, cut: prop::sample::Index) {
            let mut ledger = two_nexuses();
            ledger.apply(ReservationChange::Reserve, A).unwrap();
            let bytes = ledger.encode(BOOT);
            let bit = flip.index(bytes.len() * 8);
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Ledger::decode(&flipped).is_err());
            prop_assert!(Ledger::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>) {
            let _ = Ledger::decode(&bytes);
        }

        /// RESERVE against a model that knows only who holds the unit.
        #[test]
        fn there_is_never_more_than_one_holder(steps: Vec<(bool, u8)>) {
            let mut ledger = two_nexuses();
            let mut holder = None;
            for (first, step) in steps {
                let me = if first { A } else { B };
                match step % 3 {
                    0 => {
                        let refused = holder.is_some_and(|holder| holder != me);
                        prop_assert_eq!(ledger.apply(ReservationChange::Reserve, me).is_err(), refused);
                        holder = holder.or(Some(me));
                    }
                    1 => {
                        ledger.apply(ReservationChange::Release, me).unwrap();
                        holder = holder.filter(|holder| *holder != me);
                    }
                    _ => {
                        ledger.logical_unit_reset();
                        holder = None;
                    }
                }
                prop_assert_eq!(ledger.view(), holder.map_or(Reservation::None, held_by));
            }
        }
    }
}
