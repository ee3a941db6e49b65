//! REST reads are the gRPC messages as JSON.

use serde_json::Value;

use crate::fixture::{Server, not_ready, view};

#[tokio::test]
async fn status_is_the_message() {
    let server = Server::start(view()).await;
    let status = server.json("/api/v1/status").await;
    assert_eq!(status, serde_json::to_value(view()).unwrap());
    assert_eq!(server.json("/api/v1/cluster").await, status["cluster"]);
    assert_eq!(server.json("/api/v1/nodes").await["nodes"], status["nodes"]);
    assert_eq!(server.json("/api/v1/nodes/kong-b2").await, status["nodes"][1]);
    assert_eq!(server.json("/api/v1/plugins").await["plugins"], status["plugins"]);
    assert_eq!(server.json("/api/v1/plugins/rate-guard").await, status["plugins"][0]);
    assert_eq!(server.json("/api/v1/operations/op-1").await, status["operations"][0]);
}

#[tokio::test]
async fn operations_that_ended_are_found_too() {
    let server = Server::start(view()).await;
    let listed = server.json("/api/v1/operations").await;
    let ids: Vec<_> = listed["operations"].as_array().unwrap().iter().map(|o| o["id"].clone()).collect();
    assert_eq!(ids, ["op-1", "op-ended"]);
    assert_eq!(server.json("/api/v1/operations/op-ended").await["phase"], "Failed");
}

#[tokio::test]
async fn what_is_not_there_is_404_with_a_code() {
    let server = Server::start(view()).await;
    for (path, code) in [
        ("/api/v1/nodes/nope", "NODE_NOT_FOUND"),
        ("/api/v1/plugins/nope", "PLUGIN_NOT_INSTALLED"),
        ("/api/v1/plugins/rate-guard?group=nope", "PLUGIN_NOT_INSTALLED"),
        ("/api/v1/operations/nope", "OPERATION_NOT_FOUND"),
        ("/api/v1/nope", "NOT_FOUND"),
        ("/nope", "NOT_FOUND"),
        ("/artifacts/0000000000000000000000000000000000000000000000000000000000000000", "ARTIFACT_NOT_FOUND"),
        ("/assets/nope.js", "NOT_FOUND"),
        ("/assets/..%2flive.js", "NOT_FOUND"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status(), 404, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"], code, "{path}");
        assert!(!body["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_plugin_of_two_groups_needs_a_group() {
    let mut view = view();
    view.plugins.push(view.plugins[0].clone());
    view.plugins[1].group = "edge".into();
    let server = Server::start(view).await;
    assert_eq!(server.json("/api/v1/plugins/rate-guard").await["code"], "GROUP_AMBIGUOUS");
    assert_eq!(server.json("/api/v1/plugins/rate-guard?group=edge").await["group"], "edge");
}

#[tokio::test]
async fn alive_is_not_ready() {
    let server = Server::start_with(view(), not_ready()).await;
    assert_eq!(server.get("/healthz").await.status(), 200);
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "NO_QUORUM");
    assert_eq!(Server::start(view()).await.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn only_reads() {
    let server = Server::start(view()).await;
    let client = reqwest::Client::new();
    for path in ["/", "/api/v1/status", "/healthz"] {
        let url = format!("{}{path}", server.url);
        let head = client.head(&url).send().await.unwrap();
        assert_eq!(head.status(), 200, "{path}");
        assert!(head.bytes().await.unwrap().is_empty());
        assert_eq!(client.post(&url).send().await.unwrap().status(), 405, "{path}");
    }
}
