//! Operations that began together keep step where Kong is reloaded, so that a node is reloaded once for all of them; they
//! take their last step together, and go back together.

use kctl_shared::mutant;
use kctl_shared::spec::Failure;

use super::{Round, WaitingOn, runbook};
use crate::state::batch;
use crate::state::command::Command;
use crate::state::operation::{Operation, Phase, Step, StepKind};

/// Another of the batch goes back: so does this one, whatever it waits for.
pub(crate) fn follow(round: &Round<'_>) -> Option<Command> {
    let operation = round.operation;
    if operation.phase == Phase::RollingBack || mutant::is("batch-in-halves") {
        return None;
    }
    let other = batch::gone_back(round.state, operation)?;
    let why = other.error.as_ref().map(|e| format!(": {} {}", e.code, e.message)).unwrap_or_default();
    let message = format!("{}, with which it began, goes back{why}", other.plugin);
    Some(Command::Reroute {
        operation: operation.id.clone(),
        from: operation.cursor,
        phase: Phase::RollingBack,
        error: Some(Failure::new("BATCH_WENT_BACK", message)),
        steps: runbook::abort(round.state, operation),
    })
}

/// Why an install does not take its last step, after which there is no way back, although all of its nodes are done.
pub(crate) fn last_step(round: &Round<'_>) -> Option<WaitingOn> {
    let other = batch::behind(round.state, round.operation).filter(|_| !mutant::is("batch-in-halves"))?;
    let message = format!(
        "it comes into effect together with {}, whose operation {} is not as far",
        other.plugin, other.id
    );
    Some(waits(round.operation, message))
}

fn waits(operation: &Operation, message: String) -> WaitingOn {
    WaitingOn { node: None, reason: "BATCH_BEHIND".into(), message, since: operation.progressed_at() }
}

/// Why a wave does not begin yet: an operation of the batch is not as far. The one that is furthest behind never waits, so
/// that there is always one that moves, unless somebody paused it.
pub(crate) fn behind(round: &Round<'_>, step: &Step) -> Option<WaitingOn> {
    let operation = round.operation;
    let begins = step.kind.in_waves() && step.nodes.values().all(|n| n.grant.is_none());
    let here = place(operation).filter(|_| begins && operation.phase == Phase::Progressing)?;
    let late = batch::others(round.state, operation)
        .filter(|o| matches!(o.phase, Phase::Progressing | Phase::Paused) && !stands_in_line(round, o))
        .find(|o| place(o).is_some_and(|there| there < here))?;
    let message = format!(
        "nodes are to be reloaded once for it and {}, whose operation {} is not as far",
        late.plugin, late.id
    );
    Some(waits(operation, message))
}

/// The wave it is at, 0 before the first one; `None` once no wave is left.
fn place(operation: &Operation) -> Option<u32> {
    let rest = operation.steps.get(operation.cursor..)?;
    let current = rest.first()?;
    let comes = rest.iter().any(|s| s.kind.in_waves());
    comes.then_some(if current.kind.in_waves() { current.wave } else { 0 })
}

/// A node works on one entity task at a time: whose applier has another one as well may have to wait for that.
fn stands_in_line(round: &Round<'_>, operation: &Operation) -> bool {
    let node = |o: &Operation| o.applier.as_ref().map(|a| a.node.clone());
    let detaches = operation.current().is_some_and(|s| s.kind == StepKind::Detach);
    detaches
        && node(operation).is_some_and(|here| {
            round.state.live_operations().any(|o| o.id != operation.id && node(o).as_ref() == Some(&here))
        })
}
