//! POPULATE TOKEN and WRITE USING TOKEN, on one shard, and on two between which words travel at random.

use std::collections::VecDeque;

use portico_model::peer::{PeerLetter, TokenName, TokenWord, Word};
use portico_scsi::sense::AdditionalSense;
use portico_scsi::token::{Range, TokenBytes};
use portico_scsi::unit::Lba;

use super::*;

const OTHER: ShardId = ShardId(1);

fn ranges(ranges: &[(u64, u32)]) -> Vec<u8> {
    let range =
        |(lba, blocks): &(u64, u32)| [&lba.to_be_bytes()[..], &blocks.to_be_bytes()[..], &[0; 4]].concat();
    ranges.iter().flat_map(range).collect()
}

/// A command of these ranges; `list` is what goes before them.
fn send(bench: &mut Bench, peer: &mut Peer, lun: u16, tag: u32, mut list: Vec<u8>, blocks: &[(u64, u32)]) {
    let (action, header) = if list.len() == 16 { (0x10, 16) } else { (0x11, 536) };
    let descriptors = ranges(blocks);
    let length = u16::try_from(descriptors.len()).expect("few");
    list[header - 2..].copy_from_slice(&length.to_be_bytes());
    list.extend(descriptors);
    let whole = u32::try_from(list.len()).expect("a short list");
    let data_length = u16::try_from(whole - 2).expect("a short list");
    list[..2].copy_from_slice(&data_length.to_be_bytes());
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x83, action);
    cdb[6..10].copy_from_slice(&tag.to_be_bytes());
    cdb[10..14].copy_from_slice(&whole.to_be_bytes());
    bench.command(peer, lun, tag, cdb, whole, &list);
}

fn populate(bench: &mut Bench, peer: &mut Peer, tag: u32, blocks: &[(u64, u32)]) {
    send(bench, peer, 0, tag, vec![0; 16], blocks);
}

fn write_using(bench: &mut Bench, peer: &mut Peer, lun: u16, tag: u32, token: &[u8], blocks: &[(u64, u32)]) {
    let mut list = vec![0; 536];
    list[16..528].copy_from_slice(token);
    send(bench, peer, lun, tag, list, blocks);
}

/// RECEIVE ROD TOKEN INFORMATION.
fn information(bench: &mut Bench, peer: &mut Peer, list_id: u32) -> Vec<u8> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[12]) = (0x84, 0x07, 4);
    cdb[2..6].copy_from_slice(&list_id.to_be_bytes());
    let asked = ScsiCommand { cmd_sn: peer.cmd_sn, read: true, ..command(0, 0x7777, cdb, 0) };
    peer.cmd_sn = peer.cmd_sn.next();
    let mut bhs = [0; BHS_BYTES];
    ScsiCommand { expected_data_transfer_length: 1024, ..asked }.emit(&mut bhs);
    bench.post(peer, bhs, &[]);
    let Some(Heard::Data(_, data, _)) =
        bench.heard(peer).into_iter().find(|it| matches!(it, Heard::Data(..)))
    else {
        panic!("it is there")
    };
    data
}

/// The token that this list made.
fn token(bench: &mut Bench, peer: &mut Peer, list_id: u32) -> Vec<u8> {
    let told = information(bench, peer, list_id);
    assert_eq!((told[4], told[5], told.len()), (0x10, 0x01, 32 + 4 + 2 + 512));
    assert_eq!(told[32..38], [0, 0, 2, 2, 0, 0]);
    told[38..].to_vec()
}

/// Status, ASC and ASCQ of the only answer.
fn ended(bench: &mut Bench, peer: &Peer) -> (u8, [u8; 2]) {
    let answers = bench.answers(peer);
    let [Answer { status: Some(status), sense, .. }] = &answers[..] else {
        panic!("{} answers", answers.len())
    };
    (*status, sense.get(12..14).map_or([0; 2], |code| code.try_into().expect("two bytes")))
}

fn write(bench: &mut Bench, peer: &mut Peer, tag: u32, lba: u64) {
    bench.command(peer, 0, tag, transfer(0x8a, lba, 512), 512, &[7; 512]);
}

/// Units 1 and 2, and a session that sees both as LUN 0 and 1.
fn two_units() -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.open(1, 8);
    bench.open(2, 8);
    let identity = Identity::new(&IdentityOptions::new(0, "other", Handler::FileIo)).expect("a right name");
    bench.install_state(2, 2, WriteCache::WriteBack, LogicalUnit { identity, ..disk() });
    let peer = bench.log_in(&[(0, 1), (1, 2)], IMMEDIATE);
    (bench, peer)
}

