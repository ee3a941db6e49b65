//! What a node's environment, files and users may be like.

use kctl_node_agent::config::Preflight;
use kctl_node_agent::gateway::Gateway as _;
use kctl_node_agent::gateway::kong::Limits;

use crate::node::{Node, enact, put_back, refused, without};

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
    assert_eq!(kong.preflight(&wanted, kctl_node_agent::config::Preflight::Parse).await, Ok(()));
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
    assert_eq!(
        kong.preflight(&wanted, kctl_node_agent::config::Preflight::Parse).await.unwrap_err().code,
        "ENV_OVERRIDES_CONF"
    );
    let failure = refused(enact(&kong, &wanted, &without("hello", None)).await);
    assert_eq!(failure.code, "ENV_OVERRIDES_CONF", "{failure}");
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
async fn what_cannot_be_rendered_the_same_is_left_alone() {
    // `LUA_PATH` of whoever started Kong is in nginx's configuration, and would be lost.
    let node = Node::new("plugins = bundled\n").with_environment(&[("LUA_PATH", "/somewhere/?.lua;;")]);
    node.start();
    let kong = node.gateway();
    let wanted = node.plugin("hello", "1.0.0", "");
    let footprint = node.footprint();
    let failure = refused(enact(&kong, &wanted, &without("hello", None)).await);
    assert_eq!(failure.code, "EFFECTIVE_CONFIG_DIFFERS", "{failure}");
    assert!(failure.message.contains("LUA_PATH"), "{failure}");
    assert_eq!(node.footprint(), footprint);
}

#[tokio::test]
async fn a_kong_that_is_a_script_with_a_lua_path_of_its_own_is_no_hindrance() {
    let mut node = Node::new("plugins = bundled\n");
    let script = node.path("kong");
    let text = format!(
        "#!/bin/sh\nLUA_PATH=\"${{LUA_PATH:+$LUA_PATH;}}/rocks/of/kong/?.lua;;\"\nexport LUA_PATH\nexec {} \"$@\"\n",
        node.bin.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    node.bin = script;
    node.start();
    let (wanted, before) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    enact(&node.gateway(), &wanted, &before).await.unwrap();
    enact(&node.gateway(), &before, &wanted).await.unwrap();
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
        assert_eq!(refused(enact(&kong, &wanted, &before).await).code, code);
        assert_eq!(
            kong.preflight(&wanted, kctl_node_agent::config::Preflight::Parse).await.unwrap_err().code,
            code
        );
        assert_eq!(std::fs::read_to_string(node.conf()).ok(), text, "{code}");
        node.write_conf(&original);
    }
    std::fs::remove_file(node.conf()).unwrap();
    std::fs::create_dir(node.conf()).unwrap();
    assert_eq!(
        kong.preflight(&wanted, kctl_node_agent::config::Preflight::Parse).await.unwrap_err().code,
        "CONF_NOT_A_FILE"
    );
    assert_eq!(kong.observe().await.trouble.unwrap().code, "CONF_NOT_A_FILE");
    std::fs::remove_dir(node.conf()).unwrap();
    node.write_conf(&original);
    set_mode(&node.conf(), 0o444);
    assert_eq!(refused(enact(&kong, &wanted, &before).await).code, "CONF_READ_ONLY");
    set_mode(&node.conf(), 0o644);

    let script = node.path("fake");
    for (code, text) in [
        ("KONG_HANGS", "#!/bin/sh\nsleep 600 & sleep 600\n"),
        ("KONG_NOT_RUNNABLE", "#!/bin/sh\necho no >&2; exit 1\n"),
        ("KONG_VERSION_UNKNOWN", "#!/bin/sh\necho hello\n"),
        ("KONG_VERSION_UNKNOWN", "#!/bin/sh\necho 9.0.0\n"),
        ("KONG_VERSION_UNSUPPORTED", "#!/bin/sh\necho 0.9.5\n"),
        ("CONF_REFUSED", "#!/bin/sh\n[ \"$1\" = version ] && exec echo 3.9.1\necho no >&2; exit 1\n"),
    ] {
        std::fs::write(&script, text).unwrap();
        set_mode(&script, 0o755);
        let limits = Limits { command: std::time::Duration::from_secs(1), ..Limits::default() };
        let kong = node.gateway_on(script.clone(), limits);
        assert_eq!(refused(enact(&kong, &wanted, &before).await).code, code);
    }
    let kong = node.gateway_on(node.path("nothing"), Limits::default());
    assert_eq!(refused(enact(&kong, &wanted, &before).await).code, "KONG_NOT_FOUND");
    assert_eq!((node.read_conf(), env()), (original, armed));
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
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
    assert_eq!(kong.preflight(&wanted, kctl_node_agent::config::Preflight::Parse).await, Ok(()));
    enact(&kong, &wanted, &before).await.unwrap();
    assert_eq!(owner(node.prefix().join(".kong_env")), NOBODY);
    assert_eq!(owner(node.conf()), 0);
    // What the workers cannot read is found out, though root could.
    let hidden = node.plugin("hello", "1.1.0", "");
    let directory = hidden.generation.clone().unwrap().join("kong/plugins/hello");
    set_mode(&directory.join("handler.lua"), 0o644);
    set_mode(&directory.join("schema.lua"), 0o600);
    let failure = kong.preflight(&hidden, kctl_node_agent::config::Preflight::Parse).await.unwrap_err();
    assert!(
        matches!(failure.code.as_str(), "NO_SCHEMA" | "PLUGIN_SYNTAX_ERROR" | "PREFLIGHT_FAILED"),
        "{failure}"
    );
    let failure = put_back(enact(&kong, &hidden, &wanted).await);
    eprintln!("{failure}");
    assert_eq!(kong.proven(&wanted).await, Ok(()));
}
