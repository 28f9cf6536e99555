//! Who may import whom. The table is that of engine/ARCHITECTURE.md; `cargo metadata` says what is.
//!
//! Dependencies of tests and of build scripts count too: what a test of a crate needs from above it belongs above.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Finding, Rule};
use crate::lab::{Context, Failure, Result, process};

/// A package of the workspace and what it imports.
#[derive(Debug)]
struct Package {
    name: String,
    /// Its Cargo.toml, relative to the root.
    manifest: String,
    imports: Vec<String>,
}

/// Findings for every edge of the workspace that the table does not allow.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root);
    // Its JSON goes to standard output; warnings on standard error would spoil it.
    command.arg("--quiet");
    let output = process::run(&mut command, Duration::from_secs(60))?.expect_success("cargo metadata")?;
    let packages = packages(&output, root)?;
    let mut findings = judge(&packages);
    for finding in &mut findings {
        finding.line = line_of(&root.join(&finding.file), &finding.message);
    }
    Ok(findings)
}

fn packages(metadata: &str, root: &Path) -> Result<Vec<Package>> {
    let json = metadata.lines().find(|line| line.starts_with('{')).unwrap_or(metadata);
    let value: Value = serde_json::from_str(json).context("cargo metadata")?;
    let missing = || Failure::new("cargo metadata has no such field");
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(missing);
    let list = |value: &Value| value.as_array().cloned().ok_or_else(missing);
    let mut packages = Vec::new();
    for package in list(&value["packages"])? {
        let manifest = PathBuf::from(text(&package["manifest_path"])?);
        let manifest = manifest.strip_prefix(root).unwrap_or(&manifest).to_string_lossy().into_owned();
        let imports = list(&package["dependencies"])?
            .iter()
            .map(|import| text(&import["name"]))
            .collect::<Result<_>>()?;
        packages.push(Package { name: text(&package["name"])?, manifest, imports });
    }
    Ok(packages)
}

fn judge(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let Some((_, may)) = MAY_IMPORT.iter().find(|(name, _)| *name == package.name) else {
            let message =
                format!("`{}` has no row in the table of tools/xtask/src/tidy/edges.rs", package.name);
            findings.push(Finding::new(&package.manifest, 1, Rule::Edge, message));
            continue;
        };
        for import in &package.imports {
            let ours = packages.iter().any(|other| other.name == *import);
            let forbidden = ours && !may.contains(&import.as_str()) && may != &ANYTHING;
            let reserved = HOLDERS
                .iter()
                .any(|(held, holders)| held == import && !holders.contains(&package.name.as_str()));
            if forbidden || reserved {
                let message = format!("`{import}` may not be imported by `{}`", package.name);
                findings.push(Finding::new(&package.manifest, 1, Rule::Edge, message));
            }
        }
    }
    findings
}

/// The line of the manifest that names the import which `message` quotes first.
fn line_of(manifest: &Path, message: &str) -> usize {
    let name = message.split('`').nth(1).unwrap_or_default();
    let text = fs::read_to_string(manifest).unwrap_or_default();
    let names_it = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '=']));
    text.lines().position(names_it).map_or(1, |index| index + 1)
}

const ANYTHING: &[&str] = &["*"];
const OF_TOOLS: &[&str] =
    &["portico-iscsi", "portico-scsi", "portico-control", "portico-ring", "portico-linear"];

/// Each package of the workspace and those of ours that it may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("portico-iscsi", &[]),
    ("portico-scsi", &[]),
    ("portico-ring", &[]),
    ("portico-linear", &[]),
    ("portico-backstores", &["portico-librbd-sys"]),
    ("portico-librbd-sys", &[]),
    ("portico-model", &["portico-iscsi", "portico-scsi"]),
    ("portico-control", &["portico-model", "portico-iscsi", "portico-scsi"]),
    (
        "portico-shard",
        // portico-linear for its tests.
        &[
            "portico-model",
            "portico-iscsi",
            "portico-scsi",
            "portico-backstores",
            "portico-ring",
            "portico-linear",
        ],
    ),
    ("portico-daemon", ANYTHING),
    (
        "portico-sim",
        &[
            "portico-control",
            "portico-shard",
            "portico-model",
            "portico-iscsi",
            "portico-scsi",
            "portico-backstores",
            "portico-ring",
        ],
    ),
    (
        "portico-fuzz",
        &[
            "portico-shard",
            "portico-model",
            "portico-iscsi",
            "portico-scsi",
            "portico-backstores",
            "portico-ring",
        ],
    ),
    ("portico", OF_TOOLS),
    ("portico-load", OF_TOOLS),
    ("xtask", OF_TOOLS),
    ("portico-bench", ANYTHING),
];

/// What only named packages may take from outside: one crate speaks to the kernel's rings.
const HOLDERS: &[(&str, &[&str])] = &[("io-uring", &["portico-ring", "portico-bench"])];

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, imports: &[&str]) -> Package {
        let imports = imports.iter().map(|import| (*import).to_owned()).collect();
        Package { name: name.to_owned(), manifest: format!("{name}/Cargo.toml"), imports }
    }

    #[test]
    fn a_forbidden_edge_is_found_and_an_allowed_one_passes() {
        let packages = [
            package("portico-scsi", &["portico-iscsi"]),
            package("portico-iscsi", &["crc32c"]),
            package("portico-model", &["portico-scsi"]),
        ];
        let findings = judge(&packages);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].file, "portico-scsi/Cargo.toml");
    }

    #[test]
    fn the_tools_may_not_reach_into_a_shard_and_the_daemon_may() {
        let packages = [
            package("xtask", &["portico-shard"]),
            package("portico-shard", &[]),
            package("portico-daemon", &["portico-shard"]),
        ];
        let findings = judge(&packages);
        assert_eq!(
            findings.iter().map(|finding| finding.file.as_str()).collect::<Vec<_>>(),
            ["xtask/Cargo.toml"]
        );
    }

    #[test]
    fn io_uring_has_one_holder() {
        assert_eq!(judge(&[package("portico-shard", &["io-uring"])]).len(), 1);
        assert!(judge(&[package("portico-ring", &["io-uring"])]).is_empty());
    }

    #[test]
    fn a_package_without_a_row_is_found() {
        assert_eq!(judge(&[package("portico-novelty", &[])]).len(), 1);
    }

    #[test]
    fn the_finding_points_at_the_line_of_the_import() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("Cargo.toml");
        fs::write(&manifest, "[dependencies]\nportico-scsi-x = \"1\"\nportico-scsi.workspace = true\n")
            .unwrap();
        assert_eq!(line_of(&manifest, "`portico-scsi` may not be imported"), 3);
    }

    #[test]
    fn what_cargo_says_of_this_workspace_is_understood() {
        let root = Path::new("root");
        let metadata = r#"{"packages":[{"name":"a","manifest_path":"root/a/Cargo.toml",
            "dependencies":[{"name":"b","kind":null},{"name":"c","kind":"dev"}]}]}"#
            .replace('\n', "");
        let packages = packages(&metadata, root).unwrap();
        assert_eq!(packages[0].manifest, "a/Cargo.toml");
        assert_eq!(packages[0].imports, ["b", "c"]);
    }
}
