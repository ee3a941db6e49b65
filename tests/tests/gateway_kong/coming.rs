//! Plugins that load: they come, are upgraded, are proven, and go.

use kctl_node_agent::gateway::Gateway as _;
use kctl_shared::spec::{KongState, StepWord};
use serde_json::json;

use crate::node::{Node, enact, get, handler, without};

#[tokio::test]
async fn a_plugin_comes_is_proven_and_goes_without_a_trace() {
    let node = Node::started("");
    let conf = node.read_conf();
    let kong = node.gateway();
    let before = without("hello", None);
    let wanted = node.plugin("hello", "1.0.0", "");
    assert_eq!(kong.preflight(&wanted, kctl_node_agent::config::Preflight::Parse).await, Ok(()));
    assert_eq!(node.read_conf(), conf);
    enact(&kong, &wanted, &before).await.unwrap();
    assert_eq!(node.loaded("hello").as_deref(), Some("1.0.0"));
    assert_eq!(kong.proven(&wanted).await, Ok(()));

    // Again: nothing to do, no HUP. Another agent on the same node sees the same.
    let workers = node.workers();
    enact(&kong, &wanted, &before).await.unwrap();
    let kong = node.gateway();
    enact(&kong, &wanted, &before).await.unwrap();
    assert_eq!(node.workers(), workers);

    let seen = kong.observe().await;
    assert_eq!(seen.facts.state, KongState::Running);
    assert_eq!(seen.conf_generation, wanted.generation);
    assert_eq!(seen.armed_generation, wanted.generation);
    assert_eq!(seen.loaded.unwrap()["hello"].as_deref(), Some("1.0.0"));
    assert_eq!(seen.trouble, None);

    enact(&kong, &before, &wanted).await.unwrap();
    assert_eq!(node.loaded("hello"), None);
    assert_eq!(node.read_conf(), conf);
}

#[tokio::test]
async fn an_upgrade_is_proven_by_its_files_not_by_its_version() {
    let node = Node::started("plugins = bundled # mine\nlua_package_path = /nowhere/?.lua;;\n");
    let kong = node.gateway();
    let first = node.plugin("hello", "1.0.0", "");
    enact(&kong, &first, &without("hello", None)).await.unwrap();
    let workers = node.workers();
    let second = node.plugin("hello", "1.0.0", "local changed = true");
    assert_eq!(kong.proven(&second).await.unwrap_err().code, "NOT_CONFIGURED");
    enact(&kong, &second, &first).await.unwrap();
    assert_ne!(node.workers(), workers);
    // Another content than agreed on is not proven, however it runs.
    let place = second.generation.clone().unwrap().join("kong/plugins/hello/handler.lua");
    std::fs::write(place, handler("1.0.0", "-- tampered")).unwrap();
    assert_eq!(kong.proven(&second).await.unwrap_err().code, "FILES_CHANGED");
}

#[tokio::test]
async fn a_declarative_file_stays_in_force() {
    let node = Node::new("");
    let file = node.path("kong.yml");
    std::fs::write(&file, "_format_version: \"3.0\"\nservices:\n- name: s1\n  url: http://127.0.0.1:9\n")
        .unwrap();
    node.write_conf(&format!("{}declarative_config = {}\n", node.read_conf(), file.display()));
    node.start();
    let kong = node.gateway();
    let (wanted, without) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    let settings = |node: &Node| {
        let mut armed = node.footprint().1;
        armed.retain(|line| !line.starts_with("plugins") && !line.starts_with("lua_package_path"));
        armed
    };
    let before = settings(&node);
    enact(&kong, &wanted, &without).await.unwrap();
    assert_eq!(settings(&node), before);
    std::fs::write(&file, "_format_version: \"3.0\"\nservices:\n- name: s2\n  url: http://127.0.0.1:9\n")
        .unwrap();
    enact(&kong, &without, &wanted).await.unwrap();
    assert_eq!(settings(&node), before);
    kctl_tests::until("the new file's service", 10, || {
        (node.get("/services/s2").ok()?.0 == 200).then_some(())
    });
}

