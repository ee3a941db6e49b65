//! One node whose agent is a process of its own, and what may never be seen on it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kctl_shared::digest::Digest;
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::package::{LoadOptions, Unread, hash_tree, load};
use kctl_shared::spec::{Grant, NodeSpec, PluginSpec, ReleaseRef};
use kctl_tests::plugins;

use crate::agent::{GIVEN_UP, Job, VARIABLE};
use crate::node::Node;

const PLUGIN: &str = "hello";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    Install,
    Upgrade,
    Disable,
    Delete,
}

impl Change {
    pub const ALL: [Self; 4] = [Self::Install, Self::Upgrade, Self::Disable, Self::Delete];
}

/// What two ends of the same change have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Without the number of the generation directory.
    conf: String,
    loaded: Option<String>,
    stored: BTreeSet<PathBuf>,
    generations: usize,
    leftovers: Vec<PathBuf>,
}

#[derive(Debug)]
pub struct Machine {
    node: Node,
    job: Job,
    releases: [ReleaseRef; 2],
    generation: u64,
    /// kong.conf without the plugin.
    plain: String,
}

impl Machine {
    pub fn new() -> Self {
        let node = Node::started("plugins = bundled # ours come after\n");
        let job = Job { root: node.temp.path().to_owned() };
        fs::write(job.path("bin"), node.bin.as_os_str().as_encoded_bytes()).unwrap();
        fs::create_dir(job.path("artifacts")).unwrap();
        let releases = ["1.0.0", "2.0.0"].map(|version| {
            let package =
                load(&plugins::good(&job.path("sources"), PLUGIN, version), &LoadOptions::default(), &Unread)
                    .unwrap();
            let digest = package.digest();
            fs::write(job.path("artifacts").join(digest.hex()), package.to_artifact()).unwrap();
            ReleaseRef::new(version, digest)
        });
        let plain = node.read_conf();
        Self { node, job, releases, generation: 0, plain }
    }

    /// The points that are passed, in order, each once.
    pub fn undisturbed(&mut self, change: Change) -> Vec<String> {
        let trace = self.job.path("trace");
        let _none = fs::remove_file(&trace);
        self.order(change);
        let code = self.agent(&[("KCTL_TEST_FAULT_TRACE", trace.to_str().unwrap())]);
        assert_eq!(code, Some(0), "{change:?}, undisturbed");
        let mut points: Vec<String> = Vec::new();
        for line in fs::read_to_string(&trace).unwrap().lines() {
            if !points.iter().any(|p| p == line) {
                points.push(line.to_owned());
            }
        }
        points
    }

    pub fn disturbed(&mut self, change: Change, point: &str, fault: &str, end: &Look) {
        let replay = format!("{change:?}:{point}").to_lowercase();
        eprintln!("{fault} at KCTL_TEST_POINT={replay}");
        self.order(change);
        let code = self.agent(&[("KCTL_TEST_FAULT", &format!("{point}:{fault}"))]);
        self.check();
        if fault == "power" && code.is_none() {
            self.kong_comes_back();
            self.check();
        }
        if code == Some(GIVEN_UP) {
            // What an operator would do: ask again.
            self.order(change);
        }
        if code != Some(0) {
            assert_eq!(self.agent(&[]), Some(0), "after {fault} at {replay}");
        }
        self.check();
        assert_eq!(self.look(), *end, "after {fault} at {replay}");
    }

