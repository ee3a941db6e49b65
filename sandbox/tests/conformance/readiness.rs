//! `/status/ready` through the life of a node without a database.

use crate::node::{DECLARATIVE, Datastore, Node};

const EMPTY: &str = "no configuration available (empty configuration present)";

#[test]
fn only_a_good_reload_brings_readiness_back() {
    let node = Node::dbless();
    assert_eq!(node.ready(), (200, "ready".to_owned()));
    node.reload_through();
    node.set("plugins", "bundled,golden,absent");
    node.reload_refused();
    assert_eq!(
        node.ready(),
        (503, "router builds not yet complete, router ready in 0 of 2 workers".to_owned())
    );
    assert_eq!(node.http("GET", 8007, "/status", None).status, 200);
    node.set("plugins", "bundled,golden");
    node.reload_through();
    let worker = *node.workers().keys().next().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(worker).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    node.until("the worker is back", || node.workers().len() == 2 && !node.workers().contains_key(&worker));
    node.until("nothing has changed", || node.ready().0 == 200);
}

#[test]
fn an_empty_configuration_is_not_ready_until_one_is_posted_and_kept() {
    let node = Node::new(&Datastore::Declarative("_format_version: \"3.0\"\n"));
    node.start();
    assert_eq!(node.ready(), (503, EMPTY.to_owned()));
    assert_eq!(node.kong("quit -p <PREFIX>").code, 0);
    node.unset("declarative_config");
    std::fs::remove_dir_all(node.prefix()).unwrap();
    node.start();
    assert_eq!(node.ready(), (503, EMPTY.to_owned()));
    assert_eq!(node.get("/status").json()["configuration_hash"], "0".repeat(32));
    let posted = node.post("/config", &serde_json::json!({"config": DECLARATIVE}).to_string());
    assert_eq!(posted.status, 201, "{posted:?}");
    assert_eq!(posted.json()["services"].as_object().unwrap().len(), 1);
    node.until("every worker has it", || node.ready().0 == 200);
    assert_eq!(node.proxy("/a").status, 200);
    node.reload_through();
    assert_eq!(node.proxy("/a").status, 200, "kept over a reload");
    assert_eq!(node.kong("restart -c <CONF>").code, 0);
    node.until("kept over a restart", || node.proxy("/a").status == 200);
    let refused = node.post("/config", "{\"config\":\"a: [\"}");
    assert_eq!((refused.status, refused.json()["code"].as_u64()), (400, Some(14)));
}

#[test]
fn files_that_do_not_parse_are_refused_by_the_master() {
    let node = Node::dbless();
    std::fs::write(node.path("config.yml"), "_format_version: \"3.0\"\nservices: [").unwrap();
    let log = node.reload_refused();
    assert!(
        log.contains("init.lua:731: error parsing declarative config file <TMP>/config.yml:\nfailed parsing declarative configuration: "),
        "{log}"
    );
    std::fs::remove_file(node.path("config.yml")).unwrap();
    let log = node.reload_refused();
    assert!(
        log.contains("<TMP>/config.yml:\n<TMP>/config.yml: No such file or directory\nstack traceback:\n"),
        "{log}"
    );
    assert_eq!(node.proxy("/a").status, 200);
}

#[test]
fn settings_that_nginx_refuses_are_seen_by_the_command() {
    let node = Node::dbless();
    let old = node.workers();
    node.set("nginx_proxy_no_such_directive", "1");
    let ran = node.kong("reload -c <CONF> -p <PREFIX>");
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.starts_with(
            "Error: nginx configuration is invalid (exit code 1):\nnginx: [emerg] unknown directive \"no_such_directive\" in <PREFIX>/nginx-kong.conf:"
        ),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("nginx: configuration file <PREFIX>/nginx.conf test failed\n\n\n  Run with --v"),
        "{}",
        ran.err
    );
    assert_eq!((node.workers(), node.ready().0), (old, 200));
    // The line stays in .kong_env, so putting the file right is not enough; preparing afresh is.
    node.unset("nginx_proxy_no_such_directive");
    assert_eq!(node.kong("reload -c <CONF> -p <PREFIX>").code, 1);
    assert_eq!(node.kong("prepare -c <CONF> -p <PREFIX>").code, 0);
    node.reload_through();
}

#[test]
fn listeners_move_with_a_reload_unless_their_address_is_taken() {
    let node = Node::dbless();
    let other = Node::dbless();
    node.set("proxy_listen", &format!("{}:8000", other.ip));
    let from = node.log().len();
    node.reload();
    node.until("nginx gives up binding", || node.log()[from..].contains("still could not bind()"));
    assert_eq!(node.ready().0, 503);
    assert_eq!(node.proxy("/a").status, 200, "the old socket is kept");
    node.set("proxy_listen", &format!("{}:8000", node.ip));
    node.set("admin_listen", &format!("{}:9001", node.ip));
    node.reload();
    node.until("the Admin API moved", || node.http("GET", 9001, "/status", None).status == 200);
    node.until("the old address is closed", || node.get("/status").status == 0);
}
