//! POPULATE TOKEN and WRITE USING TOKEN: lists read and refused, tokens made, and what they come to.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod common;

use common::*;
use portico_scsi::copy_results::{CopyRecord, CopyResults, CopyState};
use portico_scsi::sense::{AdditionalSense, Outcome, SenseFormat};
use portico_scsi::token::{self, PopulateToken, Range, WriteUsingToken};
use portico_scsi::unit::Lba;

const ZERO: [u8; 8] = [0xff, 0xff, 0, 1, 0, 0, 0x01, 0xf8];

/// A list with a header of so many bytes, and these ranges.
fn list(header: usize, ranges: &[(u64, u32)]) -> Vec<u8> {
    let mut list = vec![0; header];
    let length = u16::try_from(ranges.len() * 16).unwrap();
    list[header - 2..].copy_from_slice(&length.to_be_bytes());
    for (lba, blocks) in ranges {
        list.extend([&lba.to_be_bytes()[..], &blocks.to_be_bytes()[..], &[0; 4]].concat());
    }
    let whole = u16::try_from(list.len() - 2).unwrap();
    list[..2].copy_from_slice(&whole.to_be_bytes());
    if header == 536 {
        list[16..24].copy_from_slice(&ZERO);
    }
    list
}

fn send(action: u8, list: &[u8]) -> Answer {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x83, action);
    cdb[6..10].copy_from_slice(&[1, 2, 3, 4]);
    cdb[10..14].copy_from_slice(&u32::try_from(list.len()).unwrap().to_be_bytes());
    World::new(disk()).send_with(0, &cdb, list)
}

fn range(lba: u64, blocks: u64) -> Range {
    Range { lba: Lba(lba), blocks }
}

fn refused(byte: u16) -> Answer {
    Answer::Ended(Outcome::invalid_parameter(byte, None))
}

fn illegal_code(code: u8, qualifier: u8) -> Answer {
    illegal(AdditionalSense { code, qualifier })
}

#[test]
fn ranges_are_read_and_those_of_nothing_left_out() {
    let populated = send(0x10, &list(16, &[(8, 4), (0, 0), (100, 1)]));
    let Answer::Populate(PopulateToken { list_id, immediate, timeout_s, ranges }) = populated else {
        panic!("{populated:?}")
    };
    assert_eq!((list_id, immediate, timeout_s), (0x0102_0304, false, 30));
    assert_eq!(ranges, [range(8, 4), range(100, 1)]);
    let mut using = list(536, &[(8, 4)]);
    (using[2], using[15]) = (0x03, 5);
    let written = send(0x11, &using);
    let Answer::WriteUsing(WriteUsingToken { immediate, delete, offset_blocks, token, .. }) = written else {
        panic!("{written:?}")
    };
    assert_eq!((immediate, delete, offset_blocks, token), (true, true, 5, None));
}

#[test]
fn lists_that_are_wrong_are_refused_by_their_field() {
    for (action, header) in [(0x10, 16), (0x11, 536)] {
        let length_at = u16::try_from(header - 2).unwrap();
        assert_eq!(send(action, &[]), GOOD, "nothing is to be done");
        assert_eq!(send(action, &list(header, &[(0, 8)])[..header - 1]), illegal_code(0x1a, 0));
        assert_eq!(send(action, &list(header, &[(0, 8)])[..header + 15]), illegal_code(0x1a, 0));
        assert_eq!(send(action, &list(header, &[])), refused(length_at), "no range at all");
        let mut short = list(header, &[(0, 8)]);
        short[1] -= 1;
        assert_eq!(send(action, &short), refused(0));
        assert_eq!(send(action, &list(header, &[(0, 1); 33])), illegal_code(0x26, 0x08));
        assert_eq!(send(action, &list(header, &[(0, 8), (7, 1)])), illegal_code(0x26, 0), "one block twice");
        assert_eq!(send(action, &list(header, &[(1999, 2)])), Answer::Ended(Outcome::out_of_range(2000)));
        assert_eq!(
            send(action, &list(header, &[(u64::MAX, 2)])),
            Answer::Ended(Outcome::out_of_range(u64::MAX))
        );
    }
    let with = |header, at: usize, value: u8| {
        let mut list = list(header, &[(0, 8)]);
        list[at] = value;
        send(if header == 16 { 0x10 } else { 0x11 }, &list)
    };
    assert_eq!(with(16, 4, 1), refused(4), "a timeout of half a year");
    assert_eq!(with(16, 2, 0x02), refused(8), "RTV: another type");
    assert_eq!(with(536, 19, 2), illegal_code(0x23, 0x01), "another type");
    assert_eq!(with(536, 23, 0xf7), illegal_code(0x23, 0x0a));
    let mut typed = list(16, &[(0, 8)]);
    typed[2] = 0x02;
    typed[8..12].copy_from_slice(&[0, 0x80, 0, 1]);
    assert!(matches!(send(0x10, &typed), Answer::Populate(_)), "RTV: that type");
}

