//! Removing, as a person sees it: the order of the three steps, and what holds them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use kctl_tests::cluster::{Cluster, get, hold, request, signal};
use kctl_tests::{plugins, until};
use serde_json::{Value, json};

/// Puts `plugin` on a route through node 0 and returns the entity's id.
fn use_on_route(cluster: &Cluster, plugin: &str) -> String {
    let admin = cluster.nodes()[0]["admin"].as_str().unwrap().to_owned();
    let post =
        |path: &str, body| request(reqwest::Method::POST, &format!("{admin}{path}"), Some(body)).unwrap();
    let _exists = post("/services", json!({"name": "s", "url": "http://127.0.0.1:9"}));
    let _exists = post("/services/s/routes", json!({"name": "r", "paths": ["/r"]}));
    let (code, entity) = post("/routes/r/plugins", json!({"name": plugin}));
    assert_eq!(code, 201, "{entity}");
    entity["id"].as_str().unwrap().to_owned()
}

fn references(cluster: &Cluster, plugin: &str) -> usize {
    let admin = cluster.nodes()[0]["admin"].as_str().unwrap().to_owned();
    let (_, list) = get(&format!("{admin}/plugins")).unwrap();
    list["data"].as_array().map_or(0, |d| d.iter().filter(|p| p["name"] == plugin).count())
}

fn detached_remove(cluster: &Cluster, plugin: &str) -> String {
    let ran = cluster.kctl(&["plugin", "remove", plugin, "--all-nodes", "--yes", "--detach"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.trim().to_owned()
}

#[test]
fn the_three_steps_come_in_order() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    use_on_route(&cluster, "golden");
    let id = detached_remove(&cluster, "golden");
    // Watched from outside all along: nothing of a later step shows before the earlier one is complete.
    let view = until("the removal to end", 120, || {
        let nodes = cluster.nodes();
        // Read in the order of the steps, backwards: what a later step did must find the earlier ones done.
        let some_files_gone = nodes.iter().any(|n| cluster.files(n, "golden").is_empty());
        let some_directive = nodes.iter().any(|n| !cluster.directive(n).contains("golden"));
        let all_directives = nodes.iter().all(|n| !cluster.directive(n).contains("golden"));
        if some_directive {
            assert_eq!(references(&cluster, "golden"), 0, "a directive changed while an entity was there");
        }
        assert!(!some_files_gone || all_directives, "files went while a directive named the plugin");
        let view = cluster.operation(&id);
        matches!(view["phase"].as_str(), Some("Succeeded" | "Failed")).then_some(view)
    });
    assert_eq!(view["phase"], "Succeeded", "{view:#}");
    for node in cluster.nodes() {
        assert!(cluster.files(&node, "golden").is_empty());
        assert_eq!(cluster.loaded(&node, "golden"), None);
    }
    assert_eq!(cluster.remove("golden").code, 5);
}

#[test]
fn a_dry_run_says_who_uses_the_plugin_or_that_nobody_can_tell() {
    let cluster = Cluster::start_with(1, 1, &["--no-restart"]);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    let asked = ["plugin", "remove", "golden", "--all-nodes", "--dry-run"];
    let preview = || cluster.json(&asked)["preview"].clone();
    assert_eq!((&preview()["references"], &preview()["unknown"]), (&json!(0), &Value::Null));
    let id = use_on_route(&cluster, "golden");
    let found = preview();
    assert_eq!(found["references"], 1, "{found:#}");
    assert_eq!(found["entities"][0]["id"], id.as_str());
    assert_eq!(found["entities"][0]["scope"], "route");
    assert_eq!(found["entities"][0]["attached_to"], json!(["route r"]));
    let ran = cluster.kctl(&asked);
    assert!(ran.out.contains("golden 1.0.0 is used by 1 route: route r."), "{ran:?}");
    assert!(ran.out.contains("1 route loses it"), "{ran:?}");
    // Nothing was begun or deleted by asking.
    assert_eq!(references(&cluster, "golden"), 1);
    assert_eq!(cluster.newest_operation()["kind"], "install");
    let node = cluster.nodes()[0].clone();
    kong(&node, &["stop", "-p", node["prefix"].as_str().unwrap()]);
    assert_eq!(preview()["references"], 0);
    until("the Kong to be known to be down", 30, || {
        (preview()["unknown"]["code"] == "ADMIN_API_UNREACHABLE").then_some(())
    });
    let ran = cluster.kctl(&asked);
    assert!(ran.out.contains("not known: no Admin API of group default answers"), "{ran:?}");
}

fn waiting_nodes(view: &Value) -> Vec<String> {
    let waiting = view["waiting_on"].as_array().cloned().unwrap_or_default();
    let mut nodes: Vec<_> = waiting.iter().filter_map(|w| w["node"].as_str()).map(str::to_owned).collect();
    nodes.dedup();
    nodes
}

#[test]
fn a_frozen_agent_holds_the_removal_and_is_named() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    let frozen = cluster.nodes()[1].clone();
    hold(&frozen["agent_pid"]);
    let id = detached_remove(&cluster, "golden");
    until("the frozen node to be the only one waited for", 60, || {
        let view = cluster.operation(&id);
        let named = waiting_nodes(&view) == [frozen["id"].as_str().unwrap()];
        let why = view["waiting_on"][0]["reason"] == "AGENT_UNREACHABLE";
        (named && why).then_some(())
    });
    assert!(
        cluster.nodes().iter().all(|n| !cluster.files(n, "golden").is_empty()),
        "files went while a node was missing"
    );
    signal(&frozen["agent_pid"], "CONT");
    assert_eq!(cluster.wait_ended(&id, 120)["phase"], "Succeeded");
    assert!(cluster.nodes().iter().all(|n| cluster.files(n, "golden").is_empty()));
}

