//! `kctl conf`: what it edits, and what it leaves alone with a code and a sentence.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use kctl_tests::cluster::{Ran, kctl_binary};

fn kctl(args: &[&str], conf: &Path) -> Ran {
    let conf = ["--conf", conf.to_str().unwrap()];
    Command::new(kctl_binary()).arg("conf").args(args).args(conf).output().unwrap().into()
}

/// What a directory holds, with modes.
fn state(dir: &Path) -> Vec<(String, u32, Option<Vec<u8>>)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let small = metadata.is_file() && metadata.len() < 1 << 20;
            let text = small.then(|| fs::read(&path).unwrap());
            (path.display().to_string(), metadata.permissions().mode(), text)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn names_come_and_go_and_every_other_byte_stays() {
    for (name, version, text, with) in [
        ("kong.conf", "3.9.1", "plugins = bundled # these\n", "plugins = bundled,hello # these\n"),
        ("kong.conf", "2.8", "a = 1\r\nplugins=bundled", "a = 1\r\nplugins=bundled,hello"),
        (
            "kong.conf",
            "0.14.1",
            "plugins = bundled\ncustom_plugins = a\n",
            "plugins = bundled,hello\ncustom_plugins = a\n",
        ),
        ("kong.conf", "0.13.1", "custom_plugins = a\n", "custom_plugins = a,hello\n"),
        (
            "kong.yml",
            "Kong version: 0.8.3",
            "custom_plugins:\n  - a\n",
            "custom_plugins:\n  - a\n  - hello\n",
        ),
        ("kong.yml", "0.5.4", "plugins_available: [ssl, jwt]\n", "plugins_available: [ssl, jwt, hello]\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join(name);
        fs::write(&conf, text).unwrap();
        fs::set_permissions(&conf, fs::Permissions::from_mode(0o640)).unwrap();
        let before = state(dir.path());
        let dry = kctl(&["add", "hello", "--kong", version, "--dry-run"], &conf);
        assert_eq!(dry.code, 0, "{version}: {dry:?}");
        assert!(dry.out.contains("hello"), "{version}: {dry:?}");
        assert_eq!(state(dir.path()), before, "{version}");

        let ran = kctl(&["add", "hello", "--kong", version], &conf);
        assert_eq!((ran.code, fs::read_to_string(&conf).unwrap().as_str()), (0, with), "{version}: {ran:?}");
        assert_eq!(fs::metadata(&conf).unwrap().permissions().mode() & 0o777, 0o640, "{version}");
        let got = kctl(&["get", "--kong", version, "-o", "json"], &conf);
        let got: serde_json::Value = serde_json::from_str(&got.out).unwrap();
        assert!(got["plugins"].as_array().unwrap().contains(&"hello".into()), "{version}: {got}");

        let ran = kctl(&["remove", "hello", "--kong", version], &conf);
        assert_eq!(ran.code, 0, "{version}: {ran:?}");
        assert_eq!(state(dir.path()), before, "{version}");
    }
}

#[test]
fn a_link_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("real"), dir.path().join("kong.conf"));
    fs::write(&file, "plugins = bundled\n").unwrap();
    symlink(&file, &link).unwrap();
    assert_eq!(kctl(&["add", "x"], &link).code, 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&file).unwrap(), "plugins = bundled,x\n");
}

