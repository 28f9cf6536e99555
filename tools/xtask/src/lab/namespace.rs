//! A network namespace of our own, with a tap device that a guest plugs into. Needs root.
//!
//! The host's side has the address 10.99.77.1, the guest 10.99.77.2, and no route leads out: nothing that runs in it
//! can meet, or disturb, a service of the machine.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use super::{Result, process};

/// A namespace that is deleted when this is dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// The address of what runs inside the namespace, as the guest sees it.
    pub(crate) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 77, 1));

    /// The device that a guest plugs into.
    pub(crate) const DEVICE: &str = "tap0";

    /// Makes a namespace whose name no other run has.
    pub(crate) fn create() -> Result<Namespace> {
        let namespace = Namespace { name: format!("portico-{}", std::process::id()) };
        ip(&["netns", "add", &namespace.name])?;
        let name = namespace.name.as_str();
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "tuntap", "add", "dev", Namespace::DEVICE, "mode", "tap"])?;
        ip(&["-n", name, "addr", "add", "10.99.77.1/30", "dev", Namespace::DEVICE])?;
        ip(&["-n", name, "link", "set", Namespace::DEVICE, "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Gives the host's side another address, with its prefix.
    pub(crate) fn add_address(&self, address: &str) -> Result<()> {
        ip(&["-n", &self.name, "addr", "add", address, "dev", Namespace::DEVICE]).map(drop)
    }

    /// A command that runs `program` inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not by `process::run`, which refuses once we were told to stop.
        if !Command::new("ip")
            .args(["netns", "del", &self.name])
            .status()
            .is_ok_and(|status| status.success())
        {
            eprintln!("xtask: ip netns del {} failed", self.name);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    let finished = process::run(Command::new("ip").args(arguments), TIMEOUT)?;
    finished.expect_success(&format!("ip {}", arguments.join(" ")))
}

const TIMEOUT: Duration = Duration::from_secs(10);
