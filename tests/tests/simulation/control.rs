//! The control plane: one log, members that apply it at their own pace, a leader, and deposed ones that do not know it.
//!
//! Consensus itself is openraft's and tested elsewhere; here the log is simply there, but what goes into it may come
//! late, from a member that leads no more, and decided on a state that is not the newest: harsher than Raft allows.

use std::collections::BTreeMap;

use kctl_control_plane::desired::node_spec;
use kctl_control_plane::inventory::{Inventory, Ticket};
use kctl_control_plane::rollout;
use kctl_control_plane::rollout::detach::LEASE_MS;
use kctl_control_plane::rollout::fleet::{Refused, Why, stranger};
use kctl_control_plane::state::{ClusterState, Command, LogStamp, apply, presented};
use kctl_shared::name::{GroupName, NodeId};
use kctl_shared::spec::NodeStatus;
use kctl_shared::time::Timestamp;

use super::laws::Law;

#[derive(Debug)]
pub struct Member {
    pub applied: usize,
    pub state: ClusterState,
    pub inventory: Inventory,
    /// Takes itself for the leader.
    pub leads: bool,
    /// Another one leads since then.
    pub deposed_at: Option<Timestamp>,
    /// What its clock is ahead.
    pub ahead_ms: u64,
    pub sessions: BTreeMap<NodeId, Served>,
    /// Its planner waits for this proposal.
    pub planning: Option<u64>,
    /// Which start of an agent the newest report of a node is from.
    pub heard: BTreeMap<NodeId, u64>,
    /// Specs may have changed, or somebody new is there to have one.
    unserved: bool,
    /// What operations waited for, by the last plan.
    pub waiting: Vec<String>,
}

/// A stream as its server sees it.
#[derive(Debug)]
pub struct Served {
    pub session: u64,
    pub ticket: Ticket,
    pub sent: String,
}

#[derive(Clone, Debug)]
pub struct Who {
    pub node: NodeId,
    pub session: u64,
    pub nonce: String,
    pub boot: u64,
}

#[derive(Clone, Debug)]
pub struct Proposal {
    pub id: u64,
    pub from: usize,
    pub at: Timestamp,
    pub commands: Vec<Command>,
    /// The report that waits for the registration.
    pub then: Option<(Who, bool, NodeStatus)>,
}

pub struct Entry {
    pub at: Timestamp,
    pub commands: Vec<Command>,
}

pub fn group() -> GroupName {
    GroupName::parse("default").unwrap()
}

impl Member {
    pub fn new() -> Self {
        Self {
            applied: 0,
            state: ClusterState::default(),
            inventory: Inventory::default(),
            leads: false,
            deposed_at: None,
            ahead_ms: 0,
            sessions: BTreeMap::new(),
            planning: None,
            heard: BTreeMap::new(),
            unserved: true,
            waiting: Vec::new(),
        }
    }

    pub fn clock(&self, now: Timestamp) -> Timestamp {
        now.plus_ms(self.ahead_ms)
    }

    pub fn catch_up(&mut self, log: &[Entry], upto: usize) {
        while self.applied < upto.min(log.len()) {
            let entry = &log[self.applied];
            self.applied += 1;
            self.unserved = true;
            for (stamp, command) in stamped(entry, self.applied as u64) {
                let _refused = apply(&mut self.state, stamp, command);
            }
        }
    }

    pub fn lead(&mut self, now: Timestamp) {
        self.leads = true;
        self.deposed_at = None;
        self.planning = None;
        self.sessions.clear();
        self.heard.clear();
        self.inventory.reset(self.clock(now));
    }

    pub fn step_down(&mut self) {
        self.leads = false;
        self.sessions.clear();
        self.planning = None;
    }

