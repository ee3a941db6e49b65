//! What follows from what: a cause stands before its consequences, and a warning that explains an error is one.
#![deny(clippy::disallowed_methods)]

use super::{Finding, Repair, Severity};

/// Codes in the order in which Kong itself would meet the trouble: its executable, its file, its environment, its disk,
/// its database, what is in use, the plugins' files, loading them, the processes, what they answer.
const LAYERS: &[&[&str]] = &[
    &[
        "KONG_NOT_FOUND",
        "KONG_NOT_RUNNABLE",
        "KONG_HANGS",
        "KONG_VERSION_UNKNOWN",
        "KONG_VERSION_UNSUPPORTED",
    ],
    &["DISK_FULL", "PREFIX_NOT_WRITABLE", "PREFIX_UNREADABLE"],
    &[
        "CONF_MISSING",
        "CONF_NOT_A_FILE",
        "CONF_UNREADABLE",
        "CONF_EMPTY",
        "CONF_TOO_LARGE",
        "CONF_UNPARSABLE",
        "CONF_YAML_UNSAFE",
        "PREFIX_DIFFERS",
    ],
    &["WRONG_CONF"],
    &["CONF_SECTION", "CONF_KEY_UNKNOWN", "PLUGINS_QUOTED", "CONF_KEY_TWICE", "PLUGINS_EMPTY", "PLUGINS_OFF"],
    &["ENV_OVERRIDES_CONF"],
    &["NGINX_DIRECTIVE_INVALID", "CONF_REFUSED"],
    &["KONG_ENV_OWNER"],
    &["DATABASE_UNREACHABLE", "DATABASE_NEEDS_BOOTSTRAP"],
    &["ORPHAN_WORKERS"],
    &["FILES_UNREADABLE", "LINK_DANGLING", "FILES_CHANGED", "FILES_SHADOWED"],
    &["OLD_STYLE_PLUGIN"],
    &["LUA_PATH_LEAKED"],
    &["NO_HANDLER", "NO_SCHEMA", "MISSING_DEPENDENCY", "PLUGIN_SYNTAX_ERROR", "BAD_SCHEMA", "BAD_PRIORITY"],
    &["BAD_VERSION", "PREFLIGHT_FAILED", "INIT_WORKER_FAILED"],
    &["MIGRATIONS_PENDING"],
    &["IN_USE_NOT_ENABLED"],
    &["DECLARATIVE_CONFIG_INVALID"],
    &["ADMIN_API_BROKEN"],
    &["CONF_NOT_PREPARED", "PREPARED_NOT_RELOADED"],
    &["KONG_STOPPED"],
    &["STALE_PID_FILE", "NOT_PREPARED"],
    &["RELOAD_NOT_TAKEN"],
    &["STALE_ITERATOR"],
    &["KONG_DOWN"],
    &["ADMIN_API_UNREACHABLE", "ADMIN_API_REFUSED", "ADMIN_API_BAD_ANSWER", "NOT_READY"],
    &["RESTART_WOULD_FAIL"],
];

const CONF: &[&str] =
    &["CONF_SECTION", "CONF_KEY_UNKNOWN", "PLUGINS_QUOTED", "CONF_KEY_TWICE", "PLUGINS_EMPTY", "PLUGINS_OFF"];
const LOAD: &[&str] = &[
    "NO_HANDLER",
    "NO_SCHEMA",
    "MISSING_DEPENDENCY",
    "PLUGIN_SYNTAX_ERROR",
    "BAD_SCHEMA",
    "BAD_PRIORITY",
    "BAD_VERSION",
    "PREFLIGHT_FAILED",
    "INIT_WORKER_FAILED",
    "ADMIN_API_BROKEN",
];
/// What is seen when a list does not load.
const SYMPTOMS: &[&str] =
    &["RELOAD_NOT_TAKEN", "STALE_ITERATOR", "NOT_READY", "RESTART_WOULD_FAIL", "KONG_DOWN"];

