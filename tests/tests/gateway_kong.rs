//! The adapter to Kong against a Kong: edits, preflights, reloads, proofs and ways back, looked at from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "gateway_kong/coming.rs"]
mod coming;
#[path = "gateway_kong/database.rs"]
mod database;
#[path = "gateway_kong/entities.rs"]
mod entities;
#[path = "gateway_kong/interrupted.rs"]
mod interrupted;
#[path = "gateway_kong/node.rs"]
mod node;
#[path = "gateway_kong/refused.rs"]
mod refused;
#[path = "gateway_kong/restarts.rs"]
mod restarts;
#[path = "gateway_kong/surroundings.rs"]
mod surroundings;
#[path = "gateway_kong/versions.rs"]
mod versions;
