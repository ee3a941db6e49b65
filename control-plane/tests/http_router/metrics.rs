//! The exposition is one Prometheus accepts as a whole.

use std::collections::{BTreeMap, BTreeSet};

use kctl_shared::proto::v1::StatusView;

use crate::fixture::{Server, view};

/// Sample (name with labels as written) to value; panics on anything the text format forbids.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut helped, mut typed, mut samples) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap();
            assert!(helped.insert(family), "{family} is there twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest, format!("{family} gauge"));
            typed.insert(family);
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            assert_eq!(name, family, "{line}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            if let Some(labels) = sample.strip_prefix(name).filter(|l| !l.is_empty()) {
                check_labels(labels);
            }
            assert!(
                samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(),
                "{sample} is there twice"
            );
        }
    }
    assert_eq!(helped, typed);
    samples
}

fn check_labels(text: &str) {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap();
    let (mut quoted, mut escaped) = (false, false);
    for c in inner.chars() {
        match (escaped, c) {
            (true, '\\' | '"' | 'n') => escaped = false,
            (true, c) => panic!("\\{c} in {text}"),
            (false, '\\') => escaped = quoted,
            (false, '"') => quoted = !quoted,
            (false, c) => {
                assert!(quoted || c == '_' || c == ',' || c == '=' || c.is_ascii_alphanumeric(), "{text}")
            }
        }
    }
    assert!(!quoted && !escaped, "{text}");
}

#[tokio::test]
async fn says_what_the_view_says() {
    let server = Server::start(view()).await;
    let answer = server.get("/metrics").await;
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let samples = parse(&answer.text().await.unwrap());
    for (sample, value) in [
        ("kctl_raft_term", 7.0),
        ("kctl_raft_leader", 1.0),
        ("kctl_raft_applied_index", 41.0),
        ("kctl_build_info{version=\"0.1.0\"}", 1.0),
        ("kctl_members{state=\"unreachable\"}", 1.0),
        ("kctl_nodes{state=\"Live\"}", 1.0),
        ("kctl_nodes{state=\"Lost\"}", 1.0),
        ("kctl_nodes{state=\"Unknown\"}", 0.0),
        ("kctl_node_condition{node=\"kong-c3\",code=\"DRIFT\"}", 1.0),
        (
            "kctl_node_plugin_stage{node=\"kong-a1\",plugin=\"rate-guard\",version=\"1.2.0\",stage=\"Enabled\"}",
            1.0,
        ),
        ("kctl_plugin_nodes_enabled{group=\"default\",plugin=\"rate-guard\",version=\"1.2.0\"}", 1.0),
        ("kctl_plugin_nodes{group=\"default\",plugin=\"rate-guard\",version=\"1.2.0\"}", 3.0),
        ("kctl_operations{phase=\"Progressing\"}", 1.0),
        ("kctl_operations{phase=\"Paused\"}", 0.0),
        ("kctl_operation_waiting{operation=\"op-1\",node=\"kong-c3\",reason=\"AGENT_UNREACHABLE\"}", 1.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample}");
    }
}

#[tokio::test]
async fn no_name_breaks_a_scrape() {
    let mut view = view();
    view.nodes[0].id = "a\"b\\c\nd} 1".into();
    // The same wait twice: Prometheus refuses a scrape that holds a sample twice.
    let wait = view.operations[0].waiting_on[0].clone();
    view.operations[0].waiting_on.push(wait);
    parse(&Server::start(view).await.text("/metrics").await);
    parse(&Server::start(StatusView::default()).await.text("/metrics").await);
}

#[tokio::test]
async fn counts_open_streams() {
    let server = Server::start(view()).await;
    let mut stream = server.get("/events").await;
    assert!(stream.chunk().await.unwrap().is_some());
    assert_eq!(parse(&server.text("/metrics").await)["kctl_http_event_streams"], 1.0);
}
