//! Ways to break a node that need surroundings of their own, and mistakes that hide one another.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::chown;

use kctl_tests::small::Small;
use kctl_tests::until;
use serde_json::json;

use crate::bench::{codes, doctor, first, healed, load, place, ran, replace, tree, use_it, with_plugins};
use crate::node::{SCHEMA, handler};

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("only root can do this to a node; not tried");
    }
    root
}

#[test]
fn an_api_that_takes_the_admin_api_down_is_named_and_goes() {
    let node = with_plugins("plugins = bundled,foo,bar", &["foo", "bar"]);
    fs::write(tree(&node, "foo").join("api.lua"), "error('no api today')\n").unwrap();
    node.start();
    assert_eq!(node.get("/").unwrap().0, 500);
    let finding = first(&node, "ADMIN_API_BROKEN");
    assert_eq!((&finding["subject"], &finding["can_fix"]), (&"foo".into(), &true.into()), "{finding:#}");
    assert!(finding["kong_says"].as_str().unwrap().contains("no api today"), "{finding:#}");
    healed(&node, &["--yes"]);
    assert!(node.read_conf().contains("plugins = bundled,bar\n"), "{}", node.read_conf());
    assert_eq!(node.loaded("bar").as_deref(), Some("1.0.0"));
}

#[test]
fn an_api_that_was_mended_meanwhile_only_has_to_be_loaded() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    // Each worker loads it when it is asked for the first time.
    replace(&node, "nginx_worker_processes = 2", "nginx_worker_processes = 1");
    fs::write(tree(&node, "foo").join("api.lua"), "error('no api today')\n").unwrap();
    node.start();
    assert_eq!(node.get("/").unwrap().0, 500);
    fs::write(tree(&node, "foo").join("api.lua"), "return {}\n").unwrap();
    let finding = first(&node, "ADMIN_API_BROKEN");
    assert_eq!((&finding["can_fix"], &finding["asks"]), (&true.into(), &false.into()), "{finding:#}");
    healed(&node, &[]);
    assert_eq!(node.loaded("foo").as_deref(), Some("1.0.0"));
}

#[test]
fn a_lua_path_of_whoever_ran_the_command_is_found_out() {
    let node = with_plugins("plugins = bundled", &[]);
    let path = node.path("stray").display().to_string() + "/?.lua";
    let stray = format!("{path};;");
    let node = node.with_environment(&[("LUA_PATH", &stray)]);
    node.start();
    let finding = first(&node, "LUA_PATH_LEAKED");
    assert!(finding["details"].to_string().contains(&path), "{finding:#}");
    assert_eq!(ran(&node, &["--fix"]).code, 64);
    healed(&node, &["--yes"]);
}

#[test]
fn a_plugin_that_only_a_stray_lua_path_finds_is_not_taken_out() {
    let node = with_plugins("plugins = bundled,foo", &[]);
    let path = node.path("stray").display().to_string() + "/?.lua";
    let stray = format!("{path};;");
    let there = node.path("stray/kong/plugins/foo");
    fs::create_dir_all(&there).unwrap();
    fs::write(there.join("handler.lua"), handler("1.0.0", "")).unwrap();
    fs::write(there.join("schema.lua"), SCHEMA.replace("NAME", "foo")).unwrap();
    let node = node.with_environment(&[("LUA_PATH", &stray)]);
    node.start();
    let finding = first(&node, "LUA_PATH_LEAKED");
    assert_eq!((&finding["subject"], &finding["can_fix"]), (&"foo".into(), &false.into()), "{finding:#}");
    let footprint = node.footprint();
    assert_eq!(doctor(&node, &["--fix", "--yes"]).0, 1);
    assert_eq!(node.footprint(), footprint);
    // As the fix line says.
    let (_, report) = doctor(&node, &[]);
    assert!(report["findings"][0]["fix"].as_str().unwrap().contains("lua_package_path"), "{report:#}");
    replace(&node, "/?.lua;;", &format!("/?.lua;{path};;"));
    healed(&node, &["--yes"]);
    assert_eq!(node.loaded("foo").as_deref(), Some("1.0.0"));
}

