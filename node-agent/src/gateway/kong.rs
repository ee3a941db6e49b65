//! [`Gateway`] on a Kong that is driven by its own command line and asked by its own APIs.

mod answers;
mod dialect;
mod enact;
mod load;
mod observe;
mod prove;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use kctl_shared::name::PluginName;
use kctl_shared::nginx::NginxSetting;
use kctl_shared::served::Answers;
use kctl_shared::spec::{Entity, Failure};
use tokio::sync::Mutex;

use super::admin_api::AdminApi;
use super::cli::Cli;
use super::conf_file::{self, ConfFile};
use super::dialect::{Takes, Trials};
use super::effective::{self, Environment, Inferred};
use super::kong_conf::{Change, OurPath};
use super::kong_env::KongEnv;
use super::listen::Listener;
use super::node_conf::NodeConf;
use super::preflight::Trial;
use super::process::{self, ProcessId, Tree};
use super::record::Record;
use super::{EnactError, Gateway, KongObserved, Progress, Wanted, scratch};
use crate::config::{Apply, Preflight};

/// Where a node's Kong is. All paths are absolute.
#[derive(Clone, Debug)]
pub struct KongConfig {
    pub bin: PathBuf,
    pub conf: PathBuf,
    pub prefix: PathBuf,
    pub state_dir: PathBuf,
    /// Holds `gen/<generation>`.
    pub lua_dir: PathBuf,
    pub preflight: Preflight,
    pub apply: Apply,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One of Kong's commands; a start with a port clash alone takes several seconds.
    pub command: Duration,
    /// From the HUP to a whole new generation of workers, proven.
    pub proof: Duration,
    /// One HTTP answer.
    pub http: Duration,
    /// Generations of old workers that may be alive when another one is added.
    pub old_generations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(60),
            proof: Duration::from_secs(30),
            http: Duration::from_secs(5),
            old_generations: 4,
        }
    }
}

