//! One fault at each position of a dialogue, one after the other (RFC 7143 §7.1, §7.8, §7.9, §11.16): a data segment or a header
//! with a flipped bit, a PDU that is lost, a connection that is cut. At every recovery level every command ends once, and with
//! the right data: at level 0 in a new session, at level 1 in this one as long as its connection lives, at level 2 in this one.

mod play;

use play::{Dialogue, Fate, Order, Play};

/// What the dialogues do: bytes of which blocks go which way, by which connection.
const fn write(way: usize, lba: u64, length: u32) -> Order {
    Order::new(true, way, lba, length)
}

const fn read(way: usize, lba: u64, length: u32) -> Order {
    Order::new(false, way, lba, length)
}

/// Immediate data, an unsolicited burst and R2Ts; several Data-In in several sequences; two short ones.
const ONE_CONNECTION: Dialogue = Dialogue {
    name: "one connection",
    ways: 1,
    keys: "InitialR2T=No|ImmediateData=Yes|FirstBurstLength=8192|MaxBurstLength=8192|MaxOutstandingR2T=2|",
    unasked: 8192,
    immediate: 2048,
    orders: &[write(0, 0, 20 << 10), read(0, 1000, 20 << 10), write(0, 4000, 512), read(0, 5000, 512)],
};

/// Nothing comes unasked.
const ASKED_FOR: Dialogue = Dialogue {
    name: "R2Ts alone",
    ways: 1,
    keys: "InitialR2T=Yes|ImmediateData=No|FirstBurstLength=4096|MaxBurstLength=4096|MaxOutstandingR2T=4|",
    unasked: 0,
    immediate: 0,
    orders: &[write(0, 0, 12 << 10), read(0, 3000, 9 << 10), write(0, 100, 8 << 10)],
};

/// Commands of one session over two connections, in turns.
const TWO_CONNECTIONS: Dialogue = Dialogue {
    name: "two connections",
    ways: 2,
    keys: "InitialR2T=No|ImmediateData=Yes|FirstBurstLength=4096|MaxBurstLength=8192|MaxOutstandingR2T=1|\
           MaxConnections=2|",
    unasked: 4096,
    immediate: 1024,
    orders: &[
        write(0, 0, 10 << 10),
        read(1, 1000, 10 << 10),
        write(1, 4000, 6 << 10),
        read(0, 5000, 5 << 10),
    ],
};

/// Short, so that it can be cut twice.
const SHORT: Dialogue = Dialogue {
    name: "two connections, short",
    ways: 2,
    keys: "InitialR2T=No|ImmediateData=Yes|FirstBurstLength=2048|MaxBurstLength=4096|MaxOutstandingR2T=1|\
           MaxConnections=2|",
    unasked: 2048,
    immediate: 1024,
    orders: &[write(0, 0, 5 << 10), read(1, 1000, 6 << 10)],
};

const DIALOGUES: [&Dialogue; 3] = [&ONE_CONNECTION, &ASKED_FOR, &TWO_CONNECTIONS];

/// The fault at every position that there is, of every dialogue, at every level; at least so many of them each time.
fn everywhere(fate: Fate, at_least: usize) {
    for dialogue in DIALOGUES {
        for level in [0, 1, 2] {
            let mut position = 0;
            while Play::new(dialogue, level, fate, position).run() {
                position += 1;
            }
            assert!(position >= at_least, "{} at level {level}: {position} positions", dialogue.name);
        }
    }
}

#[test]
fn a_flipped_bit_in_any_data_segment_costs_no_command() {
    everywhere(Fate::DataSpoilt, 5);
}

#[test]
fn a_flipped_bit_in_any_header_costs_no_command() {
    everywhere(Fate::HeaderSpoilt, 16);
}

#[test]
fn whichever_pdu_of_the_shard_is_lost_everything_ends_once() {
    everywhere(Fate::AnswerLost, 8);
}

#[test]
fn whichever_pdu_of_the_initiator_is_lost_everything_ends_once() {
    everywhere(Fate::RequestLost, 8);
}

#[test]
fn wherever_the_connection_is_cut_everything_ends_once() {
    everywhere(Fate::Cut, 16);
}

/// The fault at every pair of positions, at level 2: the second may come in the middle of the recovery from the first.
fn twice(dialogue: &'static Dialogue, fate: Fate) -> usize {
    let (mut position, mut pairs) = (0, 0);
    while Play::new(dialogue, 2, fate, position).run() {
        let mut after = 0;
        while Play::new(dialogue, 2, fate, position).and_again(after).run() {
            after += 1;
        }
        pairs += after;
        position += 1;
    }
    pairs
}

/// `SHARD_PAIRS=all cargo test -p portico-shard exhaustive` plays the long dialogues so, too.
#[test]
fn wherever_the_connections_are_cut_twice_everything_ends_once() {
    for fate in [Fate::Cut, Fate::Abandoned] {
        assert!(twice(&SHORT, fate) >= 64);
        if std::env::var_os("SHARD_PAIRS").is_some() {
            for dialogue in DIALOGUES {
                let pairs = twice(dialogue, fate);
                assert!(pairs >= 200, "{}: {pairs} pairs", dialogue.name);
            }
        }
    }
}

/// The same where the initiator logs the lost connection out from another, or the shard still believes in it.
#[test]
fn however_the_old_connection_is_logged_out_everything_ends_once() {
    everywhere(Fate::Abandoned, 16);
}
