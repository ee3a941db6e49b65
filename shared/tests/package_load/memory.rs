//! Bombs: refused, and in bounded memory. Each is loaded in a process of its own, whose high-water mark is read at its
//! end.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use kctl_shared::package::{LoadOptions, Package, Unread, load};

use crate::forge::{Header, Member, Tar, gz, zeros_gz, zip};

/// Set for the process that loads.
const PROBE: &str = "KCTL_PACKAGE_PROBE";
const LIMIT_KIB: u64 = 64 * 1024;

fn high_water_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The code, or `OK`, and the memory it took.
fn probe(path: &Path) -> (String, u64) {
    let me = std::env::current_exe().unwrap();
    let child = Command::new(me)
        .args(["--exact", "memory::bombs_are_refused_in_little_memory", "--nocapture"])
        .env(PROBE, path)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&child.stdout).into_owned();
    let line = out.lines().find_map(|l| l.split_once("probe: ")).unwrap_or_else(|| panic!("{out}")).1;
    let (code, kib) = line.split_once(' ').unwrap();
    (code.to_owned(), kib.parse().unwrap())
}

fn load_and_tell(path: &Path) {
    let code = match load(path, &LoadOptions::default(), &Unread) {
        Ok(package) => {
            let artifact = package.to_artifact();
            drop(package);
            Package::from_artifact(&artifact, &LoadOptions::default().limits)
                .map_or_else(|e| e.code, |_| "OK")
        }
        Err(e) => e.code,
    };
    println!("\nprobe: {code} {}", high_water_kib());
}

/// Entries without content, a million of them, written as a stream.
fn a_million_entries() -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    for n in 0..1_000_000 {
        out.write_all(&Header::file(format!("{n}").as_bytes(), 0).bytes()).unwrap();
    }
    out.write_all(&[0; 1024]).unwrap();
    out.finish().unwrap()
}

/// Bytes that neither compress nor repeat.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8 | 0x80
        })
        .collect()
}

fn bombs() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let big = Header::file(b"kong/plugins/probe/handler.lua", 10 << 30).bytes();
    let inner = [gz(&big), zeros_gz(3 << 10)].concat();
    let deep: Vec<String> = (0..18_000).map(|n| format!("{n}/{}x.lua", "a/".repeat(120))).collect();
    let part = noise(4 << 20);
    let full =
        ["a", "b", "c"].iter().fold(Tar::default().file(b"kong/plugins/probe/handler.lua", b""), |tar, n| {
            let size = if *n == "c" { part.len() - 1 } else { part.len() };
            let tar = tar.file(format!("kong/plugins/probe/{n}.lua").as_bytes(), &part[..size]);
            tar.file(format!("lib/{n}.lua").as_bytes(), &part[..size])
        });
    let constants = format!("local a='{}'\n{}", "x".repeat(250), "b=a ".repeat(60_000));
    let dense = (0..40)
        .fold(Tar::default(), |t, n| t.file(format!("w/{n}.rockspec").as_bytes(), constants.as_bytes()));
    vec![
        ("10 GB of zeros", [gz(&big), zeros_gz(10 << 10)].concat(), "ARCHIVE_TOO_LARGE"),
        (
            "10 GB of zeros in a foreign file",
            {
                let (a, b) = (
                    Header::file(b"docs/movie", 100 << 20).bytes(),
                    Header::file(b"docs/more", 100 << 20).bytes(),
                );
                [gz(&a), zeros_gz(64), gz(&vec![0; 36 << 20]), gz(&b), zeros_gz(128)].concat()
            },
            "ARCHIVE_TOO_LARGE",
        ),
        ("a bomb in an archive", Tar::default().file(b"inner.tar.gz", &inner).tgz(), "ARCHIVE_TOO_LARGE"),
        (
            "an archive inside that is too large",
            Tar::default().file(b"i.tar.gz", &noise(9 << 20)).tgz(),
            "ARCHIVE_TOO_LARGE",
        ),
        ("a million entries", a_million_entries(), "TOO_MANY_ENTRIES"),
        (
            "directories without end",
            deep.iter().fold(Tar::default(), |t, p| t.pax("path", p.as_bytes()).file(b"x", b"")).tgz(),
            "TOO_MANY_ENTRIES",
        ),
        (
            "a zip of 4 GB",
            zip(&[
                Member::deflated(b"kong/plugins/probe/handler.lua", &vec![0; 100 << 20]),
                Member { size: u32::MAX - 1, ..Member::stored(b"x", b"") },
            ]),
            "ARCHIVE_TOO_LARGE",
        ),
        (
            "overlapping entries",
            {
                let kernel = Member::deflated(b"0", &vec![0; 20 << 20]);
                let more = (1..2000).map(|n| Member {
                    offset: Some(0),
                    data: vec![],
                    name: n.to_string().into_bytes(),
                    ..kernel.clone()
                });
                zip(&[kernel.clone()].into_iter().chain(more).collect::<Vec<_>>())
            },
            "ARCHIVE_TOO_LARGE",
        ),
        ("constants that are used often", dense.file(b"w/handler.lua", constants.as_bytes()).tgz(), "OK"),
        ("as much as may be", full.tgz(), "OK"),
    ]
}

#[test]
fn bombs_are_refused_in_little_memory() {
    if let Some(path) = std::env::var_os(PROBE) {
        return load_and_tell(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    for (case, bytes, code) in bombs() {
        let path = dir.path().join("bomb.tar.gz");
        std::fs::write(&path, bytes).unwrap();
        let (told, kib) = probe(&path);
        eprintln!("{case}: {told}, {kib} KiB");
        assert_eq!(told, code, "{case}");
        assert!(kib < LIMIT_KIB, "{case}: {kib} KiB");
    }
}