/// Two units, and a token of these blocks of the first.
fn with_token(blocks: &[(u64, u32)]) -> (Bench, Peer, Vec<u8>) {
    let (mut bench, mut peer) = two_units();
    populate(&mut bench, &mut peer, 1, blocks);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert!(bench.world.borrow().at_medium.is_empty(), "nothing is read for it");
    let token = token(&mut bench, &mut peer, 1);
    (bench, peer, token)
}

fn read_of(lba: u64, blocks: usize) -> What {
    What::Read { offset_bytes: lba * 512, length_bytes: blocks * 512 }
}

fn write_of(lba: u64, blocks: usize) -> What {
    What::Write { offset_bytes: lba * 512, length_bytes: blocks * 512, durable: false }
}

#[test]
fn what_a_token_stands_for_is_written_elsewhere() {
    let (mut bench, mut peer, token) = with_token(&[(8, 4), (100, 8)]);
    write_using(&mut bench, &mut peer, 1, 2, &token, &[(40, 6), (80, 6)]);
    for (from, to, blocks) in [(8, 40, 4), (100, 44, 2), (102, 80, 6)] {
        assert_eq!(bench.world.borrow().at_medium.front().expect("a piece").disk, 1);
        assert_eq!((bench.land(), bench.land()), (read_of(from, blocks), write_of(to, blocks)));
    }
    assert_eq!(bench.heard(&peer), [Heard::Status(2, GOOD)]);
    let told = information(&mut bench, &mut peer, 2);
    assert_eq!((told[4], told[5], told[15], told[23]), (0x11, 0x01, 0xf1, 12));
    assert_eq!(told[32..], [0; 4], "it made no token");
    let unit = bench.shard.core.units.iter().next().expect("there is one").1;
    assert!(!unit.arbiter.is_open(), "whoever writes looks for tokens");
}

#[test]
fn a_token_is_of_use_to_another_session_that_sees_its_unit_by_whatever_lun() {
    let (mut bench, _, token) = with_token(&[(8, 16)]);
    let mut other = bench.log_in(&[(3, 1), (9, 2)], IMMEDIATE);
    write_using(&mut bench, &mut other, 9, 1, &token, &[(100, 16)]);
    assert_eq!(bench.land(), read_of(8, 16));
    assert_eq!(bench.land(), write_of(100, 16));
    assert_eq!(ended(&mut bench, &other).0, GOOD);
}

#[test]
fn an_aca_does_not_keep_a_token_from_giving_its_blocks_back() {
    let (mut bench, mut peer) = two_units();
    let mut other = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.read_from(&mut other, (0, 8), 1, 512);
    populate(&mut bench, &mut peer, 2, &[(8, 8)]);
    let mut wrong = transfer(0x8a, 0, 0);
    (wrong[1], wrong[15]) = (0xe0, 0x04);
    bench.command(&mut peer, 0, 3, wrong, 0, &[]);
    assert_eq!(bench.heard(&peer), [Heard::Status(3, 2)]);
    assert_eq!(bench.land(), read_of(8, 1));
    write(&mut bench, &mut other, 4, 8);
    assert_eq!(bench.land(), write_of(8, 1), "another nexus waits for no ACA");
    assert_eq!(bench.heard(&peer), []);
    bench.manage(&peer, TaskManagementFunction::ClearAca, 0);
    assert!(bench.heard(&peer).contains(&Heard::Status(2, GOOD)));
}

#[test]
fn a_token_is_revoked_before_one_of_its_blocks_changes() {
    let (mut bench, mut peer, token) = with_token(&[(8, 8)]);
    write(&mut bench, &mut peer, 2, 16);
    write_using(&mut bench, &mut peer, 1, 3, &token, &[(0, 8)]);
    assert_eq!((bench.land(), bench.land()), (write_of(16, 1), read_of(8, 8)));
    write(&mut bench, &mut peer, 4, 15);
    assert_eq!((bench.land(), bench.land()), (write_of(0, 8), write_of(15, 1)), "it was read before");
    let heard = bench.heard(&peer);
    assert!([2, 3, 4].iter().all(|tag| heard.contains(&Heard::Status(*tag, GOOD))), "{heard:?}");
    write_using(&mut bench, &mut peer, 1, 5, &token, &[(0, 8)]);
    assert_eq!(ended(&mut bench, &peer), (CHECK_CONDITION, [0x23, 0x06]));
    assert!(bench.world.borrow().at_medium.is_empty());
    let unit = bench.shard.core.units.iter().next().expect("there is one").1;
    assert!(unit.arbiter.is_open(), "there is no token any more");
}

