//! Kong's own words: what it says when something fails, without the noise around it, and what that means.

/// Longest message that is passed on, in characters.
const MAX_CHARS: usize = 1000;

/// Markers behind which the sentence that counts begins; the last one found wins.
const MARKERS: [&str; 5] = [
    "init_by_lua error: ",
    "worker initialization error: ",
    "runtime error: ",
    "nginx: [emerg] ",
    // Before 0.9.
    "Startup error: ",
];

/// The sentence that says what is wrong: no prefixes of Kong's own files, no traceback, no list of searched places, on
/// one line.
pub fn sentence(text: &str) -> String {
    let start = MARKERS.iter().filter_map(|m| text.rfind(m).map(|i| i + m.len())).max();
    let text = match start {
        Some(start) => &text[start..],
        None => after_error(text),
    };
    let end = ["\nstack traceback:", "\n\n  Run with --v", "; this node must be restarted"];
    let end = end.iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
    let mut text = text[..end].trim();
    while let Some(rest) = without_own_place(text) {
        text = rest;
    }
    let lines = text.lines().map(str::trim).filter(|line| !is_noise(line));
    let line = lines.collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}

/// What stands behind the last `Error: ` at the beginning of a line.
fn after_error(text: &str) -> &str {
    match text.rfind("\nError: ").map(|i| i + 1).or_else(|| text.starts_with("Error: ").then_some(0)) {
        Some(start) => &text[start + "Error: ".len()..],
        None => text,
    }
}

/// Cuts `…/kong/tools/module.lua:29: ` off the front; a plugin's own file and line are part of what Kong says.
fn without_own_place(text: &str) -> Option<&str> {
    let (place, rest) = text.split_once(": ")?;
    let (file, line) = place.rsplit_once(':')?;
    let own = file.ends_with(".lua")
        && !file.contains(char::is_whitespace)
        && line.bytes().all(|b| b.is_ascii_digit())
        && !file.contains("kong/plugins/");
    let core = [
        "/kong/init.lua",
        "/kong/cmd/",
        "/kong/tools/",
        "/kong/db/",
        "/kong/api/",
        "/kong/runloop/",
        "/resty/core/",
    ];
    (own && core.iter().any(|part| file.contains(part))).then_some(rest)
}

fn is_noise(line: &str) -> bool {
    line.is_empty()
        || line.starts_with("no field package.preload")
        || line.starts_with("no file '")
        || line.starts_with("prefix directory ")
        || line.starts_with("Kong st")
        || (line.contains("[warn]") && line.starts_with("20"))
}

