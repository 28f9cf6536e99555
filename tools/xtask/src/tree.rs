//! The work tree: where it begins, which files belong to it, where its build output goes.
//!
//! It never looks outside the workspace that `cargo xtask` was started in.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::{Context, Failure, Result};

/// The workspace's folders, absolute.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// The folder of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// Where cargo builds; everything that a task keeps between runs lies below it.
    pub(crate) target: PathBuf,
}

impl Tree {
    /// Finds the workspace that holds the current folder or, under `cargo xtask`, the package itself.
    pub(crate) fn find() -> Result<Tree> {
        let start = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => env::current_dir()?,
        };
        let root = start
            .ancestors()
            .find(|folder| is_workspace(folder))
            .ok_or_else(|| Failure::new("no Cargo.toml with a [workspace] above the current folder"))?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => env::current_dir()?.join(folder),
            None => root.join("target"),
        };
        Ok(Tree { root, target })
    }

    /// A folder below the build output that outlives the run, for logs and caches.
    pub(crate) fn keep(&self, name: &str) -> Result<PathBuf> {
        let folder = self.target.join("xtask").join(name);
        fs::create_dir_all(&folder).context(folder.display())?;
        Ok(folder)
    }
}

/// The files of the tree, relative to `root`, sorted: what git tracks and what it would track if it were added.
/// Without git (an unpacked archive) every file outside `target` and hidden folders counts.
pub(crate) fn files(root: &Path) -> Result<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let mut names = BTreeSet::new();
    match listed {
        Ok(output) if output.status.success() => {
            for name in output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                names.insert(String::from_utf8_lossy(name).into_owned());
            }
        }
        _ => walk(root, Path::new(""), &mut names)?,
    }
    Ok(names.into_iter().filter(|name| root.join(name).is_file()).collect())
}

fn walk(root: &Path, folder: &Path, names: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = folder.join(&name);
        if !entry.file_type()?.is_dir() {
            names.insert(path.to_string_lossy().into_owned());
        } else if name == ".ci" || name == ".cargo" || !(name.starts_with('.') || name == "target") {
            walk(root, &path, names)?;
        }
    }
    Ok(())
}

fn is_workspace(folder: &Path) -> bool {
    fs::read_to_string(folder.join("Cargo.toml"))
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
}
