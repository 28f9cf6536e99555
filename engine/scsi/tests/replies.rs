//! Golden bytes of what the device server answers itself. A migrated disk reads the same as under SCST, so these change
//! only on purpose.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod common;

use common::*;
use portico_scsi::alua::AccessState;
use portico_scsi::block::MediumCommand;
use portico_scsi::device_server::{Action, Context};
use portico_scsi::identity::{Handler, Identity, IdentityOptions};
use portico_scsi::ledger::TargetPort;
use portico_scsi::lun::{AddressMethod, Lun};
use portico_scsi::no_unit;
use portico_scsi::opcodes;
use portico_scsi::sense::{AdditionalSense, Outcome, Sense};
use portico_scsi::space::Space;
use portico_scsi::unit::{AtomicWrites, Geometry, Lba, LogicalUnit, WriteCache};

/// The device number of "disk1" with setup_id 0, as SCST prints it (`crc32c(0, "disk1\0")` of the kernel).
const SERIAL: &[u8] = b"b8fdbd32";

#[test]
fn standard_inquiry_data_is_scsts() {
    let mut world = World::new(disk());
    let mut expected = vec![0x00, 0x00, 0x06, 0x22, 61, 0x08, 0x10, 0x02];
    expected.extend(b"SCST_FIO");
    expected.extend(b"disk1           ");
    expected.extend(b"3110");
    expected.extend([0; 22]);
    expected.extend([0x00, 0x8b, 0x09, 0x60, 0x04, 0x63, 0x04, 0xc0]);
    assert_eq!(world.data(0, &INQUIRY), expected);
    for length in 0..=255u8 {
        let cut = world.data(0, &[0x12, 0, 0, 0, length, 0]);
        assert_eq!(cut, expected[..expected.len().min(usize::from(length))]);
    }
}

#[test]
fn vendor_specific_inquiry_data_goes_where_scst_puts_it() {
    let with = |bytes: &[u8]| {
        let mut options = IdentityOptions::new(0, "disk1", Handler::FileIo);
        options.inq_vend_specific = bytes;
        let identity = Identity::new(&options).unwrap();
        World::new(LogicalUnit { identity, ..disk() }).data(0, &INQUIRY)
    };
    let short = with(b"short");
    assert_eq!((&short[36..42], short.len(), short[4]), (&b"short\0"[..], 66, 61));
    let long = with(&[b'x'; 30]);
    assert_eq!((&long[96..], long.len(), long[4]), (&[b'x'; 30][..], 126, 121));
}

#[test]
fn inquiry_refuses_a_page_without_evpd_and_pages_that_are_not_there() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &[0x12, 0, 1, 1, 0, 0]), wrong_field(2, None));
    assert_eq!(world.send(0, &inquiry_page(0x84)), wrong_field(2, None));
    assert_eq!(world.send(0, &[0x12, 2, 0, 0, 255, 0]), wrong_field(1, Some(1)), "CMDDT");
}

#[test]
fn every_page_in_page_00_is_there_and_says_its_own_length() {
    let mut world = World::new(disk());
    let supported = world.data(0, &inquiry_page(0));
    assert_eq!(
        supported,
        [0, 0, 0, 12, 0x00, 0x80, 0x83, 0x85, 0x86, 0x87, 0x88, 0x8f, 0xb0, 0xb1, 0xb2, 0xb3]
    );
    for &page in &supported[4..] {
        let bytes = world.data(0, &inquiry_page(page));
        assert_eq!(bytes[..2], [0, page]);
        assert_eq!(
            usize::from(u16::from_be_bytes([bytes[2], bytes[3]])) + 4,
            bytes.len(),
            "page {page:#04x}"
        );
    }
}

#[test]
fn serial_number_page_is_the_usn_alone() {
    let mut expected = vec![0, 0x80, 0, 8];
    expected.extend(SERIAL);
    assert_eq!(World::new(disk()).data(0, &inquiry_page(0x80)), expected);
}

