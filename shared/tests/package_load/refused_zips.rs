use kctl_shared::package::LoadOptions;

use crate::forge::{Member, Tar, assert_refused, load_bytes, probe_members, zip};

const ROOT: &str = "lua/kong/plugins/probe/";

fn with(extra: Member) -> Vec<u8> {
    let mut members = probe_members(ROOT);
    members.push(extra);
    zip(&members)
}

fn stored(name: &str, bytes: &[u8]) -> Member {
    Member::stored(name.as_bytes(), bytes)
}

#[test]
fn each_evil_zip_has_its_code() {
    let good = zip(&probe_members(ROOT));
    let inside = |name: &str| stored(&format!("{ROOT}{name}"), b"x");
    let long = Member::deflated(format!("{ROOT}a.lua").as_bytes(), &[b'-'; 10_000]);
    let mut cut = long.clone();
    cut.data.truncate(8);
    let mut padded = long.clone();
    padded.data.extend(b"hidden");
    let packed = zip(&[Member::stored(b"inner.zip", &zip(&[Member::stored(b"third.zip", &good)]))]);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("parent", with(stored("../../x.lua", b"x")), "PATH_ESCAPE"),
        ("absolute", with(stored("/x.lua", b"x")), "PATH_ESCAPE"),
        ("backslash", with(stored("..\\x.lua", b"x")), "PATH_ESCAPE"),
        ("NUL", with(stored("x.lua\0.txt", b"x")), "PATH_ESCAPE"),
        ("not UTF-8", with(Member::stored(b"\xff.lua", b"x")), "NAME_NOT_UTF8"),
        ("300 bytes", with(inside(&"a".repeat(300))), "PATH_TOO_LONG"),
        ("150 bytes in one part", with(inside(&format!("{}.lua", "a".repeat(150)))), "PATH_TOO_LONG"),
        ("twice", with(inside("handler.lua")), "DUPLICATE_PATH"),
        ("case", with(inside("HANDLER.lua")), "CASE_COLLISION"),
        (
            "symlink out",
            with(Member { mode: 0o120_777, ..stored("x", b"../../etc/passwd") }),
            "LINK_NOT_ALLOWED",
        ),
        (
            "symlink in the plugin",
            with(Member { mode: 0o120_777, ..stored(&format!("{ROOT}a.lua"), b"handler.lua") }),
            "LINK_NOT_ALLOWED",
        ),
        ("device", with(Member { mode: 0o020_644, ..stored("x", b"") }), "SPECIAL_FILE_NOT_ALLOWED"),
        ("pipe", with(Member { mode: 0o010_644, ..stored("x", b"") }), "SPECIAL_FILE_NOT_ALLOWED"),
        ("setuid", with(Member { mode: 0o104_755, ..inside("a.lua") }), "MODE_NOT_ALLOWED"),
        ("a directory with content", with(stored("d/", b"x")), "ARCHIVE_CORRUPT"),
        ("wrong checksum", with(Member { crc: 1, ..inside("a.lua") }), "ARCHIVE_CORRUPT"),
        (
            "wrong checksum far from the plugin",
            with(Member { crc: 1, ..stored("README", b"x") }),
            "ARCHIVE_CORRUPT",
        ),
        ("wrong checksum, deflated", with(Member { crc: 1, ..long.clone() }), "ARCHIVE_CORRUPT"),
        ("less than it says", with(Member { size: 10_001, ..long.clone() }), "ARCHIVE_CORRUPT"),
        ("more than it says", with(Member { size: 10, ..long.clone() }), "ARCHIVE_CORRUPT"),
        ("cut short", with(cut), "ARCHIVE_CORRUPT"),
        ("bytes behind the content", with(padded), "ARCHIVE_CORRUPT"),
        (
            "two names",
            with(Member { local_name: Some(b"lua/x.lua".to_vec()), ..inside("a.lua") }),
            "ARCHIVE_CORRUPT",
        ),
        ("overlap", with(Member { offset: Some(0), ..inside("handler.lua") }), "ARCHIVE_CORRUPT"),
        (
            "an entry in the list",
            with(Member { offset: Some(good.len() as u32 + 20), ..inside("a") }),
            "ARCHIVE_CORRUPT",
        ),
        ("unknown method", with(Member { method: 99, ..inside("a.lua") }), "ARCHIVE_CORRUPT"),
        ("encrypted", with(Member { flags: 1, ..inside("a.lua") }), "ARCHIVE_ENCRYPTED"),
        ("4 GB by its own word", with(Member { size: u32::MAX - 1, ..long.clone() }), "ARCHIVE_TOO_LARGE"),
        ("zip64", with(Member { size: u32::MAX, ..long }), "ARCHIVE_TOO_LARGE"),
        ("a library", with(inside("a.so")), "NATIVE_NOT_ALLOWED"),
        ("a library beside", with(stored("lib/probe.so", b"x")), "NATIVE_NOT_ALLOWED"),
        ("bytecode", with(stored(&format!("{ROOT}a.lua"), b"\x1bLJ")), "BYTECODE_NOT_ALLOWED"),
        ("data after the end", [&good[..], b"#!/bin/sh"].concat(), "ARCHIVE_CORRUPT"),
        ("without its end", good[..good.len() - 22].to_vec(), "ARCHIVE_TRUNCATED"),
        ("half of it", good[..good.len() / 2].to_vec(), "ARCHIVE_TRUNCATED"),
        (
            "a list that is elsewhere",
            [&good[..good.len() - 6], &[1, 0, 0, 0, 0, 0]].concat(),
            "ARCHIVE_CORRUPT",
        ),
        ("empty", zip(&[]), "NO_PLUGIN_FOUND"),
        ("an archive in an archive in an archive", packed, "ARCHIVE_NESTED"),
        ("two archives", zip(&[stored("a.zip", &good), stored("b.zip", &good)]), "NO_PLUGIN_FOUND"),
        ("a bad archive inside", zip(&[stored("a.zip", &good[..100])]), "ARCHIVE_TRUNCATED"),
        (
            "an evil archive inside",
            zip(&[stored("a.tar.gz", &Tar::probe().file(b"../x", b"").tgz())]),
            "PATH_ESCAPE",
        ),
        (
            "65 535 entries",
            zip(&(0..65_535).map(|n| stored(&n.to_string(), b"")).collect::<Vec<_>>()),
            "TOO_MANY_ENTRIES",
        ),
    ];
    for (case, bytes, code) in cases {
        assert_refused(case, load_bytes("probe-1.0-1.all.rock", &bytes, &LoadOptions::default()), code);
    }
}

