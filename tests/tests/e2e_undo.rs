//! What was taken away comes back: removals that are called off or undone, with the plugin's configurations as they were,
//! and versions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use kctl_tests::cluster::{Cluster, Ran, get, hold, request, signal};
use kctl_tests::{plugins, until};
use reqwest::Method;
use serde_json::{Value, json};

fn admin(cluster: &Cluster) -> String {
    cluster.nodes()[0]["admin"].as_str().unwrap().to_owned()
}

/// Puts `plugin` on everything, on a service and on a route, with all there is to set.
fn configure(cluster: &Cluster, plugin: &str) -> Vec<Value> {
    let send = |method, path: &str, body| {
        let (code, answer) = request(method, &format!("{}{path}", admin(cluster)), Some(body)).unwrap();
        assert!((200..300).contains(&code), "{path}: {code} {answer}");
    };
    send(Method::PUT, "/services/s", json!({"url": "http://127.0.0.1:9"}));
    send(Method::PUT, "/services/s/routes/r", json!({"paths": ["/r"]}));
    send(
        Method::POST,
        "/plugins",
        json!({"name": plugin, "config": {"header": "x-everywhere"}, "tags": ["a", "b"],
               "created_at": 1_600_000_000, "instance_name": "everywhere"}),
    );
    let fields = json!({"name": plugin, "config": {"header": "x-service"}, "enabled": false});
    send(Method::POST, "/services/s/plugins", fields);
    let fields = json!({"name": plugin, "protocols": ["https"]});
    send(Method::POST, "/routes/r/plugins", fields);
    entities(cluster, plugin)
}

/// All configurations of `plugin`, as Kong shows them but for when they were written last.
fn entities(cluster: &Cluster, plugin: &str) -> Vec<Value> {
    let (_, list) = get(&format!("{}/plugins", admin(cluster))).unwrap();
    let mut found: Vec<_> = list["data"].as_array().unwrap().clone();
    found.retain(|e| e["name"] == plugin);
    for entity in &mut found {
        entity.as_object_mut().unwrap().remove("updated_at");
    }
    found.sort_by_key(|e| e["id"].as_str().unwrap().to_owned());
    found
}

fn remove(cluster: &Cluster, plugin: &str, more: &[&str]) -> String {
    let words = ["plugin", "remove", plugin, "--all-nodes", "--yes", "--detach"];
    let ran = cluster.kctl(&[&words, more].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.trim().to_owned()
}

fn waits(cluster: &Cluster, id: &str, reason: &str) {
    until(&format!("{reason} of {id}"), 90, || {
        let view = cluster.operation(id);
        let waits = view["waiting_on"].as_array()?.iter().any(|w| w["reason"] == reason);
        assert!(waits || view["finished_at"].is_null(), "it ended instead: {view:#}");
        waits.then_some(())
    });
}

fn abort(cluster: &Cluster, id: &str) -> Ran {
    cluster.kctl(&["operation", "abort", id, "-m", "second thoughts"])
}

fn loaded_everywhere(cluster: &Cluster, plugin: &str, version: &str) -> bool {
    cluster.loaded_on(plugin).iter().all(|v| v.as_deref() == Some(version))
}

/// Sealed files of each member, and whether any of a member's files shows `secret`.
fn kept(cluster: &Cluster, secret: &str) -> (Vec<usize>, bool) {
    let artifacts = |member: &Value| {
        let dir = cluster.dir.join(format!("members/{}/data/artifacts", member["id"]));
        std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).collect::<Vec<_>>()
    };
    let (mut counts, mut shown) = (Vec::new(), false);
    for files in cluster.members().iter().map(artifacts) {
        counts.push(files.iter().filter(|f| f.extension().is_some_and(|e| e == "sealed")).count());
        let shows =
            |f| std::fs::read(f).is_ok_and(|b| b.windows(secret.len()).any(|w| w == secret.as_bytes()));
        shown |= files.iter().any(shows);
    }
    (counts, shown)
}

#[test]
fn a_removal_that_did_nothing_yet_just_ends_when_it_is_called_off() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    let before = configure(&cluster, "golden");
    let agents: Vec<_> = cluster.nodes().iter().map(|n| n["agent_pid"].clone()).collect();
    agents.iter().for_each(hold);
    let id = remove(&cluster, "golden", &[]);
    let ran = abort(&cluster, &id);
    assert_eq!(ran.code, 0, "{ran:?}");
    agents.iter().for_each(|agent| signal(agent, "CONT"));
    let view = cluster.operation(&id);
    assert_eq!((&view["phase"], &view["error"]["code"]), (&"Aborted".into(), &"ABORTED".into()));
    assert_eq!(entities(&cluster, "golden"), before);
    assert!(loaded_everywhere(&cluster, "golden", "1.0.0"));
    assert_eq!(cluster.remove("golden").code, 0);
}

