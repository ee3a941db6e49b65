//! `abort`: back to what was before. A removal that did nothing yet just ends; one that did brings back what it took away,
//! until files go.

use std::collections::BTreeSet;

use kctl_shared::mutant;
use kctl_shared::spec::Failure;

use super::rolling_back;
use crate::state::command::{Event, LogStamp, Rejection};
use crate::state::model::{ClusterState, any_admin_api};
use crate::state::operation::{Operation, OperationKind, Phase, Step, StepKind, StepPhase};
use crate::state::progress::{at_step, turn};
use crate::state::{batch, duty, entities, lifecycle, share};

pub(super) fn abort(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    from: usize,
    reason: String,
    steps: Vec<Step>,
) -> Result<Vec<Event>, Rejection> {
    let message = if reason.is_empty() { "called off".into() } else { format!("called off: {reason}") };
    call_off(state, at, id, from, Failure::new("ABORTED", message), true, steps)
}

/// Takes an operation back because of `error`; `aborted` when a person wants it so, and not a node's failure.
pub(in crate::state) fn call_off(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    from: usize,
    error: Failure,
    aborted: bool,
    mut steps: Vec<Step>,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, from)?;
    rolling_back(operation)?;
    let removes = operation.kind == OperationKind::Remove;
    if removes && operation.is_past_return() && !mutant::is("abort-allowed-after-B2") {
        let message = format!("operation {id} deletes files of {} already", operation.plugin);
        return Err(Rejection::new("PAST_POINT_OF_NO_RETURN", message)
            .hint(format!("let it end, then install {} again", operation.plugin)));
    }
    if !removes && operation.has_begun_to_attach() {
        let message = format!("operation {id} re-creates configurations of {} already", operation.plugin);
        return Err(Rejection::new("ATTACHING", message)
            .hint(format!("let it end, then kctl plugin remove {} --all-nodes", operation.plugin)));
    }
    batch::may_go_back(state, operation)?;
    let leads_back =
        if removes { compensates(state, operation, &steps) } else { operation.is_way_back(&steps) };
    if !leads_back {
        return Err(Rejection::new("SUPERSEDED", format!("operation {id} cannot go back that way")));
    }
    let ends = steps.is_empty();
    share::steps(&state.nodes, &mut steps);
    if let Some(operation) = state.operations.get_mut(id) {
        operation.interventions.aborted = aborted;
        operation.interventions.hold = None;
        operation.error = Some(error);
        if ends {
            operation.steps[from..].iter_mut().for_each(|step| step.phase = StepPhase::Skipped);
        } else {
            turn(operation, at, from, steps);
            operation.phase = Phase::RollingBack;
            entities::hand_on(operation, at);
        }
    }
    duty::leave_out(state, id);
    state.generation = at.index;
    Ok(if ends { lifecycle::end(state, at, id, Phase::Aborted) } else { Vec::new() })
}

/// Exactly the nodes that may have dropped the plugin get it again, those with an Admin API last, because it must not
/// accept configuration that some node could not run; and after them all the entities that may have been deleted.
fn compensates(state: &ClusterState, operation: &Operation, steps: &[Step]) -> bool {
    let restoring: Vec<_> = steps.iter().take_while(|s| s.kind == StepKind::Restore).collect();
    let rest: Vec<_> = steps[restoring.len()..].iter().map(|s| (s.kind, s.nodes.len())).collect();
    let attach: &[_] = if state.has_to_attach(operation) { &[(StepKind::Attach, 0)] } else { &[] };
    let named: Vec<_> = restoring.iter().flat_map(|s| s.nodes.keys()).collect();
    let once: BTreeSet<_> = named.iter().map(|n| (*n).clone()).collect();
    let any = |s: &Step, admin| any_admin_api(&state.nodes, s, admin);
    let first_admin = restoring.iter().position(|s| any(s, true)).unwrap_or(restoring.len());
    rest == attach
        && once.len() == named.len()
        && once == operation.touched(&[StepKind::Disable])
        && !restoring[first_admin..].iter().any(|s| any(s, false))
        && !steps.iter().any(Step::is_over)
}
