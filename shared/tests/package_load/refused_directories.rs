use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use kctl_shared::package::{LoadOptions, load};

use crate::forge::{Lua, assert_refused, probe, write_tree};

type Evil = fn(&Path);

#[test]
fn each_evil_directory_has_its_code() {
    let cases: &[(&str, Evil, &str)] = &[
        ("symlink out", |d| symlink("/etc/passwd", d.join("x.lua")).unwrap(), "LINK_NOT_ALLOWED"),
        ("symlink in", |d| symlink("handler.lua", d.join("x.lua")).unwrap(), "LINK_NOT_ALLOWED"),
        ("directory linked", |d| symlink("sub", d.join("more")).unwrap(), "LINK_NOT_ALLOWED"),
        ("symlink out beside", |d| symlink("/etc", d.join("../../../etc")).unwrap(), "LINK_NOT_ALLOWED"),
        ("socket", |d| drop(UnixListener::bind(d.join("s")).unwrap()), "SPECIAL_FILE_NOT_ALLOWED"),
        (
            "setuid",
            |d| fs::set_permissions(d.join("handler.lua"), fs::Permissions::from_mode(0o4755)).unwrap(),
            "MODE_NOT_ALLOWED",
        ),
        ("case", |d| fs::write(d.join("Handler.lua"), "").unwrap(), "CASE_COLLISION"),
        ("library", |d| fs::write(d.join("x.so"), "").unwrap(), "NATIVE_NOT_ALLOWED"),
        ("bytecode", |d| fs::write(d.join("x.lua"), b"\x1bLJ").unwrap(), "BYTECODE_NOT_ALLOWED"),
        ("backslash", |d| fs::write(d.join("a\\b.lua"), "").unwrap(), "PATH_ESCAPE"),
        ("line break", |d| fs::write(d.join("a\nb.lua"), "").unwrap(), "PATH_INVALID"),
        ("not UTF-8", |d| fs::write(d.join(OsStr::from_bytes(b"\xff.lua")), "").unwrap(), "NAME_NOT_UTF8"),
        (
            "300 bytes",
            |d| {
                let deep = d.join("d".repeat(140)).join("e".repeat(140));
                fs::create_dir_all(&deep).unwrap();
                fs::write(deep.join("x.lua"), "").unwrap();
            },
            "PATH_TOO_LONG",
        ),
        ("5 MiB", |d| fs::write(d.join("x.lua"), vec![b'-'; 5 << 20]).unwrap(), "ARCHIVE_TOO_LARGE"),
        (
            "10 GB of nothing",
            |d| fs::File::create(d.join("x.lua")).unwrap().set_len(10 << 30).unwrap(),
            "ARCHIVE_TOO_LARGE",
        ),
        (
            "a second plugin",
            |d| {
                fs::create_dir(d.join("../other")).unwrap();
                fs::write(d.join("../other/schema.lua"), "").unwrap();
            },
            "MULTIPLE_PLUGINS",
        ),
        (
            "no plugin",
            |d| ["handler.lua", "schema.lua"].iter().for_each(|f| fs::remove_file(d.join(f)).unwrap()),
            "NO_PLUGIN_FOUND",
        ),
    ];
    for (case, evil, code) in cases {
        let dir = tempfile::tempdir().unwrap();
        write_tree(dir.path(), &probe("kong/plugins/probe/"));
        evil(&dir.path().join("kong/plugins/probe"));
        assert_refused(case, load(dir.path(), &LoadOptions::default(), &Lua), code);
    }
}

#[test]
fn what_is_no_directory_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    assert_refused("absent", load(&absent, &LoadOptions::default(), &Lua), "SOURCE_UNREADABLE");
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert_refused("socket", load(&socket, &LoadOptions::default(), &Lua), "NOT_AN_ARCHIVE");
    let large = dir.path().join("large.tar.gz");
    fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    assert_refused("1 TB", load(&large, &LoadOptions::default(), &Lua), "ARCHIVE_TOO_LARGE");
}

#[test]
fn options_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &probe("kong/plugins/probe/"));
    let named = LoadOptions { name: Some("other".parse().unwrap()), ..Default::default() };
    assert_refused("another name", load(dir.path(), &named, &Lua), "NAME_MISMATCH");
    for version in ["", "1 2", "1/2", "../1", "1\n", &"1".repeat(65)] {
        let options = LoadOptions { version: Some(version.into()), ..Default::default() };
        assert_refused(version, load(dir.path(), &options, &Lua), "VERSION_INVALID");
    }
}
