//! How a rollout goes from wave to wave, and what people can do while it runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use kctl_tests::cluster::{Cluster, Ran, hold, request, signal};
use kctl_tests::{plugins, until};
use reqwest::Method;
use serde_json::{Value, json};

fn install(cluster: &Cluster, path: &Path, more: &[&str]) -> Ran {
    cluster.kctl(&[&["plugin", "install", path.to_str().unwrap(), "--all-nodes"], more].concat())
}

fn begin(cluster: &Cluster, path: &Path, more: &[&str]) -> String {
    let ran = install(cluster, path, &[more, &["--detach"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.trim().to_owned()
}

/// Waits until the operation says that it waits for `reason`.
fn waits(cluster: &Cluster, id: &str, reason: &str) -> Value {
    until(&format!("{reason} of {id}"), 90, || {
        let view = cluster.operation(id);
        let waits = view["waiting_on"].as_array()?.iter().any(|w| w["reason"] == reason);
        assert!(waits || view["finished_at"].is_null(), "it ended instead: {view:#}");
        waits.then_some(view)
    })
}

fn step_in(cluster: &Cluster, words: &[&str]) -> Ran {
    cluster.kctl(&[&["operation"], words].concat())
}

#[track_caller]
fn refused(ran: &Ran, code: &str) {
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.err.contains(code), "{code}: {ran:?}");
}

fn loaded(cluster: &Cluster, plugin: &str) -> usize {
    cluster.loaded_on(plugin).iter().flatten().count()
}

fn poison(cluster: &Cluster, node: &str) -> PathBuf {
    let path = Path::new(cluster.node(node)["prefix"].as_str().unwrap()).join("poison");
    std::fs::write(&path, "").unwrap();
    path
}

fn moment(time: &Value) -> jiff::Timestamp {
    time.as_str().unwrap().parse().unwrap()
}

#[test]
fn a_node_that_fails_stops_the_waves_and_what_follows_is_chosen() {
    let cluster = Cluster::start(1, 8);
    let root = cluster.temp().to_owned();
    let poisoned = poison(&cluster, "kong-5");
    let rollout = ["--canary", "1", "--waves", "1,50%,100%", "--max-parallel", "1", "--bake", "2s"];
    let hups = || -> Vec<_> { cluster.nodes().iter().map(|n| cluster.hups(n)).collect() };

    // By default everything goes back, and whoever had not had its turn never notices.
    let before: Vec<_> = cluster.nodes().iter().map(|n| cluster.footprint(n)).collect();
    let ran = install(&cluster, &plugins::poisonable(&root, "moody", "1.0.0"), &rollout);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("this node is poisoned") && ran.err.contains("kong-5"), "{ran:?}");
    assert!(ran.err.contains("BAKING") && ran.err.contains("kctl operation promote"), "{ran:?}");
    assert_eq!(loaded(&cluster, "moody"), 0);
    assert_eq!(hups()[5..], [0, 0, 0], "nodes after the one that failed were reloaded");
    assert!(hups()[..5].iter().all(|n| *n == 2), "one reload there and one back: {:?}", hups());
    for (node, before) in cluster.nodes().iter().zip(&before) {
        assert!(cluster.files(node, "moody").is_empty() && !cluster.directive(node).contains("moody"));
        if cluster.hups(node) == 0 {
            assert_eq!(&cluster.footprint(node), before);
        }
    }
    let view = cluster.newest_operation();
    assert_eq!((&view["phase"], &view["policy"]["bake_ms"]), (&"Failed".into(), &2000.into()));
    let steps = view["steps"].as_array().unwrap();
    let wave = |n: u64| steps.iter().find(|s| s["name"] == "enable" && s["wave"] == n).unwrap();
    let settled = moment(&wave(1)["nodes"][0]["finished_at"]);
    let baked = moment(&wave(2)["started_at"]).duration_since(settled);
    assert!(baked.as_millis() >= 2_000, "{baked}");

    // Or it waits for somebody to mend the cause.
    let before = hups();
    let id = begin(
        &cluster,
        &plugins::poisonable(&root, "moody", "1.0.1"),
        &[&rollout[..6], &["--on-failure", "pause"]].concat(),
    );
    let view = waits(&cluster, &id, "FAILURE_PAUSED");
    assert_eq!(view["phase"], "Paused");
    assert!(view.to_string().contains("this node is poisoned"), "{view:#}");
    assert_eq!(loaded(&cluster, "moody"), 4);
    refused(&step_in(&cluster, &["resume", &id]), "FAILED_NODES");
    refused(&step_in(&cluster, &["promote", &id]), "NOTHING_TO_PROMOTE");
    std::fs::remove_file(poisoned).unwrap();
    let ran = step_in(&cluster, &["retry", &id, "--failed-only", "-m", "mended"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(cluster.loaded_on("moody"), vec![Some("1.0.1".to_owned()); 8]);
    let more: Vec<_> = hups().iter().zip(&before).map(|(now, then)| now - then).collect();
    assert!(more.iter().enumerate().all(|(n, more)| n == 4 || *more == 1), "{more:?}");
    let ran = step_in(&cluster, &["logs", &id]);
    for told in ["this node is poisoned", "hold", "retry", "mended", "Succeeded"] {
        assert!(ran.out.contains(told), "{told}: {ran:?}");
    }
    let lines = cluster.json(&["operation", "logs", &id, "--node", "kong-5"]);
    assert!(lines.as_array().unwrap().iter().all(|l| l["node"] == "kong-5"), "{lines:#}");
    refused(&step_in(&cluster, &["abort", &id]), "OPERATION_ENDED");
}

#[test]
fn people_pause_promote_abort_and_excuse() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();

    // A canary that a person has to agree to; the request can be repeated.
    let id = begin(
        &cluster,
        &plugins::good(&root, "calm", "1.0.0"),
        &["--canary", "1", "--pause-after", "canary"],
    );
    let view = waits(&cluster, &id, "CANARY_PAUSED");
    assert!(view.to_string().contains(&format!("kctl operation promote {id}")), "{view:#}");
    assert_eq!((loaded(&cluster, "calm"), cluster.hups(&cluster.node("kong-2"))), (1, 0));
    refused(&step_in(&cluster, &["pause", &id]), "OPERATION_PAUSED");
    let tried = cluster.json(&["operation", "promote", &id, "--dry-run"]);
    assert_eq!(tried["phase"], "Progressing");
    assert_eq!(cluster.operation(&id)["phase"], "Paused", "a dry run changes nothing");
    let same = "0192f000-0000-7000-8000-000000000001";
    for _ in 0..2 {
        let ran = step_in(&cluster, &["promote", &id, "--request-id", same]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(loaded(&cluster, "calm"), 3);
    refused(&step_in(&cluster, &["pause", &id, "--request-id", same]), "REQUEST_ID_REUSED");

    // Paused while it bakes, resumed, and promoted.
    let slow = ["--canary", "1", "--bake", "10m"];
    let id = begin(&cluster, &plugins::good(&root, "calm", "1.1.0"), &slow);
    waits(&cluster, &id, "BAKING");
    assert_eq!(step_in(&cluster, &["pause", &id, "-m", "lunch"]).code, 0);
    let view = waits(&cluster, &id, "PAUSED");
    assert!(view.to_string().contains("lunch") && view["phase"] == "Paused", "{view:#}");
    assert_eq!(step_in(&cluster, &["resume", &id, "--detach"]).code, 0);
    refused(&step_in(&cluster, &["resume", &id]), "OPERATION_NOT_PAUSED");
    waits(&cluster, &id, "BAKING");
    assert_eq!(step_in(&cluster, &["promote", &id]).code, 0);
    assert_eq!(cluster.loaded_on("calm"), vec![Some("1.1.0".to_owned()); 3]);

    // Called off in the middle: as before.
    let id = begin(&cluster, &plugins::good(&root, "calm", "1.2.0"), &slow);
    waits(&cluster, &id, "BAKING");
    let ran = step_in(&cluster, &["abort", &id, "-m", "not today"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let view = cluster.operation(&id);
    assert_eq!((&view["phase"], &view["error"]["code"]), (&"Aborted".into(), &"ABORTED".into()));
    assert_eq!(cluster.loaded_on("calm"), vec![Some("1.1.0".to_owned()); 3]);

    // A node that is away is excused: the others get it, the exit code says so, and it follows when it is back.
    let agent = cluster.node("kong-2")["agent_pid"].clone();
    hold(&agent);
    let id = begin(&cluster, &plugins::good(&root, "calm", "1.3.0"), &[]);
    waits(&cluster, &id, "AGENT_UNREACHABLE");
    let ran = step_in(&cluster, &["excuse", &id, "--node", "kong-2"]);
    assert!(ran.code == 1 && ran.err.contains("INVALID_REASON"), "{ran:?}");
    let ran = step_in(&cluster, &["excuse", &id, "--node", "kong-2", "-m", "in repair"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = step_in(&cluster, &["status", &id, "-w"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("without kong-2: in repair") && ran.err.contains("partial"), "{ran:?}");
    let view = cluster.operation(&id);
    assert_eq!((&view["phase"], &view["partial"]), (&"Succeeded".into(), &true.into()));
    signal(&agent, "CONT");
    until("the excused node to follow", 60, || {
        (cluster.loaded_on("calm") == vec![Some("1.3.0".to_owned()); 3]).then_some(())
    });

    // A removal is carried out later where somebody was excused.
    hold(&agent);
    let words = ["plugin", "remove", "calm", "--all-nodes", "--yes", "--detach", "--pause-after", "canary"];
    let ran = cluster.kctl(&words);
    assert_eq!(ran.code, 0, "{ran:?}");
    let id = ran.out.trim().to_owned();
    waits(&cluster, &id, "CANARY_PAUSED");
    assert_eq!(step_in(&cluster, &["promote", &id, "--detach"]).code, 0);
    waits(&cluster, &id, "AGENT_UNREACHABLE");
    assert_eq!(step_in(&cluster, &["excuse", &id, "--node", "kong-2", "-m", "gone"]).code, 0);
    assert_eq!(cluster.wait_ended(&id, 90)["partial"], true);
    assert_eq!(loaded(&cluster, "calm"), 1);
    // Meanwhile somebody uses the plugin through the node that still has it: told, until it is mended.
    let told = || {
        let nodes = cluster.json(&["node", "list"]).to_string();
        assert!(nodes.contains("LEFT_OVER"), "{nodes}");
        nodes.contains("REFERENCED_AFTER_REMOVAL")
    };
    assert!(!told());
    let plugins = format!("{}/plugins", cluster.node("kong-2")["admin"].as_str().unwrap());
    let (code, entity) = request(Method::POST, &plugins, Some(json!({"name": "calm"}))).unwrap();
    assert_eq!(code, 201, "{entity}");
    until("the entity to be told of", 60, || told().then_some(()));
    let entity = format!("{plugins}/{}", entity["id"].as_str().unwrap());
    assert_eq!(request(Method::DELETE, &entity, None).unwrap().0, 204);
    until("the entity's end to be seen", 60, || (!told()).then_some(()));
    signal(&agent, "CONT");
    until("the excused node to be rid of it", 60, || {
        let node = cluster.node("kong-2");
        (loaded(&cluster, "calm") == 0 && cluster.files(&node, "calm").is_empty()).then_some(())
    });
}
