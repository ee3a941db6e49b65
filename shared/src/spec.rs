//! What a node should be, and what its agent last proved it to be.
//!
//! A [`NodeSpec`] is always whole: losing, repeating or delaying one is harmless. A [`NodeStatus`] says only what was
//! observed or proven, never what was merely asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::method::Method;
use crate::name::{NodeId, PluginName};
use crate::nginx::NginxSetting;
use crate::served::Served;

/// Log position of the entry that authorised something: unique, ordered, never reused. Several commands may share one
/// log entry, hence the offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grant {
    pub index: u64,
    pub offset: u32,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.offset)
    }
}

/// Which release, and how it is placed: digest and method decide, the version is for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReleaseRef {
    pub version: String,
    pub digest: Digest,
    // Left out where it is the default, so that what was written and hashed before there were methods stays the same.
    #[serde(default, skip_serializing_if = "Method::is_store")]
    pub method: Method,
    /// What it needs of nginx, as the release declares it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub nginx: BTreeSet<NginxSetting>,
    /// kctl was asked to set that in kong.conf while the release is enabled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub set_nginx: bool,
}

/// One release placed in one way; what an agent keeps apart on its disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Placement {
    pub digest: Digest,
    pub method: Method,
}

impl ReleaseRef {
    /// Placed by the default method.
    pub fn new(version: impl Into<String>, digest: Digest) -> Self {
        Self {
            version: version.into(),
            digest,
            method: Method::default(),
            nginx: BTreeSet::new(),
            set_nginx: false,
        }
    }

    #[must_use]
    pub fn by(self, method: Method) -> Self {
        Self { method, ..self }
    }

    pub fn placement(&self) -> Placement {
        Placement { digest: self.digest, method: self.method.clone() }
    }

    /// What the agent puts into kong.conf for it.
    pub fn sets(&self) -> impl Iterator<Item = &NginxSetting> {
        self.nginx.iter().filter(|_| self.set_nginx)
    }

    /// The same files, placed in the same way, with the same settings; versions are not compared.
    pub fn is(&self, other: &Self) -> bool {
        self.digest == other.digest && self.method == other.method && self.sets().eq(other.sets())
    }
}

/// How far a plugin is on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Neither files of ours nor an entry in `plugins`.
    #[default]
    Absent,
    /// Files in place, not listed or not proven loaded.
    Installed,
    /// Listed in `plugins` and proven loaded by the running workers.
    Enabled,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "Absent",
            Self::Installed => "Installed",
            Self::Enabled => "Enabled",
        }
    }
}

impl std::str::FromStr for Stage {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        [Self::Absent, Self::Installed, Self::Enabled].into_iter().find(|v| v.as_str() == s).ok_or(())
    }
}

/// What a node should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    pub node: NodeId,
    /// Of the cluster; it changes when one is restored from a backup, and another one is refused.
    pub epoch: u64,
    /// The epoch from which somebody let this node go over to `epoch`.
    #[serde(default)]
    pub supersedes: Option<u64>,
    /// Log index of the last entry that changed any spec; a lower one is refused.
    pub generation: u64,
    pub plugins: BTreeMap<PluginName, PluginSpec>,
    pub task: Option<EntityTask>,
    /// Somebody wants this node left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldSpec>,
}

/// Nothing is begun on the node; what was begun, and what is put back, ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldSpec {
    /// It is out of its load balancer meanwhile.
    pub drain: bool,
}

impl NodeSpec {
    /// Hash over everything but the generation, hex: equal hash, equal spec.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        let body = (&self.node, self.epoch, &self.plugins, &self.task);
        // Ordered maps and no floats: the encoding is deterministic and cannot fail.
        hasher.update(serde_json::to_vec(&body).unwrap_or_default());
        // Apart, so that specs without it hash as they did before there were holds.
        if let Some(hold) = &self.hold {
            hasher.update(serde_json::to_vec(hold).unwrap_or_default());
        }
        Digest(hasher.finalize().into()).hex()
    }
}

/// What one plugin should be on a node. Plugins the spec does not name are left exactly as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSpec {
    pub grant: Grant,
    /// The operation behind the grant; empty at rest.
    pub operation: String,
    /// Must be listed in `plugins` and proven loaded; `None`: must not be listed.
    pub enabled: Option<ReleaseRef>,
    /// Files that must be on the node. Always includes `enabled`. Other releases of this plugin are deleted as soon as
    /// neither the directive nor a living worker needs them.
    pub staged: BTreeSet<ReleaseRef>,
    /// Prove in a scratch Kong that the node's list loads with this release in it; nothing running is touched.
    pub preflight: Option<ReleaseRef>,
    /// With a Kong that is started for a moment, also where loading alone says nothing against it.
    #[serde(default)]
    pub boot: bool,
    /// What stands in `plugins` under this name already becomes kctl's, as it is.
    #[serde(default)]
    pub adopt: bool,
}

/// Work on Kong's plugin entities for one node of a group: delete or re-create the listed ids, then scan and keep
/// scanning. The node works only while it holds the lease (see the agent protocol's `Welcome.lease_ms`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityTask {
    pub grant: Grant,
    pub operation: String,
    pub plugin: PluginName,
    pub delete: BTreeSet<String>,
    /// To be re-created under their ids, as they were saved, where they are missing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub attach: BTreeSet<String>,
    /// Only look: nothing is deleted, handed over or re-created.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scan_only: bool,
}

