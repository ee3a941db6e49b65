use kctl_shared::package::LoadOptions;

use crate::forge::{Header, Tar, assert_refused, gz, load_bytes, record, zeros_gz};

const IN: &str = "kong/plugins/probe";

fn inside(name: &str) -> Vec<u8> {
    format!("{IN}/{name}").into_bytes()
}

#[test]
fn each_evil_tar_has_its_code() {
    let long = inside(&format!("{}x.lua", "a/".repeat(150)));
    let good = Tar::probe();
    let cases: Vec<(&str, Tar, &str)> = vec![
        ("parent", good.clone().file(b"../../x.lua", b"x"), "PATH_ESCAPE"),
        ("parent in the middle", good.clone().file(b"kong/../../x.lua", b"x"), "PATH_ESCAPE"),
        ("absolute", good.clone().file(b"/etc/cron.d/x", b"x"), "PATH_ESCAPE"),
        ("backslash", good.clone().file(b"..\\x.lua", b"x"), "PATH_ESCAPE"),
        ("NUL in the field", good.clone().file(b"x.lua\0.txt", b"x"), "PATH_ESCAPE"),
        ("NUL in pax", good.clone().pax("path", b"x.lua\0y").file(b"x", b"x"), "PATH_ESCAPE"),
        ("parent in pax", good.clone().pax("path", b"../x.lua").file(b"x", b"x"), "PATH_ESCAPE"),
        ("parent in a GNU name", good.clone().extension(b'L', b"../x.lua\0").file(b"x", b"x"), "PATH_ESCAPE"),
        ("a directory that escapes", good.clone().odd(b"../d/", b'5', b""), "PATH_ESCAPE"),
        ("line break", good.clone().file(&inside("a\nb.lua"), b"x"), "PATH_INVALID"),
        ("no name", good.clone().file(b"", b"x"), "PATH_INVALID"),
        ("not UTF-8", good.clone().file(&[&inside("")[..], b"\xff.lua"].concat(), b"x"), "NAME_NOT_UTF8"),
        ("300 bytes", good.clone().pax("path", &long).file(b"x", b"x"), "PATH_TOO_LONG"),
        ("symlink out", good.clone().odd(b"docs/x", b'2', b"../../etc/passwd"), "LINK_NOT_ALLOWED"),
        ("symlink to an absolute path", good.clone().odd(b"x", b'2', b"/etc"), "LINK_NOT_ALLOWED"),
        (
            "symlink out in pax",
            good.clone().pax("linkpath", b"../x").odd(b"x", b'2', b"y"),
            "LINK_NOT_ALLOWED",
        ),
        (
            "symlink in the plugin",
            good.clone().odd(&inside("a.lua"), b'2', b"handler.lua"),
            "LINK_NOT_ALLOWED",
        ),
        (
            "the plugin is a symlink",
            Tar::default().odd(IN.as_bytes(), b'2', b"../../src"),
            "LINK_NOT_ALLOWED",
        ),
        (
            "symlink, then a file through it",
            good.clone().odd(b"d", b'2', b"kong").file(b"d/x", b"x"),
            "LINK_NOT_ALLOWED",
        ),
        (
            "a file, then a symlink around it",
            good.clone().file(b"d/x", b"x").odd(b"d", b'2', b"kong"),
            "DUPLICATE_PATH",
        ),
        ("hard link", good.clone().odd(&inside("a.lua"), b'1', &inside("handler.lua")), "LINK_NOT_ALLOWED"),
        ("hard link to a system file", good.clone().odd(b"x", b'1', b"/etc/shadow"), "LINK_NOT_ALLOWED"),
        ("character device", good.clone().odd(b"null", b'3', b""), "SPECIAL_FILE_NOT_ALLOWED"),
        ("block device", good.clone().odd(b"sda", b'4', b""), "SPECIAL_FILE_NOT_ALLOWED"),
        ("pipe", good.clone().odd(b"p", b'6', b""), "SPECIAL_FILE_NOT_ALLOWED"),
        ("GNU sparse", good.clone().odd(b"s", b'S', b""), "SPECIAL_FILE_NOT_ALLOWED"),
        (
            "pax sparse",
            good.clone().pax("GNU.sparse.major", b"1").file(b"s", b"x"),
            "SPECIAL_FILE_NOT_ALLOWED",
        ),
        ("unknown type", good.clone().odd(b"?", b'Z', b""), "SPECIAL_FILE_NOT_ALLOWED"),
        (
            "setuid",
            good.clone().header(&Header { mode: 0o4755, ..Header::file(&inside("a.lua"), 0) }),
            "MODE_NOT_ALLOWED",
        ),
        (
            "setgid",
            good.clone().header(&Header { mode: 0o2755, ..Header::file(b"a", 0) }),
            "MODE_NOT_ALLOWED",
        ),
        ("twice", good.clone().file(&inside("handler.lua"), b"x"), "DUPLICATE_PATH"),
        (
            "twice, spelled differently",
            good.clone().file(b"kong//plugins/./probe/handler.lua", b"x"),
            "DUPLICATE_PATH",
        ),
        ("a file below a file", good.clone().file(&inside("handler.lua/x"), b"x"), "DUPLICATE_PATH"),
        (
            "a directory in a file's place",
            good.clone().odd(&inside("handler.lua"), b'5', b""),
            "DUPLICATE_PATH",
        ),
        ("case", good.clone().file(&inside("Handler.lua"), b"x"), "CASE_COLLISION"),
        ("case of a directory", good.clone().file(&inside("SUB/y.lua"), b"x"), "CASE_COLLISION"),
        ("pax size", good.clone().pax("size", b"3").file(&inside("a.lua"), b"x"), "ARCHIVE_CORRUPT"),
        ("pax size is no number", good.clone().pax("size", b"-1").file(b"a", b"x"), "ARCHIVE_CORRUPT"),
        ("pax without length", good.clone().extension(b'x', b"path=x\n").file(b"a", b"x"), "ARCHIVE_CORRUPT"),
        (
            "pax record beyond its header",
            good.clone().extension(b'x', b"99 path=x\n").file(b"a", b"x"),
            "ARCHIVE_CORRUPT",
        ),
        (
            "pax record of length 0",
            good.clone().extension(b'x', b"0 path=x\n").file(b"a", b"x"),
            "ARCHIVE_CORRUPT",
        ),
        ("two names", good.clone().pax("path", b"a").pax("path", b"b").file(b"c", b"x"), "ARCHIVE_CORRUPT"),
        (
            "a name for all",
            good.clone().extension(b'g', &record("path", b"a")).file(b"c", b"x"),
            "ARCHIVE_CORRUPT",
        ),
        ("a header for nothing", good.clone().pax("path", b"a"), "ARCHIVE_CORRUPT"),
        (
            "a directory with content",
            good.clone().header(&Header { kind: b'5', ..Header::file(b"d", 512) }).data(&[1; 512]),
            "ARCHIVE_CORRUPT",
        ),
        (
            "a file of 10 GB",
            Tar::default().header(&Header::file(&inside("handler.lua"), 10 << 30)),
            "ARCHIVE_TOO_LARGE",
        ),
        ("a file of 2^63 bytes", Tar::default().header(&Header::file(b"x", 1 << 63)), "ARCHIVE_TOO_LARGE"),
        (
            "a name of 10 GB",
            Tar::default().header(&Header { kind: b'L', ..Header::file(b"x", 10 << 30) }),
            "ARCHIVE_CORRUPT",
        ),
        (
            "a file of 5 MiB",
            good.clone().file(&inside("data.lua"), &vec![b'-'; 5 << 20]),
            "ARCHIVE_TOO_LARGE",
        ),
        ("library", good.clone().file(&inside("a.so"), b"x"), "NATIVE_NOT_ALLOWED"),
        ("library with a version", good.clone().file(b"lib/a.so.1", b"x"), "NATIVE_NOT_ALLOWED"),
        (
            "library under another name",
            good.clone().file(&inside("a.lua"), b"\x7fELF\x02"),
            "NATIVE_NOT_ALLOWED",
        ),
        ("LuaJIT bytecode", good.clone().file(&inside("a.lua"), b"\x1bLJ\x02"), "BYTECODE_NOT_ALLOWED"),
        (
            "Lua bytecode under another name",
            good.clone().file(&inside("a.dat"), b"\x1bLua"),
            "BYTECODE_NOT_ALLOWED",
        ),
        ("no plugin", Tar::default().file(b"README.md", b"x"), "NO_PLUGIN_FOUND"),
        (
            "a plugin in tests only",
            Tar::default().file(b"w/a", b"").file(b"w/spec/kong/plugins/x/handler.lua", b""),
            "NO_PLUGIN_FOUND",
        ),
        ("two plugins", good.clone().file(b"kong/plugins/other/handler.lua", b"x"), "MULTIPLE_PLUGINS"),
        (
            "two bare plugins",
            Tar::default().file(b"a/handler.lua", b"").file(b"b/handler.lua", b""),
            "MULTIPLE_PLUGINS",
        ),
        (
            "one plugin in two forms",
            Tar::default()
                .file(b"a/kong/plugins/p/handler.lua", b"x")
                .file(b"b/kong/plugins/p/handler.lua", b"y"),
            "PLUGIN_TWICE",
        ),
        ("a name with a dot", Tar::default().file(b"kong/plugins/a.b/handler.lua", b"x"), "NAME_INVALID"),
        (
            "a name with a command",
            Tar::default().file(b"kong/plugins/$(id)/handler.lua", b"x"),
            "NAME_INVALID",
        ),
        (
            "a look-alike",
            Tar::default().file("kong/plugins/k\u{435}y/handler.lua".as_bytes(), b"x"),
            "NAME_INVALID",
        ),
        ("a reserved name", Tar::default().file(b"kong/plugins/bundled/handler.lua", b"x"), "NAME_RESERVED"),
        ("one of Kong's", Tar::default().file(b"kong/plugins/key-auth/handler.lua", b"x"), "PLUGIN_BUNDLED"),
        (
            "too many files",
            (0..2001).fold(good.clone(), |t, n| t.file(&inside(&format!("{n}.lua")), b"")),
            "ARCHIVE_TOO_LARGE",
        ),
        (
            "too many entries",
            (0..20_001).fold(Tar::default(), |t, n| t.file(format!("{n}").as_bytes(), b"")),
            "TOO_MANY_ENTRIES",
        ),
        (
            "a directory 20 001 times",
            (0..20_001).fold(Tar::default(), |t, _| t.odd(b"d/", b'5', b"")),
            "TOO_MANY_ENTRIES",
        ),
    ];
    for (case, tar, code) in cases {
        let bytes = tar.end();
        assert_refused(case, load_bytes("probe.tar", &bytes, &LoadOptions::default()), code);
        assert_refused(
            &format!("{case}, gz"),
            load_bytes("p.tar.gz", &gz(&bytes), &LoadOptions::default()),
            code,
        );
    }
}

