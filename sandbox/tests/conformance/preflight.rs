//! What a command sees without touching the running node.

use crate::node::{Datastore, GOLDEN_SCHEMA, Node};

#[test]
fn config_parse_reads_the_kong_env_of_a_prefix_that_has_one() {
    let node = Node::dbless();
    std::fs::write(node.path("empty.yml"), "_format_version: \"3.0\"\n").unwrap();
    node.set("plugins", "bundled,absent");
    let empty = format!("{}/empty.yml", node.root.path().display());
    // The running prefix knows nothing of the new list, so its own list is what loads.
    let ran = node.kong(&format!("config parse {empty} -c <CONF>"));
    assert_eq!((ran.code, ran.out.as_str()), (0, "parse successful\n"));
    let scratch = format!("{}/scratch", node.root.path().display());
    let ran = node.kong(&format!("config parse {empty} -c <CONF> -p {scratch}"));
    assert_eq!(ran.code, 1);
    let ran = node.kong(&format!("prepare -c <CONF> -p {scratch}"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(node.kong_env_line("plugins").as_deref(), Some("bundled,golden"));
    assert_eq!(node.ready(), (200, "ready".to_owned()), "the running node is untouched");
}

#[test]
fn config_parse_reports_a_bad_file_by_its_place() {
    let node = Node::new(&Datastore::Declarative(""));
    let scratch = format!("{}/scratch", node.root.path().display());
    for (text, complaint) in [
        (
            "plugins:\n- name: golden\n  config:\n    limit: 99\n",
            "in 'plugins':\n  - in entry 1 of 'plugins':\n    in 'config':\n      in 'limit': value should be between 1 and 10\n",
        ),
        (
            "plugins:\n- name: ondisk\n",
            "in 'plugins':\n  - in entry 1 of 'plugins':\n    in 'name': plugin 'ondisk' not enabled; add it to the 'plugins' \
             configuration property\n",
        ),
        (
            "services:\n- name: s1\n  url: http://127.0.0.1\n  bogus: 1\n",
            "in 'services':\n  - in entry 1 of 'services':\n    in 'bogus': unknown field\n",
        ),
    ] {
        std::fs::write(node.path("bad.yml"), format!("_format_version: \"3.0\"\n{text}")).unwrap();
        let ran =
            node.kong(&format!("config parse {}/bad.yml -c <CONF> -p {scratch}", node.root.path().display()));
        assert_eq!(ran.code, 1);
        assert_eq!(ran.err, crate::node::error(&format!("Failed parsing:\n{}", complaint.trim_end())));
    }
}

#[test]
fn a_scratch_boot_runs_beside_the_node() {
    let node = Node::dbless();
    let boot = Node::new(&Datastore::Declarative("_format_version: \"3.0\"\n"));
    boot.set("proxy_listen", "off");
    boot.set("nginx_worker_processes", "1");
    boot.plugin("noisy", &[
        ("handler", "local H = { PRIORITY = 1, VERSION = \"1.0.0\" }\nfunction H:init_worker() error(\"boom\") end\nreturn H\n"),
        ("schema", GOLDEN_SCHEMA),
    ]);
    boot.set("plugins", "bundled,noisy");
    boot.start();
    assert_eq!(boot.ready(), (503, "no configuration available (empty configuration present)".to_owned()));
    boot.until("the failure is logged", || boot.log().contains("worker initialization error: failed to execute the \"init_worker\" handler for plugin \"noisy\": "));
    assert_eq!(boot.kong("quit -p <PREFIX>").code, 0);
    assert_eq!(node.proxy("/a").status, 200);
}