#[test]
fn a_reload_that_was_thrown_away_is_caught_up_when_its_cause_is_gone() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    node.start();
    use_it(&node, "foo");
    until("readiness", 20, || (node.ready().0 == 200).then_some(()));
    let file = tree(&node, "foo").join("handler.lua");
    fs::write(&file, "return {").unwrap();
    load(&node);
    until("the refusal", 20, || (node.ready().0 == 503).then_some(()));
    let finding = first(&node, "PLUGIN_SYNTAX_ERROR");
    assert_eq!((&finding["subject"], &finding["can_fix"]), (&"foo".into(), &false.into()), "{finding:#}");
    let (exit, report) = doctor(&node, &["--fix", "--yes"]);
    assert_eq!(exit, 1, "{report:#}");
    for code in ["RELOAD_NOT_TAKEN", "NOT_READY", "RESTART_WOULD_FAIL"] {
        assert!(codes(&report).contains(&code), "{code}: {report:#}");
    }
    fs::write(&file, handler("1.1.0", "")).unwrap();
    first(&node, "RELOAD_NOT_TAKEN");
    healed(&node, &[]);
    assert_eq!(node.ready().0, 200);
    assert_eq!(node.loaded("foo").as_deref(), Some("1.1.0"));
}

#[test]
fn a_drained_node_is_told_and_taken_back() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    node.start();
    use_it(&node, "foo");
    until("readiness", 20, || (node.ready().0 == 200).then_some(()));
    let prefix = node.prefix();
    assert!(node.kong(&["drain", "-p", prefix.to_str().unwrap()]).status.success());
    until("the drain", 20, || (node.ready().0 == 503).then_some(()));
    first(&node, "DRAINING");
    assert_eq!(ran(&node, &["--fix"]).code, 64);
    healed(&node, &["--yes"]);
    assert_eq!(node.ready().0, 200);
}

#[test]
fn workers_that_finish_old_requests_are_counted() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    node.start();
    // A request whose head does not come to an end holds its worker.
    let mut request = TcpStream::connect(("127.0.0.1", node.ports[0])).unwrap();
    request.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
    load(&node);
    let finding = until("workers of an age", 40, || {
        let (exit, report) = doctor(&node, &[]);
        let finding = report["findings"][0].clone();
        (finding["code"] == "OLD_WORKERS").then(|| assert_eq!(exit, 2, "{report:#}"))?;
        Some(finding)
    });
    assert_eq!(finding["can_fix"], false, "{finding:#}");
    request.write_all(b"Connection: close\r\n\r\n").unwrap();
    let _answer = request.read_to_end(&mut Vec::new());
    until("a sound node", 20, || (doctor(&node, &[]).0 == 0).then_some(()));
}

#[test]
fn a_declarative_file_that_names_an_unlisted_plugin_has_it_listed() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    let file = node.path("kong.yml");
    fs::write(&file, "_format_version: \"3.0\"\nplugins:\n- name: foo\n").unwrap();
    node.write_conf(&format!("{}declarative_config = {}\n", node.read_conf(), file.display()));
    node.start();
    assert_eq!(doctor(&node, &[]).0, 0);
    replace(&node, "plugins = bundled,foo", "plugins = bundled");
    let finding = first(&node, "IN_USE_NOT_ENABLED");
    assert_eq!((&finding["subject"], &finding["can_fix"]), (&"foo".into(), &true.into()), "{finding:#}");
    node.stop();
    let finding = first(&node, "IN_USE_NOT_ENABLED");
    assert!(finding["details"].to_string().contains("declarative"), "{finding:#}");
    let (_, report) = doctor(&node, &["--fix"]);
    assert_eq!(codes(&report), ["KONG_DOWN"], "{report:#}");
    node.start();
    assert_eq!(node.loaded("foo").as_deref(), Some("1.0.0"));
    assert_eq!(doctor(&node, &[]).0, 0);
}

