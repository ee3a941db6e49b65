//! F2: before nodes without an Admin API drop a plugin, and before its files go, a scan found nothing that refers to it.
//!
//! The control plane hears of scans and decides; what it decided on may have changed when the decision is applied.

use kctl_shared::spec::Grant;

use super::command::Rejection;
use super::model::{ClusterState, has_admin_api};
use super::operation::{Operation, StepKind};

/// The applier's grant under which the barrier after step `from` has to be scanned for; `None` when it asks for none.
///
/// While a node with an Admin API is left, entities may still come. Which have one may have changed since the step before:
/// so this is asked before each step without any, and not only before the first.
pub fn grant(state: &ClusterState, operation: &Operation, from: usize) -> Option<Grant> {
    let next = operation.steps.get(from + 1)?;
    let admin = |node| has_admin_api(&state.nodes, node);
    let asks = operation.steps[from].kind == StepKind::Disable
        && (next.kind == StepKind::Purge || !next.nodes.keys().any(admin));
    let applier = || operation.applier.as_ref().map(|a| a.grant).unwrap_or_default();
    asks.then(applier)
}

/// # Errors
/// `SUPERSEDED` when the barrier was found open without a scan that it asks for now.
pub(super) fn check(
    state: &ClusterState,
    operation: &Operation,
    from: usize,
    scanned: Option<Grant>,
) -> Result<(), Rejection> {
    let Some((asked, scanned)) = grant(state, operation, from).zip(scanned) else { return Ok(()) };
    if asked == scanned {
        return Ok(());
    }
    let message = format!("operation {}: one more scan for plugin configurations", operation.id);
    Err(Rejection::new("SUPERSEDED", message))
}
