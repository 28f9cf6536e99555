//! VERIFY with Data-Out.

use super::*;

const MIB: u32 = 1 << 20;
/// So much may be asked for at a time as the shard gives.
const MUCH: &str = "InitialR2T=Yes|ImmediateData=No|MaxBurstLength=16777212|MaxOutstandingR2T=32|";

/// VERIFY(16) of so many bytes from block 0, with this BYTCHK.
fn verify(length: u32, byte_check: u8) -> [u8; 16] {
    let mut cdb = transfer(0x8f, 0, length);
    cdb[1] = byte_check << 1;
    cdb
}

/// Answers what is asked for until the status, which it gives back; and the most that was asked for at a time.
fn serve(bench: &mut Bench, peer: &Peer, byte: impl Fn(u32) -> u8) -> (u8, u32) {
    let mut asked_most = 0;
    for _ in 0..TURNS_MAX {
        let heard = bench.heard(peer);
        let asked: u32 =
            heard.iter().map(|heard| if let Heard::R2t { length, .. } = heard { *length } else { 0 }).sum();
        asked_most = asked_most.max(asked);
        for heard in heard {
            match heard {
                Heard::R2t { .. } => bench.answer_with(peer, &heard, &byte),
                Heard::Status(_, status) => return (status, asked_most),
                other => panic!("{other:?}"),
            }
        }
        bench.land_all();
    }
    panic!("it does not end")
}

fn on_disk(at: u32) -> u8 {
    world::block_byte(at.into())
}

#[test]
fn data_are_compared_as_they_come_and_no_more_of_them_is_held_than_of_a_write() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], MUCH);
    bench.command(&mut peer, 0, 1, verify(3 * MIB, 1), 3 * MIB, &[]);
    assert_eq!(serve(&mut bench, &peer, on_disk), (GOOD, MIB));
    bench.command(&mut peer, 0, 2, verify(3 * MIB, 1), 3 * MIB, &[]);
    let (status, _) = serve(&mut bench, &peer, |at| if at == 2 * MIB + 77 { 0xee } else { on_disk(at) });
    assert_eq!(status, CHECK_CONDITION);
}

#[test]
fn one_block_is_compared_with_all_of_them() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    // Only block 0 has zeroes.
    bench.command(&mut peer, 0, 1, verify(512, 3), 512, &[0; 512]);
    assert_eq!(serve(&mut bench, &peer, on_disk).0, GOOD);
    bench.command(&mut peer, 0, 2, verify(1024, 3), 512, &[0; 512]);
    assert_eq!(serve(&mut bench, &peer, on_disk).0, CHECK_CONDITION);
    let two: Vec<u8> = (0..1024).map(on_disk).collect();
    bench.command(&mut peer, 0, 3, verify(1024, 3), 1024, &two);
    assert_eq!(serve(&mut bench, &peer, on_disk).0, CHECK_CONDITION, "more than the one block");
}

#[test]
fn data_that_never_come_are_booked_and_leave_the_others_theirs() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut hostile = bench.log_in(&[(0, 1)], ASKED);
    for tag in 0..32 {
        bench.command(&mut hostile, 0, tag, verify(MIB, 1), MIB, &[]);
    }
    let asked = bench.heard(&hostile).len();
    assert!(asked < 8, "{asked} were asked for their data");
    let mut modest = bench.log_in(&[(0, 1)], ASKED);
    bench.serve_write(&mut modest, 0, 1, MIB);
    bench.command(&mut modest, 0, 2, verify(MIB, 1), MIB, &[]);
    assert_eq!(serve(&mut bench, &modest, on_disk).0, GOOD);
}
