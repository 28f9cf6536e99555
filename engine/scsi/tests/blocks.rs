//! Dialogues about blocks: ranges, lengths, caches and protection (SBC-3 §4.5, §5).

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod common;

use common::*;
use portico_scsi::block::{
    AtomicOperation, LBA_STATUS_BYTES_MAX, MediumCommand, Series, Transfer, lba_status, unmap_descriptors,
};
use portico_scsi::cdb::Compare;
use portico_scsi::reservation::CommandClass;
use portico_scsi::sense::{AdditionalSense, Outcome, Sense, SenseKey};
use portico_scsi::unit::{AtomicWrites, Geometry, Lba, LogicalUnit, Readiness, WriteCache};

fn out_of_range(lba: u64) -> Answer {
    Answer::Ended(Outcome::out_of_range(lba))
}

fn read(lba: u64, blocks: u32) -> Answer {
    Answer::Medium(MediumCommand::Read { lba: Lba(lba), blocks, fua: false, dpo: false })
}

#[test]
fn reads_of_every_length_of_cdb_name_the_same_blocks() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &[0x08, 0, 1, 2, 3, 0]), read(0x102, 3));
    assert_eq!(world.send(0, &read10(0x102, 3)), read(0x102, 3));
    assert_eq!(world.send(0, &[0xa8, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0]), read(0x102, 3));
    assert_eq!(world.send(0, &rw16(0x88, 0, 0x102, 3)), read(0x102, 3));
}

#[test]
fn read_6_of_zero_blocks_reads_256() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &[0x08, 0, 0, 0, 0, 0]), read(0, 256));
}

#[test]
fn a_read_beyond_the_end_is_refused_with_the_first_bad_lba() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &read10(1999, 1)), read(1999, 1));
    assert_eq!(world.send(0, &read10(1999, 2)), out_of_range(2000));
    assert_eq!(world.send(0, &read10(2000, 1)), out_of_range(2000));
    assert_eq!(world.send(0, &read10(2001, 1)), out_of_range(2001));
    assert_eq!(world.send(0, &rw16(0x88, 0, u64::MAX, 2)), out_of_range(u64::MAX));
    assert_eq!(world.send(0, &rw16(0x8a, 0, 1, u32::MAX)), out_of_range(2000));
}

#[test]
fn zero_blocks_are_no_error_where_there_is_a_block_and_an_error_beyond() {
    let mut world = World::new(disk());
    for code in [0x28, 0x2a, 0x2f] {
        assert_eq!(world.send(0, &rw10(code, 0, 0, 0)), GOOD);
        assert_eq!(world.send(0, &rw10(code, 0, 1999, 0)), GOOD);
        assert_eq!(world.send(0, &rw10(code, 0, 2000, 0)), out_of_range(2000));
        assert_eq!(world.send(0, &rw10(code, 0, u32::MAX, 0)), out_of_range(u64::from(u32::MAX)));
    }
}

#[test]
fn more_than_the_longest_transfer_is_refused_at_the_length_field() {
    let geometry = Geometry::new(512, 1 << 40, 0, 1 << 20).unwrap();
    let mut world = World::new(LogicalUnit { geometry, ..disk() });
    assert_eq!(world.send(0, &rw16(0x88, 0, 0, 2048)), read(0, 2048));
    assert_eq!(world.send(0, &rw16(0x88, 0, 0, 2049)), wrong_field(10, None));
    assert_eq!(world.send(0, &rw10(0x2a, 0, 0, 2049)), wrong_field(7, None));
    let verify = world.medium(0, &rw16(0x8f, 0, 0, 2049));
    assert_eq!(verify.transfer_bytes(512), 0, "nothing travels, so nothing is too long");
}

#[test]
fn protection_fields_are_refused_where_there_is_no_protection() {
    let mut world = World::new(disk());
    for protect in 1..8u8 {
        for code in [0x28, 0x2a, 0x2f, 0x88, 0x8a, 0x8f, 0xa8, 0xaa, 0xaf] {
            let highest = u8::try_from(protect.ilog2()).unwrap() + 5;
            assert_eq!(
                world.send(0, &rw16(code, protect << 5, 0, 1)),
                wrong_field(1, Some(highest)),
                "{code:#x}"
            );
        }
    }
}

