//! What images hold, as initiators and as Ceph's own tools see it.

use super::{
    CELL_BYTES, CELL_STRIDE, CELLS, DISK, IMAGE_BYTES, Site, check, content, expect_key, expect_sense, lba,
    lba_of, one, write,
};
use portico_iscsi::initiator::Direction;

use crate::lab::initiator::{BLOCK_BYTES, Io};
use crate::lab::random::Random;
use crate::lab::{Failure, Result};

pub(super) fn writes_and_exports(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    let mut data = vec![0; IMAGE_BYTES];
    Random::new(1).fill(&mut data);
    let piece = 256 << 10;
    let mut ios: Vec<Io> = (0..)
        .zip(data.chunks(piece))
        .map(|(at, chunk)| Io::write(DISK, lba(at * piece), chunk.to_vec()))
        .collect();
    initiator.run(&mut ios)?;
    ios.iter().try_for_each(Io::expect_good)?;
    if site.cluster.export(&site.image)? != data {
        return Err(Failure::new("`rbd export` reads something else than was written"));
    }
    let mut ios: Vec<Io> =
        (0..IMAGE_BYTES / piece).map(|at| Io::read(DISK, lba(at * piece), piece)).collect();
    initiator.run(&mut ios)?;
    for (io, chunk) in ios.iter().zip(data.chunks(piece)) {
        io.expect_good()?;
        if io.data != chunk {
            return Err(Failure::new("READ gives something else than was written"));
        }
    }
    for operation in ["read", "write"] {
        let labels = format!("{{device=\"image\",operation=\"{operation}\",phase=\"in_library\"}}");
        let told = site.gateway.metric(&format!("portico_command_latency_seconds_count{labels}"))?;
        if told < u64::try_from(IMAGE_BYTES / piece).expect("small") {
            return Err(Failure::new(format!(
                "librbd's own time was told of {told} requests to {operation}"
            )));
        }
    }
    Ok(())
}

pub(super) fn serves_a_snapshot(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    write(&mut initiator, 0, 1)?.expect_good()?;
    site.cluster.rbd(&["snap", "create", "--no-progress", &format!("{}@before", site.image)])?;
    write(&mut initiator, 0, 2)?.expect_good()?;
    drop(initiator);
    site.gateway.stop()?;
    site.start(&["snapshot before"])?;
    let mut initiator = site.log_in_to_image(2)?;
    let read = one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    if read.data != content(0, 1) {
        return Err(Failure::new("the snapshot does not show what was there when it was taken"));
    }
    let refused = write(&mut initiator, 0, 3)?;
    expect_sense(&refused, (7, 0x27, 0), "a WRITE to a snapshot")
}

pub(super) fn serves_a_clone(site: &mut Site<'_>) -> Result<()> {
    let parent = format!("{}@base", site.image);
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    for cell in 0..CELLS {
        write(&mut initiator, cell, 1)?.expect_good()?;
    }
    drop(initiator);
    site.gateway.stop()?;
    site.cluster.rbd(&["snap", "create", "--no-progress", &parent])?;
    site.cluster.rbd(&["snap", "protect", &parent])?;
    let before = site.cluster.export(&parent)?;
    site.image.push_str("-clone");
    site.cluster.rbd(&["clone", &parent, &site.image])?;
    site.start(&["thin_provisioned 1"])?;
    let mut initiator = site.log_in_to_image(2)?;
    check(&mut initiator, |_| 1)?;
    // The first WRITE to an object takes the rest of it over from the parent; UNMAP hides what the parent has there.
    write(&mut initiator, 0, 2)?.expect_good()?;
    one(&mut initiator, unmap(lba_of(1), blocks(CELL_STRIDE)))?.expect_good()?;
    let mut expected = before.clone();
    expected[..CELL_BYTES].copy_from_slice(&content(0, 2));
    expected[CELL_STRIDE..2 * CELL_STRIDE].fill(0);
    let shown = one(&mut initiator, Io::read(DISK, 0, 2 * CELL_STRIDE))?;
    shown.expect_good()?;
    if shown.data != expected[..2 * CELL_STRIDE] || site.cluster.export(&site.image)? != expected {
        return Err(Failure::new("the clone does not hold what was written to it"));
    }
    if site.cluster.export(&parent)? == before { Ok(()) } else { Err(Failure::new("the parent has changed")) }
}

pub(super) fn serves_a_namespace(site: &mut Site<'_>) -> Result<()> {
    let inside = format!("rbd/space/{}", site.image);
    site.cluster.rbd(&["namespace", "create", "rbd/space"])?;
    site.cluster.rbd(&["create", "--size", "64M", &inside])?;
    site.start(&["namespace space"])?;
    let mut initiator = site.log_in_to_image(1)?;
    write(&mut initiator, 0, 1)?.expect_good()?;
    if site.cluster.export(&inside)?[..CELL_BYTES] != content(0, 1) {
        return Err(Failure::new("the image in the namespace does not hold what was written"));
    }
    if site.cluster.export(&site.image)?[..CELL_BYTES] == [0; CELL_BYTES] {
        Ok(())
    } else {
        Err(Failure::new("the image outside of the namespace was written to"))
    }
}

