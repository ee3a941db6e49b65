//! A plugin row without its plugin: a reload is refused, a restart leaves the node down.

use crate::node::{DECLARATIVE, Datastore, Node};

#[test]
fn a_plugin_in_use_cannot_be_dropped_on_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    // Disabled rows count too.
    assert_eq!(node.post("/plugins", "{\"name\":\"golden\",\"enabled\":false}").status, 201);
    node.set("plugins", "bundled");
    assert_eq!(node.kong("check <CONF>").code, 0);
    assert_eq!(node.kong("prepare -c <CONF> -p <PREFIX>").code, 0);
    let words = "init_by_lua error: <KONG_LUA>/kong/init.lua:743: error building initial plugins: golden plugin is in use \
                 but not enabled\nstack traceback:\n\t[C]: in function 'error'\n\t<KONG_LUA>/kong/init.lua:743: in function \
                 'init'\n\tinit_by_lua(nginx-kong.conf:44):3: in main chunk\n";
    let log = node.reload_refused();
    assert!(log.contains(words), "{log}");
    assert!(node.enabled("golden"));
    assert_eq!(node.kong("health -p <PREFIX>").code, 0);
    assert_eq!(node.get("/").json()["plugins"]["enabled_in_cluster"], serde_json::json!(["golden"]));
    let ran = node.kong("restart -c <CONF>");
    assert_eq!((ran.code, ran.out.as_str()), (1, "Kong stopped\n"));
    assert!(ran.err.contains(words), "{}", ran.err);
    let ran = node.kong("start -c <CONF>");
    assert!(ran.code == 1 && ran.err.contains(words));
    assert_eq!(node.master(), None);
}

#[test]
fn a_plugin_in_a_declarative_file_cannot_be_dropped() {
    let text = format!("{DECLARATIVE}plugins:\n- name: golden\n  config:\n    value: one\n    limit: 5\n");
    let node = Node::new(&Datastore::Declarative(&text));
    node.start();
    assert_eq!(node.golden().as_deref(), Some("golden 1.0.0 one"));
    node.set("plugins", "bundled");
    let words = "init_by_lua error: <KONG_LUA>/kong/init.lua:731: error parsing declarative config file <TMP>/config.yml:\n\
                 in 'plugins':\n  - in entry 1 of 'plugins':\n    in 'name': plugin 'golden' not enabled; add it to the \
                 'plugins' configuration property\nstack traceback:\n\t[C]: in function 'error'\n";
    let log = node.reload_refused();
    assert!(log.contains(words), "{log}");
    assert_eq!(node.golden().as_deref(), Some("golden 1.0.0 one"));
    let ran = node.kong("restart -c <CONF>");
    assert!(ran.code == 1 && ran.err.contains(words), "{ran:?}");
}

#[test]
fn a_kept_configuration_that_uses_a_dropped_plugin_breaks_the_workers() {
    let node = Node::dbless();
    let config = "{\"config\":\"_format_version: \\\"3.0\\\"\\nplugins:\\n- name: golden\\n\"}";
    assert_eq!(node.post("/config", config).status, 201);
    node.unset("declarative_config");
    node.set("plugins", "bundled");
    let ran = node.kong("restart -c <CONF>");
    assert_eq!(ran.code, 0, "the mistake only shows in the workers: {ran:?}");
    node.until("the workers complain", || {
        node.log().contains(
            "worker initialization error: failed to initialize declarative config: error building initial plugins \
             iterator: golden plugin is in use but not enabled; this node must be restarted",
        )
    });
}
