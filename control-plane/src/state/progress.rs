//! How an operation moves: nodes are let act, their verdicts recorded, barriers passed, or another way taken.

use std::collections::BTreeMap;

use kctl_shared::mutant;
use kctl_shared::name::NodeId;
use kctl_shared::spec::{Failure, Grant};

use super::batch;
use super::command::{Command, Event, LogStamp, Rejection};
use super::intervene;
use super::model::ClusterState;
use super::operation::{Operation, OperationKind, Phase, RETRY_MS, Step, StepKind, StepPhase, Verdict};
use super::{entities, fence};

fn superseded(id: &str, why: &str) -> Rejection {
    Rejection::new("SUPERSEDED", format!("operation {id}: {why}"))
}

/// The operation, if it lives and its cursor stands at `step`: compare-and-set for everything below.
pub(super) fn at_step<'a>(
    state: &'a ClusterState,
    id: &str,
    step: usize,
) -> Result<&'a Operation, Rejection> {
    let operation = state.operation(&id.to_owned())?;
    if operation.phase.has_ended() {
        return Err(superseded(id, "it has ended"));
    }
    let moved = operation.cursor != step && !mutant::is("guard-only-at-propose");
    if moved || step >= operation.steps.len() {
        return Err(superseded(id, "its cursor has moved"));
    }
    Ok(operation)
}

fn edit<'a>(state: &'a mut ClusterState, id: &str) -> Result<&'a mut Operation, Rejection> {
    state.operations.get_mut(id).ok_or_else(|| superseded(id, "it is gone"))
}

pub(super) fn dispatch(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    step: usize,
    nodes: Vec<NodeId>,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, step)?;
    let current = &operation.steps[step];
    for node in &nodes {
        match current.nodes.get(node) {
            Some(entry) if entry.verdict.is_none() => {
                if let Some(before) = entry.dispatched_at.filter(|_| entry.grant.is_some()) {
                    let rested = at.proposed_at.since(before) >= RETRY_MS;
                    // What its agent proved under the former grant would count for the new one, of which it knows nothing.
                    if !(current.kind.waits_for_ever() && rested) {
                        return Err(superseded(id, &format!("node {node} was let act already")));
                    }
                }
            }
            _ => return Err(superseded(id, &format!("node {node} is not open in this step"))),
        }
        if state.nodes.get(node).is_some_and(|n| n.hold.is_some()) && !mutant::is("held-let-act") {
            return Err(superseded(id, &format!("node {node} is held")));
        }
    }
    if state.groups.get(&operation.group).is_some_and(|g| g.hold.is_some()) {
        return Err(superseded(id, &format!("group {} is held", operation.group)));
    }
    if operation.phase == Phase::Paused {
        return Err(superseded(id, "it is paused"));
    }
    batch::goes_on(state, operation)?;
    guard_order(operation, step)?;
    let operation = edit(state, id)?;
    let current = &mut operation.steps[step];
    current.phase = StepPhase::Running;
    current.started_at.get_or_insert(at.proposed_at);
    current.edit(nodes.iter().map(|node| (node.clone(), ())), |entry, ()| {
        entry.grant = Some(at.grant());
        entry.started_at.get_or_insert(at.proposed_at);
        entry.dispatched_at = Some(at.proposed_at);
    });
    state.generation = at.index;
    Ok(vec![Event::Dispatched { operation: id.to_owned(), step, nodes }])
}

/// No step before the barrier of every earlier one of the same attempt; in particular no directive changes for a removal
/// before the detach barrier, and no file goes before the plugin has left every running worker.
fn guard_order(operation: &Operation, step: usize) -> Result<(), Rejection> {
    let kind = operation.steps[step].kind;
    if mutant::is("guard-only-at-propose") {
        return Ok(());
    }
    if operation.steps[..step].iter().any(|s| !s.is_over()) {
        return Err(superseded(&operation.id, "an earlier step is not over"));
    }
    if operation.kind != OperationKind::Remove {
        return Ok(());
    }
    let ended_well = |wanted: StepKind| {
        operation.steps[..step]
            .iter()
            .rev()
            .find(|s| s.kind == wanted)
            .is_some_and(|s| s.phase == StepPhase::Done)
    };
    let allowed = match kind {
        StepKind::Disable => ended_well(StepKind::Detach),
        StepKind::Purge => ended_well(StepKind::Detach) && ended_well(StepKind::Disable),
        _ => true,
    };
    if allowed {
        Ok(())
    } else {
        Err(superseded(&operation.id, "the barrier before this step was not passed"))
    }
}