#[tokio::test]
async fn a_foreign_hup_in_between_does_not_fool_the_proof() {
    let node = Node::started("plugins = bundled\n");
    let kong = node.gateway();
    let (wanted, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    // Somebody reloads at the moment the proof begins, and just before ours is sent.
    let progress = |word: StepWord| {
        if matches!(word, StepWord::Reloading | StepWord::Proving) {
            node.signal("HUP");
        }
    };
    kong.enact(&wanted, &before, &progress).await.unwrap();
    assert_eq!(node.loaded("hello").as_deref(), Some("1.0.0"));
    // The second one may still be under way.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while let Err(failure) = kong.proven(&wanted).await {
        assert!(std::time::Instant::now() < deadline, "{failure}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_others_did_to_the_files_is_no_proof() {
    let node = Node::started("plugins = bundled\n");
    let kong = node.gateway();
    let (first, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    enact(&kong, &first, &before).await.unwrap();
    // Edited and prepared by hand, not reloaded: armed, but not running.
    let second = node.plugin("hello", "1.0.0", "local other = true");
    let [old, new] = [&first, &second].map(|w| w.generation.clone().unwrap().display().to_string());
    node.write_conf(&node.read_conf().replace(&old, &new));
    let (conf, prefix) = (node.conf(), node.prefix());
    assert!(
        node.kong(&["prepare", "-c", conf.to_str().unwrap(), "-p", prefix.to_str().unwrap()])
            .status
            .success()
    );
    assert_eq!(kong.proven(&first).await.unwrap_err().code, "NOT_CONFIGURED");
    assert!(kong.proven(&second).await.is_err());
    // Workers that died come back with the old code, and are younger than what is armed.
    let workers = node.workers();
    for pid in &workers {
        assert!(
            std::process::Command::new("kill").arg("-KILL").arg(pid.to_string()).status().unwrap().success()
        );
    }
    kctl_tests::until("new workers", 20, || {
        let now: Vec<i64> =
            node.get("/").ok()?.1["pids"]["workers"].as_array()?.iter().filter_map(|v| v.as_i64()).collect();
        (now.len() == 2 && now.iter().all(|pid| !workers.contains(pid))).then_some(())
    });
    // One that has just been started has not got its name as a worker yet.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut code = kong.proven(&second).await.unwrap_err().code;
    while code == "WORKER_GENERATION_INCOMPLETE" && std::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        code = kong.proven(&second).await.unwrap_err().code;
    }
    assert_eq!(code, "RELOAD_NOT_TAKEN");
    enact(&kong, &second, &first).await.unwrap();
}

#[tokio::test]
async fn old_workers_hold_on_to_their_generation() {
    let node = Node::started("");
    let kong = node.gateway();
    let (first, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    enact(&kong, &first, &before).await.unwrap();
    // An upstream that answers when it is told to.
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = upstream.local_addr().unwrap().port();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = upstream.accept().unwrap();
        let _some = stream.read(&mut [0; 4096]).unwrap();
        begun.send(()).unwrap();
        may_go_on.recv().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow").unwrap();
    });
    let text = format!(
        "_format_version: \"3.0\"\nservices:\n- name: s\n  url: http://127.0.0.1:{port}\n  routes:\n  - name: r\n    paths: [\"/\"]\n"
    );
    let proxy = format!("http://127.0.0.1:{}/", node.ports[0]);
    let request = std::thread::spawn(move || {
        kctl_tests::until("an answer of the upstream", 30, || {
            get(&proxy).ok().filter(|(code, _)| *code == 200)
        })
    });
    // Workers that are still finding each other after the reload may miss that there is a new configuration.
    kctl_tests::until("the request to reach the upstream", 30, || {
        assert_eq!(node.send("POST", "/config", json!({ "config": text })).0, 201);
        has_begun.recv_timeout(std::time::Duration::from_secs(2)).ok()
    });

    let second = node.plugin("hello", "2.0.0", "");
    enact(&kong, &second, &first).await.unwrap();
    let seen = kong.observe().await;
    assert!(seen.facts.old_workers >= 1);
    assert!(seen.old_generations.contains(first.generation.as_ref().unwrap()), "{:?}", seen.old_generations);
    // Nobody remembers anything: then everything may be needed.
    std::fs::remove_file(node.path("state/kong.json")).unwrap();
    let seen = node.gateway().observe().await;
    assert!(seen.old_generations.contains(first.generation.as_ref().unwrap()), "{:?}", seen.old_generations);

    go_on.send(()).unwrap();
    assert_eq!(request.join().unwrap().0, 200);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let seen = kong.observe().await;
        if seen.facts.old_workers == 0 && !seen.old_generations.contains(first.generation.as_ref().unwrap()) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{seen:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