/// Every byte of a small rock, flipped: refused, or the same release, never another one and never a panic.
#[test]
fn no_flipped_byte_gives_another_release() {
    let good = zip(&probe_members(ROOT));
    let digest = load_bytes("probe.rock", &good, &LoadOptions::default()).unwrap().digest();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        if let Ok(package) = load_bytes("probe.rock", &bytes, &LoadOptions::default()) {
            assert!(package.digest() == digest, "byte {at}");
        }
    }
}

/// LuaRocks' own writer leaves other flags in the list than at the entry, permissions without a type, and a descriptor
/// behind each entry although no flag announces it.
#[test]
fn a_rock_as_luarocks_writes_it() {
    let mut member = Member::deflated(format!("{ROOT}handler.lua").as_bytes(), b"return {}");
    member.mode = 0o755;
    let mut bytes = zip(&[member.clone()]);
    bytes[6] = 4;
    let list = bytes.len() - 22 - 46 - member.name.len();
    let descriptor = [b"PK\x07\x08", &[0; 12][..]].concat();
    bytes.splice(list..list, descriptor.iter().copied());
    let end = bytes.len() - 6;
    bytes[end..end + 4].copy_from_slice(&((list + descriptor.len()) as u32).to_le_bytes());
    let package = load_bytes("probe-1.0-1.all.rock", &bytes, &LoadOptions::default()).unwrap();
    assert_eq!((package.plugin.as_str(), package.version.as_str()), ("probe", "1.0"));
}
