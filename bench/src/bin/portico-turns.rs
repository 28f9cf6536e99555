//! `portico-turns`: so many reads or writes through a shard without a kernel, for callgrind to count their instructions.
//!
//! `cargo xtask instructions` runs it under valgrind, which counts inside of `World::turn` alone; `bench/instructions.tsv`
//! has the counts that were agreed on.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use portico_bench::world::{Kind, World};

/// Puts reads or writes of 4 KiB through a shard in a world without a kernel.
#[derive(Debug, Parser)]
struct Cli {
    /// What
    #[arg(value_enum)]
    what: What,
    /// How often
    #[arg(long, default_value_t = 64)]
    count: u32,
    /// Before that, so that everything is warm
    #[arg(long, default_value_t = 256)]
    warm_up: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// A read of a null unit
    ReadNull,
    /// A read of a RAM disk
    ReadRam,
    /// 64 reads of a null unit that come at once
    Read64Null,
    /// 64 reads of a RAM disk that come at once
    Read64Ram,
    /// A write to a RAM disk
    WriteRam,
    /// 64 writes to a RAM disk that come at once
    Write64Ram,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let kind = if matches!(cli.what, What::ReadNull | What::Read64Null) { Kind::Null } else { Kind::Ram };
    let mut world = World::new(kind);
    for _ in 0..cli.warm_up + cli.count {
        let (count, is_write) = match cli.what {
            What::ReadNull | What::ReadRam => (1, false),
            What::Read64Null | What::Read64Ram => (64, false),
            What::WriteRam => (1, true),
            What::Write64Ram => (64, true),
        };
        if is_write {
            world.write(count)
        } else {
            world.read(count)
        }
        if !world.was_answered(usize::try_from(count).expect("32 bits"), is_write) {
            eprintln!("portico-turns: a command was not answered with GOOD");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
