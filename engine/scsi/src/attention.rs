//! Unit attention conditions (SAM-5 §5.14): what a nexus has not been told yet about a logical unit.
//!
//! The conditions that this device server raises are a closed set and none carries data, so what is pending is a set of
//! bits: it cannot overflow, never allocates, and the same condition raised twice is one condition. Order of report and
//! what subsumes what follow SAM-5 §5.14.2.

use crate::sense::{AdditionalSense, Outcome, Sense, SenseKey};

/// A unit attention condition, in the order in which pending ones are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum UnitAttention {
    /// 29/00: a nexus that is new to the unit.
    PowerOn,
    /// 29/02: target warm or cold reset.
    HardReset,
    /// 29/03: logical unit reset.
    LogicalUnitReset,
    /// 29/07: I_T nexus loss, or a restart that initiators rode out.
    NexusLoss,
    /// 28/00: a medium was loaded.
    MediumMayHaveChanged,
    /// 3F/0E: the LUN inventory of this nexus is another one.
    ReportedLunsChanged,
    /// 3F/03: identity or other INQUIRY data.
    InquiryDataChanged,
    /// 2A/09: the unit grew or shrank.
    CapacityChanged,
    /// 2A/01: another nexus changed mode parameters.
    ModeParametersChanged,
    /// 2A/03: a reservation was preempted.
    ReservationsPreempted,
    /// 2A/04: a reservation was released.
    ReservationsReleased,
    /// 2A/05: a registration was preempted.
    RegistrationsPreempted,
    /// 2A/06: an asymmetric access state changed.
    AsymmetricAccessChanged,
    /// 2F/00: CLEAR TASK SET by another nexus.
    CommandsCleared,
    /// 38/07: the pool under a thin unit runs low.
    SoftThresholdReached,
}

const ALL: [UnitAttention; 15] = [
    UnitAttention::PowerOn,
    UnitAttention::HardReset,
    UnitAttention::LogicalUnitReset,
    UnitAttention::NexusLoss,
    UnitAttention::MediumMayHaveChanged,
    UnitAttention::ReportedLunsChanged,
    UnitAttention::InquiryDataChanged,
    UnitAttention::CapacityChanged,
    UnitAttention::ModeParametersChanged,
    UnitAttention::ReservationsPreempted,
    UnitAttention::ReservationsReleased,
    UnitAttention::RegistrationsPreempted,
    UnitAttention::AsymmetricAccessChanged,
    UnitAttention::CommandsCleared,
    UnitAttention::SoftThresholdReached,
];

impl UnitAttention {
    /// Every condition, in the order of report.
    pub const ALL: [Self; 15] = ALL;

    const fn bit(self) -> u16 {
        1 << self as u8
    }

    /// Its additional sense code.
    pub const fn additional(self) -> AdditionalSense {
        match self {
            Self::PowerOn => AdditionalSense::POWER_ON_OR_RESET,
            Self::HardReset => AdditionalSense::HARD_RESET,
            Self::LogicalUnitReset => AdditionalSense::LOGICAL_UNIT_RESET,
            Self::NexusLoss => AdditionalSense::NEXUS_LOSS,
            Self::MediumMayHaveChanged => AdditionalSense::MEDIUM_MAY_HAVE_CHANGED,
            Self::ReportedLunsChanged => AdditionalSense::REPORTED_LUNS_CHANGED,
            Self::InquiryDataChanged => AdditionalSense::INQUIRY_DATA_CHANGED,
            Self::CapacityChanged => AdditionalSense::CAPACITY_CHANGED,
            Self::ModeParametersChanged => AdditionalSense::MODE_PARAMETERS_CHANGED,
            Self::ReservationsPreempted => AdditionalSense::RESERVATIONS_PREEMPTED,
            Self::ReservationsReleased => AdditionalSense::RESERVATIONS_RELEASED,
            Self::RegistrationsPreempted => AdditionalSense::REGISTRATIONS_PREEMPTED,
            Self::AsymmetricAccessChanged => AdditionalSense::ASYMMETRIC_ACCESS_CHANGED,
            Self::CommandsCleared => AdditionalSense::COMMANDS_CLEARED,
            Self::SoftThresholdReached => AdditionalSense::SOFT_THRESHOLD_REACHED,
        }
    }

    /// Sense data that reports it.
    pub const fn sense(self) -> Sense {
        Sense::new(SenseKey::UnitAttention, self.additional())
    }

    /// The outcome of the command that reports it.
    pub const fn outcome(self) -> Outcome {
        Outcome::check(self.sense())
    }

    /// Whether initiators that listen are told of it at once, by an asynchronous event (SAM-5 §5.14.1), beside what the next
    /// command hears: news that they act upon without having asked anything.
    pub const fn is_event(self) -> bool {
        matches!(
            self,
            Self::ReportedLunsChanged
                | Self::CapacityChanged
                | Self::ReservationsPreempted
                | Self::ReservationsReleased
                | Self::RegistrationsPreempted
                | Self::AsymmetricAccessChanged
        )
    }

    /// What this condition makes pointless to report (SAM-5 §5.14.2: a power on or reset subsumes what it clears; each
    /// reset subsumes the lesser ones).
    const fn subsumed(self) -> u16 {
        match self {
            Self::PowerOn => u16::MAX,
            Self::HardReset => {
                Self::LogicalUnitReset.bit() | Self::NexusLoss.bit() | Self::CommandsCleared.bit()
            }
            Self::LogicalUnitReset => Self::NexusLoss.bit() | Self::CommandsCleared.bit(),
            Self::NexusLoss => Self::CommandsCleared.bit(),
            _ => 0,
        }
    }
}