/// Starts a removal while something keeps the Kong of one node from being looked into; nothing may be deleted, and the
/// node must be named, until `heal` is done.
fn held_by_a_kong(reason: &str, hold: impl Fn(&Value), heal: impl Fn(&Value)) {
    let cluster = Cluster::start_with(1, 3, &["--no-restart"]);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    use_on_route(&cluster, "golden");
    let held = cluster.nodes()[2].clone();
    hold(&held);
    let id = detached_remove(&cluster, "golden");
    until("the node to be the only one waited for", 60, || {
        let view = cluster.operation(&id);
        let named = waiting_nodes(&view) == [held["id"].as_str().unwrap()];
        (named && view["waiting_on"][0]["reason"] == reason).then_some(())
    });
    assert!(
        cluster.nodes().iter().all(|n| !cluster.files(n, "golden").is_empty()),
        "files went while a node was missing"
    );
    heal(&held);
    assert_eq!(cluster.wait_ended(&id, 120)["phase"], "Succeeded");
    for node in cluster.nodes() {
        assert!(cluster.files(&node, "golden").is_empty());
        assert_eq!(cluster.loaded(&node, "golden"), None);
    }
}

fn kong(node: &Value, args: &[&str]) {
    let done = std::process::Command::new(node["kong"].as_str().unwrap()).args(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {done:?}");
}

#[test]
fn a_kong_that_was_stopped_holds_the_removal_and_is_named() {
    let text = |node: &Value, key: &str| node[key].as_str().unwrap().to_owned();
    held_by_a_kong(
        "KONG_DOWN",
        |node| kong(node, &["stop", "-p", &text(node, "prefix")]),
        |node| kong(node, &["start", "-c", &text(node, "conf"), "-p", &text(node, "prefix")]),
    );
}

#[test]
fn a_kong_that_is_frozen_holds_the_removal_and_is_named() {
    held_by_a_kong(
        "KONG_STOPPED",
        |node| signal(&node["kong_pid"], "STOP"),
        |node| signal(&node["kong_pid"], "CONT"),
    );
}

#[test]
fn an_entity_that_comes_back_between_the_steps_is_found() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    // The agent of one node stands still, so that its Kong keeps the plugin.
    let keeper = cluster.nodes()[2].clone();
    hold(&keeper["agent_pid"]);
    let id = detached_remove(&cluster, "golden");
    until("the other nodes to drop the plugin", 60, || {
        let others = &cluster.nodes()[..2];
        others.iter().all(|n| cluster.loaded(n, "golden").is_none()).then_some(())
    });
    // Somebody uses it again through the one that still has it.
    let url = format!("{}/plugins", keeper["admin"].as_str().unwrap());
    let (code, answer) = request(reqwest::Method::POST, &url, Some(json!({"name": "golden"}))).unwrap();
    assert_eq!(code, 201, "{answer}");
    signal(&keeper["agent_pid"], "CONT");
    let view = cluster.wait_ended(&id, 180);
    assert_eq!(view["phase"], "Succeeded", "{view:#}");
    let steps = view["steps"].as_array().unwrap();
    assert!(steps.iter().filter(|s| s["name"] == "detach").count() >= 2, "{view:#}");
    assert_eq!(references(&cluster, "golden"), 0);
    assert!(cluster.nodes().iter().all(|n| cluster.files(n, "golden").is_empty()));
}

