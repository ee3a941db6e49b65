//! The members and agents that the executables run, in a simulated network: one seed is one run, on one thread.
//!
//! ```text
//! run ── chaos (cuts, delays, crashes, stops) ──▶ turmoil: m1 m2 m3 (server::run)   n1 n2 n3 (entry::run)   people
//!   └─── laws ◀── world (Kongs, entities, what people asked for) ◀── kong (the gateway port) ─┘               │
//!                    └────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What the product is given is another world behind its ports: [`network`], [`disks`], [`kong`], the clock
//! (`kctl_shared::simulated`) and chance ([`entropy`]). Files of agents and artifacts are real ones.

pub mod chaos;
pub mod disks;
pub mod entropy;
pub mod kong;
pub mod laws;
pub mod network;
pub mod node;
pub mod people;
pub mod run;
pub mod world;
