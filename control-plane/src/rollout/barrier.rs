//! When a node's step is over, and when a whole step is.
//!
//! Only a proof that answers the node's present grant counts. Everything else is a reason to wait, and says so.

use std::borrow::Cow;

use kctl_shared::method::Method;
use kctl_shared::mutant;
use kctl_shared::name::NodeId;
use kctl_shared::spec::{Failure, Grant, KongState, PluginStatus, ReleaseRef, Stage};
use kctl_shared::time::Timestamp;

use super::fleet::{GRACE_MS, Liveness};
use super::walk::Place;
use super::{Round, WaitingOn, limits};
use crate::state::fence;
use crate::state::model::Target;
use crate::state::operation::{NodeStep, Operation, RETRY_MS, Step, StepKind, Verdict};

pub(crate) enum Judgement {
    Over(Verdict),
    Open(WaitingOn),
}

pub(crate) fn judge(
    round: &Round<'_>,
    step: &Step,
    proof: &Proof,
    place: &Place<'_>,
    grant: Grant,
) -> Judgement {
    let dispatched = place.entry.dispatched_at.unwrap_or(round.now);
    let answer = place.answer(&round.operation.plugin, grant);
    // Whoever is out of its load balancer is not where it should be, whatever it runs.
    let drained = step.kind.reloads() && place.report.is_some_and(|r| r.status.drained);
    if let Some(answer) = answer.filter(|a| !drained || a.failure.is_some()) {
        if proof.is_given(place.node, answer) || mutant::is("applied-counts-as-verified") {
            return Judgement::Over(Verdict::Verified);
        }
        if let (Some(failure), false) = (&answer.failure, step.kind.waits_for_ever()) {
            return Judgement::Over(Verdict::Failed(failure.clone()));
        }
    }
    if let Some(held) = limits::held(place.node, place.record) {
        return Judgement::Open(held);
    }
    let waiting = reason(round, place, answer, dispatched);
    let overdue = round.now.since(dispatched) > round.operation.policy.node_deadline_ms;
    let informed = round.now.since(round.fleet.leader_since) > GRACE_MS;
    if overdue && informed && !step.kind.waits_for_ever() {
        let message = format!(
            "not done within {} s; {}",
            round.operation.policy.node_deadline_ms / 1000,
            waiting.message
        );
        return Judgement::Over(Verdict::Failed(Failure::new("NODE_DEADLINE", message)));
    }
    Judgement::Open(waiting)
}

/// What a node has to show in a step: the same for all its nodes, so it is made once.
pub(crate) struct Proof<'a> {
    kind: StepKind,
    release: Option<ReleaseRef>,
    /// What nodes had before the operation, and which.
    before: Option<(ReleaseRef, &'a Target)>,
}

impl<'a> Proof<'a> {
    pub fn of(round: &Round<'a>, step: &Step) -> Self {
        let (state, operation) = (round.state, round.operation);
        let release = state.release_ref(&operation.release, &operation.method, operation.set_nginx);
        let before = state.plugin(&operation.group, &operation.plugin).and_then(|plugin| {
            let (release, method, set_nginx) = operation.before()?;
            Some((state.release_ref(&release, method, set_nginx)?, &plugin.target))
        });
        Self { kind: step.kind, release, before }
    }

    pub fn is_given(&self, node: &NodeId, answer: &PluginStatus) -> bool {
        let loaded = |wanted: Option<&ReleaseRef>| match wanted {
            Some(wanted) => {
                answer.stage == Stage::Enabled && answer.loaded.as_ref().is_some_and(|l| l.is(wanted))
            }
            None => answer.stage < Stage::Enabled && answer.loaded.is_none(),
        };
        // What others put there under this name is no trace of the operation.
        let theirs = || answer.failure.as_ref().is_some_and(|f| f.code == "PLUGIN_NOT_OURS");
        let before = || self.before.as_ref().filter(|(_, target)| target.includes(node)).map(|(r, _)| r);
        let has = |wanted: &ReleaseRef| answer.staged.iter().any(|s| s.is(wanted));
        let release = self.release.as_ref();
        match self.kind {
            StepKind::Stage => release.is_some_and(has),
            StepKind::Preflight => {
                release.is_some_and(|r| answer.preflighted.as_ref().is_some_and(|p| p.is(r)))
            }
            StepKind::Enable => release.is_some() && loaded(release),
            StepKind::Disable => loaded(None),
            // One that joined with a plugin of that name is not disabled by others' removal; it is told of as found there.
            StepKind::Purge => answer.staged.is_empty() && (answer.stage == Stage::Absent || theirs()),
            StepKind::Restore => loaded(before()) || (before().is_none() && theirs()),
            StepKind::Unstage => match before() {
                Some(before) => has(before) && answer.staged.len() == 1,
                None => answer.staged.is_empty() && (answer.stage == Stage::Absent || theirs()),
            },
            StepKind::Detach | StepKind::Attach => false,
        }
    }
}