#[test]
fn a_stream_that_is_not_whole() {
    let tar = Tar::probe().end();
    let tgz = gz(&tar);
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0xff;
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "NOT_AN_ARCHIVE"),
        ("Lua", b"return {}".to_vec(), "NOT_AN_ARCHIVE"),
        ("a page of the web", b"<!doctype html>".repeat(100), "NOT_AN_ARCHIVE"),
        ("zeros", vec![0; 10_240], "NOT_AN_ARCHIVE"),
        ("bzip2", b"BZh91AY&SY".to_vec(), "NOT_AN_ARCHIVE"),
        ("gzip of something else", gz(b"return {}"), "NOT_AN_ARCHIVE"),
        ("half of a tar", tar[..tar.len() / 2].to_vec(), "ARCHIVE_TRUNCATED"),
        ("a tar without end", tar[..tar.len() - 1024].to_vec(), "ARCHIVE_TRUNCATED"),
        ("half of a gzip", tgz[..tgz.len() / 2].to_vec(), "ARCHIVE_TRUNCATED"),
        ("a gzip without checksum", tgz[..tgz.len() - 8].to_vec(), "ARCHIVE_TRUNCATED"),
        ("a gzip of half a tar", gz(&tar[..tar.len() / 2]), "ARCHIVE_TRUNCATED"),
        ("a wrong checksum", flipped(&tgz, tgz.len() - 8), "ARCHIVE_CORRUPT"),
        ("a wrong length", flipped(&tgz, tgz.len() - 1), "ARCHIVE_CORRUPT"),
        ("a header with a wrong checksum", flipped(&tar, 1024 + 3), "ARCHIVE_CORRUPT"),
        ("data after the tar", [&tar[..], b"#!/bin/sh\n"].concat(), "ARCHIVE_CORRUPT"),
        ("a second tar", [&tar[..], &tar].concat(), "ARCHIVE_CORRUPT"),
        ("data after the gzip", [&tgz[..], b"#!/bin/sh\n"].concat(), "ARCHIVE_CORRUPT"),
        ("a second gzip", [&tgz[..], &tgz].concat(), "ARCHIVE_CORRUPT"),
    ];
    for (case, bytes, code) in cases {
        assert_refused(case, load_bytes("probe.tar.gz", &bytes, &LoadOptions::default()), code);
    }
}

