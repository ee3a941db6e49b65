//! Changes of the consensus configuration, one at a time; who should belong is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kctl_shared::fault::Fault;
use openraft::ChangeMembers;

use super::{Consensus, MemberAddress};

/// How long a change is waited for; one that takes longer is found done or not at the next look.
const PATIENCE: Duration = Duration::from_secs(10);

impl Consensus {
    /// Begins to send the log to another member, which does not vote.
    ///
    /// # Errors
    /// `MEMBERSHIP_CHANGE` when it was not committed: not the leader, no quorum, or another change under way.
    pub async fn add_learner(&self, id: u64, address: MemberAddress) -> Result<(), Fault> {
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, address)])), true).await
    }

    /// # Errors
    /// As [`Self::add_learner`].
    pub async fn promote(&self, id: u64) -> Result<(), Fault> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await
    }

    /// Takes a member out, voter or not.
    ///
    /// # Errors
    /// As [`Self::add_learner`].
    pub async fn take_out(&self, id: u64) -> Result<(), Fault> {
        let ids = BTreeSet::from([id]);
        let voter = self.members().get(&id).is_some_and(|m| m.voter);
        let change = if voter { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) };
        self.change(change, false).await
    }

    async fn change(&self, change: ChangeMembers<u64, MemberAddress>, retain: bool) -> Result<(), Fault> {
        let failed = |why: String| Fault::new("MEMBERSHIP_CHANGE", why).hint("kctl cluster members");
        match tokio::time::timeout(PATIENCE, self.raft.change_membership(change, retain)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Err(_) => Err(failed("no quorum confirmed it in time".into())),
        }
    }

    /// Asks the leader's voters to make `to` the leader; whether it worked shows in [`Self::watch_leadership`].
    ///
    /// # Errors
    /// `INTERNAL` when consensus has ended here.
    pub async fn hand_over(&self, to: u64) -> Result<(), Fault> {
        let sent = self.raft.trigger().transfer_leader(to).await;
        sent.map_err(|e| Fault::new("INTERNAL", format!("consensus has ended: {e}")))
    }

    /// Whether this member belongs to no cluster yet.
    pub fn is_waiting(&self) -> bool {
        self.members().is_empty()
    }

    pub fn epoch(&self) -> u64 {
        self.machine.epoch()
    }

    /// Writes down for ever that this member was taken out; the fault it ends with.
    pub fn mark_removed(&self) -> Fault {
        self.machine.mark_removed()
    }
}