#[test]
fn a_removal_that_is_called_off_brings_configurations_and_directives_back() {
    let cluster = Cluster::start(3, 3);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    let before = configure(&cluster, "golden");
    assert_eq!(before.len(), 3);
    let id = remove(&cluster, "golden", &["--pause-after", "canary"]);
    waits(&cluster, &id, "CANARY_PAUSED");
    assert_eq!(entities(&cluster, "golden"), Vec::<Value>::new());
    assert_eq!(cluster.loaded_on("golden").iter().flatten().count(), 2);
    let (counts, shown) = kept(&cluster, "x-everywhere");
    assert!(counts.iter().filter(|n| **n == 1).count() >= 2, "a majority holds them: {counts:?}");
    assert!(!shown, "a configuration can be read in a member's files");

    let tried = cluster.json(&["operation", "abort", &id, "--dry-run"]);
    assert_eq!(tried["phase"], "RollingBack");
    assert_eq!(cluster.operation(&id)["phase"], "Paused");
    let ran = abort(&cluster, &id);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("3 of 3 configurations are there again"), "{ran:?}");
    let view = cluster.operation(&id);
    assert_eq!((&view["phase"], &view["error"]["code"]), (&"Compensated".into(), &"ABORTED".into()));
    assert_eq!(entities(&cluster, "golden"), before);
    assert!(loaded_everywhere(&cluster, "golden", "1.0.0"));
    let again = abort(&cluster, &id);
    assert!(again.code == 6 && again.err.contains("OPERATION_ENDED"), "{again:?}");

    // What its service or route left behind cannot come back: Kong says why, and the rest does.
    let id = remove(&cluster, "golden", &["--pause-after", "canary"]);
    waits(&cluster, &id, "CANARY_PAUSED");
    let gone = before.iter().find(|e| !e["route"].is_null()).unwrap();
    let (code, _) = request(Method::DELETE, &format!("{}/routes/r", admin(&cluster)), None).unwrap();
    assert_eq!(code, 204);
    let ran = abort(&cluster, &id);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("does not reference an existing 'routes' entity"), "{ran:?}");
    let view = cluster.operation(&id);
    let refused = view["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1, "{view:#}");
    assert_eq!((&refused[0]["id"], &refused[0]["code"]), (&gone["id"], &"ENTITY_REFUSED".into()));
    let rest: Vec<_> = before.iter().filter(|e| e["route"].is_null()).cloned().collect();
    assert_eq!(entities(&cluster, "golden"), rest);

    // Once files go, nothing leads back.
    let id = remove(&cluster, "golden", &["--pause-after", "canary"]);
    waits(&cluster, &id, "CANARY_PAUSED");
    let trash = std::path::Path::new(cluster.nodes()[2]["lua_dir"].as_str().unwrap()).join("trash");
    let aside = trash.with_extension("aside");
    std::fs::rename(&trash, &aside).unwrap();
    assert_eq!(cluster.kctl(&["operation", "promote", &id, "--detach"]).code, 0);
    until("files to go", 90, || {
        let steps = cluster.operation(&id)["steps"].as_array()?.clone();
        steps.iter().any(|s| s["name"] == "purge" && s["phase"] == "Running").then_some(())
    });
    let ran = abort(&cluster, &id);
    assert!(ran.code == 6 && ran.err.contains("PAST_POINT_OF_NO_RETURN"), "{ran:?}");
    std::fs::rename(&aside, &trash).unwrap();
    assert_eq!(cluster.wait_ended(&id, 90)["phase"], "Succeeded");
    assert_eq!(entities(&cluster, "golden"), Vec::<Value>::new());
}

#[test]
fn a_node_that_dropped_it_and_is_away_holds_the_way_back_and_nothing_is_attached_before_it_has_it() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    let before = configure(&cluster, "golden");
    let id = remove(&cluster, "golden", &["--pause-after", "canary"]);
    waits(&cluster, &id, "CANARY_PAUSED");
    let dropped = cluster.nodes().into_iter().find(|n| cluster.loaded(n, "golden").is_none()).unwrap();
    hold(&dropped["agent_pid"]);
    assert_eq!(cluster.kctl(&["operation", "abort", &id, "--detach"]).code, 0);
    waits(&cluster, &id, "AGENT_UNREACHABLE");
    assert_eq!(entities(&cluster, "golden"), Vec::<Value>::new());
    signal(&dropped["agent_pid"], "CONT");
    let view = cluster.wait_ended(&id, 120);
    assert_eq!(view["phase"], "Compensated", "{view:#}");
    assert_eq!(entities(&cluster, "golden"), before);
    assert!(loaded_everywhere(&cluster, "golden", "1.0.0"));
}

