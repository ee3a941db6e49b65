//! Agents without a node: the real agent's session, and somebody behind it who says that whatever is asked for is proven.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use kctl_node_agent::agent::ArtifactSource as _;
use kctl_node_agent::packages::Packages;
use kctl_node_agent::session::members::Members;
use kctl_node_agent::session::{Downloads, Home, Identity, Session};
use kctl_shared::digest::Digest;
use kctl_shared::name::PluginName;
use kctl_shared::network::{Tcp, dialer};
use kctl_shared::spec::{NodeSpec, NodeStatus, PluginStatus, Stage};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bench::plan::kong;

const POLL: std::time::Duration = std::time::Duration::from_millis(5);

/// Everything that a spec asks for, as proven.
pub fn answers(spec: &NodeSpec) -> BTreeMap<PluginName, PluginStatus> {
    let answer = |(name, plugin): (&PluginName, &kctl_shared::spec::PluginSpec)| {
        let stage = match (&plugin.enabled, plugin.staged.is_empty()) {
            (Some(_), _) => Stage::Enabled,
            (None, false) => Stage::Installed,
            (None, true) => Stage::Absent,
        };
        let status = PluginStatus {
            grant: plugin.grant,
            stage,
            loaded: plugin.enabled.clone(),
            staged: plugin.staged.clone(),
            preflighted: plugin.preflight.clone(),
            ..PluginStatus::default()
        };
        (name.clone(), status)
    };
    spec.plugins.iter().map(answer).collect()
}

/// A release that is about to be announced.
#[derive(Debug)]
pub struct Expected {
    digest: Digest,
    fetching: bool,
    /// How many agents have answered that they have it, and when the latest did.
    answered: Mutex<(usize, Option<Instant>)>,
    /// When the first agent was asked for what comes after all of them have it.
    passed: Mutex<Option<Instant>>,
}

impl Expected {
    fn answered(&self) {
        let mut answered = self.answered.lock().unwrap();
        *answered = (answered.0 + 1, Some(Instant::now()));
    }

    fn passes(&self, spec: &NodeSpec) {
        let asks =
            spec.plugins.values().any(|p| p.preflight.as_ref().is_some_and(|r| r.digest == self.digest));
        if asks {
            self.passed.lock().unwrap().get_or_insert_with(Instant::now);
        }
    }

    /// When the last of `count` agents answered.
    pub async fn acknowledged(&self, count: usize) -> Instant {
        let all = || Some(*self.answered.lock().unwrap()).filter(|(n, _)| *n >= count).and_then(|(_, at)| at);
        poll(all).await
    }

    /// When the control plane had all answers and went on.
    pub async fn passed(&self) -> Instant {
        poll(|| *self.passed.lock().unwrap()).await
    }
}

async fn poll<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = probe() {
            return value;
        }
        tokio::time::sleep(POLL).await;
    }
}

#[derive(Debug, Default)]
struct Shared {
    expected: watch::Sender<Option<Arc<Expected>>>,
    /// The member that each agent is connected to.
    homes: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub struct Agents {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Agents {
    /// Agents that begin to connect, with a place for files that are never written.
    pub fn start(count: usize, members: &[String], lua: &Path) -> Self {
        let packages = Packages::open(lua, None).unwrap();
        let shared = Arc::new(Shared { homes: Mutex::new(vec![String::new(); count]), ..Shared::default() });
        let (mut tasks, shutdown) = (JoinSet::new(), CancellationToken::new());
        for number in 0..count {
            let agent = Agent::new(number, members, packages.clone(), shutdown.clone(), &mut tasks);
            tasks.spawn(agent.run(shared.clone()));
        }
        Self { shared, tasks, shutdown }
    }

    /// Waits until each agent is connected to a member that is `right`.
    pub async fn are_with(&self, right: impl Fn(&String) -> bool) {
        let all = |home: &String| !home.is_empty() && right(home);
        poll(|| self.shared.homes.lock().unwrap().iter().all(all).then_some(())).await;
    }

    pub fn expect(&self, digest: &Digest, fetching: bool) -> Arc<Expected> {
        let expected =
            Expected { digest: *digest, fetching, answered: Mutex::default(), passed: Mutex::default() };
        let expected = Arc::new(expected);
        self.shared.expected.send_replace(Some(expected.clone()));
        expected
    }

    pub async fn stop(mut self) {
        self.shutdown.cancel();
        self.tasks.shutdown().await;
    }
}

struct Agent {
    number: usize,
    specs: mpsc::Receiver<NodeSpec>,
    accepted: watch::Sender<Option<NodeSpec>>,
    status: watch::Sender<NodeStatus>,
    current: watch::Receiver<Home>,
}

impl Agent {
    fn new(
        number: usize,
        members: &[String],
        packages: Packages,
        shutdown: CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (specs, incoming) = mpsc::channel(4);
        let (accepted, accepts) = watch::channel(None);
        let (status, says) = watch::channel(NodeStatus { kong: kong(), ..NodeStatus::default() });
        let (current, at) = watch::channel(Home::default());
        let session = Session {
            identity: Identity {
                node: format!("gateway-{number:05}"),
                group: "default".into(),
                nonce: format!("{number:032x}"),
                boot: 1,
            },
            // Nothing is kept: these members are all there are.
            members: Members::open(members.to_vec(), Path::new("/nonexistent"), dialer(Arc::new(Tcp), false)),
            dialer: dialer(Arc::new(Tcp), false),
            specs,
            accepted: accepts,
            status: says,
            lease: watch::Sender::new(None),
            current,
            packages,
            references: None,
        };
        tasks.spawn(session.run(shutdown));
        Self { number, specs: incoming, accepted, status, current: at }
    }

    async fn run(mut self, shared: Arc<Shared>) {
        let mut had = None;
        loop {
            // Both are cancel-safe.
            tokio::select! {
                changed = self.current.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let home = self.current.borrow_and_update().grpc.clone();
                    shared.homes.lock().unwrap()[self.number] = home;
                }
                spec = self.specs.recv() => {
                    let Some(spec) = spec else { return };
                    let expected = shared.expected.borrow().clone();
                    self.take(spec, expected, &mut had).await;
                }
            }
        }
    }

    async fn take(&self, spec: NodeSpec, expected: Option<Arc<Expected>>, had: &mut Option<Digest>) {
        let asked = expected.filter(|e| {
            e.passes(&spec);
            spec.plugins.values().any(|p| p.staged.iter().any(|r| r.digest == e.digest))
        });
        let new = asked.filter(|e| *had != Some(e.digest));
        if let Some(new) = new.as_ref().filter(|e| e.fetching) {
            let source = Downloads { current: self.current.clone(), dialer: dialer(Arc::new(Tcp), false) };
            while let Err(fault) = source.fetch(&new.digest).await {
                eprintln!("{fault}");
            }
        }
        let status = NodeStatus {
            observed_generation: spec.generation,
            spec_hash: spec.hash(),
            kong: kong(),
            plugins: answers(&spec).into(),
            ..NodeStatus::default()
        };
        self.accepted.send_replace(Some(spec));
        self.status.send_replace(status);
        if let Some(new) = new {
            *had = Some(new.digest);
            new.answered();
        }
    }
}
