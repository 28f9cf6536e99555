//! What a cluster does to its clients: it hangs, answers too late, shuts them out, is away, is full, and others take or remove
//! what they use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::contents::unmap;
use super::{
    CELL_BYTES, CELLS, DISK, HANG, HANG_LIMIT, Site, check, content, expect_key, expect_sense, lba, lba_of,
    one, readable, until, write,
};
use crate::lab::ceph::Daemon;
use crate::lab::initiator::{BLOCK_BYTES, Initiator, Io, sense_of};
use crate::lab::{Failure, Result};

pub(super) fn rides_out_a_hang(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    site.beside_memory(|| {
        let hanging = site.cluster.suspend(Daemon::Osd)?;
        thread::scope(|scope| {
            let writer = scope.spawn(|| -> Result<()> {
                let mut ios: Vec<Io> =
                    (0..CELLS).map(|cell| Io::write(DISK, lba_of(cell), content(cell, 5))).collect();
                initiator.run(&mut ios)?;
                ios.iter().try_for_each(Io::expect_good)
            });
            thread::sleep(HANG);
            let waited = !writer.is_finished();
            drop(hanging);
            writer.join().map_err(|_| Failure::new("the writer panicked"))??;
            if waited { Ok(()) } else { Err(Failure::new("the WRITEs ended while the OSD hung")) }
        })
    })?;
    check(&mut initiator, |_| 5)
}

/// 16 sessions ask for 192 MiB of an image that hangs. librbd would take it all.
pub(super) fn bounds_what_waits(site: &mut Site<'_>) -> Result<()> {
    site.gateway.argue(&["--shard-memory", "32"]);
    site.start(&[])?;
    let mut initiators =
        (0..SESSIONS).map(|number| site.log_in_to_image(number)).collect::<Result<Vec<_>>>()?;
    let before = site.gateway.status_kib("VmHWM")?;
    site.beside_memory(|| {
        let hanging = site.cluster.suspend(Daemon::Osd)?;
        thread::scope(|scope| {
            let asking: Vec<_> = initiators
                .iter_mut()
                .enumerate()
                .map(|(session, initiator)| scope.spawn(move || ask_for_much(initiator, session)))
                .collect();
            thread::sleep(HANG);
            drop(hanging);
            asking
                .into_iter()
                .try_for_each(|asking| asking.join().map_err(|_| Failure::new("it panicked"))?)
        })
    })?;
    let grown_mib = (site.gateway.status_kib("VmHWM")? - before) >> 10;
    if grown_mib > GROWN_MIB_MAX {
        return Err(Failure::new(format!("the gateway grew by {grown_mib} MiB")));
    }
    let mut initiator = initiators.remove(0);
    for session in (1..usize::from(SESSIONS)).step_by(2) {
        let io = one(&mut initiator, Io::read(DISK, lba(session * AREA_BYTES), AREA_BYTES))?;
        io.expect_good()?;
        if io.data != written(session) {
            return Err(Failure::new(format!("session {session} does not find what it wrote")));
        }
    }
    Ok(())
}

/// READs by every second session, WRITEs by the others, each to an area of its own.
fn ask_for_much(initiator: &mut Initiator, session: usize) -> Result<()> {
    let at = lba(session * AREA_BYTES);
    let mut ios: Vec<Io> = if session.is_multiple_of(2) {
        (0..COMMANDS).map(|_| Io::read(DISK, at, AREA_BYTES)).collect()
    } else {
        (0..COMMANDS).map(|_| Io::write(DISK, at, written(session))).collect()
    };
    initiator.run_patiently(&mut ios, HANG_LIMIT)?;
    ios.iter().try_for_each(Io::expect_good)
}

fn written(session: usize) -> Vec<u8> {
    content(session, 9).repeat(AREA_BYTES / CELL_BYTES)
}

