//! What `kctl plugin new` and `pack` write, used with and without kctl.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;

use kctl_shared::package::{LoadOptions, Unread, load};
use kctl_tests::cluster::{Cluster, Ran, kctl_binary};
use kctl_tests::plugins;

fn kctl(dir: &Path, args: &[&str]) -> Ran {
    Command::new(kctl_binary()).args(args).current_dir(dir).env("HOME", dir).output().unwrap().into()
}

/// Where the packed file is.
fn pack(dir: &Path, args: &[&str]) -> PathBuf {
    let ran = kctl(dir, &[&["plugin", "pack"], args, &["-o", "name"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    dir.join(ran.out.trim())
}

/// A plugin with more than the two files, one of them no Lua.
fn sources(dir: &Path) -> PathBuf {
    let root = plugins::good(dir, "packed_Up", "1.2.3");
    let lua = root.join("kong/plugins/packed_Up");
    std::fs::create_dir_all(lua.join("lib")).unwrap();
    std::fs::write(lua.join("lib/init.lua"), "return { \"lib\" }\n").unwrap();
    std::fs::write(lua.join("lib/more.lua"), "return \"more\"\n").unwrap();
    std::fs::write(lua.join("names.txt"), "a\nb\n").unwrap();
    root
}

/// Relative paths of all files below a directory.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => todo.push(entry.path()),
                false => found.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_same_sources_give_the_same_bytes_and_the_same_release() {
    let temp = tempfile::tempdir().unwrap();
    let root = sources(temp.path());
    let release = load(&root, &LoadOptions::default(), &Unread).unwrap();
    for format in ["rock", "tar-gz"] {
        let first = pack(temp.path(), &[root.to_str().unwrap(), "--format", format]);
        let name = first.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("kong-plugin-packed_up-1.2.3-1."), "{name}");
        let again = pack(temp.path(), &[root.to_str().unwrap(), "--format", format, "--file", "again"]);
        assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(again).unwrap(), "{format}");
        let packed = load(&first, &LoadOptions::default(), &Unread).unwrap();
        assert_eq!((packed.digest(), &packed.version), (release.digest(), &release.version), "{format}");
    }
    let refused = kctl(temp.path(), &["plugin", "pack", "absent"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("SOURCE_UNREADABLE"), "{refused:?}");
    let nowhere = kctl(temp.path(), &["plugin", "pack", root.to_str().unwrap(), "--file", "no/such/dir/x"]);
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.err.contains("PACK_FAILED"), "{nowhere:?}");
}

#[test]
fn luarocks_and_tar_take_what_is_packed() {
    let temp = tempfile::tempdir().unwrap();
    let root = sources(temp.path());
    let placed = files(&root.join("kong"));
    let archive = pack(temp.path(), &[root.to_str().unwrap(), "--format", "tar-gz"]);
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).current_dir(temp.path()).status().unwrap();
    assert!(unpacked.success());
    assert_eq!(files(&temp.path().join("kong-plugin-packed_up-1.2.3-1/kong")), placed);

    if Command::new("luarocks").arg("--version").output().is_err() {
        assert!(std::env::var("KCTL_TESTS_STRICT").is_err(), "luarocks is not installed");
        eprintln!("luarocks is not installed: packed files are not tried with it");
        return;
    }
    let luarocks = |dir: &Path, args: &[&str]| {
        let mut command = Command::new("luarocks");
        command.args(["--lua-version", "5.1"]).args(args).args(["--deps-mode", "none"]);
        let ended = command.current_dir(dir).env("HOME", temp.path()).output().unwrap();
        assert!(ended.status.success(), "{args:?}: {ended:?}");
    };
    let rock = pack(temp.path(), &[root.to_str().unwrap()]);
    luarocks(temp.path(), &["install", "--tree", "by-rock", rock.to_str().unwrap()]);
    assert_eq!(files(&temp.path().join("by-rock/share/lua/5.1/kong")), placed);
    // What builds from sources knows modules only.
    luarocks(&temp.path().join("kong-plugin-packed_up-1.2.3-1"), &["make", "--tree", "../by-make"]);
    let modules: Vec<_> = placed.iter().filter(|path| path.ends_with(".lua")).cloned().collect();
    assert_eq!(files(&temp.path().join("by-make/share/lua/5.1/kong")), modules);
}

#[test]
fn a_new_plugin_runs_as_it_is() {
    let cluster = Cluster::start(1, 1);
    let made = kctl(cluster.temp(), &["plugin", "new", "fresh-start"]);
    assert_eq!(made.code, 0, "{made:?}");
    let ran = cluster.install(&cluster.temp().join("fresh-start"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(cluster.loaded_on("fresh-start"), [Some("0.1.0".to_owned())]);
    let again = kctl(cluster.temp(), &["plugin", "new", "fresh-start"]);
    assert!(again.code == 1 && again.err.contains("DIRECTORY_NOT_EMPTY"), "{again:?}");
    let bundled = kctl(cluster.temp(), &["plugin", "new", "key-auth"]);
    assert!(bundled.code == 1 && bundled.err.contains("PLUGIN_BUNDLED"), "{bundled:?}");
}
