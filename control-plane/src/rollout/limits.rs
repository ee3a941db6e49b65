//! What people said about when nodes may be changed: holds of a node or a group, maintenance windows, nodes on their way out.

use kctl_shared::name::NodeId;
use kctl_shared::spec::{Grant, KongState, NodeStatus, Stage};

use super::fleet::Fleet;
use super::walk::present;
use super::{Round, WaitingOn};
use crate::desired::node_spec;
use crate::state::command::Command;
use crate::state::duty::NodeChange;
use crate::state::model::{ClusterState, Node};
use crate::state::operation::{Phase, StepKind};
use crate::state::window;

/// A person's reason behind what they did, if they gave one.
pub(crate) fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

/// Why nothing new may begin in the operation's group, if so. The way back goes on outside of windows.
pub(crate) fn closed(round: &Round<'_>, kind: StepKind) -> Option<WaitingOn> {
    let name = &round.operation.group;
    let group = round.state.groups.get(name)?;
    let waiting = |reason: &'static str, message, since| {
        Some(WaitingOn { node: None, reason: reason.into(), message, since })
    };
    if let Some(hold) = &group.hold {
        let message =
            format!("group {name} is held{}; go on: kctl group unhold {name}", because(&hold.reason));
        return waiting("GROUP_HELD", message, hold.since);
    }
    let serves = kind.reloads() || kind == StepKind::Detach;
    if !serves || round.operation.phase == Phase::RollingBack {
        return None;
    }
    let opens = window::opens_at(&group.windows, round.now)?;
    let message = format!(
        "outside the maintenance windows of group {name}; the next opens at {opens}; without: kctl group set {name} --no-windows"
    );
    waiting("WINDOW_CLOSED", message, round.operation.progressed_at())
}

/// Why the node is left as it is, if so.
pub(crate) fn held(node: &NodeId, record: Option<&Node>) -> Option<WaitingOn> {
    let hold = record?.hold.as_ref()?;
    let message = format!(
        "node {node} is held{}; go on: kctl node unhold {node}, or without it: kctl operation excuse",
        because(&hold.reason)
    );
    Some(WaitingOn { node: Some(node.clone()), reason: "NODE_HELD".into(), message, since: hold.since })
}

/// Nodes that are to leave and have nothing of kctl's left, or no Kong that could run it.
pub(crate) fn forget_left(state: &ClusterState, fleet: &Fleet) -> Vec<Command> {
    let done = |(node, record): (&NodeId, &Node)| {
        let leaving = record.leaving.as_ref()?;
        let report = present(Some(record), fleet.reports.get(node))?;
        let (grant, status) = (record.leaves_under()?, &report.status);
        // Of the spec as it is now: it may name more than the one that was answered first.
        let proof = proof(grant, status).filter(|_| status.spec_hash == node_spec(state, node).hash())?;
        let change = NodeChange::Forget { proof, answer: Some((record.boot, grant)) };
        Some(Command::ChangeNode { node: node.clone(), change, reason: leaving.reason.clone() })
    };
    state.nodes.iter().filter_map(done).collect()
}

/// What shows that the node may go; of what its agent says since it was told to leave.
fn proof(grant: Grant, status: &NodeStatus) -> Option<String> {
    if status.kong.state == KongState::Down {
        return Some("no Kong runs there; its files were left in place".into());
    }
    let empty = status.plugins.values().all(|p| {
        // What others put there under such a name is theirs.
        let theirs = p.failure.as_ref().is_some_and(|f| f.code == "PLUGIN_NOT_OURS");
        p.grant == grant
            && p.staged.is_empty()
            && (theirs || (p.stage == Stage::Absent && p.loaded.is_none()))
    });
    empty.then(|| "nothing of kctl's is left there".into())
}