const RESETS: u16 = UnitAttention::PowerOn.bit()
    | UnitAttention::HardReset.bit()
    | UnitAttention::LogicalUnitReset.bit()
    | UnitAttention::NexusLoss.bit();

/// The conditions pending for one I_T_L nexus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attentions(u16);

impl Attentions {
    /// None pending.
    pub const NONE: Self = Self(0);

    /// Adds `attention`, unless a pending condition subsumes it; drops what it subsumes.
    pub fn establish(&mut self, attention: UnitAttention) {
        let dominated = UnitAttention::ALL.into_iter().any(|other| {
            other != attention && self.0 & other.bit() != 0 && other.subsumed() & attention.bit() != 0
        });
        // After a power on that was not reported yet, news about the unit is news only once it is reported: the
        // initiator reads everything anew then. A reset that comes later is subsumed likewise.
        if !dominated {
            self.0 = self.0 & !attention.subsumed() | attention.bit();
        }
    }

    /// Whether anything is pending.
    pub const fn pending(self) -> bool {
        self.0 != 0
    }

    /// The first condition to report.
    #[must_use]
    pub fn first(self) -> Option<UnitAttention> {
        self.first_of(u16::MAX)
    }

    fn first_of(self, mask: u16) -> Option<UnitAttention> {
        ALL.get(usize::try_from((self.0 & mask).trailing_zeros()).unwrap_or(usize::MAX)).copied()
    }

    /// What QUERY ASYNCHRONOUS EVENT tells of them, in the bytes of its Additional Response Information; `None` where there
    /// are none. Nothing is taken by it (SAM-5 §7.10). There are no deferred errors here.
    #[must_use]
    pub fn asynchronous_event(self) -> Option<[u8; 3]> {
        /// UADE DEPTH: one, or more than one.
        const ONE: u8 = 0x10;
        const SEVERAL: u8 = 0x20;
        let additional = self.first()?.additional();
        let depth = if self.0.count_ones() == 1 { ONE } else { SEVERAL };
        Some([depth | SenseKey::UnitAttention as u8, additional.code, additional.qualifier])
    }

    /// Takes the first condition to report.
    pub fn take(&mut self) -> Option<UnitAttention> {
        self.take_of(u16::MAX)
    }

    /// Takes the first power on, reset or nexus loss: those come before RESERVATION CONFLICT (SAM-5 §5.3.3).
    pub(crate) fn take_reset(&mut self) -> Option<UnitAttention> {
        self.take_of(RESETS)
    }

    fn take_of(&mut self, mask: u16) -> Option<UnitAttention> {
        let first = self.first_of(mask)?;
        self.0 &= !first.bit();
        Some(first)
    }

    /// Withdraws `attention` without reporting it.
    pub(crate) fn withdraw(&mut self, attention: UnitAttention) {
        self.0 &= !attention.bit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(raised: &[UnitAttention]) -> Vec<UnitAttention> {
        let mut attentions = Attentions::NONE;
        raised.iter().for_each(|&attention| attentions.establish(attention));
        std::iter::from_fn(|| attentions.take()).collect()
    }

    #[test]
    fn the_list_of_all_is_in_the_order_of_the_bits() {
        for (index, attention) in UnitAttention::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(attention as u8), index);
        }
    }

    #[test]
    fn each_is_reported_once_however_often_it_was_raised() {
        use UnitAttention::{CapacityChanged, ModeParametersChanged};
        assert_eq!(
            pending(&[ModeParametersChanged, CapacityChanged, ModeParametersChanged]),
            [CapacityChanged, ModeParametersChanged],
        );
    }

    #[test]
    fn a_power_on_subsumes_everything_before_and_after_it() {
        use UnitAttention::{CapacityChanged, LogicalUnitReset, PowerOn};
        assert_eq!(pending(&[CapacityChanged, PowerOn, LogicalUnitReset, CapacityChanged]), [PowerOn]);
    }

    #[test]
    fn a_unit_reset_subsumes_a_nexus_loss_but_not_a_new_capacity() {
        use UnitAttention::{CapacityChanged, LogicalUnitReset, NexusLoss};
        assert_eq!(
            pending(&[NexusLoss, CapacityChanged, LogicalUnitReset, NexusLoss]),
            [LogicalUnitReset, CapacityChanged],
        );
    }

    #[test]
    fn a_query_tells_of_the_first_condition_and_whether_there_are_more_and_takes_none() {
        let mut attentions = Attentions::NONE;
        assert_eq!(attentions.asynchronous_event(), None);
        attentions.establish(UnitAttention::ModeParametersChanged);
        assert_eq!(attentions.asynchronous_event(), Some([0x16, 0x2a, 0x01]));
        attentions.establish(UnitAttention::CapacityChanged);
        assert_eq!(attentions.asynchronous_event(), Some([0x26, 0x2a, 0x09]));
        assert_eq!(attentions.take(), Some(UnitAttention::CapacityChanged));
    }

    #[test]
    fn only_resets_are_taken_ahead_of_a_reservation_conflict() {
        let mut attentions = Attentions::NONE;
        attentions.establish(UnitAttention::ModeParametersChanged);
        assert_eq!(attentions.take_reset(), None);
        attentions.establish(UnitAttention::NexusLoss);
        assert_eq!(attentions.take_reset(), Some(UnitAttention::NexusLoss));
        assert!(attentions.pending());
    }
}
