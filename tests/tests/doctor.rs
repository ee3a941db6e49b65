//! `kctl doctor --local` on prepared broken nodes: the true cause first, and healed where it says so. `KCTL_TEST_KONG` names
//! another Kong than the stand-in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "the node is shared with other tests")]

#[path = "doctor/bench.rs"]
mod bench;
#[path = "gateway_kong/database.rs"]
mod database;
#[path = "doctor/faults.rs"]
mod faults;
#[path = "gateway_kong/node.rs"]
mod node;
#[path = "doctor/versions.rs"]
mod versions;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use kctl_tests::cluster::{Ran, kctl_binary};
use kctl_tests::until;
use serde_json::{Value, json};

use bench::{codes, doctor, first, healed, load, place, ran, replace, tree, use_it, with_plugins};
use node::{Node, SCHEMA, handler};

#[test]
fn a_sound_node_has_nothing_and_nothing_is_touched() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    node.start();
    let footprint = node.footprint();
    let (exit, report) = doctor(&node, &[]);
    assert_eq!(exit, 0, "{report:#}");
    assert_eq!(report["status"], "ok");
    assert!(report["passed"].as_array().unwrap().len() > 5, "{report:#}");
    assert_eq!(doctor(&node, &["--fix"]).0, 0);
    assert_eq!(node.footprint(), footprint);
    let shown = ran(&node, &[]);
    assert!(shown.out.lines().all(|line| line.starts_with('✔')) && !shown.err.is_empty(), "{shown:?}");
}

#[test]
fn in_use_but_not_enabled_is_put_back_into_the_list() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    node.start();
    use_it(&node, "foo");
    replace(&node, "plugins = bundled,foo", "plugins = bundled");
    load(&node);
    let finding = until("the trouble to show", 20, || {
        let (_, report) = doctor(&node, &[]);
        codes(&report).contains(&"NOT_READY").then(|| report["findings"][0].clone())
    });
    assert_eq!(
        (&finding["code"], &finding["subject"], &finding["can_fix"]),
        (&"IN_USE_NOT_ENABLED".into(), &"foo".into(), &true.into())
    );
    healed(&node, &[]);
    assert!(node.read_conf().contains("plugins = bundled,foo"));
    assert_eq!(node.loaded("foo").as_deref(), Some("1.0.0"));
}

#[test]
fn enabled_but_not_installed_leaves_the_list_when_nothing_uses_it() {
    let node = with_plugins("plugins = bundled", &[]);
    node.start();
    replace(&node, "plugins = bundled", "plugins = bundled,ghost");
    load(&node);
    let finding = first(&node, "NO_HANDLER");
    assert!(
        finding["message"].as_str().unwrap().contains("ghost is enabled but not installed"),
        "{finding:#}"
    );
    assert!(
        finding["kong_says"].as_str().unwrap().contains("ghost plugin is enabled but not installed"),
        "{finding:#}"
    );
    healed(&node, &[]);
    assert!(node.read_conf().contains("plugins = bundled\n"), "{}", node.read_conf());
    assert_eq!(node.get("/").unwrap().0, 200);
}

#[test]
fn plugins_that_do_not_load_are_told_by_their_true_reason_whether_kong_runs_or_not() {
    let cases: [(&str, Option<&str>, Option<&str>); 8] = [
        ("NO_SCHEMA", Some("return { PRIORITY = 1, VERSION = \"1.0.0\" }"), None),
        (
            "PLUGIN_SYNTAX_ERROR",
            Some("local H = { PRIORITY = 1\nfunction H:access() end\nreturn H"),
            Some(SCHEMA),
        ),
        (
            "MISSING_DEPENDENCY",
            Some("require \"resty.nowhere\"\nreturn { PRIORITY = 1, VERSION = \"1.0.0\" }"),
            Some(SCHEMA),
        ),
        (
            "OLD_STYLE_PLUGIN",
            Some("local Base = require \"kong.plugins.base_plugin\"\nlocal H = Base:extend()\nreturn H"),
            Some("return { no_consumer = true, fields = { key = { type = \"string\" } } }"),
        ),
        ("BAD_PRIORITY", Some("return { PRIORITY = \"high\", VERSION = \"1.0.0\" }"), Some(SCHEMA)),
        ("BAD_VERSION", Some("return { PRIORITY = 1, VERSION = \"1.2.3.4\" }"), Some(SCHEMA)),
        (
            "BAD_SCHEMA",
            Some("return { PRIORITY = 1, VERSION = \"1.0.0\" }"),
            Some("return { name = \"NAME\", fields = { { config = { type = \"nonsense\" } } } }"),
        ),
        (
            "INIT_WORKER_FAILED",
            Some(
                "local H = { PRIORITY = 1, VERSION = \"1.0.0\" }\nfunction H:init_worker() error(\"boom\") end\nreturn H",
            ),
            Some(SCHEMA),
        ),
    ];
    let node = with_plugins("plugins = bundled,bad", &["bad"]);
    for (code, handler, schema) in cases {
        fs::remove_dir_all(tree(&node, "bad")).unwrap();
        fs::create_dir_all(tree(&node, "bad")).unwrap();
        for (file, text) in [("handler.lua", handler), ("schema.lua", schema)] {
            if let Some(text) = text {
                fs::write(tree(&node, "bad").join(file), text.replace("NAME", "bad")).unwrap();
            }
        }
        let finding = first(&node, code);
        assert_eq!(finding["subject"], "bad", "{finding:#}");
        let (_, report) = doctor(&node, &[]);
        assert!(codes(&report).contains(&"KONG_DOWN"), "{report:#}");
    }
}

