//! What administrators do with images that are served: lock, demote and promote, migrate.

use std::thread;

use super::{
    CELL_BYTES, DISK, HANG, Site, content, expect_key, expect_sense, lba_of, log_in, one, readable, until,
    write,
};
use crate::lab::initiator::{Initiator, Io};
use crate::lab::{Failure, Result};

/// Before the gateway's first WRITE: afterwards it has the exclusive lock, and Ceph refuses another.
pub(super) fn waits_for_a_locker(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    let mut reader = site.log_in_to_image(2)?;
    site.cluster.rbd(&["lock", "add", &site.image, LOCK])?;
    let listed = site.cluster.rbd(&["lock", "ls", &site.image])?;
    let locker = listed.split_whitespace().find(|word| word.starts_with("client."));
    let locker = locker.ok_or_else(|| Failure::new(format!("nobody has the lock: {listed}")))?;
    site.beside_others(|| {
        thread::scope(|scope| {
            let writer = scope.spawn(|| write(&mut initiator, 0, 1)?.expect_good());
            let read = one(&mut reader, Io::read(DISK, lba_of(1), CELL_BYTES));
            thread::sleep(HANG);
            let waited = !writer.is_finished();
            let removed = site.cluster.rbd(&["lock", "remove", &site.image, LOCK, locker]);
            writer.join().map_err(|_| Failure::new("the writer panicked"))??;
            removed?;
            read?.expect_good()?;
            if waited { Ok(()) } else { Err(Failure::new("the WRITE ended while the image was locked")) }
        })
    })?;
    holds(&mut reader, 1)
}

/// As a planned move to another site does, and back.
pub(super) fn is_demoted(site: &mut Site<'_>) -> Result<()> {
    let image = site.image.clone();
    let mirror = |words: &[&str]| site.cluster.rbd(&[&["mirror"], words].concat());
    mirror(&["pool", "enable", "rbd", "image"])?;
    mirror(&["image", "enable", &image, "snapshot"])?;
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    write(&mut initiator, 0, 1)?.expect_good()?;
    site.beside_others(|| {
        mirror(&["image", "demote", &image])?;
        site.hear("it was demoted to a mirror's copy")?;
        expect_sense(&write(&mut initiator, 0, 2)?, (2, 4, 1), "a WRITE to an image that was demoted")?;
        let read = one(&mut initiator, Io::read(DISK, lba_of(0), CELL_BYTES))?;
        expect_sense(&read, (2, 4, 1), "a READ of an image that was demoted")?;
        site.hear("promote it, or set read_only 1")?;
        mirror(&["image", "promote", &image])?;
        readable(&mut initiator, DISK)?;
        holds(&mut initiator, 1)?;
        until(|| Ok(write(&mut initiator, 0, 3)?.is_good()), "WRITEs go through again")
    })?;
    drop(initiator);
    site.gateway.stop()?;
    site.cluster.rbd(&["mirror", "image", "demote", &image])?;
    site.start(&["read_only 1"])?;
    let mut initiator = site.log_in_to_image(2)?;
    holds(&mut initiator, 3)?;
    expect_sense(&write(&mut initiator, 0, 4)?, (7, 0x27, 0), "a WRITE to a copy that is served read-only")
}

pub(super) fn is_migrated(site: &mut Site<'_>) -> Result<()> {
    let (image, moved) = (site.image.clone(), format!("{}-moved", site.image));
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    write(&mut initiator, 0, 1)?.expect_good()?;
    let refused = site.cluster.rbd(&["migration", "prepare", &image, &moved]);
    if !refused.as_ref().is_err_and(|failure| failure.to_string().contains("watchers")) {
        return Err(Failure::new(format!("an image that is served was prepared for migration: {refused:?}")));
    }
    write(&mut initiator, 0, 2)?.expect_good()?;
    drop(initiator);
    site.gateway.stop()?;
    site.cluster.rbd(&["migration", "prepare", &image, &moved])?;
    site.image.clone_from(&moved);
    site.start(&[])?;
    site.hear("is being migrated: open it when `rbd migration commit` is through")?;
    let mut early = log_in(&site.gateway, 2)?;
    // The first answer is the unit attention of the login.
    one(&mut early, Io::read(DISK, 0, CELL_BYTES))?;
    let read = one(&mut early, Io::read(DISK, 0, CELL_BYTES))?;
    expect_key(&read, 2, "a READ of an image in migration")?;
    site.cluster.rbd(&["migration", "execute", "--no-progress", &moved])?;
    site.cluster.rbd(&["migration", "commit", "--no-progress", &moved])?;
    readable(&mut early, DISK)?;
    holds(&mut early, 2)?;
    write(&mut early, 0, 3)?.expect_good()
}

/// `Err` unless the first cell holds this version.
fn holds(initiator: &mut Initiator, version: u64) -> Result<()> {
    let io = one(initiator, Io::read(DISK, lba_of(0), CELL_BYTES))?;
    io.expect_good()?;
    if io.data == content(0, version) {
        Ok(())
    } else {
        Err(Failure::new(format!("the first cell does not hold version {version}")))
    }
}

/// The id of a lock.
const LOCK: &str = "maintenance";
