//! What to propose next, and why nothing else.
//!
//! [`plan`] is pure: it sees the replicated state, what the agents reported, and the time; it never mutates. It rebuilds
//! its picture every time, so a new leader needs nothing but these three.
#![deny(clippy::disallowed_methods)]

mod attach;
pub mod barrier;
mod batch;
pub mod detach;
mod errors;
pub mod fleet;
mod gate;
mod limits;
pub mod runbook;
mod stop;
mod walk;
pub mod waves;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use kctl_shared::name::{GroupName, NodeId};
use kctl_shared::spec::{Grant, PluginStatus};
use kctl_shared::time::Timestamp;

use crate::state::command::Command;
use crate::state::fence;
use crate::state::model::ClusterState;
use crate::state::operation::{Operation, OperationId, OperationKind, Phase, Step, StepKind, Verdict};
use crate::state::progress::settled;
use barrier::Judgement;
use fleet::Fleet;
use gate::Gate;
use kctl_shared::spec::Stage;

/// Why an operation does not move at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingOn {
    /// `None`: for the control plane, or for time to pass.
    pub node: Option<NodeId>,
    pub reason: Cow<'static, str>,
    pub message: String,
    pub since: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Plan {
    pub commands: Vec<Command>,
    pub report: BTreeMap<OperationId, Vec<WaitingOn>>,
}

/// One round of decisions: at most one command for each live operation.
pub fn plan(state: &ClusterState, fleet: &Fleet, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut taken = Taken::of(state);
    for operation in state.live_operations() {
        let mut round = Round { state, fleet, now, operation, waiting: Vec::new() };
        let command = round.next(&mut taken);
        plan.commands.extend(command);
        plan.report.insert(operation.id.clone(), round.waiting);
    }
    plan.commands.extend(forget_leftovers(state, fleet));
    plan.commands.extend(limits::forget_left(state, fleet));
    plan
}

/// Nodes that an operation ended without, and that are rid of its plugin now.
fn forget_leftovers(state: &ClusterState, fleet: &Fleet) -> Vec<Command> {
    let mut commands = Vec::new();
    for (group, record) in &state.groups {
        for (plugin, nodes) in &record.leftovers {
            let rid = nodes.iter().filter(|(node, grant)| {
                fleet
                    .answer(node, plugin, **grant)
                    .is_some_and(|a| a.stage == Stage::Absent && a.staged.is_empty() && a.loaded.is_none())
            });
            commands.extend(rid.map(|(node, _)| Command::ForgetLeftover {
                group: group.clone(),
                plugin: plugin.clone(),
                node: node.clone(),
            }));
        }
    }
    commands
}

/// Nodes that work for any operation already, or will after this round.
struct Taken {
    /// May be reloading; of each group.
    reloading: BTreeMap<GroupName, BTreeSet<NodeId>>,
    /// Work on plugin entities.
    appliers: BTreeSet<NodeId>,
}

impl Taken {
    fn of(state: &ClusterState) -> Self {
        let mut reloading: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for operation in state.live_operations() {
            if let Some(step) = operation.current().filter(|s| s.kind.reloads()) {
                let acting = step.open_nodes().filter(|(_, n)| n.grant.is_some());
                let nodes = reloading.entry(operation.group.clone()).or_default();
                nodes.extend(acting.map(|(node, _)| node.clone()));
            }
        }
        let appliers = state.live_operations().filter_map(|o| o.applier.as_ref());
        Self { reloading, appliers: appliers.map(|a| a.node.clone()).collect() }
    }
}

fn in_flight(step: &Step) -> usize {
    step.open_nodes().filter(|(_, n)| n.grant.is_some()).count()
}

/// Shared by the files of this module: one operation in one round.
pub(crate) struct Round<'a> {
    pub state: &'a ClusterState,
    pub fleet: &'a Fleet,
    pub now: Timestamp,
    pub operation: &'a Operation,
    pub waiting: Vec<WaitingOn>,
}

