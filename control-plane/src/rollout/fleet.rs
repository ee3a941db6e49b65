//! What the agents reported, as far as decisions need it: the pure view of the leader's inventory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use kctl_shared::fault::Fault;
use kctl_shared::mutant;
use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::spec::{Grant, KongState, NodeStatus, PluginStatus};
use kctl_shared::time::Timestamp;

use crate::state::ClusterState;
use crate::state::command::Command;
use crate::state::duty::{NodeChange, is_behind, known_since};

/// Nothing heard for this long: the node is named as a reason to wait.
pub const SUSPECT_MS: u64 = 10_000;
/// Nothing heard for this long: the node is taken to be out of reach.
pub const LOST_MS: u64 = 15_000;
/// How long after an election a node that has not reported yet counts as unknown rather than lost.
pub const GRACE_MS: u64 = 30_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    pub reports: BTreeMap<NodeId, Report>,
    /// When this leader took over; nothing before it is known.
    pub leader_since: Timestamp,
    /// Nodes that ask and are not taken in until somebody approves them.
    pub refused: BTreeMap<NodeId, Refused>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: Why,
    /// Of the cluster that it follows.
    pub epoch: u64,
    /// Installation and start of its agent.
    pub nonce: String,
    pub boot: u64,
    pub group: GroupName,
    /// When it asked last.
    pub since: Timestamp,
}

/// Why an agent is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It follows a cluster of another epoch.
    Epoch,
    /// The node is known with another installation of its agent.
    Installation,
    /// It was decommissioned.
    Decommissioned,
    /// It knows less than what it was verified with: its memory was set back.
    RolledBack,
}

impl Why {
    /// The code it is refused with.
    pub fn code(self) -> &'static str {
        match self {
            Self::Epoch => "EPOCH_CHANGED",
            Self::Installation => "NODE_ID_IN_USE",
            Self::Decommissioned => "NODE_DECOMMISSIONED",
            Self::RolledBack => "AGENT_ROLLED_BACK",
        }
    }
}

/// Why an agent that presents itself is not taken for the one that is known, if so: its installation, which start of it
/// this is, and the generation that it follows. `heard`: the newest generation that this leader knows the node to have
/// followed; `connected`: the node has a stream already.
pub fn stranger(
    state: &ClusterState,
    node: &NodeId,
    nonce: &str,
    boot: u64,
    generation: u64,
    heard: u64,
    connected: bool,
) -> Option<Why> {
    if let Some(gone) = state.gone.get(node).filter(|g| g.nonce == nonce) {
        let Some(since) = gone.let_in else { return Some(Why::Decommissioned) };
        return (since > boot).then_some(Why::RolledBack);
    }
    let known = state.nodes.get(node)?;
    if known.nonce != nonce {
        return Some(Why::Installation);
    }
    if connected {
        // The later start wins, which the inventory sees to.
        return None;
    }
    let forgot = heard > generation && heard > known.since.index;
    let behind = (forgot || is_behind(state, node, generation)) && !mutant::is("set-back-taken-in");
    (known.boot > boot || behind).then_some(Why::RolledBack)
}

