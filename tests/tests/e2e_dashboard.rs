//! What a browser is told while a cluster changes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kctl_tests::cluster::Cluster;
use kctl_tests::{plugins, until};
use serde_json::Value;

/// The `status` events of a member with the moment at which they came.
fn statuses(http: &str) -> mpsc::Receiver<(Instant, Value)> {
    let address = http.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
    let (events, received) = mpsc::channel();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n").unwrap();
    std::thread::spawn(move || {
        let mut kind = String::new();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(name) = line.strip_prefix("event: ") {
                kind = name.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ").filter(|_| kind == "status")
                && let Ok(view) = serde_json::from_str(data)
                && events.send((Instant::now(), view)).is_err()
            {
                return;
            }
        }
    });
    received
}

fn version_in(view: &Value, node: &str, plugin: &str) -> Option<String> {
    let node = view["nodes"].as_array()?.iter().find(|n| n["id"] == node)?;
    let plugin = node["plugins"].as_array()?.iter().find(|p| p["name"] == plugin)?;
    (plugin["stage"] == "Enabled").then(|| plugin["version"].as_str().unwrap().to_owned())
}

#[test]
fn every_member_tells_what_a_node_runs_as_soon_as_it_is_proven() {
    let cluster = Cluster::start(3, 2);
    let streams: Vec<_> = cluster.members().iter().map(|m| statuses(m["http"].as_str().unwrap())).collect();
    let path = plugins::good(cluster.temp(), "shown", "1.0.0");
    let ran = cluster.kctl(&["plugin", "install", path.to_str().unwrap(), "--all-nodes", "--detach"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut loaded = BTreeMap::new();
    until("Kong itself to show the plugin on both nodes", 60, || {
        for node in cluster.nodes() {
            if cluster.loaded(&node, "shown").is_some() {
                loaded.entry(node["id"].as_str().unwrap().to_owned()).or_insert_with(Instant::now);
            }
        }
        (loaded.len() == 2).then_some(())
    });
    for stream in streams {
        let mut shown = BTreeMap::new();
        while shown.len() < 2 {
            let (at, view) = stream.recv_timeout(Duration::from_secs(20)).expect("the page to be told");
            for id in loaded.keys() {
                if version_in(&view, id, "shown").as_deref() == Some("1.0.0") {
                    shown.entry(id.clone()).or_insert(at);
                }
            }
        }
        for (id, at) in shown {
            eprintln!("{id}: shown {:?} after Kong showed it", at.saturating_duration_since(loaded[&id]));
        }
    }
}
