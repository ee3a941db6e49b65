//! The event stream: the present state at once, every change soon after, an end with the member.

use std::sync::Arc;
use std::time::Duration;

use kctl_shared::proto::v1::StatusView;

use crate::fixture::{Server, node, view};

/// Fails a test that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(20);

struct Reader {
    answer: reqwest::Response,
    text: String,
}

#[derive(Debug)]
struct Received {
    event: String,
    data: String,
}

impl Reader {
    async fn open(server: &Server) -> Self {
        let answer = server.get("/events").await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new() }
    }

    /// The next event, or none when the stream ended.
    async fn next(&mut self) -> Option<Received> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let lines = block.lines().filter_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
                    lines.map(|v| v.strip_prefix(' ').unwrap_or(v)).collect::<Vec<_>>().join("\n")
                };
                let received = Received { event: field("event"), data: field("data") };
                self.text = rest.to_owned();
                return Some(received);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.answer.chunk()).await.expect("an event in time");
            self.text.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    async fn status(&mut self) -> StatusView {
        loop {
            let received = self.next().await.expect("the stream goes on");
            if received.event == "status" {
                return serde_json::from_str(&received.data).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn starts_with_the_present_state() {
    let server = Server::start(view()).await;
    let mut reader = Reader::open(&server).await;
    let status = reader.next().await.unwrap();
    assert_eq!(status.event, "status");
    assert_eq!(status.data, server.text("/api/v1/status").await);
    let fragment = reader.next().await.unwrap();
    assert_eq!(fragment.event, "fragment");
    assert!(server.text("/").await.contains(fragment.data.trim_end()), "the page holds the same fragment");
}

#[tokio::test]
async fn carries_a_change() {
    let server = Server::start(view()).await;
    let mut reader = Reader::open(&server).await;
    assert_eq!(reader.status().await, view());
    let mut changed = view();
    changed.nodes[1] = node("kong-b2", "Live", "healthy");
    server.views.send_replace(Arc::new(changed.clone()));
    assert_eq!(reader.status().await, changed);
    let fragment = reader.next().await.unwrap();
    assert_eq!(fragment.event, "fragment");
    assert!(!fragment.data.contains("Suspect"));
}

#[tokio::test]
async fn merges_a_storm_and_ends_with_the_newest() {
    let server = Server::start(view()).await;
    let mut reader = Reader::open(&server).await;
    reader.status().await;
    let last = 5_000;
    for generation in 1..=last {
        let mut changed = view();
        changed.nodes[0].observed_generation = generation;
        server.views.send_replace(Arc::new(changed));
    }
    let mut received = 0;
    while reader.status().await.nodes[0].observed_generation != last {
        received += 1;
    }
    assert!(received < 1_000, "{received} of {last} states were sent one by one");
}

#[tokio::test]
async fn every_reader_gets_every_change() {
    let server = Server::start(view()).await;
    let mut readers = Vec::new();
    for _ in 0..8 {
        readers.push(Reader::open(&server).await);
    }
    server.views.send_replace(Arc::default());
    for reader in &mut readers {
        while reader.status().await != StatusView::default() {}
    }
}

#[tokio::test]
async fn ends_with_the_member() {
    let server = Server::start(view()).await;
    let mut reader = Reader::open(&server).await;
    reader.status().await;
    server.shutdown.cancel();
    while reader.next().await.is_some() {}
}
