//! The part of a removal that concerns Kong's plugin entities: who works on them, which may go, when none is left, and
//! what happens when one comes back.

use std::collections::{BTreeMap, BTreeSet};

use kctl_shared::name::NodeId;
use kctl_shared::spec::{EntityReport, Stage};
use kctl_shared::time::Timestamp;

use super::fleet::{Liveness, Report};
use super::{Round, WaitingOn, limits, runbook};
use crate::state::command::Command;
use crate::state::operation::{EntityWork, Phase, Step, StepKind};

/// How long an agent may work on an entity task after its last acknowledged heartbeat was sent.
pub const LEASE_MS: u64 = 10_000;
/// Waited on top before another node takes the task over.
const LEASE_MARGIN_MS: u64 = 2_000;
/// Complete scans in sequence that must find nothing.
const EMPTY_SCANS: u64 = 2;
/// How often entities may turn up again before the operation holds and tells.
const MAX_RERECORDED: u32 = 3;

/// Keeps an applier at work, and takes the operation back to detaching when an entity turns up after that barrier.
///
/// `appliers`: nodes that work on entities for any operation.
pub(crate) fn watch(round: &mut Round<'_>, step: &Step, appliers: &mut BTreeSet<NodeId>) -> Option<Command> {
    let operation = round.operation;
    let work = operation.entity_work()?;
    if let Some(command) = keep_applier(round, appliers) {
        return Some(command);
    }
    if step.kind == StepKind::Detach || work != EntityWork::Detach {
        return None;
    }
    let found = applier_report(round)?.0.entities.len();
    if found == 0 {
        return None;
    }
    let attempts = operation.steps.iter().filter(|s| s.kind == StepKind::Detach).count();
    if attempts > MAX_RERECORDED as usize {
        round.waiting.push(recreated(round, found));
        return None;
    }
    Some(Command::Reroute {
        operation: operation.id.clone(),
        from: operation.cursor,
        phase: Phase::Progressing,
        error: None,
        steps: runbook::detach_again(round.state, operation),
    })
}

/// The detach step itself: record what is found, let it be deleted, and pass once nothing is found any more.
pub(crate) fn plan(round: &mut Round<'_>) -> Option<Command> {
    let operation = round.operation;
    let applier = operation.applier.as_ref()?.node.clone();
    let Some((task, scan)) = applier_report(round) else {
        let message = format!("{applier} is scanning Kong's plugin configurations");
        round.waiting.push(waiting_on(round, &applier, "IN_PROGRESS", message));
        return None;
    };
    if let Some(w) = &task.waiting {
        round.waiting.push(waiting_on(round, &applier, &w.code, w.message.clone()));
        return None;
    }
    let unknown: BTreeMap<_, _> = task
        .entities
        .iter()
        .filter(|e| !operation.entities.contains_key(&e.id))
        .map(|e| (e.id.clone(), format!("{} {}", e.scope, e.target).trim().to_owned()))
        .collect();
    if !unknown.is_empty() {
        if operation.rerecorded >= MAX_RERECORDED * 3 {
            round.waiting.push(recreated(round, unknown.len()));
            return None;
        }
        let Some(saved) = task.saved else {
            let message = format!("{applier} is handing {} plugin configurations over", unknown.len());
            round.waiting.push(waiting_on(round, &applier, "IN_PROGRESS", message));
            return None;
        };
        return Some(Command::RecordEntities {
            operation: operation.id.clone(),
            step: operation.cursor,
            entities: unknown,
            saved: Some(saved),
        });
    }
    let Some(empty_since) = scan.empty_since.filter(|_| task.empty_in_a_row >= EMPTY_SCANS) else {
        let message = format!("{applier} is deleting {} plugin configurations", task.entities.len());
        round.waiting.push(waiting_on(round, &applier, "IN_PROGRESS", message));
        return None;
    };
    // Workers that poll the datastore may act on a deleted entity for a while; with none deleted there is nothing to forget.
    let bound = if operation.entities.is_empty() {
        0
    } else {
        round.state.nodes_of(&operation.group).map(|(_, n)| n.facts.propagation_ms).max().unwrap_or(0)
    };
    if round.now.since(empty_since) < bound {
        let message = format!(
            "up to {} s until every worker has forgotten the deleted configurations",
            bound.div_ceil(1000)
        );
        round.waiting.push(WaitingOn {
            node: None,
            reason: "PROPAGATION".into(),
            message,
            since: empty_since,
        });
        return None;
    }
    if let Some(cause) = operation.asks_after(operation.cursor) {
        return Some(Command::Hold { operation: operation.id.clone(), from: operation.cursor, cause });
    }
    Some(Command::AdvanceCursor {
        operation: operation.id.clone(),
        from: operation.cursor,
        summary: format!("{} deleted, 0 references left (checked twice)", operation.entities.len()),
        scanned: None,
    })
}

/// The fence: a scan that found nothing, and that began after the last node had dropped the plugin, for it answers the
/// grant that was given then. `None` when it is there.
pub(crate) fn fence(round: &Round<'_>, after: Timestamp) -> Option<WaitingOn> {
    match applier_report(round) {
        Some((task, _)) if task.entities.is_empty() && task.waiting.is_none() => None,
        _ => {
            let node = round.operation.applier.as_ref().map(|a| a.node.clone());
            let message = "one more scan for plugin configurations".to_owned();
            Some(WaitingOn { node, reason: "SCANNING".into(), message, since: after })
        }
    }
}

