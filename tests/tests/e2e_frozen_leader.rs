//! A leader that stands still in the middle of an operation, and comes back with old ideas.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use kctl_tests::Cluster;
use kctl_tests::cluster::{hold, signal};
use kctl_tests::{plugins, until};
use serde_json::Value;

const NAME: &str = "steady";
/// Longer than every lease, deadline of an election and silence after which a node counts as lost.
const FROZEN: Duration = Duration::from_secs(20);
const WAVES: [&str; 6] = ["--waves", "1,50%,100%", "--max-parallel", "2", "--bake", "6s"];

fn status(cluster: &Cluster, id: &str) -> Option<Value> {
    let ran = cluster.kctl(&["operation", "status", id, "-o", "json"]);
    serde_json::from_str(&ran.out).ok()
}

fn steps<'a>(view: &'a Value, name: &str) -> Vec<&'a Value> {
    view["steps"].as_array().into_iter().flatten().filter(|s| s["name"] == name).collect()
}

/// Freezes the leader when the second wave of `step` runs, thaws it after [`FROZEN`], and waits for the end.
fn freeze_in_the_second_wave(cluster: &Cluster, args: &[&str], step: &str) {
    let before: Vec<_> = cluster.nodes().iter().map(|n| cluster.hups(n)).collect();
    let ran = cluster.kctl(&[args, &["--all-nodes", "--detach"], &WAVES].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let id = ran.out.trim().to_owned();
    let planned = until("the second wave", 60, || {
        let view = status(cluster, &id)?;
        let runs = steps(&view, step).iter().any(|s| s["wave"] == 2 && s["phase"] == "Running");
        runs.then_some(view)
    });
    let frozen = cluster.leader();
    hold(&frozen["pid"]);
    let begun = Instant::now();
    let next = until("another leader", 30, || {
        let ran = cluster.kctl(&["cluster", "status", "-o", "json"]);
        let leader = serde_json::from_str::<Value>(&ran.out).ok()?["leader"].as_u64()?;
        (leader != frozen["id"]).then_some(leader)
    });
    println!("member {next} led {:.1} s after member {} froze", begun.elapsed().as_secs_f64(), frozen["id"]);
    // How long it stands still is the subject here.
    std::thread::sleep(FROZEN.saturating_sub(begun.elapsed()));
    signal(&frozen["pid"], "CONT");
    let view = cluster.wait_ended(&id, 180);
    assert_eq!(view["phase"], "Succeeded", "{view:#}");
    assert_eq!(
        view["steps"].as_array().map(Vec::len),
        planned["steps"].as_array().map(Vec::len),
        "steps were added: {view:#}"
    );
    for step in view["steps"].as_array().unwrap() {
        assert_eq!(step["phase"], "Done", "{view:#}");
    }
    for (node, before) in cluster.nodes().iter().zip(&before) {
        assert_eq!(cluster.hups(node), before + 1, "{} was reloaded twice or not at all", node["id"]);
    }
    until("the thawed member to follow", 30, || {
        let ran = cluster.kctl(&["cluster", "status", "-o", "json"]);
        let view: Value = serde_json::from_str(&ran.out).ok()?;
        let applied = |id: &Value| {
            view["members"].as_array()?.iter().find(|m| &m["id"] == id)?["applied_index"].as_u64()
        };
        (applied(&frozen["id"])? >= applied(&view["leader"])?).then_some(())
    });
}

#[test]
fn a_frozen_leader_neither_holds_a_rollout_up_nor_repeats_it() {
    let cluster = Cluster::start(3, 8);
    let source = plugins::good(cluster.temp(), NAME, "1.0.0");
    freeze_in_the_second_wave(&cluster, &["plugin", "install", source.to_str().unwrap()], "enable");
    assert_eq!(cluster.loaded_on(NAME), vec![Some("1.0.0".to_owned()); 8]);
    freeze_in_the_second_wave(&cluster, &["plugin", "remove", NAME, "--yes"], "disable");
    assert_eq!(cluster.loaded_on(NAME), vec![None; 8]);
    assert!(cluster.nodes().iter().all(|n| cluster.files(n, NAME).is_empty()));
}
