//! The page says everything without a script.

use kctl_shared::proto::v1::StatusView;

use crate::fixture::{Server, node, view};

#[tokio::test]
async fn shows_every_node_word_and_reason() {
    let server = Server::start(view()).await;
    let page = server.text("/").await;
    for shown in [
        "kong-a1",
        "kong-b2",
        "kong-c3",
        "healthy",
        "proving",
        "unreachable",
        "Live",
        "Suspect",
        "Lost",
        "rate-guard",
        "1.2.0",
        "1/3 enabled",
        "Progressing",
        "wave 2",
        "AGENT_UNREACHABLE",
        "nothing heard from kong-c3",
        "DRIFT",
        "kong.conf cannot be parsed",
        "term 7",
        "Member 1 leads and cannot reach member 3",
        "op-1",
    ] {
        assert!(page.contains(shown), "{shown} is missing");
    }
}

#[tokio::test]
async fn a_state_is_never_colour_alone() {
    let server = Server::start(view()).await;
    let page = server.text("/").await;
    for (symbol, word) in
        [("✔", "healthy"), ("◐", "proving"), ("✖", "unreachable"), ("▲", "Suspect"), ("★", "leader")]
    {
        assert!(page.contains(&format!("{symbol}</span> {word}</span>")), "{symbol} {word}");
    }
}

#[tokio::test]
async fn shows_what_ended_lately() {
    let page = Server::start(StatusView::default()).await.text("/").await;
    assert!(page.contains("install broken 0.0.1") && page.contains("MISSING_DEPENDENCY"));
    assert!(page.contains("module &#39;resty.foo&#39; not found"));
}

#[tokio::test]
async fn an_empty_cluster_has_a_page_too() {
    let page = Server::start(StatusView::default()).await.text("/").await;
    assert!(page.contains("No node has registered yet") && page.contains("no leader"));
}

#[tokio::test]
async fn hostile_names_stay_text() {
    let hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let mut view = view();
    view.nodes.push(node(hostile, hostile, hostile));
    view.nodes[0].plugins[0].name = hostile.into();
    view.nodes[0].plugins[0].message = hostile.into();
    view.plugins[0].group = hostile.into();
    view.operations[0].reason = hostile.into();
    view.operations[0].steps[0].nodes[0].message = hostile.into();
    view.operations[0].waiting_on[0].message = hostile.into();
    let cluster = view.cluster.as_mut().unwrap();
    cluster.members[0].http = "javascript:alert(1)".into();
    cluster.members[1].http = format!("http://x/{hostile}");
    let server = Server::start(view).await;
    let page = server.text("/").await;
    assert!(
        !page.contains("<script>") && !page.contains("<img src=x") && !page.contains("href=\"javascript:")
    );
    assert_eq!(page.matches("<script").count(), 1, "only the page's own module");
    assert!(page.contains("&#60;script&#62;"));
}

#[tokio::test]
async fn words_of_other_versions_are_shown_as_they_are() {
    let mut view = view();
    view.nodes[0].plugins[0].state = "hibernating".into();
    assert!(Server::start(view).await.text("/").await.contains("hibernating"));
}