/// Sum of the start numbers of the nodes' agents.
fn starts<'a>(state: &ClusterState, nodes: impl Iterator<Item = &'a NodeId>) -> u64 {
    nodes.filter_map(|node| state.nodes.get(node)).fold(0, |sum, record| sum.wrapping_add(record.boot))
}

/// What settles the verdicts that were come to now in the operation's present step, if there are any.
pub fn settled(
    state: &ClusterState,
    operation: &Operation,
    verdicts: BTreeMap<NodeId, Verdict>,
) -> Option<Command> {
    let starts = Some(starts(state, verdicts.keys()));
    let (id, step) = (operation.id.clone(), operation.cursor);
    (!verdicts.is_empty()).then_some(Command::Settle { operation: id, step, verdicts, starts })
}

pub(super) fn settle(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    step: usize,
    verdicts: BTreeMap<NodeId, Verdict>,
    starts: Option<u64>,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, step)?;
    for node in verdicts.keys() {
        match operation.steps[step].nodes.get(node) {
            Some(entry) if entry.grant.is_some() && entry.verdict.is_none() => {}
            _ => return Err(superseded(id, &format!("node {node} has no open dispatch in this step"))),
        }
    }
    // A machine may have been set back to before what its agent's former start proved.
    if starts.is_some_and(|starts| starts != self::starts(state, verdicts.keys())) {
        return Err(superseded(id, "an agent started again since it answered"));
    }
    let operation = edit(state, id)?;
    let nodes: Vec<_> = verdicts.keys().cloned().collect();
    operation.steps[step].edit(verdicts, |entry, verdict| {
        entry.verdict = Some(verdict);
        entry.finished_at = Some(at.proposed_at);
    });
    if entities::scan_anew(operation, at, step) {
        state.generation = at.index;
    }
    Ok(vec![Event::Settled { operation: id.to_owned(), step, nodes }])
}

pub(super) fn advance(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    from: usize,
    summary: String,
    scanned: Option<Grant>,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, from)?;
    let step = &operation.steps[from];
    if let Some((node, _)) = step.open_nodes().next() {
        return Err(superseded(id, &format!("node {node} has no verdict yet")));
    }
    let failed: Vec<_> = step.failed_nodes().map(|(node, _)| node.clone()).collect();
    if operation.stops_at(step).is_some() || (!failed.is_empty() && step.kind.waits_for_ever()) {
        return Err(superseded(id, "too many nodes failed for the barrier to be passed"));
    }
    if operation.phase == Phase::Paused || operation.asks_after(from).is_some() {
        return Err(superseded(id, "it is paused"));
    }
    if operation.baking_until(from).is_some_and(|until| at.proposed_at < until) {
        return Err(superseded(id, "the wave has not baked for long enough"));
    }
    batch::goes_on(state, operation)?;
    if let Some(other) = batch::behind(state, operation).filter(|_| !mutant::is("batch-in-halves")) {
        return Err(superseded(id, &format!("{} began with it and is not as far", other.id)));
    }
    guard_order(operation, from)?;
    fence::check(state, operation, from, scanned)?;
    if step.kind == StepKind::Attach {
        return Err(superseded(id, "what was re-created has to be told"));
    }
    let operation = edit(state, id)?;
    // What failed takes no further part: nothing is enabled where it could not be staged or tried.
    for later in &mut operation.steps[from + 1..] {
        later.nodes.retain(|node, _| !failed.contains(node));
    }
    pass(operation, at, from, summary);
    state.generation = at.index;
    Ok(vec![Event::BarrierPassed { operation: id.to_owned(), step: from }])
}