#[test]
fn device_identification_has_scsts_designators_in_scsts_order() {
    let mut expected = vec![0, 0x83, 0, 46];
    expected.extend([0x02, 0x01, 0, 22]);
    expected.extend(b"SCST_FIO");
    expected.extend(SERIAL);
    expected.extend(b"-disk1");
    expected.extend([0x01, 0x14, 0, 4, 0, 0, 0, 1]);
    expected.extend([0x01, 0x02, 0, 8]);
    expected.extend(SERIAL);
    assert_eq!(World::new(disk()).data(0, &inquiry_page(0x83)), expected);
}

#[test]
fn device_identification_with_everything_set() {
    let mut options = IdentityOptions::new(0, "disk1", Handler::BlockIo);
    options.t10_vend_id = Some("ACME");
    options.vend_specific_id = Some("vs");
    options.naa_id = Some(&[0x60; 16]);
    options.eui64_id = Some(&[0x11; 12]);
    options.scsi_device_name = "naa.6001";
    let identity = Identity::new(&options).unwrap();
    let groups = grouped(&[(7, AccessState::Standby, &[1]), (256, AccessState::ActiveOptimized, &[3, 2])]);
    let unit = LogicalUnit { identity, target_port_groups: groups, ..disk() };
    let context = Context {
        luns: &[],
        relative_target_port: 2,
        target_ports: &[],
        read_only: false,
        carries_queries: false,
    };
    let mut reply = [0; 4096];
    let mut nexus = World::new(disk()).nexuses[0];
    let action = portico_scsi::device_server::begin(
        &unit,
        &mut nexus.1,
        nexus.0,
        &context,
        &inquiry_page(0x83),
        &mut reply,
    );
    let mut expected = vec![0, 0x83, 0, 16 + 14 + 8 + 8 + 16 + 20];
    expected.extend(*b"\x03\x28\x00\x0cnaa.6001\0\0\0\0");
    expected.extend(*b"\x02\x01\x00\x0aACME    vs");
    expected.extend([0x01, 0x14, 0, 4, 0, 0, 0, 2, 0x01, 0x15, 0, 4, 0, 0, 1, 0]);
    expected.extend([0x01, 0x02, 0, 12]);
    expected.extend([0x11; 12]);
    expected.extend([0x01, 0x03, 0, 16]);
    expected.extend([0x60; 16]);
    assert_eq!(action, Action::Reply { length: expected.len() });
    assert_eq!(reply[..expected.len()], expected);
}

#[test]
fn every_port_of_the_device_is_named() {
    let mut world = World::new(disk());
    let mut expected = vec![0, 0x88, 0, 36, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 24];
    expected.extend(*b"\x53\x98\x00\x14iqn.test:t,t,0x0001\0");
    assert_eq!(world.data(0, &inquiry_page(0x88)), expected);
    world.target_ports.push(TargetPort { name: "iqn.test:t,t,0x0102".to_owned(), relative_id: 7 });
    expected[3] = 72;
    expected.extend([0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 24]);
    expected.extend(*b"\x53\x98\x00\x14iqn.test:t,t,0x0102\0");
    assert_eq!(world.data(0, &inquiry_page(0x88)), expected);
}

#[test]
fn a_device_of_very_many_ports_names_as_many_as_the_page_can_tell() {
    let mut world = World::new(disk());
    let port = |relative_id: u16| TargetPort { name: "t".repeat(232), relative_id };
    world.target_ports = (1..=1000).map(port).collect();
    let mut page = inquiry_page(0x88);
    page[3..5].fill(0xff);
    let data = world.data(0, &page);
    assert_eq!(data.len(), 4 + usize::from(u16::from_be_bytes([data[2], data[3]])), "all of it is there");
    assert!(data.len() > 50_000);
}

