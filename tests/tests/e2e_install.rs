//! Installing, as a person sees it: every input form, every kind of broken plugin, and kills in the middle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use kctl_tests::cluster::{Cluster, get, request, signal};
use kctl_tests::plugins::{self, BROKEN};
use kctl_tests::small::Small;
use kctl_tests::until;
use serde_json::json;

/// Packs `kong/plugins/NAME` of `dir` as a rock or an archive would hold it.
fn archive(dir: &std::path::Path, name: &str, to: &std::path::Path) {
    let lua = dir.join("kong/plugins").join(name);
    let files = ["handler.lua", "schema.lua"].map(|f| (f, std::fs::read(lua.join(f)).unwrap()));
    let file = std::fs::File::create(to).unwrap();
    if to.extension().is_some_and(|e| e == "rock") {
        let mut zip = zip::ZipWriter::new(file);
        for (path, bytes) in &files {
            use std::io::Write as _;
            zip.start_file(
                format!("lua/kong/plugins/{name}/{path}"),
                zip::write::SimpleFileOptions::default(),
            )
            .unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    } else {
        let gz = flate2::write::GzEncoder::new(file, flate2::Compression::default());
        let mut tar = tar::Builder::new(gz);
        for (path, bytes) in &files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, format!("{name}-1.0/kong/plugins/{name}/{path}"), bytes.as_slice())
                .unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
    }
}

#[test]
fn a_directory_a_rock_and_an_archive_are_loaded_on_every_node() {
    let cluster = Cluster::start(3, 5);
    let root = cluster.temp().to_owned();
    let rock = root.join("kong-plugin-by-rock-1.1.0-1.all.rock");
    archive(&plugins::good(&root, "by-rock", "1.1.0"), "by-rock", &rock);
    let tgz = root.join("by-archive.tar.gz");
    archive(&plugins::good(&root, "by-archive", "1.2.0"), "by-archive", &tgz);
    for (path, name, version) in [
        (plugins::good(&root, "by_Dir", "1.0.0"), "by_Dir", "1.0.0"),
        (rock, "by-rock", "1.1.0"),
        (tgz, "by-archive", "1.2.0"),
    ] {
        let ran = cluster.install(&path);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(cluster.loaded_on(name), vec![Some(version.to_owned()); 5]);
    }
    let status = cluster.json(&["status"]);
    for node in cluster.nodes() {
        let id = node["id"].as_str().unwrap();
        let seen = status["nodes"].as_array().unwrap().iter().find(|n| n["id"] == id).unwrap();
        for name in ["by_Dir", "by-rock", "by-archive"] {
            let plugin = seen["plugins"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap();
            assert_eq!(plugin["stage"], "Enabled");
            assert_eq!(plugin["version"].as_str().map(str::to_owned), cluster.loaded(&node, name));
        }
    }
    // Another version of an installed plugin is an upgrade.
    let ran = cluster.install(&plugins::good(&root, "by_Dir", "1.3.0"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(cluster.loaded_on("by_Dir"), vec![Some("1.3.0".to_owned()); 5]);
    assert_eq!(cluster.newest_operation()["kind"], "upgrade");
    // The same version with other bytes is not.
    std::fs::write(root.join("by_Dir-1.3.0/kong/plugins/by_Dir/extra.lua"), "return 1").unwrap();
    let ran = cluster.install(&root.join("by_Dir-1.3.0"));
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.err.contains("VERSION_CONFLICT"), "{ran:?}");
}

#[test]
fn a_plugin_kong_cannot_load_changes_nothing() {
    let cluster = Cluster::start(1, 2);
    let root = cluster.temp().to_owned();
    let before: Vec<_> = cluster.nodes().iter().map(|n| cluster.footprint(n)).collect();
    for broken in BROKEN {
        let ran = cluster.install_unjudged(&broken.write(&root, "fresh"));
        assert_eq!(ran.code, 3, "{}: {ran:?}", broken.kind);
        assert!(format!("{}{}", ran.out, ran.err).contains(broken.words), "{}: {ran:?}", broken.kind);
        for (node, before) in cluster.nodes().iter().zip(&before) {
            assert_eq!(&cluster.footprint(node), before, "{}", broken.kind);
            assert!(
                cluster.files(node, "fresh").is_empty(),
                "{}: {:?}",
                broken.kind,
                cluster.files(node, "fresh")
            );
        }
    }
    let ran = cluster.install(&plugins::good(&root, "old", "1.0.0"));
    assert_eq!(ran.code, 0, "{ran:?}");
    let before: Vec<_> = cluster.nodes().iter().map(|n| cluster.footprint(n)).collect();
    for broken in BROKEN {
        let ran = cluster.install_unjudged(&broken.write(&root, "old"));
        assert_eq!(ran.code, 3, "{}: {ran:?}", broken.kind);
        for (node, before) in cluster.nodes().iter().zip(&before) {
            assert_eq!(&cluster.footprint(node), before, "{}", broken.kind);
            assert_eq!(cluster.files(node, "old").len(), 2, "{}", broken.kind);
        }
    }
}

#[test]
fn what_only_shows_after_the_reload_is_put_back() {
    let cluster = Cluster::start(1, 2);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "late", "1.0.0")).code, 0);
    let ran = cluster.install(&plugins::broken_init_worker(&root, "late", "2.0.0"));
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(format!("{}{}", ran.out, ran.err).contains("init_worker went wrong"), "{ran:?}");
    for node in cluster.nodes() {
        assert_eq!(cluster.loaded(&node, "late").as_deref(), Some("1.0.0"));
        let ready = format!("{}/status/ready", node["status"].as_str().unwrap());
        until("the node to be ready again", 30, || (get(&ready).ok()?.0 == 200).then_some(()));
    }
}

