//! The agent's loop in a process of its own, on a spec from a file, until the node is as the spec says.

use std::path::{Path, PathBuf};
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
use kctl_node_agent::reconcile::Policy;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::spec::{NodeSpec, NodeStatus};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Names the directory of the job; see [`Job`].
pub const VARIABLE: &str = "KCTL_TEST_AGENT_OF";
/// Exit codes of the process.
pub const GIVEN_UP: i32 = 3;
pub const TOO_LATE: i32 = 4;

const PATIENCE: Duration = Duration::from_secs(60);

/// Where everything of one node is.
#[derive(Clone, Debug)]
pub struct Job {
    pub root: PathBuf,
}

impl Job {
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn lua_dir(&self) -> PathBuf {
        self.path("kctl")
    }
}

struct Directory(PathBuf);

#[async_trait]
impl ArtifactSource for Directory {
    async fn fetch(&self, digest: &Digest) -> Result<Bytes, Fault> {
        let bytes = std::fs::read(self.0.join(digest.hex()));
        bytes.map(Bytes::from).map_err(|e| Fault::new("ARTIFACT_UNKNOWN", e.to_string()))
    }
}

pub fn run_if_asked() {
    let Some(root) = std::env::var_os(VARIABLE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let code = runtime.block_on(run(&Job { root: root.into() }, Policy::default()));
    std::process::exit(code);
}

/// Exit code of an agent that follows the spec in `spec.json`; what it had to say at the end is in `conditions.json`.
pub async fn run(job: &Job, policy: Policy) -> i32 {
    run_watched(job, policy, |_| None).await
}

/// As [`run`], with an eye on every report; a number ends it.
pub async fn run_watched(job: &Job, policy: Policy, mut look: impl FnMut(&NodeStatus) -> Option<i32>) -> i32 {
    let spec: NodeSpec = serde_json::from_slice(&std::fs::read(job.path("spec.json")).unwrap()).unwrap();
    let bin: PathBuf = std::fs::read_to_string(job.path("bin")).unwrap().into();
    let gateway = Arc::new(Kong::new(KongConfig {
        bin,
        conf: job.path("kong.conf"),
        prefix: job.path("p"),
        state_dir: job.path("state"),
        lua_dir: job.lua_dir(),
        preflight: Preflight::Parse,
        apply: Apply::default(),
    }));
    let ledger = Ledger::open(&job.path("state"), &spec.node).unwrap();
    let packages = Packages::open(&job.lua_dir(), None).unwrap();
    let (specs, incoming) = mpsc::channel(1);
    let (status, mut reported) = watch::channel(NodeStatus::default());
    let (accepted, _current) = watch::channel(None);
    let (_report, entities) = watch::channel(None);
    let artifacts = Arc::new(Directory(job.path("artifacts")));
    let agent = Agent {
        gateway,
        artifacts,
        packages,
        ledger,
        specs: incoming,
        status,
        entities,
        accepted,
        policy,
        balancer: Balancer::default(),
        meter: Meter::default(),
    };
    specs.send(spec.clone()).await.unwrap();
    let running = tokio::spawn(agent.run(CancellationToken::new()));
    let start = Instant::now();
    let code = loop {
        let status = reported.borrow_and_update().clone();
        let mut plugins = status.plugins.values();
        if let Some(code) = look(&status) {
            break code;
        }
        let drifted = policy.heal && status.conditions.iter().any(|c| c.code.starts_with("DRIFT_"));
        if status.spec_hash == spec.hash() && !drifted && is_done(&spec, &status, &job.lua_dir()) {
            break 0;
        }
        if let Some(failure) = plugins.find_map(|p| p.failure.as_ref()) {
            eprintln!("given up: {failure}");
            break GIVEN_UP;
        }
        if start.elapsed() > PATIENCE {
            eprintln!("not done: {status:#?}");
            break TOO_LATE;
        }
        // The last directory is collected without a change of the status.
        let _changed = tokio::time::timeout(Duration::from_millis(50), reported.changed()).await;
    };
    running.abort();
    // Its locks are free once it is gone.
    drop(running.await);
    let conditions = reported.borrow().conditions.iter().map(|c| c.code.clone()).collect::<Vec<_>>();
    std::fs::write(job.path("conditions.json"), serde_json::to_vec(&conditions).unwrap()).unwrap();
    code
}

/// Proven and tidied up.
fn is_done(spec: &NodeSpec, status: &NodeStatus, lua_dir: &Path) -> bool {
    let entries = |dir: &str| std::fs::read_dir(lua_dir.join(dir)).map_or(0, Iterator::count);
    let listed = spec.plugins.values().any(|p| p.enabled.is_some());
    entries("gen") == usize::from(listed)
        && entries("trash") + entries("staging") == 0
        && spec.plugins.iter().all(|(plugin, wanted)| {
            status.plugins.get(plugin).is_some_and(|answer| {
                let digests = |set: &std::collections::BTreeSet<kctl_shared::spec::ReleaseRef>| {
                    set.iter().map(|r| r.digest).collect::<Vec<_>>()
                };
                answer.grant == wanted.grant
                    && answer.loaded.as_ref().map(|r| r.digest) == wanted.enabled.as_ref().map(|r| r.digest)
                    && digests(&answer.staged) == digests(&wanted.staged)
                    && answer.waiting.is_none()
            })
        })
}