#[test]
fn files_that_workers_cannot_read_are_opened() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can run workers as somebody else; not tried");
        return;
    }
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    node.start();
    let set = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(tree(&node, "foo").join("handler.lua"), 0o600);
    set(tree(&node, "foo"), 0o700);
    let (exit, report) = doctor(&node, &[]);
    // The stand-in's workers stay who they are.
    if exit == 0 {
        assert!(std::env::var_os("KCTL_TEST_KONG").is_none(), "{report:#}");
        node.stop();
    }
    let finding = first(&node, "FILES_UNREADABLE");
    assert!(finding["details"].to_string().contains("handler.lua"), "{finding:#}");
    let (_, report) = doctor(&node, &["--fix"]);
    assert!(!codes(&report).contains(&"FILES_UNREADABLE"), "{report:#}");
    assert_eq!(
        fs::metadata(tree(&node, "foo").join("handler.lua")).unwrap().permissions().mode() & 0o777,
        0o644
    );
}

#[test]
fn lines_of_kong_conf_that_mean_something_else_are_corrected() {
    for (code, line, allowed) in [
        ("CONF_KEY_UNKNOWN", "plugin = bundled,foo", true),
        ("PLUGINS_QUOTED", "plugins = \"bundled,foo\"", true),
        ("CONF_SECTION", "[kong]\nplugins = bundled,foo", false),
        ("CONF_KEY_TWICE", "plugins = bundled,foo\nplugins = bundled", false),
        ("PLUGINS_EMPTY", "plugins =", false),
    ] {
        let node = with_plugins("plugins = bundled,foo", &["foo"]);
        node.start();
        use_it(&node, "foo");
        replace(&node, "plugins = bundled,foo", line);
        let finding = first(&node, code);
        assert_eq!(
            (&finding["can_fix"], &finding["asks"]),
            (&true.into(), &(!allowed).into()),
            "{finding:#}"
        );
        if !allowed {
            let before = node.read_conf();
            let denied = ran(&node, &["--fix"]);
            assert_eq!(denied.code, 64, "{denied:?}");
            assert!(denied.err.contains("CONSENT_REQUIRED"), "{denied:?}");
            assert_eq!(node.read_conf(), before);
        }
        let footprint = node.workers();
        healed(&node, if allowed { &[] } else { &["--yes"] });
        assert_ne!(node.workers(), footprint, "it was loaded");
        assert_eq!(node.loaded("foo").as_deref(), Some("1.0.0"), "{code}");
        assert!(node.read_conf().contains("plugins = bundled,foo"), "{}", node.read_conf());
    }
}

#[test]
fn what_runs_is_compared_with_what_is_written() {
    let node = with_plugins("plugins = bundled", &["foo"]);
    node.start();
    replace(&node, "plugins = bundled", "plugins = bundled,foo");
    first(&node, "CONF_NOT_PREPARED");
    let (conf, prefix) = (node.conf(), node.prefix());
    let prepared = node.kong(&["prepare", "-c", conf.to_str().unwrap(), "-p", prefix.to_str().unwrap()]);
    assert!(prepared.status.success());
    first(&node, "PREPARED_NOT_RELOADED");
    healed(&node, &[]);
    assert_eq!(node.loaded("foo").as_deref(), Some("1.0.0"));
}

