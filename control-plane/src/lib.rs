//! One member of the control plane.
//!
//! Pure core: [`state`] (what members agree on, `apply`), [`desired`] (`node_spec`), [`rollout`] (`plan`).
//!
//! Shell, with its tasks and what flows between them:
//!
//! ```text
//! agents ──▶ api::agent ──▶ inventory ──watch──▶ orchestrator ──propose──▶ raft ──▶ state
//!                 ▲                                   │                       │
//!                 └──────────── node_spec ◀───────────┼────── watch(applied) ─┤
//! kctl ────▶ api::* ──propose──▶ raft                 ▼ report                │
//! browser ─▶ http ◀──watch(StatusView)── hub ◀────────┴───────────────────────┘
//! ```
//!
//! Watches carry state (the newest wins), channels carry requests. [`server`] wires it with the world it is given in [`ports`], [`entry`] is the command line.

pub mod api;
pub mod artifacts;
pub mod backup;
pub mod config;
pub mod desired;
pub mod entry;
pub mod http;
pub mod hub;
pub mod inventory;
pub mod membership;
pub mod memory;
pub mod metrics;
pub mod orchestrator;
pub mod ports;
pub mod raft;
pub mod rollout;
pub mod server;
pub mod state;
pub mod vault;
pub mod views;

pub use entry::main;
