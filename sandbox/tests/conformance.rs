//! The stand-in played against what Kong 3.9.1 was seen to do.
//!
//! Each file is one scenario: commands, exit codes, texts and states as a real Kong showed them, with a DB-less node
//! or with nodes on one database. With `KONG_GOLDEN` set to a directory of recordings, `transcripts` compares the
//! recorded texts themselves.

// A test that cannot go on ends; helpers outside of #[test] functions are tests too.
#![allow(clippy::unwrap_used)]

#[path = "conformance/node.rs"]
mod node;

#[path = "conformance/add_plugin.rs"]
mod add_plugin;
#[path = "conformance/admin_errors.rs"]
mod admin_errors;
#[path = "conformance/after_failure.rs"]
mod after_failure;
#[path = "conformance/broken_plugins.rs"]
mod broken_plugins;
#[path = "conformance/drain.rs"]
mod drain;
#[path = "conformance/in_use.rs"]
mod in_use;
#[path = "conformance/late_failures.rs"]
mod late_failures;
#[path = "conformance/lifecycle.rs"]
mod lifecycle;
#[path = "conformance/lua_surroundings.rs"]
mod lua_surroundings;
#[path = "conformance/metrics.rs"]
mod metrics;
#[path = "conformance/plugins_crud.rs"]
mod plugins_crud;
#[path = "conformance/prefix_writes.rs"]
mod prefix_writes;
#[path = "conformance/preflight.rs"]
mod preflight;
#[path = "conformance/readiness.rs"]
mod readiness;
#[path = "conformance/removal.rs"]
mod removal;
#[path = "conformance/root.rs"]
mod root;
#[path = "conformance/scenarios.rs"]
mod scenarios;
#[path = "conformance/schema_change.rs"]
mod schema_change;
#[path = "conformance/transcripts.rs"]
mod transcripts;
#[path = "conformance/two_nodes.rs"]
mod two_nodes;
#[path = "conformance/version.rs"]
mod version;