#[test]
fn a_piece_that_may_have_changed_while_it_was_read_is_not_written() {
    let (mut bench, mut peer, token) = with_token(&[(8, 8)]);
    write_using(&mut bench, &mut peer, 1, 2, &token, &[(0, 8)]);
    write(&mut bench, &mut peer, 3, 8);
    assert_eq!(bench.land(), read_of(8, 8));
    assert_eq!(ended(&mut bench, &peer), (CHECK_CONDITION, [0x23, 0x06]));
    assert_eq!(bench.land(), write_of(8, 1));
    assert!(bench.world.borrow().at_medium.is_empty());
    let told = information(&mut bench, &mut peer, 2);
    assert_eq!((told[5], told[12], told[23]), (0x02, CHECK_CONDITION, 0), "nothing was transferred");
}

#[test]
fn a_token_is_not_made_before_the_writes_at_its_blocks_are_through() {
    let (mut bench, mut peer) = two_units();
    write(&mut bench, &mut peer, 1, 8);
    populate(&mut bench, &mut peer, 2, &[(0, 4), (8, 4)]);
    assert_eq!(bench.heard(&peer), []);
    bench.land();
    let heard = bench.heard(&peer);
    assert!(heard.contains(&Heard::Status(2, GOOD)), "{heard:?}");
    let token = token(&mut bench, &mut peer, 2);
    write_using(&mut bench, &mut peer, 1, 3, &token, &[(0, 8)]);
    bench.land_all();
    assert_eq!(ended(&mut bench, &peer).0, GOOD);
}

#[test]
fn tokens_that_are_forged_or_nobodys_are_told_apart() {
    let (mut bench, mut peer, token) = with_token(&[(8, 8)]);
    let mut refused = |at: usize| {
        let mut other = token.clone();
        other[at] ^= 0x40;
        write_using(&mut bench, &mut peer, 1, 2, &other, &[(0, 8)]);
        ended(&mut bench, &peer)
    };
    assert_eq!(refused(63), (CHECK_CONDITION, [0x23, 0x05]), "bytes represented");
    assert_eq!(refused(511), (CHECK_CONDITION, [0x23, 0x05]), "the code");
    assert_eq!(refused(416), (CHECK_CONDITION, [0x23, 0x04]), "of another process");
    assert_eq!(refused(9), (CHECK_CONDITION, [0x23, 0x04]), "of a shard that there is not");
    assert_eq!(refused(24), (CHECK_CONDITION, [0x23, 0x02]), "of a unit that nobody sees");
    assert_eq!(refused(3), (CHECK_CONDITION, [0x23, 0x01]), "of another type");
    let mut stranger = bench.log_in(&[(0, 2)], IMMEDIATE);
    write_using(&mut bench, &mut stranger, 0, 1, &token, &[(0, 8)]);
    assert_eq!(ended(&mut bench, &stranger), (CHECK_CONDITION, [0x23, 0x02]));
    write_using(&mut bench, &mut peer, 1, 3, &token, &[(0, 9)]);
    assert_eq!(ended(&mut bench, &peer), (CHECK_CONDITION, [0x26, 0x00]), "more than it stands for");
}

#[test]
fn a_token_ends_by_itself_with_the_medium_and_by_order() {
    let (mut bench, mut peer, token) = with_token(&[(8, 8)]);
    let now = bench.world.borrow().now + Duration::from_secs(31);
    bench.world.borrow_mut().now = now;
    write_using(&mut bench, &mut peer, 1, 2, &token, &[(0, 8)]);
    assert_eq!(ended(&mut bench, &peer), (CHECK_CONDITION, [0x23, 0x07]));

    let (mut bench, mut peer, token) = with_token(&[(8, 8)]);
    bench.resize(1, 3, BLOCKS / 2);
    let _ = bench.heard(&peer);
    write_using(&mut bench, &mut peer, 1, 2, &token, &[(0, 8)]);
    assert_eq!(ended(&mut bench, &peer), (CHECK_CONDITION, [0x23, 0x06]));

    let (mut bench, mut peer, token) = with_token(&[(8, 8)]);
    let mut list = vec![0; 536];
    list[2] = 0x02; // DEL_TKN
    list[16..528].copy_from_slice(&token);
    send(&mut bench, &mut peer, 1, 2, list, &[(0, 8)]);
    bench.land_all();
    assert_eq!(ended(&mut bench, &peer).0, GOOD);
    write_using(&mut bench, &mut peer, 1, 3, &token, &[(0, 8)]);
    assert_eq!(ended(&mut bench, &peer), (CHECK_CONDITION, [0x23, 0x09]));
}