fn reason(
    round: &Round<'_>,
    place: &Place<'_>,
    answer: Option<&PluginStatus>,
    since: Timestamp,
) -> WaitingOn {
    let node = place.node;
    let waiting = |reason: Cow<'static, str>, message: String, since| WaitingOn {
        node: Some(node.clone()),
        reason,
        message,
        since,
    };
    if round.fleet.liveness_of(place.report, round.now) != Liveness::Live {
        let seen = round.fleet.seen_of(place.report);
        let message =
            format!("the agent of {node} has not been heard for {} s", round.now.since(seen) / 1000);
        return waiting("AGENT_UNREACHABLE".into(), message, seen);
    }
    let status = place.report.map(|r| &r.status);
    let kong = status.map(|s| s.kong.state).unwrap_or_default();
    let hook = status.and_then(|s| s.conditions.iter().find(|c| c.code.ends_with("DRAIN_FAILED")));
    if let Some(failure) = hook {
        return waiting(failure.code.clone().into(), failure.message.clone(), since);
    }
    match answer {
        Some(PluginStatus { waiting: Some(w), .. }) => {
            waiting(w.code.clone().into(), w.message.clone(), since)
        }
        _ if kong == KongState::Down => {
            waiting("KONG_DOWN".into(), format!("Kong is not running on {node}"), since)
        }
        _ if kong == KongState::Stopped => {
            waiting("KONG_STOPPED".into(), format!("Kong's master process on {node} is stopped"), since)
        }
        Some(PluginStatus { failure: Some(f), .. }) => {
            waiting(f.code.clone().into(), f.message.clone(), since)
        }
        Some(answer) => waiting("IN_PROGRESS".into(), format!("{node} is {}", answer.word), since),
        None => waiting("IN_PROGRESS".into(), format!("{node} has not taken it up yet"), since),
    }
}

/// Nodes that gave up in a step that must end well, whose turn it is to try again.
pub(crate) fn dispatch_again(round: &Round<'_>, step: &Step) -> Vec<NodeId> {
    if !step.kind.waits_for_ever() {
        return Vec::new();
    }
    let gave_up = |node: &NodeId, entry: &NodeStep| {
        let Some(grant) = entry.grant else { return false };
        let rested = entry.dispatched_at.is_some_and(|at| round.now.since(at) > RETRY_MS);
        rested && round.answer(node, grant).is_some_and(|a| a.failure.is_some())
    };
    step.open_nodes().filter(|(n, e)| gave_up(n, e)).map(|(n, _)| n.clone()).collect()
}

/// What the barrier waits for besides the nodes' verdicts. Before files may go, no worker that could still need them
/// lives, and a scan made after the last node had dropped the plugin found no entity.
pub(crate) fn before_passing(round: &Round<'_>, step: &Step) -> Option<Vec<WaitingOn>> {
    if step.kind != StepKind::Disable {
        return None;
    }
    let operation = round.operation;
    let next = operation.steps.get(operation.cursor + 1)?;
    let settled = step.nodes.values().filter_map(|n| n.finished_at).max().unwrap_or_default();
    fence::grant(round.state, operation, operation.cursor)?;
    if let Some(waiting) = super::detach::fence(round, settled).filter(|_| !mutant::is("skip-f2")) {
        return Some(vec![waiting]);
    }
    if next.kind != StepKind::Purge {
        return None;
    }
    let lingering = |node: &NodeId| {
        let count =
            round.heard(node).and_then(|r| r.status.plugins.get(&operation.plugin)).map(|p| p.old_workers);
        match count {
            Some(0) => None,
            Some(_) if mutant::is("old-workers-ignored") => None,
            Some(n) => Some((n, format!("{n} old workers of Kong still run on {node}"))),
            None => Some((0, format!("{node} has not reported its old workers yet"))),
        }
    };
    let waiting: Vec<_> = operation
        .touched(&[StepKind::Disable])
        .iter()
        .filter(|node| !operation.interventions.excused.contains_key(*node))
        // Decommissioned: nothing of it can be asked any more.
        .filter(|node| round.state.nodes.contains_key(*node))
        .filter_map(|node| {
            let (_, message) = lingering(node)?;
            let liveness = round.fleet.liveness(node, round.now);
            let reason = if liveness == Liveness::Live { "OLD_WORKERS" } else { "AGENT_UNREACHABLE" };
            Some(WaitingOn { node: Some(node.clone()), reason: reason.into(), message, since: settled })
        })
        .collect();
    (!waiting.is_empty()).then_some(waiting)
}

pub(crate) fn summary(operation: &Operation, step: &Step) -> String {
    let (all, verified) = (step.nodes.len(), step.verified_nodes().count());
    let what = match step.kind {
        StepKind::Stage => "have the files",
        StepKind::Preflight => "loaded it in a scratch Kong",
        StepKind::Enable => "run it",
        StepKind::Disable => "no longer run it",
        StepKind::Purge if matches!(operation.method, Method::Path { .. }) => {
            "have forgotten it; its files are not kctl's and were left in place"
        }
        StepKind::Purge | StepKind::Unstage => "have no files left",
        StepKind::Restore => "are as before",
        StepKind::Detach | StepKind::Attach => "",
    };
    format!("{verified}/{all} nodes {what}")
}
