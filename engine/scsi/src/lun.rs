//! Logical unit numbers: the eight bytes of SAM-5 §4.7 and the addressing methods in their first level.
//!
//! A [`Lun`] is an address, not an index. What it names is the business of the LUN map of a nexus; two spellings of one
//! number (peripheral 5, flat 5) are two different `Lun`s with one [`Lun::number`].

use std::fmt;

/// Eight bytes that address a logical unit, as they travel (SAM-5 §4.7.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lun([u8; 8]);

/// How a logical unit's number is spelt in REPORT LUNS: scst.conf's `addr_method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AddressMethod {
    /// Peripheral device addressing, for numbers up to 255; larger ones are spelt flat (SAM-5 §4.7.7.2).
    #[default]
    Peripheral,
    /// Flat space addressing (SAM-5 §4.7.7.3).
    Flat,
    /// Method 10b with the number in all 14 bits, as SCST spells `LUN`.
    LogicalUnit,
}

/// What a [`Lun`] addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LunAddress {
    /// A logical unit by its number, at one level.
    Number(u16),
    /// A well known logical unit, by its W-LUN.
    WellKnown(u8),
    /// More than one level, or an addressing method that names nothing here.
    Other,
}

/// The largest number that one level can address.
pub const LUN_NUMBER_MAX: u16 = 0x3fff;

const METHOD: u8 = 0xc0;
const METHOD_PERIPHERAL: u8 = 0x00;
const METHOD_FLAT: u8 = 0x40;
const METHOD_LOGICAL_UNIT: u8 = 0x80;
/// Extended addressing, length 1, method 1: a well known logical unit.
const WELL_KNOWN: u8 = 0xc1;

impl Lun {
    /// The REPORT LUNS well known logical unit.
    pub const REPORT_LUNS: Self = Self([WELL_KNOWN, 0x01, 0, 0, 0, 0, 0, 0]);

    /// The address as it came in a PDU.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The address as it goes into a PDU or a REPORT LUNS list.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    /// `number` spelt by `method`; `None` when one level cannot hold it.
    pub fn encode(number: u16, method: AddressMethod) -> Option<Self> {
        if number > LUN_NUMBER_MAX {
            return None;
        }
        let [high, low] = number.to_be_bytes();
        let method = match method {
            AddressMethod::Peripheral if high == 0 => METHOD_PERIPHERAL,
            AddressMethod::Peripheral | AddressMethod::Flat => METHOD_FLAT,
            AddressMethod::LogicalUnit => METHOD_LOGICAL_UNIT,
        };
        Some(Self([method | high, low, 0, 0, 0, 0, 0, 0]))
    }

    /// What the address names.
    pub fn address(self) -> LunAddress {
        let [first, second, rest @ ..] = self.0;
        if rest != [0; 6] {
            return LunAddress::Other;
        }
        match first & METHOD {
            // A bus identifier other than zero would name a second level (SAM-5 §4.7.7.2).
            METHOD_PERIPHERAL if first != 0 => LunAddress::Other,
            METHOD_PERIPHERAL | METHOD_FLAT | METHOD_LOGICAL_UNIT => {
                LunAddress::Number(u16::from_be_bytes([first & !METHOD, second]))
            }
            _ if first == WELL_KNOWN => LunAddress::WellKnown(second),
            _ => LunAddress::Other,
        }
    }

    /// The number it names, if it names a logical unit by number.
    pub fn number(self) -> Option<u16> {
        match self.address() {
            LunAddress::Number(number) => Some(number),
            LunAddress::WellKnown(_) | LunAddress::Other => None,
        }
    }
}

impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            LunAddress::Number(number) => write!(f, "{number}"),
            LunAddress::WellKnown(number) => write!(f, "well known {number:#04x}"),
            LunAddress::Other => write!(f, "{:#018x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl fmt::Debug for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lun({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spelt(number: u16, method: AddressMethod) -> [u8; 2] {
        let bytes = Lun::encode(number, method).unwrap().to_bytes();
        [bytes[0], bytes[1]]
    }

    #[test]
    fn each_method_spells_a_number_its_own_way() {
        assert_eq!(spelt(5, AddressMethod::Peripheral), [0x00, 5]);
        assert_eq!(spelt(5, AddressMethod::Flat), [0x40, 5]);
        assert_eq!(spelt(5, AddressMethod::LogicalUnit), [0x80, 5]);
        assert_eq!(spelt(0x1ff, AddressMethod::Peripheral), [0x41, 0xff], "too large for peripheral");
        assert_eq!(spelt(0x3fff, AddressMethod::Flat), [0x7f, 0xff]);
        assert_eq!(Lun::encode(0x4000, AddressMethod::Flat), None);
    }

    #[test]
    fn the_well_known_unit_has_no_number() {
        assert_eq!(Lun::REPORT_LUNS.address(), LunAddress::WellKnown(1));
        assert_eq!(Lun::REPORT_LUNS.number(), None);
    }

    #[test]
    fn a_second_level_or_a_bus_names_nothing() {
        assert_eq!(Lun::from_bytes([0, 1, 0, 1, 0, 0, 0, 0]).address(), LunAddress::Other);
        assert_eq!(Lun::from_bytes([1, 1, 0, 0, 0, 0, 0, 0]).address(), LunAddress::Other);
        assert_eq!(Lun::from_bytes([0xff; 8]).address(), LunAddress::Other);
    }

    proptest! {
        #[test]
        fn what_is_spelt_reads_back(number in 0..=LUN_NUMBER_MAX, method in 0..3) {
            let method = [AddressMethod::Peripheral, AddressMethod::Flat, AddressMethod::LogicalUnit]
                [usize::try_from(method).unwrap()];
            prop_assert_eq!(Lun::encode(number, method).unwrap().number(), Some(number));
        }

        #[test]
        fn any_bytes_are_an_address(bytes: [u8; 8]) {
            let _ = Lun::from_bytes(bytes).address();
        }
    }
}
