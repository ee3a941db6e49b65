//! People step in: each verb has its guards here, where nothing can slip in between.

mod abort;
mod excuse;
mod pace;
mod retry;

pub(super) use abort::call_off;

use super::command::{Event, LogStamp, Rejection};
use super::model::{ClusterState, RequestRecord};
use super::operation::{Cause, Hold, Intervention, MAX_NOTES, Note, Operation, Phase, RequestKey};
use super::progress::at_step;

pub(super) fn intervene(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    request: RequestKey,
    reason: String,
    what: Intervention,
) -> Result<Vec<Event>, Rejection> {
    let verb = what.as_str().to_owned();
    let done = Event::Intervened { operation: id.to_owned(), verb: verb.clone() };
    if let Some(record) = state.requests.get(&request.id) {
        return if record.body == request.body && record.operation == id {
            Ok(vec![done])
        } else {
            Err(Rejection::new(
                "REQUEST_ID_REUSED",
                format!("request id {} was used for another request", request.id),
            )
            .hint("use a new --request-id for a new request"))
        };
    }
    let operation = state.operation(&id.to_owned())?;
    if operation.phase.has_ended() {
        let message = format!("operation {id} has ended: {}", operation.phase.as_str());
        return Err(Rejection::new("OPERATION_ENDED", message).hint(format!("kctl operation status {id}")));
    }
    if operation.interventions.notes.len() >= MAX_NOTES {
        let message = format!("operation {id} has been stepped into {MAX_NOTES} times");
        return Err(Rejection::new("RESOURCE_EXHAUSTED", message).hint(format!("kctl operation abort {id}")));
    }
    let note = Note { at: at.proposed_at, verb, node: what.node().cloned(), reason: reason.clone() };
    let more = match what {
        Intervention::Pause => pace::pause(state, at, id, reason)?,
        Intervention::Resume => pace::resume(state, id)?,
        Intervention::Promote { step } => pace::promote(state, id, step)?,
        Intervention::Retry { from, steps } => retry::retry(state, at, id, from, steps)?,
        Intervention::Excuse { node } => excuse::excuse(state, at, id, &node, reason)?,
        Intervention::Abort { from, steps } => abort::abort(state, at, id, from, reason, steps)?,
    };
    if let Some(operation) = state.operations.get_mut(id) {
        operation.interventions.notes.push(note);
    }
    state.requests.insert(request.id, RequestRecord { body: request.body, operation: id.to_owned() });
    Ok([vec![done], more].concat())
}

/// The policy pauses the operation by itself.
pub(super) fn hold(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    from: usize,
    cause: Cause,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, from)?;
    let fits = operation.phase == Phase::Progressing
        && match &cause {
            Cause::Wave(_) | Cause::Step(_) => operation.asks_after(from).as_ref() == Some(&cause),
            Cause::Failure(_) => true,
            Cause::Person { .. } => false,
        };
    if !fits {
        return Err(Rejection::new("SUPERSEDED", format!("operation {id} has no reason to pause")));
    }
    let reason = match &cause {
        Cause::Failure(failure) => format!("{} {}", failure.code, failure.message),
        Cause::Wave(wave) => format!("after wave {wave}"),
        Cause::Step(kind) => format!("after {}", kind.as_str()),
        Cause::Person { reason } => reason.clone(),
    };
    let note = Note { at: at.proposed_at, verb: "hold".into(), node: None, reason };
    if let Some(operation) = state.operations.get_mut(id) {
        put_on_hold(operation, at, cause);
        operation.interventions.notes.push(note);
    }
    Ok(vec![Event::Held { operation: id.to_owned(), step: from }])
}

fn put_on_hold(operation: &mut Operation, at: LogStamp, cause: Cause) {
    operation.phase = Phase::Paused;
    operation.interventions.hold = Some(Hold { cause, since: at.proposed_at });
}

/// Back to work, whatever it was held for.
fn release(operation: &mut Operation) {
    operation.phase = Phase::Progressing;
    operation.interventions.hold = None;
}

fn rolling_back(operation: &Operation) -> Result<(), Rejection> {
    if operation.phase == Phase::RollingBack {
        let message = format!("operation {} is on its way back already", operation.id);
        return Err(Rejection::new("OPERATION_ROLLING_BACK", message)
            .hint(format!("kctl operation status {} -w", operation.id)));
    }
    Ok(())
}