#[test]
fn a_token_names_its_maker_and_how_much_it_stands_for() {
    let unit = disk();
    let token = token::compose(&unit, 0x0102_0304_0506_0708, 4096);
    assert_eq!(token[..16], [0, 0x80, 0, 1, 0, 0, 0x01, 0xf8, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(token::identifier_of(&token), 0x0102_0304_0506_0708);
    assert!(token::creator_of(&token).unwrap().names(&unit.identity));
    assert_eq!(token[48..64], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]);
    assert_eq!(token[96..104], [0, 0, 2, 0, 0, 3, 0, 0]);
    assert_eq!(token::compose(&thin(), 1, 0)[102], 0xc0, "LBPME and LBPRZ");
    assert!(token[token::EXTENDED_AT..].iter().all(|byte| *byte == 0), "it is the maker's");
    assert!(token::creator_of(&[0; 512]).is_err());
}

#[test]
fn pieces_are_as_long_as_the_ranges_of_both_sides_let_them() {
    let write = |offset_blocks, ranges: &[Range]| WriteUsingToken {
        list_id: 1,
        immediate: false,
        delete: false,
        offset_blocks,
        token: None,
        ranges: ranges.to_vec(),
    };
    let sources = [range(10, 4), range(100, 4)];
    let pairs = |offset, ranges: &[Range]| token::pair(&sources, 512, &write(offset, ranges), 512);
    assert_eq!(pairs(0, &[range(0, 4), range(8, 4)]).unwrap(), [(5120, 0, 2048), (51200, 4096, 2048)]);
    assert_eq!(pairs(3, &[range(0, 3)]).unwrap(), [(6656, 0, 512), (51200, 512, 1024)]);
    assert_eq!(pairs(4, &[range(0, 4)]).unwrap(), [(51200, 0, 2048)]);
    assert_eq!(pairs(0, &[]).unwrap(), []);
    let short = Err(Outcome::illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST));
    assert_eq!(pairs(1, &[range(0, 8)]), short, "more than there is");
    assert_eq!(pairs(u64::MAX, &[range(0, 1)]), short);
    let larger = |ranges: &[Range]| token::pair(&sources, 512, &write(0, ranges), 4096);
    assert_eq!(larger(&[range(1, 1)]), short, "a block of two pieces");
    assert_eq!(
        token::pair(&[range(1, 1)], 4096, &write(0, &[range(8, 8)]), 512).unwrap(),
        [(4096, 4096, 4096)]
    );
}

#[test]
fn the_page_tells_the_limits_of_tokens() {
    let mut page = [0x12, 1, 0x8f, 4, 0, 0];
    let told = World::new(disk()).data(0, &page);
    let limits = &told[4..40];
    assert_eq!(limits[..12], [0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 32]);
    assert_eq!(limits[12..20], [0, 0, 2, 0x58, 0, 0, 0, 30]);
    assert_eq!(limits[20..], [0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0], "blocks of 512 bytes");
    // Each descriptor is as long as it says, and the page ends with the last.
    let (mut at, mut kinds) = (4, Vec::new());
    while at < told.len() {
        kinds.push(u16::from_be_bytes([told[at], told[at + 1]]));
        at += 4 + usize::from(u16::from_be_bytes([told[at + 2], told[at + 3]]));
    }
    assert_eq!((at, &kinds[..]), (told.len(), &[0, 1, 4, 8, 0x0c, 0x0106, 0x0108, 0x8001][..]));
    page[1] = 0;
    assert_eq!(World::new(disk()).send(0, &page), wrong_field(2, None));
}

#[test]
fn the_information_counts_blocks_and_has_the_token_behind_the_sense_data() {
    let told = |record: &CopyRecord| {
        let mut buffer = [0xee; portico_scsi::copy_results::RESULTS_BYTES_MAX];
        let length = record.tell(CopyResults::RodTokens, SenseFormat::Fixed, 1000, &mut buffer).unwrap();
        buffer[..length].to_vec()
    };
    let new = CopyRecord { block_bytes: Some(512), ..CopyRecord::new(1, 0x10, true) };
    assert_eq!((told(&new)[5], told(&new)[32..].to_vec()), (0x12, vec![0; 4]));
    let token = Some(Box::new([7; 512]));
    let done = CopyRecord { state: CopyState::Completed, bytes: 4096, token, ..new.clone() };
    let bytes = told(&done);
    assert_eq!((bytes.len(), &bytes[..6]), (550, &[0, 0, 2, 0x22, 0x10, 0x01][..]));
    assert_eq!(bytes[15..24], [0xf1, 0, 0, 0, 0, 0, 0, 0, 8]);
    assert_eq!((&bytes[32..38], &bytes[38..]), (&[0, 0, 2, 2, 0, 0][..], &[7; 512][..]));
    let outcome = Outcome::illegal(AdditionalSense::TOKEN_REVOKED);
    let failed = told(&CopyRecord { state: CopyState::Failed, outcome, ..new });
    assert_eq!((failed.len(), failed[13], failed[44], failed[45]), (32 + 18 + 4, 18, 0x23, 0x06));
}
