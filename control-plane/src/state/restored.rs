//! What a backup's state is in the cluster that is made of it.

use std::collections::BTreeMap;

use kctl_shared::spec::Failure;

use super::audit::{CONTROL_PLANE, Draft};
use super::command::LogStamp;
use super::lifecycle;
use super::members::{Member, MemberAddress, Standing};
use super::model::ClusterState;
use super::operation::{OperationId, Phase};

/// Another epoch, other members, and no operation goes on: the nodes have moved on since, and nobody may act on what was
/// true then. `backup` is the log index it was made at. The operations that were ended, which stay in the list as aborted.
pub fn restored(
    state: &mut ClusterState,
    at: LogStamp,
    epoch: u64,
    members: &BTreeMap<u64, MemberAddress>,
    backup: u64,
) -> Vec<OperationId> {
    let former = state.epoch;
    let live: Vec<OperationId> = state.live_operations().map(|o| o.id.clone()).collect();
    for id in &live {
        if let Some(operation) = state.operations.get_mut(id) {
            operation.interventions.hold = None;
            operation.error = Some(Failure::new("RESTORED", "the cluster was restored from a backup"));
        }
        lifecycle::end(state, at, id, Phase::Aborted);
    }
    for member in state.members.values_mut() {
        member.standing = Standing::Removed;
    }
    let founders = members
        .iter()
        .map(|(id, address)| (*id, Member { address: address.clone(), standing: Standing::Voter }));
    state.members.extend(founders);
    (state.epoch, state.generation) = (epoch, at.index);
    state.approved.clear();
    let draft = Draft {
        verb: "cluster.restore",
        detail: format!("of epoch {former}, up to log index {backup}"),
        ..Draft::default()
    };
    state.audit.append(at, CONTROL_PLANE, draft);
    live
}
