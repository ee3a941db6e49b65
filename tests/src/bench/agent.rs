//! The agent's real loop on a node, against the bare loop of the same commands on another node, in turns.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use kctl_node_agent::agent::{Agent, ArtifactSource, Balancer};
use kctl_node_agent::answers::meter::Meter;
use kctl_node_agent::config::{Apply, Preflight};
use kctl_node_agent::gateway::kong::{Kong, KongConfig};
use kctl_node_agent::ledger::Ledger;
use kctl_node_agent::packages::Packages;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::package::{LoadOptions, Unread, load};
use kctl_shared::spec::{Grant, NodeSpec, NodeStatus, PluginSpec, ReleaseRef};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::bare::Bare;
use super::commands::now;
use super::node::Node;
use super::plugin;
use super::rounds::{Change, Measured, report};

const PATIENCE: Duration = Duration::from_secs(60);

/// Artifacts at hand: the network is measured by nobody here.
struct AtHand(BTreeMap<Digest, Bytes>);

#[async_trait]
impl ArtifactSource for AtHand {
    async fn fetch(&self, digest: &Digest) -> Result<Bytes, Fault> {
        self.0.get(digest).cloned().ok_or_else(|| Fault::new("ARTIFACT_UNKNOWN", digest.to_string()))
    }
}

/// An agent with its node.
struct Driven {
    node: Node,
    specs: mpsc::Sender<NodeSpec>,
    status: watch::Receiver<NodeStatus>,
    releases: BTreeMap<&'static str, ReleaseRef>,
    generation: u64,
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Measures `rounds` of install, upgrade and remove; whether the targets are met.
pub async fn run(kong: &Path, rounds: usize) -> bool {
    println!("agent on {}: a plugin of 100 KiB, two workers, no database", kong.display());
    let sources = super::directory("kctl-bench-sources-");
    for change in Change::ALL {
        change.version().map(|version| plugin::write(sources.path(), version));
    }
    let mut driven = Driven::new(Node::start(kong).await, sources.path());
    let mut bare = Bare::new(Node::start(kong).await, sources.path().to_owned());
    let mut found: BTreeMap<usize, Vec<(Measured, Measured)>> = BTreeMap::new();
    // The first round finds out what this Kong is and makes directories; it is not counted.
    for round in 0..=rounds {
        for (n, change) in Change::ALL.into_iter().enumerate() {
            let (agent, loop_) = if round % 2 == 0 {
                let agent = driven.measure(change).await;
                (agent, measure_bare(&mut bare, change).await)
            } else {
                let loop_ = measure_bare(&mut bare, change).await;
                (driven.measure(change).await, loop_)
            };
            if round > 0 {
                found.entry(n).or_default().push((agent, loop_));
            }
        }
    }
    let mut met = true;
    for (n, change) in Change::ALL.into_iter().enumerate() {
        met &= report(change, &found[&n]);
    }
    met
}

async fn measure_bare(bare: &mut Bare, change: Change) -> Measured {
    let scratch = bare.scratch();
    bare.node.kong.take();
    let from = now();
    bare.go(change, &scratch).await;
    let measured = Measured::new(from, now(), &bare.node.kong.take());
    bare.node.drained().await;
    std::fs::remove_dir_all(scratch).unwrap();
    measured
}

impl Driven {
    fn new(node: Node, sources: &Path) -> Self {
        let mut artifacts = BTreeMap::new();
        let mut releases = BTreeMap::new();
        for version in Change::ALL.into_iter().filter_map(Change::version) {
            let source = sources.join(format!("{}-{version}", plugin::NAME));
            let package = load(&source, &LoadOptions::default(), &Unread).unwrap();
            artifacts.insert(package.digest(), Bytes::from(package.to_artifact()));
            releases.insert(version, ReleaseRef::new(version, package.digest()));
        }
        let gateway = Arc::new(Kong::new(KongConfig {
            bin: node.kong.bin(),
            conf: node.conf(),
            prefix: node.prefix(),
            state_dir: node.path("state"),
            lua_dir: node.path("kctl"),
            preflight: Preflight::Parse,
            apply: Apply::default(),
        }));
        let (specs, incoming) = mpsc::channel(1);
        let (status, reported) = watch::channel(NodeStatus::default());
        let (accepted, _current) = watch::channel(None);
        let (_report, entities) = watch::channel(None);
        let agent = Agent {
            gateway,
            artifacts: Arc::new(AtHand(artifacts)),
            packages: Packages::open(&node.path("kctl"), None).unwrap(),
            ledger: Ledger::open(&node.path("state"), &NodeId::parse("n1").unwrap()).unwrap(),
            specs: incoming,
            status,
            entities,
            accepted,
            policy: kctl_node_agent::reconcile::Policy::default(),
            balancer: Balancer::default(),
            meter: Meter::default(),
        };
        let shutdown = CancellationToken::new();
        let until = shutdown.clone();
        // One thread of its own, as the daemon has.
        let thread = std::thread::spawn(move || {
            // Nobody reports entities; a channel that is closed would wake the loop for ever.
            let _open = _report;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(agent.run(until));
        });
        Self { node, specs, status: reported, releases, generation: 0, shutdown, thread: Some(thread) }
    }

    async fn measure(&mut self, change: Change) -> Measured {
        let spec = self.spec(change);
        let plugin = PluginName::parse(plugin::NAME).unwrap();
        let wanted = spec.plugins[&plugin].clone();
        self.node.kong.take();
        let from = now();
        self.specs.send(spec).await.unwrap();
        self.reported("the change", |status| {
            status.plugins.get(&plugin).is_some_and(|answer| {
                let digest = |release: &Option<ReleaseRef>| release.as_ref().map(|r| r.digest);
                assert!(answer.failure.is_none(), "{answer:?}");
                answer.grant == wanted.grant
                    && digest(&answer.loaded) == digest(&wanted.enabled)
                    && (wanted.enabled.is_some() || answer.staged.is_empty())
                    && answer.waiting.is_none()
            })
        })
        .await;
        let measured = Measured::new(from, now(), &self.node.kong.take());
        self.tidied_up(change).await;
        measured
    }

    fn spec(&mut self, change: Change) -> NodeSpec {
        self.generation += 1;
        let enabled = change.version().map(|version| self.releases[version].clone());
        let plugin = PluginSpec {
            grant: Grant { index: self.generation, offset: 0 },
            operation: format!("{change:?}"),
            staged: enabled.iter().cloned().collect(),
            enabled,
            ..PluginSpec::default()
        };
        NodeSpec {
            node: NodeId::parse("n1").unwrap(),
            epoch: 1,
            supersedes: None,
            generation: self.generation,
            plugins: [(PluginName::parse(plugin::NAME).unwrap(), plugin)].into(),
            task: None,
            hold: None,
        }
    }

    async fn reported(&mut self, what: &str, done: impl Fn(&NodeStatus) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, self.status.wait_for(done)).await.is_ok();
        assert!(waited, "waited for {what}: {:#?}", self.status.borrow());
    }

    /// What was loaded before is no concern of the next change.
    async fn tidied_up(&self, change: Change) {
        let entries =
            |dir: &str| std::fs::read_dir(self.node.path("kctl").join(dir)).map_or(0, Iterator::count);
        let start = Instant::now();
        while entries("gen") != usize::from(change.version().is_some())
            || entries("trash") + entries("staging") > 0
        {
            assert!(start.elapsed() < PATIENCE, "directories of former configurations stay");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.node.drained().await;
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