#[test]
fn a_write_is_stable_before_good_when_fua_or_the_cache_says_so() {
    let stable = |cache, flags| {
        let mut world = World::new(LogicalUnit::new(disk().identity, disk().geometry, cache));
        match world.medium(0, &rw10(0x2a, flags, 0, 1)) {
            MediumCommand::Write { fua, .. } => fua,
            other => panic!("{other:?}"),
        }
    };
    assert!(!stable(WriteCache::WriteBack, 0));
    assert!(stable(WriteCache::WriteBack, 0x08));
    assert!(stable(WriteCache::WriteThrough, 0));
    assert!(!stable(WriteCache::NonVolatile, 0x08), "the administrator vouches for the power");
}

#[test]
fn dpo_and_fua_reach_the_medium() {
    let mut world = World::new(disk());
    assert_eq!(
        world.medium(0, &rw10(0x28, 0x18, 5, 1)),
        MediumCommand::Read { lba: Lba(5), blocks: 1, fua: true, dpo: true },
    );
}

#[test]
fn verify_compares_what_bytchk_says() {
    let mut world = World::new(disk());
    let mut verify = |flags| world.send(0, &rw10(0x2f, flags, 7, 4));
    let medium = |compare| Answer::Medium(MediumCommand::Verify { lba: Lba(7), blocks: 4, compare });
    assert_eq!(verify(0x00), medium(None));
    assert_eq!(verify(0x10), medium(None), "DPO");
    assert_eq!(verify(0x02), medium(Some(Compare::EachBlock)));
    assert_eq!(verify(0x06), medium(Some(Compare::OneBlock)));
    assert_eq!(verify(0x04), wrong_field(1, Some(2)));
}

#[test]
fn bytes_that_travel_are_counted_for_residuals() {
    let mut world = World::new(disk());
    let mut transfer = |cdb: &[u8]| world.medium(0, cdb).transfer(512);
    assert_eq!(transfer(&read10(0, 3)), Transfer::In { bytes: 1536 });
    assert_eq!(transfer(&write10(0, 3)), Transfer::Out { bytes: 1536 });
    assert_eq!(transfer(&rw10(0x2f, 0x00, 0, 3)), Transfer::None);
    assert_eq!(transfer(&rw10(0x2f, 0x02, 0, 3)), Transfer::Out { bytes: 1536 });
    assert_eq!(transfer(&rw10(0x2f, 0x06, 0, 3)), Transfer::Out { bytes: 512 });
    assert_eq!(transfer(&rw10(0x35, 0, 0, 3)), Transfer::None);
}

#[test]
fn synchronize_cache_flushes_to_the_end_when_it_names_no_number() {
    let mut world = World::new(disk());
    let flush =
        |lba, blocks, immediate| Answer::Medium(MediumCommand::Flush { lba: Lba(lba), blocks, immediate });
    assert_eq!(world.send(0, &rw10(0x35, 0, 100, 0)), flush(100, 1900, false));
    assert_eq!(world.send(0, &rw10(0x35, 0x02, 100, 5)), flush(100, 5, true));
    assert_eq!(world.send(0, &rw16(0x91, 0x06, 0, 0)), flush(0, 2000, true), "SYNC_NV is tolerated");
    assert_eq!(world.send(0, &rw10(0x35, 0, 2000, 0)), out_of_range(2000));
    assert_eq!(world.send(0, &rw10(0x35, 0, 1999, 2)), out_of_range(2000));
}

#[test]
fn with_nv_cache_there_is_nothing_to_flush() {
    let mut world = World::new(LogicalUnit::new(disk().identity, disk().geometry, WriteCache::NonVolatile));
    assert_eq!(world.send(0, &rw10(0x35, 0, 0, 0)), GOOD);
    assert_eq!(world.send(0, &rw10(0x35, 0, 2000, 1)), out_of_range(2000), "a wrong range is still wrong");
}