pub(super) fn closes_in_doubt(site: &mut Site<'_>) -> Result<()> {
    site.start(&["option \"rados_osd_op_timeout 2\""])?;
    let mut initiator = site.log_in_to_image(1)?;
    let old = site.cluster.watcher(&site.image)?;
    for cell in 0..CELLS {
        write(&mut initiator, cell, 1)?.expect_good()?;
    }
    site.beside_memory(|| {
        let hanging = site.cluster.suspend(Daemon::Osd)?;
        let late = write(&mut initiator, 0, 2)?;
        expect_sense(&late, (2, 4, 1), "a WRITE whose outcome is unknown")?;
        let closed = one(&mut initiator, Io::read(DISK, lba_of(1), CELL_BYTES))?;
        expect_sense(&closed, (2, 4, 1), "a READ of a closed image")?;
        drop(hanging);
        // The first that goes through is newer than the one whose outcome is unknown.
        until(|| Ok(write(&mut initiator, 0, 3)?.is_good()), "the image is open again")
    })?;
    let shut_out = site.cluster.ceph(&["osd", "blocklist", "ls"])?;
    if !shut_out.contains(&old) {
        return Err(Failure::new(format!("the old client {old} is not on the blocklist: {shut_out}")));
    }
    // Time for the late write to land, if it could.
    thread::sleep(Duration::from_secs(1));
    check(&mut initiator, |cell| if cell == 0 { 3 } else { 1 })
}

pub(super) fn replaces_its_client(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    let old = site.cluster.watcher(&site.image)?;
    let version = site.beside_memory(|| {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| -> Result<(u64, u64)> {
                let (mut version, mut refused) = (0, 0);
                while !over.load(Ordering::Relaxed) {
                    version += 1;
                    for cell in 0..CELLS {
                        until(
                            || {
                                let good = write(&mut initiator, cell, version)?.is_good();
                                refused += u64::from(!good);
                                Ok(good)
                            },
                            "a WRITE goes through",
                        )?;
                    }
                }
                Ok((version, refused))
            });
            thread::sleep(Duration::from_millis(500));
            let listed = site.cluster.ceph(&["osd", "blocklist", "add", &old]);
            let replaced = listed.and_then(|_| {
                until(
                    || Ok(site.cluster.watcher(&site.image).is_ok_and(|new| new != old)),
                    "a new client has the image",
                )
            });
            over.store(true, Ordering::Relaxed);
            let (version, refused) = writer.join().map_err(|_| Failure::new("the writer panicked"))??;
            replaced?;
            if refused == 0 {
                return Err(Failure::new("no WRITE noticed that the client was shut out"));
            }
            Ok(version)
        })
    })?;
    check(&mut initiator, |_| version)
}

pub(super) fn waits_for_the_monitor(site: &mut Site<'_>) -> Result<()> {
    let hanging = site.cluster.suspend(Daemon::Monitor)?;
    site.start(&["option \"client_mount_timeout 2\""])?;
    let mut initiator = site.log_in(1)?;
    let early = one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    if early.is_good() {
        return Err(Failure::new("a READ ended with GOOD although the cluster is away"));
    }
    site.beside_memory(|| {
        thread::sleep(HANG);
        drop(hanging);
        drop(site.log_in_to_image(2)?);
        Ok(())
    })
}

pub(super) fn waits_for_the_image(site: &mut Site<'_>) -> Result<()> {
    site.cluster.rbd(&["remove", "--no-progress", &site.image])?;
    site.start(&[])?;
    let mut initiator = site.log_in(1)?;
    // The first answer is the unit attention of the login.
    one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    let early = one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    expect_key(&early, 2, "a READ of an image that is not there")?;
    site.hear(&format!("rbd/{}: there is none of that name", site.image))?;
    site.cluster.rbd(&["create", "--size", "64M", &site.image])?;
    drop(site.log_in_to_image(2)?);
    Ok(())
}

