//! The agent beside one Kong node: makes the node equal to its spec and proves it.
//!
//! ```text
//! control plane ◀──stream── session ──specs──▶ agent ──▶ ledger (fences, proof, attempts)
//!                              ▲                │  └───▶ reconcile (pure) ──▶ one Action ──▶ packages, gateway
//!                              └──── status ◀───┤
//!                 lease ──▶ entities ──report──▶┘
//! ```
//!
//! Watches carry state (the newest wins), the channel carries specs. [`reconcile`], [`attempts`] and [`action`] are pure;
//! [`gateway`] is the port to Kong, [`packages`] the one to plugin files. [`references`] answers the control plane's
//! questions beside the loop. [`doctor`] says what is wrong with a node and [`sync`] makes one ready before Kong starts,
//! both without the loop. [`entry`] wires it.

pub mod action;
pub mod agent;
pub mod answers;
pub mod attempts;
pub mod bodies;
mod claim;
pub mod config;
pub mod doctor;
pub mod durable;
pub mod entities;
pub mod entry;
pub mod gateway;
pub mod hooks;
pub mod ledger;
pub mod packages;
pub mod reconcile;
pub mod references;
pub mod session;
pub mod status;
pub mod sync;

pub use entry::main;
