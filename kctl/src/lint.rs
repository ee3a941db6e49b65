//! Is a plugin one that Kong loads? Judged without a Kong: read, and loaded in a LuaJIT that can reach nothing.
//!
//! ```text
//! Loaded (package, rockspec) ─▶ report ─▶ child: this executable again, no files, no network, little time and memory
//!                                 ▲          ├─ lua/judge.lua   what Kong would say on loading
//!                                 │          └─ scan.rs         what can be read
//!                                 └── rules.rs (codes, severity, help), policy ─▶ show.rs (human, SARIF)
//! ```
//!
//! Nothing a plugin does can hurt more than its own child; a child that dies is a finding.

mod child;
mod clashes;
mod dicts;
mod job;
mod modules;
mod report;
mod rockspec;
mod rules;
mod sandbox;
mod scan;
mod show;
mod target;

pub use child::VERB;
pub use clashes::{Others, clashes};
pub use report::{Report, judge};
pub use rockspec::Sandboxed;
pub use rules::{Policy, policy};
pub use sandbox::main;
pub use show::{human, sarif};
pub use target::Target;

#[cfg(test)]
mod tests;
