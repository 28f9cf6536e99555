//! The few file system calls that keeping a ledger takes, as a seam: the real folder here, one that dies in tests.
//!
//! Each call is one step that a crash can come before or after. Names are plain file names inside one folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// One folder of small files.
pub trait Folder: Sized {
    /// Another folder of the same kind, at an absolute path; made if there is none.
    ///
    /// # Errors
    /// What the system says.
    fn elsewhere(&self, path: &str) -> io::Result<Self>;

    /// The whole content of a file, or its first `bytes_max` + 1 bytes if it is longer.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no such file; otherwise what the system says.
    fn read(&self, name: &str, bytes_max: usize) -> io::Result<Vec<u8>>;

    /// Whether there is a file of that name.
    ///
    /// # Errors
    /// What the system says.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Makes a file with this content, in place of any of that name. Not durable yet.
    ///
    /// # Errors
    /// What the system says; part of the content may be there.
    fn create(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Makes the content of a file durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_file(&self, name: &str) -> io::Result<()>;

    /// Gives a file a second name. Fails if that name is taken.
    ///
    /// # Errors
    /// What the system says; some file systems have no second names.
    fn link(&self, name: &str, second: &str) -> io::Result<()>;

    /// Removes a name; none of that name is fine.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Renames a file over whatever has the new name: afterwards the name stands for the one or the other, never for
    /// nothing.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes the names themselves durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_names(&self) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Debug, Clone)]
pub struct SystemFolder {
    path: PathBuf,
}

impl SystemFolder {
    /// The folder at `path`, made (readable by its owner only) if there is none.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Folder for SystemFolder {
    fn elsewhere(&self, path: &str) -> io::Result<Self> {
        Self::open(path.into())
    }

    fn read(&self, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        let mut content = Vec::new();
        File::open(self.path.join(name))?.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path.join(name).try_exists()
    }

    fn create(&self, name: &str, content: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(self.path.join(name))?.write_all(content)
    }

    fn sync_file(&self, name: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path.join(name))?.sync_all()
    }

    fn link(&self, name: &str, second: &str) -> io::Result<()> {
        fs::hard_link(self.path.join(name), self.path.join(second))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