#[test]
fn a_read_only_unit_and_a_read_only_lun_refuse_writes_and_serve_reads() {
    let mut unit = World::new(LogicalUnit { read_only: true, ..disk() });
    let mut lun = World::new(disk());
    lun.read_only = true;
    for world in [&mut unit, &mut lun] {
        let sense = world.sense(0, &write10(0, 1));
        assert_eq!((sense.key, sense.additional), (SenseKey::DataProtect, AdditionalSense::WRITE_PROTECTED));
        assert_eq!(world.send(0, &write10(0, 0)), GOOD, "nothing is written");
        assert_eq!(world.send(0, &write10(2000, 1)), out_of_range(2000));
        assert_eq!(world.send(0, &read10(0, 1)), read(0, 1));
        assert_eq!(world.data(0, &[0x1a, 0, 0x3f, 0, 255, 0])[2], 0x90, "WP and DPOFUA");
    }
}

#[test]
fn recheck_follows_the_current_generation() {
    let mut world = World::new(removable());
    let me = world.nexuses[0].0;
    assert_eq!(world.unit().recheck(me, PORT, CommandClass::Write), Ok(()));
    world.send(1, &RESERVE);
    assert_eq!(world.unit().recheck(me, PORT, CommandClass::Read), Err(Outcome::RESERVATION_CONFLICT));
    world.send(1, &RELEASE);
    world.send(1, &EJECT);
    let absent = Outcome::check(Readiness::MediumNotPresent.sense().unwrap());
    assert_eq!(world.unit().recheck(me, PORT, CommandClass::Read), Err(absent));
    world.send(1, &LOAD);
    let read_only = LogicalUnit { read_only: true, ..world.unit().clone() };
    assert!(read_only.recheck(me, PORT, CommandClass::Write).is_err());
    assert_eq!(read_only.recheck(me, PORT, CommandClass::Read), Ok(()));
}

#[test]
fn a_geometry_that_cannot_be_is_refused() {
    assert!(Geometry::new(4096, 1, 0, 4096).is_ok());
    for (block_length, blocks, exponent, transfer) in [
        (520, 1, 0, 4096),
        (256, 1, 0, 4096),
        (512, 0, 0, 4096),
        (512, 1 << 54, 0, 4096),
        (512, 1, 16, 4096),
        (4096, 1, 0, 512),
    ] {
        assert!(
            Geometry::new(block_length, blocks, exponent, transfer).is_err(),
            "{block_length} {blocks} {exponent}"
        );
    }
}

fn series(lba: u64, blocks: u64, series: Series) -> Answer {
    Answer::Medium(MediumCommand::Series { lba: Lba(lba), blocks, series })
}

#[test]
fn write_and_verify_of_every_length_compares_when_it_is_told_to() {
    let mut world = World::new(disk());
    let looked_at = series(0x102, 3, Series::WriteAndVerify { compare: false });
    let compared = series(0x102, 3, Series::WriteAndVerify { compare: true });
    assert_eq!(world.send(0, &rw10(0x2e, 0x10, 0x102, 3)), looked_at, "DPO");
    assert_eq!(world.send(0, &rw10(0x2e, 0x02, 0x102, 3)), compared);
    assert_eq!(world.send(0, &[0xae, 0x02, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0]), compared);
    assert_eq!(world.send(0, &rw16(0x8e, 0x02, 0x102, 3)), compared);
    assert_eq!(world.send(0, &rw16(0x8e, 0x04, 0x102, 3)), wrong_field(1, Some(2)), "BYTCHK 10b");
    assert_eq!(world.send(0, &rw16(0x8e, 0x08, 0x102, 3)), wrong_field(1, Some(3)), "there is no FUA");
    assert_eq!(world.send(0, &rw10(0x2e, 0, 1999, 0)), GOOD);
    assert_eq!(world.send(0, &rw10(0x2e, 0, 1999, 2)), out_of_range(2000));
    let command = world.medium(0, &rw10(0x2e, 0, 0, 3));
    assert_eq!(
        (command.transfer(512), command.class()),
        (Transfer::Out { bytes: 1536 }, CommandClass::Write)
    );
}

