//! A logical unit under load: the paths to it, the plan, what was written.

use std::net::SocketAddr;

use portico_iscsi::wire::LunField;

use crate::address::Address;
use crate::ledger::Ledger;
use crate::options::Plan;

/// One logical unit.
#[derive(Debug)]
pub(crate) struct Unit {
    /// The first URL that names it.
    pub(crate) address: Address,
    pub(crate) lun: LunField,
    /// The portals of all URLs that name it; its sessions take turns.
    pub(crate) portals: Vec<SocketAddr>,
    pub(crate) plan: Plan,
    /// Of a verified run.
    pub(crate) ledger: Option<Ledger>,
}

impl Unit {
    /// Where a session connects to.
    pub(crate) fn portal(&self, session: u32) -> SocketAddr {
        let row = usize::try_from(session - self.plan.first_session).expect("32 bits");
        self.portals[row % self.portals.len()]
    }

    /// The target's name.
    pub(crate) fn target(&self) -> &str {
        &self.address.target
    }
}

/// Puts URLs that name the same target and LUN together, in the order in which they come.
pub(crate) fn grouped(addresses: &[Address]) -> Vec<Vec<&Address>> {
    let mut groups: Vec<Vec<&Address>> = Vec::new();
    for address in addresses {
        match groups.iter_mut().find(|group| group[0].is_same_unit(address)) {
            Some(group) => group.push(address),
            None => groups.push(vec![address]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_to_one_unit_are_put_together() {
        let urls = ["iscsi://a/t/0", "iscsi://a/t/1", "iscsi://b/t/0", "iscsi://a/u/0", "iscsi://b:1/t/1"];
        let addresses = urls.map(|url| url.parse::<Address>().unwrap());
        let groups: Vec<Vec<String>> =
            grouped(&addresses).iter().map(|group| group.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(
            groups,
            [
                vec!["iscsi://a:3260/t/0", "iscsi://b:3260/t/0"],
                vec!["iscsi://a:3260/t/1", "iscsi://b:1/t/1"],
                vec!["iscsi://a:3260/u/0"],
            ]
        );
    }
}
