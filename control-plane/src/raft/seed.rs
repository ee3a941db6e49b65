//! The store of a member that begins with a given state, as if it had got it in a snapshot.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kctl_shared::fault::Fault;
use openraft::Membership;
use openraft::vote::leader_id_adv::LeaderId;

use super::disk::{self, Disk, SledDisk};
use super::log;
use super::machine::StateMachine;
use super::types::{LogId, MemberAddress, SnapshotMeta, StoredMembership, Vote, encode};
use crate::state::ClusterState;

/// Elections begin behind it. All members are seeded with the same, or they would not have the same log.
const TERM: u64 = 1;

/// Makes the store of member `id` in an empty directory; all members vote.
///
/// # Errors
/// `CONFIG_INVALID` without members; else as [`super::Consensus::open`].
pub fn seed(
    data_dir: &Path,
    id: u64,
    members: &BTreeMap<u64, MemberAddress>,
    index: u64,
    state: &ClusterState,
) -> Result<(), Fault> {
    let internal = |e: &dyn std::fmt::Display| Fault::new("INTERNAL", format!("seeding a store: {e}"));
    let first = *members.keys().next().ok_or_else(|| Fault::new("CONFIG_INVALID", "there are no members"))?;
    let log_id = LogId::new(LeaderId { term: TERM, node_id: first }, index);
    let voters = vec![members.keys().copied().collect()];
    let membership = Membership::new(voters, members.clone()).map_err(|e| internal(&e))?;
    let last_membership = StoredMembership::new(Some(log_id), membership);
    let meta = SnapshotMeta { last_log_id: Some(log_id), last_membership };
    let (log_dir, state_dir) = (disk::directory(data_dir, "raft-log"), disk::directory(data_dir, "state"));
    let state_disk: Arc<dyn Disk> = Arc::new(SledDisk::open(&state_dir)?);
    super::claim(&*state_disk, &state_dir, id)?;
    let body = encode(state).map_err(|e| internal(&e))?;
    StateMachine::open(&state_dir, state_disk)?.save(&meta, &body).map_err(|e| internal(&e))?;
    let records = log::begin(log_id, Vote::new(TERM, first)).map_err(|e| internal(&e))?;
    SledDisk::open(&log_dir)?.write(records).map_err(|e| internal(&e))
}
