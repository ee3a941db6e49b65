//! What the end-to-end tests share: a cluster of real processes, looked at and acted on from outside only. Beside it, the
//! benchmarks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub mod bench;
pub mod cluster;
pub mod dice;
pub mod history;
pub mod hosts;
pub mod members;
pub mod newcomer;
pub mod plugins;
pub mod small;
pub mod wait;
pub mod watched;

pub use cluster::Cluster;
pub use wait::until;
