//! What a plugin needs of nginx, as a person sees it: told, set only when asked, and taken out again with the plugin.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use kctl_tests::cluster::{Cluster, Ran};
use kctl_tests::{plugins, until};
use serde_json::{Value, json};

const KEY: &str = "nginx_http_lua_shared_dict";
const NEED: &str = "nginx_http_lua_shared_dict = my_cache 10m";
const DECLARED: &str = "[nginx]\nnginx_http_lua_shared_dict = \"my_cache 10m\"\n";

fn install(cluster: &Cluster, path: &Path, more: &[&str]) -> Ran {
    cluster.kctl(&[&["plugin", "install", path.to_str().unwrap(), "--all-nodes"], more].concat())
}

fn conf(node: &Value) -> String {
    fs::read_to_string(node["conf"].as_str().unwrap()).unwrap()
}

fn confs(cluster: &Cluster) -> Vec<String> {
    cluster.nodes().iter().map(conf).collect()
}

/// A plugin with a module beside it, `resty.both`.
fn with_module(root: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let handler =
        "local shared = require \"resty.both\"\nreturn { PRIORITY = 801, VERSION = \"1.0.0\", x = shared }\n";
    let base = plugins::write(root, name, name, Some(handler), Some(plugins::SCHEMA));
    fs::create_dir_all(base.join("resty")).unwrap();
    fs::write(base.join("resty/both.lua"), text).unwrap();
    base
}

/// Lines of the node's file that give nginx dictionaries.
fn lines(node: &Value) -> Vec<String> {
    conf(node).lines().filter(|l| l.starts_with(KEY)).map(str::to_owned).collect()
}