/// Not only taken, but kept: librbd passes on a lock that it is asked for, unless it was told to keep it.
pub(super) fn is_locked_out(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    for cell in 0..CELLS {
        write(&mut initiator, cell, 1)?.expect_good()?;
    }
    let held =
        |initiator: &mut _| expect_sense(&write(initiator, 0, 2)?, (2, 4, 1), "a WRITE to a locked image");
    site.beside_others(|| {
        let mut holder = site.cluster.hold_lock(&site.image)?;
        // It has shut our client out, and a new one has come.
        readable(&mut initiator, DISK)?;
        held(&mut initiator)?;
        check(&mut initiator, |_| 1)?;
        site.hear("the image is locked by another client")?;
        held(&mut initiator)?;
        holder.terminate(HOLD_LIMIT)?;
        until(|| Ok(write(&mut initiator, 0, 3)?.is_good()), "WRITEs go through again")
    })?;
    site.hear("writes go through again")?;
    check(&mut initiator, |cell| if cell == 0 { 3 } else { 1 })
}

/// A pool of its own with a quota, which the cluster sees to every second or so, not at once.
pub(super) fn fills_the_pool(site: &mut Site<'_>) -> Result<()> {
    site.pool = "small";
    site.cluster.ceph(&["osd", "pool", "create", "small", "1"])?;
    site.cluster.rbd(&["pool", "init", "small"])?;
    site.cluster.rbd(&["create", "--size", "64M", &format!("small/{}", site.image)])?;
    site.start(&["thin_provisioned 1"])?;
    let mut initiator = site.log_in_to_image(1)?;
    site.beside_others(|| {
        write(&mut initiator, 0, 1)?.expect_good()?;
        site.cluster.ceph(&["osd", "pool", "set-quota", "small", "max_objects", "1"])?;
        // Cells are in objects of their own. Any that is refused is so for want of room.
        let mut cell = 1;
        until(
            || {
                let io = write(&mut initiator, cell, 1)?;
                cell += usize::from(io.is_good());
                if cell == CELLS {
                    return Err(Failure::new("the pool is not full after all cells"));
                }
                let is_full = !io.is_good();
                if is_full {
                    expect_sense(&io, (7, 0x27, 7), "a WRITE to a full pool")?;
                }
                thread::sleep(Duration::from_millis(500));
                Ok(is_full)
            },
            "the pool is full",
        )?;
        check_cells(&mut initiator, 0..cell)?;
        // What takes no room is possible: a WRITE to what is there, and UNMAP.
        write(&mut initiator, 0, 1)?.expect_good()?;
        one(&mut initiator, unmap(lba_of(1), 8))?.expect_good()?;
        write(&mut initiator, 1, 1)?.expect_good()?;
        site.cluster.ceph(&["osd", "pool", "set-quota", "small", "max_objects", "0"])?;
        until(|| Ok(write(&mut initiator, cell, 1)?.is_good()), "there is room again")?;
        check_cells(&mut initiator, 0..=cell)
    })
}

fn check_cells(initiator: &mut Initiator, cells: impl Iterator<Item = usize>) -> Result<()> {
    for cell in cells {
        let io = one(initiator, Io::read(DISK, lba_of(cell), CELL_BYTES))?;
        io.expect_good()?;
        if io.data != content(cell, 1) {
            return Err(Failure::new(format!("cell {cell} is not what was written")));
        }
    }
    Ok(())
}

/// It grows, shrinks, and grows under a client that was just shut out, while another session uses its first blocks.
pub(super) fn is_resized(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    let mut user = site.log_in_to_image(2)?;
    let over = AtomicBool::new(false);
    site.beside_others(|| {
        thread::scope(|scope| {
            let load = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    let io = write(&mut user, 0, 1)?;
                    if !io.is_good() {
                        // The new size, and the new client.
                        expect_any(&io, &[(6, 0x2a, 9), (2, 4, 1)], "a WRITE to an image that is resized")?;
                    }
                }
                Ok(())
            });
            let resized = [128, 32, 96].into_iter().try_for_each(|mib: u64| {
                if mib == 96 {
                    let client = site.cluster.watcher(&site.image)?;
                    site.cluster.ceph(&["osd", "blocklist", "add", &client])?;
                }
                let size = format!("{mib}M");
                site.cluster.rbd(&[
                    "resize",
                    "--no-progress",
                    "--allow-shrink",
                    "--size",
                    &size,
                    &site.image,
                ])?;
                has_size(&mut initiator, mib << 20)
            });
            over.store(true, Ordering::Relaxed);
            load.join().map_err(|_| Failure::new("the load panicked"))??;
            resized
        })
    })?;
    let last = one(&mut initiator, Io::read(DISK, (96 << 11) - 16, CELL_BYTES))?;
    last.expect_good()?;
    let beyond = one(&mut initiator, Io::read(DISK, 96 << 11, CELL_BYTES))?;
    expect_sense(&beyond, (5, 0x21, 0), "a READ behind the last block")
}

