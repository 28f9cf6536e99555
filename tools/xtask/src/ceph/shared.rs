//! Commands that librbd does in one step at the OSDs, for everybody who has the image: COMPARE AND WRITE, WRITE SAME.

use std::thread;

use super::{DISK, Site, expect_sense, lba, one};
use crate::lab::gateway::{Device, Gateway, configuration};
use crate::lab::initiator::{BLOCK_BYTES, Initiator, Io, sense_of};
use crate::lab::random::Random;
use crate::lab::{Failure, Result, halt};

pub(super) fn repeats(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    let mut expected = vec![0; 4 * OBJECT_BYTES];
    Random::new(11).fill(&mut expected);
    for (at, chunk) in (0..).zip(expected.chunks(PIECE_BYTES)) {
        one(&mut initiator, Io::write(DISK, lba(at * PIECE_BYTES), chunk.to_vec()))?.expect_good()?;
    }
    let mut block = [0; BLOCK_BYTES];
    Random::new(12).fill(&mut block);
    // From within one object, over all of the next, into the third; then within one.
    for range in [OBJECT_BYTES - 3 * BLOCK_BYTES..2 * OBJECT_BYTES + 5 * BLOCK_BYTES, 4096..4096 + 7 * 512] {
        let mut io = Io::write(DISK, lba(range.start), block.to_vec());
        io.cdb[0] = 0x93;
        let blocks = u32::try_from(range.len() / BLOCK_BYTES).expect("a few megabytes");
        io.cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
        one(&mut initiator, io)?.expect_good()?;
        expected[range].chunks_mut(BLOCK_BYTES).for_each(|there| there.copy_from_slice(&block));
    }
    if site.cluster.export(&site.image)?[..expected.len()] == expected {
        Ok(())
    } else {
        Err(Failure::new("`rbd export` does not read the block again and again, or the rest has changed"))
    }
}

pub(super) fn compares(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    // One block, which every version of librbd compares; several within an object, not at its beginning; and over the border
    // of two objects, which none compares. In between one block again.
    let within = OBJECT_BYTES + 40 * BLOCK_BYTES;
    let over = 2 * OBJECT_BYTES - 5 * BLOCK_BYTES;
    for (at, blocks) in [(within, 1), (within, 16), (over, 16), (within, 1)] {
        let (mut before, mut after) = (vec![0; blocks * BLOCK_BYTES], vec![0; blocks * BLOCK_BYTES]);
        Random::new(21).fill(&mut before);
        Random::new(22).fill(&mut after);
        one(&mut initiator, Io::write(DISK, lba(at), before.clone()))?.expect_good()?;
        let wrong_at = before.len() - 77;
        let mut wrong = before.clone();
        wrong[wrong_at] ^= 0x10;
        let refused = one(&mut initiator, compare_and_write(lba(at), &wrong, &after))?;
        expect_sense(&refused, (0x0e, 0x1d, 0), "a COMPARE AND WRITE of something else")?;
        let information = refused.outcome.as_ref().and_then(|(_, sense)| sense.get(3..7));
        if information != Some(&u32::try_from(wrong_at).expect("small").to_be_bytes()[..]) {
            return Err(Failure::new(format!(
                "the difference is told at {information:02x?}, not at {wrong_at}"
            )));
        }
        expect_bytes(&mut initiator, at, &before)?;
        one(&mut initiator, compare_and_write(lba(at), &before, &after))?.expect_good()?;
        expect_bytes(&mut initiator, at, &after)?;
    }
    Ok(())
}

/// Two gateways have the image, and each adds to one number: no addition is lost.
pub(super) fn counts_with_another(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut other = Gateway::prepare(site.tree)?;
    let attributes =
        vec![format!("filename rbd:rbd/{}", site.image), format!("conf {}", site.cluster.conf().display())];
    let memory = vec!["size 16777216".to_owned()];
    other.configure(&configuration(&[
        Device { handler: "vdisk_ram", name: "memory", attributes: memory },
        Device { handler: "vdisk_rbd", name: "image", attributes },
    ]))?;
    other.start()?;
    let mut first = site.log_in_to_image(1)?;
    let mut second = super::log_in(&other, 2)?;
    super::readable(&mut second, DISK)?;
    let refused = thread::scope(|scope| -> Result<u64> {
        let one = scope.spawn(|| add(&mut first));
        let two = add(&mut second);
        let one = one.join().map_err(|_| Failure::new("an initiator panicked"))?;
        Ok(one? + two?)
    })?;
    let total = number(&one(&mut first, Io::read(DISK, 0, BLOCK_BYTES))?);
    if total != 2 * ADDITIONS {
        return Err(Failure::new(format!("{} additions came to {total}", 2 * ADDITIONS)));
    }
    if refused == 0 {
        return Err(Failure::new("neither gateway ever came too late: they did not add at the same time"));
    }
    drop(second);
    other.check()?;
    other.stop()
}

/// Adds one so many times to the number in the first block; how often somebody else was faster.
fn add(initiator: &mut Initiator) -> Result<u64> {
    let mut refused = 0;
    for _ in 0..ADDITIONS {
        loop {
            halt::go_on()?;
            let read = one(initiator, Io::read(DISK, 0, BLOCK_BYTES))?;
            read.expect_good()?;
            let mut next = read.data.clone();
            next[..8].copy_from_slice(&(number(&read) + 1).to_be_bytes());
            let io = one(initiator, compare_and_write(0, &read.data, &next))?;
            match &io.outcome {
                Some((0x02, sense)) if sense_of(sense).0 == 0x0e => refused += 1,
                // The lock is on its way from one gateway to the other.
                Some((0x02, sense)) if sense_of(sense).0 == 0x02 => {}
                _ => {
                    io.expect_good()?;
                    break;
                }
            }
        }
    }
    Ok(refused)
}

fn number(io: &Io) -> u64 {
    u64::from_be_bytes(io.data[..8].try_into().expect("eight bytes"))
}

fn expect_bytes(initiator: &mut Initiator, at: usize, bytes: &[u8]) -> Result<()> {
    let read = one(initiator, Io::read(DISK, lba(at), bytes.len()))?;
    read.expect_good()?;
    if read.data == bytes {
        Ok(())
    } else {
        Err(Failure::new(format!("byte {at} and on hold something else")))
    }
}

/// COMPARE AND WRITE (SBC-3 §5.2).
fn compare_and_write(lba: u64, compared: &[u8], written: &[u8]) -> Io {
    let mut io = Io::write(DISK, lba, [compared, written].concat());
    io.cdb[0] = 0x89;
    io.cdb[10..14].fill(0);
    io.cdb[13] = u8::try_from(compared.len() / BLOCK_BYTES).expect("at most 255");
    io
}

const OBJECT_BYTES: usize = 4 << 20;
const PIECE_BYTES: usize = 256 << 10;
const ADDITIONS: u64 = 100;
