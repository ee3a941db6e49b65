//! Kongs of other ages, each played by the stand-in under that version's name: read in their own grammar, or refused.

use std::fs;
use std::os::unix::fs::symlink;

use crate::bench::{codes, doctor, ran};
use crate::node::{Node, SCHEMA};

const CLASS: &str = "local Base = require \"kong.plugins.base_plugin\"\nlocal H = Base:extend()\nH.PRIORITY = 10\nH.VERSION = \
                     \"1.0.0\"\nfunction H:new() H.super.new(self, \"foo\") end\nfunction H:access(conf) H.super.access(self) \
                     end\nreturn H\n";
const OLD_SCHEMA: &str = "return { fields = { value = { type = \"string\" } } }\n";

/// A plugin where Lua finds it, in the form that all Kongs before 3.0 take.
fn install(node: &Node, name: &str) {
    let directory = node.path("lua/kong/plugins").join(name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("handler.lua"), CLASS.replace("foo", name)).unwrap();
    let schema = if node.since(1, 0) { SCHEMA.replace("NAME", name) } else { OLD_SCHEMA.into() };
    fs::write(directory.join("schema.lua"), schema).unwrap();
}

/// Lists `names` behind what is there already.
fn list(node: &Node, names: &[&str]) {
    let root = node.path("lua").display().to_string();
    let text = node.read_conf();
    let text = if node.since(0, 9) {
        let lines: String = text.lines().filter(|l| !is_list(l)).map(|l| format!("{l}\n")).collect();
        let list = if node.since(1, 0) { "plugins = bundled," } else { "custom_plugins = " };
        format!("{lines}lua_package_path = {root}/?.lua;;\n{list}{}\n", names.join(","))
    } else {
        let new = names.iter().map(|name| format!("  - {name}\n")).filter(|item| !text.contains(item));
        let items: String = new.collect();
        let text = text.replace("';;'", &format!("'{root}/?.lua;;'"));
        match node.since(0, 6) {
            true => text.replace("custom_plugins:\n", &format!("custom_plugins:\n{items}")),
            false => text.replace("plugins_available:\n", &format!("plugins_available:\n{items}")),
        }
    };
    node.write_conf(&text);
}

fn is_list(line: &str) -> bool {
    line.starts_with("lua_package_path =")
        || line.starts_with("plugins =")
        || line.starts_with("custom_plugins =")
}

/// Loaded as that Kong loads things.
fn load(node: &Node) {
    let (conf, prefix) = (node.conf(), node.prefix());
    let (conf, prefix) = (conf.to_str().unwrap(), prefix.to_str().unwrap());
    let done = if node.since(0, 11) {
        assert!(node.kong(&["prepare", "-c", conf, "-p", prefix]).status.success());
        node.kong(&["reload", "-p", prefix])
    } else {
        node.kong(&["restart", "-c", conf])
    };
    assert!(done.status.success(), "{done:?}");
    kctl_tests::until("the plugin", 20, || (node.get("/").is_ok() && node.has("foo")).then_some(()));
}

fn key(node: &Node) -> &'static str {
    match (node.since(0, 14), node.since(0, 6)) {
        (true, _) => "plugins",
        (false, true) => "custom_plugins",
        (false, false) => "plugins_available",
    }
}

fn is_sound_is_broken_and_is_healed(version: &str) {
    let Some(node) = Node::of_version(version) else { return };
    install(&node, "foo");
    list(&node, &["foo"]);
    load(&node);
    // Workers of before may answer for a moment.
    kctl_tests::until("a sound node", 20, || codes(&doctor(&node, &[]).1).is_empty().then_some(()));
    let sound = node.read_conf();

    list(&node, &["foo", "ghost"]);
    let (exit, report) = doctor(&node, &[]);
    assert_eq!((exit, codes(&report)[0]), (1, "NO_HANDLER"), "{version}: {report:#}");
    let finding = &report["findings"][0];
    assert_eq!(
        (&finding["subject"], &finding["can_fix"]),
        (&"ghost".into(), &true.into()),
        "{version}: {report:#}"
    );
    assert!(
        finding["fix"].as_str().unwrap().contains(&format!("`{}`", key(&node))),
        "{version}: {finding:#}"
    );
    if !node.since(0, 11) {
        // A restart cuts requests off: not without having been asked.
        let denied = ran(&node, &["--fix"]);
        assert_eq!(denied.code, 64, "{version}: {denied:?}");
    }
    let (exit, report) = doctor(&node, &["--fix", "--yes"]);
    assert_eq!((exit, codes(&report)), (0, vec![]), "{version}: {report:#}");
    assert_eq!(node.read_conf(), sound, "{version}");
    assert!(node.has("foo"), "{version}");
}

macro_rules! versions {
    ($($name:ident $version:literal;)*) => { $(
        #[test]
        fn $name() { is_sound_is_broken_and_is_healed($version); }
    )* };
}

versions! {
    on_2_8 "2.8.5";
    on_1_5 "1.5.1";
    on_1_0 "1.0.3";
    on_0_14 "0.14.1";
    on_0_13 "0.13.1";
    on_0_10 "0.10.4";
    on_0_9 "0.9.9";
    on_0_8 "0.8.3";
    on_0_5 "0.5.4";
}

#[test]
fn what_cannot_be_driven_is_said_and_left_alone() {
    let Some(node) = Node::of_version("0.13.1") else { return };
    let before = node.read_conf();
    for (name, code) in [
        ("kong-0.9.3", "KONG_VERSION_UNSUPPORTED"),
        ("kong-0.4.2", "KONG_VERSION_UNSUPPORTED"),
        ("kong-7.0.0", "KONG_VERSION_UNKNOWN"),
    ] {
        let bin = node.path(name);
        symlink(fs::canonicalize(&node.bin).unwrap(), &bin).unwrap();
        for fix in [&[][..], &["--fix", "--yes"]] {
            let (exit, report) = crate::bench::doctor_of(&node, &bin, fix);
            assert_eq!((exit, codes(&report)), (1, vec![code]), "{name}: {report:#}");
            assert_eq!(report["findings"][0]["can_fix"], false, "{report:#}");
        }
    }
    assert_eq!(node.read_conf(), before);
}
