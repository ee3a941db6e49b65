//! How many requests a node's Kong answered, and how many of them with 5xx, by its own counters.
//!
//! Only what was counted is here: a node whose Kong counts nothing, or whose agent did not see it count before the reload,
//! has no [`Served`] at all, rather than zeros.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::spec::Grant;

/// Requests that were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// With any code.
    pub all: u64,
    /// With 5xx, whoever it came from.
    pub failed: u64,
}

impl Answers {
    /// Between 0 and 1; of nothing 0.
    pub fn share(self) -> f64 {
        if self.all == 0 { 0.0 } else { self.failed as f64 / self.all as f64 }
    }
}

impl std::ops::AddAssign for Answers {
    fn add_assign(&mut self, more: Self) {
        self.all = self.all.saturating_add(more.all);
        self.failed = self.failed.saturating_add(more.failed);
    }
}

/// What was answered around the last reload that operations made on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// What was reloaded for; a later reload, or none at all, says nothing of an earlier grant.
    pub grants: BTreeSet<Grant>,
    /// In the last `before_ms` milliseconds before it.
    pub before: Answers,
    pub before_ms: u64,
    pub since: Answers,
}
