//! The replicated state and the one function that changes it.
//!
//! [`apply`] is pure, deterministic and total: no clock, no randomness, no environment, no I/O, no hash-map order. Time
//! and ids arrive in the command. A [`Rejection`] leaves the state untouched: each handler checks first and mutates after.
#![deny(clippy::disallowed_methods)]

pub mod command;
pub mod invariants;
pub mod model;
pub mod operation;

mod catalogue;
mod entities;
mod fleet;
mod intervene;
mod leftovers;
mod lifecycle;
mod progress;

pub use catalogue::{no_conflict, same_content};
pub use command::{Command, Event, LogStamp, Rejection};
pub use fleet::presented;
pub use model::ClusterState;

/// Applies one committed command. Guards are evaluated here, not only before proposing: what slipped in between makes
/// the entry a recorded rejection.
///
/// # Errors
/// A [`Rejection`] with a stable code; the state is unchanged.
pub fn apply(state: &mut ClusterState, at: LogStamp, command: Command) -> Result<Vec<Event>, Rejection> {
    let at = LogStamp { proposed_at: at.proposed_at.max(state.clock), ..at };
    let events = match command {
        Command::RegisterNode { node, group, nonce, boot, facts } => {
            fleet::register_node(state, at, node, group, nonce, boot, facts)
        }
        Command::RegisterRelease { release } => catalogue::register_release(state, at, release),
        Command::StartOperation { operation } => lifecycle::start(state, at, *operation),
        Command::Dispatch { operation, step, nodes } => {
            progress::dispatch(state, at, &operation, step, nodes)
        }
        Command::Settle { operation, step, verdicts } => {
            progress::settle(state, at, &operation, step, verdicts)
        }
        Command::AdvanceCursor { operation, from, summary } => {
            progress::advance(state, at, &operation, from, summary)
        }
        Command::Reroute { operation, from, phase, error, steps } => {
            progress::reroute(state, at, &operation, from, phase, error, steps)
        }
        Command::AssignApplier { operation, node } => entities::assign_applier(state, at, &operation, node),
        Command::RecordEntities { operation, step, entities } => {
            entities::record(state, at, &operation, step, entities)
        }
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
    }?;
    state.clock = at.proposed_at;
    Ok(events)
}
