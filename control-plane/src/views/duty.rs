//! What people said of nodes and groups, as it is shown.

use kctl_shared::name::NodeId;
use kctl_shared::proto::v1;
use kctl_shared::time::Timestamp;

use super::Sources;
use crate::rollout::fleet::{Fleet, Liveness, Refused, Why};
use crate::state::model::{ClusterState, Hold, Node};
use crate::state::{leftovers, window};

fn hold(hold: &Hold) -> v1::HoldView {
    v1::HoldView { reason: hold.reason.clone(), since: Some(hold.since.to_proto()), drain: hold.drain }
}

/// The state of a node whose agent is not taken in.
pub(super) fn refused(why: Why) -> &'static str {
    if why == Why::RolledBack { "Quarantined" } else { "Refused" }
}

pub(super) fn why_refused(id: &NodeId, refused: &Refused) -> v1::Condition {
    let what = match refused.why {
        Why::Epoch => format!("it follows the cluster of epoch {}", refused.epoch),
        Why::Installation => "the node is known with another installation of its agent".into(),
        Why::Decommissioned => "the node was decommissioned".into(),
        Why::RolledBack => {
            "its agent knows less than what it was verified with: its memory was set back".into()
        }
    };
    let message = format!("{what}; let it in: kctl node approve {id}");
    v1::Condition { code: refused.why.code().into(), message }
}

/// Holds and departures. The state stays what it is where the agent cannot be heard.
pub(super) fn of(id: &NodeId, node: &Node, fleet: &Fleet, liveness: Liveness, view: &mut v1::NodeView) {
    view.hold = node.hold.as_ref().map(hold);
    let mut say = |state: &str, code: &str, message: String| {
        if liveness == Liveness::Live {
            view.state = state.into();
        }
        view.conditions.push(v1::Condition { code: code.into(), message });
    };
    if let Some(leaving) = &node.leaving {
        let waits = fleet
            .status(id)
            .and_then(|s| s.plugins.values().find_map(|p| p.failure.as_ref().or(p.waiting.as_ref())));
        let waits = waits.map(|w| format!("; {} {}", w.code, w.message)).unwrap_or_default();
        let message = format!(
            "it is being decommissioned and goes once nothing of kctl's runs there, or its Kong is stopped{waits}"
        );
        say("Leaving", "LEAVING", message);
        let (reason, since) = (leaving.reason.clone(), Some(leaving.since.to_proto()));
        view.leaving = Some(v1::HoldView { reason, since, drain: false });
    } else if let Some(hold) = &node.hold {
        let state = if hold.drain { "Draining" } else { "Held" };
        say(state, "NODE_HELD", format!("nothing is changed on it; go on: kctl node unhold {id}"));
    }
}

/// What operations that ended without a node left there, and what refers to it.
pub(super) fn left_over(state: &ClusterState, id: &NodeId, fleet: &Fleet) -> Vec<v1::Condition> {
    let group = state.nodes.get(id).and_then(|node| state.groups.get(&node.group));
    let Some(group) = group.filter(|group| !group.leftovers.is_empty()) else { return Vec::new() };
    let left = group.leftovers.iter().filter(|(_, nodes)| nodes.contains_key(id));
    let left = left.map(|(plugin, _)| v1::Condition {
        code: "LEFT_OVER".into(),
        message: format!("{plugin} was removed without this node, and is taken away here once its agent can"),
    });
    let task = fleet.status(id).and_then(|status| status.task.as_ref());
    let referring = task.and_then(|task| leftovers::referring(group, task)).map(|(plugin, count)| {
        let nodes = group.leftovers[plugin].keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        v1::Condition {
            code: "REFERENCED_AFTER_REMOVAL".into(),
            message: format!(
                "{count} plugin configurations of {plugin} were created since it was removed, while it is left over on \
                 {nodes}: nodes without it take no change of any plugin; delete them on Kong's Admin API"
            ),
        }
    });
    left.chain(referring).collect()
}

impl Sources<'_> {
    pub fn groups(&self) -> Vec<v1::GroupView> {
        self.state.groups.keys().filter_map(|name| self.group(name)).collect()
    }

    pub fn group(&self, name: &kctl_shared::name::GroupName) -> Option<v1::GroupView> {
        let group = self.state.groups.get(name)?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(v1::GroupView {
            name: name.to_string(),
            nodes: count(self.state.nodes_of(name).count()),
            plugins: count(group.plugins.len()),
            hold: group.hold.as_ref().map(hold),
            windows: group.windows.iter().map(ToString::to_string).collect(),
            open: group.hold.is_none() && window::is_open(&group.windows, self.now),
            opens_at: window::opens_at(&group.windows, self.now).map(Timestamp::to_proto),
            expected_nodes: group.expected_nodes.unwrap_or_default(),
            shares_database: group.shares_database,
        })
    }
}
