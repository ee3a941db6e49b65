//! A wave whose Kongs answer more 5xx than before is taken back; one that does not goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kctl_tests::cluster::{Cluster, get, request};
use kctl_tests::{plugins, until};
use serde_json::{Value, json};

/// Requests to each node's proxy, some thirty a second, until it is dropped.
struct Clients {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn of(cluster: &Cluster) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ask = |node: Value| {
            let (url, over) = (format!("{}/r", node["proxy"].as_str().unwrap()), Arc::clone(&over));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // Whatever it answers: the node counts it.
                    let _answer = get(&url);
                    thread::sleep(Duration::from_millis(30));
                }
            })
        };
        let threads = cluster.nodes().into_iter().map(ask).collect();
        Self { over, threads }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

fn post(cluster: &Cluster, path: &str, body: Value) {
    let admin = cluster.nodes()[0]["admin"].as_str().unwrap().to_owned();
    let (code, said) = request(reqwest::Method::POST, &format!("{admin}{path}"), Some(body)).unwrap();
    assert_eq!(code, 201, "{path}: {said}");
}

/// Answers that the node's Kong counted, by the Admin API.
fn counted(node: &Value) -> Option<u64> {
    let (code, text) = get(&format!("{}/metrics", node["admin"].as_str().unwrap())).ok()?;
    let lines = text.as_str().filter(|_| code == 200)?.lines();
    let counts = lines.filter(|l| l.starts_with("kong_http_requests_total{"));
    Some(counts.filter_map(|l| l.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}

/// What each node answers to a client now.
fn served(cluster: &Cluster) -> Vec<u16> {
    let answer = |node: &Value| get(&format!("{}/r", node["proxy"].as_str().unwrap())).map_or(0, |a| a.0);
    cluster.nodes().iter().map(answer).collect()
}

#[test]
fn a_wave_that_answers_more_5xx_than_before_is_taken_back() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    let upstream = cluster.nodes()[0]["admin"].as_str().unwrap().to_owned();
    post(&cluster, "/services", json!({"name": "s", "url": format!("{upstream}/status")}));
    post(&cluster, "/services/s/routes", json!({"name": "r", "paths": ["/r"]}));
    post(&cluster, "/plugins", json!({"name": "prometheus", "config": {"status_code_metrics": true}}));
    let _clients = Clients::of(&cluster);
    until("all nodes to count what they answer", 60, || {
        let nodes = cluster.nodes();
        nodes.iter().all(|node| counted(node).is_some_and(|n| n >= 20)).then_some(())
    });

    // Nothing is wrong with the first two releases, and a bake shows nothing.
    let upgrade = |path: &std::path::Path, bake: &str| {
        let path = path.to_str().unwrap();
        cluster.kctl(&["plugin", "install", path, "--all-nodes", "--canary", "1", "--bake", bake])
    };
    let ran = upgrade(&plugins::good(&root, "moody", "1.0.0"), "3s");
    assert_eq!(ran.code, 0, "{ran:?}");
    post(&cluster, "/routes/r/plugins", json!({"name": "moody"}));
    until("the configuration to be everywhere", 60, || {
        let has = |node: &Value| cluster.entities(node, "moody").is_some_and(|found| found.len() == 1);
        (cluster.nodes().iter().all(has) && served(&cluster) == [200; 3]).then_some(())
    });
    let ran = upgrade(&plugins::good(&root, "moody", "1.1.0"), "6s");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.err.contains("5xx"), "{ran:?}");
    assert_eq!(cluster.loaded_on("moody"), vec![Some("1.1.0".to_owned()); 3]);

    // The next one loads everywhere, and answers nobody.
    let before: Vec<_> = cluster.nodes().iter().map(|n| cluster.hups(n)).collect();
    let ran = upgrade(&plugins::failing_access(&root, "moody", "2.0.0"), "5m");
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.err.contains("ERRORS_ROSE") && ran.err.contains("answers were 5xx since the reload"),
        "{ran:?}"
    );
    let view = cluster.newest_operation();
    assert_eq!((&view["phase"], &view["error"]["code"]), (&"Failed".into(), &"ERRORS_ROSE".into()));
    assert_eq!(cluster.loaded_on("moody"), vec![Some("1.1.0".to_owned()); 3]);
    until("all nodes to answer again", 30, || (served(&cluster) == [200; 3]).then_some(()));
    let after: Vec<_> = cluster.nodes().iter().map(|n| cluster.hups(n)).collect();
    assert_eq!(
        after.iter().zip(&before).filter(|(after, before)| after > before).count(),
        1,
        "only the canary ever ran it"
    );
}