    /// Writes the spec the next agent follows.
    fn order(&mut self, change: Change) {
        self.generation += 1;
        let [first, second] = self.releases.clone();
        let (enabled, staged) = match change {
            Change::Install => (Some(first.clone()), vec![first]),
            Change::Upgrade => (Some(second.clone()), vec![second]),
            Change::Disable => (None, vec![second]),
            Change::Delete => (None, vec![]),
        };
        let plugin = PluginSpec {
            grant: Grant { index: self.generation, offset: 0 },
            operation: format!("{change:?}"),
            enabled,
            staged: staged.into_iter().collect(),
            ..PluginSpec::default()
        };
        let spec = NodeSpec {
            node: NodeId::parse("n1").unwrap(),
            epoch: 1,
            supersedes: None,
            generation: self.generation,
            plugins: [(PluginName::parse(PLUGIN).unwrap(), plugin)].into(),
            task: None,
            hold: None,
        };
        fs::write(self.job.path("spec.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    }

    /// Exit code of an agent; `None` when it was killed.
    fn agent(&self, environment: &[(&str, &str)]) -> Option<i32> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env(VARIABLE, &self.job.root);
        let ended = command.envs(environment.iter().copied()).output().unwrap();
        let words = String::from_utf8_lossy(&ended.stderr);
        if ended.status.code().is_some_and(|c| c != 0) {
            eprintln!("{words}");
        }
        ended.status.code()
    }

    /// The machine lost its power: Kong went with it, and its supervisor starts it with what is on the disk.
    fn kong_comes_back(&self) {
        let master = self.node.pid().unwrap();
        // Held first, so that it starts no more workers meanwhile.
        self.node.signal("STOP");
        let below: Vec<i32> = procfs::process::all_processes()
            .unwrap()
            .flatten()
            .filter(|p| p.stat().is_ok_and(|stat| stat.ppid == master))
            .map(|p| p.pid())
            .collect();
        for pid in [master].into_iter().chain(below) {
            let _ended = Command::new("kill").arg("-KILL").arg(pid.to_string()).status();
        }
        // A number that is still taken counts as a running Kong.
        kctl_tests::until("the master to be gone", 30, || {
            (!Path::new("/proc").join(master.to_string()).exists()).then_some(())
        });
        kctl_tests::until("the ports", 30, || {
            self.node
                .ports
                .iter()
                .all(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
                .then_some(())
        });
        self.node.start();
    }

    pub fn look(&self) -> Look {
        let lua = self.job.lua_dir();
        let conf = self.node.read_conf();
        let conf = match self.generation_in(&conf) {
            Some(generation) => conf.replace(&*generation.to_string_lossy(), "GENERATION"),
            None => conf,
        };
        let listed = |dir: &Path| -> Vec<PathBuf> {
            fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
        };
        let beside: Vec<PathBuf> = listed(self.node.temp.path())
            .into_iter()
            .filter(|p| p.to_string_lossy().contains("kctl-new"))
            .collect();
        Look {
            conf,
            loaded: self.node.loaded(PLUGIN),
            stored: listed(&lua.join("store")).iter().flat_map(|p| listed(p)).collect(),
            generations: listed(&lua.join("gen")).len(),
            leftovers: [listed(&lua.join("staging")), listed(&lua.join("trash")), beside].concat(),
        }
    }

    fn generation_in(&self, conf: &str) -> Option<PathBuf> {
        let generations = self.job.lua_dir().join("gen");
        let at = conf.find(&*generations.to_string_lossy())?;
        let rest = &conf[at..];
        Some(rest[..rest.find("/?")?].into())
    }

    /// kong.conf is whole, what it names is whole, and nothing that is listed or loaded lost its files.
    fn check(&self) {
        let conf = self.node.read_conf();
        let generation = self.generation_in(&conf);
        let entry = generation.as_ref().map(|g| {
            let g = g.display();
            format!("lua_package_path = {g}/?.lua;{g}/?/init.lua;")
        });
        let others: Vec<&str> = conf.lines().filter(|line| !line.starts_with("lua_package_path")).collect();
        let plain: Vec<&str> = self.plain.lines().collect();
        let with: String = self.plain.replace("plugins = bundled ", &format!("plugins = bundled,{PLUGIN} "));
        let listed = others == with.lines().collect::<Vec<_>>();
        assert!(listed || others == plain, "kong.conf is neither the old nor the new one:\n{conf}");
        if let Some(entry) = &entry {
            assert!(conf.lines().any(|line| line.starts_with(&**entry)), "{entry} in\n{conf}");
        }
        // Without the directive the entry may lag behind, never the other way round.
        let running = self.node.get("/").ok().and_then(|(_, root)| {
            root["plugins"]["available_on_server"][PLUGIN]["version"].as_str().map(str::to_owned)
        });
        if listed {
            let generation = generation.expect("a directive with a path");
            let tree = generation.join("kong/plugins").join(PLUGIN);
            assert!(self.is_whole(&tree), "{} is not a whole release", tree.display());
        }
        if let Some(version) = running {
            let release = self.releases.iter().find(|r| r.version == version).unwrap();
            let store = self.job.lua_dir().join("store").join(PLUGIN).join(release.digest.hex());
            assert!(
                self.is_whole(&store.join("kong/plugins").join(PLUGIN)),
                "Kong runs {version} without its files"
            );
        }
        for release in
            fs::read_dir(self.job.lua_dir().join("store").join(PLUGIN)).into_iter().flatten().flatten()
        {
            let tree = release.path().join("kong/plugins").join(PLUGIN);
            let digest: Digest = release.file_name().to_str().unwrap().parse().unwrap();
            let found = hash_tree(&tree, &PluginName::parse(PLUGIN).unwrap()).map(|(d, _)| d).ok();
            assert_eq!(found, Some(digest), "the store has half a release");
        }
    }

    fn is_whole(&self, tree: &Path) -> bool {
        let found = hash_tree(tree, &PluginName::parse(PLUGIN).unwrap()).map(|(digest, _)| digest).ok();
        self.releases.iter().any(|r| Some(r.digest) == found)
    }
}
