//! `retry`: the interrupted step once more, and what was to follow it.

use super::release;
use crate::state::command::{Event, LogStamp, Rejection};
use crate::state::duty;
use crate::state::model::ClusterState;
use crate::state::operation::{NodeStep, Operation, Phase, Step, StepPhase};
use crate::state::progress::{at_step, turn};
use crate::state::share;

pub(super) fn retry(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    from: usize,
    mut steps: Vec<Step>,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, from)?;
    if operation.phase != Phase::Paused {
        return Err(Rejection::new("OPERATION_NOT_PAUSED", format!("operation {id} is not paused"))
            .hint(format!("kctl operation pause {id}, or wait until it is over and install again")));
    }
    if steps.first().is_none_or(|first| first.nodes == operation.steps[from].nodes) {
        let message = format!("no node of operation {id} has anything to try again");
        return Err(Rejection::new("NOTHING_TO_RETRY", message).hint(format!("kctl operation resume {id}")));
    }
    if !continues(operation, from, &steps) {
        return Err(
            Rejection::new("SUPERSEDED", format!("operation {id} moved on meanwhile")).hint("try again")
        );
    }
    share::steps(&state.nodes, &mut steps);
    if let Some(operation) = state.operations.get_mut(id) {
        turn(operation, at, from, steps);
        release(operation);
    }
    duty::leave_out(state, id);
    state.generation = at.index;
    Ok(Vec::new())
}

/// The same steps on the same nodes; the first of them with its nodes as they are, or as if they had never begun.
fn continues(operation: &Operation, from: usize, steps: &[Step]) -> bool {
    let rest = &operation.steps[from..];
    let same = |(index, (new, old)): (usize, (&Step, &Step))| {
        let entries = new.nodes.iter().zip(&old.nodes);
        new.kind == old.kind
            && new.wave == old.wave
            && new.nodes.len() == old.nodes.len()
            && new.phase == StepPhase::Pending
            && entries.into_iter().all(|((new, entry), (old, before))| {
                new == old && (**entry == NodeStep::default() || (index == 0 && entry == before))
            })
    };
    rest.len() == steps.len() && steps.iter().zip(rest).enumerate().all(same)
}
