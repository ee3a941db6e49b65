//! The rules of the linter: stable codes and how grave each is. What they are about stands where `kctl explain` reads it.

use kctl_shared::codes::{self, Entry};
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Note,
    Warning,
    /// Kong refuses the plugin, or would not survive it.
    Error,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[derive(Debug)]
pub struct Rule {
    pub code: &'static str,
    pub severity: Severity,
}

impl Rule {
    /// Means, why and to do, as `kctl explain` shows them.
    pub fn entry(&self) -> Option<Entry> {
        codes::find(self.code)
    }

    /// What to do, as the end of a line: no capital, no full stop.
    pub fn help(&self) -> String {
        let todo = self.entry().map_or("", |entry| entry.todo);
        let mut rest = todo.trim_end_matches('.').chars();
        rest.next().map_or(String::new(), |first| first.to_lowercase().chain(rest).collect())
    }
}

const fn rule(code: &'static str, severity: Severity) -> Rule {
    Rule { code, severity }
}

use Severity::{Error, Note, Warning};

pub const RULES: &[Rule] = &[
    rule("SYNTAX_ERROR", Error),
    rule("SYNTAX_ERROR_UNUSED", Warning),
    rule("HANDLER_MISSING", Error),
    rule("SCHEMA_MISSING", Error),
    rule("HANDLER_INVALID", Error),
    rule("PRIORITY_INVALID", Error),
    rule("HANDLER_VERSION_INVALID", Error),
    rule("PHASES_CONFLICT", Error),
    rule("SCHEMA_INVALID", Error),
    rule("SCHEMA_OLD", Error),
    rule("DAOS_INVALID", Error),
    rule("MIGRATIONS_INVALID", Error),
    rule("API_ERROR", Error),
    rule("BASE_PLUGIN_GONE", Error),
    rule("MODULE_NOT_FOUND", Error),
    rule("LOAD_ERROR", Error),
    rule("LOAD_ENDLESS", Error),
    rule("LOAD_CRASHED", Error),
    rule("OS_EXIT", Error),
    rule("LOAD_UNCERTAIN", Warning),
    rule("OS_EXIT_CALL", Warning),
    rule("RUNS_COMMANDS", Warning),
    rule("OS_EXECUTE_LOADING", Warning),
    rule("NATIVE_CODE", Warning),
    rule("LOADS_CODE", Note),
    rule("TOUCHES_FILES", Note),
    rule("FFI", Note),
    rule("MODULE_NOT_PACKAGED", Warning),
    rule("MODULE_GONE", Warning),
    rule("MODULE_LEFT_OUT", Warning),
    rule("MODULE_CLASH", Warning),
    rule("SHARED_DICT_UNDECLARED", Warning),
    rule("MODULE_KONGS_OWN", Note),
    rule("DEPENDENCY", Warning),
    rule("DEPENDENCY_OPTIONAL", Note),
    rule("OTHER_PLUGIN", Warning),
    rule("BUNDLED_MODULE", Note),
    rule("DYNAMIC_REQUIRE", Note),
    rule("PRIORITY_TAKEN", Warning),
    rule("PRIORITY_MISSING", Note),
    rule("VERSION_MISSING", Note),
    rule("SCHEMA_OLD_FORM", Warning),
    rule("SCHEMA_DOUBTFUL", Warning),
    rule("SCHEMA_NAME", Note),
    rule("DAOS_OLD_FORM", Warning),
    rule("MIGRATIONS_OLD_FORM", Warning),
    rule("GLOBAL_WRITTEN", Warning),
    rule("ROCKSPEC_VERSION_MISMATCH", Warning),
    rule("ROCKSPEC_MISPLACED", Warning),
    rule("ROCKSPEC_MODULES", Warning),
];

/// The rule of a code; those of packing are errors without an entry of their own.
pub fn find(code: &str) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.code == code)
}

/// `RULE=error|warning|note|off`, as `--policy` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub rule: &'static str,
    /// `None` for off.
    pub severity: Option<Severity>,
}

/// # Errors
/// A sentence for the command line. What Kong refuses cannot be made less than an error.
pub fn policy(text: &str) -> Result<Policy, String> {
    let Some((code, level)) = text.split_once('=') else {
        return Err(format!("{text:?} is not RULE=error|warning|note|off"));
    };
    let rule = find(code).ok_or_else(|| format!("there is no rule {code}"))?;
    let severity = match level {
        "error" => Some(Error),
        "warning" => Some(Warning),
        "note" => Some(Note),
        "off" => None,
        _ => return Err(format!("{level:?} is not error, warning, note or off")),
    };
    if rule.severity == Error && severity != Some(Error) {
        return Err(format!("{code} is what Kong itself refuses; --no-lint is the way past it"));
    }
    Ok(Policy { rule: rule.code, severity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_said_once_and_whole() {
        let mut codes: Vec<_> = RULES.iter().map(|r| r.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), RULES.len());
        for rule in RULES {
            assert_eq!(rule.entry().map(|e| e.family), Some("lint"), "{}", rule.code);
        }
        let explained = codes::all().filter(|e| e.family == "lint");
        assert_eq!(explained.count(), RULES.len(), "a line in lint.txt that is no rule");
        let help = find("SYNTAX_ERROR").map(Rule::help);
        assert_eq!(help.as_deref(), Some("correct the line that is named"));
    }

    #[test]
    fn policies() {
        assert_eq!(
            policy("RUNS_COMMANDS=error"),
            Ok(Policy { rule: "RUNS_COMMANDS", severity: Some(Error) })
        );
        assert_eq!(policy("FFI=off"), Ok(Policy { rule: "FFI", severity: None }));
        for wrong in ["FFI", "FFI=maybe", "NO_SUCH=error", "SYNTAX_ERROR=off", "LOAD_ERROR=warning"] {
            assert!(policy(wrong).is_err(), "{wrong}");
        }
    }
}
