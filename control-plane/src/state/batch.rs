//! Several operations begin together, or none does.

use kctl_shared::fault::Fault;
use kctl_shared::name::PluginName;

use super::command::{Event, LogStamp, Rejection};
use super::lifecycle;
use super::model::ClusterState;
use super::operation::Operation;

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