/// Whether a finding of code `cause` explains one of code `effect`; with the same subject where both have one and the
/// cause is about a plugin.
fn explains(cause: &Finding, effect: &Finding) -> bool {
    let effect_code = effect.code.as_str();
    let any = |lists: &[&[&str]]| lists.iter().any(|list| list.contains(&effect_code));
    let same = cause.subject.is_none() || effect.subject.is_none() || cause.subject == effect.subject;
    // Lines of kong.conf are about names that their details list.
    let names_it = || {
        let subject = effect.subject.as_deref();
        subject
            .is_none_or(|name| cause.message.contains(name) || cause.details.iter().any(|d| d.contains(name)))
    };
    match cause.code.as_str() {
        code if LAYERS[0].contains(&code) => any(&[&["CONF_REFUSED"]]),
        code if LAYERS[2].contains(&code) => any(&[SYMPTOMS, &["NOT_PREPARED", "CONF_REFUSED"]]),
        "DISK_FULL" | "PREFIX_NOT_WRITABLE" | "PREFIX_UNREADABLE" => {
            any(&[SYMPTOMS, &["NOT_PREPARED", "CONF_REFUSED", "PREPARED_NOT_RELOADED"]])
        }
        "WRONG_CONF" => any(&[
            SYMPTOMS,
            LOAD,
            &[
                "IN_USE_NOT_ENABLED",
                "CONF_NOT_PREPARED",
                "PREPARED_NOT_RELOADED",
                "CONF_NOT_IN_EFFECT",
                "NOT_PREPARED",
            ],
        ]),
        code if CONF.contains(&code) => {
            any(&[SYMPTOMS, &["CONF_NOT_PREPARED", "PREPARED_NOT_RELOADED"]])
                || (any(&[&["IN_USE_NOT_ENABLED", "NO_HANDLER", "NO_SCHEMA", "DECLARATIVE_CONFIG_INVALID"]])
                    && (names_it() || matches!(code, "PLUGINS_EMPTY" | "PLUGINS_OFF")))
        }
        "ENV_OVERRIDES_CONF" => {
            any(&[SYMPTOMS, &["IN_USE_NOT_ENABLED", "CONF_NOT_IN_EFFECT"]]) || (any(&[LOAD]) && names_it())
        }
        "NGINX_DIRECTIVE_INVALID" | "CONF_REFUSED" | "KONG_ENV_OWNER" => any(&[
            SYMPTOMS,
            &["CONF_NOT_PREPARED", "PREPARED_NOT_RELOADED", "CONF_NOT_IN_EFFECT", "NOT_PREPARED"],
        ]),
        "DATABASE_UNREACHABLE" | "DATABASE_NEEDS_BOOTSTRAP" => {
            any(&[SYMPTOMS, &["ADMIN_API_BROKEN", "CONF_NOT_PREPARED", "PREPARED_NOT_RELOADED"]])
        }
        "ORPHAN_WORKERS" => any(&[&["KONG_DOWN", "STALE_PID_FILE", "NGINX_DIRECTIVE_INVALID"]]),
        "STALE_PID_FILE" => any(&[&["KONG_DOWN"]]),
        "FILES_UNREADABLE" | "LINK_DANGLING" | "FILES_CHANGED" => any(&[SYMPTOMS]) || (same && any(&[LOAD])),
        "OLD_STYLE_PLUGIN" | "FILES_SHADOWED" => same && any(&[LOAD]),
        "LUA_PATH_LEAKED" => {
            cause.subject.is_some() && (any(&[SYMPTOMS]) || (cause.subject == effect.subject && any(&[LOAD])))
        }
        "MIGRATIONS_PENDING" | "DECLARATIVE_CONFIG_INVALID" => any(&[SYMPTOMS]),
        "IN_USE_NOT_ENABLED" => {
            any(&[SYMPTOMS, &["DECLARATIVE_CONFIG_INVALID", "CONF_NOT_PREPARED", "PREPARED_NOT_RELOADED"]])
                || (effect_code == "INIT_WORKER_FAILED" && effect.subject.is_none())
        }
        code if LOAD.contains(&code) => {
            any(&[SYMPTOMS, &["CONF_NOT_PREPARED", "PREPARED_NOT_RELOADED", "DECLARATIVE_CONFIG_INVALID"]])
                || (code != "ADMIN_API_BROKEN" && effect_code == "ADMIN_API_BROKEN")
        }
        "CONF_NOT_PREPARED" => any(&[&["IN_USE_NOT_ENABLED", "PREPARED_NOT_RELOADED", "CONF_NOT_IN_EFFECT"]]),
        "PREPARED_NOT_RELOADED" => any(&[&["STALE_ITERATOR"]]),
        "KONG_STOPPED" => any(&[&["ADMIN_API_UNREACHABLE", "NOT_READY"]]),
        "RELOAD_NOT_TAKEN" => any(&[&["NOT_READY", "PREPARED_NOT_RELOADED", "RESTART_WOULD_FAIL"]]),
        _ => false,
    }
}

