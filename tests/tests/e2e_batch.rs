//! Several plugins in one command: all of their operations begin, or none does, and a node is reloaded once for them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use kctl_tests::cluster::{Cluster, Ran, hold, signal};
use kctl_tests::{plugins, until};
use serde_json::Value;

fn install(cluster: &Cluster, names: &[&str], more: &[&str]) -> Ran {
    let root = cluster.temp().to_owned();
    let sources: Vec<_> = names.iter().map(|name| plugins::good(&root, name, "1.0.0")).collect();
    let sources: Vec<_> = sources.iter().map(|path| path.to_str().unwrap()).collect();
    cluster.kctl(&[&["plugin", "install"], &sources[..], &["--all-nodes"], more].concat())
}

fn hups(cluster: &Cluster) -> Vec<usize> {
    cluster.nodes().iter().map(|node| cluster.hups(node)).collect()
}

fn operations(cluster: &Cluster) -> Vec<Value> {
    cluster.json(&["operation", "list"]).as_array().unwrap().clone()
}

#[test]
fn a_node_is_reloaded_once_for_all_of_them() {
    let cluster = Cluster::start(1, 3);
    let before = hups(&cluster);
    let ran = install(&cluster, &["alpha", "beta"], &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for name in ["alpha", "beta"] {
        assert!(ran.out.contains(&format!("✔ {name} 1.0.0 is loaded on 3/3 nodes")), "{ran:?}");
        assert_eq!(cluster.loaded_on(name), vec![Some("1.0.0".to_owned()); 3]);
    }
    assert_eq!(hups(&cluster), before.iter().map(|n| n + 1).collect::<Vec<_>>());
    let begun = operations(&cluster);
    assert_eq!(begun.len(), 2);
    assert!(begun[0]["batch"].as_str().is_some_and(|b| !b.is_empty()), "{:#}", begun[0]);
    assert_eq!(begun[0]["batch"], begun[1]["batch"]);
    assert_eq!(begun[0]["created_at"], begun[1]["created_at"]);
    let ran = install(&cluster, &["alpha", "beta"], &[]);
    assert!(ran.code == 0 && ran.out.contains("alpha is installed already"), "{ran:?}");

    let before = hups(&cluster);
    let ran = cluster.kctl(&["plugin", "remove", "alpha", "beta", "--all-nodes", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for name in ["alpha", "beta"] {
        assert!(ran.out.contains(&format!("✔ removed {name}")), "{ran:?}");
        assert!(cluster.nodes().iter().all(|node| cluster.files(node, name).is_empty()));
    }
    assert_eq!(hups(&cluster), before.iter().map(|n| n + 1).collect::<Vec<_>>());
}

#[test]
fn one_that_is_refused_refuses_all() {
    let cluster = Cluster::start(1, 2);
    // Nothing ends while the agents stand still.
    let agents: Vec<_> = cluster.nodes().iter().map(|n| n["agent_pid"].clone()).collect();
    agents.iter().for_each(hold);
    let root = cluster.temp().to_owned();
    let alpha = plugins::good(&root, "alpha", "1.0.0");
    let ran = cluster.kctl(&["plugin", "install", alpha.to_str().unwrap(), "--all-nodes", "--detach"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let first = ran.out.trim().to_owned();
    let ran = install(&cluster, &["beta", "alpha"], &["--detach"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(
        ran.err.contains("PLUGIN_BUSY") && ran.err.contains(&format!("alpha: operation {first}")),
        "{ran:?}"
    );
    assert!(!ran.err.contains("beta: "), "{ran:?}");
    assert_eq!(operations(&cluster).len(), 1, "one was begun without the other");
    let ran = install(&cluster, &["beta", "gamma"], &["--name", "beta"]);
    assert!(ran.code == 64 && ran.err.contains("SEVERAL_PLUGINS"), "{ran:?}");
    agents.iter().for_each(|agent| signal(agent, "CONT"));
    assert_eq!(cluster.wait_ended(&first, 120)["phase"], "Succeeded");

    // The same request again finds what the first try began.
    let id = ["--request-id", "0192f000-0000-7000-8000-000000000001"];
    assert_eq!(install(&cluster, &["beta", "gamma"], &id).code, 0);
    let begun = operations(&cluster).len();
    assert_eq!(install(&cluster, &["beta", "gamma"], &id).code, 0);
    assert_eq!(operations(&cluster).len(), begun);
    let ran = install(&cluster, &["beta", "delta"], &id);
    assert!(ran.code == 6 && ran.err.contains("REQUEST_ID_REUSED"), "{ran:?}");
    let ran = cluster.kctl(&["plugin", "remove", "beta", "nowhere", "--all-nodes", "--yes"]);
    assert!(ran.code == 5 && ran.err.contains("nowhere: "), "{ran:?}");
    assert_eq!(cluster.loaded_on("beta"), vec![Some("1.0.0".to_owned()); 2]);
}

#[test]
fn the_batch_is_stepped_into_as_one() {
    let cluster = Cluster::start(1, 2);
    let waves = ["--waves", "1,100%", "--pause-after", "1", "--detach", "-o", "json"];
    let ran = install(&cluster, &["alpha", "beta"], &waves);
    let begun: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    let batch = begun["batch"].as_str().unwrap();
    let all = || cluster.json(&["operation", "status", batch])["operations"].as_array().unwrap().clone();
    until("both to wait after the first wave", 60, || {
        all().iter().all(|o| o["phase"] == "Paused").then_some(())
    });

    let ran = cluster.kctl(&["operation", "promote", batch, "--dry-run"]);
    assert!(ran.code == 0 && all().iter().all(|o| o["phase"] == "Paused"), "{ran:?}");
    let id = ["--request-id", "0192f000-0000-7000-8000-000000000002"];
    for _again in 0..2 {
        let ran = cluster.kctl(&[&["operation", "promote", batch][..], &id].concat());
        assert!(ran.code == 0 && ran.out.matches("Succeeded").count() >= 2, "{ran:?}");
    }
    for name in ["alpha", "beta"] {
        assert_eq!(cluster.loaded_on(name), vec![Some("1.0.0".to_owned()); 2]);
        let ran = cluster.kctl(&["operation", "logs", batch]);
        assert!(ran.code == 0 && ran.out.contains(&format!("{name} enable wave 2")), "{ran:?}");
    }
    let ran = cluster.kctl(&["operation", "abort", batch]);
    assert!(ran.code == 6 && ran.err.contains("OPERATION_ENDED"), "{ran:?}");
    let ran = cluster.kctl(&["operation", "status", "nowhere"]);
    assert!(ran.code == 5 && ran.err.contains("OPERATION_NOT_FOUND"), "{ran:?}");
}

#[test]
fn what_one_of_them_goes_back_from_the_others_do_too() {
    let cluster = Cluster::start(1, 4);
    let root = cluster.temp().to_owned();
    let ran = install(&cluster, &["alpha"], &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let nodes = cluster.nodes();
    std::fs::write(format!("{}/poison", nodes[2]["prefix"].as_str().unwrap()), "").unwrap();

    // In the third wave: the first two have both by then.
    let sources = [
        plugins::good(&root, "alpha", "2.0.0"),
        plugins::good(&root, "beta", "1.0.0"),
        plugins::poisonable(&root, "moody", "1.0.0"),
    ];
    let sources: Vec<_> = sources.iter().map(|path| path.to_str().unwrap()).collect();
    let rollout = ["--all-nodes", "--waves", "1,2,100%", "--bake", "0s"];
    let ran = cluster.kctl(&[&["plugin", "install"], &sources[..], &rollout[..]].concat());
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("this node is poisoned") && ran.err.contains("BATCH_WENT_BACK"), "{ran:?}");
    assert_eq!(cluster.loaded_on("alpha"), vec![Some("1.0.0".to_owned()); 4]);
    for name in ["beta", "moody"] {
        assert_eq!(cluster.loaded_on(name), vec![None; 4]);
        assert!(nodes.iter().all(|node| cluster.files(node, name).is_empty()));
    }
    let phases: Vec<_> = operations(&cluster).iter().map(|o| o["phase"].clone()).collect();
    assert_eq!(phases.iter().filter(|p| **p == "Failed").count(), 3, "{phases:?}");
}
