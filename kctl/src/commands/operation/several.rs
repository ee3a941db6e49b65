//! An id of an operation, or of a batch: then all of its operations are meant.

use std::time::Duration;

use kctl_shared::proto::v1::{ListOperationsRequest, OperationView};
use serde_json::json;

use super::{describe, get, listed};
use crate::cli::ProgressStyle;
use crate::commands::Verb;
use crate::fail::{Fail, Outcome};
use crate::progress;

/// More operations than a batch has.
const LIMIT: u32 = 100;

/// The operation of that id, or those of the batch.
///
/// # Errors
/// `OPERATION_NOT_FOUND`.
pub async fn find(verb: &Verb, id: &str) -> Outcome<Vec<OperationView>> {
    match get(verb, id).await {
        Err(Fail::Fault(fault)) if fault.code == "OPERATION_NOT_FOUND" => {
            let found = of_batch(verb, id).await?;
            if found.is_empty() { Err(Fail::Fault(fault)) } else { Ok(found) }
        }
        found => Ok(vec![found?]),
    }
}

/// The operations of a batch; none when there is no such batch.
///
/// # Errors
/// Those of the call.
pub async fn of_batch(verb: &Verb, batch: &str) -> Outcome<Vec<OperationView>> {
    listed(verb, ListOperationsRequest { limit: LIMIT, running: false, batch: batch.to_owned() }).await
}

/// Watches them until each is as `until` says; they come back in the same order.
///
/// # Errors
/// Those of [`progress::follow_all`].
pub async fn follow(
    verb: &Verb,
    views: &[OperationView],
    style: ProgressStyle,
    timeout: Option<Duration>,
    until: fn(&OperationView) -> bool,
) -> Outcome<Vec<OperationView>> {
    let label = |view: &OperationView| if views.len() > 1 { view.plugins.join(",") } else { String::new() };
    let each: Vec<_> = views.iter().map(|view| (label(view), view.id.clone())).collect();
    progress::follow_all(&verb.client, &each, style, timeout, until).await
}

/// What they are, for people or as JSON.
///
/// # Errors
/// Of standard output.
pub fn show(verb: &Verb, id: &str, views: &[OperationView]) -> Outcome {
    match views {
        [view] => verb.printer.one(view, &view.id, || describe(view)),
        _ => {
            let ids: Vec<_> = views.iter().map(|v| v.id.as_str()).collect();
            let all = json!({"batch": id, "operations": views});
            verb.printer
                .one(&all, &ids.join("\n"), || views.iter().map(describe).collect::<Vec<_>>().join("\n"))
        }
    }
}
