//! What control needs of the process: listening sockets, and somebody who says that everything is ready.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portico_control::core::{Bound, LunSummary, Summary};
use portico_control::runtime::Host;
use portico_model::configuration::Portal;
use portico_ring::socket;

/// The process, as control sees it.
#[derive(Debug)]
pub(crate) struct Process {
    /// Where metrics are served.
    pub metrics: SocketAddr,
    /// Where data is kept.
    pub data_folder: std::path::PathBuf,
    /// How many shards there are.
    pub shards: usize,
    /// Nobody configured anything: a new user may want to be told how to connect.
    pub embedded: bool,
}

impl Host for Process {
    fn bind(&self, portal: Portal) -> Result<Bound, String> {
        let socket = socket::listen(portal.0).map_err(|error| explain(portal.0, &error))?;
        let address = socket::local_address(&socket).map_err(|error| error.to_string())?;
        Ok(Bound { socket, address })
    }

    fn ready(&self, summary: &Summary) {
        // Without a reader at the other end there is nobody to tell.
        let _ = self.tell(summary, &mut io::stdout().lock());
    }
}

impl Process {
    fn tell(&self, summary: &Summary, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "portico {} on {} shards", env!("CARGO_PKG_VERSION"), self.shards)?;
        writeln!(out, "data in {}", self.data_folder.display())?;
        for target in &summary.targets {
            let state = if target.enabled { "" } else { " (disabled)" };
            writeln!(out, "target {}{state}", target.name)?;
            tell_luns(&target.luns, "  ", out)?;
            for (group, luns) in &target.groups {
                writeln!(out, "  group {group}")?;
                tell_luns(luns, "    ", out)?;
            }
        }
        let portal = summary.portals.first().copied();
        if let (true, Some(portal), Some(target)) = (self.embedded, portal, summary.targets.first()) {
            tell_commands(portal, &target.name, out)?;
        }
        let mut line = String::from("ready");
        for portal in &summary.portals {
            line.push_str(&format!(" portal={portal}"));
        }
        writeln!(out, "{line} metrics={}", self.metrics)?;
        out.flush()
    }
}

fn tell_luns(luns: &[LunSummary], indent: &str, out: &mut impl Write) -> io::Result<()> {
    for lun in luns {
        match lun.size_bytes {
            Some(bytes) => writeln!(out, "{indent}LUN {:<3} {:<16} {}", lun.lun, lun.device, size(bytes))?,
            None => writeln!(out, "{indent}LUN {:<3} {:<16} not ready", lun.lun, lun.device)?,
        }
    }
    Ok(())
}

fn tell_commands(portal: SocketAddr, target: &str, out: &mut impl Write) -> io::Result<()> {
    let portal = reachable(portal);
    writeln!(out, "connect with")?;
    writeln!(out, "  Linux     iscsiadm -m discovery -t st -p {portal}")?;
    writeln!(out, "            iscsiadm -m node -T {target} -p {portal} -l")?;
    writeln!(out, "  QEMU      qemu-img info iscsi://{portal}/{target}/0")?;
    writeln!(out, "  libiscsi  iscsi-ls -s iscsi://{portal}")
}

/// Where initiators of this machine connect to a portal: nobody connects to the address that stands for all.
fn reachable(portal: SocketAddr) -> SocketAddr {
    let loopback = match portal.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(loopback, portal.port())
}

/// A size as people say it.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => {
            format!("{}.{} {name} ({bytes} bytes)", bytes / unit, bytes % unit * 10 / unit)
        }
        None => format!("{bytes} bytes"),
    }
}

/// Why nothing can listen there, and what to do about it.
pub(crate) fn explain(address: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "something else listens there: `ss -ltnp sport = :{}` shows what. End it, or choose another with \
             --portal ADDRESS:PORT (port 0 takes a free one)",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => String::new(),
    };
    if remedy.is_empty() { format!("{address}: {error}") } else { format!("{address}: {error}; {remedy}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_as_people_say_them() {
        assert_eq!(size(64 << 30), "64 GiB");
        assert_eq!(size(512), "512 bytes");
        assert_eq!(size((1 << 20) + (1 << 19)), "1.5 MiB (1572864 bytes)");
    }

    #[test]
    fn commands_name_an_address_that_one_can_connect_to() {
        let named =
            ["0.0.0.0:3260", "[::]:1", "10.1.2.3:3260"].map(|portal| reachable(portal.parse().unwrap()));
        assert_eq!(named.map(|portal| portal.to_string()), ["127.0.0.1:3260", "[::1]:1", "10.1.2.3:3260"]);
    }

    #[test]
    fn a_port_that_is_taken_is_explained_with_its_remedy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let metrics = "127.0.0.1:1".parse().unwrap();
        let process = Process { metrics, data_folder: "d".into(), shards: 1, embedded: false };
        let said = process.bind(Portal(address)).unwrap_err();
        assert!(
            said.contains("--portal") && said.contains(&format!("sport = :{}", address.port())),
            "{said}"
        );
    }

    #[test]
    fn the_last_line_is_for_scripts() {
        let metrics = "127.0.0.1:9877".parse().unwrap();
        let process = Process { metrics, data_folder: "/d".into(), shards: 2, embedded: true };
        let lun = LunSummary { lun: 0, device: "disk".into(), size_bytes: Some(1 << 30) };
        let target = portico_control::core::TargetSummary {
            name: "iqn.2026-11.io.portico:default".into(),
            enabled: true,
            luns: vec![lun],
            groups: Vec::new(),
        };
        let summary = Summary { portals: vec!["127.0.0.1:3260".parse().unwrap()], targets: vec![target] };
        let mut out = Vec::new();
        process.tell(&summary, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.lines().last(), Some("ready portal=127.0.0.1:3260 metrics=127.0.0.1:9877"), "{out}");
        assert!(out.contains("LUN 0   disk             1 GiB"), "{out}");
        assert!(
            out.contains("qemu-img info iscsi://127.0.0.1:3260/iqn.2026-11.io.portico:default/0"),
            "{out}"
        );
    }
}
