//! What is wrong with a Kong node, the true cause first, and what to do about it; needs no control plane and no agent.
//!
//! ```text
//! gather (shell: files, processes, APIs, scratch Kongs) ──▶ Facts ──▶ diagnose (pure) ──▶ findings ──▶ repair (shell)
//! ```
//!
//! One file under `checks/` for each family of checks; [`causes`] knows what follows from what. [`conditions`] is the part
//! that costs nothing, for the agent's own loop.

pub mod causes;
mod checks;
pub mod conditions;
pub mod facts;
pub mod gather;
mod lines;
mod log;
mod origin;
mod passed;
pub mod repair;

use std::path::PathBuf;

use kctl_shared::spec::Failure;
use serde::Serialize;

use crate::gateway::dialect::Takes;

pub use facts::Facts;
pub use passed::passed;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work, or will not after the next restart.
    Error,
    /// Something works otherwise than written, or is left over.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Stable; `kctl explain CODE` has the long form.
    pub code: String,
    pub severity: Severity,
    /// Of a cluster's node; `None` for this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The plugin, key or file it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// One sentence, lower case.
    pub message: String,
    /// What else there is to know, a sentence each.
    pub details: Vec<String>,
    /// Kong's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kong_says: Option<String>,
    /// The exact command or edit.
    pub fix: String,
    /// `--fix` does it.
    pub can_fix: bool,
    /// `--fix` asks first, or needs `--yes`: it takes something away or could be meant otherwise.
    pub asks: bool,
    /// Code of the finding that this one follows from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
    #[serde(skip)]
    pub repair: Option<Repair>,
}

/// What `--fix` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Names into and out of the `plugins` directive.
    List {
        add: Vec<String>,
        remove: Vec<String>,
    },
    /// Lines of kong.conf by number (from 1): another text, or none.
    Lines(Vec<(usize, Option<String>)>),
    /// Load kong.conf as it is: prepare, reload, prove.
    Load,
    /// Readable for everybody; directories also enterable.
    Readable(Vec<PathBuf>),
    Owner {
        path: PathBuf,
        user: u32,
        group: u32,
    },
    RemoveFile(PathBuf),
    Continue(i32),
    End(Vec<i32>),
    /// `kong migrations up`, only when it was asked for by name.
    Migrate,
}

impl Repair {
    /// Ends with kong.conf being loaded.
    pub fn loads(&self) -> bool {
        !matches!(self, Self::RemoveFile(_) | Self::Continue(_) | Self::End(_) | Self::Migrate)
    }
}

impl Finding {
    pub fn error(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            severity: Severity::Error,
            node: None,
            subject: None,
            message: message.into(),
            details: Vec::new(),
            kong_says: None,
            fix: String::new(),
            can_fix: false,
            asks: false,
            follows: None,
            repair: None,
        }
    }

    pub fn warning(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Of a failure whose sentence says everything.
    pub fn of(failure: &Failure) -> Self {
        Self::error(&failure.code, &failure.message)
    }

    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    #[must_use]
    pub fn detail(mut self, sentence: impl Into<String>) -> Self {
        self.details.push(sentence.into());
        self
    }

    #[must_use]
    pub fn says(mut self, words: impl Into<String>) -> Self {
        self.kong_says = Some(words.into()).filter(|words: &String| !words.is_empty());
        self
    }

    #[must_use]
    pub fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix = command.into();
        self
    }

    /// `--fix` does it without asking.
    #[must_use]
    pub fn repair(mut self, repair: Repair) -> Self {
        (self.repair, self.can_fix, self.asks) = (Some(repair), true, false);
        self
    }

    /// `--fix` does it when it is told that it may.
    #[must_use]
    pub fn repair_if_allowed(mut self, repair: Repair) -> Self {
        (self.repair, self.can_fix, self.asks) = (Some(repair), true, true);
        self
    }
}

/// Everything that is wrong, the true cause first and what follows from it later.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = causes::ordered(checks::all(facts));
    if facts.dialect.takes == Takes::Restart && facts.is_running() {
        for finding in findings.iter_mut().filter(|f| f.repair.as_ref().is_some_and(Repair::loads)) {
            finding.asks = true;
            finding.details.push("this Kong takes it by a restart, which cuts its requests off".into());
        }
    }
    findings
}
