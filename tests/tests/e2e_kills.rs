//! Agents killed at random moments of install, upgrade and remove, while somebody watches what lies on the nodes.
//!
//! `KCTL_TEST_KILLS` says how many kills (40 without it) and `KCTL_TEST_SEED` which moments; both are printed, and a failure
//! is run again with them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kctl_tests::Cluster;
use kctl_tests::cluster::signal;
use kctl_tests::plugins;
use serde_json::Value;

const NAME: &str = "tough";
/// An install on a quiet machine takes about as long.
const MOMENTS_MS: u64 = 1_800;

/// Numbers that a seed decides (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

fn number(key: &str, default: u64) -> u64 {
    std::env::var(key).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// The lines of a kong.conf that kctl writes.
fn is_ours(line: &str) -> bool {
    line.starts_with("plugins") || line.starts_with("lua_package_path")
}

fn value<'a>(conf: &'a str, key: &str) -> Option<&'a str> {
    let line = conf.lines().rev().find(|l| l.starts_with(key))?;
    Some(line.split_once('=')?.1.trim())
}

/// The files of the plugin at the place that a configuration leads to: name and content of each.
fn at_load_path(conf: &str) -> Option<BTreeSet<(String, String)>> {
    let entry = value(conf, "lua_package_path")?.split(';').next()?;
    let dir = PathBuf::from(entry.replace('?', &format!("kong/plugins/{NAME}/handler"))).parent()?.to_owned();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).ok()? {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_string_lossy().into_owned();
        found.insert((name, fs::read_to_string(path).ok()?));
    }
    Some(found)
}

fn sources(dir: &Path) -> BTreeSet<(String, String)> {
    let dir = dir.join("kong/plugins").join(NAME);
    let names = ["handler.lua", "schema.lua"];
    names.iter().map(|n| (n.to_string(), fs::read_to_string(dir.join(n)).unwrap())).collect()
}

/// What one node must look like at every instant.
struct Watched<'a> {
    conf: PathBuf,
    /// What kctl does not own of it.
    foreign: Vec<String>,
    releases: &'a [BTreeSet<(String, String)>],
}

impl<'a> Watched<'a> {
    fn new(node: &Value, releases: &'a [BTreeSet<(String, String)>]) -> Self {
        let conf = PathBuf::from(node["conf"].as_str().unwrap());
        let foreign = Self::others(&fs::read_to_string(&conf).unwrap());
        Self { conf, foreign, releases }
    }

    fn others(conf: &str) -> Vec<String> {
        conf.lines().filter(|l| !is_ours(l) && !l.is_empty()).map(str::to_owned).collect()
    }

    /// What is wrong at this instant.
    fn look(&self) -> Result<(), String> {
        let conf = fs::read_to_string(&self.conf).map_err(|e| format!("kong.conf: {e}"))?;
        if Self::others(&conf) != self.foreign || !conf.ends_with('\n') {
            return Err(format!("kong.conf is not whole:\n{conf}"));
        }
        let listed = value(&conf, "plugins").is_some_and(|v| v.split(',').any(|name| name.trim() == NAME));
        if !listed {
            return Ok(());
        }
        let found = at_load_path(&conf);
        let whole = found.as_ref().is_some_and(|found| self.releases.contains(found));
        // Between the two looks the node may have gone on.
        let same = fs::read_to_string(&self.conf).is_ok_and(|now| now == conf);
        if whole || !same {
            return Ok(());
        }
        let names = found.map(|f| f.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        Err(format!("it lists {NAME}, and at its load path is no whole release: {names:?}"))
    }
}

#[test]
fn random_kills_of_agents_leave_every_node_whole() {
    let kills = number("KCTL_TEST_KILLS", 40);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let seed = number("KCTL_TEST_SEED", time);
    let again = format!(
        "KCTL_TEST_KILLS={kills} KCTL_TEST_SEED={seed} cargo nextest run -p kctl-tests --test e2e_kills"
    );
    println!("{again}");
    let mut dice = Dice(seed);
    let cluster = Cluster::start(1, 2);
    let root = cluster.temp().to_owned();
    let (one, two) = (plugins::good(&root, NAME, "1.0.0"), plugins::good(&root, NAME, "2.0.0"));
    let releases = [sources(&one), sources(&two)];
    let watched: Vec<Watched> = cluster.nodes().iter().map(|n| Watched::new(n, &releases)).collect();
    let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        let watcher = threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for node in &watched {
                    node.look().unwrap_or_else(|wrong| panic!("{}: {wrong}\n{again}", node.conf.display()));
                }
                looks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let killed = rounds(&cluster, &mut dice, kills, &[&one, &two], &again, &|| watcher.is_finished());
        done.store(true, Ordering::Relaxed);
        let told = watcher.join();
        assert!(told.is_ok() && looks.load(Ordering::Relaxed) > 100, "{again}");
        println!("{killed} kills while an operation went on, {} looks", looks.load(Ordering::Relaxed));
    });
}

/// Install, upgrade, remove and so on, until there were as many kills during operations.
fn rounds(
    cluster: &Cluster,
    dice: &mut Dice,
    kills: u64,
    sources: &[&Path; 2],
    again: &str,
    gone_wrong: &dyn Fn() -> bool,
) -> u64 {
    let mut killed = 0;
    for round in 0.. {
        let (args, version): (Vec<&str>, _) = match round % 3 {
            0 => (vec!["plugin", "install", sources[0].to_str().unwrap()], Some("1.0.0")),
            1 => (vec!["plugin", "install", sources[1].to_str().unwrap()], Some("2.0.0")),
            _ => (vec!["plugin", "remove", NAME, "--yes"], None),
        };
        let ran = cluster.kctl(&[&args[..], &["--all-nodes", "--detach"]].concat());
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}\n{again}");
        let id = ran.out.trim().to_owned();
        for _ in 0..=dice.below(3) {
            // The moment is the subject here, not a condition that is waited for.
            std::thread::sleep(Duration::from_millis(dice.below(MOMENTS_MS)));
            let nodes = cluster.nodes();
            let victim = &nodes[usize::try_from(dice.below(nodes.len() as u64)).unwrap()];
            let goes_on =
                !matches!(cluster.operation(&id)["phase"].as_str(), Some("Succeeded" | "Failed" | "Aborted"));
            if !goes_on {
                break;
            }
            signal(&victim["agent_pid"], "KILL");
            killed += 1;
            let pid = victim["agent_pid"].as_u64().unwrap();
            let id = victim["id"].as_str().unwrap().to_owned();
            kctl_tests::until("the agent to be started again", 30, || {
                cluster.node(&id)["agent_pid"].as_u64().filter(|now| *now > 0 && *now != pid)
            });
        }
        let view = cluster.wait_ended(&id, 180);
        assert!(!gone_wrong(), "{args:?}: see the watcher's words\n{again}");
        assert_eq!(view["phase"], "Succeeded", "{args:?}: {view:#}\n{again}");
        assert_eq!(cluster.loaded_on(NAME), vec![version.map(str::to_owned); 2], "{args:?}\n{again}");
        for node in cluster.nodes() {
            let files = cluster.files(&node, NAME);
            assert_eq!(version.is_some(), !files.is_empty(), "{args:?}: {files:?}\n{again}");
        }
        if killed >= kills && version.is_none() {
            break;
        }
    }
    killed
}
