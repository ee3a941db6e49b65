//! Every stable code in the sources has its line in the catalogue, and every line its code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use kctl_shared::codes;
use kctl_tests::cluster::{Ran, kctl_binary};
use serde_json::Value;

/// Literals that look like codes and are none: environment variables and their parts.
const NOT_CODES: &[&str] = &[
    "CARGO_PKG_VERSION",
    "KCTL_AGENT_CONFIG",
    "KCTL_CONFIG",
    "KCTL_CONTEXT",
    "KCTL_HOOK",
    "KCTL_INSECURE",
    "KCTL_LOG",
    "KCTL_MUTANT",
    "KCTL_MEMBER_CONFIG",
    "KCTL_NODE",
    "KCTL_SERVER",
    "KCTL_TEST_FAULT",
    "KCTL_TEST_FAULT_TRACE",
    "KONG_ADMIN_LISTEN",
    "KONG_CUSTOM_PLUGINS",
    "KONG_CONF",
    "KONG_CUSTOM_PLUGINS",
    "KONG_DECLARATIVE_CONFIG",
    "KONG_LUA_PACKAGE_PATH",
    "KONG_PLUGINS",
    "KONG_PROXY_LISTEN",
    "KONG_STATUS_LISTEN",
    "LUAROCKS_CONFIG",
    "LUA_CPATH",
    "LUA_PATH",
    "OUT_DIR",
    "XDG_STATE_HOME",
    // Kong's settings as the preflight sets them.
    "ADMIN_ACCESS_LOG",
    "ADMIN_ERROR_LOG",
    "ADMIN_GUI_LISTEN",
    "ADMIN_SSL",
    "ANONYMOUS_REPORTS",
    "DECLARATIVE_CONFIG",
    "DECLARATIVE_CONFIG_STRING",
    "LMDB_ENVIRONMENT_PATH",
    "LOG_LEVEL",
    "NGINX_DAEMON",
    "NGINX_MAIN_DAEMON",
    "NGINX_MAIN_WORKER_PROCESSES",
    "NGINX_WORKER_PROCESSES",
    "PROXY_ACCESS_LOG",
    "PROXY_ERROR_LOG",
    "PROXY_LISTEN",
    "STATUS_ACCESS_LOG",
    "STATUS_ERROR_LOG",
    "STREAM_LISTEN",
];

const CRATES: [&str; 5] = ["shared", "control-plane", "node-agent", "sandbox", "kctl"];

/// What makes the literal behind it a code, even one of a single word.
const MAKERS: [&str; 10] = [
    "Fault::new(",
    "Failure::new(",
    "PackageError::new(",
    "ConfError::new(",
    "Rejection::new(",
    "NameError::new(",
    "Finding::error(",
    "Finding::warning(",
    "Fail::usage(",
    "trouble(",
];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut open: Vec<PathBuf> = CRATES.iter().map(|name| root.join(name).join("src")).collect();
    let mut found = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
                found.push((path, code));
            }
        }
    }
    found
}

/// String literals with what stands right before them; escapes do not matter, no code has one.
fn literals(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices('"').filter_map(move |(at, _)| {
        let rest = &text[at + 1..];
        let literal = &rest[..rest.find('"')?];
        Some((text[..at].trim_end(), literal))
    })
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[test]
fn every_code_in_the_sources_is_explained_and_no_other() {
    let known: BTreeSet<&str> = codes::all().map(|entry| entry.code).collect();
    let (mut used, mut missing) = (BTreeSet::new(), BTreeMap::new());
    for (path, text) in sources() {
        for (before, literal) in literals(&text) {
            // `LEDGER_WRITE_FAILED: …` is how a log line begins.
            let word = literal.split(": ").next().unwrap();
            if !is_word(word) {
                continue;
            }
            if known.contains(word) {
                used.insert(word.to_owned());
            }
            let made = MAKERS.iter().any(|maker| before.ends_with(maker));
            let code = made || (word.contains('_') && word.len() > 3 && !word.ends_with('_'));
            if code && !known.contains(word) && !NOT_CODES.contains(&word) {
                missing.insert(word.to_owned(), path.clone());
            }
        }
    }
    assert!(missing.is_empty(), "no line in shared/src/codes for {missing:#?}");
    let unused: Vec<_> = known.iter().filter(|code| !used.contains(**code)).collect();
    assert!(unused.is_empty(), "nothing says {unused:?} any more: take their lines out of shared/src/codes");
}

fn kctl(args: &[&str]) -> Ran {
    Command::new(kctl_binary()).args(args).env("HOME", "/nonexistent").output().unwrap().into()
}

#[test]
fn explaining_needs_nobody_and_knows_near_misses() {
    let one = kctl(&["explain", "in_use_not_enabled"]);
    assert_eq!(one.code, 0, "{one:?}");
    assert!(one.out.starts_with("IN_USE_NOT_ENABLED\n") && one.out.contains("to do"), "{one:?}");
    let json: Value = serde_json::from_str(&kctl(&["explain", "KONG_DOWN", "-o", "json"]).out).unwrap();
    for key in ["code", "family", "means", "why", "todo"] {
        assert!(json[key].is_string(), "{json}");
    }
    let all: Value = serde_json::from_str(&kctl(&["explain", "-o", "json"]).out).unwrap();
    assert_eq!(all.as_array().unwrap().len(), codes::all().count());
    assert_eq!(kctl(&["explain"]).out.lines().count(), codes::all().count() + 1);
    let unknown = kctl(&["explain", "IN_USE_NOT_ENABLD"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (5, ""));
    assert!(
        unknown.err.contains("CODE_UNKNOWN") && unknown.err.contains("did you mean IN_USE_NOT_ENABLED"),
        "{unknown:?}"
    );
    assert_eq!(kctl(&["explain", "qqqqqqqq"]).code, 5);
}
