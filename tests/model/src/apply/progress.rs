//! How an operation moves on its way.

use super::{Applied, Rejected, guard};
use crate::cluster::{Applier, Cluster, Kind, Operation, Phase, StepKind, StepPhase};
use crate::mask::{Mask, bit, nodes};
use crate::setup::{Mutant, Setup};

/// The operation, if it lives and its cursor stands at `step`: compare-and-set for everything below.
pub(super) fn at_step(
    setup: &Setup,
    cluster: &Cluster,
    id: usize,
    step: usize,
) -> Result<Operation, Rejected> {
    let operation = cluster.operations.get(id).ok_or(Rejected)?;
    let moved = operation.cursor != step && !setup.is(Mutant::GuardOnlyAtPropose);
    guard(!operation.phase.has_ended() && !moved && step < operation.steps.len())?;
    Ok(operation.clone())
}

fn in_order(setup: &Setup, operation: &Operation, step: usize) -> Applied {
    if setup.is(Mutant::GuardOnlyAtPropose) {
        return Ok(());
    }
    let before = &operation.steps[..step];
    guard(before.iter().all(crate::cluster::Step::is_over))?;
    let ended_well = |kind: StepKind| {
        let last = before.iter().rev().find(|s| s.kind == kind);
        last.is_some_and(|s| s.phase == StepPhase::Done)
    };
    guard(match operation.steps[step].kind {
        StepKind::Disable => ended_well(StepKind::Detach),
        StepKind::Purge => ended_well(StepKind::Detach) && ended_well(StepKind::Disable),
        _ => true,
    })
}

pub(super) fn dispatch(setup: &Setup, cluster: &mut Cluster, id: usize, step: usize, who: Mask) -> Applied {
    let mut operation = at_step(setup, cluster, id, step)?;
    guard(who & !operation.steps[step].open() == 0)?;
    in_order(setup, &operation, step)?;
    cluster.generation += 1;
    let current = &mut operation.steps[step];
    current.phase = StepPhase::Running;
    nodes(who).for_each(|n| current.grants[n] = cluster.generation);
    cluster.operations[id] = operation;
    Ok(())
}

pub(super) fn settle(
    setup: &Setup,
    cluster: &mut Cluster,
    id: usize,
    step: usize,
    (verified, failed): (Mask, Mask),
) -> Applied {
    let mut operation = at_step(setup, cluster, id, step)?;
    let current = &mut operation.steps[step];
    guard((verified | failed) & !(current.open() & current.granted()) == 0)?;
    current.verified |= verified;
    current.failed |= failed;
    let all_dropped = current.kind == StepKind::Disable && current.open() == 0;
    if let Some(applier) = operation.applier.as_mut().filter(|_| all_dropped)
        && !setup.is(Mutant::FenceByArrival)
    {
        // What a scan saw that had begun before says nothing about the time after: a new grant asks for a new one.
        cluster.generation += 1;
        applier.grant = cluster.generation;
    }
    cluster.operations[id] = operation;
    Ok(())
}

pub(super) fn advance(setup: &Setup, cluster: &mut Cluster, id: usize, from: usize) -> Applied {
    let mut operation = at_step(setup, cluster, id, from)?;
    let step = &operation.steps[from];
    guard(step.open() == 0 && step.failed == 0)?;
    in_order(setup, &operation, from)?;
    operation.steps[from].phase = StepPhase::Done;
    operation.cursor = from + 1;
    cluster.generation += 1;
    if operation.cursor == operation.steps.len() {
        operation.applier = None;
    }
    cluster.operations[id] = operation;
    Ok(())
}

pub(super) fn assign(setup: &Setup, cluster: &mut Cluster, id: usize, node: usize, former: u8) -> Applied {
    let operation = cluster.operations.get(id).ok_or(Rejected)?;
    guard(operation.kind == Kind::Remove && !operation.phase.has_ended() && cluster.is_admin(node))?;
    let present = operation.applier.map_or(0, |a| a.grant);
    guard(present == former || setup.is(Mutant::AssignUnchecked))?;
    cluster.generation += 1;
    let operation = &mut cluster.operations[id];
    operation.applier = Some(Applier { node, grant: cluster.generation });
    operation.appliers |= bit(node);
    let cursor = operation.cursor;
    if let Some(step) = operation.steps.get_mut(cursor)
        && matches!(step.kind, StepKind::Detach | StepKind::Reattach)
    {
        step.phase = StepPhase::Running;
    }
    Ok(())
}

pub(super) fn record(setup: &Setup, cluster: &mut Cluster, id: usize, step: usize, found: Mask) -> Applied {
    let mut operation = at_step(setup, cluster, id, step)?;
    guard(operation.steps[step].kind == StepKind::Detach && operation.phase == Phase::Progressing)?;
    let applier = operation.applier.as_mut().ok_or(Rejected)?;
    cluster.generation += 1;
    // A new grant for the new set: scans made under the former one prove nothing about it.
    applier.grant = cluster.generation;
    operation.recorded |= found;
    cluster.operations[id] = operation;
    Ok(())
}
