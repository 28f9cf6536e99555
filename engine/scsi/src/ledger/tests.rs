//! RESERVE and RELEASE, and the bytes that are kept.

use super::keeping::{CACHES, HEADER_BYTES};
use super::*;
use crate::unit::{ModeValues, QueueError};
use proptest::prelude::*;

const A: NexusId = NexusId(10);
const B: NexusId = NexusId(11);
const BOOT: BootId = [7; 16];

fn name(initiator: &str) -> NexusName {
    NexusName::new(format!("iqn.2026-11.test:{initiator},i,0x400001370001"), "iqn.2026-11.test:t,t,0x0001")
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
    later[9] = 5;
    assert_eq!(Ledger::decode(&later), Err(LedgerDamage::Version(5)));
    let mut other = bytes;
    other[HEADER_BYTES] = 9;
    assert!(matches!(Ledger::decode(&other), Err(LedgerDamage::Checksum { .. })));
}

#[test]
fn a_ledger_of_an_earlier_version_has_no_saved_modes() {
    let mut bytes = Ledger::new().encode(BOOT);
    bytes.truncate(bytes.len() - 6);
    bytes[9] = 2;
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    assert_eq!(Ledger::decode(&bytes), Ok((Ledger::new(), BOOT)));
    bytes[9] = 3;
    let body = bytes.len() - 4;
    bytes.truncate(body);
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    assert_eq!(Ledger::decode(&bytes), Err(LedgerDamage::Malformed { at: body }));
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
    fn what_is_kept_reads_back(
        holder: Option<(String, String)>,
        modes: Option<(bool, bool, u8, u8)>,
        boot: BootId,
    ) {
        let short = |text: String| text.chars().take(PORT_NAME_BYTES_MAX / 4).collect::<String>();
        let reserved_by = holder.map(|(i, t)| NexusName::new(short(i), short(t)));
        let saved_modes = modes.map(|(descriptor_sense, software_write_protect, current, configured)| {
            let cache = |code: u8| CACHES[usize::from(code) % CACHES.len()];
            let write_cache = cache(current);
            let queue_error = [QueueError::Resume, QueueError::AbortAll, QueueError::AbortNexus]
                [usize::from(configured) % 3];
            let values = ModeValues {
                descriptor_sense,
                software_write_protect,
                queue_error,
                task_aborted_status: current >= 128,
                write_cache,
            };
            SavedModes { values, configured: cache(configured) }
        });
        let ledger = Ledger { reserved_by, saved_modes, ..Ledger::new() };
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
