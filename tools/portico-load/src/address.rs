//! Which logical unit of which target: `iscsi://HOST:PORT/IQN/LUN`, as libiscsi and QEMU write it.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use portico_iscsi::wire::LunField;
use portico_scsi::lun::{AddressMethod, Lun};

/// The port of iSCSI (RFC 7143 §13.8).
const PORT: u16 = 3260;

/// A logical unit, as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an address; an IPv6 address without its brackets.
    host: String,
    port: u16,
    /// The target's name.
    pub(crate) target: String,
    /// The number of the logical unit.
    lun: u16,
}

impl Address {
    /// The portal's address. Asks the resolver, which may take its time.
    ///
    /// # Errors
    /// If the host has no address.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, String> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let mut addresses = addresses.map_err(|error| format!("{}: {error}", self.host))?;
        addresses.next().ok_or_else(|| format!("{} has no address", self.host))
    }

    /// Whether both name one logical unit, by whatever portal.
    pub(crate) fn is_same_unit(&self, other: &Self) -> bool {
        (&self.target, self.lun) == (&other.target, other.lun)
    }

    /// The LUN field of every command.
    pub(crate) fn lun(&self) -> LunField {
        let lun = Lun::encode(self.lun, AddressMethod::Peripheral).expect("checked when it was read");
        LunField(lun.to_bytes())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("iscsi://").ok_or("it begins with iscsi://")?;
        if rest.contains('@') || rest.contains('%') {
            return Err("a user name in it is not supported".to_owned());
        }
        let mut parts = rest.split('/');
        let (Some(portal), Some(target), Some(lun), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("it is iscsi://HOST:PORT/IQN/LUN".to_owned());
        };
        let (host, port) = portal_of(portal)?;
        if target.is_empty() {
            return Err("the target has no name".to_owned());
        }
        let number =
            lun.parse().ok().filter(|number| Lun::encode(*number, AddressMethod::Peripheral).is_some());
        let lun = number.ok_or_else(|| format!("`{lun}` is no LUN, which is 0 to 16383"))?;
        Ok(Self { host, port, target: target.to_owned(), lun })
    }
}

fn portal_of(text: &str) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("a bracket is not closed")?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => text.split_once(':').map_or((text, Some("")), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some("") => PORT,
        Some(port) => {
            port.parse().map_err(|_| format!("`{port}` is no port; an IPv6 address has brackets"))?
        }
        None => return Err("behind a bracket there is a port".to_owned()),
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    Ok((host.to_owned(), port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, target, lun } = self;
        if host.contains(':') {
            write!(f, "iscsi://[{host}]:{port}/{target}/{lun}")
        } else {
            write!(f, "iscsi://{host}:{port}/{target}/{lun}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_alike() {
        for text in ["iscsi://127.0.0.1:3261/iqn.2026-11.test:t/1", "iscsi://[::1]:3260/iqn.x/16383"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let short: Address = "iscsi://san/iqn.x/0".parse().unwrap();
        assert_eq!(short.to_string(), "iscsi://san:3260/iqn.x/0");
    }

    #[test]
    fn what_is_no_address_says_what_is_missing() {
        for (text, why) in [
            ("http://a/b/0", "iscsi://"),
            ("iscsi://a/b", "HOST:PORT/IQN/LUN"),
            ("iscsi://a/b/0/1", "HOST:PORT/IQN/LUN"),
            ("iscsi://a//0", "no name"),
            ("iscsi://a/b/x", "no LUN"),
            ("iscsi://a/b/16384", "no LUN"),
            ("iscsi://:3260/b/0", "host is missing"),
            ("iscsi://::1/b/0", "brackets"),
            ("iscsi://[::1/b/0", "not closed"),
            ("iscsi://[::1]x/b/0", "there is a port"),
            ("iscsi://a:99999/b/0", "no port"),
            ("iscsi://joe%secret@a/b/0", "not supported"),
        ] {
            let refused = text.parse::<Address>().unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn a_lun_above_255_is_spelt_flat() {
        let lun = |text: &str| text.parse::<Address>().unwrap().lun().0;
        assert_eq!(lun("iscsi://a/b/5"), [0, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lun("iscsi://a/b/256"), [0x41, 0, 0, 0, 0, 0, 0, 0]);
    }
}
