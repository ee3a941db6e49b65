//! `pause`, `resume`, `promote`.

use super::{put_on_hold, release, rolling_back};
use crate::state::command::{Event, LogStamp, Rejection};
use crate::state::model::ClusterState;
use crate::state::operation::{Cause, Phase};
use crate::state::progress::at_step;

pub(super) fn pause(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    reason: String,
) -> Result<Vec<Event>, Rejection> {
    let operation = state.operation(&id.to_owned())?;
    rolling_back(operation)?;
    if operation.phase == Phase::Paused {
        return Err(Rejection::new("OPERATION_PAUSED", format!("operation {id} is paused already"))
            .hint(format!("kctl operation resume {id}")));
    }
    // One whose steps are all over only has to be called ended.
    at_step(state, id, operation.cursor)?;
    if let Some(operation) = state.operations.get_mut(id) {
        put_on_hold(operation, at, Cause::Person { reason });
    }
    Ok(Vec::new())
}

pub(super) fn resume(state: &mut ClusterState, id: &str) -> Result<Vec<Event>, Rejection> {
    let operation = state.operation(&id.to_owned())?;
    let Some(hold) = operation.interventions.hold.clone() else {
        return Err(Rejection::new("OPERATION_NOT_PAUSED", format!("operation {id} is not paused"))
            .hint(format!("kctl operation status {id}")));
    };
    let failed = operation.current().filter(|step| operation.stops_at(step).is_some());
    if let Some((node, failure)) = failed.and_then(|step| step.failed_nodes().next()) {
        let message = format!("operation {id} cannot go on as it is: {node} failed, {}", failure.message);
        return Err(Rejection::new("FAILED_NODES", message).hint(format!(
            "kctl operation retry {id} --failed-only, kctl operation excuse {id} --node {node} -m REASON, or kctl operation abort {id}"
        )));
    }
    if let Some(operation) = state.operations.get_mut(id) {
        if matches!(hold.cause, Cause::Wave(_) | Cause::Step(_)) {
            operation.interventions.promoted = Some(operation.cursor);
        }
        release(operation);
    }
    Ok(Vec::new())
}

pub(super) fn promote(state: &mut ClusterState, id: &str, step: usize) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, step)?;
    let over = operation.steps[step].open_nodes().next().is_none();
    let failed = operation.stops_at(&operation.steps[step]).is_some();
    let by_wave = match &operation.interventions.hold {
        Some(hold) => matches!(hold.cause, Cause::Wave(_)),
        None => {
            let asks = matches!(operation.asks_after(step), Some(Cause::Wave(_)));
            asks || operation.baking_until(step).is_some()
        }
    };
    if !over || failed || !by_wave {
        let message = format!("operation {id} does not wait after a wave");
        return Err(Rejection::new("NOTHING_TO_PROMOTE", message).hint(format!("kctl operation status {id}")));
    }
    if let Some(operation) = state.operations.get_mut(id) {
        operation.interventions.promoted = Some(step);
        release(operation);
    }
    Ok(Vec::new())
}
