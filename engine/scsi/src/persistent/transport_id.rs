//! TransportIDs of iSCSI initiators (SPC-4 §7.6.4.6).

use crate::bits::be16;
use crate::ledger::NexusName;
use crate::reply::Reply;

/// Whom a TransportID names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportId {
    /// TPID FORMAT 01b: one initiator port, named as [`NexusName`] has it.
    Port(String),
    /// TPID FORMAT 00b: every known port of the initiator of this name.
    Device(String),
}

const ISCSI: u8 = 0x05;
const FORMAT_PORT: u8 = 0x40;
/// What stands between the name and the ISID of an initiator port.
const SEPARATOR: &str = ",i,0x";
const HEADER_BYTES: usize = 4;
/// Least ADDITIONAL LENGTH.
const ADDITIONAL_BYTES_MIN: usize = 20;
/// Longest iSCSI name (RFC 7143 §4.2.7.2).
const NAME_BYTES_MAX: usize = 223;

impl TransportId {
    /// The TransportID at the start of `bytes`, and its length. `None` when it is none of iSCSI's or malformed.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let header = bytes.get(..HEADER_BYTES)?;
        let additional = usize::from(be16(header, 2));
        if header[0] & 0x0f != ISCSI || additional < ADDITIONAL_BYTES_MIN || !additional.is_multiple_of(4) {
            return None;
        }
        let field = bytes.get(HEADER_BYTES..HEADER_BYTES + additional)?;
        let end = field.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(&field[..end]).ok()?.to_ascii_lowercase();
        let named = match header[0] & 0xc0 {
            FORMAT_PORT => Self::Port(initiator_port(&text)?),
            0 if is_name(&text) => Self::Device(text),
            _ => return None,
        };
        Some((named, HEADER_BYTES + additional))
    }

    /// Whether the nexus is of the initiator port or device that is named.
    pub fn names(&self, nexus: &NexusName) -> bool {
        match self {
            Self::Port(port) => nexus.initiator_port() == port,
            Self::Device(device) => {
                nexus.initiator_port().split_once(SEPARATOR).is_some_and(|(name, _)| name == device)
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.contains(',')
}

/// The name of a port as [`NexusName`] has it: the ISID in twelve digits.
fn initiator_port(text: &str) -> Option<String> {
    let (name, isid) = text.split_once(SEPARATOR)?;
    let digits = !isid.is_empty() && isid.len() <= 12 && isid.bytes().all(|digit| digit.is_ascii_hexdigit());
    (is_name(name) && digits).then(|| format!("{name}{SEPARATOR}{isid:0>12}"))
}

/// Bytes of the TransportID of this initiator port.
pub(super) fn length(initiator_port: &str) -> usize {
    let padded = (initiator_port.len() + 1).next_multiple_of(4);
    HEADER_BYTES + padded.max(ADDITIONAL_BYTES_MIN)
}

/// Writes the TransportID of this initiator port.
pub(super) fn write(initiator_port: &str, reply: &mut Reply<'_>) {
    let end = reply.position() + length(initiator_port);
    reply.bytes(&[FORMAT_PORT | ISCSI, 0, 0, 0]);
    let start = reply.position();
    reply.bytes(initiator_port.as_bytes());
    reply.zeros_to(end);
    let additional = u16::try_from(end - start).expect("a port's name is short");
    reply.patch(start - 2, &additional.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: &str = "iqn.2026-11.test:a,i,0x400001370000";

    fn written(port: &str) -> Vec<u8> {
        let mut buffer = [0xee; 512];
        let mut reply = Reply::new(&mut buffer, 512_usize);
        write(port, &mut reply);
        let length = reply.finish();
        buffer[..length].to_vec()
    }

    #[test]
    fn a_port_is_written_as_the_standard_has_it_and_reads_back() {
        let bytes = written(PORT);
        assert_eq!(bytes[..4], [0x45, 0, 0, 36]);
        assert_eq!(bytes[4..4 + PORT.len()], *PORT.as_bytes());
        assert!(bytes[4 + PORT.len()..].iter().all(|byte| *byte == 0) && bytes.len() == length(PORT));
        assert_eq!(TransportId::read(&bytes), Some((TransportId::Port(PORT.to_owned()), 40)));
        assert_eq!(written("a,i,0x1").len(), 24, "a short name is padded");
    }

    #[test]
    fn spelling_does_not_make_another_port() {
        let mut bytes = written("IQN.X,i,0x00AB00000000");
        bytes[4..].fill(0);
        bytes[4..16].copy_from_slice(b"IQN.X,i,0xAB");
        let (read, _) = TransportId::read(&bytes).unwrap();
        assert_eq!(read, TransportId::Port("iqn.x,i,0x0000000000ab".to_owned()));
    }

    #[test]
    fn a_device_names_all_of_its_ports_and_no_others() {
        let mut bytes = vec![0x05, 0, 0, 20];
        bytes.extend(b"iqn.2026-11.test:a\0\0");
        let (read, length) = TransportId::read(&bytes).unwrap();
        assert_eq!(length, 24);
        assert!(read.names(&NexusName::new(PORT, "t")));
        assert!(!read.names(&NexusName::new("iqn.2026-11.test:ab,i,0x1", "t")));
    }

    #[test]
    fn what_is_malformed_or_of_another_transport_is_none() {
        let good = written(PORT);
        for (at, value) in [(0, 0x46), (0, 0x85), (0, 0x05), (3, 16), (3, 38), (3, 40)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(TransportId::read(&bytes), None, "byte {at} = {value:#x}");
        }
        let mut unterminated = good.clone();
        unterminated[4..].fill(b'a');
        assert_eq!(TransportId::read(&unterminated), None);
        for length in 0..good.len() {
            assert_eq!(TransportId::read(&good[..length]), None);
        }
    }
}