/// Who is to blame when a list of plugins does not load, told by Kong's words; `otherwise` when they do not tell.
pub fn load_failure_code(words: &str, otherwise: &'static str) -> &'static str {
    let says = |part: &str| words.contains(part);
    if says("is in use but not enabled")
        || says("using a plugin that has not been enabled in the configuration")
    {
        "IN_USE_NOT_ENABLED"
    } else if says("PRIORITY field is not") {
        "BAD_PRIORITY"
    } else if says("VERSION field does not") {
        "BAD_VERSION"
    } else if says("plugin is enabled but not installed")
        || says("enabled in the configuration but it is not installed on the system")
    {
        "NO_HANDLER"
    } else if says("no configuration schema found for plugin")
        || says("Cannot find the schema for the following plugin")
    {
        "NO_SCHEMA"
    } else if says("module '") && says("' not found") {
        "MISSING_DEPENDENCY"
    } else if says("error loading module '") && says("' from file '") {
        "PLUGIN_SYNTAX_ERROR"
    } else if says("schema violation")
        || says("error initializing schema")
        || says("schema of custom plugin entity")
        || says("non-array daos definition")
    {
        "BAD_SCHEMA"
    } else if says("New migrations available") {
        "MIGRATIONS_PENDING"
    } else if is_about_database(words) {
        "DATABASE_UNREACHABLE"
    } else {
        otherwise
    }
}

/// Kong could not talk to its database; nothing in the plugins is to blame.
pub fn is_about_database(words: &str) -> bool {
    words.contains("[PostgreSQL error]")
        || words.contains("failed to retrieve PostgreSQL server_version_num")
        || words.contains("could not connect to database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_start_is_told_without_its_frames() {
        let stderr = "Error: /k/share/lua/5.1/kong/cmd/start.lua:99: nginx: [error] init_by_lua error: /k/share/lua/5.1/kong/init.lua:708: \
            error loading plugin schemas: on plugin 'broken': broken plugin is enabled but not installed;\nno plugin found\n\
            stack traceback:\n\t[C]: in function 'assert'\n\n\n  Run with --v (verbose) or --vv (debug) for more details\n";
        let words = sentence(stderr);
        assert_eq!(
            words,
            "error loading plugin schemas: on plugin 'broken': broken plugin is enabled but not installed; no plugin found"
        );
        assert_eq!(load_failure_code(&words, "PREFLIGHT_FAILED"), "NO_HANDLER");
    }

    #[test]
    fn a_plugins_own_file_and_line_stay_and_searched_places_go() {
        let stderr = "Error: error loading module 'kong.plugins.broken.handler':\n/x/kong/plugins/broken/handler.lua:1: module \
            'no.such.module' not found:\n\tno field package.preload['no.such.module']\n\tno file '/x/no/such/module.lua'\n\
            stack traceback:\n\t[C]: in function 'require'\n";
        let words = sentence(stderr);
        assert_eq!(
            words,
            "error loading module 'kong.plugins.broken.handler': /x/kong/plugins/broken/handler.lua:1: module 'no.such.module' not found:"
        );
        assert_eq!(load_failure_code(&words, "-"), "MISSING_DEPENDENCY");
    }

    #[test]
    fn log_lines_are_told_by_what_stands_behind_their_marker() {
        let line = "2026/11/21 00:39:06 [crit] 4679#0: *1 [lua] init.lua:987: init_worker(): worker initialization error: failed to \
            execute the \"init_worker\" handler for plugin \"broken\": /x/kong/plugins/broken/handler.lua:2: boom; this node must be \
            restarted, context: init_worker_by_lua*";
        assert_eq!(
            sentence(line),
            "failed to execute the \"init_worker\" handler for plugin \"broken\": /x/kong/plugins/broken/handler.lua:2: boom"
        );
        let line = "2026/11/21 02:27:23 [error] 12785#0: *2 lua entry thread aborted: runtime error: /k/kong/tools/module.lua:29: error \
            loading module 'kong.plugins.broken.api':\n/x/kong/plugins/broken/api.lua:1: golden api boom\nstack traceback:\ncoroutine 0:";
        assert_eq!(
            sentence(line),
            "error loading module 'kong.plugins.broken.api': /x/kong/plugins/broken/api.lua:1: golden api boom"
        );
    }

    #[test]
    fn codes_follow_the_words() {
        for (words, code) in [
            ("on plugin 'x': no configuration schema found for plugin: x", "NO_SCHEMA"),
            (
                "error loading module 'a' from file '/x': /x:3: ')' expected near 'return'",
                "PLUGIN_SYNTAX_ERROR",
            ),
            ("on plugin 'x': [off] schema violation (fields.1: {", "BAD_SCHEMA"),
            (
                "Plugin \"x\" cannot be loaded because its PRIORITY field is not a valid integer number, got: \"nil\".",
                "BAD_PRIORITY",
            ),
            (
                "Plugin \"x\" cannot be loaded because its VERSION field does not follow the \"x.y.z\" format",
                "BAD_VERSION",
            ),
            ("error building initial plugins: x plugin is in use but not enabled", "IN_USE_NOT_ENABLED"),
            (
                "[PostgreSQL error] failed to retrieve PostgreSQL server_version_num: connection refused",
                "DATABASE_UNREACHABLE",
            ),
            ("attempt to index local 'handler' (a boolean value)", "PREFLIGHT_FAILED"),
        ] {
            assert_eq!(load_failure_code(words, "PREFLIGHT_FAILED"), code, "{words}");
        }
    }
}