/// The applier's answer to its present grant, if it has finished a scan under it. It may apply for another operation too,
/// under the same grant when one decision had both scan anew.
pub(crate) fn applier_report<'a>(round: &Round<'a>) -> Option<(&'a EntityReport, &'a Report)> {
    let applier = round.operation.applier.as_ref()?;
    let report = round.heard(&applier.node)?;
    let task = report.status.task.as_ref()?;
    let answers = task.grant == applier.grant && task.operation == round.operation.id;
    (answers && (task.scans > 0 || task.waiting.is_some())).then_some((task, report))
}

/// Whether the node is one of the cluster's and can be given work on Kong's Admin API now.
fn is_at_hand(round: &Round<'_>, node: &NodeId) -> bool {
    round.state.nodes.contains_key(node) && round.fleet.can_apply(node, round.now)
}

/// Whether the node can do what there is to do: an entity can be re-created only where the plugin is listed.
fn is_able(round: &Round<'_>, node: &NodeId) -> bool {
    let attaches = round.operation.entity_work() == Some(EntityWork::Attach);
    let stage = || Some(round.heard(node)?.status.plugins.get(&round.operation.plugin)?.stage);
    is_at_hand(round, node) && (!attaches || stage() == Some(Stage::Enabled))
}

/// Until when a node may still act on the task that it had.
pub(crate) fn busy_until(round: &Round<'_>, node: &NodeId) -> Timestamp {
    let report = round.fleet.reports.get(node);
    let lease = report.map_or(round.fleet.leader_since.plus_ms(LEASE_MS), |r| r.lease_until);
    lease.plus_ms(LEASE_MARGIN_MS)
}

fn keep_applier(round: &mut Round<'_>, appliers: &mut BTreeSet<NodeId>) -> Option<Command> {
    let operation = round.operation;
    if let Some(applier) = &operation.applier {
        if is_able(round, &applier.node) {
            return None;
        }
        // One that lives but lacks the plugin has re-created nothing; it is told, and asked about before the end.
        let lives = is_at_hand(round, &applier.node);
        if !lives && round.now < busy_until(round, &applier.node) {
            let message =
                format!("{} worked on plugin configurations and its lease has not run out", applier.node);
            round.waiting.push(waiting_on(round, &applier.node, lost_because(round, &applier.node), message));
            return None;
        }
        let mut others = round.state.nodes_of(&operation.group).filter(|(_, n)| n.facts.has_admin_api);
        if lives && !others.any(|(id, _)| is_able(round, id)) {
            return None;
        }
    }
    let candidates = round.state.nodes_of(&operation.group).filter(|(_, n)| n.facts.has_admin_api);
    let able: Vec<_> = candidates.map(|(id, _)| id).filter(|id| is_able(round, id)).collect();
    if let Some(closed) = limits::closed(round, StepKind::Detach).filter(|_| operation.is_untouched()) {
        round.waiting.push(closed);
        return None;
    }
    // A node works on one task at a time, so that one without is better.
    match able.iter().find(|node| !appliers.contains(**node)).or(able.first()).copied() {
        Some(node) => {
            appliers.insert(node.clone());
            let replaces = operation.applier.as_ref().map(|a| a.grant);
            Some(Command::AssignApplier { operation: operation.id.clone(), node: node.clone(), replaces })
        }
        None => {
            let nodes: Vec<_> =
                round.state.nodes_of(&operation.group).filter(|(_, n)| n.facts.has_admin_api).collect();
            if nodes.is_empty() {
                let message = format!("no node of group {} has an Admin API", operation.group);
                let since = operation.progressed_at();
                round.waiting.push(WaitingOn { node: None, reason: "NO_ADMIN_API".into(), message, since });
            }
            for (node, _) in nodes {
                let message =
                    format!("no node of group {} with a running Admin API can be reached", operation.group);
                round.waiting.push(waiting_on(round, node, lost_because(round, node), message));
            }
            None
        }
    }
}

fn lost_because(round: &Round<'_>, node: &NodeId) -> &'static str {
    if round.fleet.liveness(node, round.now) == Liveness::Live { "KONG_DOWN" } else { "AGENT_UNREACHABLE" }
}

fn recreated(round: &Round<'_>, count: usize) -> WaitingOn {
    let message = format!(
        "{count} configurations of {} came back again and again; stop whoever creates them and delete them",
        round.operation.plugin
    );
    let since = round.operation.current().and_then(|s| s.started_at).unwrap_or(round.now);
    WaitingOn { node: None, reason: "ENTITY_RECREATED".into(), message, since }
}

pub(crate) fn waiting_on(round: &Round<'_>, node: &NodeId, reason: &str, message: String) -> WaitingOn {
    let since = match reason {
        "AGENT_UNREACHABLE" => round.fleet.seen(node),
        _ => round.operation.current().and_then(|s| s.started_at).unwrap_or(round.now),
    };
    WaitingOn { node: Some(node.clone()), reason: reason.to_owned().into(), message, since }
}