#[test]
fn an_undone_removal_brings_back_files_directives_and_configurations() {
    let cluster = Cluster::start(3, 3);
    let root = cluster.temp().to_owned();
    assert_eq!(cluster.install(&plugins::good(&root, "golden", "1.0.0")).code, 0);
    let before = configure(&cluster, "golden");
    let ran = cluster.remove("golden");
    assert!(ran.code == 0 && ran.out.contains("undo: kctl plugin undo golden"), "{ran:?}");
    assert_eq!(entities(&cluster, "golden"), Vec::<Value>::new());

    let history = cluster.json(&["plugin", "history", "golden"]);
    let shown: Vec<_> =
        history.as_array().unwrap().iter().map(|r| (&r["revision"], &r["what"], &r["entities"])).collect();
    assert_eq!(json!(shown), json!([[1, "install", 0], [2, "remove", 3]]));
    let ran = cluster.kctl(&["plugin", "undo", "golden", "--node", "kong-1"]);
    assert!(ran.code == 6 && ran.err.contains("PARTIAL_UNDO"), "{ran:?}");
    assert_eq!(cluster.kctl(&["plugin", "undo", "golden"]).code, 64);
    let tried = cluster.json(&["plugin", "undo", "golden", "--all-nodes", "--dry-run"]);
    assert_eq!(tried["steps"].as_array().unwrap().last().unwrap()["name"], "attach");

    let request = "0192f000-0000-7000-8000-000000000002";
    for _ in 0..2 {
        let ran = cluster.kctl(&[
            "plugin",
            "undo",
            "golden",
            "--all-nodes",
            "-m",
            "missed",
            "--request-id",
            request,
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.out.contains("3 of 3 configurations are there again"), "{ran:?}");
    }
    assert!(loaded_everywhere(&cluster, "golden", "1.0.0"));
    assert_eq!(entities(&cluster, "golden"), before);
    let newest = cluster.json(&["plugin", "history", "golden"])[2].clone();
    assert_eq!(
        (&newest["what"], &newest["undo_to"], &newest["reason"]),
        (&"undo".into(), &2.into(), &"missed".into())
    );
    assert_eq!(cluster.json(&["plugin", "history", "golden"]).as_array().unwrap().len(), 3);
    let http = cluster.leader()["http"].as_str().unwrap().to_owned();
    let (code, rest) = get(&format!("{http}/api/v1/plugins/golden/history")).unwrap();
    assert_eq!((code, rest["revisions"].as_array().map(Vec::len)), (200, Some(3)));
    assert_eq!(get(&format!("{http}/api/v1/plugins/absent/history")).unwrap().0, 404);
}

#[test]
fn a_version_is_undone_pinned_and_let_go() {
    let cluster = Cluster::start(1, 3);
    let root = cluster.temp().to_owned();
    let refused = |ran: &Ran, code: &str| assert!(ran.code == 6 && ran.err.contains(code), "{code}: {ran:?}");
    let undo = |more: &[&str]| cluster.kctl(&[&["plugin", "undo", "golden", "--all-nodes"], more].concat());
    let (first, second) = (plugins::good(&root, "golden", "1.0.0"), plugins::good(&root, "golden", "2.0.0"));
    assert_eq!(cluster.install(&first).code, 0);
    refused(&undo(&[]), "NOTHING_TO_UNDO");
    assert_eq!(cluster.install(&second).code, 0);
    refused(&cluster.install(&first), "DOWNGRADE");

    assert_eq!(cluster.kctl(&["plugin", "pin", "golden", "--dry-run"]).code, 0);
    assert_eq!(cluster.json(&["plugin", "get", "golden"])["pinned"], "");
    assert_eq!(cluster.kctl(&["plugin", "pin", "golden"]).code, 0);
    assert_eq!(cluster.json(&["plugin", "get", "golden"])["pinned"], "2.0.0");
    let ran = undo(&[]);
    refused(&ran, "PLUGIN_PINNED");
    assert!(ran.err.contains("kctl plugin unpin golden"), "{ran:?}");
    refused(&cluster.install(&plugins::good(&root, "golden", "3.0.0")), "PLUGIN_PINNED");
    assert!(loaded_everywhere(&cluster, "golden", "2.0.0"));
    assert_eq!(cluster.kctl(&["plugin", "unpin", "golden"]).code, 0);

    assert_eq!(undo(&[]).code, 0);
    assert!(loaded_everywhere(&cluster, "golden", "1.0.0"));
    // Undone once more it is what it was; a revision can be named, and a gone one is not there.
    assert_eq!(undo(&[]).code, 0);
    assert!(loaded_everywhere(&cluster, "golden", "2.0.0"));
    assert_eq!(undo(&["--to", "1"]).code, 0);
    assert!(loaded_everywhere(&cluster, "golden", "1.0.0"));
    let ran = undo(&["--to", "9"]);
    assert!(ran.code == 5 && ran.err.contains("REVISION_NOT_FOUND"), "{ran:?}");
    let ran = cluster.kctl(&["plugin", "history", "absent"]);
    assert!(ran.code == 5 && ran.err.contains("PLUGIN_NOT_INSTALLED"), "{ran:?}");
}