#[test]
fn pre_fetch_of_zero_blocks_means_to_the_end_and_with_immed_nothing_is_left_to_do() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &rw10(0x34, 0, 100, 5)), series(100, 5, Series::PreFetch));
    assert_eq!(world.send(0, &rw16(0x90, 0, 100, 0)), series(100, 1900, Series::PreFetch));
    assert_eq!(world.send(0, &rw10(0x34, 0x02, 100, 5)), GOOD);
    assert_eq!(world.send(0, &rw10(0x34, 0x02, 1999, 2)), out_of_range(2000));
    let command = world.medium(0, &rw10(0x34, 0, 100, 5));
    assert_eq!((command.transfer(512), command.class()), (Transfer::None, CommandClass::Read));
}

#[test]
fn write_same_takes_one_block_or_none() {
    let mut world = World::new(disk());
    let same = world.medium(0, &rw16(0x93, 0, 7, 1000));
    assert_eq!(same.transfer(512), Transfer::Out { bytes: 512 });
    assert_eq!(world.send(0, &rw10(0x41, 0, 7, 1000)), Answer::Medium(same));
    let zeroes = series(7, 1000, Series::WriteZeroes { unmap: false });
    assert_eq!(world.send(0, &rw16(0x93, 0x01, 7, 1000)), zeroes, "NDOB");
    assert_eq!(
        world.send(0, &rw10(0x41, 0x01, 7, 1000)),
        wrong_field(1, Some(0)),
        "NDOB is WRITE SAME (16)'s"
    );
    assert_eq!(world.send(0, &rw10(0x41, 0, 1999, 2)), out_of_range(2000));
    assert_eq!(world.medium(0, &rw10(0x41, 0, 7, 0)).range(), (Lba(7), 1993), "zero blocks: to the end");
}

#[test]
fn write_same_of_more_than_the_limit_is_refused_at_its_length() {
    let geometry = Geometry::new(512, 1 << 30, 0, 1 << 20).unwrap();
    let mut world = World::new(LogicalUnit { geometry, ..disk() });
    assert_eq!(world.send(0, &rw10(0x41, 0, 0, 0)), wrong_field(7, None), "to the end is too far");
    assert_eq!(world.send(0, &rw16(0x93, 0, 0, 2049)), wrong_field(10, None));
    assert_eq!(world.medium(0, &rw16(0x93, 0, 0, 2048)).range(), (Lba(0), 2048));
}

#[test]
fn a_unit_that_is_not_thin_neither_unmaps_nor_anchors_nor_tells_what_is_mapped() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &rw16(0x93, 0x08, 0, 1)), wrong_field(1, Some(3)), "UNMAP");
    assert_eq!(world.send(0, &rw16(0x93, 0x10, 0, 1)), wrong_field(1, Some(4)), "ANCHOR");
    assert_eq!(world.send(0, &rw10(0x42, 0, 0, 24)), illegal(AdditionalSense::INVALID_OPERATION_CODE));
    assert_eq!(world.send(0, &rw16(0x9e, 0x12, 0, 24)), wrong_field(1, Some(4)));
}

#[test]
fn write_same_with_unmap_may_give_space_back_on_a_thin_unit() {
    let mut world = World::new(thin());
    assert_eq!(world.send(0, &rw10(0x41, 0x08, 5, 9)), series(5, 9, Series::WriteSame { unmap: true }));
    assert_eq!(world.send(0, &rw16(0x93, 0x09, 5, 9)), series(5, 9, Series::WriteZeroes { unmap: true }));
    assert_eq!(world.send(0, &rw16(0x93, 0x18, 5, 9)), wrong_field(1, Some(4)), "ANC_SUP is zero");
}

