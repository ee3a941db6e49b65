//! The replicated state and the one function that changes it.
//!
//! [`apply`] is pure, deterministic and total: no clock, no randomness, no environment, no I/O, no hash-map order. Time
//! and ids arrive in the command. A [`Rejection`] leaves the state untouched: each handler checks first and mutates after.
#![deny(clippy::disallowed_methods)]

pub mod audit;
pub mod batch;
pub mod command;
pub mod duty;
pub mod invariants;
pub mod members;
pub mod model;
pub mod operation;
pub mod window;

mod catalogue;
mod entities;
pub(crate) mod fence;
mod fleet;
pub(crate) mod grouping;
pub mod history;
mod intervene;
pub(crate) mod leftovers;
mod lifecycle;
mod pin;
pub(crate) mod progress;
mod restored;
mod share;

pub use audit::CONTROL_PLANE;
pub use catalogue::{no_conflict, same_content};
pub use command::{Command, Event, LogStamp, Rejection};
pub use fleet::presented;
pub use model::{ClusterState, SealingKey};
pub use pin::not_pinned;
pub use restored::restored;

/// Applies one committed command. Guards are evaluated here, not only before proposing: what slipped in between makes
/// the entry a recorded rejection.
///
/// # Errors
/// A [`Rejection`] with a stable code; the state is unchanged.
pub fn apply(state: &mut ClusterState, at: LogStamp, command: Command) -> Result<Vec<Event>, Rejection> {
    apply_by(state, at, CONTROL_PLANE, command)
}

/// As [`apply`], for somebody; every command that is accepted and changes something leaves one record.
///
/// # Errors
/// As [`apply`].
pub fn apply_by(
    state: &mut ClusterState,
    at: LogStamp,
    who: &str,
    command: Command,
) -> Result<Vec<Event>, Rejection> {
    let at = LogStamp { proposed_at: at.proposed_at.max(state.clock), ..at };
    let drafts = audit::drafts(state, &command);
    let events = match command {
        Command::RegisterNode { node, group, nonce, boot, facts } => {
            fleet::register_node(state, at, node, group, nonce, boot, facts)
        }
        Command::RegisterRelease { release } => catalogue::register_release(state, at, release),
        Command::StartOperation { operation } => lifecycle::start(state, at, *operation),
        Command::StartBatch { operations } => batch::start(state, at, operations),
        Command::Dispatch { operation, step, nodes } => {
            progress::dispatch(state, at, &operation, step, nodes)
        }
        Command::Settle { operation, step, verdicts, starts } => {
            progress::settle(state, at, &operation, step, verdicts, starts)
        }
        Command::AdvanceCursor { operation, from, summary, scanned } => {
            progress::advance(state, at, &operation, from, summary, scanned)
        }
        Command::Reroute { operation, from, phase, error, steps } => {
            progress::reroute(state, at, &operation, from, phase, error, steps)
        }
        Command::AssignApplier { operation, node, replaces } => {
            entities::assign_applier(state, at, &operation, node, replaces)
        }
        Command::RecordEntities { operation, step, entities, saved } => {
            entities::record(state, at, &operation, step, entities, saved)
        }
        Command::ConcludeAttach { operation, from, refused, summary } => {
            entities::conclude_attach(state, at, &operation, from, refused, summary)
        }
        Command::Pin { group, plugin, version } => pin::pin(state, &group, &plugin, version),
        Command::MintSealingKey { key } => entities::mint_key(state, key),
        Command::FinishOperation { operation, phase } => lifecycle::finish(state, at, &operation, phase),
        Command::Relapse { operation, step, failures } => {
            progress::relapse(state, at, &operation, step, failures)
        }
        Command::Hold { operation, from, cause } => intervene::hold(state, at, &operation, from, cause),
        Command::Intervene { operation, request, reason, what } => {
            intervene::intervene(state, at, &operation, request, reason, what)
        }
        Command::ForgetLeftover { group, plugin, node } => {
            leftovers::forget(state, at, &group, &plugin, &node)
        }
        Command::AdmitMember { id, address, reason: _ } => members::admit(state, id, address),
        Command::DismissMember { id, reason: _ } => members::dismiss(state, id),
        Command::ApproveNode { node, epoch, reason: _ } => fleet::approve(state, at, node, epoch),
        Command::ChangeNode { node, change, reason } => duty::change_node(state, at, node, change, reason),
        Command::ChangeGroup { group, change, reason } => {
            duty::change_group(state, at, &group, change, reason)
        }
    }?;
    state.clock = at.proposed_at;
    for draft in drafts {
        state.audit.append(at, who, draft);
    }
    Ok(events)
}