#[test]
fn the_token_of_zeroes_clears_blocks_or_writes_them() {
    let mut zero = [0; 512];
    zero[..8].copy_from_slice(&[0xff, 0xff, 0, 1, 0, 0, 0x01, 0xf8]);
    let (mut bench, mut peer) = two_units();
    write_using(&mut bench, &mut peer, 0, 1, &zero, &[(8, 8), (32, 4)]);
    assert!(matches!(bench.land(), What::Clear { offset_bytes: 4096, length_bytes: 4096, .. }));
    bench.world.borrow_mut().refuse_to_clear();
    bench.settle();
    assert_eq!(bench.land(), write_of(32, 4));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert!(bench.world.borrow().written[0].1.iter().all(|byte| *byte == 0));
    bench.install(1, 3, WriteCache::WriteThrough);
    bench.land_all();
    write_using(&mut bench, &mut peer, 0, 2, &zero, &[(8, 8)]);
    assert!(matches!(bench.land(), What::Clear { .. }));
    assert_eq!(bench.heard(&peer), [], "it is made stable first");
    assert_eq!(bench.land(), What::Sync);
    assert_eq!(bench.heard(&peer), [Heard::Status(2, GOOD)]);
}

// --- Two shards ------------------------------------------------------------------------------------------------------

fn say(bench: &mut Bench, word: Word) {
    bench.mail(ToShard::Peer(PeerLetter { from: OTHER, unit: UnitId(1), word }));
}

fn told(bench: &Bench) -> Vec<Word> {
    std::mem::take(&mut bench.world.borrow_mut().told).into_iter().map(|(_, letter)| letter.word).collect()
}

#[test]
fn the_home_of_a_token_is_asked_what_it_stands_for_and_about_each_piece() {
    let mut bench = Bench::one_of(2);
    bench.open(1, 8);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    let mut bytes: TokenBytes = portico_scsi::token::compose(&disk(), 1 << 48 | 9, 4096);
    bytes[511] = 1;
    write_using(&mut bench, &mut peer, 0, 1, &bytes, &[(0, 8)]);
    let [Word::Token(TokenWord::Redeem { question, token })] = &told(&bench)[..] else {
        panic!("it is asked")
    };
    assert_eq!(**token, bytes);
    let answer = Ok(vec![Range { lba: Lba(64), blocks: 8 }]);
    say(&mut bench, Word::Token(TokenWord::Redeemed { question: *question, answer }));
    assert_eq!(told(&bench), [Word::Join]);
    say(&mut bench, Word::Welcome { is_member: true, clock: 0, claims: Vec::new() });
    assert_eq!(bench.land(), read_of(64, 8));
    let name = TokenName { home: OTHER, serial: 9 };
    assert_eq!(told(&bench), [Word::Token(TokenWord::Vouch { question: *question, name })]);
    assert!(bench.world.borrow().at_medium.is_empty(), "it is not written before the home has vouched");
    say(&mut bench, Word::Token(TokenWord::Vouched { question: *question, answer: Ok(()) }));
    assert_eq!(bench.land(), write_of(0, 8));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    write_using(&mut bench, &mut peer, 0, 2, &bytes, &[(0, 8)]);
    let [Word::Token(TokenWord::Redeem { question, .. })] = &told(&bench)[..] else { panic!("it is asked") };
    let answer = Err(AdditionalSense::TOKEN_CORRUPT);
    say(&mut bench, Word::Token(TokenWord::Redeemed { question: *question, answer }));
    assert_eq!(ended(&mut bench, &peer), (CHECK_CONDITION, [0x23, 0x05]));
}

