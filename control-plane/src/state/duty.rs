//! What people say of a node: that nothing is to be changed on it, that it is to leave, that its agent may come back.

use std::sync::Arc;

use kctl_shared::mutant;
use kctl_shared::name::{GroupName, NodeId};
use kctl_shared::spec::Grant;
use serde::{Deserialize, Serialize};

use super::command::{Event, LogStamp, Rejection};
use super::entities;
use super::fleet;
use super::model::{ClusterState, Gone, Hold, Leaving};
use super::operation::{Operation, Phase, Verdict};
use super::window::Window;

/// Windows one group may have.
pub const MAX_WINDOWS: usize = 50;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeChange {
    /// Its agent leaves everything as it is; with `drain` it takes the node out of its load balancer too.
    Hold {
        drain: bool,
    },
    Unhold,
    /// What it should be is tried again, whatever failed before.
    Reconcile,
    /// It goes for ever: by itself, once nothing of kctl's runs on it, or at once, because a person attests that it is
    /// no more.
    Decommission {
        attested: bool,
    },
    /// A leaving node has nothing left to do; `proof` says what shows it.
    Forget {
        proof: String,
        /// The start of its agent that showed it, and the grant that it answered; `None` in logs of before it was said.
        #[serde(default)]
        answer: Option<(u64, Grant)>,
    },
    /// Another installation of its agent, or one whose memory was set back, takes the node's place.
    Readmit {
        nonce: String,
        boot: u64,
        /// `Node.since` of who was known when this was decided, zeroes of nobody; `None` in logs of before it was said.
        #[serde(default)]
        since: Option<Grant>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupChange {
    /// Operations begin nothing new on its nodes; what acts already ends.
    Hold,
    Unhold,
    /// When running plugins may be changed; none: always.
    Windows(Vec<Window>),
    /// How many nodes there are; none: as many as there are.
    Expect(Option<u32>),
    /// Whether another group's nodes are meant to use the same database.
    SharesDatabase(bool),
}

impl NodeChange {
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Hold { drain: false } => "node.hold",
            Self::Hold { drain: true } => "node.drain",
            Self::Unhold => "node.unhold",
            Self::Reconcile => "node.reconcile",
            Self::Decommission { .. } => "node.decommission",
            Self::Forget { .. } => "node.forget",
            Self::Readmit { .. } => "node.readmit",
        }
    }

    pub fn detail(&self) -> String {
        match self {
            Self::Hold { .. } | Self::Unhold | Self::Reconcile => String::new(),
            Self::Decommission { attested } => {
                if *attested { "attested to be gone" } else { "once it is empty" }.into()
            }
            Self::Forget { proof, .. } => proof.clone(),
            Self::Readmit { boot, .. } => format!("start {boot}"),
        }
    }
}

impl GroupChange {
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Hold => "group.hold",
            Self::Unhold => "group.unhold",
            Self::Windows(_) => "group.windows",
            Self::Expect(_) => "group.expect-nodes",
            Self::SharesDatabase(_) => "group.shared-database",
        }
    }

    pub fn detail(&self) -> String {
        match self {
            Self::Hold | Self::Unhold => String::new(),
            Self::Windows(windows) => super::audit::list(windows),
            Self::Expect(nodes) => nodes.map_or_else(|| "any number".into(), |n| n.to_string()),
            Self::SharesDatabase(shares) => if *shares { "shared" } else { "its own" }.into(),
        }
    }
}

/// `NODE_NOT_FOUND`.
pub fn unknown(node: &NodeId) -> Rejection {
    Rejection::new("NODE_NOT_FOUND", format!("there is no node {node}")).hint("kctl node list")
}

/// Whether the change would change nothing.
pub(super) fn is_so(state: &ClusterState, node: &NodeId, change: &NodeChange) -> bool {
    let Some(record) = state.nodes.get(node) else { return false };
    match change {
        NodeChange::Hold { drain } => record.hold.as_ref().is_some_and(|h| h.drain == *drain),
        NodeChange::Unhold => record.hold.is_none(),
        NodeChange::Decommission { attested } => record.leaving.is_some() && !attested,
        // Who is let in is asked for everything again, however often.
        NodeChange::Forget { .. } | NodeChange::Reconcile | NodeChange::Readmit { .. } => false,
    }
}

