//! The project's own tasks, called as `cargo xtask …` (the alias stands in `.cargo/config.toml`).
//!
//! `tidy` keeps the rules of the house that a machine can check; `ci` is the one command that runs everything;
//! the others are single harnesses of `ci`, to be run by hand while one works on what they test. Nothing in here
//! is part of the product, and nothing in here imports it: the gateway is met as its users meet it, as a process
//! behind a portal.

mod access;
mod allocations;
mod bad_input;
mod bench;
mod capture;
mod ceph;
mod ci;
mod cluster;
mod conformance;
mod durability;
mod fuzz;
mod guest;
mod images;
mod instructions;
mod lab;
mod linear;
mod linux;
mod peers;
mod power;
mod record;
mod reload;
mod sessions;
mod tidy;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the rules of the house; prints file:line of every breach
    Tidy,
    /// Run everything: packages, style, tests, peers, conformance, guest
    Ci(ci::Arguments),
    /// Let libiscsi's tools and QEMU do what the start tells one to type, and hold its figures against it
    Peers(peers::Arguments),
    /// Send disk images through QEMU to a unit and back
    Images(images::Arguments),
    /// Let the Linux initiator, in a guest, use a unit across a restart of the target
    Guest(guest::Arguments),
    /// Let two nodes of a cluster, in a guest, fence each other, give space back and follow paths
    Cluster(cluster::Arguments),
    /// Let the Linux initiator, in a guest, prove itself, lose its connection, see a disk grow
    Linux(linux::Arguments),
    /// Cut the power under a gateway that runs in a guest; what was answered durably is there
    Power(power::Arguments),
    /// Let initiators in with CHAP, keep others out, send some elsewhere
    Access(access::Arguments),
    /// Let broken and hostile peers at the gateway
    BadInput(bad_input::Arguments),
    /// Feed the wire, text, logins, sessions and the device server, and go by what happens
    Fuzz(fuzz::Arguments),
    /// Count what the data path allocates and copies
    Allocations(allocations::Arguments),
    /// Let tshark read what initiators and the gateway say
    Capture(capture::Arguments),
    /// Many sessions on one unit, over both shards, with verification
    Sessions(sessions::Arguments),
    /// Histories of atomic commands from both shards, judged for whether they could have happened one at a time
    Linear(linear::Arguments),
    /// End the gateway under write load, gently and not; what was answered is there
    Durability(durability::Arguments),
    /// RBD images of a real Ceph cluster, and the ways in which it fails
    Ceph(ceph::Arguments),
    /// Change the configuration while initiators are at work
    Reload(reload::Arguments),
    /// Measure the gateway beside tgt and the comparison servers, and keep a record
    Bench(bench::Arguments),
    /// Measure what sessions have left beside idle ones, streams and bad peers, and keep a record
    BenchBeside(bench::beside::Arguments),
    /// Measure RBD images through the gateway, through tgt and by fio, on one cluster, and keep a record
    CephBench(bench::ceph::Arguments),
    /// Count a command's instructions in a shard under callgrind
    Instructions(instructions::Arguments),
    /// Run the 230 tests of iscsi-test-cu, each in a process of its own
    Conformance(conformance::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    lab::halt::listen();
    let outcome = match arguments.task {
        Task::Tidy => tidy::command(),
        Task::Ci(arguments) => ci::command(&arguments),
        Task::Peers(arguments) => peers::command(&arguments),
        Task::Images(arguments) => images::command(&arguments),
        Task::Guest(arguments) => guest::command(&arguments),
        Task::Cluster(arguments) => cluster::command(&arguments),
        Task::Linux(arguments) => linux::command(&arguments),
        Task::Power(arguments) => power::command(&arguments),
        Task::Access(arguments) => access::command(&arguments),
        Task::BadInput(arguments) => bad_input::command(&arguments),
        Task::Fuzz(arguments) => fuzz::command(&arguments),
        Task::Allocations(arguments) => allocations::command(&arguments),
        Task::Capture(arguments) => capture::command(&arguments),
        Task::Sessions(arguments) => sessions::command(&arguments),
        Task::Linear(arguments) => linear::command(&arguments),
        Task::Durability(arguments) => durability::command(&arguments),
        Task::Ceph(arguments) => ceph::command(&arguments),
        Task::Reload(arguments) => reload::command(&arguments),
        Task::Bench(arguments) => bench::command(&arguments),
        Task::BenchBeside(arguments) => bench::beside::command(&arguments),
        Task::CephBench(arguments) => bench::ceph::command(&arguments),
        Task::Instructions(arguments) => instructions::command(&arguments),
        Task::Conformance(arguments) => conformance::command(&arguments),
    };
    lab::process::end_stragglers();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// What a harness that is called by itself needs first: a peer that can run here, and a gateway that is up to date.
fn prepare(tree: &tree::Tree, peer: lab::target::Peer) -> lab::Result<()> {
    match (peer.obstacle(), peer) {
        (Some(obstacle), _) => Err(lab::Failure::new(obstacle)),
        (None, lab::target::Peer::Portico) => ci::build_release(tree),
        (None, lab::target::Peer::Tgt) => Ok(()),
    }
}
