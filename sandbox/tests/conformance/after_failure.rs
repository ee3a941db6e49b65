//! Side effects of a refused reload, and what heals them.

use crate::node::Node;

fn pids(node: &Node) -> usize {
    node.get("/").json()["pids"]["workers"].as_array().map_or(0, Vec::len)
}

#[test]
fn on_a_database_nothing_but_a_good_reload_heals_readiness() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    assert_eq!((node.ready().0, pids(&node)), (200, 2));
    node.set("plugins", "bundled,golden,absent");
    node.reload_refused();
    assert_eq!(node.ready(), (503, "router builds not yet complete".to_owned()));
    assert_eq!((node.proxy("/a").status, pids(&node)), (200, 0));
    for worker in 0..2 {
        let line = format!("could not get worker process id for worker #{worker}: not found, client: 127.");
        assert!(node.log().contains(&line), "{line}");
    }
    node.until("the cluster events lost their place", || {
        node.log().contains("[cluster_events] no 'at' in shm, polling events from: ")
    });

    // A new route counts as a router build and nothing more.
    assert_eq!(node.post("/services/s1/routes", "{\"name\":\"r2\",\"paths\":[\"/b\"]}").status, 201);
    node.until("the router was rebuilt", || node.ready().1 == "plugins iterator build not yet complete");
    node.until("the route is in service", || node.proxy("/b").status == 200);
    assert_eq!(node.ready().0, 503);

    // New workers show their pids again and are not ready either.
    let old = node.workers();
    for pid in old.keys() {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(*pid).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
    }
    node.until("both are back", || {
        node.workers().keys().all(|pid| !old.contains_key(pid))
            && node.get("/").status == 200
            && pids(&node) == 2
    });
    assert_eq!(node.ready().0, 503);
    node.set("plugins", "bundled,golden");
    node.reload_through();
    assert_eq!(pids(&node), 2);
}

#[test]
fn without_a_database_a_posted_configuration_heals_readiness() {
    let node = Node::dbless();
    let hash = node.get("/status").json()["configuration_hash"].clone();
    node.set("plugins", "bundled,golden,absent");
    node.reload_refused();
    assert_eq!(node.get("/status").json()["configuration_hash"], hash);
    let config = "{\"config\":\"_format_version: \\\"3.0\\\"\\nservices:\\n- name: s1\\n  url: http://standin-delay\\n  routes:\\n  \
                  - name: r1\\n    paths: [/a, /b]\\n\"}";
    assert_eq!(node.post("/config", config).status, 201);
    node.until("readiness is back", || node.ready().0 == 200);
    assert_eq!((node.proxy("/b").status, pids(&node)), (200, 0));
    node.set("plugins", "bundled,golden");
    node.reload_through();
    assert_eq!(pids(&node), 2);
}

#[test]
fn a_database_that_is_down_stops_reloads_and_not_prepares() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("pg");
    std::fs::create_dir(&store).unwrap();
    let node = Node::database(&store);
    let away = directory.path().join("away");
    std::fs::rename(&store, &away).unwrap();
    let old = node.workers();
    assert_eq!(node.kong("prepare -c <CONF> -p <PREFIX>").code, 0);
    let ran = node.kong("reload -c <CONF> -p <PREFIX>");
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.err,
        crate::node::error(
            "[PostgreSQL error] failed to retrieve PostgreSQL server_version_num: connection refused"
        )
    );
    assert_eq!(node.get("/status").json()["database"]["reachable"], false);
    assert_eq!(node.get("/plugins").status, 500);
    assert_eq!(node.proxy("/a").status, 200);
    assert_eq!(node.workers(), old, "no HUP was sent");
    // A HUP by hand costs readiness even after the database is back.
    let master = rustix::process::Pid::from_raw(node.master().unwrap()).unwrap();
    rustix::process::kill_process(master, rustix::process::Signal::HUP).unwrap();
    node.until("the HUP is refused", || node.log().contains("init_by_lua error: "));
    std::fs::rename(&away, &store).unwrap();
    assert_eq!(node.ready(), (503, "router builds not yet complete".to_owned()));
    node.reload_through();
    assert_eq!(node.get("/plugins").status, 200);
}