/// As [`is_so`], of a group.
pub(super) fn is_group_so(state: &ClusterState, group: &GroupName, change: &GroupChange) -> bool {
    state.groups.get(group).is_some_and(|g| match change {
        GroupChange::Hold => g.hold.is_some(),
        GroupChange::Unhold => g.hold.is_none(),
        GroupChange::Windows(windows) => g.windows == *windows,
        GroupChange::Expect(nodes) => g.expected_nodes == *nodes,
        GroupChange::SharesDatabase(shares) => g.shares_database == *shares,
    })
}

pub(super) fn change_node(
    state: &mut ClusterState,
    at: LogStamp,
    node: NodeId,
    change: NodeChange,
    reason: String,
) -> Result<Vec<Event>, Rejection> {
    let done = Event::NodeChanged { node: node.clone(), verb: change.verb().into() };
    if is_so(state, &node, &change) {
        return Ok(vec![done]);
    }
    match change {
        NodeChange::Hold { drain } => {
            let record = state.nodes.get_mut(&node).ok_or_else(|| unknown(&node))?;
            record.hold = Some(Hold { reason, since: at.proposed_at, drain });
        }
        NodeChange::Unhold => state.nodes.get_mut(&node).ok_or_else(|| unknown(&node))?.hold = None,
        NodeChange::Reconcile => {
            state.nodes.get_mut(&node).ok_or_else(|| unknown(&node))?.anew = Some(at.grant());
        }
        NodeChange::Decommission { attested } => decommission(state, at, &node, attested, reason)?,
        NodeChange::Forget { answer, .. } => {
            let record = state.nodes.get(&node);
            let asked = record
                .and_then(|n| Some((n.boot, n.leaves_under()?)))
                .ok_or_else(|| Rejection::new("SUPERSEDED", format!("node {node} is not leaving")))?;
            // Of a later start nobody knows yet whether its disk is still the one that was empty.
            if answer.is_some_and(|answer| answer != asked) {
                let message =
                    format!("node {node} was asked anew since its agent said so, or that started again");
                return Err(Rejection::new("SUPERSEDED", message));
            }
            remove(state, at, &node);
        }
        NodeChange::Readmit { nonce, boot, since } => {
            // It may have started again since it was let in, and only that start is to be believed.
            if since.is_some_and(|since| since != known_since(state, &node)) {
                let message = format!("somebody was let in as node {node} meanwhile");
                return Err(Rejection::new("SUPERSEDED", message).hint("kctl node list"));
            }
            readmit(state, at, &node, nonce, boot)?;
        }
    }
    state.generation = at.index;
    Ok(vec![done])
}

fn decommission(
    state: &mut ClusterState,
    at: LogStamp,
    node: &NodeId,
    attested: bool,
    reason: String,
) -> Result<(), Rejection> {
    let record = state.nodes.get(node).ok_or_else(|| unknown(node))?;
    let group = record.group.clone();
    let alone = |o: &&Operation| {
        let nodes = o.nodes();
        let stays = |n: &NodeId| n != node && state.stays(n);
        o.group == group && nodes.contains(node) && !nodes.iter().any(stays)
    };
    // On its way back, or when only files are left to go, nothing to do is the end of it; nor could it be aborted.
    let ends = |o: &&Operation| o.phase == Phase::RollingBack || o.is_past_return();
    if let Some(operation) = state.live_operations().find(|o| alone(o) && !ends(o)) {
        let message =
            format!("{node} is the last node of operation {}: nothing would be left to do", operation.id);
        return Err(Rejection::new("EXCUSE_LAST_NODE", message)
            .hint(format!("wait for it, or kctl operation abort {}", operation.id)));
    }
    if attested {
        remove(state, at, node);
        return Ok(());
    }
    if let Some(record) = state.nodes.get_mut(node) {
        // To be taken away from is no longer to be left alone.
        record.hold = None;
        record.leaving = Some(Leaving { grant: at.grant(), since: at.proposed_at, reason });
    }
    release_from_operations(state, at, node);
    Ok(())
}

/// Barriers no longer ask for the node. What it did in steps that are over stays on record; what it had verified in another
/// stays while it is there, and would afterwards be taken for a proof of whoever joins under its name.
fn release_from_operations(state: &mut ClusterState, at: LogStamp, node: &NodeId) {
    let is_there = state.nodes.contains_key(node);
    for operation in state.operations.values_mut().filter(|o| !o.phase.has_ended()) {
        let waited_for = operation.current().is_some_and(|s| s.nodes.contains_key(node));
        for step in operation.steps.iter_mut().filter(|s| !s.is_over()) {
            if step.nodes.get(node).is_some_and(|n| !is_there || n.verdict != Some(Verdict::Verified)) {
                step.nodes.remove(node);
            }
        }
        if waited_for {
            // Until now somebody could configure the plugin through it.
            entities::scan_anew(operation, at, operation.cursor);
        }
    }
}

