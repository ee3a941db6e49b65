//! What Kong's datastore has to do with it: plugins in use, a database that is away.

use kctl_node_agent::gateway::Gateway as _;
use kctl_shared::spec::{KongState, StepWord};
use serde_json::json;

use crate::node::{Node, enact, put_back, waiting, without};

#[tokio::test]
async fn a_kong_that_is_down_or_held_is_waited_for() {
    let node = Node::started("");
    let kong = node.gateway();
    let (wanted, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    node.signal("STOP");
    kctl_tests::until("the master to be held", 10, || {
        (procfs::process::Process::new(node.pid()?).ok()?.stat().ok()?.state == 'T').then_some(())
    });
    assert_eq!(kong.observe().await.facts.state, KongState::Stopped);
    assert_eq!(waiting(enact(&kong, &wanted, &before).await).code, "KONG_STOPPED");
    node.signal("CONT");
    node.stop();
    let conf = node.read_conf();
    assert_eq!(kong.observe().await.facts.state, KongState::Down);
    assert_eq!(waiting(enact(&kong, &wanted, &before).await).code, "KONG_DOWN");
    assert_eq!(node.read_conf(), conf);
    // It can still be tried, and goes on when Kong is back.
    assert_eq!(kong.preflight(&wanted, kctl_node_agent::config::Preflight::Parse).await, Ok(()));
    node.start();
    enact(&kong, &wanted, &before).await.unwrap();
    assert_eq!(node.loaded("hello").as_deref(), Some("1.0.0"));
}

#[tokio::test]
async fn a_plugin_in_use_is_not_dropped() {
    let node = Node::started("");
    let kong = node.gateway();
    let wanted = node.plugin("hello", "1.0.0", "");
    let before = without("hello", None);
    enact(&kong, &wanted, &before).await.unwrap();
    let body = json!({"config": "_format_version: \"3.0\"\nplugins:\n- name: hello\n"});
    let (code, answer) = node.send("POST", "/config", body);
    assert_eq!(code, 201, "{answer}");
    let id = kctl_tests::until("the entity", 10, || {
        Some(node.get("/plugins").ok()?.1["data"].as_array()?.first()?["id"].as_str()?.to_owned())
    });
    let scanned = kong.scan(wanted.listed.keys().next().unwrap()).await.unwrap();
    assert_eq!(
        scanned.iter().map(|e| (e.id.as_str(), e.scope.as_str())).collect::<Vec<_>>(),
        [(id.as_str(), "global")]
    );
    let footprint = node.footprint();
    let failure = waiting(enact(&kong, &before, &wanted).await);
    assert_eq!(failure.code, "IN_USE_NOT_ENABLED", "{failure}");
    assert!(failure.message.contains("hello"), "{failure}");
    assert_eq!(node.footprint(), footprint);
}

#[tokio::test]
async fn entities_are_found_and_deleted_by_id() {
    let Some((node, _database)) = Node::on_database() else { return };
    let kong = node.gateway();
    let wanted = node.plugin("hello", "1.0.0", "");
    enact(&kong, &wanted, &without("hello", None)).await.unwrap();
    assert_eq!(node.send("POST", "/services", json!({"name": "s", "url": "http://127.0.0.1:9"})).0, 201);
    let (code, service) = node.get("/services/s").unwrap();
    assert_eq!(code, 200);
    let target = format!("service={}", service["id"].as_str().unwrap());
    for path in ["/plugins", "/services/s/plugins"] {
        assert_eq!(node.send("POST", path, json!({"name": "hello"})).0, 201, "{path}");
    }
    assert_eq!(node.send("POST", "/plugins", json!({"name": "cors"})).0, 201);
    let name = wanted.listed.keys().next().unwrap();
    let found = kong.scan(name).await.unwrap();
    let mut shown: Vec<_> = found.iter().map(|e| (e.scope.as_str(), e.target.as_str())).collect();
    shown.sort_unstable();
    assert_eq!(shown, [("global", ""), ("service", target.as_str())]);
    assert!(found.iter().all(|e| e.body.contains("\"config\"")));
    assert_eq!(kong.observe().await.enabled_in_cluster.unwrap(), ["cors", "hello"].map(str::to_owned).into());
    for entity in &found {
        kong.delete_entity(&entity.id).await.unwrap();
        kong.delete_entity(&entity.id).await.unwrap();
    }
    assert_eq!(kong.scan(name).await, Ok(vec![]));
    assert_eq!(kong.delete_entity("../services/s").await.unwrap_err().code, "BAD_ENTITY_ID");
    enact(&kong, &without("hello", None), &wanted).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for() {
    let Some((node, database)) = Node::on_database() else { return };
    let kong = node.gateway();
    let (wanted, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    let footprint = node.footprint();
    assert_eq!(kong.preflight(&wanted, kctl_node_agent::config::Preflight::Parse).await, Ok(()));
    database.down();
    assert_eq!(waiting(enact(&kong, &wanted, &before).await).code, "DATABASE_UNREACHABLE");
    database.up();
    assert_eq!(node.footprint(), footprint);
    // It goes away between the preparation and the reload.
    let progress = |word: StepWord| {
        if word == StepWord::Reloading {
            database.down();
        }
    };
    assert_eq!(waiting(kong.enact(&wanted, &before, &progress).await).code, "DATABASE_UNREACHABLE");
    database.up();
    assert_eq!(node.footprint(), footprint);
    enact(&kong, &wanted, &before).await.unwrap();
    assert_eq!(node.loaded("hello").as_deref(), Some("1.0.0"));
}

#[tokio::test]
async fn an_entity_that_comes_back_at_the_last_moment_brings_the_plugin_back() {
    let Some((node, _database)) = Node::on_database() else { return };
    let kong = node.gateway();
    let (wanted, without) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    enact(&kong, &wanted, &without).await.unwrap();
    let conf = node.read_conf();
    let progress = |word: StepWord| {
        if word == StepWord::Reloading
            && node.get("/plugins").unwrap().1["data"].as_array().unwrap().is_empty()
        {
            assert_eq!(node.send("POST", "/plugins", json!({"name": "hello"})).0, 201);
        }
    };
    let failure = put_back(kong.enact(&without, &wanted, &progress).await);
    assert_eq!(failure.code, "IN_USE_NOT_ENABLED", "{failure}");
    assert_eq!(node.read_conf(), conf);
    assert_eq!(node.ready().0, 200);
    assert_eq!(kong.proven(&wanted).await, Ok(()));
    // The same with the entity in the way from the beginning: nothing is touched.
    assert_eq!(waiting(enact(&kong, &without, &wanted).await).code, "IN_USE_NOT_ENABLED");
    assert_eq!(node.ready().0, 200);
}
