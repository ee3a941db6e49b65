//! A history as text: one JSON object a line, in the order in which things were seen.
//!
//! ```text
//! {"process": 0, "type": "invoke", "f": "register", "value": {"node": "n1", "boot": 3}}
//! {"process": 1, "type": "invoke", "f": "read", "value": {"node": "n1"}}
//! {"process": 0, "type": "ok", "told": "accepted"}
//! {"process": 1, "type": "ok", "told": 3}
//! ```
//! `ok` tells the result, `fail` says that nothing happened, `info` that nobody knows. A process has one call at a time, and
//! none after an `info`. What has no end in the history is as `info`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::{Call, Told};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub process: u64,
    #[serde(flatten)]
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Kind {
    Invoke {
        #[serde(flatten)]
        call: Call,
    },
    Ok {
        #[serde(default)]
        told: Told,
    },
    Fail,
    Info,
}

/// # Errors
/// The line and what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Event>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let event = |(n, line): (usize, &str)| {
        // Flattened enums want a value that says what it is, not a stream.
        let value: Value = serde_json::from_str(line).map_err(|e| format!("line {}: {e}", n + 1))?;
        serde_json::from_value(value).map_err(|e| format!("line {}: {e}", n + 1))
    };
    lines.map(event).collect()
}
