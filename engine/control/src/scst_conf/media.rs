//! Which file or block device a path names, without opening it: a link, or another way to the same folder, gives one medium
//! two names.
//!
//! A look takes as long as the file system below it, forever where that hangs (NFS without its server), and who reads a
//! configuration does not wait so long: all looks together have [`PATIENCE`]. What is not known by then is found when the
//! second device is opened, which is refused with the holder's name.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

/// Which medium, whatever its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    /// A file, by the device number of its file system and its inode.
    File { device: u64, inode: u64 },
    /// A block device, by its device number.
    Block { device: u64 },
    /// A file that is yet to be made, by its folder and its name.
    Absent { device: u64, folder_inode: u64, name: String },
}

/// Looks at paths: for each what it names, where that can be known.
pub(super) type Look = fn(Vec<String>) -> Vec<Option<Identity>>;

/// Looks at nothing: a text is read for what it says alone.
pub(super) fn unseen(paths: Vec<String>) -> Vec<Option<Identity>> {
    vec![None; paths.len()]
}

/// Looks at this machine.
pub(super) fn seen(paths: Vec<String>) -> Vec<Option<Identity>> {
    seen_within(PATIENCE, paths, identity)
}

/// How long all looks of one configuration take at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks one path after the other, on a thread that is left to itself where it takes too long.
fn seen_within(
    patience: Duration,
    paths: Vec<String>,
    look: impl Fn(&Path) -> Option<Identity> + Send + 'static,
) -> Vec<Option<Identity>> {
    let until = Instant::now() + patience;
    let mut found = vec![None; paths.len()];
    let (sender, receiver) = sync_channel(paths.len());
    let looks = move || {
        for path in paths {
            if sender.send(look(Path::new(&path))).is_err() {
                return;
            }
        }
    };
    if thread::Builder::new().name("looks".into()).spawn(looks).is_ok() {
        for place in &mut found {
            match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(identity) => *place = identity,
                Err(_) => break,
            }
        }
    }
    found
}

fn identity(path: &Path) -> Option<Identity> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_block_device() => {
            Some(Identity::Block { device: metadata.rdev() })
        }
        Ok(metadata) => Some(Identity::File { device: metadata.dev(), inode: metadata.ino() }),
        // A link that leads nowhere names what its end says, which is not looked for.
        Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
            let folder = fs::metadata(path.parent()?).ok()?;
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some(Identity::Absent { device: folder.dev(), folder_inode: folder.ino(), name })
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn a_medium_is_one_whatever_its_name_and_a_file_that_is_not_there_is_one_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "").unwrap();
        fs::write(at("b"), "").unwrap();
        fs::hard_link(at("a"), at("hard")).unwrap();
        symlink(at("a"), at("soft")).unwrap();
        symlink(folder.path(), at("around")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        let [a, b] = ["a", "b"].map(|name| identity(&at(name)).unwrap());
        assert_ne!(a, b);
        for name in ["hard", "soft", "around/a", "./a"] {
            assert_eq!(identity(&at(name)), Some(a.clone()), "{name}");
        }
        let absent = identity(&at("none")).unwrap();
        assert!(matches!(absent, Identity::Absent { .. }));
        assert_eq!(identity(&at("around/none")), Some(absent));
        assert_eq!([identity(&at("dangling")), identity(&at("no/folder"))], [None, None]);
    }

    #[test]
    fn a_look_that_hangs_is_not_waited_for() {
        let server = Arc::new(Barrier::new(2));
        let comes_back = Arc::clone(&server);
        let look = move |_: &Path| {
            comes_back.wait();
            Some(Identity::Block { device: 1 })
        };
        let found = seen_within(Duration::from_millis(1), vec!["/a".to_owned()], look);
        assert_eq!(found, [None]);
        server.wait();
    }
}