/// A parameter list of UNMAP.
fn unmap_list(descriptors: &[(u64, u32)]) -> Vec<u8> {
    let bytes = u16::try_from(descriptors.len() * 16).unwrap();
    let mut list = [(bytes + 6).to_be_bytes(), bytes.to_be_bytes(), [0; 2], [0; 2]].concat();
    for (lba, blocks) in descriptors {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    list
}

fn unmap(world: &mut World, list: &[u8]) -> Answer {
    world.send_with(0, &rw10(0x42, 0, 0, u16::try_from(list.len()).unwrap()), list)
}

#[test]
fn unmap_takes_descriptors_and_passes_over_those_of_nothing() {
    let mut world = World::new(thin());
    let list = unmap_list(&[(4, 0), (8, 3), (100, 7)]);
    assert_eq!(unmap(&mut world, &list), series(8, 3, Series::Unmap));
    let ranges: Vec<(Lba, u32)> = unmap_descriptors(&list).collect();
    assert_eq!(ranges, [(Lba(4), 0), (Lba(8), 3), (Lba(100), 7)]);
    assert_eq!(unmap(&mut world, &unmap_list(&[(4, 0), (2000, 0)])), GOOD, "nothing, at the end");
    assert_eq!(unmap(&mut world, &unmap_list(&[(2001, 0)])), out_of_range(2001));
    assert_eq!(unmap(&mut world, &unmap_list(&[])), GOOD);
    assert_eq!(world.send(0, &rw10(0x42, 0, 0, 0)), GOOD, "no list at all");
    assert_eq!(unmap_descriptors(&list[..list.len() - 1]).count(), 2, "a descriptor that breaks off is none");
}

#[test]
fn unmap_refuses_what_is_beyond_the_end_or_the_limits() {
    let mut world = World::new(thin());
    assert_eq!(unmap(&mut world, &unmap_list(&[(0, 1), (1999, 2)])), out_of_range(2000));
    assert_eq!(unmap(&mut world, &[0; 7]), illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    let geometry = Geometry::new(512, 1 << 30, 0, 1 << 20).unwrap();
    let mut world = World::new(LogicalUnit { geometry, ..thin() });
    let refused = Answer::Ended(Outcome::check(Sense::invalid_parameter(2, None)));
    assert_eq!(unmap(&mut world, &unmap_list(&[(0, 1 << 19), (1 << 20, 1 << 19), (0, 1)])), refused);
    let whole = series(0, 1 << 20, Series::Unmap);
    assert_eq!(unmap(&mut world, &unmap_list(&[(0, 1 << 20)])), whole);
    world.read_only = true;
    let protected = Sense::new(SenseKey::DataProtect, AdditionalSense::WRITE_PROTECTED);
    assert_eq!(unmap(&mut world, &unmap_list(&[(0, 1)])), Answer::Ended(Outcome::check(protected)));
}

#[test]
fn the_status_of_blocks_begins_where_it_was_asked_for_and_ends_with_the_unit() {
    let mut world = World::new(thin());
    let asked = Series::LbaStatus { allocation_length: 24 };
    assert_eq!(world.send(0, &rw16(0x9e, 0x12, 9, 24)), series(9, 1991, asked));
    let geometry = Geometry::new(512, 1 << 40, 0, 1 << 20).unwrap();
    let mut large = World::new(LogicalUnit { geometry, ..thin() });
    assert_eq!(
        large.send(0, &rw16(0x9e, 0x12, 9, 24)),
        series(9, 1 << 11, asked),
        "what one descriptor is worth"
    );
    let asked_more = Series::LbaStatus { allocation_length: 256 };
    assert_eq!(large.send(0, &rw16(0x9e, 0x12, 9, 256)), series(9, 113 << 11, asked_more), "fifteen");
    let all = Series::LbaStatus { allocation_length: u32::MAX };
    assert_eq!(large.send(0, &rw16(0x9e, 0x12, 9, u32::MAX)), series(9, 1 << 18, all), "as far as it goes");
    assert_eq!(world.send(0, &rw16(0x9e, 0x12, 1990, 24)), series(1990, 10, asked));
    assert_eq!(world.send(0, &rw16(0x9e, 0x12, 2000, 24)), out_of_range(2000));
    assert_eq!(world.medium(0, &rw16(0x9e, 0x12, 9, 24)).class(), CommandClass::Read);
}

#[test]
fn the_long_form_asks_for_the_status_of_no_more_blocks_than_it_says() {
    let mut world = World::new(thin());
    let long = |lba: u64, scan: u32| {
        let mut cdb = vec![0x7f, 0, 0, 0, 0, 0, 0, 0x18, 0x00, 0x12, 0, 0];
        cdb.extend(lba.to_be_bytes());
        cdb.extend(scan.to_be_bytes());
        cdb.extend([0, 0, 0, 0, 0, 0, 0, 24]);
        cdb
    };
    let asked = Series::LbaStatus { allocation_length: 24 };
    assert_eq!(world.send(0, &long(9, 0)), series(9, 1991, asked));
    assert_eq!(world.send(0, &long(9, 5)), series(9, 5, asked));
    assert_eq!(world.send(0, &long(2000, 5)), out_of_range(2000));
    let mut short = long(9, 0);
    short[7] = 0x10;
    assert_eq!(world.send(0, &short), wrong_field(7, None), "ADDITIONAL CDB LENGTH");
    assert_eq!(world.send(0, &long(9, 0)[..31]), wrong_field(31, None));
    let mut read = long(9, 0);
    read[9] = 0x09;
    assert_eq!(world.send(0, &read), wrong_field(8, None), "READ (32): there is no protection information");
    let mut thick = World::new(disk());
    assert_eq!(thick.send(0, &long(9, 0)), illegal(AdditionalSense::INVALID_OPERATION_CODE));
}

#[test]
fn blocks_of_one_status_are_one_descriptor() {
    let mut buffer = [0xee; LBA_STATUS_BYTES_MAX];
    let length = lba_status(Lba(9), 0, [true, true, false].into_iter(), 1000, &mut buffer);
    let expected = [
        [0, 0, 0, 36, 0, 0, 0, 0].as_slice(),
        &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2, 1, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 1, 0, 0, 0, 0],
    ];
    assert_eq!(buffer[..length], expected.concat());
    assert_eq!(lba_status(Lba(9), 0, [true].into_iter(), 20, &mut buffer), 20, "ALLOCATION LENGTH cuts");
    let alternating = (0..1000).map(|at| at % 2 == 0);
    let length = lba_status(Lba(0), 0, alternating, u32::MAX, &mut buffer);
    assert_eq!(length, LBA_STATUS_BYTES_MAX, "as many as there is room for");
    assert_eq!(buffer[..4], (4 + 16 * 255u32).to_be_bytes());
    let length = lba_status(Lba(9), 300, [true, false].into_iter(), 1000, &mut buffer);
    let expected = [
        [0, 0, 0, 36, 0, 0, 0, 0].as_slice(),
        &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 1, 45, 1, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 1, 54, 0, 0, 0, 1, 0, 0, 0, 0],
    ];
    assert_eq!(buffer[..length], expected.concat(), "those before are of the same run");
}

