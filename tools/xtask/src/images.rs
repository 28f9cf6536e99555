//! Disk images through QEMU: an image goes to a unit and comes back, equal bit by bit, also after the target was
//! restarted.
//!
//! The image is made here (a partition table, an ext4 with a tree of files, packed as qcow2, which is how images
//! travel), and the unit is full of other bytes before it comes, so that a block which was taken for zero and never
//! written shows.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::lab::qemu::Qemu;
use crate::lab::target::{Kind, Peer, Place, Target};
use crate::lab::{self, Context, Failure, Result, process};
use crate::tree::Tree;

/// `cargo xtask images`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whose target to test
    #[arg(long, value_enum, default_value = "portico")]
    peer: Peer,
    /// Only this kind of unit
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Use Debian 12's qemu-img, unpacked below the build folder, even where the installed one fits
    #[arg(long)]
    unpack: bool,
}

/// How many round trips passed, failed, and were left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

/// The command line's way in; `true` if every image came back as it went.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    super::prepare(&tree, arguments.peer)?;
    let qemu = if arguments.unpack { Qemu::unpack(&tree)? } else { Qemu::find(&tree)? };
    let kinds = arguments.kind.map_or(Kind::ALL.to_vec(), |kind| vec![kind]);
    Ok(run_with(&tree, &qemu, arguments.peer, &kinds, &mut |line| println!("{line}"))?.failed == 0)
}

/// The round trips over these kinds of unit.
pub(crate) fn run(tree: &Tree, peer: Peer, kinds: &[Kind], say: &mut dyn FnMut(&str)) -> Result<Sum> {
    run_with(tree, &Qemu::find(tree)?, peer, kinds, say)
}

fn run_with(tree: &Tree, qemu: &Qemu, peer: Peer, kinds: &[Kind], say: &mut dyn FnMut(&str)) -> Result<Sum> {
    let folder = tempfile::Builder::new().prefix("portico-images-").tempdir()?;
    let images = Images::make(qemu, folder.path())?;
    let mut sum = Sum::default();
    for kind in kinds {
        let name = kind.name();
        if kind.needs_root() && !lab::is_root() {
            say(&format!("SKIPPED {name}: needs root to set up a loop device"));
            sum.skipped += 1 + u32::from(kind.outlives_the_target());
            continue;
        }
        for (part, outcome) in round_trip(tree, qemu, peer, *kind, &images)? {
            match outcome {
                Ok(()) => sum.passed += 1,
                Err(_) => sum.failed += 1,
            }
            say(&match outcome {
                Ok(()) => format!("ok     {name}: {part}"),
                Err(failure) => format!("FAILED {name}: {part}: {failure}"),
            });
        }
    }
    Ok(sum)
}

/// The parts of one kind's trip, each with its outcome.
fn round_trip(
    tree: &Tree,
    qemu: &Qemu,
    peer: Peer,
    kind: Kind,
    images: &Images,
) -> Result<Vec<(&'static str, Result<()>)>> {
    let mut target = Target::start(tree, peer, kind, IMAGE_BYTES, Place::Loopback)?;
    let there = qemu
        .convert(&["-n", "-f", "raw", "-O", "raw"], &images.other, &target.url())
        .and_then(|()| qemu.convert(&["-n", "-f", "qcow2", "-O", "raw"], &images.packed, &target.url()));
    let mut parts = vec![("there and back", there.and_then(|()| images.compare(qemu, &target.url())))];
    if let Some(cluster) = target.cluster() {
        let exported = cluster.export(Target::IMAGE);
        parts.push(("`rbd export` gives the same", exported.and_then(|image| images.compare_bytes(&image))));
    }
    if kind.outlives_the_target() {
        let again = target.stop().and_then(|()| target.resume());
        parts.push(("after a restart", again.and_then(|()| images.compare(qemu, &target.url()))));
    }
    parts.push(("the target ends in order", target.stop()));
    Ok(parts)
}