#[test]
fn zeros_after_the_end_are_padding_until_they_are_too_many() {
    let padded = [&Tar::probe().end()[..], &[0; 9 * 1024]].concat();
    assert!(load_bytes("probe.tar", &padded, &LoadOptions::default()).is_ok());
    let bomb = [gz(&Tar::probe().end()), zeros_gz(256)].concat();
    assert_refused("zeros", load_bytes("probe.tgz", &bomb, &LoadOptions::default()), "ARCHIVE_TOO_LARGE");
}

/// What real tools leave in archives and what does no harm.
#[test]
fn oddities_that_are_fine() {
    let odd = Tar::default()
        .extension(b'g', &record("comment", b"0123456789abcdef"))
        .odd(b"./", b'5', b"")
        .odd(b"./kong/", b'5', b"")
        .odd(b"kong/", b'5', b"")
        .header(&Header { mode: 0o2775, kind: b'5', ..Header::file(b"kong/plugins/", 0) })
        .pax("mtime", b"1.5")
        .file(b"kong/plugins/probe/._handler.lua", b"\0\x05\x16\x07")
        .extension(b'L', b"kong/plugins/probe/deep.lua\0")
        .file(b"short", b"return 1")
        .odd(b"docs/latest", b'2', b"../README.md")
        .file(b".git/config", b"x");
    let tar = Tar([odd.0, Tar::probe().0].concat());
    let package = load_bytes("probe.tar", &tar.end(), &LoadOptions::default()).unwrap();
    let paths: Vec<_> = package.files.iter().map(|f| f.entry.path.as_str()).collect();
    assert_eq!(paths, ["deep.lua", "handler.lua", "schema.lua", "sub/x.lua"]);
}
