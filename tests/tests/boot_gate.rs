//! `kctl-node-agent sync --once`: a node is made ready before its Kong starts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kctl_tests::cluster::{Cluster, Ran, hold, kctl_binary, signal};
use kctl_tests::newcomer::{Agent, agent_config, new_node};
use kctl_tests::{plugins, until};
use serde_json::Value;

fn text<'a>(node: &'a Value, key: &str) -> &'a str {
    node[key].as_str().unwrap()
}

fn sync(config: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(kctl_binary());
    command.args(["node-agent", "sync", "--once", "--config", config.to_str().unwrap()]).args(args);
    command.output().unwrap().into()
}

fn kong(bin: &Path, args: &[&str]) -> Ran {
    Command::new(bin).args(args).current_dir("/").output().unwrap().into()
}

fn bin(cluster: &Cluster, config: &Path) -> PathBuf {
    let table = fs::read_to_string(config).unwrap();
    let line = table
        .lines()
        .find(|l| l.starts_with("bin = "))
        .unwrap_or_else(|| panic!("{}", cluster.dir.display()));
    line.split('"').nth(1).unwrap().into()
}

/// Ends the node's agent for good, and its Kong.
fn take_down(cluster: &Cluster, node: &Value) {
    signal(&node["agent_pid"], "KILL");
    until("the agent to end", 10, || {
        (!Path::new(&format!("/proc/{}", node["agent_pid"])).exists()).then_some(())
    });
    let kong_bin = bin(cluster, &agent_config(node));
    let master = fs::read_to_string(Path::new(text(node, "prefix")).join("pids/nginx.pid")).unwrap();
    kong(&kong_bin, &["stop", "-p", text(node, "prefix")]);
    // Its pid file goes a moment before it does.
    until("Kong to end", 30, || (!Path::new(&format!("/proc/{}", master.trim())).exists()).then_some(()));
}

