//! Logins that came to nothing, by target and reason. Nothing that only an initiator said gets in: names are those of
//! configured targets, reasons a closed set, so that nobody can make the table grow.

use std::collections::BTreeMap;

use portico_iscsi::wire::LoginStatus;

/// Why a login came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFailure {
    /// Status 02/01.
    Authentication,
    /// Status 02/02.
    Authorization,
    /// Status 02/03.
    NotFound,
    /// Status-Class 1.
    Redirected,
    /// Status-Class 3.
    Unavailable,
    /// Closed unanswered: too many wrong proofs of that address wait to be judged.
    Slowed,
    /// All else: what was said was no login.
    Protocol,
}

impl LoginFailure {
    /// All of them, in the order of [`LoginFailures`].
    pub const ALL: [Self; 7] = [
        Self::Authentication,
        Self::Authorization,
        Self::NotFound,
        Self::Redirected,
        Self::Unavailable,
        Self::Slowed,
        Self::Protocol,
    ];

    /// The reason of a refusal with that status (RFC 7143 §11.13.5).
    #[must_use]
    pub fn of(status: LoginStatus) -> Self {
        match status {
            LoginStatus::AUTHENTICATION_FAILURE => Self::Authentication,
            LoginStatus::AUTHORIZATION_FAILURE => Self::Authorization,
            LoginStatus::NOT_FOUND => Self::NotFound,
            LoginStatus { class: 1, .. } => Self::Redirected,
            LoginStatus { class: 3, .. } => Self::Unavailable,
            _ => Self::Protocol,
        }
    }

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::NotFound => "not_found",
            Self::Redirected => "redirected",
            Self::Unavailable => "unavailable",
            Self::Slowed => "slowed",
            Self::Protocol => "protocol",
        }
    }
}

/// How many logins came to nothing, by configured target (none: discovery, or no target of ours) and reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginFailures(BTreeMap<Option<String>, [u64; LoginFailure::ALL.len()]>);

impl LoginFailures {
    /// One more. `target` is the name of a configured target.
    pub fn count(&mut self, target: Option<&str>, failure: LoginFailure) {
        self.0.entry(target.map(str::to_owned)).or_default()[failure as usize] += 1;
    }

    /// Adds those of another shard.
    pub fn add(&mut self, other: &Self) {
        for (target, counts) in &other.0 {
            let sums = self.0.entry(target.clone()).or_default();
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }

    /// Forgets targets that are not configured any more.
    pub fn retain(&mut self, mut is_configured: impl FnMut(&str) -> bool) {
        self.0.retain(|target, _| target.as_deref().is_none_or(&mut is_configured));
    }

    /// Every target that anything is counted for, every reason, and how often; no target is empty.
    pub fn iter(&self) -> impl Iterator<Item = (&str, LoginFailure, u64)> {
        self.0.iter().flat_map(|(target, counts)| {
            let target = target.as_deref().unwrap_or_default();
            LoginFailure::ALL.into_iter().zip(counts).map(move |(failure, count)| (target, failure, *count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_add_up_by_target_and_reason() {
        let mut one = LoginFailures::default();
        one.count(Some("iqn.t"), LoginFailure::of(LoginStatus::AUTHENTICATION_FAILURE));
        one.count(None, LoginFailure::of(LoginStatus::NOT_FOUND));
        let mut sum = one.clone();
        sum.add(&one);
        let counted: Vec<_> = sum.iter().filter(|(.., count)| *count > 0).collect();
        assert_eq!(counted, [("", LoginFailure::NotFound, 2), ("iqn.t", LoginFailure::Authentication, 2)]);
        sum.retain(|name| name != "iqn.t");
        assert_eq!(sum.iter().map(|(.., count)| count).sum::<u64>(), 2);
    }

    #[test]
    fn every_status_has_a_reason() {
        for (status, name) in [
            (LoginStatus::AUTHORIZATION_FAILURE, "authorization"),
            (LoginStatus::TARGET_MOVED_PERMANENTLY, "redirected"),
            (LoginStatus::OUT_OF_RESOURCES, "unavailable"),
            (LoginStatus::MISSING_PARAMETER, "protocol"),
        ] {
            assert_eq!(LoginFailure::of(status).name(), name);
        }
        let all = LoginFailure::ALL.into_iter().enumerate();
        assert!(all.into_iter().all(|(at, failure)| failure as usize == at), "in their order");
    }
}