/// The files of one run.
struct Images {
    /// The disk image, raw.
    plain: PathBuf,
    /// The same as qcow2.
    packed: PathBuf,
    /// As large, without a zero byte.
    other: PathBuf,
    /// Where images come back to.
    back: PathBuf,
}

impl Images {
    fn make(qemu: &Qemu, folder: &Path) -> Result<Images> {
        let file = |name: &str| folder.join(name);
        let images = Images {
            plain: file("plain.img"),
            packed: file("packed.qcow2"),
            other: file("other.img"),
            back: file("back.img"),
        };
        write_noise(&images.other, IMAGE_BYTES)?;
        let tree = file("tree");
        for number in 0..TREE_FILES {
            let path = tree.join(format!("folder-{}/file-{number}", number % 7));
            fs::create_dir_all(path.parent().expect("it has a folder"))?;
            write_noise(&path, (number * number * 199) % 250_000)?;
        }
        File::create(&images.plain)?.set_len(IMAGE_BYTES)?;
        let partitions = "label: gpt\nstart=2048, type=linux\n";
        fs::write(file("partitions"), partitions)?;
        let mut sfdisk = Command::new("sh");
        sfdisk
            .args(["-c", "exec sfdisk --quiet \"$1\" <\"$2\"", "sh"])
            .args([&images.plain, &file("partitions")]);
        process::run(&mut sfdisk, LIMIT)?.expect_success("sfdisk")?;
        let mut mkfs = Command::new("mkfs.ext4");
        let offset = format!("offset={}", 2048 * 512);
        mkfs.args(["-q", "-F", "-E", &offset, "-d"]).args([&tree, &images.plain]).arg("62M");
        process::run(&mut mkfs, LIMIT)?.expect_success("mkfs.ext4")?;
        qemu.convert(&["-f", "raw", "-O", "qcow2"], &images.plain, &images.packed.to_string_lossy())?;
        Ok(images)
    }

    /// Fetches the unit and compares it byte by byte, then lets QEMU compare them itself.
    fn compare(&self, qemu: &Qemu, url: &str) -> Result<()> {
        qemu.convert(&["-f", "raw", "-O", "raw"], Path::new(url), &self.back.to_string_lossy())?;
        self.compare_bytes(&fs::read(&self.back).context(self.back.display())?)?;
        qemu.compare(&self.packed, url)
    }

    /// `Err` unless these are the disk image's bytes.
    fn compare_bytes(&self, came_back: &[u8]) -> Result<()> {
        let went = fs::read(&self.plain).context(self.plain.display())?;
        if came_back.len() != went.len() {
            return Err(Failure::new(format!("{} bytes went, {} came back", went.len(), came_back.len())));
        }
        if let Some(at) = went.iter().zip(came_back).position(|(went, back)| went != back) {
            return Err(Failure::new(format!("the first wrong byte is at {at}")));
        }
        Ok(())
    }
}

/// Writes bytes of which none is zero, and no two blocks are alike: what a wrong place or a lost write would show.
fn write_noise(path: &Path, length_bytes: u64) -> Result<()> {
    let mut file = BufWriter::new(File::create(path).context(path.display())?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length_bytes;
    let mut left = length_bytes;
    while left > 0 {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = (state | 0x0101_0101_0101_0101).to_le_bytes();
        let count = left.min(8);
        file.write_all(&word[..usize::try_from(count).expect("at most 8")])?;
        left -= count;
    }
    file.flush().context(path.display())
}

const IMAGE_BYTES: u64 = 64 << 20;
const TREE_FILES: u64 = 60;
const LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_no_zero_byte_and_no_two_equal_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise");
        write_noise(&path, 4096 * 16 + 3).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 4096 * 16 + 3);
        assert!(!bytes.contains(&0));
        let blocks: std::collections::BTreeSet<&[u8]> = bytes.chunks(512).collect();
        assert_eq!(blocks.len(), bytes.len().div_ceil(512));
    }
}
