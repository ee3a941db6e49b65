//! The recorded texts themselves, where a directory of recordings is at hand (`KONG_GOLDEN`).

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::node::{DECLARATIVE, Datastore, Node};

fn recordings() -> PathBuf {
    std::env::var_os("KONG_GOLDEN").map(PathBuf::from).expect("KONG_GOLDEN names a directory of recordings")
}

/// Text with what differs from run to run taken out: addresses, the order of type names, Kong's default search path.
fn stable(text: &str) -> String {
    let address = regex::Regex::new(r"\[C\]: at 0x[0-9a-f]+").unwrap();
    let types = regex::Regex::new(r#"expected one of: [a-z, ]+"#).unwrap();
    let text = address.replace_all(text, "[C]: at 0x");
    let text = types.replace_all(&text, "expected one of:");
    let searched = |line: &&str| {
        !line.starts_with("\tno file '<OPENRESTY>/luajit/share/lua")
            && !line.contains("no file '<KONG_LUA>")
            && !line.contains("no file '/usr/local/share/lua/5.1")
    };
    text.lines().filter(searched).collect::<Vec<_>>().join("\n")
}

/// The modules that a recording's head lists for the plugin `broken`.
fn modules(recording: &str) -> Vec<(String, String)> {
    let head = recording.split("\n=== ").next().unwrap_or_default();
    head.split("## <LUA_PATH>/kong/plugins/broken/")
        .skip(1)
        .filter_map(|part| {
            let (name, text) = part.split_once(".lua\n")?;
            Some((name.to_owned(), text.to_owned()))
        })
        .collect()
}

/// stderr of the recorded start with the broken list.
fn recorded_start(recording: &str) -> Option<&str> {
    let (_, from) = recording.split_once("=== kong start from stopped\n")?;
    let (_, from) = from.split_once("[exit 1]")?;
    let (_, from) = from.split_once("--- stderr\n")?;
    Some(from.split_once("\n---")?.0)
}

#[test]
#[ignore = "needs the recordings themselves: KONG_GOLDEN=DIR"]
fn refused_starts_read_as_recorded() {
    let directory = recordings();
    let mut compared = 0;
    for entry in std::fs::read_dir(directory).unwrap().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.contains("-dbless-plugin-") {
            continue;
        }
        let recording = std::fs::read_to_string(entry.path()).unwrap();
        let Some(recorded) = recorded_start(&recording) else { continue };
        let node = Node::new(&Datastore::Declarative(DECLARATIVE));
        let modules = modules(&recording);
        let modules: Vec<(&str, &str)> =
            modules.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        node.plugin("broken", &modules);
        node.set("plugins", "bundled,golden,broken");
        let ran = node.kong("start -c <CONF>");
        assert_eq!(stable(ran.err.trim_end()), stable(recorded.trim_end()), "{name}");
        compared += 1;
    }
    assert!(compared >= 10, "only {compared} recordings of refused starts");
}

#[test]
#[ignore = "needs the recordings themselves: KONG_GOLDEN=DIR"]
fn the_root_has_every_recorded_field() {
    let directory = recordings();
    let recorded: Value =
        serde_json::from_str(&std::fs::read_to_string(directory.join("54-get-root.json")).unwrap()).unwrap();
    let database = tempfile::tempdir().unwrap();
    let node = Node::database(database.path());
    let shown = node.get("/").json();
    assert_eq!(shown["plugins"]["available_on_server"], recorded["plugins"]["available_on_server"]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let missing: Vec<_> =
        keys(&recorded["configuration"]).difference(&keys(&shown["configuration"])).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (key, value) in recorded["configuration"].as_object().unwrap() {
        let ours = &shown["configuration"][key];
        assert_eq!(std::mem::discriminant(ours), std::mem::discriminant(value), "{key}: {ours} for {value}");
    }
}

#[test]
#[ignore = "needs the recordings themselves: KONG_GOLDEN=DIR"]
fn kong_env_has_every_recorded_key() {
    let directory = recordings();
    let recorded = std::fs::read_to_string(directory.join("02-start-stop-health.txt")).unwrap();
    let (_, from) = recorded.split_once("# Start Kong with `--vv`").unwrap();
    let block = from.split("\n\n").nth(1).unwrap();
    let node = Node::new(&Datastore::Declarative(DECLARATIVE));
    assert_eq!(node.kong("prepare -c <CONF>").code, 0);
    for line in block.lines() {
        let (key, _) = line.split_once(" = ").unwrap();
        assert!(node.kong_env_line(key).is_some(), "{key}");
    }
}

#[test]
#[ignore = "needs the recordings themselves: KONG_GOLDEN=DIR"]
fn the_whole_configuration_is_told_as_recorded() {
    let recorded = std::fs::read_to_string(recordings().join("57-cli-vv.txt")).unwrap();
    let entry = regex::Regex::new(r"(?m)\[debug\] ([a-z_]+) = (.*)$").unwrap();
    let node = Node::new(&Datastore::Declarative(DECLARATIVE));
    let ran = node.kong("check <CONF> --vv");
    let shape = |value: &str| match value.chars().next() {
        Some(first @ ('"' | '{')) => first,
        Some('t' | 'f') => 't',
        _ => '0',
    };
    let ours: std::collections::BTreeMap<String, String> =
        entry.captures_iter(&ran.out).map(|c| (c[1].to_owned(), c[2].to_owned())).collect();
    let mut compared = 0;
    for found in entry.captures_iter(&recorded) {
        let (key, value) = (&found[1], &found[2]);
        let shown = ours.get(key).unwrap_or_else(|| panic!("{key} is not told"));
        assert_eq!(shape(shown), shape(value), "{key}: {shown} for {value}");
        compared += 1;
    }
    assert!(compared >= 100, "only {compared} settings");
}
