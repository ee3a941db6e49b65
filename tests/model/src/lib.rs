//! A model of how a plugin is installed, removed and brought back, for a checker that looks at every order in which things
//! can happen.
//!
//! ```text
//! setup     where a run starts, which faults it allows how often, which bug is planted
//! cluster   the agreed state · command → apply · spec: the view a node has of it · runbook: steps of an operation
//! plan      what a leader proposes on what it knows: the present one, or one that was deposed and does not know it
//! machine   a node: Kong {directive, workers, old workers}, files, the agent's disk and memory, its messages
//! agent     the agent's smallest steps, between which it can be killed
//! world     all of it in one state · moves: what can happen next · laws: what must hold whatever happened
//! ```
//!
//! It is written after the product and smaller than it: one group, one plugin, one release, up to three nodes. Time is left
//! out; where the product waits for it (a lease and its margin) the model lets it have passed or not. Preflights, waves by
//! percentage, pauses, excuses and drift are not in it.
//!
//! A planted bug ([`setup::Mutant`]) leaves out one guard. Some are no inventions: `FenceByArrival`, `JoinerEnabledAfterB2`,
//! `WayBackUnchecked`, `ListedCountsAsGone`, `UnlistedLeftRunning` and `AssignUnchecked` are what the product did before the
//! model showed where it leads.

pub mod agent;
pub mod apply;
pub mod check;
pub mod cluster;
pub mod command;
pub mod laws;
pub mod machine;
pub mod mask;
pub mod moves;
pub mod plan;
pub mod runbook;
pub mod scenario;
pub mod setup;
pub mod spec;
pub mod world;