#[test]
fn a_prefix_that_kong_cannot_write_is_told() {
    if !is_root() {
        return;
    }
    let node = with_plugins("plugins = bundled,foo", &["foo"]).run_by(4321);
    node.start();
    assert_eq!(doctor(&node, &[]).0, 0);
    chown(node.prefix(), Some(0), Some(0)).unwrap();
    first(&node, "PREFIX_NOT_WRITABLE");
    let before = node.read_conf();
    assert_eq!(doctor(&node, &["--fix", "--yes"]).0, 1);
    assert_eq!(node.read_conf(), before);
    chown(node.prefix(), Some(4321), Some(4321)).unwrap();
    assert_eq!(doctor(&node, &[]).0, 0);
}

#[test]
fn a_full_disk_comes_before_everything_that_it_hinders() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    let Some(small) = Small::mount(&node.prefix(), "size=64m") else { return };
    node.start();
    assert_eq!(doctor(&node, &[]).0, 0);
    let ballast = small.fill(0);
    replace(&node, "plugins = bundled,foo", "plugins = bundled,foo,ghost");
    let before = node.read_conf();
    first(&node, "DISK_FULL");
    let (exit, report) = doctor(&node, &["--fix", "--yes"]);
    assert_eq!(exit, 1, "{report:#}");
    assert_eq!(node.read_conf(), before);
    fs::remove_file(&ballast).unwrap();
    first(&node, "NO_HANDLER");
    healed(&node, &[]);
    // The prefix must outlive its Kong.
    node.stop();
}

#[test]
fn mistakes_behind_mistakes_are_mended_in_one_go() {
    for (lines, args) in [
        ("plugin = bundled,foo\nlog_levl = notice", &[][..]),
        ("plugins = \"bundled,foo\"\nlog_levl = notice", &[]),
        ("plugin = bundled,foo,ghost", &[]),
        ("plugin = \"bundled,foo\"", &[]),
        ("plugins = \"bundled\",\"foo\",\"ghost\"", &[]),
        ("[kong]\nplugins = \"bundled,foo\"", &["--yes"]),
        ("[kong]\nplugin = bundled,foo", &["--yes"]),
        ("plugins = \"foo\"\nplugins = bundled,ghost", &["--yes"]),
    ] {
        let node = with_plugins("plugins = bundled,foo", &["foo"]);
        node.start();
        use_it(&node, "foo");
        replace(&node, "plugins = bundled,foo", lines);
        let (exit, report) = doctor(&node, &[]);
        assert_eq!(exit, 1, "{lines}: {report:#}");
        let (exit, report) = doctor(&node, &[&["--fix"], args].concat());
        assert_eq!(exit, 0, "{lines}: {report:#}");
        assert_eq!(doctor(&node, &[]).0, 0, "{lines}");
        assert_eq!(node.loaded("foo").as_deref(), Some("1.0.0"), "{lines}");
        assert!(!node.read_conf().contains("ghost"), "{lines}: {}", node.read_conf());
        let list = node.read_conf().lines().filter(|l| l.starts_with("plugins = ")).count();
        assert_eq!(list, 1, "{lines}: {}", node.read_conf());
    }
}

#[test]
fn what_was_left_out_on_the_way_is_said() {
    let node = with_plugins("plugins = bundled,foo", &["foo"]);
    node.start();
    use_it(&node, "foo");
    replace(&node, "plugins = bundled,foo", "plugin = bundled,foo,ghost");
    let (_, report) = doctor(&node, &["--fix"]);
    let fixed = report["fixed"].as_array().unwrap();
    assert!(fixed.contains(&json!("NO_HANDLER")), "{report:#}");
    place(&node, "ghost", "");
    assert_eq!(doctor(&node, &[]).0, 0);
}
