//! Install methods, as a person sees them: each places and undoes in its own way, all on the same nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kctl_tests::cluster::{Cluster, Ran, signal};
use kctl_tests::plugins;
use kctl_tests::until;
use serde_json::Value;

fn install(cluster: &Cluster, path: &Path, method: &[&str]) -> Ran {
    cluster.kctl(&[&["plugin", "install", path.to_str().unwrap(), "--all-nodes"], method].concat())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn words(ran: &Ran) -> String {
    format!("{}{}", ran.out, ran.err)
}

fn luarocks(tree: &Path, args: &[&str]) -> String {
    let mut command = Command::new("luarocks");
    command.args(["--lua-version=5.1", "--tree"]).arg(tree).args(args);
    let ran = command.output().expect("luarocks is installed (tests/run does it)");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// Where the plugin's files are that a node's Kong loads.
fn loaded_from(cluster: &Cluster, node: &Value, plugin: &str) -> PathBuf {
    let conf = fs::read_to_string(node["conf"].as_str().unwrap()).unwrap();
    let line = conf.lines().rev().find(|l| l.starts_with("lua_package_path")).unwrap();
    let entry = line.split_once('=').unwrap().1.trim().split(';').next().unwrap();
    let found = entry.replace('?', &format!("kong/plugins/{plugin}/handler"));
    let _alive = cluster;
    fs::canonicalize(found).unwrap().parent().unwrap().to_path_buf()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn all_methods_live_on_the_same_nodes_and_each_is_undone_in_its_own_way() {
    let cluster = Cluster::start(1, 2);
    let root = cluster.temp().to_owned();
    let tree = root.join("tree");
    let by_hand = root.join("by-hand");
    copy(&plugins::good(&root, "manual", "1.0.0"), &by_hand);
    let methods: [(&str, Vec<&str>); 4] = [
        ("native", vec![]),
        ("rocky", vec!["--method", "luarocks"]),
        ("shared", vec!["--tree", text(&tree), "--make"]),
        ("manual", vec!["--method", "path", "--path", text(&by_hand)]),
    ];
    for (name, method) in &methods {
        let ran = install(&cluster, &plugins::good(&root, name, "1.0.0"), method);
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
        assert_eq!(cluster.loaded_on(name), vec![Some("1.0.0".to_owned()); 2], "{name}");
    }
    // Remembered, and shown.
    for (name, method, place) in [
        ("native", "store", ""),
        ("rocky", "luarocks", ""),
        ("shared", "luarocks", text(&tree)),
        ("manual", "path", text(&by_hand)),
    ] {
        let view = cluster.json(&["plugin", "get", name]);
        assert_eq!((view["method"].as_str(), view["place"].as_str()), (Some(method), Some(place)), "{name}");
        for node in cluster.nodes() {
            let view = cluster.json(&["node", "get", node["id"].as_str().unwrap()]);
            let plugin = view["plugins"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap();
            assert_eq!(
                (plugin["method"].as_str(), plugin["place"].as_str()),
                (Some(method), Some(place)),
                "{name}"
            );
        }
    }
    let canonical = |path: &Path| fs::canonicalize(path).unwrap();
    for node in cluster.nodes() {
        let own = canonical(Path::new(node["lua_dir"].as_str().unwrap()));
        assert!(loaded_from(&cluster, &node, "native").starts_with(own.join("store")));
        let rocky = loaded_from(&cluster, &node, "rocky");
        assert!(
            rocky.starts_with(own.join("luarocks")) && rocky.ends_with("share/lua/5.1/kong/plugins/rocky")
        );
        assert!(loaded_from(&cluster, &node, "shared").starts_with(canonical(&tree)));
        assert!(loaded_from(&cluster, &node, "manual").starts_with(canonical(&by_hand)));
    }
    assert!(luarocks(&tree, &["list", "--porcelain"]).contains("kong-plugin-shared\t1.0.0-1"));

    // An upgrade goes the same way without being told again.
    for name in ["rocky", "shared"] {
        let ran = cluster.install(&plugins::good(&root, name, "1.1.0"));
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
        assert_eq!(cluster.loaded_on(name), vec![Some("1.1.0".to_owned()); 2], "{name}");
        assert_eq!(cluster.json(&["plugin", "get", name])["method"], "luarocks");
    }
    let listed = luarocks(&tree, &["list", "--porcelain"]);
    assert!(listed.contains("\t1.1.0-1") && !listed.contains("\t1.0.0-1"), "{listed}");

    // A release can be placed in another way; nothing is left of the former one.
    let ran = install(&cluster, &plugins::good(&root, "rocky", "1.1.0"), &["--method", "store"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for node in cluster.nodes() {
        let former = Path::new(node["lua_dir"].as_str().unwrap()).join("luarocks/rocky");
        until("the former placement to go with its last workers", 60, || (!former.exists()).then_some(()));
    }
    let again = install(&cluster, &plugins::good(&root, "rocky", "1.1.0"), &["--method", "store"]);
    assert!(again.out.contains("nothing to do"), "{again:?}");

    for (name, _) in &methods {
        let ran = cluster.remove(name);
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
        assert_eq!(cluster.loaded_on(name), vec![None; 2], "{name}");
        assert!(cluster.nodes().iter().all(|n| cluster.files(n, name).is_empty()), "{name}");
    }
    assert_eq!(luarocks(&tree, &["list", "--porcelain"]), "");
    assert!(!tree.join("share/lua/5.1/kong").exists());
    assert!(by_hand.join("kong/plugins/manual/handler.lua").exists(), "what was put there by hand stays");
    let last = cluster.newest_operation();
    let purge = last["steps"].as_array().unwrap().iter().find(|s| s["name"] == "purge").unwrap().clone();
    assert!(purge["summary"].as_str().unwrap().contains("left in place"), "{purge}");
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_changes() {
    let cluster = Cluster::start(1, 1);
    let root = cluster.temp().to_owned();
    let plugin = plugins::good(&root, "fresh", "1.0.0");
    let tree = root.join("tree");
    let copied = tree.join("share/lua/5.1/kong/plugins/fresh");
    fs::create_dir_all(&copied).unwrap();
    fs::write(copied.join("handler.lua"), "return {}").unwrap();
    let other = root.join("other");
    copy(&plugins::good(&root, "fresh", "2.0.0"), &other);
    let node = cluster.nodes()[0].clone();
    let before = cluster.footprint(&node);
    for (method, code, exit) in [
        (vec!["--tree", text(&tree)], "MODULE_OWNED_BY", 3),
        (vec!["--method", "path", "--path", text(&other)], "PATH_DIFFERS", 3),
        (vec!["--method", "path"], "PATH_NOT_FOUND", 3),
        (vec!["--method", "luarocks", "--tree", "relative"], "METHOD_INVALID", 64),
        (vec!["--method", "store", "--tree", text(&tree)], "METHOD_INVALID", 64),
        (vec!["--method", "path", "--make"], "METHOD_INVALID", 64),
    ] {
        let ran = install(&cluster, &plugin, &method);
        assert_eq!(ran.code, exit, "{method:?}: {ran:?}");
        assert!(words(&ran).contains(code), "{method:?}: {ran:?}");
        assert_eq!(cluster.footprint(&node), before, "{method:?}");
        assert!(cluster.files(&node, "fresh").is_empty(), "{method:?}");
    }
    assert_eq!(fs::read_to_string(copied.join("handler.lua")).unwrap(), "return {}");
    assert_eq!(fs::read_dir(&copied).unwrap().count(), 1);
}

#[test]
fn a_shared_tree_gets_its_former_release_back() {
    let cluster = Cluster::start(1, 1);
    let root = cluster.temp().to_owned();
    let tree = root.join("tree");
    let handler = tree.join("share/lua/5.1/kong/plugins/late/handler.lua");
    assert_eq!(install(&cluster, &plugins::good(&root, "late", "1.0.0"), &["--tree", text(&tree)]).code, 0);
    let before = fs::read_to_string(&handler).unwrap();
    let ran = cluster.install(&plugins::broken_init_worker(&root, "late", "2.0.0"));
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(words(&ran).contains("init_worker went wrong"), "{ran:?}");
    assert_eq!(fs::read_to_string(&handler).unwrap(), before);
    assert_eq!(cluster.loaded_on("late"), vec![Some("1.0.0".to_owned())]);
    let listed = luarocks(&tree, &["list", "--porcelain"]);
    assert!(listed.contains("\t1.0.0-1") && !listed.contains("\t2.0.0-1"), "{listed}");
    assert_eq!(cluster.remove("late").code, 0);
    assert!(!handler.exists());
}

#[test]
fn a_killed_agent_finishes_what_luarocks_began() {
    let cluster = Cluster::start(1, 1);
    let root = cluster.temp().to_owned();
    let tree = root.join("tree");
    let dir = tree.join("share/lua/5.1/kong/plugins/tough");
    let go = |args: &[&str], killed_when: &dyn Fn() -> bool| {
        let ran = cluster.kctl(&[args, &["--all-nodes", "--yes", "--detach"]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        until("the moment to kill", 60, || killed_when().then_some(()));
        signal(&cluster.nodes()[0]["agent_pid"], "KILL");
        let view = cluster.wait_ended(ran.out.trim(), 120);
        assert_eq!(view["phase"], "Succeeded", "{args:?}: {view:#}");
    };
    let claim = tree.join("lib/luarocks/kctl/tough.json");
    let first = plugins::good(&root, "tough", "1.0.0");
    // Right after the claim, before or while LuaRocks writes.
    go(&["plugin", "install", text(&first), "--tree", text(&tree)], &|| claim.exists());
    assert_eq!(cluster.loaded_on("tough"), vec![Some("1.0.0".to_owned())]);
    let second = plugins::good(&root, "tough", "2.0.0");
    let claimed = |version: &str| fs::read_to_string(&claim).is_ok_and(|c| c.contains(version));
    go(&["plugin", "install", text(&second)], &|| claimed("2.0.0"));
    assert_eq!(cluster.loaded_on("tough"), vec![Some("2.0.0".to_owned())]);
    assert!(fs::read_to_string(dir.join("handler.lua")).unwrap().contains("2.0.0"));
    go(&["plugin", "remove", "tough"], &|| !cluster.directive(&cluster.nodes()[0]).contains("tough"));
    assert!(!dir.exists() && !claim.exists());
    assert_eq!(luarocks(&tree, &["list", "--porcelain"]), "");
}

#[test]
fn files_that_another_plugin_still_loads_stay_until_it_is_gone() {
    let cluster = Cluster::start(1, 1);
    let root = cluster.temp().to_owned();
    let tree = root.join("tree");
    let node = cluster.nodes()[0].clone();
    let at = |key: &str| node[key].as_str().unwrap().to_owned();
    // The tree is on the node's Lua path, as /usr/local is on every one.
    let conf = fs::read_to_string(at("conf")).unwrap();
    fs::write(at("conf"), format!("{conf}\nlua_package_path = {}/share/lua/5.1/?.lua;;\n", tree.display()))
        .unwrap();
    for args in [vec!["prepare", "-c", &at("conf"), "-p", &at("prefix")], vec!["reload", "-p", &at("prefix")]]
    {
        let done = Command::new(at("kong")).args(&args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    assert_eq!(install(&cluster, &plugins::good(&root, "alpha", "1.0.0"), &["--tree", text(&tree)]).code, 0);
    let beta = plugins::good(&root, "beta", "1.0.0");
    let handler = beta.join("kong/plugins/beta/handler.lua");
    let source = fs::read_to_string(&handler).unwrap();
    fs::write(&handler, format!("local alpha = require \"kong.plugins.alpha.schema\"\n{source}")).unwrap();
    let ran = cluster.install(&beta);
    assert_eq!(ran.code, 0, "{ran:?}");

    let ran = cluster.kctl(&["plugin", "remove", "alpha", "--all-nodes", "--yes", "--detach"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let id = ran.out.trim().to_owned();
    until("the removal to say what it waits for", 60, || {
        let view = cluster.operation(&id);
        (view["waiting_on"][0]["reason"] == "STILL_REQUIRED").then_some(())
    });
    assert!(tree.join("share/lua/5.1/kong/plugins/alpha/schema.lua").exists());
    assert_eq!(cluster.remove("beta").code, 0);
    assert_eq!(cluster.wait_ended(&id, 60)["phase"], "Succeeded");
    assert!(!tree.join("share/lua/5.1/kong").exists());
}

/// A directory with a rockspec that lists one module.
fn dependency(root: &Path, dir: &str, content: &str) -> PathBuf {
    let dir = root.join(dir);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("foo.lua"), content).unwrap();
    let spec = "package = \"lua-resty-foo\"\nversion = \"1.0-1\"\nsource = { url = \"file://x\" }\n\
                build = { type = \"builtin\", modules = { [\"resty.foo\"] = \"foo.lua\" } }\n";
    fs::write(dir.join("lua-resty-foo-1.0-1.rockspec"), spec).unwrap();
    dir
}

/// A good plugin whose handler needs that module.
fn dependent(root: &Path, name: &str, version: &str) -> PathBuf {
    let plugin = plugins::good(root, name, version);
    let handler = plugin.join("kong/plugins").join(name).join("handler.lua");
    let source = fs::read_to_string(&handler).unwrap();
    fs::write(&handler, format!("local foo = require \"resty.foo\"\n{source}")).unwrap();
    plugin
}

#[test]
fn dependencies_travel_with_their_plugin_and_go_with_it() {
    let cluster = Cluster::start(1, 1);
    let root = cluster.temp().to_owned();
    let tree = root.join("tree");
    let node = cluster.nodes()[0].clone();
    let (one, two) = (dependency(&root, "one", "return 1"), dependency(&root, "two", "return 2"));
    // Without it Kong does not load the plugin.
    let ran = cluster.install(&dependent(&root, "alpha", "1.0.0"));
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(words(&ran).contains("resty.foo"), "{ran:?}");

    for (name, method) in
        [("alpha", vec![]), ("beta", vec!["--method", "luarocks"]), ("gamma", vec!["--tree", text(&tree)])]
    {
        let plugin = dependent(&root, name, "1.0.0");
        let ran = install(&cluster, &plugin, &[&[text(&one)], &method[..]].concat());
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
        assert_eq!(cluster.loaded_on(name), vec![Some("1.0.0".to_owned())], "{name}");
        assert_eq!(cluster.json(&["plugin", "get", name])["modules"][0]["path"], "resty/foo.lua");
    }
    assert_eq!(fs::read_to_string(tree.join("share/lua/5.1/resty/foo.lua")).unwrap(), "return 1");

    // The same module with another content would be seen by the others too.
    let before = cluster.footprint(&node);
    let ran = install(&cluster, &dependent(&root, "delta", "1.0.0"), &[text(&two)]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(words(&ran).contains("MODULE_CONFLICT"), "{ran:?}");
    assert_eq!(cluster.footprint(&node), before);

    for name in ["alpha", "beta"] {
        assert_eq!(cluster.remove(name).code, 0, "{name}");
    }
    // Now there is only one that brings it, and it may bring another one.
    let ran = install(&cluster, &dependent(&root, "gamma", "2.0.0"), &[text(&two)]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fs::read_to_string(tree.join("share/lua/5.1/resty/foo.lua")).unwrap(), "return 2");
    assert_eq!(cluster.remove("gamma").code, 0);
    assert!(!tree.join("share/lua/5.1/resty").exists() && !tree.join("share/lua/5.1/kong").exists());
    let left = fs::read_dir(Path::new(node["lua_dir"].as_str().unwrap()).join("store")).unwrap().count();
    assert_eq!(left, 0);
}
