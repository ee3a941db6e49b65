//! `abort`: an install goes back to what was before; a removal can be called off only before it did anything.

use kctl_shared::spec::Failure;

use super::rolling_back;
use crate::state::command::{Event, LogStamp, Rejection};
use crate::state::lifecycle;
use crate::state::model::ClusterState;
use crate::state::operation::{OperationKind, Phase, Step, StepKind, StepPhase};
use crate::state::progress::{at_step, turn};

pub(super) fn abort(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    from: usize,
    reason: String,
    steps: Vec<Step>,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, from)?;
    rolling_back(operation)?;
    let removes = operation.kind == OperationKind::Remove;
    if removes && operation.is_past_return() {
        let message = format!("operation {id} deletes files of {} already", operation.plugin);
        return Err(Rejection::new("PAST_POINT_OF_NO_RETURN", message)
            .hint(format!("let it end, then install {} again", operation.plugin)));
    }
    if removes && !operation.is_untouched_removal() {
        let message = format!(
            "operation {id} has taken configurations or directives of {} away, and kctl does not bring them back by itself yet",
            operation.plugin
        );
        return Err(Rejection::new("ABORT_NEEDS_COMPENSATION", message).hint(format!(
            "let it end: kctl operation status {id} -w; then install and configure it again"
        )));
    }
    let back = |s: &Step| matches!(s.kind, StepKind::Restore | StepKind::Unstage) && !s.is_over();
    if removes != steps.is_empty() || !steps.iter().all(back) {
        return Err(Rejection::new("SUPERSEDED", format!("operation {id} cannot go back that way")));
    }
    let message = if reason.is_empty() { "called off".into() } else { format!("called off: {reason}") };
    if let Some(operation) = state.operations.get_mut(id) {
        operation.interventions.aborted = true;
        operation.interventions.hold = None;
        operation.error = Some(Failure::new("ABORTED", message));
        if removes {
            operation.steps[from..].iter_mut().for_each(|step| step.phase = StepPhase::Skipped);
        } else {
            turn(operation, at, from, steps);
            operation.phase = Phase::RollingBack;
        }
    }
    state.generation = at.index;
    Ok(if removes { lifecycle::end(state, at, id, Phase::Aborted) } else { Vec::new() })
}