#[test]
fn an_environment_that_wins_over_the_file_is_named() {
    let node =
        with_plugins("plugins = bundled,foo", &["foo"]).with_environment(&[("KONG_PLUGINS", "bundled")]);
    node.start();
    let finding = first(&node, "ENV_OVERRIDES_CONF");
    assert!(finding["message"].as_str().unwrap().contains("KONG_PLUGINS"), "{finding:#}");
    assert_eq!(finding["can_fix"], false);
    let footprint = node.footprint();
    assert_eq!(doctor(&node, &["--fix"]).0, 1);
    assert_eq!(node.footprint(), footprint);
}

#[test]
fn another_file_than_the_one_kong_runs_with_is_found_out() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    node.start();
    let other = node.path("other.conf");
    let text = node
        .read_conf()
        .replace("plugins = bundled,foo", "plugins = bundled")
        .replace("nginx_worker_processes = 2", "nginx_worker_processes = 1");
    let text = text
        .replace("anonymous_reports = off", "anonymous_reports = on")
        .replace("admin_gui_listen = off\n", "");
    fs::write(&other, text + "log_level = debug\n").unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().append(true).open(&other).unwrap().set_modified(old).unwrap();
    let mut command = Command::new(kctl_binary());
    command.args([
        "doctor",
        "--local",
        "--conf",
        other.to_str().unwrap(),
        "--kong",
        node.bin.to_str().unwrap(),
        "-o",
        "json",
    ]);
    let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(codes(&report).first(), Some(&"WRONG_CONF"), "{report:#}");
    assert!(report["findings"][0]["message"].as_str().unwrap().contains("kong.conf"), "{report:#}");
}

#[test]
fn links_to_nowhere_and_second_copies_are_told() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    fs::rename(tree(&node, "foo"), node.path("elsewhere")).unwrap();
    symlink(node.path("elsewhere"), tree(&node, "foo")).unwrap();
    node.start();
    assert_eq!(doctor(&node, &[]).0, 0);
    fs::rename(node.path("elsewhere"), node.path("moved")).unwrap();
    let finding = first(&node, "LINK_DANGLING");
    assert_eq!(finding["subject"], "foo");
    fs::rename(node.path("moved"), node.path("elsewhere")).unwrap();
    let path = format!("{}/?.lua;", node.path("second").display());
    replace(&node, "lua_package_path = ", &format!("lua_package_path = {path}"));
    let second = node.path("second/kong/plugins/foo");
    fs::create_dir_all(&second).unwrap();
    fs::write(second.join("handler.lua"), handler("9.0.0", "")).unwrap();
    fs::write(second.join("schema.lua"), SCHEMA.replace("NAME", "foo")).unwrap();
    load(&node);
    until("the new copy", 20, || (node.loaded("foo").as_deref() == Some("9.0.0")).then_some(()));
    let finding = first(&node, "FILES_SHADOWED");
    assert!(finding["message"].as_str().unwrap().contains("second"), "{finding:#}");
}

#[test]
fn processes_are_told_apart() {
    let node = with_plugins("plugins = bundled", &[]);
    node.start();
    node.signal("STOP");
    until("the master to be held", 10, || {
        codes(&doctor(&node, &[]).1).contains(&"KONG_STOPPED").then_some(())
    });
    first(&node, "KONG_STOPPED");
    let (exit, report) = doctor(&node, &["--fix", "--yes"]);
    assert_eq!(exit, 0, "{report:#}");
    let pid = node.pid().unwrap();
    node.stop();
    first(&node, "KONG_DOWN");
    // The number belongs to somebody else by now.
    fs::write(node.prefix().join("pids/nginx.pid"), format!("{}\n", std::process::id())).unwrap();
    let finding = first(&node, "STALE_PID_FILE");
    assert!(finding["message"].as_str().unwrap().contains("doctor"), "{finding:#} {pid}");
    let (_, report) = doctor(&node, &["--fix"]);
    assert_eq!(codes(&report), ["KONG_DOWN"], "{report:#}");
    assert!(node.pid().is_none());
}