impl Refused {
    /// What lets the agent in; `connected`: the node has a stream.
    ///
    /// # Errors
    /// `NODE_ID_IN_USE` while the installation that the node is known with is connected.
    pub fn admission(
        self,
        state: &ClusterState,
        node: NodeId,
        connected: bool,
        reason: String,
    ) -> Result<Command, Fault> {
        if self.why == Why::Epoch {
            return Ok(Command::ApproveNode { node, epoch: self.epoch, reason });
        }
        if self.why == Why::Installation && connected {
            let message = format!("the installation that node {node} is known with is connected");
            return Err(Fault::new("NODE_ID_IN_USE", message)
                .hint("stop that agent first, or give one of the two another node id"));
        }
        let since = Some(known_since(state, &node));
        let change = NodeChange::Readmit { nonce: self.nonce, boot: self.boot, since };
        Ok(Command::ChangeNode { node, change, reason })
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub status: NodeStatus,
    /// Which start of the agent said so.
    pub boot: u64,
    /// Latest sign of life on the node's stream.
    pub last_seen: Timestamp,
    /// The agent may still act on an entity task until then, if the acknowledgement reached it.
    pub lease_until: Timestamp,
    /// Since when the entity task's scans have been empty.
    pub empty_since: Option<Timestamp>,
    /// Since when its Kong has not been running, or not been ready.
    pub troubled_since: Option<Timestamp>,
}

impl Report {
    /// Takes in whether the node's Kong serves; to be called with each status before it is stored.
    pub fn watch_health(&mut self, status: &NodeStatus, now: Timestamp) {
        let kong = &status.kong;
        // Without an Admin API nobody may be there to be asked whether it is ready.
        let serves = kong.state == KongState::Running && (kong.ready || !kong.has_admin_api);
        self.troubled_since = (!serves).then(|| self.troubled_since.unwrap_or(now));
    }
}

/// What nodes report of their plugins, one copy of what is equal: in a large fleet most of them say the same at any time.
#[derive(Debug, Default)]
pub struct Alike(VecDeque<Weak<Reported>>);

type Reported = BTreeMap<PluginName, PluginStatus>;

/// Different reports that are remembered to be compared with; a rollout makes nodes differ in a few ways at once.
const DIFFERENT: usize = 16;

impl Alike {
    /// The same, if any node said so lately.
    pub fn share(&mut self, said: Arc<Reported>) -> Arc<Reported> {
        let known = |one: &Weak<Reported>| one.upgrade().filter(|one| *one == said);
        if let Some((at, one)) = self.0.iter().enumerate().find_map(|(at, one)| Some((at, known(one)?))) {
            // What was said last is said again next.
            self.0.swap(0, at);
            return one;
        }
        self.0.push_front(Arc::downgrade(&said));
        self.0.truncate(DIFFERENT);
        said
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    Live,
    Suspect,
    Lost,
    /// No report since this leader took over, and the grace period is not over.
    Unknown,
}

impl Liveness {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "Live",
            Self::Suspect => "Suspect",
            Self::Lost => "Lost",
            Self::Unknown => "Unknown",
        }
    }
}

impl Fleet {
    pub fn liveness(&self, node: &NodeId, now: Timestamp) -> Liveness {
        self.liveness_of(self.reports.get(node), now)
    }

    /// As [`Fleet::liveness`], of the node whose report this is.
    pub fn liveness_of(&self, report: Option<&Report>, now: Timestamp) -> Liveness {
        match report {
            None if now.since(self.leader_since) < GRACE_MS => Liveness::Unknown,
            None => Liveness::Lost,
            Some(r) => match now.since(r.last_seen) {
                age if age < SUSPECT_MS => Liveness::Live,
                age if age < LOST_MS => Liveness::Suspect,
                _ => Liveness::Lost,
            },
        }
    }

    pub fn status(&self, node: &NodeId) -> Option<&NodeStatus> {
        self.reports.get(node).map(|r| &r.status)
    }

    /// What the node says of `plugin` in answer to `grant`; an answer to any other grant says nothing.
    pub fn answer(&self, node: &NodeId, plugin: &PluginName, grant: Grant) -> Option<&PluginStatus> {
        self.status(node)?.plugins.get(plugin).filter(|p| p.grant == grant)
    }

    /// Last sign of life, or the leader's start when there was none.
    pub fn seen(&self, node: &NodeId) -> Timestamp {
        self.seen_of(self.reports.get(node))
    }

    /// As [`Fleet::seen`], of the node whose report this is.
    pub fn seen_of(&self, report: Option<&Report>) -> Timestamp {
        report.map_or(self.leader_since, |r| r.last_seen)
    }

    /// Whether the node can be given work on Kong's Admin API now.
    pub fn can_apply(&self, node: &NodeId, now: Timestamp) -> bool {
        self.liveness(node, now) == Liveness::Live
            && self.status(node).is_some_and(|s| s.kong.state == KongState::Running && s.kong.has_admin_api)
    }
}