/// Waits for CAPACITY DATA HAS CHANGED, and reads it.
fn has_size(initiator: &mut Initiator, size_bytes: u64) -> Result<()> {
    until(
        || {
            let io = one(initiator, Io::read(DISK, 0, CELL_BYTES))?;
            Ok(matches!(&io.outcome, Some((2, sense)) if sense_of(sense) == (6, 0x2a, 9)))
        },
        "the session is told of another size",
    )?;
    let capacity = one(initiator, Io::read_capacity(DISK))?;
    capacity.expect_good()?;
    let last = size_bytes / u64::try_from(BLOCK_BYTES).expect("small") - 1;
    if capacity.data[..8] == last.to_be_bytes() {
        Ok(())
    } else {
        Err(Failure::new(format!("{size_bytes} bytes: READ CAPACITY says {:02x?}", capacity.data)))
    }
}

fn expect_any(io: &Io, expected: &[(u8, u8, u8)], what: &str) -> Result<()> {
    match &io.outcome {
        Some((2, sense)) if expected.contains(&sense_of(sense)) => Ok(()),
        outcome => Err(Failure::new(format!("{what} ended with {outcome:02x?}"))),
    }
}

/// An image that somebody has open cannot be removed, so its client is shut out first, while the gateway stands still.
pub(super) fn loses_the_image(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    write(&mut initiator, 0, 1)?.expect_good()?;
    let client = site.cluster.watcher(&site.image)?;
    site.beside_others(|| {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let load = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    let io = write(&mut initiator, 0, 1)?;
                    if !io.is_good() {
                        expect_key(&io, 2, "a WRITE to an image that was removed")?;
                    }
                }
                Ok(())
            });
            site.gateway.stand_still(true)?;
            let removed = site
                .cluster
                .ceph(&["osd", "blocklist", "add", &client])
                .and_then(|_| site.cluster.rbd(&["remove", "--no-progress", &site.image]));
            site.gateway.stand_still(false)?;
            let heard = removed.and_then(|_| site.hear("there is none of that name"));
            over.store(true, Ordering::Relaxed);
            load.join().map_err(|_| Failure::new("the load panicked"))??;
            heard
        })?;
        let gone = one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
        expect_sense(&gone, (2, 4, 0), "a READ of an image that was removed")?;
        site.cluster.rbd(&["create", "--size", "64M", &site.image])?;
        site.hear("another made by its name")?;
        let other = one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
        expect_sense(&other, (2, 4, 0), "a READ of an image that is another one")
    })?;
    // As long as a session has it, it is not taken out.
    site.configure(&[], false)?;
    site.gateway.reload()?;
    site.hear("not done: close device image")?;
    drop(initiator);
    let is_out = || {
        site.gateway.reload()?;
        Ok(site.gateway.log().contains("device image is closed"))
    };
    until(is_out, "the device is taken out")?;
    site.configure(&[], true)?;
    site.gateway.reload()?;
    let mut initiator = site.log_in_to_image(2)?;
    let read = one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    if read.data == vec![0; CELL_BYTES] { Ok(()) } else { Err(Failure::new("the new image is not empty")) }
}

const SESSIONS: u16 = 16;
const COMMANDS: usize = 64;
const AREA_BYTES: usize = 192 << 10;
/// The arenas of two shards, and what librbd has of as many requests as it is given.
const GROWN_MIB_MAX: u64 = 112;

/// How long a holder of a lock may take to give it up.
const HOLD_LIMIT: Duration = Duration::from_secs(10);
