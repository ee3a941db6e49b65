//! A file system without room for a plugin's files: nothing half remains, nothing that runs is touched, and making room
//! is all that is needed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kctl_node_agent::reconcile::Policy;
use kctl_shared::spec::{Failure, ReleaseRef};
use kctl_tests::plugins;
use kctl_tests::small::Small;

use super::{World, agent};

/// What an agent that only waits is ended with.
const WAITS: i32 = 5;

/// A node whose plugin files go to a small file system, and all that a plugin without room must leave as it was.
struct Cramped {
    world: World,
    disk: Small,
    before: (String, Vec<String>, Vec<i64>),
    files: Vec<String>,
}

impl Cramped {
    fn new(options: &str) -> Option<Self> {
        let world = World::new();
        let lua_dir = world.job.lua_dir();
        let disk = Small::mount(&lua_dir, options)?;
        // What the agent makes for itself when it starts.
        let _opened = kctl_node_agent::packages::Packages::open(&lua_dir, None).unwrap();
        let (before, files) = (world.node.footprint(), listing(&lua_dir));
        Some(Self { world, disk, before, files })
    }

    /// A plugin with so many files beside its own two, each of so many bytes.
    fn want(&mut self, count: usize, size: usize) -> ReleaseRef {
        let sources = plugins::good(&self.world.job.path("sources"), "big", "1.0.0");
        let lua = sources.join("kong/plugins/big");
        for number in 0..count {
            let text = format!("return {number} --{}", "x".repeat(size));
            fs::write(lua.join(format!("part{number}.lua")), text).unwrap();
        }
        let release = self.world.release(&sources);
        self.world.want("big", &release);
        release
    }

    /// Runs an agent until it waits, and ends it.
    async fn waits(&self) -> Failure {
        let mut why = None;
        let code = self.watched(|failure| {
            why = Some(failure.clone());
            Some(WAITS)
        });
        assert_eq!(code.await, WAITS);
        why.unwrap()
    }

    /// Runs an agent that is looked at whenever it waits.
    async fn watched(&self, mut waiting: impl FnMut(&Failure) -> Option<i32>) -> i32 {
        let spec = serde_json::to_vec(&self.world.spec).unwrap();
        fs::write(self.world.job.path("spec.json"), spec).unwrap();
        let look = |status: &kctl_shared::spec::NodeStatus| {
            status.plugins.values().find_map(|p| p.waiting.as_ref()).and_then(&mut waiting)
        };
        agent::run_watched(&self.world.job, Policy::default(), look).await
    }

    fn untouched(&self) {
        assert_eq!(self.world.node.footprint(), self.before);
        assert_eq!(self.world.hups(), 0);
        let files: Vec<_> =
            listing(&self.world.job.lua_dir()).into_iter().filter(|f| f != "ballast").collect();
        assert_eq!(files, self.files);
    }

    fn loaded(&self) {
        assert_eq!(self.world.node.loaded("big").as_deref(), Some("1.0.0"));
        assert_eq!(self.world.hups(), 1);
    }
}

/// Everything below a directory, by its path from there.
fn listing(top: &Path) -> Vec<String> {
    let (mut found, mut todo) = (Vec::new(), vec![top.to_owned()]);
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
            found.push(entry.path().strip_prefix(top).unwrap().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_does_not_fit_is_not_begun_until_there_is_room() {
    let Some(mut node) = Cramped::new("size=24m") else { return };
    node.want(3, 1 << 20);
    let ballast = node.disk.fill(6 << 20);
    let why = node.waits().await;
    assert_eq!(why.code, "DISK_FULL");
    let (path, free) = (node.world.job.lua_dir(), node.disk.free());
    let sentence = format!("{} has only {free} bytes free; nothing was touched; make room", path.display());
    assert_eq!(why.message, sentence);
    node.untouched();

    // The same agent goes on by itself once there is room.
    let code = node.watched(|why| {
        assert_eq!(why.code, "DISK_FULL");
        let _once = fs::remove_file(&ballast);
        None
    });
    assert_eq!(code.await, 0);
    node.loaded();
}

#[tokio::test]
async fn many_small_files_take_more_room_than_their_bytes() {
    let Some(mut node) = Cramped::new("size=16m") else { return };
    node.want(1500, 1);
    // Enough for the bytes, the archive of them and the reserve, and not for a page a file.
    node.disk.fill(7 << 20);
    let why = node.waits().await;
    assert!(why.code == "DISK_FULL" && why.message.contains("nothing was touched"), "{why}");
    node.untouched();
}

#[tokio::test]
async fn a_file_system_that_is_full_half_way_keeps_no_half() {
    // Bytes there are enough of; names run out in the middle of the release.
    let Some(mut node) = Cramped::new("size=64m,nr_inodes=40") else { return };
    node.want(60, 10);
    let why = node.waits().await;
    assert_eq!(why.code, "DISK_FULL");
    assert!(why.message.starts_with("cannot place ") && why.message.contains("No space left"), "{why}");
    node.untouched();
    node.disk.remount("size=64m,nr_inodes=10k");
    assert_eq!(node.watched(|_| None).await, 0);
    node.loaded();
}

#[test]
fn somebody_who_fills_the_disk_half_way_leaves_no_half_either() {
    let Some(mut node) = Cramped::new("size=16m") else { return };
    node.want(1500, 10);
    let staging = node.world.job.lua_dir().join("staging");
    let has_begun =
        || fs::read_dir(&staging).unwrap().flatten().any(|work| work.path().join("slot/kong").exists());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut why = None;
    std::thread::scope(|scope| {
        let filler = scope.spawn(|| {
            let start = Instant::now();
            while !has_begun() && start.elapsed() < Duration::from_secs(30) {}
            node.disk.fill(0)
        });
        let code = runtime.block_on(node.watched(|failure| {
            why = Some(failure.clone());
            Some(WAITS)
        }));
        let ballast = filler.join().unwrap();
        if code == WAITS {
            node.untouched();
        }
        fs::remove_file(ballast).unwrap();
    });
    match why {
        Some(why) => {
            assert_eq!(why.code, "DISK_FULL");
            println!("{why}");
        }
        None => eprintln!("the files were placed before the disk was full"),
    }
    assert_eq!(runtime.block_on(node.watched(|_| None)), 0);
    node.loaded();
}
