//! Nodes that join in the middle of a removal, without the plugin and with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;

use kctl_tests::cluster::{Cluster, hold, signal};
use kctl_tests::newcomer::{Agent, new_node};
use kctl_tests::{plugins, until};
use serde_json::Value;

fn kong(cluster: &Cluster, conf: &Path) {
    let node = &cluster.nodes()[0];
    let prefix = conf.with_file_name("prefix");
    let args = ["start", "-c", conf.to_str().unwrap(), "-p", prefix.to_str().unwrap()];
    let done = Command::new(node["kong"].as_str().unwrap()).args(args).current_dir("/").output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// Stops the node's Kong when the test ends.
struct Stop<'a>(&'a Cluster, std::path::PathBuf);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let kong = self.0.nodes()[0]["kong"].as_str().unwrap().to_owned();
        let _gone = Command::new(kong).args(["stop", "-p", self.1.to_str().unwrap()]).output();
    }
}

fn step<'a>(view: &'a Value, name: &str) -> &'a Value {
    view["steps"].as_array().unwrap().iter().rfind(|s| s["name"] == name).unwrap()
}

#[test]
fn nodes_that_join_while_files_are_deleted_do_not_bring_the_plugin_back() {
    let cluster = Cluster::start(1, 2);
    let root = cluster.temp().to_owned();
    let sources = plugins::good(&root, "golden", "1.0.0");
    assert_eq!(cluster.install(&sources).code, 0);
    let args = [
        "plugin",
        "remove",
        "golden",
        "--all-nodes",
        "--yes",
        "--detach",
        "--waves",
        "100%",
        "--pause-after",
        "1",
    ];
    let ran = cluster.kctl(&args);
    assert_eq!(ran.code, 0, "{ran:?}");
    let id = ran.out.trim().to_owned();
    until("all nodes to have dropped it", 60, || (cluster.operation(&id)["phase"] == "Paused").then_some(()));
    // One agent stands still, so that the deletion is not over.
    let frozen = cluster.nodes()[1].clone();
    hold(&frozen["agent_pid"]);
    assert_eq!(cluster.kctl(&["operation", "promote", &id, "--detach"]).code, 0);
    until("the first node's files to be gone", 90, || {
        cluster.files(&cluster.nodes()[0], "golden").is_empty().then_some(())
    });

    // One node joins with nothing, one with the plugin listed and its files laid by hand.
    let (bare, bare_agent) = new_node(&cluster, "kong-bare");
    let (handmade, handmade_agent) = new_node(&cluster, "kong-handmade");
    let conf = handmade.join("kong.conf");
    let text =
        fs::read_to_string(&conf).unwrap().replace("plugins = bundled\n", "plugins = bundled,golden\n");
    fs::write(&conf, format!("{text}lua_package_path = {}/?.lua;./?.lua;./?/init.lua;\n", sources.display()))
        .unwrap();
    let _stop = [Stop(&cluster, bare.join("prefix")), Stop(&cluster, handmade.join("prefix"))];
    kong(&cluster, &bare.join("kong.conf"));
    kong(&cluster, &conf);
    let _agents = [Agent::start(&bare_agent), Agent::start(&handmade_agent)];
    until("both to be part of the deletion", 60, || {
        let view = cluster.operation(&id);
        assert!(view["finished_at"].is_null(), "{view:#}");
        let nodes = step(&view, "purge")["nodes"].as_array()?.clone();
        let named = |node: &str| nodes.iter().any(|n| n["node"] == node);
        (named("kong-bare") && named("kong-handmade")).then_some(())
    });
    signal(&frozen["agent_pid"], "CONT");
    let view = cluster.wait_ended(&id, 120);
    assert_eq!(view["phase"], "Succeeded", "{view:#}");

    // Nothing was fetched for the one, nothing taken from the other, and what it has is told.
    let bare_conf = fs::read_to_string(bare.join("kong.conf")).unwrap();
    assert!(!bare_conf.contains("golden"), "{bare_conf}");
    assert!(fs::read_to_string(&conf).unwrap().contains("golden"));
    assert!(sources.join("kong/plugins/golden/handler.lua").exists());
    until("the plugin that was found to be told", 30, || {
        let found = cluster.json(&["node", "get", "kong-handmade"])["found"].clone();
        found.as_array()?.iter().any(|f| f["name"] == "golden").then_some(())
    });
    for node in cluster.nodes() {
        assert!(cluster.files(&node, "golden").is_empty() && cluster.loaded(&node, "golden").is_none());
    }
}