/// The barrier after step `from` is passed; everything was checked.
pub(super) fn pass(operation: &mut Operation, at: LogStamp, from: usize, summary: String) {
    let step = &mut operation.steps[from];
    step.phase = StepPhase::Done;
    step.started_at.get_or_insert(at.proposed_at);
    step.finished_at = Some(at.proposed_at);
    step.summary = summary;
    operation.cursor = from + 1;
    match operation.current().map(|next| next.kind) {
        None => operation.applier = None,
        Some(StepKind::Attach) => entities::hand_on(operation, at),
        Some(_) => {}
    }
}

pub(super) fn reroute(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    from: usize,
    phase: Phase,
    error: Option<Failure>,
    mut steps: Vec<Step>,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, from)?;
    let former = batch::gone_back(state, operation).filter(|_| phase == Phase::RollingBack);
    if let (Some(former), Some(error)) = (former, &error) {
        let aborted = former.interventions.aborted;
        return intervene::call_off(state, at, id, from, error.clone(), aborted, steps);
    }
    let allowed = match (operation.kind, phase) {
        (OperationKind::Remove, Phase::Progressing) => {
            operation.phase != Phase::RollingBack && !operation.is_past_return()
        }
        (OperationKind::Install | OperationKind::Upgrade, Phase::RollingBack) => {
            operation.phase == Phase::Progressing
                && !operation.has_begun_to_attach()
                && operation.is_way_back(&steps)
        }
        _ => false,
    };
    if !allowed || steps.is_empty() || steps.iter().any(Step::is_over) {
        return Err(superseded(id, "it cannot take that way from here"));
    }
    if phase == Phase::RollingBack {
        batch::may_go_back(state, operation)?;
    }
    let members: Vec<_> = state.staying_in(&operation.group).map(|(id, _)| id.clone()).collect();
    super::fleet::admins_first(&mut steps, &state.nodes);
    super::share::steps(&state.nodes, &mut steps);
    let operation = state.operations.get_mut(id).ok_or_else(|| superseded(id, "it is gone"))?;
    let next = turn(operation, at, from, steps);
    if operation.kind == OperationKind::Remove {
        // Who joined after the steps were expanded.
        members.iter().for_each(|node| super::fleet::include(operation, &state.nodes, node));
    }
    operation.phase = phase;
    operation.error = error.or_else(|| operation.error.take());
    super::duty::leave_out(state, id);
    state.generation = at.index;
    Ok(vec![Event::Rerouted { operation: id.to_owned(), step: next }])
}

/// Leaves the way that step `from` was on and goes on with `steps`; returns where they begin. Excused nodes stay so.
pub(super) fn turn(operation: &mut Operation, at: LogStamp, from: usize, mut steps: Vec<Step>) -> usize {
    let interrupted = &mut operation.steps[from];
    interrupted.phase = StepPhase::Failed;
    interrupted.finished_at = Some(at.proposed_at);
    for step in &mut operation.steps[from + 1..] {
        step.phase = StepPhase::Skipped;
    }
    for node in operation.interventions.excused.keys() {
        steps.iter_mut().for_each(|step| step.excuse(node, at.proposed_at));
    }
    operation.cursor = operation.steps.len();
    operation.steps.extend(steps);
    operation.interventions.promoted = None;
    operation.cursor
}

/// Nodes whose wave has not passed its barrier yet are not what they were proven to be: that counts as failing.
pub(super) fn relapse(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    step: usize,
    failures: BTreeMap<NodeId, Failure>,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, step)?;
    let current = &operation.steps[step];
    let verified =
        |node: &NodeId| current.nodes.get(node).is_some_and(|entry| entry.verdict == Some(Verdict::Verified));
    if current.kind.waits_for_ever() || failures.is_empty() || !failures.keys().all(verified) {
        return Err(superseded(id, "those nodes have not been verified in this step"));
    }
    let operation = edit(state, id)?;
    let nodes: Vec<_> = failures.keys().cloned().collect();
    operation.steps[step].edit(failures, |entry, failure| {
        entry.verdict = Some(Verdict::Failed(failure));
        entry.finished_at = Some(at.proposed_at);
    });
    Ok(vec![Event::Relapsed { operation: id.to_owned(), step, nodes }])
}
