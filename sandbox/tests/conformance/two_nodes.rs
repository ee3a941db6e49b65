//! Two nodes on one database, one of which lacks a plugin that the other applies.

use crate::node::{Datastore, Node};

const STALE: &str = "could not rebuild plugins iterator via timer: golden plugin is in use but not enabled, context: ngx.timer";

#[test]
fn a_node_that_lacks_a_plugin_in_use_takes_no_plugin_change_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let a = Node::database(directory.path());
    let b = Node::new(&Datastore::Database(directory.path()));
    b.set("plugins", "bundled");
    b.start();
    b.until("B has the route", || b.proxy("/a").status == 200);

    assert_eq!(a.post("/plugins", "{\"name\":\"golden\",\"service\":{\"name\":\"s1\"}}").status, 201);
    a.until("A applies the plugin", || a.golden().as_deref() == Some("golden 1.0.0 hi"));
    b.until("both workers of B are stuck", || b.log().matches(STALE).count() >= 4);
    assert_eq!(b.golden(), None);
    assert_eq!(b.ready(), (200, "ready".to_owned()));
    let row = b.get("/plugins").json()["data"][0].clone();
    assert_eq!(row["name"], "golden");
    assert_eq!(b.get("/").json()["plugins"]["enabled_in_cluster"], serde_json::json!(["golden"]));
    let id = row["id"].as_str().unwrap().to_owned();
    assert_eq!(b.get(&format!("/plugins/{id}")).status, 200);
    let patch = b.send("PATCH", &format!("/plugins/{id}"), "{\"enabled\":false}");
    assert_eq!(patch.status, 400, "a row of a plugin it lacks cannot be changed through B");

    // Routes still come through; a plugin that B has is stored and not enforced.
    assert_eq!(b.post("/services/s1/routes", "{\"name\":\"r2\",\"paths\":[\"/b\"]}").status, 201);
    b.until("B takes the route", || b.proxy("/b").status == 200);
    assert_eq!(b.post("/plugins", "{\"name\":\"key-auth\",\"service\":{\"name\":\"s1\"}}").status, 201);
    let words = "{\n  \"message\":\"No API key found in request\",\n  \"request_id\":\"";
    a.until("A enforces it", || {
        let answer = a.proxy("/a");
        answer.status == 401 && answer.body.starts_with(words)
    });
    assert_eq!(b.proxy("/a").status, 200);

    // A worker that dies comes back without any plugin.
    let worker = *b.workers().keys().next().unwrap();
    let pid = rustix::process::Pid::from_raw(worker).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    b.until("the new worker complains", || {
        b.log().contains(
            "init_worker(): worker initialization error: failed to build the plugins iterator: golden plugin is in use but \
             not enabled; this node must be restarted",
        )
    });
    assert_eq!(b.ready().0, 200);
    let log = b.reload_refused();
    assert!(log.contains("error building initial plugins: golden plugin is in use but not enabled"), "{log}");

    // Deleting the row, even through B, thaws it; readiness needs a good reload.
    assert_eq!(b.delete(&format!("/plugins/{id}")).status, 204);
    b.until("B enforces the key at last", || b.proxy("/a").status == 401);
    assert_eq!(b.ready().0, 503);
    b.reload_through();
    a.until("A has dropped it", || a.golden().is_none());
}