fn stopped_after(cluster: &Cluster, step: &str) -> String {
    let ran =
        cluster.kctl(&["plugin", "remove", "golden", "--all-nodes", "--yes", "--step", step, "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let view: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&view["phase"], &view["waiting_on"][0]["reason"]), (&json!("Paused"), &json!("STEP_DONE")));
    let (id, message) = (view["id"].as_str().unwrap(), view["waiting_on"][0]["message"].to_string());
    assert!(message.contains(&format!("kctl operation resume {id}")), "{message}");
    assert!(message.contains("kctl operation abort"), "{message}");
    assert!(cluster.nodes().iter().all(|n| !cluster.files(n, "golden").is_empty()), "files went");
    assert_eq!(references(cluster, "golden"), 0);
    id.to_owned()
}

#[test]
fn a_removal_stops_after_the_step_that_was_named() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    use_on_route(&cluster, "golden");
    let ran = cluster.kctl(&["plugin", "remove", "golden", "--all-nodes", "--yes", "--step", "nowhere"]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert_eq!(references(&cluster, "golden"), 1);

    let id = stopped_after(&cluster, "detach");
    let still =
        |node: &Value| cluster.directive(node).contains("golden") && cluster.loaded(node, "golden").is_some();
    assert!(cluster.nodes().iter().all(still), "a node dropped it");
    let ran = cluster.kctl(&["operation", "resume", &id]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(cluster.nodes().iter().all(|n| cluster.files(n, "golden").is_empty()));

    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    let entity = use_on_route(&cluster, "golden");
    let id = stopped_after(&cluster, "disable");
    let gone = |node: &Value| {
        !cluster.directive(node).contains("golden") && cluster.loaded(node, "golden").is_none()
    };
    assert!(cluster.nodes().iter().all(gone), "a node kept it");
    let ran = cluster.kctl(&["operation", "abort", &id]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert_eq!(cluster.operation(&id)["phase"], "Compensated");
    assert!(cluster.nodes().iter().all(still), "a node did not get it back");
    let admin = cluster.nodes()[0]["admin"].as_str().unwrap().to_owned();
    assert_eq!(get(&format!("{admin}/plugins/{entity}")).unwrap().0, 200);
}

#[test]
fn a_plugin_is_disabled_and_enabled_again() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    let ran = cluster.kctl(&["plugin", "enable", "golden"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    let entity = use_on_route(&cluster, "golden");
    let ran = cluster.kctl(&["plugin", "enable", "golden"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("nothing to do"), "{ran:?}");

    let ran = cluster.kctl(&["plugin", "disable", "golden", "--all-nodes", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("disable is done"), "{ran:?}");
    assert_eq!(references(&cluster, "golden"), 0);
    for node in cluster.nodes() {
        assert!(!cluster.directive(&node).contains("golden"), "{node:#}");
        assert!(!cluster.files(&node, "golden").is_empty(), "{node:#}");
    }
    let ran = cluster.kctl(&["plugin", "enable", "golden", "--dry-run"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(references(&cluster, "golden"), 0);

    let ran = cluster.kctl(&["plugin", "enable", "golden"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("golden is 1.0.0 again"), "{ran:?}");
    for node in cluster.nodes() {
        assert!(cluster.directive(&node).contains("golden"), "{node:#}");
        assert!(cluster.loaded(&node, "golden").is_some(), "{node:#}");
    }
    let admin = cluster.nodes()[0]["admin"].as_str().unwrap().to_owned();
    assert_eq!(get(&format!("{admin}/plugins/{entity}")).unwrap().0, 200);
}