impl<'a> Round<'a> {
    /// The node's report, if the start of its agent that is registered made it: an earlier one proves nothing.
    pub fn heard(&self, node: &NodeId) -> Option<&'a fleet::Report> {
        walk::present(self.state.nodes.get(node), self.fleet.reports.get(node))
    }

    /// What that report says of the operation's plugin in answer to `grant`.
    pub fn answer(&self, node: &NodeId, grant: Grant) -> Option<&'a PluginStatus> {
        self.heard(node)?.status.plugins.get(&self.operation.plugin).filter(|p| p.grant == grant)
    }

    fn next(&mut self, taken: &mut Taken) -> Option<Command> {
        let operation = self.operation;
        let id = operation.id.clone();
        let Some(step) = operation.current() else {
            let phase = match operation.phase {
                Phase::RollingBack if operation.interventions.aborted => match operation.kind {
                    OperationKind::Remove => Phase::Compensated,
                    OperationKind::Install | OperationKind::Upgrade => Phase::Aborted,
                },
                Phase::RollingBack => Phase::Failed,
                _ => Phase::Succeeded,
            };
            return Some(Command::FinishOperation { operation: id, phase });
        };
        if let Some(command) = batch::follow(self) {
            return Some(command);
        }
        if let Some(hold) = &operation.interventions.hold {
            // Nodes that act already finish; nothing else is decided.
            let verdicts = self.verdicts(step);
            self.waiting.insert(0, gate::held(&id, hold));
            return settled(self.state, operation, verdicts);
        }
        if let Some(command) = detach::watch(self, step, &mut taken.appliers) {
            return Some(command);
        }
        if step.kind == StepKind::Detach {
            return detach::plan(self);
        }
        if step.kind == StepKind::Attach {
            return attach::plan(self);
        }
        let verdicts = self.verdicts(step);
        if let Some(command) = settled(self.state, operation, verdicts) {
            return Some(command);
        }
        if let Some(stop) = stop::stop(self, step) {
            return Some(stop);
        }
        if step.open_nodes().next().is_none() {
            return self.pass(step);
        }
        self.dispatch(step, &mut taken.reloading)
    }

    /// Verdicts that the agents' proofs allow now; everything else becomes a reason to wait.
    fn verdicts(&mut self, step: &'a Step) -> BTreeMap<NodeId, Verdict> {
        let proof = barrier::Proof::of(self, step);
        let (mut verdicts, mut waiting) = (Vec::new(), Vec::new());
        for place in walk::walk(self, step.nodes.len(), step.open_nodes()) {
            let Some(grant) = place.entry.grant else { continue };
            match barrier::judge(self, step, &proof, &place, grant) {
                Judgement::Over(verdict) => verdicts.push((place.node.clone(), verdict)),
                Judgement::Open(reason) => waiting.push(reason),
            }
        }
        self.waiting.append(&mut waiting);
        verdicts.into_iter().collect()
    }

    /// All nodes have their verdict: what else the barrier waits for, then past it.
    fn pass(&mut self, step: &Step) -> Option<Command> {
        if let Some(waiting) = barrier::before_passing(self, step) {
            self.waiting.extend(waiting);
            return None;
        }
        if let Gate::Closed(command) = gate::gate(self, step) {
            return command;
        }
        if let Some(waiting) = batch::last_step(self) {
            self.waiting.push(waiting);
            return None;
        }
        Some(Command::AdvanceCursor {
            operation: self.operation.id.clone(),
            from: self.operation.cursor,
            summary: barrier::summary(self.operation, step),
            scanned: Some(
                fence::grant(self.state, self.operation, self.operation.cursor).unwrap_or_default(),
            ),
        })
    }

    /// Lets as many nodes act as the policy and the group's health allow.
    fn dispatch(
        &mut self,
        step: &Step,
        reloading: &mut BTreeMap<GroupName, BTreeSet<NodeId>>,
    ) -> Option<Command> {
        let operation = self.operation;
        let closed = || limits::closed(self, step.kind);
        if let Some(waiting) = batch::behind(self, step).or_else(closed) {
            self.waiting.push(waiting);
            return None;
        }
        let (mut nodes, mut held) = (Vec::new(), Vec::new());
        let again = barrier::dispatch_again(self, step);
        let new = step.open_nodes().filter(|(_, n)| n.grant.is_none()).map(|(id, _)| id.clone());
        // Mostly nobody is, and with thousands of nodes it matters that none is looked up then.
        let any = self.state.nodes.values().any(|n| n.hold.is_some());
        let mut free = |node: &NodeId| {
            let waiting = limits::held(node, if any { self.state.nodes.get(node) } else { None });
            let free = waiting.is_none();
            held.extend(waiting);
            free
        };
        nodes.extend(again.into_iter().filter(&mut free));
        let waiting: Vec<_> = new.filter(&mut free).collect();
        self.waiting.extend(held);
        if step.kind.reloads() {
            let busy = reloading.entry(operation.group.clone()).or_default();
            let half = (self.state.nodes_of(&operation.group).count() / 2).max(1);
            let mut own = operation.policy.max_parallel.saturating_sub(in_flight(step));
            for node in waiting {
                // Never more than half of a group's nodes reload together, whatever the operations' policies allow; one
                // that reloads for another operation is none more.
                if own > 0 && (busy.contains(&node) || busy.len() < half) {
                    own -= 1;
                    busy.insert(node.clone());
                    nodes.push(node);
                }
            }
        } else {
            nodes.extend(waiting);
        }
        (!nodes.is_empty()).then(|| Command::Dispatch {
            operation: operation.id.clone(),
            step: operation.cursor,
            nodes,
        })
    }
}
