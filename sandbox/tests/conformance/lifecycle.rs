//! start, health, stop, quit: what is printed, what lies in the prefix, who runs.

use crate::node::{DECLARATIVE, Datastore, Node, error};

#[test]
fn a_node_starts_once_reports_health_and_quits() {
    let node = Node::new(&Datastore::Declarative(DECLARATIVE));
    let ran = node.kong("health -p <PREFIX>");
    assert_eq!((ran.code, ran.err), (1, error("no such prefix: <PREFIX>")));

    let ran = node.kong("start -c <CONF>");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out, "Kong started\nprefix directory <PREFIX> not found, trying to create it\n");
    for file in [
        ".kong_env",
        ".request_debug_token",
        "nginx.conf",
        "nginx-kong.conf",
        "pids/nginx.pid",
        "logs/error.log",
    ] {
        assert!(node.prefix().join(file).exists(), "{file}");
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(node.prefix().join(".kong_env")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    let master = node.master().unwrap();
    let title = std::fs::read_to_string(format!("/proc/{master}/cmdline")).unwrap();
    assert_eq!(
        node.placeholders(title.trim_end_matches('\0')),
        "nginx: master process <OPENRESTY>/nginx/sbin/nginx -p <PREFIX> -c nginx.conf"
    );
    let environment = std::fs::read(format!("/proc/{master}/environ")).unwrap();
    assert!(environment.iter().all(|byte| *byte == 0), "nginx overwrites its environment");
    node.until("both workers have their title", || {
        node.workers().values().filter(|title| *title == "nginx: worker process").count() == 2
    });

    let ran = node.kong("health -p <PREFIX>");
    assert_eq!((ran.code, ran.out.as_str()), (0, "nginx.......running\n\nKong is healthy at <PREFIX>\n"));
    let ran = node.kong("start -c <CONF>");
    assert_eq!((ran.code, ran.err), (1, error("Kong is already running in <PREFIX>")));

    node.until("the node is ready", || node.ready().0 == 200);
    assert_eq!(node.get("/status/ready").json()["message"], "Not found");
    let status = node.get("/status").json();
    assert_eq!(status["configuration_hash"].as_str().unwrap().len(), 32);
    assert_eq!(status["memory"]["workers_lua_vms"].as_array().unwrap().len(), 2);

    let ran = node.kong("quit -p <PREFIX>");
    assert_eq!((ran.code, ran.out.as_str()), (0, "Kong stopped (gracefully)\n"));
    assert_eq!(node.master(), None);
    assert!(node.log().contains("signal 3 (SIGQUIT) received from "));

    let ran = node.kong("health -p <PREFIX>");
    assert_eq!((ran.code, ran.out.as_str()), (1, "nginx.......not running\n"));
    assert_eq!(ran.err, error("Kong is not running at <PREFIX>"));
    for verb in ["stop", "quit", "reload -c <CONF>"] {
        let ran = node.kong(&format!("{verb} -p <PREFIX>"));
        assert_eq!((ran.code, ran.err), (1, error("nginx not running in prefix: <PREFIX>")), "{verb}");
    }
}

#[test]
fn stop_is_fast_and_says_so() {
    let node = Node::dbless();
    let ran = node.kong("stop -p <PREFIX>");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "Kong stopped\n", ""));
    node.until("the master is gone", || node.master().is_none());
    assert!(node.log().contains("signal 15 (SIGTERM) received from "));
}

#[test]
fn a_restart_without_a_file_comes_up_with_kongs_defaults() {
    let node = Node::dbless();
    let ran = node.kong("restart -p <PREFIX>");
    assert_eq!((ran.code, ran.out.as_str()), (1, "Kong stopped\n"));
    assert_eq!(
        ran.err,
        error("[PostgreSQL error] failed to retrieve PostgreSQL server_version_num: connection refused")
    );
    assert_eq!(node.kong_env_line("database").as_deref(), Some("postgres"));
    assert_eq!(node.kong_env_line("plugins").as_deref(), Some("bundled"));
    assert!(node.kong_env_line("proxy_listen").unwrap().starts_with("0.0.0.0:8000 reuseport backlog=16384,"));
}

#[test]
fn bad_settings_are_refused_and_unknown_ones_are_not() {
    let node = Node::new(&Datastore::Declarative(DECLARATIVE));
    node.set("no_such_key", "1");
    let ran = node.kong("check <CONF>");
    assert_eq!((ran.code, ran.out.as_str()), (0, "configuration at <CONF> is valid\n"));
    node.set("log_level", "nonsense");
    let words =
        "log_level has an invalid value: 'nonsense' (debug, info, notice, warn, error, crit, alert, emerg)";
    let ran = node.kong("start -c <CONF>");
    assert_eq!((ran.code, ran.err), (1, error(words)));
    let ran = node.kong("check <CONF>");
    assert!(ran.code == 1 && ran.err.ends_with(&format!(" [error] {words}\n")), "{ran:?}");
    let ran = node.kong("start -c /nowhere/kong.conf");
    assert_eq!((ran.code, ran.err), (1, error("no file at: /nowhere/kong.conf")));
}

#[test]
fn a_taken_port_is_tried_five_times() {
    let node = Node::dbless();
    let other = Node::new(&Datastore::Declarative(DECLARATIVE));
    other.set("proxy_listen", &format!("{}:8000", node.ip));
    let ran = other.kong("start -c <CONF>");
    assert_eq!(ran.code, 1);
    assert_eq!(ran.err.matches("bind() to").count(), 5, "{}", ran.err);
    assert!(ran.err.contains(":8000 failed (98: Address already in use)"), "{}", ran.err);
    assert!(ran.err.contains("nginx: [emerg] still could not bind()\n\n\n  Run with --v"), "{}", ran.err);
}

#[test]
fn at_level_debug_the_log_names_every_plugin_as_it_is_loaded() {
    let node = Node::new(&Datastore::Declarative(DECLARATIVE));
    node.set("log_level", "debug");
    node.start();
    let loading = |log: &str, plugin: &str| {
        log.contains(&format!(" [lua] plugins.lua:300: load_plugin(): Loading plugin: {plugin}\n"))
    };
    let log = node.log();
    assert!(loading(&log, "key-auth") && loading(&log, "golden"), "{log}");
    node.until("the Admin API's routes were looked for", || {
        node.log().contains(" [lua] init.lua:120: No API endpoints loaded for plugin: golden\n")
    });
    let from = node.log().len();
    node.reload_through();
    let log = node.log();
    assert!(loading(&log[from..], "key-auth") && loading(&log[from..], "golden"), "{log}");
    // Who runs Kong sees none of it, however much is asked for.
    let ran = node.kong("reload -c <CONF> -p <PREFIX> --vv");
    assert!(ran.code == 0 && !ran.out.contains("Loading plugin"), "{ran:?}");
}