fn layer(code: &str) -> usize {
    LAYERS.iter().position(|codes| codes.contains(&code)).unwrap_or(LAYERS.len())
}

/// Causes before consequences, errors before warnings, earlier layers before later ones.
pub fn ordered(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by(|a, b| layer(&a.code).cmp(&layer(&b.code)).then_with(|| a.subject.cmp(&b.subject)));
    let mut unique: Vec<Finding> = Vec::new();
    for finding in findings {
        if !unique
            .iter()
            .any(|f| (&f.code, &f.subject, &f.node) == (&finding.code, &finding.subject, &finding.node))
        {
            unique.push(finding);
        }
    }
    let mut findings = unique;
    // From the end, so that what is made an error by its consequences makes its own cause one too.
    for effect in (0..findings.len()).rev() {
        // Only what stands before can be a cause: so there are no circles.
        let Some(cause) = (0..effect).find(|cause| explains(&findings[*cause], &findings[effect])) else {
            continue;
        };
        findings[effect].follows = Some(findings[cause].code.clone());
        if findings[effect].severity == Severity::Error {
            findings[cause].severity = Severity::Error;
        }
    }
    promise(&mut findings);
    findings.sort_by_key(|f| (f.severity, f.follows.is_some()));
    findings
}

/// Leaves only the repairs that can be done and are needed.
fn promise(findings: &mut [Finding]) {
    // What follows goes with its cause: taking a plugin out because its files are closed would be the wrong cure, and
    // loading what the cause's own repair loads anyway is not asked for twice.
    let mended: Vec<String> = findings.iter().filter(|f| f.can_fix).map(|f| f.code.clone()).collect();
    let unasked: Vec<String> =
        findings.iter().filter(|f| f.can_fix && !f.asks).map(|f| f.code.clone()).collect();
    for finding in findings.iter_mut() {
        let Some(cause) = finding.follows.as_ref().filter(|cause| mended.contains(cause)) else { continue };
        if finding.repair.as_ref().is_some_and(|repair| *repair != Repair::Load) {
            (finding.repair, finding.can_fix, finding.asks) = (None, false, false);
        } else if unasked.contains(cause) {
            finding.asks = false;
        }
    }
    // No configuration is loaded as long as something keeps it from loading.
    // Migrations are only run when they are asked for by name, and what is loaded without them is refused.
    let blocks = |f: &&Finding| {
        f.severity == Severity::Error
            && (!f.can_fix || f.repair == Some(Repair::Migrate))
            && f.follows.is_none()
            && is_in_the_way(&f.code)
    };
    let Some(blocker) = findings.iter().find(blocks).map(|f| f.code.clone()) else { return };
    for finding in findings.iter_mut() {
        if matches!(finding.repair, Some(Repair::Load | Repair::List { .. } | Repair::Lines(_))) {
            (finding.repair, finding.can_fix, finding.asks) = (None, false, false);
            finding.details.push(format!("--fix can do nothing about it before {blocker} is mended"));
        }
    }
}

