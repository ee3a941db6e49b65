//! A cluster on one machine: members, Kong nodes and agents as processes of their own, laid out below one directory.
//!
//! ```text
//! plan (directories, ports, configuration files) ──▶ supervise (start, start again, dev.json) ──▶ health
//! ```

pub mod health;
pub mod plan;
pub mod postgres;
pub mod supervise;

pub use plan::{Plan, Request};
