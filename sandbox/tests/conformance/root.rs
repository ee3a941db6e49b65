//! `GET /`, `/plugins/enabled`, `/status`.

use serde_json::{Value, json};

use crate::node::Node;

#[test]
fn the_root_shows_identity_plugins_processes_and_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    assert_eq!(node.post("/plugins", "{\"name\":\"golden\",\"enabled\":false}").status, 201);
    assert_eq!(node.post("/plugins", "{\"name\":\"correlation-id\"}").status, 201);
    let root = node.get("/").json();
    for (key, value) in [
        ("version", json!("3.9.1")),
        ("edition", json!("community")),
        ("tagline", json!("Welcome to kong")),
        ("lua_version", json!("LuaJIT 2.1-20231117")),
    ] {
        assert_eq!(root[key], value);
    }
    let mut keys: Vec<&String> = root.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "configuration",
            "edition",
            "hostname",
            "lua_version",
            "node_id",
            "pids",
            "plugins",
            "tagline",
            "timers",
            "version"
        ]
    );
    let plugins = &root["plugins"];
    assert_eq!(plugins["enabled_in_cluster"], json!(["correlation-id", "golden"]), "disabled rows count too");
    let available = plugins["available_on_server"].as_object().unwrap();
    assert_eq!(available.len(), 46);
    for (name, priority) in
        [("pre-function", 1_000_000), ("post-function", -1000), ("acl", 950), ("golden", 1000)]
    {
        assert_eq!(available[name]["priority"], priority, "{name}");
    }
    let conf = &root["configuration"];
    for (key, value) in [
        ("database", json!("postgres")),
        ("role", json!("traditional")),
        ("plugins", json!(["bundled", "golden"])),
        ("pg_port", json!(5432)),
        ("pg_database", json!("kong")),
        ("anonymous_reports", json!(false)),
        ("nginx_worker_processes", json!("2")),
        ("log_level", json!("notice")),
        ("router_flavor", json!("traditional_compatible")),
        ("admin_gui_listen", json!(["off"])),
    ] {
        assert_eq!(conf[key], value, "{key}");
    }
    assert_eq!(conf["loaded_plugins"]["golden"], true);
    assert_eq!(conf["admin_listeners"][0]["port"], 8001);
    assert_eq!(conf["prefix"], node.prefix().display().to_string());

    // The id outlives a reload and not a restart.
    let id = root["node_id"].clone();
    node.reload_through();
    assert_eq!(node.get("/").json()["node_id"], id);
    assert_eq!(node.kong("restart -c <CONF>").code, 0);
    node.until("the Admin API answers", || node.get("/status").status == 200);
    assert_ne!(node.get("/").json()["node_id"], id);
}

#[test]
fn status_tells_databases_from_configurations() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    let status = node.get("/status").json();
    assert_eq!((&status["database"], status.get("configuration_hash")), (&json!({"reachable": true}), None));
    for key in ["connections_active", "connections_accepted", "connections_handled", "total_requests"] {
        assert!(status["server"][key].is_u64(), "{key}");
    }
    let dbless = Node::dbless();
    let status = dbless.get("/status").json();
    assert_eq!(status.get("database"), None::<&Value>);
    assert_eq!(status["configuration_hash"].as_str().unwrap().len(), 32);
}

#[test]
fn the_environment_configures_a_node_as_the_file_does() {
    let node = Node::dbless();
    assert_eq!(node.kong("quit -p <PREFIX>").code, 0);
    node.unset("status_listen");
    let listen = format!("{}:9007", node.ip);
    let ran = node.kong_env("start -c <CONF>", &[("KONG_STATUS_LISTEN", &listen), ("KONG_NO_SUCH_KEY", "x")]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(node.kong_env_line("status_listen"), Some(listen));
    assert_eq!(node.kong_env_line("no_such_key"), None);
    node.until("the Status API answers there", || {
        node.http("GET", 9007, "/status/ready", None).status == 200
    });
    // Preparing again without that environment resets the setting to Kong's default.
    assert_eq!(node.kong("prepare -c <CONF> -p <PREFIX>").code, 0);
    assert!(node.kong_env_line("status_listen").unwrap().starts_with("127.0.0.1:8007"));
}
