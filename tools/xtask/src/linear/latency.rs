//! How long COMPARE AND WRITE takes, on one shard and on two whose other reads all the while, and while a write that is to be stable
//! hangs on another unit (on a file system that is frozen meanwhile, which root alone can do).

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::compare_and_write;
use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::initiator::{BLOCK_BYTES, Initiator, Io, plan};
use crate::lab::{Failure, Result, is_root, process};
use crate::tree::Tree;

/// Measures all of it, and prints a table.
pub(crate) fn run(tree: &Tree, say: &mut dyn FnMut(&str)) -> Result<()> {
    say("| shards | medium | beside | COMPARE AND WRITEs | median µs | 99 % µs | longest µs |");
    say("|---|---|---|---|---|---|---|");
    for cores in ["0", "0,1"] {
        let mut gateway = Gateway::prepare(tree)?;
        let frozen = is_root().then(|| Frozen::mount(gateway.folder())).transpose()?;
        let place = frozen.as_ref().map_or(gateway.folder(), |frozen| &frozen.folder).join("hanging.img");
        let file = |name, path: &Path| Device {
            handler: "vdisk_fileio",
            name,
            attributes: vec![format!("filename {}", path.display()), format!("size {}", 1 << 20)],
        };
        let memory =
            Device { handler: "vdisk_ram", name: "memory", attributes: vec![format!("size {}", 1 << 20)] };
        let devices = [file("file", &gateway.folder().join("medium.img")), memory, file("hanging", &place)];
        gateway.configure(&gateway::configuration(&devices))?;
        gateway.argue(&["--cores", cores]);
        gateway.start()?;
        for beside in ["READs of another session", "READs, and a write that hangs"] {
            let hangs = beside.contains("hangs");
            let Some(frozen) = frozen.as_ref().filter(|_| hangs).map(Some).or((!hangs).then_some(None))
            else {
                continue;
            };
            for (lun, medium) in [(0, "file"), (1, "memory")] {
                let times = measure(&gateway, lun, frozen)?;
                let at = |share: usize| times[(times.len() - 1) * share / 100] as f64 / 1e3;
                say(&format!(
                    "| {} | {medium} | {beside} | {} | {:.0} | {:.0} | {:.0} |",
                    cores.split(',').count(),
                    times.len(),
                    at(50),
                    at(99),
                    at(100)
                ));
            }
        }
        gateway.check()?;
        gateway.stop()?;
    }
    Ok(())
}

/// The times of COMPARE AND WRITEs that succeed, in nanoseconds, ascending.
fn measure(gateway: &Gateway, lun: u8, frozen: Option<&Frozen>) -> Result<Vec<u64>> {
    let session = |number| {
        let mut initiator = Initiator::log_in(gateway.portal(), plan(IQN, number))?;
        for lun in [0, 1, HANGING] {
            initiator.clear_attentions(lun)?;
        }
        Ok::<_, Failure>(initiator)
    };
    let (mut writer, mut reader, mut hanging) = (session(1)?, session(2)?, session(3)?);
    let ends = AtomicBool::new(false);
    let frozen = frozen.map(Frozen::freeze).transpose()?;
    thread::scope(|scope| {
        let reads = scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                reader.run(&mut [Io::read(lun, 100, BLOCK_BYTES)])?;
            }
            Ok::<(), Failure>(())
        });
        let writes = frozen.is_some().then(|| {
            scope.spawn(|| {
                let mut io = [Io::write(HANGING, 0, vec![1; BLOCK_BYTES])];
                io[0].cdb[1] = FUA;
                hanging.run(&mut io)?;
                io[0].expect_good()
            })
        });
        if frozen.is_some() {
            thread::sleep(HANG_PAUSE);
        }
        let times = compare_and_writes(&mut writer, lun);
        let hung = writes.as_ref().is_none_or(|writes| !writes.is_finished());
        ends.store(true, Ordering::Relaxed);
        drop(frozen);
        reads.join().expect("the reader's thread")?;
        writes.map_or(Ok(()), |writes| writes.join().expect("the writer's thread"))?;
        assert!(hung, "the write did not hang");
        times
    })
}

fn compare_and_writes(writer: &mut Initiator, lun: u8) -> Result<Vec<u64>> {
    let mut first = [Io::write(lun, 0, vec![0; BLOCK_BYTES])];
    writer.run(&mut first)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS as u64 {
        let mut io = [compare_and_write(lun, 0, &[round], &[round + 1])];
        let start = Instant::now();
        writer.run(&mut io)?;
        times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        io[0].expect_good()?;
    }
    times.sort_unstable();
    Ok(times)
}

/// A file system of its own, that can be frozen.
struct Frozen {
    folder: std::path::PathBuf,
}

impl Frozen {
    fn mount(folder: &Path) -> Result<Self> {
        let (image, folder) = (folder.join("frozen.ext4"), folder.join("frozen"));
        std::fs::File::create(&image)?.set_len(64 << 20)?;
        std::fs::create_dir(&folder)?;
        shell(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        shell(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&folder))?;
        Ok(Self { folder })
    }

    fn freeze(&self) -> Result<Freeze<'_>> {
        shell(Command::new("fsfreeze").arg("--freeze").arg(&self.folder))?;
        Ok(Freeze(self))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Lazily: the gateway may still have its file open.
        let _ = shell(Command::new("umount").arg("--lazy").arg(&self.folder));
    }
}

/// It is frozen until this is dropped.
struct Freeze<'a>(&'a Frozen);

impl Drop for Freeze<'_> {
    fn drop(&mut self) {
        let _ = shell(Command::new("fsfreeze").arg("--unfreeze").arg(&self.0.folder));
    }
}

fn shell(command: &mut Command) -> Result<()> {
    process::run(command, Duration::from_secs(30))?.expect_success("a tool of the file system").map(drop)
}

const ROUNDS: usize = 3000;
const HANGING: u8 = 2;
const FUA: u8 = 0x08;
/// The write that is to hang is at its medium by then; the measurement says whether it was.
const HANG_PAUSE: Duration = Duration::from_millis(200);