/// What the agent last proved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub observed_generation: u64,
    /// Hash of the spec these facts answer; empty before the first one.
    pub spec_hash: String,
    pub kong: KongFacts,
    /// Shared: thousands of nodes report the same.
    pub plugins: Arc<BTreeMap<PluginName, PluginStatus>>,
    pub task: Option<EntityReport>,
    /// Things a person should know, as (code, sentence).
    pub conditions: Vec<Failure>,
    pub found: Vec<FoundPlugin>,
    /// The node is out of its load balancer.
    #[serde(default)]
    pub drained: bool,
    /// Only while an operation that made a reload is on its way, and Kong counts its answers.
    #[serde(default)]
    pub served: Option<Served>,
}

/// A plugin in `plugins`, or loaded, that nobody gave to this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundPlugin {
    pub plugin: PluginName,
    /// In Kong's own words; empty when it is not loaded.
    pub version: String,
    /// Of the files where Lua finds them.
    pub digest: Option<Digest>,
    pub dir: String,
    pub loaded: bool,
    /// How kctl placed it, if it did: a cluster that was restored from a backup does not know it.
    #[serde(default)]
    pub placed: Option<Method>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KongState {
    Running,
    /// No master process lives.
    Down,
    /// The master lives but does not run (SIGSTOP, traced).
    Stopped,
    #[default]
    Unknown,
}

impl KongState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Down => "down",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }

    pub fn parse(s: &str) -> Self {
        [Self::Running, Self::Down, Self::Stopped].into_iter().find(|v| v.as_str() == s).unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KongFacts {
    pub version: String,
    pub state: KongState,
    pub ready: bool,
    pub has_admin_api: bool,
    pub database: String,
    /// Hash over pg_host, port, database and schema; empty without a database.
    pub datastore: String,
    /// Workers of earlier configurations that still serve requests.
    pub old_workers: u32,
    /// Milliseconds until a deleted entity is forgotten by every worker of the group, at the latest.
    pub propagation_ms: u64,
    pub master_pid: u32,
    pub role: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// The grant these facts answer. A barrier counts nothing that answers another grant.
    pub grant: Grant,
    pub stage: Stage,
    /// Proven loaded.
    pub loaded: Option<ReleaseRef>,
    /// Files on disk, re-hashed after they were synced.
    pub staged: BTreeSet<ReleaseRef>,
    /// Passed the preflight asked for under this grant.
    pub preflighted: Option<ReleaseRef>,
    pub word: StepWord,
    /// The agent gave up on this grant, and the node is as it was before (or says otherwise in the message).
    pub failure: Option<Failure>,
    /// Something outside the agent keeps it from going on; it tries again by itself.
    pub waiting: Option<Failure>,
    /// Living workers that may still run code of this plugin although it is not listed any more, or of a former release.
    pub old_workers: u32,
}

/// A stable code and Kong's or the system's own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

impl Failure {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityReport {
    pub grant: Grant,
    pub operation: String,
    pub plugin: Option<PluginName>,
    /// Complete scans under this grant, all deletions behind them.
    pub scans: u64,
    pub empty_in_a_row: u64,
    /// Of the latest complete scan.
    pub entities: Vec<Entity>,
    pub waiting: Option<Failure>,
    /// Under which digest those of `entities` that the task does not list were handed over.
    pub saved: Option<Digest>,
    /// How many of the latest scans in sequence showed every entity to re-create, or Kong's refusal to take it.
    pub attached_in_a_row: u64,
    /// What Kong refuses to take again, by id, with its words.
    pub refused: BTreeMap<String, Failure>,
}

impl EntityReport {
    /// Of a task that was taken up.
    pub fn of(task: &EntityTask) -> Self {
        Self {
            grant: task.grant,
            operation: task.operation.clone(),
            plugin: Some(task.plugin.clone()),
            ..Self::default()
        }
    }

    /// Whether both are of one task. One decision may ask for a scan of several operations under one grant.
    pub fn is_of_same(&self, other: &Self) -> bool {
        (self.grant, &self.operation, &self.plugin) == (other.grant, &other.operation, &other.plugin)
    }
}

/// One configured instance of a plugin, as Kong stores it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entity {
    pub id: String,
    /// `global`, `service`, `route`, `consumer`, or several joined by `+`.
    pub scope: String,
    /// `route=<id>` and the like, joined by `,`; empty for a global one.
    pub target: String,
    /// Kong's JSON; empty in a report.
    pub body: String,
    /// Name of the workspace it is in; empty where Kong has none.
    #[serde(default)]
    pub workspace: String,
}

macro_rules! words {
    ($($variant:ident = $word:literal),+ $(,)?) => {
        /// The word for what a node's step is doing, the same in CLI, API, dashboard and metrics.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum StepWord { #[default] $($variant),+ }

        impl StepWord {
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words! {
    Pending = "pending",
    Fetching = "fetching",
    Verifying = "verifying",
    Staged = "staged",
    Preflight = "preflight",
    Linking = "linking",
    Configuring = "configuring",
    Reloading = "reloading",
    Proving = "proving",
    Baking = "baking",
    Healthy = "healthy",
    Detaching = "detaching",
    Disabling = "disabling",
    Purging = "purging",
    Absent = "absent",
    Failed = "failed",
    RollingBack = "rolling-back",
    RolledBack = "rolled-back",
    Drifted = "drifted",
    Held = "held",
    Draining = "draining",
    Unreachable = "unreachable",
    Excused = "excused",
    Quarantined = "quarantined",
}

impl StepWord {
    /// The word, or `pending` for one this version does not know.
    pub fn parse(s: &str) -> Self {
        Self::ALL.iter().copied().find(|w| w.as_str() == s).unwrap_or_default()
    }
}

impl fmt::Display for StepWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
