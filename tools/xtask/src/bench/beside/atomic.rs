//! How long COMPARE AND WRITE takes: `cargo xtask linear --latency`, in the record.

use super::{Bench, Found};
use crate::lab::Result;
use crate::linear::latency;

pub(super) fn run(bench: &Bench<'_>, found: &mut Found) -> Result<()> {
    let mut table = String::new();
    latency::run(bench.tree, &mut |line| {
        println!("{line}");
        table.push_str(line);
        table.push('\n');
    })?;
    let title = "COMPARE AND WRITE of one block that is equal, one at a time";
    found.told.push((title.to_owned(), table));
    Ok(())
}
