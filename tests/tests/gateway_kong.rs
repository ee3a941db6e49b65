//! The adapter to Kong against a Kong: edits, preflights, reloads, proofs and ways back, looked at from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "gateway_kong/database.rs"]
mod database;
#[path = "gateway_kong/node.rs"]
mod node;

use kctl_node_agent::config::Preflight;
use kctl_node_agent::gateway::kong::Limits;
use kctl_node_agent::gateway::{EnactError, Gateway as _, Wanted};
use kctl_shared::spec::{KongState, StepWord};
use node::{Node, SCHEMA, enact, handler, put_back, waiting, without};
use serde_json::json;

#[tokio::test]
async fn a_plugin_comes_is_proven_and_goes_without_a_trace() {
    let node = Node::started("");
    let conf = node.read_conf();
    let kong = node.gateway();
    let before = without("hello", None);
    let wanted = node.plugin("hello", "1.0.0", "");
    assert_eq!(kong.preflight(&wanted).await, Ok(()));
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
async fn what_does_not_load_is_refused_before_anything_is_touched() {
    let node = Node::started("plugins = bundled\n");
    let kong = node.gateway();
    let good = node.plugin("hello", "1.0.0", "");
    enact(&kong, &good, &without("hello", None)).await.unwrap();
    let footprint = node.footprint();
    let priority = "return { PRIORITY = \"high\", VERSION = \"1.0.0\" }";
    let version = "return { PRIORITY = 1, VERSION = \"1.2.3.4\" }";
    let schema = "return { name = \"NAME\", fields = { { config = { type = \"nonsense\" } } } }";
    let fine = handler("1.0.0", "");
    for (code, words, files) in [
        (
            "PLUGIN_SYNTAX_ERROR",
            "expected near",
            vec![("handler.lua", "local H = {\nfunction"), ("schema.lua", SCHEMA)],
        ),
        ("NO_SCHEMA", "no configuration schema found for plugin: bad", vec![("handler.lua", fine.as_str())]),
        ("NO_HANDLER", "bad plugin is enabled but not installed", vec![("schema.lua", SCHEMA)]),
        ("NO_HANDLER", "bad plugin is enabled but not installed", vec![]),
        (
            "MISSING_DEPENDENCY",
            "module 'no.such.module' not found",
            vec![("handler.lua", "require \"no.such.module\""), ("schema.lua", SCHEMA)],
        ),
        (
            "BAD_PRIORITY",
            "PRIORITY field is not a valid integer",
            vec![("handler.lua", priority), ("schema.lua", SCHEMA)],
        ),
        (
            "BAD_VERSION",
            "VERSION field does not follow",
            vec![("handler.lua", version), ("schema.lua", SCHEMA)],
        ),
        ("BAD_SCHEMA", "schema", vec![("handler.lua", fine.as_str()), ("schema.lua", schema)]),
        (
            "PREFLIGHT_FAILED",
            "attempt to index",
            vec![("handler.lua", "local x = 1"), ("schema.lua", SCHEMA)],
        ),
    ] {
        let mut wanted = node.generation(&[(
            "hello",
            "1.0.0",
            &[("handler.lua", &handler("1.0.0", "")), ("schema.lua", SCHEMA)],
        )]);
        let bad = node.generation(&[("bad", "1.0.0", &files)]);
        // One directory holds both.
        let to = wanted.generation.clone().unwrap().join("kong/plugins/bad");
        std::fs::rename(bad.generation.unwrap().join("kong/plugins/bad"), to).unwrap();
        wanted.listed.extend(bad.listed);
        let failure = kong.preflight(&wanted).await.unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
        assert!(!failure.message.contains("stack traceback") && !failure.message.contains('\n'), "{failure}");
        assert_eq!(node.footprint(), footprint, "{code}");
    }
    assert_eq!(node.ready().0, node.ready().0);
    assert_eq!(kong.proven(&good).await, Ok(()));
}

#[tokio::test]
async fn what_only_shows_after_the_reload_is_put_back() {
    let node = Node::started("plugins = bundled\n");
    let kong = node.gateway();
    let good = node.plugin("hello", "1.0.0", "");
    enact(&kong, &good, &without("hello", None)).await.unwrap();
    let conf = node.read_conf();
    let ready = node.ready();

    let init = node.plugin("hello", "1.1.0", "function H:init_worker() error('boom in init_worker') end");
    assert_eq!(kong.preflight(&init).await, Ok(()));
    let failure = put_back(enact(&kong, &init, &good).await);
    assert_eq!(failure.code, "INIT_WORKER_FAILED", "{failure}");
    assert!(failure.message.contains("boom in init_worker"), "{failure}");
    assert_eq!((node.read_conf(), node.ready()), (conf.clone(), ready.clone()));
    assert_eq!(kong.proven(&good).await, Ok(()));

    let files = [
        ("handler.lua", handler("1.2.0", "")),
        ("schema.lua", SCHEMA.to_owned()),
        ("api.lua", "error('boom in api.lua')".into()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let api = node.generation(&[("hello", "1.2.0", &files)]);
    assert_eq!(kong.preflight(&api).await, Ok(()));
    let failure = put_back(enact(&kong, &api, &good).await);
    assert_eq!(failure.code, "ADMIN_API_BROKEN", "{failure}");
    assert!(failure.message.contains("boom in api.lua"), "{failure}");
    assert_eq!((node.read_conf(), node.ready()), (conf, ready));
    assert_eq!(kong.proven(&good).await, Ok(()));

    // A boot sees both.
    let kong = node.gateway_with(Preflight::Boot);
    assert_eq!(kong.preflight(&init).await.unwrap_err().code, "INIT_WORKER_FAILED");
    assert_eq!(kong.preflight(&api).await.unwrap_err().code, "ADMIN_API_BROKEN");
    assert_eq!(kong.preflight(&good).await, Ok(()));
}

#[tokio::test]
async fn a_list_that_kong_throws_away_is_put_back() {
    // Without a preflight: straight to the reload.
    let node = Node::started("");
    let kong = node.gateway();
    let conf = node.read_conf();
    let broken = node.generation(&[(
        "hello",
        "1.0.0",
        &[("handler.lua", "local H = {\nfunction"), ("schema.lua", SCHEMA)],
    )]);
    let before = without("hello", None);
    let ready = node.ready();
    let failure = put_back(enact(&kong, &broken, &before).await);
    assert_eq!(failure.code, "PLUGIN_SYNTAX_ERROR", "{failure}");
    assert_eq!((node.read_conf(), node.ready()), (conf, ready));
    assert_eq!(kong.proven(&before).await, Ok(()));
}

#[tokio::test]
async fn a_node_that_was_broken_before_is_told_so() {
    let node = Node::started("plugins = bundled\n");
    let kong = node.gateway();
    // Listed by hand, never loaded, not there.
    let conf = node.read_conf().replace("plugins = bundled", "plugins = bundled,ghost");
    node.write_conf(&conf);
    let failure = kong.preflight(&node.plugin("hello", "1.0.0", "")).await.unwrap_err();
    assert_eq!(failure.code, "NODE_ALREADY_BROKEN", "{failure}");
    assert!(failure.message.contains("ghost plugin is enabled but not installed"), "{failure}");
    assert_eq!(node.read_conf(), conf);
}

#[tokio::test]
async fn settings_from_the_environment_survive() {
    let node = Node::new("plugins = bundled\nlog_level = warn\n");
    let node = node.with_environment(&[
        ("KONG_LOG_LEVEL", "info"),
        ("KONG_DB_UPDATE_FREQUENCY", "7"),
        ("KONG_PROXY_ACCESS_LOG", "off"),
    ]);
    node.start();
    let kong = node.gateway();
    let wanted = node.plugin("hello", "1.0.0", "");
    let settings = |node: &Node| {
        let mut armed = node.footprint().1;
        armed.retain(|line| !line.starts_with("plugins") && !line.starts_with("lua_package_path"));
        armed
    };
    let before = settings(&node);
    assert!(before.contains(&"log_level = info".to_owned()), "{before:?}");
    assert_eq!(kong.preflight(&wanted).await, Ok(()));
    enact(&kong, &wanted, &without("hello", None)).await.unwrap();
    assert_eq!(settings(&node), before);
    assert_eq!(node.get("/").unwrap().1["configuration"]["log_level"], "info");
    let trouble = kong.observe().await.trouble.unwrap();
    assert_eq!(trouble.code, "CONF_NOT_IN_EFFECT");
    assert!(trouble.message.contains("log_level") && !trouble.message.contains("info"), "{trouble}");
}

#[tokio::test]
async fn plugins_from_the_environment_are_left_alone() {
    let node = Node::new("plugins = bundled\n").with_environment(&[("KONG_PLUGINS", "key-auth")]);
    node.start();
    let kong = node.gateway();
    let wanted = node.plugin("hello", "1.0.0", "");
    let footprint = node.footprint();
    assert_eq!(kong.preflight(&wanted).await.unwrap_err().code, "ENV_OVERRIDES_CONF");
    let failure = node::refused(enact(&kong, &wanted, &without("hello", None)).await);
    assert_eq!(failure.code, "ENV_OVERRIDES_CONF", "{failure}");
    assert_eq!(node.footprint(), footprint);
}

#[tokio::test]
async fn a_kong_that_is_down_or_held_is_waited_for() {
    let node = Node::started("");
    let kong = node.gateway();
    let (wanted, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    node.signal("STOP");
    kctl_tests::until("the master to be held", 10, || {
        (procfs::process::Process::new(node.pid()?).ok()?.stat().ok()?.state == 'T').then_some(())
    });
    assert_eq!(kong.observe().await.facts.state, KongState::Stopped);
    assert_eq!(waiting(enact(&kong, &wanted, &before).await).code, "KONG_STOPPED");
    node.signal("CONT");
    node.stop();
    let conf = node.read_conf();
    assert_eq!(kong.observe().await.facts.state, KongState::Down);
    assert_eq!(waiting(enact(&kong, &wanted, &before).await).code, "KONG_DOWN");
    assert_eq!(node.read_conf(), conf);
    // It can still be tried, and goes on when Kong is back.
    assert_eq!(kong.preflight(&wanted).await, Ok(()));
    node.start();
    enact(&kong, &wanted, &before).await.unwrap();
    assert_eq!(node.loaded("hello").as_deref(), Some("1.0.0"));
}

#[tokio::test]
async fn a_plugin_in_use_is_not_dropped() {
    let node = Node::started("");
    let kong = node.gateway();
    let wanted = node.plugin("hello", "1.0.0", "");
    let before = without("hello", None);
    enact(&kong, &wanted, &before).await.unwrap();
    let body = json!({"config": "_format_version: \"3.0\"\nplugins:\n- name: hello\n"});
    let (code, answer) = node.send("POST", "/config", body);
    assert_eq!(code, 201, "{answer}");
    let id = kctl_tests::until("the entity", 10, || {
        Some(node.get("/plugins").ok()?.1["data"].as_array()?.first()?["id"].as_str()?.to_owned())
    });
    let scanned = kong.scan(wanted.listed.keys().next().unwrap()).await.unwrap();
    assert_eq!(
        scanned.iter().map(|e| (e.id.as_str(), e.scope.as_str())).collect::<Vec<_>>(),
        [(id.as_str(), "global")]
    );
    let footprint = node.footprint();
    let failure = waiting(enact(&kong, &before, &wanted).await);
    assert_eq!(failure.code, "IN_USE_NOT_ENABLED", "{failure}");
    assert!(failure.message.contains("hello"), "{failure}");
    assert_eq!(node.footprint(), footprint);
}

#[tokio::test]
async fn files_around_kong_conf_are_respected() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    let node = Node::new("");
    let real = node.path("etc/kong.real.conf");
    std::fs::create_dir(node.path("etc")).unwrap();
    std::fs::rename(node.conf(), &real).unwrap();
    symlink(&real, node.conf()).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    node.start();
    let original = node.read_conf();
    let kong = node.gateway();
    let (wanted, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    enact(&kong, &wanted, &before).await.unwrap();
    assert!(std::fs::symlink_metadata(node.conf()).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&real).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(std::fs::read_dir(node.path("etc")).unwrap().count(), 1);
    let backups: Vec<_> =
        std::fs::read_dir(node.path("state/backup")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(backups.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect::<Vec<_>>(), [original]);
}

#[tokio::test]
async fn an_interrupted_edit_is_taken_back_by_name() {
    let node = Node::started("plugins = bundled\n");
    let kong = node.gateway();
    let original = node.read_conf();
    let (wanted, before) =
        (node.plugin("hello", "1.0.0", "function H:init_worker() error('boom') end"), Wanted::default());
    // `before` does not name the plugin at all; what was added is remembered.
    assert_eq!(put_back(enact(&kong, &wanted, &before).await).code, "INIT_WORKER_FAILED");
    assert_eq!(node.read_conf(), original);
    assert_eq!(node.loaded("hello"), None);
}

#[tokio::test]
async fn entities_are_found_and_deleted_by_id() {
    let Some((node, _database)) = Node::on_database() else { return };
    let kong = node.gateway();
    let wanted = node.plugin("hello", "1.0.0", "");
    enact(&kong, &wanted, &without("hello", None)).await.unwrap();
    assert_eq!(node.send("POST", "/services", json!({"name": "s", "url": "http://127.0.0.1:9"})).0, 201);
    let (code, service) = node.get("/services/s").unwrap();
    assert_eq!(code, 200);
    let target = format!("service={}", service["id"].as_str().unwrap());
    for path in ["/plugins", "/services/s/plugins"] {
        assert_eq!(node.send("POST", path, json!({"name": "hello"})).0, 201, "{path}");
    }
    assert_eq!(node.send("POST", "/plugins", json!({"name": "cors"})).0, 201);
    let name = wanted.listed.keys().next().unwrap();
    let found = kong.scan(name).await.unwrap();
    let mut shown: Vec<_> = found.iter().map(|e| (e.scope.as_str(), e.target.as_str())).collect();
    shown.sort_unstable();
    assert_eq!(shown, [("global", ""), ("service", target.as_str())]);
    assert!(found.iter().all(|e| e.body.contains("\"config\"")));
    assert_eq!(kong.observe().await.enabled_in_cluster.unwrap(), ["cors", "hello"].map(str::to_owned).into());
    for entity in &found {
        kong.delete_entity(&entity.id).await.unwrap();
        kong.delete_entity(&entity.id).await.unwrap();
    }
    assert_eq!(kong.scan(name).await, Ok(vec![]));
    assert_eq!(kong.delete_entity("../services/s").await.unwrap_err().code, "BAD_ENTITY_ID");
    enact(&kong, &without("hello", None), &wanted).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for() {
    let Some((node, database)) = Node::on_database() else { return };
    let kong = node.gateway();
    let (wanted, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    let footprint = node.footprint();
    assert_eq!(kong.preflight(&wanted).await, Ok(()));
    database.down();
    assert_eq!(waiting(enact(&kong, &wanted, &before).await).code, "DATABASE_UNREACHABLE");
    database.up();
    assert_eq!(node.footprint(), footprint);
    // It goes away between the preparation and the reload.
    let progress = |word: StepWord| {
        if word == StepWord::Reloading {
            database.down();
        }
    };
    assert_eq!(waiting(kong.enact(&wanted, &before, &progress).await).code, "DATABASE_UNREACHABLE");
    database.up();
    assert_eq!(node.footprint(), footprint);
    enact(&kong, &wanted, &before).await.unwrap();
    assert_eq!(node.loaded("hello").as_deref(), Some("1.0.0"));
}

#[tokio::test]
async fn an_entity_that_comes_back_at_the_last_moment_brings_the_plugin_back() {
    let Some((node, _database)) = Node::on_database() else { return };
    let kong = node.gateway();
    let (wanted, without) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    enact(&kong, &wanted, &without).await.unwrap();
    let conf = node.read_conf();
    let progress = |word: StepWord| {
        if word == StepWord::Reloading
            && node.get("/plugins").unwrap().1["data"].as_array().unwrap().is_empty()
        {
            assert_eq!(node.send("POST", "/plugins", json!({"name": "hello"})).0, 201);
        }
    };
    let failure = put_back(kong.enact(&without, &wanted, &progress).await);
    assert_eq!(failure.code, "IN_USE_NOT_ENABLED", "{failure}");
    assert_eq!(node.read_conf(), conf);
    assert_eq!(node.ready().0, 200);
    assert_eq!(kong.proven(&wanted).await, Ok(()));
    // The same with the entity in the way from the beginning: nothing is touched.
    assert_eq!(waiting(enact(&kong, &without, &wanted).await).code, "IN_USE_NOT_ENABLED");
    assert_eq!(node.ready().0, 200);
}

#[tokio::test]
async fn a_master_that_ends_over_a_plugin_is_told_and_its_files_are_put_back() {
    let node = Node::started("");
    let kong = node.gateway();
    let original = node.read_conf();
    let wanted =
        node.generation(&[("hello", "1.0.0", &[("handler.lua", "os.exit(0)"), ("schema.lua", SCHEMA)])]);
    let failure = kong.preflight(&wanted).await.unwrap_err();
    assert_eq!(failure.code, "PREFLIGHT_FAILED", "{failure}");
    // Without a preflight it ends the running one.
    let before = without("hello", None);
    match enact(&kong, &wanted, &before).await {
        Err(EnactError::NotPutBack(failure)) => assert_eq!(failure.code, "KONG_DOWN", "{failure}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.read_conf(), original);
    assert_eq!(kong.put_back(&before, &|_| {}).await.unwrap_err().code, "KONG_DOWN");
    kctl_tests::until("the old workers to be gone", 30, || {
        node.kill_orphans();
        node.get("/").is_err().then_some(())
    });
    // Kong takes a master that nobody has reaped yet for a running one.
    std::fs::remove_file(node.prefix().join("pids/nginx.pid")).unwrap();
    node.start();
    assert_eq!(kong.put_back(&before, &|_| {}).await, Ok(()));
}

#[tokio::test]
async fn an_agent_killed_anywhere_goes_on() {
    let node = Node::started("plugins = bundled\n");
    let original = node.read_conf();
    let (wanted, without) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    for step in 0..24 {
        let (to, from) = if step % 2 == 0 { (&wanted, &without) } else { (&without, &wanted) };
        let limit = std::time::Duration::from_millis(20 * (step / 2));
        // Dropped in the middle of whatever it does, its commands killed with it.
        let _given_up = tokio::time::timeout(limit, enact(&node.gateway(), to, from)).await;
        let kong = node.gateway();
        assert_eq!(enact(&kong, to, from).await, Ok(()), "step {step}");
        assert_eq!(node.loaded("hello").is_some(), step % 2 == 0);
        assert_eq!(kong.proven(to).await, Ok(()));
    }
    assert_eq!(node.read_conf(), original);
    assert_eq!(
        std::fs::read_dir(node.temp.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("kctl-new"))
            .count(),
        0
    );
}

#[tokio::test]
async fn a_prepare_killed_half_way_does_not_confuse() {
    let node = Node::started("plugins = bundled\nlog_level = warn\n");
    let kong = node.gateway();
    let (wanted, without) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    enact(&kong, &wanted, &without).await.unwrap();
    std::fs::remove_file(node.prefix().join(".kong_env")).unwrap();
    let kong = node.gateway();
    enact(&kong, &without, &wanted).await.unwrap();
    assert_eq!(node.loaded("hello"), None);
    assert_eq!(kong.proven(&without).await, Ok(()));
}

#[tokio::test]
async fn what_cannot_be_rendered_the_same_is_left_alone() {
    // `LUA_PATH` of whoever started Kong is in nginx's configuration, and would be lost.
    let node = Node::new("plugins = bundled\n").with_environment(&[("LUA_PATH", "/somewhere/?.lua;;")]);
    node.start();
    let kong = node.gateway();
    let wanted = node.plugin("hello", "1.0.0", "");
    let footprint = node.footprint();
    let failure = node::refused(enact(&kong, &wanted, &without("hello", None)).await);
    assert_eq!(failure.code, "EFFECTIVE_CONFIG_DIFFERS", "{failure}");
    assert!(failure.message.contains("LUA_PATH"), "{failure}");
    assert_eq!(node.footprint(), footprint);
}

#[tokio::test]
async fn every_odd_conf_and_command_has_its_code_and_changes_nothing() {
    let node = Node::started("plugins = bundled\n");
    let kong = node.gateway();
    let (wanted, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    let original = node.read_conf();
    let env = || node.footprint().1;
    let armed = env();
    for (code, text) in [
        ("CONF_EMPTY", Some(String::new())),
        ("CONF_TOO_LARGE", Some("#".repeat(2 << 20))),
        ("CONF_UNPARSABLE", Some(format!("{original}[\n"))),
        ("PLUGINS_QUOTED", Some(original.replace("plugins = bundled", "plugins = \"bundled\""))),
        ("PLUGINS_EMPTY", Some(original.replace("plugins = bundled", "plugins ="))),
        ("UNMANAGED_VALUE", Some(original.replace("plugins = bundled", "plugins = {vault://env/p}"))),
        ("CONF_MISSING", None),
    ] {
        std::fs::remove_file(node.conf()).unwrap();
        if let Some(text) = &text {
            node.write_conf(text);
        }
        assert_eq!(node::refused(enact(&kong, &wanted, &before).await).code, code);
        assert_eq!(kong.preflight(&wanted).await.unwrap_err().code, code);
        assert_eq!(std::fs::read_to_string(node.conf()).ok(), text, "{code}");
        node.write_conf(&original);
    }
    std::fs::remove_file(node.conf()).unwrap();
    std::fs::create_dir(node.conf()).unwrap();
    assert_eq!(kong.preflight(&wanted).await.unwrap_err().code, "CONF_NOT_A_FILE");
    assert_eq!(kong.observe().await.trouble.unwrap().code, "CONF_NOT_A_FILE");
    std::fs::remove_dir(node.conf()).unwrap();
    node.write_conf(&original);
    set_mode(&node.conf(), 0o444);
    assert_eq!(node::refused(enact(&kong, &wanted, &before).await).code, "CONF_READ_ONLY");
    set_mode(&node.conf(), 0o644);

    let script = node.path("fake");
    for (code, text) in [
        ("KONG_HANGS", "#!/bin/sh\nsleep 600 & sleep 600\n"),
        ("CONF_REFUSED", "#!/bin/sh\necho no >&2; exit 1\n"),
    ] {
        std::fs::write(&script, text).unwrap();
        set_mode(&script, 0o755);
        let limits = Limits { command: std::time::Duration::from_secs(1), ..Limits::default() };
        let kong = node.gateway_on(script.clone(), limits);
        assert_eq!(node::refused(enact(&kong, &wanted, &before).await).code, code);
    }
    let kong = node.gateway_on(node.path("nothing"), Limits::default());
    assert_eq!(node::refused(enact(&kong, &wanted, &before).await).code, "KONG_NOT_FOUND");
    assert_eq!((node.read_conf(), env()), (original, armed));
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
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
    assert_eq!(kong.proven(&second).await.unwrap_err().code, "RELOAD_NOT_TAKEN");
    enact(&kong, &second, &first).await.unwrap();
}

#[tokio::test]
async fn commands_run_as_the_user_who_owns_the_prefix() {
    use std::os::unix::fs::MetadataExt as _;
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can run Kong as somebody else; not tried");
        return;
    }
    let node = Node::new("plugins = bundled\nlog_level = info\n").run_by(NOBODY);
    node.start();
    let owner = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().uid();
    let kong = node.gateway_with(Preflight::Boot);
    let (wanted, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    assert_eq!(kong.preflight(&wanted).await, Ok(()));
    enact(&kong, &wanted, &before).await.unwrap();
    assert_eq!(owner(node.prefix().join(".kong_env")), NOBODY);
    assert_eq!(owner(node.conf()), 0);
    // What the workers cannot read is found out, though root could.
    let hidden = node.plugin("hello", "1.1.0", "");
    let directory = hidden.generation.clone().unwrap().join("kong/plugins/hello");
    set_mode(&directory.join("handler.lua"), 0o644);
    set_mode(&directory.join("schema.lua"), 0o600);
    let failure = kong.preflight(&hidden).await.unwrap_err();
    assert!(
        matches!(failure.code.as_str(), "NO_SCHEMA" | "PLUGIN_SYNTAX_ERROR" | "PREFLIGHT_FAILED"),
        "{failure}"
    );
    let failure = put_back(enact(&kong, &hidden, &wanted).await);
    eprintln!("{failure}");
    assert_eq!(kong.proven(&wanted).await, Ok(()));
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
            node::get(&proxy).ok().filter(|(code, _)| *code == 200)
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