#[test]
fn pages_of_what_there_is_not_are_empty_and_mode_pages_are_shared() {
    let mut world = World::new(disk());
    assert_eq!(world.data(0, &inquiry_page(0x85)), [0, 0x85, 0, 0]);
    assert_eq!(world.data(0, &inquiry_page(0x87)), [0, 0x87, 0, 4, 0x3f, 0xff, 0, 0]);
    assert_eq!(world.data(0, &inquiry_page(0xb3)), [0, 0xb3, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn log_pages_are_listed_found_and_refused_where_there_are_none() {
    let mut world = World::new(disk());
    let log = |page: u8, subpage: u8, pointer: u8, length: u8| {
        [0x4d, 0, page, subpage, 0, 0, pointer, 0, length, 0]
    };
    assert_eq!(world.data(0, &log(0x40, 0, 0, 255)), [0, 0, 0, 2, 0x00, 0x2f]);
    assert_eq!(
        world.data(0, &log(0x40, 0xff, 0, 255)),
        [0x40, 0xff, 0, 6, 0x00, 0, 0x00, 0xff, 0x2f, 0],
        "with subpages"
    );
    let exceptions = [0xaf, 0, 0, 8, 0, 0, 3, 4, 0, 0, 0xff, 0];
    assert_eq!(world.data(0, &log(0x6f, 0, 0, 255)), exceptions);
    assert_eq!(world.data(0, &log(0x6f, 0, 0, 5)), exceptions[..5]);
    assert_eq!(world.send(0, &log(0x42, 0, 0, 255)), wrong_field(2, Some(5)));
    assert_eq!(world.send(0, &log(0x6f, 0xff, 0, 255)), wrong_field(3, None));
    assert_eq!(world.send(0, &log(0x6f, 0, 1, 255)), wrong_field(5, None));
    assert_eq!(world.send(0, &[0x4d, 1, 0x40, 0, 0, 0, 0, 0, 255, 0]), wrong_field(1, Some(0)), "SP");
}

/// 2,000 blocks of 512 bytes are two threshold sets; the file system has three, half of the second set is used.
fn pooled() -> LogicalUnit {
    let space = Some(Space { available_bytes: (3 << 20) + 5, used_bytes: 3 << 19 });
    LogicalUnit { thin_provisioned: true, space, ..disk() }
}

#[test]
fn a_thin_unit_whose_pool_is_known_has_a_threshold_and_says_what_is_left() {
    let mut world = World::new(pooled());
    assert_eq!(world.data(0, &inquiry_page(0xb2)), [0, 0xb2, 0, 4, 11, 0xe4, 2, 0]);
    assert_eq!(world.data(0, &[0x4d, 0, 0x40, 0, 0, 0, 0, 0, 255, 0]), [0, 0, 0, 3, 0x00, 0x0c, 0x2f]);
    let page = |pointer: u8| [0x4d, 0, 0x4c, 0, 0, 0, pointer, 0, 255, 0];
    let available = [0, 1, 3, 8, 0, 0, 0, 3, 2, 0, 0, 0];
    let used = [0, 2, 3, 8, 0, 0, 0, 2, 1, 0, 0, 0];
    assert_eq!(world.data(0, &page(0)), [&[0x8c, 0, 0, 24][..], &available, &used].concat());
    assert_eq!(world.data(0, &page(2)), [&[0x8c, 0, 0, 12][..], &used].concat());
    assert_eq!(world.send(0, &page(3)), wrong_field(5, None));
    let mut thick = World::new(disk());
    assert_eq!(thick.send(0, &page(0)), wrong_field(2, Some(5)));
}

#[test]
fn the_threshold_is_described_by_a_subpage_that_cannot_be_changed() {
    let mut world = World::new(pooled());
    let mut subpage = vec![0x5c, 0x02, 0, 20];
    subpage.resize(16, 0);
    subpage.extend([0x80, 0x01, 0, 0, 0, 0, 0, 1]);
    let sense = |control: u8, page: u8, subpage: u8| [0x1a, 0x08, control << 6 | page, subpage, 255, 0];
    assert_eq!(world.data(0, &sense(0, 0x1c, 0x02))[4..], subpage);
    let mask = world.data(0, &sense(1, 0x1c, 0x02))[4..].to_vec();
    assert_eq!((&mask[..4], &mask[4..]), (&subpage[..4], &[0; 20][..]));
    let both = world.data(0, &sense(0, 0x1c, 0xff));
    assert_eq!((both[4..6].to_vec(), &both[16..]), (vec![0x1c, 0x0a], &subpage[..]));
    let all = world.data(0, &sense(0, 0x3f, 0xff));
    assert_eq!((usize::from(all[0]) + 1, &all[all.len() - 24..]), (all.len(), &subpage[..]));
    assert_eq!(world.data(0, &sense(0, 0x01, 0))[4 + 7], 0x80, "LBPERE");
    assert_eq!(world.send(0, &sense(0, 0x3f, 0x02)), wrong_field(3, None));
    let mut list = [&[0; 4][..], &subpage].concat();
    assert_eq!(world.send_with(0, &[0x15, 0x10, 0, 0, 28, 0], &list), GOOD);
    list[27] = 2;
    let refused = Outcome::check(Sense::invalid_parameter(27, None));
    assert_eq!(world.send_with(0, &[0x15, 0x10, 0, 0, 28, 0], &list), Answer::Ended(refused));
    assert_eq!(World::new(disk()).send(0, &sense(0, 0x1c, 0x02)), wrong_field(3, None));
}

#[test]
fn defect_lists_are_empty_in_whatever_format_they_are_asked_for() {
    let mut world = World::new(disk());
    let ten = |lists: u8| [0x37, 0, lists, 0, 0, 0, 0, 0, 255, 0];
    assert_eq!(world.data(0, &ten(0x1d)), [0, 0x1d, 0, 0]);
    assert_eq!(world.data(0, &[0xb7, 0x08, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]), [0, 0x08, 0, 0, 0, 0, 0, 0]);
    assert_eq!(world.send(0, &ten(0x1e)), wrong_field(2, Some(2)), "a vendor's format");
    assert_eq!(world.send(0, &[0xb7, 0x0f, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]), wrong_field(1, Some(2)));
}

#[test]
fn the_default_self_test_reads_the_medium_and_there_is_no_other() {
    let mut world = World::new(disk());
    let test = MediumCommand::Verify { lba: Lba(0), blocks: 1, compare: None };
    assert_eq!(world.medium(0, &[0x1d, 0x04, 0, 0, 0, 0]), test);
    assert_eq!(world.send(0, &[0x1d, 0x10, 0, 0, 0, 0]), GOOD);
    assert_eq!(world.send(0, &[0x1d, 0x20, 0, 0, 0, 0]), wrong_field(1, Some(5)), "SELF-TEST CODE");
    assert_eq!(world.send(0, &[0x1d, 0x10, 0, 0, 4, 0]), wrong_field(4, Some(2)), "a diagnostic page");
}

#[test]
fn block_limits_are_those_of_the_unit() {
    let limits = World::new(disk()).data(0, &inquiry_page(0xb0));
    assert_eq!(limits.len(), 64);
    assert_eq!(limits[..20], [0, 0xb0, 0, 0x3c, 0, 255, 0, 8, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 0, 0]);
    assert_eq!(limits[36..44], 2048u64.to_be_bytes(), "WRITE SAME");
    assert_eq!((&limits[20..36], &limits[44..]), (&[0; 16][..], &[0; 20][..]));
    let geometry = Geometry::new(4096, 10, 0, 64 * 1024).unwrap();
    let limits = World::new(LogicalUnit { geometry, ..disk() }).data(0, &inquiry_page(0xb0));
    assert_eq!(limits[20..36], [0; 16]);
    assert_eq!(limits[5], 8, "COMPARE AND WRITE moves two blocks for each");
    let atomic = LogicalUnit { atomic_writes: AtomicWrites::Any, ..disk() };
    let limits = World::new(atomic).data(0, &inquiry_page(0xb0));
    assert_eq!(limits[44..56], [0, 0, 1, 0, 0, 0, 0, 8, 0, 0, 0, 8], "WRITE ATOMIC of physical blocks");
    assert_eq!(limits[56..], [0; 8]);
    let atomic = LogicalUnit { atomic_writes: AtomicWrites::Any, geometry, ..disk() };
    let limits = World::new(atomic).data(0, &inquiry_page(0xb0));
    assert_eq!(limits[44..56], [0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0], "no alignment to be kept");
    let whole = AtomicWrites::Whole(32.try_into().unwrap());
    let limits = World::new(LogicalUnit { atomic_writes: whole, ..disk() }).data(0, &inquiry_page(0xb0));
    assert_eq!(limits[44..56], [0, 0, 0, 32, 0, 0, 0, 32, 0, 0, 0, 32], "its length, alignment, granularity");
    assert_eq!(limits[56..], [0; 8], "no boundary");
    let thin = LogicalUnit { thin_provisioned: true, ..disk() };
    let limits = World::new(thin).data(0, &inquiry_page(0xb0));
    assert_eq!(
        limits[20..36],
        [0, 0x10, 0, 0, 0, 0, 1, 0, 0, 0, 0, 8, 0x80, 0, 0, 0],
        "UNMAP: blocks, descriptors, granularity, alignment"
    );
    let limits = World::new(LogicalUnit { geometry, ..disk() }).data(0, &inquiry_page(0xb0));
    assert_eq!(
        limits[6..16],
        [0, 1, 0, 0, 0, 16, 0, 0, 0, 16],
        "the optimum is cut to what one command may move"
    );
}

#[test]
fn characteristics_and_provisioning_pages() {
    let mut world = World::new(disk());
    assert_eq!(world.data(0, &inquiry_page(0xb1))[..6], [0, 0xb1, 0, 0x3c, 0x3a, 0x98]);
    assert_eq!(world.data(0, &inquiry_page(0xb2)), [0, 0xb2, 0, 4, 0, 0, 0, 0]);
    let mut thin = World::new(LogicalUnit { thin_provisioned: true, ..disk() });
    assert_eq!(thin.data(0, &inquiry_page(0xb2)), [0, 0xb2, 0, 4, 0, 0xe4, 2, 0]);
    assert_eq!(thin.data(0, &rw16(0x9e, 0x10, 0, 32))[14], 0xc0, "LBPME and LBPRZ");
    let mut flash = World::new(LogicalUnit { rotational: false, ..disk() });
    assert_eq!(flash.data(0, &inquiry_page(0xb1))[4..6], [0, 1]);
}

#[test]
fn a_volatile_cache_is_admitted_in_the_extended_inquiry_page() {
    let mut world = World::new(disk());
    assert_eq!(world.data(0, &inquiry_page(0x86))[..8], [0, 0x86, 0, 0x3c, 0, 7, 1, 0]);
    let mut through =
        World::new(LogicalUnit::new(disk().identity, disk().geometry, WriteCache::WriteThrough));
    assert_eq!(through.data(0, &inquiry_page(0x86))[6], 0);
}

#[test]
fn capacity_in_ten_bytes_sends_to_sixteen_when_it_does_not_fit() {
    let mut world = World::new(disk());
    assert_eq!(world.data(0, &rw10(0x25, 0, 0, 0)), [0, 0, 0x07, 0xcf, 0, 0, 2, 0]);
    assert_eq!(world.send(0, &rw10(0x25, 0, 1, 0)), wrong_field(5, Some(0)), "an LBA without PMI");
    let last_that_fits = Geometry::new(512, 1 << 32, 0, 4096).unwrap();
    let mut world = World::new(LogicalUnit { geometry: last_that_fits, ..disk() });
    assert_eq!(world.data(0, &rw10(0x25, 0, 0, 0))[..4], [0xff; 4]);
    let beyond = Geometry::new(512, (1 << 32) + 1, 0, 4096).unwrap();
    let mut world = World::new(LogicalUnit { geometry: beyond, ..disk() });
    assert_eq!(world.data(0, &rw10(0x25, 0, 0, 0))[..4], [0xff; 4]);
    assert_eq!(world.data(0, &rw16(0x9e, 0x10, 0, 32))[..8], [0, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn capacity_in_sixteen_bytes_says_more() {
    let mut world = World::new(disk());
    let mut expected = vec![0, 0, 0, 0, 0, 0, 0x07, 0xcf, 0, 0, 2, 0, 0, 3];
    expected.resize(32, 0);
    assert_eq!(world.data(0, &rw16(0x9e, 0x10, 0, 255)), expected);
    assert_eq!(world.data(0, &rw16(0x9e, 0x10, 0, 15)), expected[..15]);
    assert_eq!(world.data(0, &rw16(0x9e, 0x10, 0, 0)), []);
    assert_eq!(world.send(0, &rw16(0x9e, 0x12, 0, 24)), wrong_field(1, Some(4)), "GET LBA STATUS");
}

#[test]
fn all_mode_pages_come_in_order_behind_a_block_descriptor() {
    let mut world = World::new(disk());
    let all = world.data(0, &[0x1a, 0, 0x3f, 0, 255, 0]);
    let mut expected = vec![131, 0, 0x10, 8, 0, 0, 0x07, 0xd0, 0, 0, 2, 0];
    expected.extend([0x01, 0x0a, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0x02, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0x03, 0x16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 56, 2, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0]);
    expected.extend([0x04, 0x16, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3a, 0x98, 0, 0]);
    expected.extend([0x88, 0x12, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0x8a, 0x0a, 0x20, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0x1c, 0x0a, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(all, expected);
    assert_eq!(world.data(0, &[0x1a, 0, 0x3f, 0, 4, 0]), expected[..4]);
    assert_eq!(
        world.data(0, &[0x1a, 0, 0x3f, 0xff, 255, 0]),
        expected,
        "and all subpages, of which there are none"
    );
}

#[test]
fn mode_sense_10_has_its_own_header_and_a_long_descriptor_on_demand() {
    let mut world = World::new(disk());
    let short = world.data(0, &[0x5a, 0, 0x0a, 0, 0, 0, 0, 0, 255, 0]);
    assert_eq!(short[..16], [0, 26, 0, 0x10, 0, 0, 0, 8, 0, 0, 0x07, 0xd0, 0, 0, 2, 0]);
    let long = world.data(0, &[0x5a, 0x10, 0x0a, 0, 0, 0, 0, 0, 255, 0]);
    assert_eq!(long[..8], [0, 34, 0, 0x10, 1, 0, 0, 16]);
    assert_eq!(long[8..24], [0, 0, 0, 0, 0, 0, 0x07, 0xd0, 0, 0, 0, 0, 0, 0, 2, 0]);
    let none = world.data(0, &[0x5a, 0x18, 0x0a, 0, 0, 0, 0, 0, 255, 0]);
    assert_eq!(none[..9], [0, 18, 0, 0x10, 0, 0, 0, 0, 0x8a]);
}

#[test]
fn mode_sense_tells_what_may_change_and_what_is_default() {
    let mut world = World::new(disk());
    let mut page =
        |control: u8, page: u8| world.data(0, &[0x1a, 0x08, control << 6 | page, 0, 255, 0])[4..].to_vec();
    assert_eq!(page(1, 0x0a), [0x8a, 0x0a, 0x04, 0x06, 0x08, 0x40, 0, 0, 0, 0, 0, 0]);
    assert_eq!(page(1, 0x08)[2], 0x04);
    assert_eq!(page(2, 0x08)[2], 0x04);
    assert_eq!(page(1, 0x1c)[2..], [0; 10]);
    assert_eq!(page(3, 0x08)[2], 0x04, "saved, as long as nothing is: the default");
    assert_eq!(world.send(0, &[0x1a, 0, 0x19, 0, 255, 0]), wrong_field(2, Some(5)));
    assert_eq!(world.send(0, &[0x1a, 0, 0x0a, 1, 255, 0]), wrong_field(3, None));
}

#[test]
fn write_cache_enable_is_the_truth() {
    for (cache, wce, changeable) in
        [(WriteCache::WriteBack, 4, 4), (WriteCache::WriteThrough, 0, 4), (WriteCache::NonVolatile, 0, 0)]
    {
        let mut world = World::new(LogicalUnit::new(disk().identity, disk().geometry, cache));
        assert_eq!(world.data(0, &[0x1a, 0x08, 0x08, 0, 255, 0])[6], wce, "{cache:?}");
        assert_eq!(world.data(0, &[0x1a, 0x08, 0x48, 0, 255, 0])[6], changeable, "{cache:?}");
    }
}

#[test]
fn report_luns_lists_what_is_asked_for() {
    let mut world = World::new(disk());
    let mut report =
        |select: u8, length: u8| world.send(0, &[0xa0, 0, select, 0, 0, 0, 0, 0, 0, length, 0, 0]);
    let units = [[0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0], [0x41, 0x2c, 0, 0, 0, 0, 0, 0]].concat();
    let well_known = [0xc1, 1, 0, 0, 0, 0, 0, 0].to_vec();
    let list = |length: u8, luns: &[&[u8]]| {
        Answer::Data([&[0, 0, 0, length, 0, 0, 0, 0][..], &luns.concat()].concat())
    };
    assert_eq!(report(0, 255), list(24, &[&units]));
    assert_eq!(report(1, 255), list(8, &[&well_known]));
    assert_eq!(report(2, 255), list(32, &[&units, &well_known]));
    assert_eq!(report(0, 16), list(24, &[&units[..8]]), "the length is the whole list's");
    assert_eq!(report(3, 255), wrong_field(2, None));
}

#[test]
fn supported_operation_codes_are_the_table() {
    let thick = World::new(disk()).data(0, &[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0]);
    let served = opcodes::TABLE.iter().filter(|row| row.is_served_by(&disk())).count();
    assert_eq!(thick.len(), 4 + 8 * served, "UNMAP and GET LBA STATUS are a thin unit's");
    let mut world = World::new(thin());
    let all =
        |world: &mut World, rctd: u8| world.data(0, &[0xa3, 0x0c, rctd, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0]);
    let plain = all(&mut world, 0);
    assert_eq!(plain.len(), 4 + 8 * opcodes::TABLE.len());
    assert_eq!(u32::from_be_bytes(plain[..4].try_into().unwrap()) as usize, plain.len() - 4);
    let timed = all(&mut world, 0x80);
    assert_eq!(timed.len(), 4 + 20 * opcodes::TABLE.len());
    for (row, (plain, timed)) in opcodes::TABLE.iter().zip(plain[4..].chunks(8).zip(timed[4..].chunks(20))) {
        let action = row.service_action.unwrap_or(0).to_be_bytes();
        let flags = u8::from(row.service_action.is_some());
        let length = u8::try_from(row.usage.len()).unwrap();
        assert_eq!(plain, [row.operation_code, 0, action[0], action[1], 0, flags, 0, length]);
        assert_eq!(
            timed[..10],
            [row.operation_code, 0, action[0], action[1], 0, flags | 2, 0, length, 0, 0x0a]
        );
    }
}

#[test]
fn one_operation_code_is_reported_by_the_option_that_fits_it() {
    let mut world = World::new(disk());
    let mut ask = |option: u8, code: u8, action: u8| {
        world.send(0, &[0xa3, 0x0c, option, code, 0, action, 0, 0, 1, 0, 0, 0])
    };
    let read10 = Answer::Data(vec![0, 3, 0, 10, 0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04]);
    let unsupported = Answer::Data(vec![0, 1, 0, 0]);
    assert_eq!(ask(1, 0x28, 0), read10);
    assert_eq!(ask(3, 0x28, 0), read10);
    assert_eq!(ask(2, 0x28, 0), wrong_field(2, Some(2)), "it has no service actions");
    assert_eq!(ask(3, 0x28, 1), unsupported);
    assert_eq!(ask(1, 0x9e, 0), wrong_field(2, Some(2)), "it has service actions");
    let Answer::Data(capacity) = ask(2, 0x9e, 0x10) else { panic!() };
    assert_eq!(capacity[..6], [0, 3, 0, 16, 0x9e, 0x10]);
    assert_eq!(ask(2, 0x9e, 0x12), unsupported);
    assert_eq!(ask(1, 0x42, 0), unsupported);
    assert_eq!(ask(2, 0x42, 0), unsupported);
    assert_eq!(ask(7, 0x28, 0), wrong_field(2, Some(2)));
    let Answer::Data(timed) = ask(0x81, 0x00, 0) else { panic!() };
    assert_eq!(timed, [0, 0x83, 0, 6, 0, 0, 0, 0, 0, 4, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn supported_task_management_functions() {
    let mut world = World::new(disk());
    assert_eq!(world.data(0, &[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]), [0xfa, 0, 0, 0]);
    let mut extended = vec![0xfa, 0, 0, 12];
    extended.resize(16, 0);
    assert_eq!(world.data(0, &[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0]), extended);
    // SPC-4 table 263: QTS; QAES, QTSS, ITNRS.
    world.carries_queries = true;
    assert_eq!(world.data(0, &[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]), [0xfe, 0x07, 0, 0]);
    extended[..2].copy_from_slice(&[0xfe, 0x07]);
    assert_eq!(world.data(0, &[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0]), extended);
}

/// What is answered at a LUN where there is no unit.
fn nowhere(lun: Lun, cdb: &[u8]) -> Answer {
    let luns = [Lun::encode(7, AddressMethod::Peripheral).unwrap()];
    let context = Context {
        luns: &luns,
        relative_target_port: 1,
        target_ports: &[],
        read_only: false,
        carries_queries: false,
    };
    let mut reply = [0xee; 4096];
    match no_unit::begin(lun, &context, cdb, &mut reply) {
        Action::Reply { length } => Answer::Data(reply[..length].to_vec()),
        Action::Finish(outcome) => Answer::Ended(outcome),
        other => panic!("{other:?} where there is no unit"),
    }
}

#[test]
fn where_there_is_no_unit_inquiry_says_so_and_report_luns_still_answers() {
    let lun0 = Lun::from_bytes([0; 8]);
    let inquiry = match nowhere(lun0, &INQUIRY) {
        Answer::Data(data) => data,
        other => panic!("{other:?}"),
    };
    assert_eq!((inquiry[0], inquiry.len(), inquiry[4]), (0x7f, 36, 31));
    assert_eq!(nowhere(lun0, &inquiry_page(0)), Answer::Data(vec![0x7f, 0, 0, 1, 0]));
    assert_eq!(nowhere(lun0, &inquiry_page(0x83)), wrong_field(2, None));
    let Answer::Data(luns) = nowhere(lun0, &REPORT_LUNS) else { panic!() };
    assert_eq!(luns, [0, 0, 0, 8, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0]);
    let Answer::Data(sense) = nowhere(lun0, &[0x03, 0, 0, 0, 18, 0]) else { panic!() };
    assert_eq!((sense[2], sense[12], sense[13]), (5, 0x25, 0));
    for cdb in [&TEST_UNIT_READY[..], &read10(0, 1), &[0xff; 16], &[]] {
        assert_eq!(nowhere(lun0, cdb), illegal(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED), "{cdb:02x?}");
    }
}

#[test]
fn the_well_known_unit_reports_luns_and_little_else() {
    let Answer::Data(inquiry) = nowhere(Lun::REPORT_LUNS, &INQUIRY) else { panic!() };
    assert_eq!(inquiry[0], 0x1e);
    assert_eq!(nowhere(Lun::REPORT_LUNS, &TEST_UNIT_READY), Answer::Ended(Outcome::GOOD));
    assert_eq!(nowhere(Lun::REPORT_LUNS, &read10(0, 1)), illegal(AdditionalSense::INVALID_OPERATION_CODE));
    let Answer::Data(sense) = nowhere(Lun::REPORT_LUNS, &[0x03, 0, 0, 0, 18, 0]) else { panic!() };
    assert_eq!(sense[2], 0);
}

#[test]
fn a_dummy_tells_of_no_device_on_every_page() {
    let mut world = World::new(LogicalUnit { dummy: true, ..disk() });
    assert_eq!(world.data(0, &INQUIRY)[0], 0x3f, "qualifier 001b, type 1Fh");
    for page in [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2] {
        assert_eq!(world.data(0, &inquiry_page(page))[..2], [0x3f, page]);
    }
}