    /// Decides as the orchestrator does.
    ///
    /// # Errors
    /// When evidence of a start of an agent counts that is not the newest known.
    pub fn plan(&mut self, now: Timestamp) -> Result<Vec<Command>, Law> {
        if !self.leads || self.planning.is_some() {
            return Ok(Vec::new());
        }
        let at = self.clock(now);
        let plan = self.inventory.with(|fleet| rollout::plan(&self.state, fleet, at));
        self.waiting = plan.report.values().flatten().map(|w| w.reason.to_string()).collect();
        for command in &plan.commands {
            let Command::Settle { verdicts, .. } = command else { continue };
            let old = verdicts.iter().find(|(node, verdict)| {
                matches!(verdict, kctl_control_plane::state::operation::Verdict::Verified)
                    && self.heard.get(*node) != self.state.nodes.get(*node).map(|n| &n.boot)
            });
            if let Some((node, _)) = old {
                return Err(Law::new(
                    "I15",
                    format!("{node} is judged by a start of its agent that is over"),
                ));
            }
        }
        Ok(plan.commands)
    }

    /// Why the agent is not taken for the one that is known, if so; it waits to be let in.
    pub fn refuses(&self, who: &Who, generation: u64, now: Timestamp) -> Option<Why> {
        let connected = self.inventory.is_connected(&who.node);
        let heard = self.inventory.followed(&who.node);
        let why = stranger(&self.state, &who.node, &who.nonce, who.boot, generation, heard, connected)?;
        let (nonce, boot, since) = (who.nonce.clone(), who.boot, self.clock(now));
        let asks = Refused { why, epoch: self.state.epoch, nonce, boot, group: group(), since };
        self.inventory.refuse(&who.node, asks);
        Some(why)
    }

    /// The node's stream has ended.
    pub fn close(&mut self, node: &NodeId) {
        if let Some(served) = self.sessions.remove(node) {
            self.inventory.close(&served.ticket);
        }
    }

    /// What has to be committed before a report of this agent may be looked at.
    pub fn registration(&self, who: &Who, status: &NodeStatus) -> Option<Command> {
        presented(&self.state, &who.node, &group(), &who.nonce, who.boot, &status.kong)
    }

    /// Takes in a report whose node is registered as it says.
    pub fn take(&mut self, who: &Who, hello: bool, status: NodeStatus, now: Timestamp) -> bool {
        let at = self.clock(now);
        if hello {
            let opened = self.inventory.open(who.node.clone(), who.boot, String::new(), at);
            let Ok((ticket, _)) = opened else { return false };
            let served = Served { session: who.session, ticket, sent: String::new() };
            self.sessions.insert(who.node.clone(), served);
            self.unserved = true;
        }
        match self.sessions.get(&who.node).filter(|s| s.session == who.session) {
            Some(served) => {
                self.inventory.ingest(&served.ticket, status, at);
                self.heard.insert(who.node.clone(), who.boot);
                true
            }
            None => false,
        }
    }

    pub fn beat(&mut self, who: &Who, now: Timestamp) -> bool {
        if self.deposed_at.is_some_and(|at| at.plus_ms(UNAWARE) < now) {
            return false;
        }
        let at = self.clock(now);
        match self.sessions.get(&who.node).filter(|s| s.session == who.session) {
            Some(served) => {
                self.inventory.heard(&served.ticket, at);
                true
            }
            None => false,
        }
    }

    /// Specs that changed since they were sent, each whole; `None` for a node that was decommissioned.
    pub fn specs(&mut self) -> Vec<(NodeId, u64, Option<kctl_shared::spec::NodeSpec>)> {
        let mut out = Vec::new();
        if !std::mem::take(&mut self.unserved) {
            return out;
        }
        for (node, served) in &mut self.sessions {
            if !self.state.nodes.contains_key(node) {
                out.push((node.clone(), served.session, None));
                continue;
            }
            let spec = node_spec(&self.state, node);
            let hash = spec.hash();
            if hash != served.sent {
                served.sent = hash;
                out.push((node.clone(), served.session, Some(spec)));
            }
        }
        out
    }
}

pub fn stamped(entry: &Entry, index: u64) -> impl Iterator<Item = (LogStamp, Command)> {
    let at = entry.at;
    entry
        .commands
        .iter()
        .cloned()
        .zip(0..)
        .map(move |(command, offset)| (LogStamp { index, offset, proposed_at: at }, command))
}

pub const LEASE: u64 = LEASE_MS;
/// For so long a deposed leader renews leases: it is without a majority before another one leads, and sees that within an
/// election timeout.
const UNAWARE: u64 = 2_000;
