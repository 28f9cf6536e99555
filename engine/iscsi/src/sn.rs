//! Serial numbers of 32 bits that wrap, each its own type, and the command window made of two of them.
//!
//! They are compared as RFC 1982 asks (RFC 7143 §4.2.2.1); that order is not transitive over the whole
//! circle, so the types have no `Ord`. This module never decides what a gap means: session and recovery do.

/// Half of the circle: two numbers that far apart have no order (RFC 1982 §3.2).
const HALF_CIRCLE: u32 = 1 << 31;

macro_rules! serial_number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The number after this one; 0 follows 2^32 - 1.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.wrapping_add(1))
            }

            /// The number before this one.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.wrapping_sub(1))
            }

            /// The number `count` steps on.
            #[must_use]
            pub const fn advanced_by(self, count: u32) -> Self {
                Self(self.0.wrapping_add(count))
            }

            /// Whether this number comes before `other` (RFC 1982 §3.2). False for equal numbers, and for two
            /// that are exactly half a circle apart, whichever is asked.
            #[must_use]
            pub const fn precedes(self, other: Self) -> bool {
                let ahead = other.0.wrapping_sub(self.0);
                ahead != 0 && ahead < HALF_CIRCLE
            }

            /// Whether this number comes after `other`.
            #[must_use]
            pub const fn follows(self, other: Self) -> bool {
                other.precedes(self)
            }

            /// How many steps lead from this number forward to `other`, modulo 2^32.
            #[must_use]
            pub const fn steps_to(self, other: Self) -> u32 {
                other.0.wrapping_sub(self.0)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{} {:#010x}", stringify!($name), self.0)
            }
        }
    };
}

serial_number! {
    /// Numbers the commands of a session (§4.2.2.1).
    CmdSn
}
serial_number! {
    /// Numbers the responses of a connection (§4.2.2.2).
    StatSn
}
serial_number! {
    /// Numbers the Data-In PDUs of a command, and the Data-Out PDUs of one R2T or of the unsolicited burst
    /// (§4.2.2.4).
    DataSn
}
serial_number! {
    /// Numbers the R2T PDUs of a command, and on a bidirectional one shares its count with Data-In (§4.2.2.4,
    /// §11.8.2).
    R2tSn
}

/// The numbers that the target is ready to take: from ExpCmdSN to MaxCmdSN, both included (§4.2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandWindow {
    expected: CmdSn,
    maximum: CmdSn,
}

impl CommandWindow {
    /// The window of these bounds, or `None` where MaxCmdSN < ExpCmdSN - 1: the receiver ignores both
    /// (§4.2.2.1).
    #[must_use]
    pub const fn new(expected: CmdSn, maximum: CmdSn) -> Option<Self> {
        let window = Self { expected, maximum };
        if window.size() < HALF_CIRCLE { Some(window) } else { None }
    }

    /// ExpCmdSN, the next number that the target has not seen.
    #[must_use]
    pub const fn expected(&self) -> CmdSn {
        self.expected
    }

    /// MaxCmdSN, the last number that the target takes.
    #[must_use]
    pub const fn maximum(&self) -> CmdSn {
        self.maximum
    }

    /// How many commands fit. 0: closed.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.expected.steps_to(self.maximum.next())
    }

    /// Whether a non-immediate command of this number may be sent, or taken.
    #[must_use]
    pub const fn admits(&self, cmd_sn: CmdSn) -> bool {
        self.expected.steps_to(cmd_sn) < self.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_follows_the_last_number() {
        assert_eq!(CmdSn(u32::MAX).next(), CmdSn(0));
        assert!(CmdSn(u32::MAX).precedes(CmdSn(0)));
        assert!(CmdSn(0).follows(CmdSn(u32::MAX)));
        assert_eq!(CmdSn(0).previous(), CmdSn(u32::MAX));
    }

    #[test]
    fn half_a_circle_apart_there_is_no_order() {
        assert!(!StatSn(7).precedes(StatSn(7 + HALF_CIRCLE)));
        assert!(!StatSn(7 + HALF_CIRCLE).precedes(StatSn(7)));
    }

    #[test]
    fn a_window_is_closed_when_the_maximum_is_one_below_the_expected() {
        let closed = CommandWindow::new(CmdSn(0), CmdSn(u32::MAX)).unwrap();
        assert_eq!(closed.size(), 0);
        assert!(!closed.admits(CmdSn(0)));
    }

    #[test]
    fn a_maximum_two_below_the_expected_is_no_window() {
        assert_eq!(CommandWindow::new(CmdSn(10), CmdSn(8)), None);
    }

    #[test]
    fn a_window_admits_its_bounds_and_nothing_outside_across_the_wrap() {
        let window = CommandWindow::new(CmdSn(u32::MAX - 1), CmdSn(1)).unwrap();
        assert_eq!(window.size(), 4);
        for (number, admitted) in
            [(u32::MAX - 2, false), (u32::MAX - 1, true), (u32::MAX, true), (0, true), (1, true), (2, false)]
        {
            assert_eq!(window.admits(CmdSn(number)), admitted, "{number}");
        }
    }

    proptest! {
        #[test]
        fn of_two_numbers_less_than_half_a_circle_apart_exactly_one_precedes(at: u32, ahead in 1..HALF_CIRCLE) {
            let (first, second) = (DataSn(at), DataSn(at).advanced_by(ahead));
            prop_assert!(first.precedes(second));
            prop_assert!(!second.precedes(first));
            prop_assert_eq!(first.steps_to(second), ahead);
        }
    }
}
