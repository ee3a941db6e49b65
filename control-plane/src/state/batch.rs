//! Several operations begin together, or none does; and all of them end well, or none does.
//!
//! Each has its own steps, and none takes its last one before the others may. From then on all go only forward; until
//! then, if one goes back, the others have to.

use kctl_shared::fault::Fault;
use kctl_shared::mutant;
use kctl_shared::name::PluginName;

use super::command::{Event, LogStamp, Rejection};
use super::lifecycle;
use super::model::ClusterState;
use super::operation::{Operation, OperationKind, Phase, Step};

/// Operations that may begin together; more than one reload should bring in at once.
pub const MAX_BATCH: usize = 32;

pub(super) fn start(
    state: &mut ClusterState,
    at: LogStamp,
    operations: Vec<Operation>,
) -> Result<Vec<Event>, Rejection> {
    let batch = operations.first().and_then(|o| o.batch.clone());
    let alike = batch.is_some() && operations.iter().all(|o| o.batch == batch);
    if !alike || operations.len() > MAX_BATCH {
        let message = format!("a batch is 1 to {MAX_BATCH} operations of the same batch id");
        return Err(Rejection::new("INVALID_OPERATION", message));
    }
    let known = operations.iter().filter(|o| state.requests.contains_key(&o.request_id)).count();
    if known > 0 && known < operations.len() {
        return Err(reused(&batch.unwrap_or_default()));
    }
    // On a copy: one that is refused leaves nothing of the others behind.
    let mut next = state.clone();
    let (mut events, mut refused) = (Vec::new(), Vec::new());
    for operation in operations {
        let plugin = operation.plugin.clone();
        match lifecycle::start(&mut next, at, operation) {
            Ok(started) => events.extend(started),
            Err(rejection) => refused.push((plugin, rejection)),
        }
    }
    all_or_none(&refused)?;
    *state = next;
    Ok(events)
}

/// The operations of a batch, whether they live or have ended; none when there is no such batch.
pub fn members<'a>(state: &'a ClusterState, batch: &str) -> impl Iterator<Item = &'a Operation> {
    state.operations.values().filter(move |o| o.batch.as_deref() == Some(batch))
}

/// What began together with the operation, whether it lives or has ended.
pub fn others<'a>(state: &'a ClusterState, operation: &'a Operation) -> impl Iterator<Item = &'a Operation> {
    // Mostly there is no batch, and then nothing is looked through.
    let all = operation.batch.iter().flat_map(|batch| members(state, batch));
    all.filter(|o| o.id != operation.id)
}

/// One that began together with the operation and goes back, or has gone: the operation has to go back too.
pub fn gone_back<'a>(state: &'a ClusterState, operation: &'a Operation) -> Option<&'a Operation> {
    let back = [Phase::RollingBack, Phase::Failed, Phase::Aborted, Phase::Compensated];
    others(state, operation).find(|o| back.contains(&o.phase))
}

/// One that began together with the operation and cannot go back any more: nor can the operation.
pub fn past_return<'a>(state: &'a ClusterState, operation: &'a Operation) -> Option<&'a Operation> {
    others(state, operation).find(|o| goes_only_forward(o))
}

/// It deletes files, or is in place.
pub fn goes_only_forward(operation: &Operation) -> bool {
    let in_place = operation.phase == Phase::Progressing && operation.current().is_none();
    in_place || operation.phase == Phase::Succeeded || operation.is_past_return()
}

/// One that began together with the operation and is not ready to take the last step of an install with it.
pub fn behind<'a>(state: &'a ClusterState, operation: &'a Operation) -> Option<&'a Operation> {
    let installs = operation.kind != OperationKind::Remove && operation.phase == Phase::Progressing;
    let lasts = installs && operation.cursor + 1 == operation.steps.len();
    let ready = |o: &Operation| match o.current() {
        None => true,
        Some(step) => o.phase == Phase::Progressing && o.cursor + 1 == o.steps.len() && is_settled(o, step),
    };
    others(state, operation).find(|o| lasts && !o.phase.has_ended() && !ready(o))
}

fn is_settled(operation: &Operation, step: &Step) -> bool {
    step.open_nodes().next().is_none() && operation.stops_at(step).is_none()
}

/// The operation may act, and pass its step.
///
/// # Errors
/// `SUPERSEDED` when it has to go back, with those that began together with it.
pub(super) fn goes_on(state: &ClusterState, operation: &Operation) -> Result<(), Rejection> {
    if operation.phase == Phase::RollingBack || mutant::is("batch-in-halves") {
        return Ok(());
    }
    match gone_back(state, operation) {
        None => Ok(()),
        Some(other) => {
            let message = format!("operation {} has to go back as {} does", operation.id, other.id);
            Err(Rejection::new("SUPERSEDED", message))
        }
    }
}

/// The operation may go back, as far as those that began together with it are concerned.
///
/// # Errors
/// `PAST_POINT_OF_NO_RETURN` when one of them cannot.
pub(super) fn may_go_back(state: &ClusterState, operation: &Operation) -> Result<(), Rejection> {
    let Some(other) = past_return(state, operation).filter(|_| !mutant::is("batch-in-halves")) else {
        return Ok(());
    };
    let message = format!(
        "operation {} of {}, with which {} began, cannot be taken back any more",
        other.id, other.plugin, operation.id
    );
    Err(Rejection::new("PAST_POINT_OF_NO_RETURN", message)
        .hint(format!("let them end, then kctl plugin undo {} --all-nodes", operation.plugin)))
}

/// The request's first try began other operations.
pub fn reused(batch: &str) -> Rejection {
    Rejection::new("REQUEST_ID_REUSED", format!("request id {batch} was used for other plugins"))
        .hint("use a new --request-id for a new request")
}

/// The refusals of a batch as one, with the code and the hint of the first; names every plugin that was refused.
///
/// # Errors
/// When there is any.
pub fn all_or_none(refused: &[(PluginName, Fault)]) -> Result<(), Fault> {
    let Some((_, first)) = refused.first() else { return Ok(()) };
    let each: Vec<_> = refused.iter().map(|(plugin, why)| format!("{plugin}: {}", why.message)).collect();
    Err(Fault::new(&first.code, format!("{}; nothing was begun", each.join("; "))).hint(first.hint.clone()))
}
