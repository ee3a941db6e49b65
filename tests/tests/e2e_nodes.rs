//! What people say of nodes: hold, drain, decommission, come back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kctl_tests::cluster::{Cluster, hold, signal};
use kctl_tests::newcomer::agent_config;
use kctl_tests::{plugins, until};
use serde_json::Value;

fn id(node: &Value) -> String {
    node["id"].as_str().unwrap().to_owned()
}

/// The node as kctl shows it; `Null` when it is not known.
fn shown(cluster: &Cluster, id: &str) -> Value {
    let all = cluster.json(&["node", "list"]);
    let nodes = all.as_array().or_else(|| all["nodes"].as_array()).cloned().unwrap_or_default();
    nodes.into_iter().find(|n| n["id"] == id).unwrap_or_default()
}

fn says(node: &Value, code: &str) -> bool {
    node["conditions"].as_array().is_some_and(|c| c.iter().any(|c| c["code"] == code))
}

fn waits_for(cluster: &Cluster, operation: &str, reason: &str) {
    until(reason, 60, || {
        let view = cluster.operation(operation);
        assert!(view["finished_at"].is_null(), "{view:#}");
        view["waiting_on"].as_array().unwrap().iter().any(|w| w["reason"] == reason).then_some(())
    });
}

fn begin(cluster: &Cluster, sources: &Path) -> String {
    let ran = cluster.kctl(&["plugin", "install", sources.to_str().unwrap(), "--all-nodes", "--detach"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.trim().to_owned()
}

#[test]
fn held_nodes_groups_and_windows_are_waited_for() {
    let cluster = Cluster::start(1, 2);
    let root = cluster.temp().to_owned();
    let held = id(&cluster.nodes()[1]);
    assert_eq!(cluster.kctl(&["node", "hold", &held, "-m", "being measured"]).code, 0);
    until("it to show", 30, || (shown(&cluster, &held)["state"] == "Held").then_some(()));
    let first = begin(&cluster, &plugins::good(&root, "golden", "1.0.0"));
    waits_for(&cluster, &first, "NODE_HELD");
    assert!(!cluster.directive(&cluster.nodes()[1]).contains("golden"));
    assert_eq!(cluster.kctl(&["group", "hold", "-m", "night shift"]).code, 0);
    assert_eq!(cluster.kctl(&["node", "unhold", &held]).code, 0);
    waits_for(&cluster, &first, "GROUP_HELD");
    assert_eq!(cluster.kctl(&["group", "unhold"]).code, 0);
    assert_eq!(cluster.wait_ended(&first, 120)["phase"], "Succeeded");

    // A window that is days away from any moment of this test.
    let days = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400;
    let day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][((days + 3) % 7) as usize];
    let refused = cluster.kctl(&["group", "set", "--window", "whenever"]);
    assert!(refused.code == 1 && refused.err.contains("WINDOW_INVALID"), "{refused:?}");
    assert_eq!(cluster.kctl(&["group", "set", "--window", &format!("{day} 10:00-10:30")]).code, 0);
    let listed = cluster.kctl(&["group", "list"]);
    assert!(listed.out.contains(&format!("{day} 10:00-10:30 UTC")), "{listed:?}");
    let second = begin(&cluster, &plugins::good(&root, "silver", "1.0.0"));
    waits_for(&cluster, &second, "WINDOW_CLOSED");
    assert!(cluster.nodes().iter().all(|n| !cluster.directive(n).contains("silver")));
    assert_eq!(cluster.kctl(&["group", "set", "--no-windows"]).code, 0);
    assert_eq!(cluster.wait_ended(&second, 120)["phase"], "Succeeded");

    // A node of the database that kctl was never told of.
    assert_eq!(cluster.kctl(&["group", "set", "--expect-nodes", "3"]).code, 0);
    let refused = cluster.kctl(&["plugin", "remove", "silver", "--all-nodes", "--yes"]);
    assert!(refused.code == 6 && refused.err.contains("UNEXPECTED_NODES"), "{refused:?}");
    assert!(refused.err.contains("kctl group set default --expect-nodes 2"), "{refused:?}");
    assert!(cluster.kctl(&["group", "list"]).out.contains("2 of 3"));
    assert_eq!(cluster.kctl(&["group", "set", "--expect-nodes", "2"]).code, 0);
    let removed = cluster.kctl(&["plugin", "remove", "silver", "--all-nodes", "--yes"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    assert_eq!(cluster.kctl(&["group", "set"]).code, 64);
    let audit = cluster.kctl(&["audit"]);
    for verb in
        ["node.hold", "node.unhold", "group.hold", "group.unhold", "group.windows", "group.expect-nodes"]
    {
        assert!(audit.out.contains(verb), "{verb} in {audit:?}");
    }
}

/// A load balancer that writes down what it is told, and what stood in kong.conf at that moment.
fn balance(cluster: &Cluster, node: &Value) -> std::path::PathBuf {
    let config = agent_config(node);
    let dir = config.parent().unwrap().to_owned();
    let script = dir.join("lb");
    let (log, full) = (dir.join("lb.log"), dir.join("lb.full"));
    let text = format!(
        "#!/bin/sh\n[ $1 = out ] && [ -e {full} ] && echo no room elsewhere && exit 1\n\
         echo \"$1 $KCTL_NODE $(grep -c '^plugins.*golden' {conf})\" >> {log}\n",
        full = full.display(),
        conf = node["conf"].as_str().unwrap(),
        log = log.display(),
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let hooks =
        format!("\n[hooks]\ndrain = [\"{0}\", \"out\"]\nundrain = [\"{0}\", \"in\"]\n", script.display());
    fs::write(&config, fs::read_to_string(&config).unwrap() + &hooks).unwrap();
    // Its supervisor starts it again, with the new configuration.
    signal(&node["agent_pid"], "KILL");
    let (name, old) = (id(node), node["agent_pid"].clone());
    until("the agent to be started again", 30, || (cluster.node(&name)["agent_pid"] != old).then_some(()));
    dir
}

#[test]
fn a_node_is_out_of_its_load_balancer_while_its_kong_is_reloaded() {
    let cluster = Cluster::start(1, 2);
    let root = cluster.temp().to_owned();
    let node = cluster.nodes()[1].clone();
    let (name, dir) = (id(&node), balance(&cluster, &node));
    let log = || fs::read_to_string(dir.join("lb.log")).unwrap_or_default();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    assert_eq!(log(), format!("out {name} 0\nin {name} 1\n"));

    // Where it cannot be drained nothing is touched, and it is said why.
    fs::write(dir.join("lb.full"), "").unwrap();
    let hups = cluster.hups(&cluster.node(&name));
    let ran = cluster.kctl(&["plugin", "remove", "golden", "--all-nodes", "--yes", "--detach"]);
    let removal = ran.out.trim().to_owned();
    waits_for(&cluster, &removal, "DRAIN_FAILED");
    assert_eq!(cluster.hups(&cluster.node(&name)), hups);
    assert!(cluster.directive(&cluster.node(&name)).contains("golden"));
    fs::remove_file(dir.join("lb.full")).unwrap();
    assert_eq!(cluster.wait_ended(&removal, 120)["phase"], "Succeeded");
    assert!(log().ends_with(&format!("out {name} 1\nin {name} 0\n")), "{}", log());

    // By hand, for as long as somebody wants.
    let lines = log().lines().count();
    assert_eq!(cluster.kctl(&["node", "drain", &name]).code, 0);
    until("it to be out", 30, || (log().lines().count() == lines + 1).then_some(()));
    until("it to show", 30, || (shown(&cluster, &name)["state"] == "Draining").then_some(()));
    assert_eq!(cluster.kctl(&["node", "undrain", &name]).code, 0);
    until("it to be in", 30, || log().ends_with(&format!("out {name} 0\nin {name} 0\n")).then_some(()));
}

#[test]
fn a_decommissioned_node_is_emptied_and_comes_back_only_when_approved() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    let node = cluster.nodes()[2].clone();
    let name = id(&node);
    let live = cluster.kctl(&["node", "decommission", &name, "--attest", "--yes"]);
    assert!(live.code == 6 && live.err.contains("NODE_IS_LIVE"), "{live:?}");
    let ran = cluster.kctl(&["node", "decommission", &name, "--yes", "-m", "rack is sold"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(cluster.files(&node, "golden").is_empty() && !cluster.directive(&node).contains("golden"));
    // Its agent asks on, and is refused.
    until("it to be refused", 60, || says(&shown(&cluster, &name), "NODE_DECOMMISSIONED").then_some(()));
    assert_eq!(
        cluster.install(&plugins::good(&root, "silver", "1.0.0")).code,
        0,
        "operations go on without it"
    );
    assert!(!cluster.directive(&node).contains("silver"));
    assert_eq!(cluster.kctl(&["node", "approve", &name, "-m", "bought back"]).code, 0);
    until("it to have everything again", 90, || {
        let directive = cluster.directive(&node);
        (directive.contains("golden") && directive.contains("silver")).then_some(())
    });
    assert_eq!(shown(&cluster, &name)["state"], "Live");
}

#[test]
fn a_burnt_machine_is_attested_and_a_reinstalled_one_is_let_in() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);

    // Its agent lost its memory: another installation under the same name.
    let node = cluster.nodes()[1].clone();
    let name = id(&node);
    let config = fs::read_to_string(agent_config(&node)).unwrap();
    let state_dir = config.lines().find_map(|l| l.strip_prefix("state_dir = ")).unwrap().trim_matches('"');
    fs::rename(state_dir, format!("{state_dir}.lost")).unwrap();
    signal(&node["agent_pid"], "KILL");
    until("it to be refused", 60, || says(&shown(&cluster, &name), "NODE_ID_IN_USE").then_some(()));
    assert_eq!(cluster.kctl(&["node", "approve", &name]).code, 0);
    until("it to be taken in", 60, || (shown(&cluster, &name)["state"] == "Live").then_some(()));
    until("its plugin to be proven again", 60, || {
        let loaded = cluster.loaded(&cluster.node(&name), "golden");
        let node = shown(&cluster, &name);
        let stage = node["plugins"].as_array()?.iter().find(|p| p["name"] == "golden")?["stage"].clone();
        (loaded.is_some() && stage == "Enabled").then_some(())
    });

    // A removal waits for a machine that does not answer, until somebody attests that it is no more.
    let gone = cluster.nodes()[2].clone();
    hold(&gone["agent_pid"]);
    let ran = cluster.kctl(&["plugin", "remove", "golden", "--all-nodes", "--yes", "--detach"]);
    let removal = ran.out.trim().to_owned();
    waits_for(&cluster, &removal, "AGENT_UNREACHABLE");
    until("its connection to be found dead", 60, || {
        let ran = cluster.kctl(&["node", "decommission", &id(&gone), "--attest", "--yes", "-m", "fire"]);
        assert!(ran.code == 0 || ran.err.contains("NODE_IS_LIVE"), "{ran:?}");
        (ran.code == 0).then_some(())
    });
    let ended = cluster.wait_ended(&removal, 120);
    assert_eq!((&ended["phase"], &ended["partial"]), (&"Succeeded".into(), &false.into()), "{ended:#}");
    signal(&gone["agent_pid"], "CONT");
    until("it to be refused", 60, || says(&shown(&cluster, &id(&gone)), "NODE_DECOMMISSIONED").then_some(()));
}