fn start(cluster: &Cluster, node: &Value) {
    let kong_bin = bin(cluster, &agent_config(node));
    let ran = kong(&kong_bin, &["start", "-c", text(node, "conf")]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn healthy(cluster: &Cluster, id: &str, plugin: &str) {
    until(&format!("{plugin} proven on {id}"), 60, || {
        let view = cluster.json(&["node", "get", id]);
        let plugin = view["plugins"].as_array()?.iter().find(|p| p["name"] == plugin)?.clone();
        (plugin["stage"] == "Enabled" && plugin["state"] == "healthy").then_some(())
    });
}

#[test]
fn a_new_node_comes_up_with_its_groups_plugins_and_is_proven_without_a_reload() {
    let cluster = Cluster::start(1, 1);
    let path = plugins::good(cluster.temp(), "probe", "1.0.0");
    assert_eq!(cluster.install(&path).code, 0);
    let (home, config) = new_node(&cluster, "kong-9");
    let ran = sync(&config, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("probe 1.0.0") && ran.out.contains("kong.conf was written"), "{ran:?}");
    let again = sync(&config, &[]);
    assert!(again.code == 0 && again.out.contains("was right already"), "{again:?}");
    assert!(!home.join("prefix").join("pids/nginx.pid").exists(), "no Kong is started");
    let node =
        serde_json::json!({ "conf": home.join("kong.conf"), "prefix": home.join("prefix"), "id": "kong-9" });
    start(&cluster, &node);
    let agent = Agent::start(&config);
    healthy(&cluster, "kong-9", "probe");
    assert_eq!(cluster.hups(&node), 0, "what was in place is proven, not loaded again");
    // A Kong that runs is its agent's business.
    drop(agent);
    let before = fs::read_to_string(home.join("kong.conf")).unwrap();
    let ran = sync(&config, &[]);
    assert!(ran.code == 0 && ran.out.contains("runs already"), "{ran:?}");
    assert_eq!(fs::read_to_string(home.join("kong.conf")).unwrap(), before);
    kong(&bin(&cluster, &config), &["stop", "-p", text(&node, "prefix")]);
}

#[test]
fn a_node_that_was_down_follows_what_its_group_got_meanwhile() {
    let cluster = Cluster::start_with(1, 2, &["--no-restart"]);
    let first = plugins::good(cluster.temp(), "first", "1.0.0");
    assert_eq!(cluster.install(&first).code, 0);
    let node = cluster.node("kong-2");
    let config = agent_config(&node);

    // An agent at work is not disturbed, and says so when something lacks. It would make that good while it is looked at.
    hold(&node["agent_pid"]);
    let before = fs::read_to_string(text(&node, "conf")).unwrap();
    let ran = sync(&config, &[]);
    assert!(ran.code == 0 && ran.out.contains("an agent works on this node"), "{ran:?}");
    let release = newest(&node, "first");
    let handler = release.join("kong/plugins/first/handler.lua");
    let sound = fs::read(&handler).unwrap();
    fs::write(&handler, "return {}").unwrap();
    let ran = sync(&config, &[]);
    assert!(ran.code == 1 && ran.err.contains("AGENT_RUNNING") && ran.err.contains("first"), "{ran:?}");
    assert_eq!(sync(&config, &["--best-effort"]).code, 0);
    fs::write(&handler, &sound).unwrap();
    assert_eq!(fs::read_to_string(text(&node, "conf")).unwrap(), before);

    // What is damaged on the disk is fetched again.
    take_down(&cluster, &node);
    fs::write(&handler, "return {}").unwrap();
    let ran = sync(&config, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fs::read(newest(&node, "first").join("kong/plugins/first/handler.lua")).unwrap(), sound);
    assert_eq!(fs::read_to_string(text(&node, "conf")).unwrap(), before);

    // With the control plane away the last word counts, and damage cannot be mended.
    let member = cluster.members()[0].clone();
    hold(&member["pid"]);
    let ran = sync(&config, &["--wait", "500ms"]);
    assert!(ran.code == 0 && ran.out.contains("said last"), "{ran:?}");
    fs::write(&handler, "return {}").unwrap();
    signal(&member["pid"], "KILL");
    let ran = sync(&config, &["--wait", "500ms"]);
    assert!(ran.code == 1 && ran.err.contains("FILES_CHANGED"), "{ran:?}");
    assert_eq!(sync(&config, &["--wait", "500ms", "--best-effort"]).code, 0);
    fs::write(&handler, &sound).unwrap();
    let (_, config) = new_node(&cluster, "kong-9");
    let ran = sync(&config, &["--wait", "500ms"]);
    assert!(ran.code == 1 && ran.err.contains("NO_SPEC"), "{ran:?}");
}

#[test]
fn a_plugin_that_waits_for_a_kong_that_is_down_is_there_when_it_starts() {
    let cluster = Cluster::start_with(1, 2, &["--no-restart"]);
    let node = cluster.node("kong-2");
    let kong_bin = bin(&cluster, &agent_config(&node));
    kong(&kong_bin, &["stop", "-p", text(&node, "prefix")]);
    let path = plugins::good(cluster.temp(), "probe", "1.0.0");
    let started =
        cluster.kctl(&["plugin", "install", path.to_str().unwrap(), "--all-nodes", "--detach", "-o", "json"]);
    assert_eq!(started.code, 0, "{started:?}");
    let id = cluster.newest_operation()["id"].as_str().unwrap().to_owned();
    until("the operation to wait for kong-2", 60, || {
        let operation = cluster.operation(&id);
        let waits = operation["waiting_on"].as_array()?.clone();
        waits.iter().any(|w| w["node"] == "kong-2" && w["reason"] == "KONG_DOWN").then_some(())
    });
    // While the agent tries again, the node's own conditions are not told.
    until("doctor to tell that it is down", 30, || {
        let told = cluster.kctl(&["doctor", "-o", "json"]);
        let report: Value = serde_json::from_str(&told.out).unwrap();
        let found = |code: &str, node: &str| {
            report["findings"].as_array().unwrap().iter().any(|f| f["code"] == code && f["node"] == node)
        };
        assert!(!found("KONG_DOWN", "kong-1"), "{report:#}");
        let all = found("KONG_DOWN", "kong-2") && found("OPERATION_WAITING", "kong-2");
        (all && told.code == 1).then_some(())
    });
    assert_eq!(cluster.kctl(&["doctor", "--node", "absent"]).code, 5);
    signal(&node["agent_pid"], "KILL");
    until("the agent to end", 10, || {
        (!Path::new(&format!("/proc/{}", node["agent_pid"])).exists()).then_some(())
    });
    let ran = sync(&agent_config(&node), &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    if ran.out.contains("probe 1.0.0") {
        start(&cluster, &node);
        assert_eq!(cluster.loaded(&node, "probe").as_deref(), Some("1.0.0"), "before any agent");
    } else {
        // Its wave had not come: then nothing of it is listed yet.
        assert!(!cluster.directive(&node).contains("probe"));
        start(&cluster, &node);
    }
    let _agent = Agent::start(&agent_config(&node));
    assert_eq!(cluster.wait_ended(&id, 60)["phase"], "Succeeded");
    until("nothing to be wrong any more", 30, || (cluster.kctl(&["doctor"]).code == 0).then_some(()));
}

/// The directory of a plugin's only release in a node's store.
fn newest(node: &Value, plugin: &str) -> PathBuf {
    let store = Path::new(text(node, "lua_dir")).join("store").join(plugin);
    fs::read_dir(store).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn a_list_that_does_not_load_keeps_kong_from_starting_and_nothing_changes() {
    let cluster = Cluster::start(1, 1);
    let path = plugins::good(cluster.temp(), "probe", "1.0.0");
    assert_eq!(cluster.install(&path).code, 0);
    let (home, config) = new_node(&cluster, "kong-9");
    let conf = home.join("kong.conf");
    let text = fs::read_to_string(&conf).unwrap().replace("plugins = bundled", "plugins = bundled,ghost");
    fs::write(&conf, &text).unwrap();
    let ran = sync(&config, &[]);
    assert!(ran.code == 1 && ran.err.contains("NODE_ALREADY_BROKEN") && ran.err.contains("ghost"), "{ran:?}");
    assert_eq!(fs::read_to_string(&conf).unwrap(), text);
    let ran = sync(&config, &["--best-effort"]);
    assert!(ran.code == 0 && ran.err.contains("--best-effort"), "{ran:?}");
    assert_eq!(fs::read_to_string(&conf).unwrap(), text);
    let usage = Command::new(kctl_binary()).args(["node-agent", "sync", "--config", "/x"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(64));
}
