//! A rock placed by kctl (read, checked, written, synced, hashed again) against `luarocks install` of the same rock.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use kctl_node_agent::packages::Packages;
use kctl_shared::package::{LoadOptions, Package, Unread, load, rock};
use kctl_shared::spec::ReleaseRef;

use super::figures::{median, millis, verdict};
use super::plugin;

/// As many times as fast as LuaRocks.
const TARGET: f64 = 20.0;
/// Memory: syncing costs nothing here.
const NO_DISK: &str = "/dev/shm";

/// Measures `rounds` of each in turns; whether the target is met. Without LuaRocks nothing is measured.
pub async fn run(rounds: usize) -> bool {
    if Command::new("luarocks").arg("--version").output().is_err() {
        println!("\nunpack: skipped, there is no luarocks on the PATH");
        return true;
    }
    let sources = super::directory("kctl-bench-rock-");
    let directory = plugin::write(sources.path(), "1.0.0");
    let package = load(&directory, &LoadOptions::default(), &Unread).unwrap();
    let file = sources.path().join(format!("{}.all.rock", rock::stem(&package)));
    std::fs::write(&file, rock::rock(&package).unwrap()).unwrap();
    let met = compare("on disk", &file, &package, &std::env::temp_dir(), rounds).await;
    if Path::new(NO_DISK).is_dir() {
        compare("in memory, where syncing costs nothing", &file, &package, NO_DISK.as_ref(), rounds).await;
    }
    met
}

async fn compare(place: &str, file: &Path, package: &Package, within: &Path, rounds: usize) -> bool {
    let (mut native, mut luarocks) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        let temp = tempfile::Builder::new().prefix("kctl-bench-").tempdir_in(within).unwrap();
        native.push(placed(file, package, &temp.path().join("native")).await);
        luarocks.push(installed(file, temp.path()));
    }
    // The first of each warms caches up.
    let (native, luarocks) = (median(&native[1..]), median(&luarocks[1..]));
    let ratio = luarocks / native;
    println!("\nunpack {place} ({rounds} rounds), medians in ms");
    println!(
        "  luarocks install {luarocks:.1}, kctl {native:.2}: {ratio:.0} times as fast; at least {TARGET} {}",
        verdict(ratio >= TARGET)
    );
    ratio >= TARGET
}

/// Milliseconds from the rock to a release in the store.
async fn placed(file: &Path, package: &Package, root: &Path) -> f64 {
    let packages = Packages::open(root, None).unwrap();
    let start = Instant::now();
    let read = load(file, &LoadOptions::default(), &Unread).unwrap();
    let release = ReleaseRef::new(package.version.as_str(), read.digest());
    packages.stage(&read.plugin, &release, Bytes::from(read.to_artifact()), None).await.unwrap();
    let took = millis(start.elapsed());
    assert_eq!(read.digest(), package.digest());
    took
}

/// Milliseconds of `luarocks install` into a tree of its own.
fn installed(file: &Path, temp: &Path) -> f64 {
    let (tree, config): (PathBuf, PathBuf) = (temp.join("tree"), temp.join("config.lua"));
    std::fs::write(&config, "rocks_servers = {}\n").unwrap();
    let mut command = Command::new("luarocks");
    command
        .args(["--lua-version=5.1", "install", "--deps-mode=none", "--tree"])
        .args([&tree, file])
        .env("LUAROCKS_CONFIG", &config)
        .env("HOME", temp)
        .current_dir(temp);
    let start = Instant::now();
    let ended = command.output().unwrap();
    let took = millis(start.elapsed());
    assert!(ended.status.success(), "{ended:?}");
    assert!(tree.join("share/lua/5.1/kong/plugins").join(plugin::NAME).join("schema.lua").is_file());
    took
}