/// Steps were composed of what nodes did: those that left meanwhile are asked for nothing more.
pub(super) fn leave_out(state: &mut ClusterState, operation: &str) {
    let stays = |node: &NodeId| state.nodes.get(node).is_some_and(|n| n.leaving.is_none());
    if let Some(operation) = state.operations.get_mut(operation) {
        for step in operation.steps.iter_mut().filter(|s| !s.is_over()) {
            step.nodes.retain(|node, _| stays(node));
        }
    }
}

fn remove(state: &mut ClusterState, at: LogStamp, node: &NodeId) {
    let Some(record) = state.nodes.remove(node) else { return };
    release_from_operations(state, at, node);
    state.approved.remove(node);
    for group in state.groups.values_mut() {
        group.leftovers.retain(|_, nodes| {
            nodes.remove(node);
            !nodes.is_empty()
        });
    }
    state.gone.insert(node.clone(), Gone { nonce: record.nonce, at: at.proposed_at, let_in: None });
}

/// Since when the node is the installation that it is; zeroes of an unknown one.
pub fn known_since(state: &ClusterState, node: &NodeId) -> Grant {
    state.nodes.get(node).map(|record| record.since).unwrap_or_default()
}

/// The agent that asks is taken to know nothing: whatever the former one proved in steps that are not over is asked for
/// again.
fn readmit(
    state: &mut ClusterState,
    at: LogStamp,
    node: &NodeId,
    nonce: String,
    boot: u64,
) -> Result<(), Rejection> {
    if let Some(gone) = state.gone.get_mut(node).filter(|g| g.nonce == nonce) {
        gone.let_in = Some(boot);
        return Ok(());
    }
    let record = state.nodes.get_mut(node).ok_or_else(|| unknown(node))?;
    record.succeeds |= record.nonce != nonce;
    (record.nonce, record.boot, record.since) = (nonce, boot, at.grant());
    if record.leaving.is_some() && !mutant::is("leaver-waited-for") {
        // Nobody waits for it, and its spec asks it to take everything away already.
        return Ok(());
    }
    let group = record.group.clone();
    for operation in state.operations.values_mut().filter(|o| !o.phase.has_ended() && o.group == group) {
        for step in operation.steps.iter_mut().filter(|s| !s.is_over()) {
            if let Some(entry) = step.nodes.get_mut(node).filter(|n| n.verdict != Some(Verdict::Excused)) {
                *entry = Arc::default();
            }
        }
        fleet::include(operation, &state.nodes, node);
    }
    Ok(())
}

/// Whether the agent knows less than what it was verified with in an operation that is not over: its memory was set back.
pub fn is_behind(state: &ClusterState, node: &NodeId, generation: u64) -> bool {
    let Some(since) = state.nodes.get(node).map(|n| n.since) else { return false };
    let verified = |o: &Operation| {
        let entries = o.steps.iter().filter_map(|s| s.nodes.get(node));
        let verified = entries.filter(|n| n.verdict == Some(Verdict::Verified));
        verified.filter_map(|n| n.grant).any(|g| g.index > generation && g > since)
    };
    state.live_operations().any(verified)
}

pub(super) fn change_group(
    state: &mut ClusterState,
    at: LogStamp,
    name: &GroupName,
    change: GroupChange,
    reason: String,
) -> Result<Vec<Event>, Rejection> {
    let same = is_group_so(state, name, &change);
    let group = state.groups.get_mut(name).ok_or_else(|| {
        Rejection::new("GROUP_NOT_FOUND", format!("there is no group {name}")).hint("kctl group list")
    })?;
    let done = Event::GroupChanged { group: name.clone(), verb: change.verb().into() };
    match change {
        _ if same => {}
        GroupChange::Hold => group.hold = Some(Hold { reason, since: at.proposed_at, drain: false }),
        GroupChange::Unhold => group.hold = None,
        GroupChange::Windows(windows) => {
            if windows.len() > MAX_WINDOWS {
                let message = format!("a group has at most {MAX_WINDOWS} maintenance windows");
                return Err(Rejection::new("WINDOW_INVALID", message).hint("kctl group set --help"));
            }
            group.windows = windows;
        }
        GroupChange::Expect(nodes) => group.expected_nodes = nodes,
        GroupChange::SharesDatabase(shares) => group.shares_database = shares,
    }
    Ok(vec![done])
}
