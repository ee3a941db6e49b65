//! Between two waves: the wave has to be healthy, for as long as the policy says, and a person may have to agree.

use std::collections::BTreeMap;

use kctl_shared::name::NodeId;
use kctl_shared::spec::{Failure, KongState};
use kctl_shared::time::Timestamp;

use super::fleet::{GRACE_MS, Liveness};
use super::{Round, WaitingOn, barrier, errors, limits};
use crate::state::command::Command;
use crate::state::operation::{Cause, Hold, NodeStep, Step, StepKind};

/// While a wave bakes, a Kong that is not ready for a moment, as when it is reloaded for another plugin, is waited for
/// this long; without a bake as long as a node has for a step.
const UNREADY_MS: u64 = 10_000;

pub(crate) enum Gate {
    Open,
    /// Closed, with what is to be proposed about it; without, a reason to wait is told.
    Closed(Option<Command>),
}

pub(crate) fn gate(round: &mut Round<'_>, step: &Step) -> Gate {
    let operation = round.operation;
    let cursor = operation.cursor;
    let follows = cursor + 1 < operation.steps.len();
    if !step.kind.in_waves() || operation.interventions.promoted == Some(cursor) {
        return Gate::Open;
    }
    // What a removal waits for between its waves it always waited for; more only where it is asked for.
    if follows && (step.kind == StepKind::Enable || operation.policy.bake_ms > 0) {
        let health = health(round, step);
        if !health.failed.is_empty() && step.kind == StepKind::Enable {
            let (operation, failures) = (operation.id.clone(), health.failed);
            return Gate::Closed(Some(Command::Relapse { operation, step: cursor, failures }));
        }
        let sick = !health.waiting.is_empty();
        round.waiting.extend(health.waiting);
        let baking = operation.baking_until(cursor).filter(|until| round.now < *until);
        if let Some(until) = baking {
            round.waiting.push(WaitingOn {
                node: None,
                reason: "BAKING".into(),
                message: format!(
                    "wave {} has to stay healthy until {until}; without waiting: kctl operation promote {}",
                    step.wave, operation.id
                ),
                since: step.nodes.values().filter_map(|n| n.finished_at).max().unwrap_or(round.now),
            });
        }
        if sick || baking.is_some() {
            return Gate::Closed(None);
        }
    }
    if let Some(cause) = operation.asks_after(cursor) {
        let operation = operation.id.clone();
        return Gate::Closed(Some(Command::Hold { operation, from: cursor, cause }));
    }
    Gate::Open
}

#[derive(Default)]
struct Health {
    failed: BTreeMap<NodeId, Failure>,
    waiting: Vec<WaitingOn>,
}

/// Whether the verified nodes of the wave are still what they were proven to be. What nobody can tell is waited for.
fn health(round: &Round<'_>, step: &Step) -> Health {
    let mut health = Health::default();
    let proof = barrier::Proof::of(round, step);
    for (node, entry) in step.verified_nodes().filter(|(node, _)| round.state.stays(node)) {
        let trouble = trouble(round, &proof, node, entry).or_else(|| {
            let figures = errors::rose(round, step, node, entry)?;
            let since = entry.finished_at.unwrap_or(round.now);
            Some((true, errors::CODE, format!("Kong on {node} fails more than before: {figures}"), since))
        });
        if let Some((over, code, message, since)) = trouble {
            if over {
                health.failed.insert(node.clone(), Failure::new(code, message.clone()));
            }
            health.waiting.push(WaitingOn { node: Some(node.clone()), reason: code.into(), message, since });
        }
    }
    health
}

/// What is wrong with a node, since when, and whether that has been so for too long.
fn trouble(
    round: &Round<'_>,
    proof: &barrier::Proof<'_>,
    node: &NodeId,
    entry: &NodeStep,
) -> Option<(bool, &'static str, String, Timestamp)> {
    let (now, fleet) = (round.now, round.fleet);
    let deadline = round.operation.policy.node_deadline_ms;
    let bakes = round.operation.policy.bake_ms > 0;
    let informed = now.since(fleet.leader_since) > GRACE_MS;
    if fleet.liveness(node, now) != Liveness::Live {
        let seen = fleet.seen(node);
        let message = format!("the agent of {node} has not been heard for {} s", now.since(seen) / 1000);
        return Some((informed && now.since(seen) > deadline, "AGENT_UNREACHABLE", message, seen));
    }
    let report = fleet.reports.get(node)?;
    if let Some(since) = report.troubled_since {
        let over = now.since(since) > if bakes { UNREADY_MS } else { deadline };
        let (code, message) = if report.status.kong.state == KongState::Running {
            ("NOT_READY", format!("Kong on {node} says it is not ready since it has been verified"))
        } else {
            ("KONG_DOWN", format!("Kong on {node} does not run any more since it has been verified"))
        };
        return Some((over, code, message, since));
    }
    let settled = entry.finished_at.unwrap_or(now);
    let answer = entry.grant.and_then(|g| fleet.answer(node, &round.operation.plugin, g));
    let Some(answer) = answer else {
        let message = format!("{node} has not said again what it runs");
        let over = informed && now.since(settled.max(fleet.leader_since)) > deadline;
        return Some((over, "NODE_NOT_REPORTED", message, settled));
    };
    if proof.is_given(node, answer) {
        return None;
    }
    let why = answer.failure.as_ref().map(|f| format!(": {}", f.message)).unwrap_or_default();
    let over = bakes || now.since(settled) > deadline;
    Some((
        over,
        "PROOF_LOST",
        format!("{node} does not run any more what it was verified with{why}"),
        settled,
    ))
}

/// What a paused operation waits for, and what can be done.
pub(crate) fn held(id: &str, hold: &Hold) -> WaitingOn {
    let (reason, message) = match &hold.cause {
        Cause::Person { reason } => {
            let why = limits::because(reason);
            ("PAUSED", format!("paused by a person{why}; go on: kctl operation resume {id}"))
        }
        Cause::Wave(1) => (
            "CANARY_PAUSED",
            format!(
                "the first wave is in place; go on: kctl operation promote {id}, or kctl operation abort {id}"
            ),
        ),
        Cause::Wave(wave) => (
            "WAVE_PAUSED",
            format!(
                "wave {wave} is in place; go on: kctl operation promote {id}, or kctl operation abort {id}"
            ),
        ),
        Cause::Step(kind) => (
            "STEP_DONE",
            format!(
                "{} is done, and there the removal was to stop; go on: kctl operation resume {id}, or kctl operation abort {id}",
                kind.as_str()
            ),
        ),
        Cause::Failure(failure) => (
            "FAILURE_PAUSED",
            format!(
                "paused because of {} {}; mend it and kctl operation retry {id} --failed-only, or kctl operation abort {id}",
                failure.code, failure.message
            ),
        ),
    };
    WaitingOn { node: None, reason: reason.into(), message, since: hold.since }
}