#[test]
fn values_that_kong_reads_otherwise_than_people() {
    for (text, code, expected) in [
        ("plugins = bundled\r\nb = 1\r\n", None, "plugins = bundled,x\r\nb = 1\r\n"),
        ("plugins = bundled", None, "plugins = bundled,x"),
        ("plugins = a\nplugins = bundled\n", None, "plugins = a\nplugins = bundled,x\n"),
        ("plugins = bundled#note\n", None, "plugins = bundled,x#note\n"),
        ("plugins = bundled,\\\n  a\n", None, "plugins = bundled,\\\n  a,x\n"),
        (
            "b = 1\nplugins = bundled,\\\n",
            None,
            "b = 1\nplugins = bundled,x # added by kctl\nplugins = bundled,\\\n",
        ),
        ("plugins = \"bundled\"\n", Some("PLUGINS_QUOTED"), ""),
        ("plugins = {vault://env/plugins}\n", Some("UNMANAGED_VALUE"), ""),
        ("plugins = off\n", Some("PLUGINS_OFF"), ""),
        ("plugins =\n", Some("PLUGINS_EMPTY"), ""),
        ("[plugins]\n", Some("UNMANAGED_VALUE"), ""),
        ("[\n", Some("CONF_UNPARSABLE"), ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("kong.conf");
        fs::write(&conf, text).unwrap();
        let ran = kctl(&["add", "x"], &conf);
        match code {
            None => assert_eq!(
                (ran.code, fs::read_to_string(&conf).unwrap().as_str()),
                (0, expected),
                "{text:?} {ran:?}"
            ),
            Some(code) => {
                assert_eq!(ran.code, 1, "{text:?} {ran:?}");
                assert!(ran.err.contains(code), "{text:?} {ran:?}");
                assert_eq!(fs::read_to_string(&conf).unwrap(), text);
            }
        }
    }
}

#[test]
fn what_is_no_file_to_edit_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("directory")).unwrap();
    fs::write(path("empty"), "").unwrap();
    fs::File::create(path("large")).unwrap().set_len(100 << 20).unwrap();
    fs::write(path("read-only"), "plugins = bundled\n").unwrap();
    fs::set_permissions(path("read-only"), fs::Permissions::from_mode(0o444)).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    fs::write(path("kong.yml"), "custom_plugins:\n  - a\n").unwrap();
    fs::write(path("anchor.yml"), "a: &a [b]\ncustom_plugins: *a\n").unwrap();
    fs::write(path("kong.conf"), "plugins = bundled\n").unwrap();
    assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    let before = state(dir.path());
    for (name, more, exit, code) in [
        ("missing", &["x"][..], 1, "CONF_MISSING"),
        ("dangling", &["x"], 1, "CONF_MISSING"),
        ("directory", &["x"], 1, "CONF_NOT_A_FILE"),
        ("fifo", &["x"], 1, "CONF_NOT_A_FILE"),
        ("empty", &["x"], 1, "CONF_EMPTY"),
        ("large", &["x"], 1, "CONF_TOO_LARGE"),
        ("read-only", &["x"], 1, "CONF_READ_ONLY"),
        ("kong.yml", &["x"], 64, "KONG_VERSION_NEEDED"),
        ("anchor.yml", &["x", "--kong", "0.8.3"], 1, "CONF_YAML_UNSAFE"),
        ("kong.conf", &["x", "--kong", "five"], 64, "KONG_VERSION_UNKNOWN"),
        ("kong.conf", &["x", "--kong", "7.0.0"], 64, "KONG_VERSION_UNKNOWN"),
        ("kong.conf", &["../etc"], 1, "NAME_INVALID"),
        ("kong.conf", &["a,b"], 1, "NAME_INVALID"),
        ("kong.conf", &["a#b"], 1, "NAME_INVALID"),
        ("kong.conf", &[""], 1, "NAME_INVALID"),
        ("kong.conf", &["bundled"], 1, "NAME_RESERVED"),
        ("kong.conf", &["off"], 1, "NAME_RESERVED"),
        ("kong.conf", &["jwt"], 1, "PLUGIN_BUNDLED"),
    ] {
        let ran = kctl(&[&["add"], more].concat(), &path(name));
        assert_eq!(ran.code, exit, "{name} {more:?}: {ran:?}");
        assert!(ran.err.contains(code), "{name} {more:?}: {ran:?}");
        assert_eq!(state(dir.path()), before, "{name} {more:?}");
    }
}