#[test]
fn a_directive_is_set_only_when_asked_and_goes_with_the_plugin() {
    let cluster = Cluster::start(1, 2);
    let root = cluster.temp().to_owned();
    let before = confs(&cluster);
    let needy = plugins::needs_dict(&root, "needy", "1.0.0", "my_cache", Some(DECLARED));

    // Told, not set: Kong's own words say what comes of it, and nothing is left.
    let ran = install(&cluster, &needy, &[]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains(NEED) && ran.err.contains("--set-nginx"), "{ran:?}");
    assert!(format!("{}{}", ran.out, ran.err).contains("my_cache"), "{ran:?}");
    assert_eq!(confs(&cluster), before);

    // Asked for, on one node beside what its owner has.
    let nodes = cluster.nodes();
    let theirs = format!("{}{KEY} = mine 1m\n", before[0]);
    fs::write(nodes[0]["conf"].as_str().unwrap(), &theirs).unwrap();
    let ran = install(&cluster, &needy, &["--set-nginx"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(cluster.loaded_on("needy"), vec![Some("1.0.0".to_owned()); 2]);
    let ours = format!("{KEY} = mine 1m; lua_shared_dict my_cache 10m # added by kctl");
    assert_eq!(lines(&nodes[0]), [format!("{KEY} = mine 1m"), ours]);
    assert_eq!(lines(&nodes[1]), [format!("{NEED} # added by kctl")]);
    let view = cluster.json(&["plugin", "get", "needy"]);
    assert_eq!((&view["nginx"], &view["set_nginx"]), (&json!([NEED]), &json!(true)));
    let shown = cluster.kctl(&["plugin", "get", "needy"]).out;
    assert!(shown.contains(NEED) && shown.contains("set by kctl"), "{shown}");

    // Another plugin that needs the same shares it; one that needs it otherwise changes nothing.
    let also = plugins::needs_dict(&root, "also", "1.0.0", "my_cache", Some(DECLARED));
    assert_eq!(install(&cluster, &also, &["--set-nginx"]).code, 0);
    let with_both = confs(&cluster);
    let clash = DECLARED.replace("10m", "20m");
    let clash = plugins::needs_dict(&root, "clash", "1.0.0", "my_cache", Some(&clash));
    let ran = install(&cluster, &clash, &["--set-nginx"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(format!("{}{}", ran.out, ran.err).contains("NGINX_CONFLICT"), "{ran:?}");
    assert_eq!(confs(&cluster), with_both);

    // A line that somebody takes out is put in again, as the directive is.
    let whole = conf(&nodes[1]);
    let without: String = whole.lines().filter(|l| !l.starts_with(KEY)).map(|l| format!("{l}\n")).collect();
    fs::write(nodes[1]["conf"].as_str().unwrap(), without).unwrap();
    until("the agent to make kong.conf good", 30, || (conf(&nodes[1]).contains(NEED)).then_some(()));

    // An upgrade goes on as it was told once.
    let newer = plugins::needs_dict(&root, "needy", "1.1.0", "my_cache", Some(DECLARED));
    assert_eq!(install(&cluster, &newer, &[]).code, 0);
    assert_eq!(cluster.loaded_on("needy"), vec![Some("1.1.0".to_owned()); 2]);

    // An upgrade that does not start is put back with what it needed.
    let more = format!("{DECLARED}nginx_http_etag = \"off\"\n");
    let broken = plugins::broken_init_worker(&root, "needy", "1.2.0");
    fs::write(broken.join("kong/plugins/needy/kctl.toml"), more).unwrap();
    let ran = install(&cluster, &broken, &["--no-lint"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(confs(&cluster).iter().all(|c| !c.contains("nginx_http_etag")));
    assert_eq!(cluster.loaded_on("needy"), vec![Some("1.1.0".to_owned()); 2]);

    // The last one that needs it takes it out; the owner's line was never touched.
    assert_eq!(cluster.remove("also").code, 0);
    assert_eq!(lines(&nodes[1]), [format!("{NEED} # added by kctl")]);
    assert_eq!(cluster.remove("needy").code, 0);
    assert_eq!(conf(&nodes[0]), theirs);
    assert_eq!(conf(&nodes[1]), before[1]);
}

#[test]
fn what_the_owner_sets_is_left_alone_and_stays() {
    let cluster = Cluster::start(1, 1);
    let root = cluster.temp().to_owned();
    let node = cluster.nodes().remove(0);
    let path = node["conf"].as_str().unwrap().to_owned();
    let theirs = format!("{}{NEED}\n", conf(&node));
    fs::write(&path, &theirs).unwrap();
    let needy = plugins::needs_dict(&root, "needy", "1.0.0", "my_cache", Some(DECLARED));
    // A dictionary of the owner's is enough without being asked.
    let ran = install(&cluster, &needy, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(cluster.loaded_on("needy"), vec![Some("1.0.0".to_owned())]);
    let ran = install(&cluster, &needy, &["--set-nginx"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(lines(&node), [NEED]);
    let again = install(&cluster, &needy, &["--set-nginx"]);
    assert!(again.out.contains("nothing to do"), "{again:?}");
    assert_eq!(cluster.remove("needy").code, 0);
    assert_eq!(conf(&node), theirs);

    // A value that contradicts is the owner's to change.
    let other = theirs.replace("my_cache 10m", "my_cache 5m");
    fs::write(&path, &other).unwrap();
    let ran = install(&cluster, &needy, &["--set-nginx"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(format!("{}{}", ran.out, ran.err).contains("NGINX_CONFLICT"), "{ran:?}");
    assert_eq!(conf(&node), other);
}

#[test]
fn modules_that_clash_are_found_before_anything_is_uploaded() {
    let cluster = Cluster::start(1, 1);
    let root = cluster.temp().to_owned();
    assert_eq!(install(&cluster, &with_module(&root, "first", "return 1"), &[]).code, 0);
    let second = with_module(&root, "second", "return 2");
    let lint = |more: &[&str]| cluster.kctl(&[&["plugin", "lint", second.to_str().unwrap()], more].concat());
    assert!(!lint(&[]).out.contains("MODULE_CLASH"));
    let ran = lint(&["--against-cluster"]);
    assert!(ran.code == 0 && ran.out.contains("MODULE_CLASH") && ran.out.contains("first 1.0.0"), "{ran:?}");
    let ran = install(&cluster, &second, &[]);
    assert!(ran.code == 6 && ran.err.contains("MODULE_CONFLICT") && !ran.err.contains("uploaded"), "{ran:?}");
}