#[test]
fn a_node_with_a_database_is_asked_for_it() {
    let Some((node, database)) = Node::on_database() else { return };
    assert_eq!(doctor(&node, &[]).0, 0);
    database.down();
    first(&node, "DATABASE_UNREACHABLE");
    let footprint = node.read_conf();
    assert_eq!(doctor(&node, &["--fix"]).0, 1);
    assert_eq!(node.read_conf(), footprint);
    database.up();
    until("the database", 20, || (doctor(&node, &[]).0 == 0).then_some(()));
}

#[test]
fn a_configuration_in_the_database_keeps_its_plugin_listed() {
    let Some((node, _database)) = Node::on_database() else { return };
    let text = format!(
        "{}lua_package_path = {}/?.lua;;\nplugins = bundled,foo\n",
        node.read_conf(),
        node.path("lua").display()
    );
    node.write_conf(&text);
    place(&node, "foo", "");
    load(&node);
    until("foo", 20, || node.loaded("foo"));
    // Workers of before may answer for a moment.
    until("a configuration", 20, || {
        (node.send("POST", "/plugins", json!({ "name": "foo" })).0 == 201).then_some(())
    });
    replace(&node, "plugins = bundled,foo", "plugins = bundled");
    let finding = first(&node, "IN_USE_NOT_ENABLED");
    assert!(
        finding["details"][0].as_str().unwrap().contains("1 configuration(s) reference it"),
        "{finding:#}"
    );
    if std::env::var_os("KCTL_TEST_KONG").is_some() {
        // Nobody answers for a Kong that is down; its database does.
        node.stop();
        first(&node, "IN_USE_NOT_ENABLED");
        let (_, report) = doctor(&node, &["--fix"]);
        assert_eq!(codes(&report), ["KONG_DOWN"], "{report:#}");
        node.start();
    } else {
        healed(&node, &[]);
    }
    assert_eq!(node.loaded("foo").as_deref(), Some("1.0.0"));
}

#[test]
fn what_kong_cannot_be_asked_for_is_told_and_ends() {
    let node = with_plugins("plugins = bundled,foo,ghost", &["foo"]);
    let with = |kong: &str| {
        let mut command = Command::new(kctl_binary());
        command.args([
            "doctor",
            "--local",
            "--conf",
            node.conf().to_str().unwrap(),
            "--kong",
            kong,
            "-o",
            "json",
        ]);
        let ran: Ran = command.output().unwrap().into();
        (ran.code, serde_json::from_str::<Value>(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}")))
    };
    let (exit, report) = with("/nowhere/kong");
    assert_eq!((exit, codes(&report)[0]), (1, "KONG_NOT_FOUND"), "{report:#}");
    // Files alone tell this much.
    assert!(codes(&report).contains(&"NO_HANDLER"), "{report:#}");
    for (code, text) in [
        ("CONF_EMPTY", Some(String::new())),
        ("CONF_UNPARSABLE", Some(format!("{}[\n", node.read_conf()))),
        ("CONF_REFUSED", Some(format!("{}log_level = nonsense\n", node.read_conf()))),
        ("NGINX_DIRECTIVE_INVALID", Some(format!("{}nginx_proxy_no_such_directive = 1\n", node.read_conf()))),
        ("CONF_MISSING", None),
    ] {
        let before = node.read_conf();
        match &text {
            Some(text) => node.write_conf(text),
            None => fs::remove_file(node.conf()).unwrap(),
        }
        let (exit, report) = with(node.bin.to_str().unwrap());
        assert_eq!((exit, codes(&report)[0]), (1, code), "{report:#}");
        node.write_conf(&before);
    }
    let usage = Command::new(kctl_binary()).args(["doctor", "--conf", "/x"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(64));
}

#[test]
fn a_setting_that_stayed_after_it_was_taken_out_is_prepared_away() {
    let node = with_plugins("plugins = bundled", &[]);
    node.start();
    let sound = node.read_conf();
    node.write_conf(&format!("{sound}nginx_proxy_no_such_directive = 1\n"));
    let (conf, prefix) = (node.conf(), node.prefix());
    let reloaded = node.kong(&["reload", "-c", conf.to_str().unwrap(), "-p", prefix.to_str().unwrap()]);
    assert!(!reloaded.status.success());
    node.write_conf(&sound);
    let finding = first(&node, "NGINX_DIRECTIVE_INVALID");
    assert!(finding["kong_says"].as_str().unwrap().contains("no_such_directive"), "{finding:#}");
    healed(&node, &[]);
}