#[derive(Debug)]
pub struct Kong {
    config: KongConfig,
    limits: Limits,
    ours: OurPath,
    inferred: Inferred,
    record: Record,
    known: dialect::Known,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Kong {
    pub fn new(config: KongConfig) -> Self {
        Self::with_limits(config, Limits::default())
    }

    pub fn with_limits(config: KongConfig, limits: Limits) -> Self {
        scratch::sweep(&config.prefix);
        conf_file::sweep(&config.conf);
        Self::beside(config, limits)
    }

    /// Beside an agent that may be at work on the same node: takes nothing of its away.
    pub fn beside(config: KongConfig, limits: Limits) -> Self {
        let (ours, record) = (OurPath::new(&config.lua_dir), Record::open(&config.state_dir));
        Self {
            config,
            limits,
            ours,
            inferred: Inferred::default(),
            record,
            known: dialect::Known::default(),
            changing: Mutex::default(),
        }
    }

    fn prefix(&self) -> &Path {
        &self.config.prefix
    }

    fn conf(&self) -> Result<ConfFile, Failure> {
        Ok(ConfFile::read(&self.config.conf, self.dialect().grammar)?)
    }

    /// What the next HUP loads; what it was before, when a `prepare` was killed half-way.
    fn armed(&self) -> Result<KongEnv, Failure> {
        let dialect = self.dialect();
        if dialect.armed.is_none() {
            // nginx reads the node's own file.
            return KongEnv::of(&self.conf()?, self.prefix(), dialect);
        }
        KongEnv::read(self.prefix(), &dialect).or_else(|failure| match failure.code.as_str() {
            "NOT_PREPARED" if Tree::of(self.prefix()).is_some() => {
                KongEnv::from_file(self.record.kept_armed(), &dialect).map_err(|_| failure)
            }
            _ => Err(failure),
        })
    }

    /// The command line as it has to be run for this prefix.
    fn cli(&self, armed: Option<&KongEnv>, tree: Option<&Tree>) -> Result<Cli, Failure> {
        let me = rustix::process::geteuid().as_raw();
        let user = match armed {
            Some(armed) if armed.owner.0 != me && me == 0 => Some(armed.owner),
            Some(armed) if armed.owner.0 != me => {
                let message = format!(
                    "{} belongs to user {}, and the agent runs as {me}; run the agent as that user or as root",
                    KongEnv::path(self.prefix(), &self.dialect()).display(),
                    armed.owner.0
                );
                return Err(Failure::new("WRONG_USER", message));
            }
            _ => None,
        };
        let open_files = tree.and_then(|tree| process::open_files_limit(tree.master.pid));
        Ok(Cli { bin: self.config.bin.clone(), user, open_files })
    }

    fn admin(&self, armed: &KongEnv) -> Option<AdminApi> {
        AdminApi::new(Listener::parse(armed.get("admin_listen")).address()?, self.limits.http).ok()
    }

    fn status_api(&self, armed: &KongEnv) -> Option<AdminApi> {
        AdminApi::new(Listener::parse(armed.get("status_listen")).address()?, self.limits.http).ok()
    }

    /// The Admin API, for callers that cannot do without.
    fn entities_api(&self) -> Result<AdminApi, Failure> {
        let armed = self.armed()?;
        self.admin(&armed).ok_or_else(|| {
            let message = "this node has no Admin API in plain HTTP (admin_listen)";
            Failure::new("NO_ADMIN_API", message)
        })
    }

    /// Environment in which rendering `text` changes nothing but what is ours.
    async fn environment(
        &self,
        cli: &Cli,
        text: &[u8],
        armed: &KongEnv,
        wanted: &Wanted,
        master: Option<ProcessId>,
    ) -> Result<Environment, Failure> {
        if self.dialect().takes == Takes::Restart {
            // There is no command to render anything with; what plugins and paths come from was looked at before.
            return Ok(Environment::new());
        }
        let ours = self.nginx_keys(text, wanted, armed)?;
        let renderer =
            effective::Renderer { cli, prefix: self.prefix(), limit: self.limits.command, ours: &ours };
        self.inferred.settle(&renderer, text, armed, master).await
    }

    /// Keys whose values may differ from what runs: those of lines of ours for nginx, in the file as it is, in `text` and in
    /// what was proven last, and those of the owner's lines that plugins need and that were not loaded yet.
    fn nginx_keys(&self, text: &[u8], wanted: &Wanted, armed: &KongEnv) -> Result<BTreeSet<String>, Failure> {
        let conf = NodeConf::parse(text, self.dialect().grammar)?;
        let mut keys = &self.conf()?.conf.own_nginx_keys() | &conf.own_nginx_keys();
        let proven = self.record.memory().proof.map(|proof| proof.wanted.nginx()).unwrap_or_default();
        keys.extend(proven.into_iter().chain(wanted.nginx()).map(|setting| setting.key));
        let (users, running) = (conf.users_nginx(), armed.nginx());
        let explained = |key: &str| running.iter().all(|s| s.key != key || users.contains(s));
        let needed = wanted.listed.values().flat_map(|release| &release.nginx);
        keys.extend(needed.filter(|s| users.contains(s) && explained(&s.key)).map(|s| s.key.clone()));
        Ok(keys)
    }

    /// The text with `change` made, if this Kong has what it takes.
    ///
    /// # Errors
    /// `NGINX_UNSUPPORTED`, and those of the editor.
    fn edit(&self, conf: &ConfFile, change: &Change) -> Result<Vec<u8>, Failure> {
        let dialect = self.dialect();
        let first = change.nginx.iter().flatten().next();
        if let (false, Some(setting)) = (dialect.injects(), first) {
            let version = dialect.version;
            let message = format!(
                "Kong {version} hands nothing of kong.conf on to nginx, such as `{setting}`; 0.15 does"
            );
            return Err(Failure::new("NGINX_UNSUPPORTED", message));
        }
        Ok(conf.conf.edit(change, &self.ours)?)
    }

    /// Settings for nginx that are ours: asked for, proven before, or in a line of ours.
    fn own_nginx(&self, conf: &ConfFile, wanted: &Wanted) -> BTreeSet<NginxSetting> {
        let mut ours: BTreeSet<_> = &conf.conf.nginx() - &conf.conf.users_nginx();
        ours.extend(wanted.nginx());
        ours.extend(self.record.memory().proof.map(|proof| proof.wanted.nginx()).unwrap_or_default());
        ours
    }

    /// Whether a change is brought in by a restart.
    fn restarts(&self) -> bool {
        self.config.apply == Apply::Restart || self.dialect().takes == Takes::Restart
    }
}

/// The edit that makes a list as `wanted` says.
fn change_for(wanted: &Wanted) -> Change {
    let names = |set: &BTreeSet<PluginName>| set.iter().map(ToString::to_string).collect();
    Change {
        add: wanted.listed.keys().map(ToString::to_string).collect(),
        remove: names(&wanted.unlisted),
        generation: wanted.generation.clone(),
        nginx: Some(wanted.nginx()),
    }
}

#[async_trait]
impl Gateway for Kong {
    fn old_workers(&self) -> u32 {
        let count = Tree::of(self.prefix()).map_or(0, |tree| tree.draining().count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    async fn observe(&self) -> KongObserved {
        self.observed().await
    }

    async fn proven(&self, wanted: &Wanted) -> Result<(), Failure> {
        self.ask_version().await?;
        self.proven_now(wanted).await
    }

    async fn preflight(&self, wanted: &Wanted, how: Preflight) -> Result<(), Failure> {
        let dialect = self.ask_version().await?;
        let conf = self.conf()?;
        let edited = self.edit(&conf, &change_for(wanted))?;
        if dialect.trials == Trials::None {
            return Ok(());
        }
        let tree = Tree::of(self.prefix());
        let armed = self.armed().ok();
        let cli = self.cli(armed.as_ref(), tree.as_ref())?;
        let environment = match &armed {
            Some(armed) => {
                self.can_be_restarted(armed)?;
                effective::check_directives(&conf, armed, &self.ours, &self.explained(wanted))?;
                effective::check_nginx(&conf, armed, &self.own_nginx(&conf, wanted))?;
                self.environment(&cli, &edited, armed, wanted, tree.map(|t| t.master)).await?
            }
            // Nothing was ever started here; there is nothing that could come out differently.
            None => Environment::new(),
        };
        let (how, limit) = (how.max(self.config.preflight), self.limits.command);
        let trial =
            Trial { cli: &cli, prefix: self.prefix(), environment: &environment, how, limit, dialect };
        trial.judge(&edited, &conf.text).await
    }

    async fn enact(
        &self,
        wanted: &Wanted,
        before: &Wanted,
        progress: Progress<'_>,
    ) -> Result<(), EnactError> {
        let _one = self.changing.lock().await;
        self.ask_version().await.map_err(EnactError::Refused)?;
        self.enact_now(wanted, before, progress).await
    }

    async fn put_back(&self, before: &Wanted, progress: Progress<'_>) -> Result<(), Failure> {
        let _one = self.changing.lock().await;
        self.ask_version().await?;
        self.put_back_now(before, progress).await
    }

    async fn scan(&self, plugin: &PluginName) -> Result<Vec<Entity>, Failure> {
        self.ask_version().await?;
        self.entities_api()?.entities(plugin).await
    }

    async fn name_of(&self, workspace: &str, kind: &str, id: &str) -> Result<Option<String>, Failure> {
        self.entities_api()?.name_of(workspace, kind, id).await
    }

    async fn delete_entity(&self, id: &str) -> Result<(), Failure> {
        self.ask_version().await?;
        self.entities_api()?.delete(id).await
    }

    async fn answers(&self) -> Option<Answers> {
        self.counted().await
    }

    async fn put_entity(&self, entity: &Entity) -> Result<(), Failure> {
        self.ask_version().await?;
        self.entities_api()?.put(entity).await
    }
}