fn compare_and_write(flags: u8, lba: u64, blocks: u8) -> [u8; 16] {
    let mut cdb = rw16(0x89, flags, lba, 0);
    cdb[13] = blocks;
    cdb
}

#[test]
fn compare_and_write_takes_twice_its_blocks_and_no_more_than_255() {
    let mut world = World::new(disk());
    let command = world.medium(0, &compare_and_write(0, 5, 255));
    let (lba, operation) = (Lba(5), AtomicOperation::CompareAndWrite);
    assert_eq!(command, MediumCommand::Atomic { lba, blocks: 255, operation, fua: false });
    assert_eq!(command.transfer(512), Transfer::Out { bytes: 2 * 255 * 512 });
    assert_eq!((command.range(), command.class()), ((lba, 255), CommandClass::Write));
    let stable = world.medium(0, &compare_and_write(0x18, 5, 1));
    assert!(matches!(stable, MediumCommand::Atomic { fua: true, .. }), "DPO is welcome, FUA kept");
    assert_eq!(world.send(0, &compare_and_write(0, 0, 0)), GOOD, "nothing is compared, nothing written");
    assert_eq!(world.send(0, &compare_and_write(0, 1999, 2)), out_of_range(2000));
    assert_eq!(world.send(0, &compare_and_write(0x20, 0, 1)), wrong_field(1, Some(5)), "WRPROTECT");
    let geometry = Geometry::new(4096, 100, 0, 32 << 10).unwrap();
    let mut world = World::new(LogicalUnit { geometry, ..disk() });
    assert!(matches!(world.send(0, &compare_and_write(0, 0, 4)), Answer::Medium(_)));
    assert_eq!(
        world.send(0, &compare_and_write(0, 0, 5)),
        wrong_field(13, None),
        "beyond the limit in VPD B0"
    );
}