#[test]
fn an_install_survives_every_kill() {
    let cluster = Cluster::start(3, 3);
    let root = cluster.temp().to_owned();
    for (round, victim) in ["leader", "agent", "all members"].iter().enumerate() {
        let name = format!("tough{round}");
        let path = plugins::good(&root, &name, "1.0.0");
        let before: Vec<_> = cluster.nodes().iter().map(|n| cluster.hups(n)).collect();
        let ran = cluster.kctl(&["plugin", "install", path.to_str().unwrap(), "--all-nodes", "--detach"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let id = ran.out.trim().to_owned();
        match *victim {
            "leader" => signal(&cluster.leader()["pid"], "KILL"),
            "agent" => signal(&cluster.nodes()[0]["agent_pid"], "KILL"),
            _ => cluster.members().iter().for_each(|m| signal(&m["pid"], "KILL")),
        }
        let view = cluster.wait_ended(&id, 120);
        assert_eq!(view["phase"], "Succeeded", "{victim}: {view:#}");
        assert_eq!(cluster.loaded_on(&name), vec![Some("1.0.0".to_owned()); 3], "{victim}");
        // One reload loads it; a kill may cost one more.
        for (node, before) in cluster.nodes().iter().zip(&before) {
            let more = cluster.hups(node) - before;
            assert!((1..=2).contains(&more), "{victim}: {more} HUPs on {}", node["id"]);
        }
    }
}

#[test]
fn what_is_installed_can_be_used_on_a_route() {
    let cluster = Cluster::start(1, 1);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "marker", "1.0.0")).code, 0);
    let admin = cluster.nodes()[0]["admin"].as_str().unwrap().to_owned();
    let post =
        |path: &str, body| request(reqwest::Method::POST, &format!("{admin}{path}"), Some(body)).unwrap();
    assert_eq!(post("/services", json!({"name": "s", "url": format!("{admin}/status")})).0, 201);
    assert_eq!(post("/services/s/routes", json!({"name": "r", "paths": ["/r"]})).0, 201);
    assert_eq!(post("/routes/r/plugins", json!({"name": "marker"})).0, 201);
    assert_eq!(post("/routes/r/plugins", json!({"name": "absent"})).0, 400);
}

#[test]
fn a_node_without_room_is_told_of_and_refuses_until_there_is_some() {
    let cluster = Cluster::start(1, 2);
    let node = cluster.node("kong-2");
    let lua_dir = std::path::PathBuf::from(node["lua_dir"].as_str().unwrap());
    let Some(disk) = Small::mount(&lua_dir, "size=16m") else { return };
    for part in ["store", "luarocks", "path", "gen", "staging", "trash"] {
        std::fs::create_dir(lua_dir.join(part)).unwrap();
    }
    let ballast = disk.fill(2 << 20);
    let path = plugins::good(cluster.temp(), "probe", "1.0.0");
    let before: Vec<_> = cluster.nodes().iter().map(|n| cluster.footprint(n)).collect();
    let untouched = || {
        for (node, before) in cluster.nodes().iter().zip(&before) {
            assert_eq!(cluster.footprint(node), *before);
            assert_eq!((cluster.hups(node), cluster.files(node, "probe")), (0, vec![]));
        }
    };

    let install = ["plugin", "install", path.to_str().unwrap(), "--all-nodes"];
    let ran = cluster.kctl(&[&install[..], &["--node-deadline", "3s"]].concat());
    assert_ne!(ran.code, 0, "{ran:?}");
    let told = format!("{}{}", ran.out, ran.err);
    assert!(told.contains("kong-2") && told.contains("bytes free; nothing was touched; make room"), "{told}");
    untouched();

    // One with more patience goes on when there is room.
    let ran = cluster.kctl(&[&install[..], &["--detach"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let id = cluster.newest_operation()["id"].as_str().unwrap().to_owned();
    until("the operation to wait for room", 60, || {
        let waits = cluster.operation(&id)["waiting_on"].as_array()?.clone();
        waits.iter().any(|w| w["node"] == "kong-2" && w["reason"] == "DISK_FULL").then_some(())
    });
    assert!(cluster.nodes().iter().all(|n| cluster.hups(n) == 0), "nobody enables what one cannot place");
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(cluster.wait_ended(&id, 60)["phase"], "Succeeded");
    assert_eq!(cluster.loaded_on("probe"), vec![Some("1.0.0".to_owned()); 2]);
}
