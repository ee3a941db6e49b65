//! When an operation does not go on as it was meant to, and what happens instead.

use kctl_shared::spec::Failure;

use super::fleet::GRACE_MS;
use super::{Round, runbook};
use crate::state::batch;
use crate::state::command::Command;
use crate::state::operation::{Cause, OnFailure, OperationKind, Phase, Step, Verdict};
use crate::state::progress::settled;

/// Too many nodes failed, or none got anywhere for too long.
pub(crate) fn stop(round: &Round<'_>, step: &Step) -> Option<Command> {
    let operation = round.operation;
    if operation.phase != Phase::Progressing {
        return None;
    }
    if let Some(way) = operation.stops_at(step) {
        let (node, failure) = step.failed_nodes().next()?;
        return take(round, way, Failure::new(&failure.code, format!("{node}: {}", failure.message)));
    }
    let late = stalled(round, step)?;
    if operation.policy.on_failure != OnFailure::Continue {
        return take(round, operation.policy.on_failure, late);
    }
    let acting = step.open_nodes().filter(|(_, entry)| entry.grant.is_some());
    let verdicts = acting.map(|(node, _)| (node.clone(), Verdict::Failed(late.clone()))).collect();
    settled(round.state, operation, verdicts)
}

fn take(round: &Round<'_>, way: OnFailure, failure: Failure) -> Option<Command> {
    let operation = round.operation;
    let (id, from) = (operation.id.clone(), operation.cursor);
    // A removal goes only forward, and so does what began with one that is in place; what it cannot do by itself a person
    // has to look at.
    let forward =
        operation.kind == OperationKind::Remove || batch::past_return(round.state, operation).is_some();
    if way == OnFailure::Pause || forward {
        return Some(Command::Hold { operation: id, from, cause: Cause::Failure(failure) });
    }
    Some(Command::Reroute {
        operation: id,
        from,
        phase: Phase::RollingBack,
        error: Some(failure),
        steps: runbook::rollback(operation),
    })
}

/// Nodes act, and none of them was settled within the progress deadline.
fn stalled(round: &Round<'_>, step: &Step) -> Option<Failure> {
    let operation = round.operation;
    let deadline = operation.policy.progress_deadline_ms;
    let since = operation.progressed_at().max(round.fleet.leader_since.plus_ms(GRACE_MS));
    let acting = step.open_nodes().find(|(_, entry)| entry.grant.is_some())?;
    (deadline > 0 && round.now.since(since) > deadline).then(|| {
        let message =
            format!("no node was settled for {} s; {} is one of those that act", deadline / 1000, acting.0);
        Failure::new("PROGRESS_DEADLINE", message)
    })
}