#[test]
fn orwrite_is_bound_by_the_longest_transfer() {
    let mut world = World::new(disk());
    let command = world.medium(0, &rw16(0x8b, 0, 7, 3));
    let (lba, operation) = (Lba(7), AtomicOperation::Or);
    assert_eq!(command, MediumCommand::Atomic { lba, blocks: 3, operation, fua: false });
    assert_eq!(command.transfer(512), Transfer::Out { bytes: 3 * 512 });
    assert_eq!(world.send(0, &rw16(0x8b, 0, 0, 0)), GOOD);
    let geometry = Geometry::new(512, 1 << 40, 0, 1 << 20).unwrap();
    let mut world = World::new(LogicalUnit { geometry, ..disk() });
    assert_eq!(world.send(0, &rw16(0x8b, 0, 0, 2049)), wrong_field(10, None));
}

#[test]
fn write_atomic_is_served_where_nothing_is_torn_up_to_its_limit() {
    let mut world = World::new(disk());
    let unknown = Answer::Ended(Outcome::illegal(AdditionalSense::INVALID_OPERATION_CODE));
    assert_eq!(world.send(0, &rw16(0x9c, 0, 7, 3)), unknown);
    let mut world = World::new(LogicalUnit { atomic_writes: AtomicWrites::Any, ..disk() });
    let (lba, operation) = (Lba(8), AtomicOperation::Write);
    let expected = MediumCommand::Atomic { lba, blocks: 256, operation, fua: false };
    assert_eq!(world.medium(0, &rw16(0x9c, 0, 8, 256)), expected);
    assert_eq!(world.send(0, &rw16(0x9c, 0, 8, 264)), wrong_field(12, None));
    assert_eq!(world.send(0, &rw16(0x9c, 0, 8, 0)), GOOD);
    assert_eq!(world.send(0, &rw16(0x9c, 0, 8, 1 << 16)), wrong_field(11, Some(0)), "ATOMIC BOUNDARY");
}

#[test]
fn write_atomic_takes_whole_physical_blocks() {
    let mut world = World::new(LogicalUnit { atomic_writes: AtomicWrites::Any, ..disk() });
    assert_eq!(world.send(0, &rw16(0x9c, 0, 7, 8)), wrong_field(2, None), "ATOMIC ALIGNMENT");
    assert_eq!(world.send(0, &rw16(0x9c, 0, 8, 7)), wrong_field(12, None), "GRANULARITY");
    assert_eq!(world.send(0, &rw16(0x9c, 0, 1999, 8)), out_of_range(2000), "the range is judged first");
    let geometry = Geometry::new(512, 2000, 0, 1 << 20).unwrap();
    let mut world = World::new(LogicalUnit { atomic_writes: AtomicWrites::Any, geometry, ..disk() });
    let expected =
        MediumCommand::Atomic { lba: Lba(7), blocks: 1, operation: AtomicOperation::Write, fua: false };
    assert_eq!(world.medium(0, &rw16(0x9c, 0, 7, 1)), expected, "a physical block of one block");
}
