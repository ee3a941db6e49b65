//! Which commands rewrite the prefix of a running node, and with what.

use std::collections::BTreeMap;

use crate::node::Node;

fn files(node: &Node) -> BTreeMap<&'static str, String> {
    [".kong_env", "nginx.conf", "nginx-kong.conf", "nginx-inject.conf"]
        .into_iter()
        .map(|name| (name, std::fs::read_to_string(node.prefix().join(name)).unwrap()))
        .collect()
}

#[test]
fn only_prepare_and_reload_rewrite_a_running_prefix() {
    let node = Node::dbless();
    let before = files(&node);
    node.set("plugins", "bundled,golden,absent");
    let parse = format!("config parse {}/config.yml -c <CONF> -p <PREFIX>", node.root.path().display());
    for line in ["check <CONF>", parse.as_str(), "health -p <PREFIX>", "migrations list -c <CONF>"] {
        let ran = node.kong(line);
        assert_eq!((ran.code, files(&node) == before), (0, true), "{line}: {ran:?}");
    }
    assert_eq!(node.kong("prepare -c <CONF> -p <PREFIX>").code, 0);
    assert_eq!(node.kong_env_line("plugins").as_deref(), Some("bundled,golden,absent"));
    let armed = files(&node);
    assert_eq!(node.kong("start -c <CONF>").code, 1);
    assert_eq!(files(&node), armed, "a second start changes nothing");
    node.reload_refused();
    assert_eq!(
        node.kong_env_line("plugins").as_deref(),
        Some("bundled,golden,absent"),
        "though it was refused"
    );

    // Any HUP now runs into the armed list.
    let from = node.log().len();
    let master = rustix::process::Pid::from_raw(node.master().unwrap()).unwrap();
    rustix::process::kill_process(master, rustix::process::Signal::HUP).unwrap();
    node.until("the HUP is refused", || {
        node.log()[from..].contains("absent plugin is enabled but not installed")
    });
}

#[test]
fn a_hup_loads_new_code_but_no_new_settings() {
    let node = Node::dbless();
    node.plugin(
        "golden",
        &[
            ("handler", "return { PRIORITY = 1000, VERSION = \"2.0.0\" }\n"),
            ("schema", crate::node::GOLDEN_SCHEMA),
        ],
    );
    node.set("plugins", "bundled");
    let old = node.workers();
    let master = rustix::process::Pid::from_raw(node.master().unwrap()).unwrap();
    rustix::process::kill_process(master, rustix::process::Signal::HUP).unwrap();
    node.until("new workers are there", || {
        node.workers().len() == 2 && node.workers().keys().all(|pid| !old.contains_key(pid))
    });
    let available = node.get("/").json()["plugins"]["available_on_server"]["golden"].clone();
    assert_eq!(available["version"], "2.0.0");
}

#[test]
fn a_key_deleted_from_the_file_survives_a_reload_but_not_a_prepare() {
    for database in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let node = if database { Node::database(directory.path()) } else { Node::dbless() };
        node.unset("plugins");
        node.reload_through();
        assert!(node.enabled("golden"));
        assert_eq!(node.kong_env_line("plugins").as_deref(), Some("bundled,golden"));

        let old = node.workers();
        let ran = node.kong_env("reload -c <CONF> -p <PREFIX>", &[("KONG_PLUGINS", "bundled")]);
        assert_eq!(ran.code, 0, "the environment of the command wins");
        node.until("it was reloaded", || node.workers().keys().all(|pid| !old.contains_key(pid)));
        assert!(!node.enabled("golden"));
        assert_eq!(node.kong_env_line("plugins").as_deref(), Some("bundled"));

        // What came from the environment once stays in force without it.
        let ran = node.kong_env("restart -c <CONF>", &[("KONG_PLUGINS", "bundled,golden")]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "Kong stopped\nKong started\n"));
        node.until("the Admin API answers", || node.get("/status").status == 200);
        node.reload_through();
        assert!(node.enabled("golden"));
        assert_eq!(node.kong("prepare -c <CONF> -p <PREFIX>").code, 0);
        assert_eq!(node.kong_env_line("plugins").as_deref(), Some("bundled"), "prepare starts from scratch");
    }
}

#[test]
fn lua_path_of_the_command_leaks_into_the_rendered_path() {
    let node = Node::dbless();
    let ran = node.kong_env("prepare -c <CONF> -p <PREFIX>", &[("LUA_PATH", "/leaked/?.lua")]);
    assert_eq!(ran.code, 0);
    let conf = node.placeholders(&std::fs::read_to_string(node.prefix().join("nginx-kong.conf")).unwrap());
    assert!(conf.contains("lua_package_path       '<LUA_PATH>/?.lua;;;/leaked/?.lua;;';"), "{conf}");
}

#[test]
fn hashes_are_escaped_and_values_survive_the_round_trip() {
    let node = Node::dbless();
    node.set("pg_password", "a\\#b");
    assert_eq!(node.kong("prepare -c <CONF> -p <PREFIX>").code, 0);
    assert_eq!(node.kong_env_line("pg_password").as_deref(), Some("a\\#b"));
    node.reload_through();
    assert_eq!(node.get("/").json()["configuration"]["pg_password"], "******");
}
