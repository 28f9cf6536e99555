//! What a command may do, by a reading of SBC-3 and SPC-4 that knows nothing of the device server's.

use super::world::{BLOCK, BLOCKS};

/// Blocks that a command may change: first and number, the device's end already taken off.
pub(super) fn written(cdb: &[u8], data: &[u8]) -> Vec<(u64, u64)> {
    let all = vec![(0, BLOCKS)];
    let range = |(lba, count): (u64, u64)| vec![clip(lba, count)];
    match cdb[0] {
        // WRITE, WRITE AND VERIFY, ORWRITE: 6, 10, 12, 16.
        0x0a | 0x2a | 0x2e | 0xaa | 0xae | 0x8a | 0x8e | 0x8b => range(addressed(cdb)),
        // WRITE SAME: no number is all that follow.
        0x41 | 0x93 => match addressed(cdb) {
            (lba, 0) => vec![clip(lba, BLOCKS)],
            given => range(given),
        },
        // UNMAP: block descriptors behind eight bytes.
        0x42 => data
            .get(8..)
            .unwrap_or(&[])
            .chunks_exact(16)
            .map(|one| clip(be(&one[..8]), be(&one[8..12])))
            .collect(),
        // COMPARE AND WRITE, WRITE ATOMIC.
        0x89 => range((be(&cdb[2..10]), u64::from(cdb[13]))),
        0x9c => range((be(&cdb[2..10]), be(&cdb[12..14]))),
        // Of 32 bytes.
        0x7f if cdb.len() == 32 => match be(&cdb[8..10]) {
            // WRITE, WRITE AND VERIFY, WRITE SAME, ORWRITE.
            0x0b..=0x0e => match (be(&cdb[12..20]), be(&cdb[28..32])) {
                (lba, 0) => vec![clip(lba, BLOCKS)],
                given => range(given),
            },
            _ => Vec::new(),
        },
        // FORMAT UNIT, SANITIZE, EXTENDED COPY and its kin.
        0x04 | 0x48 | 0x83 => all,
        _ => Vec::new(),
    }
}

/// LBA and number of blocks of a command whose CDB has them where SBC-3 mostly has them.
pub(super) fn addressed(cdb: &[u8]) -> (u64, u64) {
    match cdb[0] >> 5 {
        0 => {
            let count = if cdb[4] == 0 { 256 } else { u64::from(cdb[4]) };
            (be(&[cdb[1] & 0x1f, cdb[2], cdb[3]]), count)
        }
        1 | 2 => (be(&cdb[2..6]), be(&cdb[7..9])),
        5 => (be(&cdb[2..6]), be(&cdb[6..10])),
        _ => (be(&cdb[2..10]), be(&cdb[10..14])),
    }
}

/// Whether it comes with data, if it has any: what writes, and parameter lists.
pub(super) fn takes_data(cdb: &[u8]) -> bool {
    let lists = [0x15, 0x1d, 0x2f, 0x3b, 0x55, 0x5f, 0x8f, 0xa4, 0xaf];
    lists.contains(&cdb[0]) || !written(cdb, &[0; 24]).is_empty()
}

/// Whether a GOOD leaves the data just so at the addressed blocks.
pub(super) fn is_plain_write(cdb: &[u8]) -> bool {
    matches!(cdb[0], 0x0a | 0x2a | 0xaa | 0x8a)
}

/// Whether a GOOD brings what is at the addressed blocks.
pub(super) fn is_plain_read(cdb: &[u8]) -> bool {
    matches!(cdb[0], 0x08 | 0x28 | 0xa8 | 0x88)
}

fn clip(lba: u64, count: u64) -> (u64, u64) {
    let first = lba.min(BLOCKS);
    (first, count.min(BLOCKS - first))
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Sense data as SPC-4 §4.5 draws it: its key.
pub(super) fn sense_key(sense: &[u8]) -> u8 {
    let (key, length) = match sense[0] & 0x7f {
        0x70 => (sense[2] & 0x0f, 8 + usize::from(sense[7])),
        0x72 => (sense[1] & 0x0f, 8 + usize::from(sense[7])),
        other => panic!("response code {other:#04x}"),
    };
    assert_eq!(sense.len(), length, "ADDITIONAL SENSE LENGTH");
    if sense[0] & 0x7f == 0x72 {
        let mut rest = &sense[8..];
        while let [_, length, ..] = rest {
            rest = rest.get(2 + usize::from(*length)..).expect("descriptors end where the data does");
        }
        assert!(rest.is_empty());
    }
    key
}

/// Keys of errors that are found before anything is done: UNIT ATTENTION, NOT READY, ILLEGAL REQUEST, DATA PROTECT.
pub(super) fn is_refusal(key: u8) -> bool {
    matches!(key, 2 | 5 | 6 | 7)
}

/// Every block that differs stands in one of the ranges.
pub(super) fn only_there(before: &[u8], after: &[u8], ranges: &[(u64, u64)], what: &str) {
    for (at, (old, new)) in before.chunks(BLOCK).zip(after.chunks(BLOCK)).enumerate() {
        let at = at as u64;
        let may = ranges.iter().any(|(lba, count)| (*lba..lba + count).contains(&at));
        assert!(old == new || may, "{what}: block {at} has changed");
    }
}