pub(super) fn gives_space_back(site: &mut Site<'_>) -> Result<()> {
    site.start(&["thin_provisioned 1"])?;
    let mut initiator = site.log_in_to_image(1)?;
    let mut data = vec![0; 2 * CELL_STRIDE];
    Random::new(2).fill(&mut data);
    for (at, chunk) in (0..).zip(data.chunks(CELL_STRIDE)) {
        one(&mut initiator, Io::write(DISK, lba(at * CELL_STRIDE), chunk.to_vec()))?.expect_good()?;
    }
    let kept = |site: &Site<'_>| site.cluster.rbd(&["diff", &site.image]);
    let (first, second) = ("0 ", format!("{CELL_STRIDE} "));
    let has = |diff: &str, at: &str| diff.lines().any(|line| line.trim_start().starts_with(at));
    let before = kept(site)?;
    if !has(&before, first) || !has(&before, &second) {
        return Err(Failure::new(format!("`rbd diff` does not list the two objects: {before}")));
    }
    one(&mut initiator, unmap(0, blocks(CELL_STRIDE)))?.expect_good()?;
    // Less than a `rbd_discard_granularity_bytes`, and not where one begins: librbd would drop a discard of it.
    let hole = CELL_STRIDE + 12_288..CELL_STRIDE + 16_384;
    one(&mut initiator, unmap(lba(hole.start), blocks(hole.len())))?.expect_good()?;
    let same = CELL_STRIDE + (1 << 20)..CELL_STRIDE + (1 << 20) + 131_072;
    one(&mut initiator, write_same_of_zeroes(lba(same.start), blocks(same.len())))?.expect_good()?;
    data[..CELL_STRIDE].fill(0);
    data[hole].fill(0);
    data[same].fill(0);
    let after = kept(site)?;
    if has(&after, first) || !has(&after, &second) {
        return Err(Failure::new(format!("`rbd diff` still lists what was unmapped: {after}")));
    }
    if site.cluster.export(&site.image)?[..data.len()] != data {
        return Err(Failure::new("`rbd export` reads something else than zeroes there, or elsewhere"));
    }
    // Bits 3:0 of byte 12 of the first descriptor, which begins at byte 8 (SBC-3 §5.4.2): 1 is deallocated, 0 mapped.
    for (at, expected) in [(0, 1), (2 * CELL_STRIDE - 4096, 0)] {
        let status = one(&mut initiator, lba_status(lba(at)))?;
        status.expect_good()?;
        if status.data[20] & 0x0f != expected {
            return Err(Failure::new(format!("GET LBA STATUS of byte {at} gives {:02x?}", status.data)));
        }
    }
    Ok(())
}

pub(super) fn refuses(site: &mut Site<'_>) -> Result<()> {
    let (cluster, image) = (site.cluster, site.image.clone());
    cluster.rbd(&["config", "image", "set", &image, "rbd_cache", "true"])?;
    site.start(&[])?;
    site.hear("has rbd_cache = true")?;
    let mut initiator = site.log_in(1)?;
    // The first answer is the unit attention of the login.
    one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    expect_key(&one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?, 2, "a READ of an image with a cache")?;
    drop(initiator);
    site.gateway.stop()?;
    cluster.rbd(&["config", "image", "remove", &image, "rbd_cache"])?;
    cluster.rbd(&["feature", "enable", &image, "journaling"])?;
    site.start(&[])?;
    site.hear("is journaled, which is not served")?;
    site.gateway.stop()?;
    cluster.rbd(&["feature", "disable", &image, "journaling"])?;
    let passphrase = site.gateway.folder().join("passphrase");
    std::fs::write(&passphrase, "portico")?;
    cluster.rbd(&["encryption", "format", &image, "luks1", &passphrase.to_string_lossy()])?;
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(2)?;
    site.hear("it holds an encrypted volume (LUKS)")?;
    let read = one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    if read.data.starts_with(b"LUKS") {
        Ok(())
    } else {
        Err(Failure::new("READ does not give what lies there"))
    }
}

fn blocks(bytes: usize) -> u32 {
    u32::try_from(bytes / BLOCK_BYTES).expect("a few megabytes")
}

/// UNMAP of one range (SBC-3 §5.28).
pub(super) fn unmap(lba: u64, blocks: u32) -> Io {
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend(lba.to_be_bytes());
    list.extend(blocks.to_be_bytes());
    list.extend([0; 4]);
    let mut cdb = [0; 16];
    (cdb[0], cdb[8]) = (0x42, 24);
    Io { lun: DISK, cdb, direction: Direction::Write, data: list, outcome: None }
}

/// WRITE SAME (16) of a block of zeroes, with UNMAP (SBC-3 §5.45).
fn write_same_of_zeroes(lba: u64, blocks: u32) -> Io {
    let mut io = Io::write(DISK, lba, vec![0; BLOCK_BYTES]);
    (io.cdb[0], io.cdb[1]) = (0x93, 0x08);
    io.cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    io
}

/// GET LBA STATUS, with room for one descriptor (SBC-3 §5.4).
fn lba_status(lba: u64) -> Io {
    let mut io = Io::read(DISK, lba, 0);
    (io.cdb[0], io.cdb[1]) = (0x9e, 0x12);
    io.cdb[10..14].copy_from_slice(&24_u32.to_be_bytes());
    io.data = vec![0; 24];
    io
}
