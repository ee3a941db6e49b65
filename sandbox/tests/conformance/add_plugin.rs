//! A good plugin is enabled by a reload, upgraded in place, and outlives its files until the next init.

use crate::node::{GOLDEN_HANDLER, GOLDEN_SCHEMA, Node};

const NOT_ENABLED: &str = "plugin 'golden' not enabled; add it to the 'plugins' configuration property";

#[test]
fn a_reload_enables_a_plugin_that_was_refused_before() {
    for database in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let node = if database { Node::database(directory.path()) } else { Node::dbless() };
        node.set("plugins", "bundled");
        node.reload_through();
        assert_eq!(node.get("/schemas/plugins/golden").status, 404);
        if database {
            let refused = node.post("/plugins", "{\"name\":\"golden\"}");
            assert_eq!(refused.status, 400);
            assert_eq!(refused.json()["message"], format!("schema violation (name: {NOT_ENABLED})"));
        } else {
            let refused = node.post(
                "/config",
                "{\"config\":\"_format_version: \\\"3.0\\\"\\nplugins:\\n- name: golden\\n\"}",
            );
            assert_eq!((refused.status, refused.json()["code"].as_u64()), (400, Some(14)));
            assert_eq!(
                refused.json()["message"],
                format!("declarative config is invalid: {{plugins={{{{name=\"{NOT_ENABLED}\"}}}}}}")
            );
        }
        let master = node.master();
        node.set("plugins", "bundled,golden");
        node.reload_through();
        assert_eq!(node.master(), master);
        let log = node.log();
        for line in ["gracefully shutting down", "exited with code 0", "token for request debugging: "] {
            assert!(log.contains(line), "{line}");
        }
        let root = node.get("/").json();
        let workers: Vec<i64> = node.workers().into_keys().map(i64::from).collect();
        let mut shown: Vec<i64> =
            root["pids"]["workers"].as_array().unwrap().iter().filter_map(|p| p.as_i64()).collect();
        shown.sort_unstable();
        assert_eq!(shown, workers);
        assert_eq!(
            root["plugins"]["available_on_server"]["golden"],
            serde_json::json!({"version": "1.0.0", "priority": 1000})
        );
        assert_eq!(
            root["plugins"]["available_on_server"]["key-auth"],
            serde_json::json!({"version": "3.9.1", "priority": 1250})
        );
        assert_eq!(root["configuration"]["plugins"], serde_json::json!(["bundled", "golden"]));
        assert_eq!(node.get("/plugins/enabled").json()["enabled_plugins"].as_array().unwrap().len(), 46);
        if database {
            assert_eq!(
                node.post("/plugins", "{\"name\":\"golden\",\"config\":{\"value\":\"one\"}}").status,
                201
            );
        } else {
            let config = "{\"config\":\"_format_version: \\\"3.0\\\"\\nservices:\\n- name: s1\\n  url: http://standin-delay\\n  routes:\\n  \
                          - name: r1\\n    paths: [/a]\\nplugins:\\n- name: golden\\n  config: { value: one }\\n\"}";
            let taken = node.post("/config", config);
            assert_eq!(taken.status, 201, "{taken:?}");
            assert_eq!(taken.json()["plugins"].as_object().unwrap().len(), 1);
        }
        node.until("the plugin acts", || node.golden().as_deref() == Some("golden 1.0.0 one"));
        assert_eq!(node.get("/").json()["plugins"]["enabled_in_cluster"], serde_json::json!(["golden"]));
    }
}

#[test]
fn new_code_comes_with_a_reload_and_not_with_a_new_worker() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    node.apply("{\"name\":\"golden\"}");
    assert_eq!(node.golden().as_deref(), Some("golden 1.0.0 hi"));
    node.plugin(
        "golden",
        &[("handler", &GOLDEN_HANDLER.replace("1.0.0", "2.0.0")), ("schema", GOLDEN_SCHEMA)],
    );
    let old = node.workers();
    for pid in old.keys() {
        let pid = rustix::process::Pid::from_raw(*pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    node.until("the workers were forked again", || {
        node.workers().len() == 2 && node.workers().keys().all(|pid| !old.contains_key(pid))
    });
    assert!(node.log().contains("exited on signal 9"));
    node.until("they serve", || node.proxy("/a").status == 200);
    assert_eq!(node.golden().as_deref(), Some("golden 1.0.0 hi"), "forks of the master's memory");
    node.reload_through();
    assert_eq!(node.golden().as_deref(), Some("golden 2.0.0 hi"));
    let available = node.get("/").json()["plugins"]["available_on_server"]["golden"].clone();
    assert_eq!(available["version"], "2.0.0");
}

#[test]
fn deleted_files_are_missed_at_the_next_init_only() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    node.apply("{\"name\":\"golden\"}");
    std::fs::remove_dir_all(node.lua().join("kong/plugins/golden")).unwrap();
    assert!(node.golden().is_some());
    let log = node.reload_refused();
    assert!(log.contains("golden plugin is enabled but not installed;"), "{log}");
    assert!(node.golden().is_some());
}

#[test]
fn the_first_entry_of_the_path_wins_over_bundled_plugins_too() {
    let node = Node::dbless();
    node.plugin(
        "key-auth",
        &[("handler", "return { PRIORITY = 1000, VERSION = \"9.9.9\" }\n"), ("schema", GOLDEN_SCHEMA)],
    );
    node.reload_through();
    let available = node.get("/").json()["plugins"]["available_on_server"]["key-auth"].clone();
    assert_eq!(available, serde_json::json!({"priority": 1000, "version": "9.9.9"}));
}
