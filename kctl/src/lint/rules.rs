//! The rules of the linter: stable codes, how grave each is, and what to do about it.

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
    /// What it is about, for lists of rules.
    pub about: &'static str,
    /// What to do.
    pub help: &'static str,
}

const fn rule(code: &'static str, severity: Severity, about: &'static str, help: &'static str) -> Rule {
    Rule { code, severity, about, help }
}

use Severity::{Error, Note, Warning};

pub const RULES: &[Rule] = &[
    rule("SYNTAX_ERROR", Error, "a file that the plugin needs is no Lua", "correct the line that is named"),
    rule(
        "SYNTAX_ERROR_UNUSED",
        Warning,
        "a file that nothing requires is no Lua",
        "correct the file or take it out",
    ),
    rule("HANDLER_MISSING", Error, "there is no handler.lua", "add handler.lua beside schema.lua"),
    rule("SCHEMA_MISSING", Error, "there is no schema.lua", "add schema.lua beside handler.lua"),
    rule(
        "HANDLER_INVALID",
        Error,
        "the handler is no table",
        "end handler.lua with `return` and the handler's table",
    ),
    rule(
        "PRIORITY_INVALID",
        Error,
        "PRIORITY is not what Kong takes",
        "set PRIORITY to a whole number in the handler's table",
    ),
    rule(
        "HANDLER_VERSION_INVALID",
        Error,
        "VERSION is not what Kong takes",
        "set VERSION = \"1.0.0\" in the handler's table",
    ),
    rule(
        "PHASES_CONFLICT",
        Error,
        "response stands beside header_filter or body_filter",
        "drop `response`, or do its work in it alone",
    ),
    rule(
        "SCHEMA_INVALID",
        Error,
        "the schema is not one that Kong takes",
        "correct the fields that are named; see Kong's plugin schema documentation",
    ),
    rule(
        "SCHEMA_OLD",
        Error,
        "the schema has the form of before Kong 1.0",
        "rewrite it as `{ name = …, fields = { { config = { type = \"record\", fields = { … } } } } }`",
    ),
    rule(
        "DAOS_INVALID",
        Error,
        "the entities are not ones that Kong takes",
        "return a list of entity schemas, each with name, primary_key and fields",
    ),
    rule(
        "MIGRATIONS_INVALID",
        Error,
        "the migrations are not ones that Kong takes",
        "give each migration what the sentence names; for 3.4 and later take `cassandra` out",
    ),
    rule(
        "API_ERROR",
        Error,
        "api.lua breaks the Admin API",
        "correct api.lua: with it, every request to the Admin API answers 500",
    ),
    rule(
        "BASE_PLUGIN_GONE",
        Error,
        "the plugin is made from BasePlugin",
        "make the handler a plain table with PRIORITY and VERSION, and drop `super` calls",
    ),
    rule(
        "MODULE_NOT_FOUND",
        Error,
        "a module that is needed to load is not there",
        "pack the module, or require what this version of Kong has",
    ),
    rule(
        "LOAD_ERROR",
        Error,
        "the plugin's own code throws when it is loaded",
        "correct the line that is named: nothing of a request or worker exists while Kong loads plugins",
    ),
    rule(
        "LOAD_ENDLESS",
        Error,
        "loading does not come to an end",
        "take the loop or the work out of the main chunk",
    ),
    rule(
        "LOAD_CRASHED",
        Error,
        "loading takes the process down",
        "take what needs that much memory or time out of the main chunk",
    ),
    rule(
        "OS_EXIT",
        Error,
        "os.exit is called when the plugin is loaded",
        "take the call out: it ends Kong's master",
    ),
    rule(
        "LOAD_UNCERTAIN",
        Warning,
        "whether it loads cannot be told here",
        "look at the line, or let the preflight of an install tell",
    ),
    rule(
        "OS_EXIT_CALL",
        Warning,
        "os.exit may be called",
        "return or throw instead: os.exit ends a worker and all its requests",
    ),
    rule(
        "RUNS_COMMANDS",
        Warning,
        "commands of the machine may be run",
        "do it without a command, or say why with --policy RUNS_COMMANDS=off",
    ),
    rule(
        "OS_EXECUTE_LOADING",
        Warning,
        "a command is run when the plugin is loaded",
        "run nothing while Kong loads plugins",
    ),
    rule(
        "NATIVE_CODE",
        Warning,
        "a shared library is loaded",
        "install the library on every node by its own means",
    ),
    rule("LOADS_CODE", Note, "text is run as Lua", "make sure that no request can say which"),
    rule(
        "TOUCHES_FILES",
        Note,
        "files of the node are read or written",
        "make sure they exist on every node",
    ),
    rule("FFI", Note, "C is called through ffi", "make sure that what it declares is on every node"),
    rule(
        "MODULE_NOT_PACKAGED",
        Warning,
        "a module of the plugin is required later and not packed",
        "pack the module, or take the require out",
    ),
    rule(
        "MODULE_GONE",
        Warning,
        "a module that this version of Kong lacks is required later",
        "require what this version of Kong has",
    ),
    rule(
        "MODULE_LEFT_OUT",
        Warning,
        "a module beside the plugin is required but not packed",
        "move it below kong/plugins/NAME, or install it on the nodes too",
    ),
    rule(
        "MODULE_KONGS_OWN",
        Note,
        "a copy of one of Kong's own modules lies beside the plugin",
        "add --allow-shadow if the copy is meant: everything in Kong would load it",
    ),
    rule(
        "DEPENDENCY",
        Warning,
        "a module is required that Kong does not bring",
        "install it on every node, for example with luarocks, before the plugin",
    ),
    rule(
        "DEPENDENCY_OPTIONAL",
        Note,
        "a module that Kong does not bring is used where it is there",
        "install it on the nodes if its part of the plugin is wanted",
    ),
    rule(
        "OTHER_PLUGIN",
        Warning,
        "a module of another plugin is required",
        "install that plugin first, and remove it last",
    ),
    rule(
        "BUNDLED_MODULE",
        Note,
        "a module of one of Kong's own plugins is required",
        "try the plugin with each new version of Kong: these modules change without notice",
    ),
    rule(
        "DYNAMIC_REQUIRE",
        Note,
        "what is required is worked out when it runs",
        "make sure that all it may require is packed",
    ),
    rule(
        "PRIORITY_TAKEN",
        Warning,
        "PRIORITY equals a bundled plugin's",
        "choose a PRIORITY of its own, so that the order is meant",
    ),
    rule("PRIORITY_MISSING", Note, "there is no PRIORITY", "add PRIORITY: Kong 3 refuses a handler without"),
    rule(
        "VERSION_MISSING",
        Note,
        "there is no VERSION that Kong 3 takes",
        "add VERSION = \"1.0.0\": Kong 3 refuses a handler without",
    ),
    rule(
        "SCHEMA_OLD_FORM",
        Warning,
        "the schema has the form of before Kong 1.0",
        "rewrite it before going to Kong 3",
    ),
    rule(
        "SCHEMA_DOUBTFUL",
        Warning,
        "the schema breaks rules that later versions enforce",
        "correct the fields that are named",
    ),
    rule("SCHEMA_NAME", Note, "the schema's name is not the plugin's", "give it the plugin's name"),
    rule(
        "DAOS_OLD_FORM",
        Warning,
        "the entities are keyed by name",
        "return a list instead before going to Kong 3",
    ),
    rule(
        "MIGRATIONS_OLD_FORM",
        Warning,
        "the migrations have the form of before Kong 1.0",
        "rewrite them as migrations/init.lua and one file a step",
    ),
    rule("GLOBAL_WRITTEN", Warning, "a global is written", "put `local` before it, or keep it in a module"),
    rule(
        "ROCKSPEC_VERSION_MISMATCH",
        Warning,
        "the rockspec's file name is not what it says of itself",
        "rename the file: LuaRocks refuses it as it is",
    ),
    rule(
        "ROCKSPEC_MISPLACED",
        Warning,
        "a field of the rockspec stands in the wrong table",
        "move it out of build",
    ),
    rule(
        "ROCKSPEC_MODULES",
        Warning,
        "a list of modules of the rockspec is no table",
        "write build.modules as a table",
    ),
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
        assert!(RULES.iter().all(|r| !r.about.is_empty() && !r.help.is_empty()));
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
