//! Members and agents killed at random moments of one removal, while somebody watches the order of its steps.
//!
//! `KCTL_TEST_KILLS` says how many kills (30 without it) and `KCTL_TEST_SEED` which moments; both are printed, and a failure
//! is run again with them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kctl_tests::Cluster;
use kctl_tests::cluster::{request, signal};
use kctl_tests::dice::{Dice, number};
use kctl_tests::plugins;
use kctl_tests::watched::{Files, Watched};
use serde_json::{Value, json};

const NAME: &str = "tough";
const NODES: usize = 8;
const MOMENTS_MS: u64 = 900;
/// Waves and rests that make a removal last for longer than the kills do.
const SLOWLY: [&str; 6] = ["--waves", "1,25%,50%,75%,100%", "--max-parallel", "1", "--bake", "4s"];

/// How many configurations name the plugin, asked of whichever node answers.
fn references(cluster: &Cluster, node: &Value) -> Option<usize> {
    Some(cluster.entities(node, NAME)?.len())
}

/// One look at all nodes: files never go before the directive and the workers are rid of the plugin on every node, and no
/// directive before the last configuration.
fn look(cluster: &Cluster, nodes: &[Value], watched: &[Watched]) -> Result<(), String> {
    watched.iter().try_for_each(|node| node.look().map_err(|e| format!("{}: {e}", node.conf.display())))?;
    // In the order of the steps, backwards: what a later one did must find the earlier ones done.
    let gone = nodes.iter().find(|n| cluster.files(n, NAME).is_empty());
    let listed = nodes.iter().find(|n| cluster.directive(n).contains(NAME));
    let running = nodes.iter().find(|n| cluster.loaded(n, NAME).is_some());
    if let (Some(gone), Some(other)) = (gone, listed.or(running)) {
        return Err(format!("{} has no files of it while {} lists or runs it", gone["id"], other["id"]));
    }
    let dropped = nodes.iter().find(|n| !cluster.directive(n).contains(NAME));
    if let Some(dropped) = dropped
        && let Some(left @ 1..) = nodes.iter().find_map(|n| references(cluster, n))
    {
        return Err(format!("{} dropped it while {left} configurations name it", dropped["id"]));
    }
    Ok(())
}

/// Kills one process, or now and then all members at once; says how many died.
fn kill(cluster: &Cluster, dice: &mut Dice) -> u64 {
    let dev = cluster.dev();
    let pids = |list: &str, key: &str| -> Vec<Value> {
        let all = dev[list].as_array().unwrap().iter().map(|p| p[key].clone());
        all.filter(|pid| pid.as_u64().is_some_and(|pid| pid > 0)).collect()
    };
    let (members, agents) = (pids("members", "pid"), pids("nodes", "agent_pid"));
    let victims = match dice.below(12) {
        0 => members,
        1..=4 if !members.is_empty() => vec![dice.pick(&members).clone()],
        _ if agents.is_empty() => return 0,
        _ => vec![dice.pick(&agents).clone()],
    };
    victims.iter().filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()).for_each(|pid| {
        signal(pid, "KILL");
    });
    victims.len() as u64
}

#[test]
fn random_kills_of_members_and_agents_never_break_the_order_of_a_removal() {
    let kills = number("KCTL_TEST_KILLS", 30);
    let (mut dice, seed) = Dice::seeded();
    let again = format!(
        "KCTL_TEST_KILLS={kills} KCTL_TEST_SEED={seed} cargo nextest run -p kctl-tests --test e2e_removal_kills"
    );
    println!("{again}");
    let cluster = Cluster::start(3, NODES);
    let source = plugins::good(cluster.temp(), NAME, "1.0.0");
    let releases: [Files; 1] = [plugins::files(&source, NAME)];
    let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut killed = 0;
    while killed < kills {
        assert_eq!(cluster.install(&source).code, 0, "{again}");
        for n in 0..3 {
            let body = json!({"name": NAME, "config": {"header": format!("x-{n}")}, "instance_name": format!("i{n}")});
            let path = if n == 0 { "/plugins".to_owned() } else { format!("/services/s{n}/plugins") };
            let admin = cluster.nodes()[0]["admin"].as_str().unwrap().to_owned();
            let service = json!({"name": format!("s{n}"), "url": "http://127.0.0.1:9"});
            let _exists =
                request(reqwest::Method::POST, &format!("{admin}/services"), Some(service)).unwrap();
            let (code, answer) =
                request(reqwest::Method::POST, &format!("{admin}{path}"), Some(body)).unwrap();
            assert_eq!(code, 201, "{answer}");
        }
        let nodes = cluster.nodes();
        let watched: Vec<_> = nodes.iter().map(|n| Watched::new(n, NAME, &releases)).collect();
        done.store(false, Ordering::Relaxed);
        let id = std::thread::scope(|threads| {
            let watcher = threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    look(&cluster, &nodes, &watched).unwrap_or_else(|wrong| panic!("{wrong}\n{again}"));
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
            let args = ["plugin", "remove", NAME, "--yes", "--all-nodes", "--detach"];
            let ran = cluster.kctl(&[&args[..], &SLOWLY].concat());
            assert_eq!(ran.code, 0, "{ran:?}\n{again}");
            let id = ran.out.trim().to_owned();
            let (before, mut died) = (killed, 0);
            while killed < kills && !watcher.is_finished() {
                // The moment is the subject here, not a condition that is waited for.
                std::thread::sleep(Duration::from_millis(dice.below(MOMENTS_MS)));
                let status = cluster.kctl(&["operation", "status", &id, "-o", "json"]);
                if status.out.contains("\"Succeeded\"") {
                    break;
                }
                died += kill(&cluster, &mut dice);
                killed = before + died;
            }
            let view = cluster.wait_ended(&id, 300);
            done.store(true, Ordering::Relaxed);
            assert!(watcher.join().is_ok(), "see the watcher's words\n{again}");
            assert_eq!(view["phase"], "Succeeded", "{view:#}\n{again}");
            println!("{died} processes killed during one removal");
            id
        });
        for node in cluster.nodes() {
            assert!(
                cluster.files(&node, NAME).is_empty() && !cluster.directive(&node).contains(NAME),
                "{id} {again}"
            );
            assert_eq!(cluster.loaded(&node, NAME), None, "{id} {again}");
            assert_eq!(references(&cluster, &node), Some(0), "{id} {again}");
        }
    }
    let looks = looks.load(Ordering::Relaxed);
    assert!(looks > 20, "only {looks} looks\n{again}");
    println!("{killed} processes killed, {looks} looks at {NODES} nodes");
}