#[test]
fn a_shard_that_changes_blocks_of_anothers_token_waits_for_its_word() {
    let mut bench = Bench::one_of(2);
    bench.open(1, 8);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    let name = TokenName { home: OTHER, serial: 9 };
    let watch = Word::Token(TokenWord::Watch { name, lba: 8, blocks: 8 });
    write(&mut bench, &mut peer, 1, 8);
    say(&mut bench, watch);
    say(&mut bench, Word::Welcome { is_member: true, clock: 0, claims: Vec::new() });
    assert_eq!(told(&bench), [Word::Join, Word::Token(TokenWord::Touch(name))]);
    bench.read_at(&mut peer, 2, 8, 512);
    assert_eq!(bench.land(), read_of(8, 1), "who only reads does not wait");
    assert!(bench.world.borrow().at_medium.is_empty());
    say(&mut bench, Word::Token(TokenWord::Forget(name)));
    assert_eq!(bench.land(), write_of(8, 1));
}

/// Two shards with one disk: a token of its first eight blocks is made, and used, while both write there. Whether it was good.
fn life(seed: u64) -> bool {
    let mut random = Random(seed);
    let disk = Rc::new(RefCell::new(vec![0; 32 * 512]));
    let mut shards = [0, 1].map(|number| Bench::number(number, 2));
    for shard in &mut shards {
        shard.open(1, 8);
        shard.world.borrow_mut().disk = Some(Rc::clone(&disk));
    }
    let mut peers = [0, 1].map(|at: usize| {
        let offloads = shards[at].log_in(&[(0, 1)], IMMEDIATE);
        let writes = shards[at].log_in(&[(0, 1)], IMMEDIATE);
        [offloads, writes]
    });
    let (maker, user) = (random.index(2), random.index(2));
    let mut air = [VecDeque::new(), VecDeque::new()];
    let mut made: Option<(Vec<u8>, Vec<u8>)> = None;
    populate(&mut shards[maker], &mut peers[maker][0], 1, &[(0, 3), (4, 4)]);
    let blocks = |disk: &[u8]| [&disk[..3 * 512], &disk[4 * 512..8 * 512]].concat();
    for time in 1..3000u32 {
        for (at, shard) in shards.iter().enumerate() {
            let letters = std::mem::take(&mut shard.world.borrow_mut().told);
            air[at].extend(letters.into_iter().map(|(_, letter)| letter));
        }
        let at = random.index(2);
        let writes = if made.is_some() { 1 } else { 4 };
        match random.index(40) {
            rare if rare < writes && time < 400 => {
                let (lba, byte) = (random.index(9) as u64, time.to_le_bytes()[0]);
                let cdb = transfer(0x8a, lba, 512);
                shards[at].command(&mut peers[at][1], 0, time + 10, cdb, 512, &[byte; 512]);
            }
            4..=21 => {
                if let Some(letter) = air[at].pop_front() {
                    shards[1 - at].mail(ToShard::Peer(letter));
                }
            }
            _ => {
                if !shards[at].world.borrow().at_medium.is_empty() {
                    shards[at].land();
                }
            }
        }
        let whom = if made.is_some() { user } else { maker };
        let heard = shards[whom].heard(&peers[whom][0]);
        let Some(Heard::Status(_, status)) = heard.first() else { continue };
        match &made {
            Some((was, _)) if *status == GOOD => {
                assert!(disk.borrow()[16 * 512..23 * 512] == was[..], "seed {seed}: it is something else");
                return true;
            }
            Some(_) => return false,
            None => {
                assert_eq!(*status, GOOD);
                let was = blocks(&disk.borrow());
                let token = token(&mut shards[maker], &mut peers[maker][0], 1);
                write_using(&mut shards[user], &mut peers[user][0], 0, 2, &token, &[(16, 7)]);
                made = Some((was, token));
            }
        }
    }
    panic!("seed {seed}: nobody is answered");
}

#[test]
fn what_a_token_gives_is_what_its_blocks_had_when_it_was_made_or_nothing() {
    let good = (0..LIVES).filter(|seed| life(*seed)).count();
    let lives = usize::try_from(LIVES).expect("few");
    assert!(good > lives / 10 && good < lives - lives / 10, "{good} tokens of {lives} were good");
}

const LIVES: u64 = 200;

/// A sequence of its own for each seed (splitmix64).
struct Random(u64);

impl Random {
    fn index(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % count as u64).expect("small")
    }
}
