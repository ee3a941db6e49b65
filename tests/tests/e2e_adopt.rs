//! Plugins that somebody put on nodes by hand: seen, taken over without a change, upgraded and taken out like any other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kctl_tests::cluster::Cluster;
use kctl_tests::{plugins, until};
use serde_json::Value;

/// Files in a directory of the node's own, two lines in its kong.conf, prepare, reload.
fn by_hand(cluster: &Cluster, node: &Value, sources: &Path, name: &str) -> PathBuf {
    let lua = cluster.temp().join(format!("hand-{}", node["id"].as_str().unwrap()));
    let place = lua.join("kong/plugins").join(name);
    fs::create_dir_all(&place).unwrap();
    for file in ["handler.lua", "schema.lua"] {
        fs::copy(sources.join("kong/plugins").join(name).join(file), place.join(file)).unwrap();
    }
    let conf = node["conf"].as_str().unwrap();
    let text = fs::read_to_string(conf).unwrap();
    let path = format!("lua_package_path = {}/?.lua;./?.lua;./?/init.lua;", lua.display());
    fs::write(conf, format!("{text}\nplugins = bundled,{name}\n{path}\n")).unwrap();
    let (kong, prefix) = (node["kong"].as_str().unwrap(), node["prefix"].as_str().unwrap());
    for args in [vec!["prepare", "-c", conf, "-p", prefix], vec!["reload", "-p", prefix]] {
        let ended = Command::new(kong).args(&args).output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
    }
    until("the plugin of this node", 30, || cluster.loaded(node, name));
    place
}

fn pair(cluster: &Cluster, name: &str, version: &str) -> Vec<PathBuf> {
    let sources = plugins::good(cluster.temp(), name, version);
    cluster.nodes().iter().map(|node| by_hand(cluster, node, &sources, name)).collect()
}

fn found(cluster: &Cluster, node: &str) -> Value {
    cluster.json(&["node", "get", node])["found"].clone()
}

#[test]
fn what_was_put_there_by_hand_is_taken_over_as_it_is() {
    let cluster = Cluster::start(1, 2);
    let places = pair(&cluster, "handmade", "1.0.0");
    let id = |n: usize| cluster.nodes()[n]["id"].as_str().unwrap().to_owned();
    let seen = until("both nodes to tell of it", 30, || {
        let all = [found(&cluster, &id(0)), found(&cluster, &id(1))];
        all.iter().all(|f| f[0]["name"] == "handmade" && f[0]["loaded"] == true).then_some(all)
    });
    assert_eq!(seen[0][0]["version"], "1.0.0");
    assert_eq!(seen[0][0]["dir"], places[0].to_str().unwrap());
    assert_eq!(seen[0][0]["digest"], seen[1][0]["digest"]);

    // Not ours yet: installing over it is refused.
    let sources = cluster.temp().join("handmade-1.0.0");
    let refused = cluster.install(&sources);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.err.contains("PLUGIN_NOT_OURS"), "{refused:?}");

    let before: Vec<_> = cluster.nodes().iter().map(|n| (cluster.footprint(n), cluster.hups(n))).collect();
    let adopted = cluster.kctl(&["node", "adopt", &id(0), "handmade", "--yes"]);
    assert_eq!(adopted.code, 0, "{adopted:?}");
    let after: Vec<_> = cluster.nodes().iter().map(|n| (cluster.footprint(n), cluster.hups(n))).collect();
    assert_eq!(after, before);
    let plugin = cluster.json(&["plugin", "get", "handmade"]);
    assert_eq!((&plugin["version"], &plugin["nodes_enabled"]), (&"1.0.0".into(), &2.into()));
    until("nothing to be left to adopt", 30, || {
        found(&cluster, &id(0)).as_array().unwrap().is_empty().then_some(())
    });
    let nothing = cluster.kctl(&["node", "adopt", &id(0)]);
    assert!(nothing.code != 0 && nothing.err.contains("NOTHING_TO_ADOPT"), "{nothing:?}");

    // From now on it is a plugin like any other; the files that others put there are never deleted.
    let next = plugins::good(cluster.temp(), "handmade", "2.0.0");
    let upgraded =
        cluster.kctl(&["plugin", "install", next.to_str().unwrap(), "--all-nodes", "--method", "store"]);
    assert_eq!(upgraded.code, 0, "{upgraded:?}");
    assert_eq!(cluster.loaded_on("handmade"), vec![Some("2.0.0".to_owned()); 2]);
    let removed = cluster.remove("handmade");
    assert_eq!(removed.code, 0, "{removed:?}");
    assert_eq!(cluster.loaded_on("handmade"), vec![None; 2]);
    assert!(places.iter().all(|p| p.join("handler.lua").is_file()));
}

#[test]
fn what_is_not_the_same_everywhere_is_not_taken_over() {
    let cluster = Cluster::start(1, 2);
    let places = pair(&cluster, "handmade", "1.0.0");
    fs::write(places[1].join("more.lua"), "return {}\n").unwrap();
    let id = cluster.nodes()[0]["id"].as_str().unwrap().to_owned();
    let other = cluster.nodes()[1]["id"].as_str().unwrap().to_owned();
    until("both nodes to tell of it", 30, || {
        let (one, two) = (found(&cluster, &id), found(&cluster, &other));
        (one[0]["name"] == "handmade" && two[0]["name"] == "handmade" && one[0]["digest"] != two[0]["digest"])
            .then_some(())
    });
    let refused = cluster.kctl(&["node", "adopt", &id, "--yes"]);
    assert!(refused.code != 0 && refused.err.contains("ADOPT_DIFFERS"), "{refused:?}");
}
