//! What does not load, is seen before anything is touched, or is put back.

use kctl_node_agent::config::Preflight;
use kctl_node_agent::gateway::{EnactError, Gateway as _};

use crate::node::{Node, SCHEMA, enact, handler, put_back, without};

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
        (
            "BAD_PRIORITY",
            "got: \"nil\"",
            vec![("handler.lua", "return { VERSION = \"1.0.0\" }"), ("schema.lua", SCHEMA)],
        ),
        (
            "BAD_VERSION",
            "got: \"nil\"",
            vec![("handler.lua", "return { PRIORITY = 1 }"), ("schema.lua", SCHEMA)],
        ),
        (
            "PREFLIGHT_FAILED",
            "thrown at load",
            vec![("handler.lua", "error(\"thrown at load\")"), ("schema.lua", SCHEMA)],
        ),
        (
            "PLUGIN_SYNTAX_ERROR",
            "schema.lua:1:",
            vec![("handler.lua", fine.as_str()), ("schema.lua", "return { name = ")],
        ),
        (
            "BAD_SCHEMA",
            "non-array daos",
            vec![
                ("handler.lua", fine.as_str()),
                ("schema.lua", SCHEMA),
                ("daos.lua", "return { things = { name = \"things\" } }"),
            ],
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
        let failure = kong.preflight(&wanted, kctl_node_agent::config::Preflight::Parse).await.unwrap_err();
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
    assert_eq!(kong.preflight(&init, kctl_node_agent::config::Preflight::Parse).await, Ok(()));
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
    assert_eq!(kong.preflight(&api, kctl_node_agent::config::Preflight::Parse).await, Ok(()));
    let failure = put_back(enact(&kong, &api, &good).await);
    assert_eq!(failure.code, "ADMIN_API_BROKEN", "{failure}");
    assert!(failure.message.contains("boom in api.lua"), "{failure}");
    assert_eq!((node.read_conf(), node.ready()), (conf, ready));
    assert_eq!(kong.proven(&good).await, Ok(()));

    // A boot sees both.
    let kong = node.gateway_with(Preflight::Boot);
    assert_eq!(
        kong.preflight(&init, kctl_node_agent::config::Preflight::Parse).await.unwrap_err().code,
        "INIT_WORKER_FAILED"
    );
    assert_eq!(
        kong.preflight(&api, kctl_node_agent::config::Preflight::Parse).await.unwrap_err().code,
        "ADMIN_API_BROKEN"
    );
    assert_eq!(kong.preflight(&good, kctl_node_agent::config::Preflight::Parse).await, Ok(()));
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
    let failure = kong
        .preflight(&node.plugin("hello", "1.0.0", ""), kctl_node_agent::config::Preflight::Parse)
        .await
        .unwrap_err();
    assert_eq!(failure.code, "NODE_ALREADY_BROKEN", "{failure}");
    assert!(failure.message.contains("ghost plugin is enabled but not installed"), "{failure}");
    assert_eq!(node.read_conf(), conf);
}

#[tokio::test]
async fn a_master_that_ends_over_a_plugin_is_told_and_its_files_are_put_back() {
    let node = Node::started("");
    let kong = node.gateway();
    let original = node.read_conf();
    let wanted =
        node.generation(&[("hello", "1.0.0", &[("handler.lua", "os.exit(0)"), ("schema.lua", SCHEMA)])]);
    let failure = kong.preflight(&wanted, kctl_node_agent::config::Preflight::Parse).await.unwrap_err();
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
