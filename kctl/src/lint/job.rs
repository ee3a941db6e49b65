//! What is said between kctl and the process in which foreign Lua runs: one job in, lines out.

use kctl_shared::package::Evaluated;
use serde::{Deserialize, Serialize};

use super::target::Target;

/// The first line on the child's standard input; the bytes of all files follow, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    Plugin(PluginJob),
    Rockspec { name: String, size: usize },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PluginJob {
    pub plugin: String,
    pub kong: Target,
    pub files: Vec<Head>,
    /// Modules that lie beside the plugin but are not part of the release: (module, file).
    pub beside: Vec<(String, String)>,
    /// Shared dictionaries that the plugin declares.
    pub dicts: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Below the Lua root, e.g. `kong/plugins/x/handler.lua`.
    pub key: String,
    /// What Lua calls it: its path as the person knows it.
    pub chunk: String,
    pub size: usize,
}

/// One line on the child's standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What is loaded from here on; names the culprit if the child dies.
    Loading(String),
    Found(Raw),
    /// A module of others without which loading fails.
    Needs(String),
    Handler {
        priority: Option<f64>,
        version: Option<String>,
    },
    Rockspec(Evaluated),
    Refused {
        code: String,
        message: String,
    },
    /// The last line of a child that came to its end.
    Done,
}

/// A finding as it is made, before policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raw {
    pub rule: String,
    /// A key of the job's files, what Lua calls one, or empty.
    pub file: String,
    /// From 1; 0 if unknown.
    pub line: u32,
    pub message: String,
}
