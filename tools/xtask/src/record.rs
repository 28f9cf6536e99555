//! The record of a run in `perf-results`: what was run, on what, and what came of it. Another run of the same day takes its
//! place.

use std::fs;
use std::path::PathBuf;

use crate::bench::report::{processor, said};
use crate::lab::{Context, Result};
use crate::tree::Tree;

/// Writes `perf-results/DATE-NAME/README.md`, with the command line of this process; its folder.
pub(crate) fn write(tree: &Tree, name: &str, title: &str, body: &str) -> Result<PathBuf> {
    let date = said(tree, "date", &["-u", "+%Y-%m-%d"])?;
    let commit = said(tree, "git", &["rev-parse", "--short", "HEAD"])?;
    let is_dirty = !said(tree, "git", &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    let dirty = if is_dirty { ", with changes that are not committed" } else { "" };
    let kernel = said(tree, "uname", &["-srm"])?;
    let compiler = said(tree, "rustc", &["--version"])?;
    let processor = processor()?;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words = words.join(" ");
    let text = format!(
        "# {title}\n\n```\ncargo xtask {words}\n```\n\n| | |\n|---|---|\n| date | {date} |\n\
         | portico | {commit}{dirty} |\n| kernel | {kernel} |\n| processor | {processor}, {cores} of them |\n\
         | compiler | {compiler} |\n| load at the end | {load} |\n\n{body}"
    );
    let folder = tree.root.join(format!("perf-results/{date}-{name}"));
    fs::create_dir_all(&folder).context(folder.display())?;
    let file = folder.join("README.md");
    fs::write(&file, text).context(file.display())?;
    Ok(folder)
}