/// Errors with which no list of plugins is loaded.
fn is_in_the_way(code: &str) -> bool {
    let before = LAYERS.iter().position(|codes| codes.contains(&"WRONG_CONF")).unwrap_or_default();
    layer(code) < before
        || LOAD.contains(&code)
        || matches!(
            code,
            "NGINX_DIRECTIVE_INVALID"
                | "CONF_REFUSED"
                | "ENV_OVERRIDES_CONF"
                | "KONG_ENV_OWNER"
                | "DATABASE_UNREACHABLE"
                | "DATABASE_NEEDS_BOOTSTRAP"
                | "MIGRATIONS_PENDING"
                | "OLD_STYLE_PLUGIN"
                | "LUA_PATH_LEAKED"
                | "IN_USE_NOT_ENABLED"
                | "DECLARATIVE_CONFIG_INVALID"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(findings: Vec<Finding>) -> Vec<String> {
        ordered(findings).into_iter().map(|f| f.code).collect()
    }

    #[test]
    fn every_layer_names_a_code_once() {
        let all: Vec<&str> = LAYERS.iter().flat_map(|codes| codes.iter().copied()).collect();
        let unique: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
        assert!(all.iter().all(|code| kctl_shared::codes::find(code).is_some()));
    }

    #[test]
    fn a_misspelt_key_explains_what_it_lost() {
        let typo =
            Finding::warning("CONF_KEY_UNKNOWN", "ignored").about("plugin").detail("`plugin = bundled,foo`");
        let used = Finding::error("IN_USE_NOT_ENABLED", "foo is in use").about("foo");
        let fails = Finding::error("RESTART_WOULD_FAIL", "would not");
        let found = ordered(vec![fails, used, typo]);
        let seen: Vec<_> =
            found.iter().map(|f| (f.code.as_str(), f.severity, f.follows.as_deref())).collect();
        assert_eq!(
            seen,
            [
                ("CONF_KEY_UNKNOWN", Severity::Error, None),
                ("IN_USE_NOT_ENABLED", Severity::Error, Some("CONF_KEY_UNKNOWN")),
                ("RESTART_WOULD_FAIL", Severity::Error, Some("CONF_KEY_UNKNOWN")),
            ]
        );
    }

    #[test]
    fn a_misspelt_key_that_lost_nothing_comes_last() {
        let typo = Finding::warning("CONF_KEY_UNKNOWN", "ignored").about("log_levl");
        let syntax = Finding::error("PLUGIN_SYNTAX_ERROR", "does not compile").about("foo");
        assert_eq!(codes(vec![typo, syntax]), ["PLUGIN_SYNTAX_ERROR", "CONF_KEY_UNKNOWN"]);
    }

    #[test]
    fn closed_files_are_opened_and_their_plugin_stays_listed() {
        let closed = Finding::error("FILES_UNREADABLE", "").about("foo").repair(Repair::Readable(Vec::new()));
        let drop = Repair::List { add: Vec::new(), remove: vec!["foo".into()] };
        let missing = Finding::error("NO_HANDLER", "").about("foo").repair(drop);
        let found = ordered(vec![missing, closed]);
        assert_eq!(found[0].code, "FILES_UNREADABLE");
        assert_eq!((found[1].follows.as_deref(), &found[1].repair), (Some("FILES_UNREADABLE"), &None));
    }

    #[test]
    fn nothing_is_loaded_before_the_migrations_have_run() {
        let pending = Finding::error("MIGRATIONS_PENDING", "").repair_if_allowed(Repair::Migrate);
        let edited = Finding::warning("CONF_NOT_PREPARED", "").repair(Repair::Load);
        let found = ordered(vec![edited, pending]);
        assert_eq!(found.iter().map(|f| f.can_fix).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn nothing_is_promised_while_something_keeps_the_list_from_loading() {
        let broken = Finding::error("PLUGIN_SYNTAX_ERROR", "").about("foo");
        let reload = Finding::error("RELOAD_NOT_TAKEN", "").repair(Repair::Load);
        assert!(ordered(vec![broken, reload]).iter().all(|f| !f.can_fix));
    }
}
