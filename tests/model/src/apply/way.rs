//! Another way than the one begun, and the end.

use super::progress::at_step;
use super::{Applied, Rejected, guard};
use crate::cluster::{Cluster, Kind, Operation, Phase, Step, StepKind, StepPhase};
use crate::mask::{Mask, nodes};
use crate::setup::{Mutant, Setup};

/// Leaves the way that step `from` was on and goes on with `steps`.
fn turn(operation: &mut Operation, from: usize, steps: &[Step]) {
    operation.steps[from].phase = StepPhase::Failed;
    operation.steps[from + 1..].iter_mut().for_each(|step| step.phase = StepPhase::Skipped);
    operation.cursor = operation.steps.len();
    operation.steps.extend(steps);
}

/// Every node that was let act is on the way back, also one whose proposer did not know that yet.
fn leads_back(setup: &Setup, here: Mask, operation: &Operation, steps: &[Step]) -> bool {
    let named = |kind| steps.iter().filter(|s| s.kind == kind).fold(0, |all, s| all | s.members);
    let undone = |what: &[StepKind], by| operation.touched(what) & here & !named(by) == 0;
    let all = match operation.kind {
        Kind::Install => {
            undone(&[StepKind::Enable], StepKind::Restore)
                && undone(&[StepKind::Stage, StepKind::Enable], StepKind::Unstage)
        }
        Kind::Remove => undone(&[StepKind::Disable], StepKind::Restore),
    };
    all || setup.is(Mutant::WayBackUnchecked)
}

pub(super) fn reroute(
    setup: &Setup,
    cluster: &mut Cluster,
    id: usize,
    from: usize,
    back: bool,
    steps: &[Step],
) -> Applied {
    let mut operation = at_step(setup, cluster, id, from)?;
    let here = cluster.staying();
    guard(operation.phase == Phase::Progressing && !steps.is_empty())?;
    match (operation.kind, back) {
        (Kind::Remove, false) => guard(!operation.is_past_return())?,
        (Kind::Install, true) => guard(leads_back(setup, here, &operation, steps))?,
        _ => return Err(Rejected),
    }
    turn(&mut operation, from, steps);
    if back {
        operation.phase = Phase::RollingBack;
    } else {
        nodes(here).for_each(|node| super::include(setup, &mut operation, node));
    }
    super::leave_out(setup, here, &mut operation);
    cluster.generation += 1;
    cluster.operations[id] = operation;
    Ok(())
}

/// An install goes back to what was before; so does a removal, as long as no file of it was deleted.
pub(super) fn abort(setup: &Setup, cluster: &mut Cluster, id: usize, from: usize, steps: &[Step]) -> Applied {
    let mut operation = at_step(setup, cluster, id, from)?;
    guard(operation.phase == Phase::Progressing)?;
    guard(!operation.is_past_return() || setup.is(Mutant::AbortAfterB2))?;
    guard(leads_back(setup, cluster.staying(), &operation, steps))?;
    let nothing_done = operation.kind == Kind::Remove && operation.is_untouched();
    guard(nothing_done == steps.is_empty())?;
    cluster.generation += 1;
    operation.aborted = true;
    if nothing_done {
        operation.steps[from..].iter_mut().for_each(|step| step.phase = StepPhase::Skipped);
        operation.cursor = operation.steps.len();
    } else {
        turn(&mut operation, from, steps);
        operation.phase = Phase::RollingBack;
        if let Some(applier) = &mut operation.applier {
            applier.grant = cluster.generation;
        }
        super::leave_out(setup, cluster.staying(), &mut operation);
    }
    cluster.operations[id] = operation;
    if nothing_done {
        end(cluster, id, Phase::Aborted);
    }
    Ok(())
}

pub(super) fn finish(cluster: &mut Cluster, id: usize, phase: Phase) -> Applied {
    let operation = cluster.operations.get(id).ok_or(Rejected)?;
    guard(!operation.phase.has_ended() && operation.cursor == operation.steps.len())?;
    guard(phase == outcome(operation))?;
    cluster.generation += 1;
    end(cluster, id, phase);
    Ok(())
}

/// How an operation ends whose steps are all over.
pub fn outcome(operation: &Operation) -> Phase {
    match (operation.phase, operation.kind, operation.aborted) {
        (Phase::RollingBack, Kind::Remove, _) => Phase::Compensated,
        (Phase::RollingBack, Kind::Install, true) => Phase::Aborted,
        (Phase::RollingBack, Kind::Install, false) => Phase::Failed,
        _ => Phase::Succeeded,
    }
}

/// What the plugin is at rest from here on, and the release of its lock.
fn end(cluster: &mut Cluster, id: usize, phase: Phase) {
    let operation = &mut cluster.operations[id];
    operation.phase = phase;
    operation.applier = None;
    if phase == Phase::Succeeded {
        cluster.installed = operation.kind == Kind::Install;
    }
    cluster.rest = cluster.generation;
    if cluster.lock == Some(id) {
        cluster.lock = None;
    }
}
