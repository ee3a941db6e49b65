//! The port to Kong: everything the agent needs from a gateway, in the agent's terms.
//!
//! The real adapter is [`kong::Kong`]; it drives Kong through its own command line and Admin API only, so that it does
//! not know whether a real Kong or the stand-in answers.

pub(crate) mod admin_api;
pub(crate) mod cli;
pub mod conf_file;
pub mod dialect;
pub(crate) mod effective;
pub(crate) mod error_log;
pub mod kong;
pub mod kong_conf;
pub(crate) mod kong_env;
pub mod kong_yml;
pub(crate) mod listen;
pub mod locate;
pub mod node_conf;
pub(crate) mod preflight;
pub(crate) mod process;
mod record;
pub(crate) mod resolve;
pub(crate) mod scratch;
pub(crate) mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use async_trait::async_trait;
use kctl_shared::name::PluginName;
use kctl_shared::nginx::NginxSetting;
use kctl_shared::served::Answers;
use kctl_shared::spec::{Entity, Failure, KongFacts, ReleaseRef, StepWord};
pub(crate) use resolve::extras_list;

use crate::config::Preflight;

/// What our part of a node's configuration should be. Names in the directive that are in neither set always stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wanted {
    /// Must be listed in `plugins` and proven loaded from `generation`.
    pub listed: BTreeMap<PluginName, ReleaseRef>,
    /// Must not be listed.
    pub unlisted: BTreeSet<PluginName>,
    /// Directory whose `?.lua` and `?/init.lua` stand before the user's own `lua_package_path`; `None`: no entry of ours.
    pub generation: Option<PathBuf>,
}

impl Wanted {
    /// What kong.conf has to hand on to nginx for the listed plugins.
    pub fn nginx(&self) -> BTreeSet<NginxSetting> {
        self.listed.values().flat_map(ReleaseRef::sets).cloned().collect()
    }
}

/// What is observed without touching anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KongObserved {
    pub facts: KongFacts,
    /// Names in the conf file's directive as the next `prepare` would read them (`bundled` included); `None` when the
    /// file cannot be read or parsed, with the reason in `trouble`.
    pub conf_plugins: Option<Vec<String>>,
    /// Names in the prefix's `.kong_env`: what the next HUP loads.
    pub armed_plugins: Option<Vec<String>>,
    /// Our generation directory in the conf file's and in the armed `lua_package_path`.
    pub conf_generation: Option<PathBuf>,
    pub armed_generation: Option<PathBuf>,
    /// What the conf file hands on to nginx; `None` when it cannot be read.
    pub conf_nginx: Option<BTreeSet<NginxSetting>>,
    /// What Kong handed on when it was prepared last, from wherever.
    pub armed_nginx: BTreeSet<NginxSetting>,
    /// Names and versions in the running Kong's own words (`plugins.available_on_server`); `None` when it cannot be asked.
    pub loaded: Option<BTreeMap<String, Option<String>>>,
    pub enabled_in_cluster: Option<BTreeSet<String>>,
    /// Where Lua looks for modules beside our own, entries absolute; `None` when no Kong was ever prepared.
    pub lua_path: Option<String>,
    /// Generation directories that living old workers may still read from.
    pub old_generations: BTreeSet<PathBuf>,
    pub trouble: Option<Failure>,
    /// Kong does not run because a restart of the agent's never came to its end.
    pub stopped_by_us: bool,
    /// Names that an edit of the agent's added or took out, which is neither proven nor put back: whatever the files say,
    /// the running workers may be otherwise.
    pub unproven: BTreeSet<String>,
    /// What this Kong keeps from being done or shown as well as on a newer one.
    pub limits: Vec<Failure>,
}

/// How [`Gateway::enact`] ended when it did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnactError {
    /// Nothing running was touched (no HUP was sent) and the files are as before. Final for this grant.
    Refused(Failure),
    /// A HUP was sent and not proven; the former configuration was put back and proven. Final for this grant.
    PutBack(Failure),
    /// A HUP was sent and not proven, and putting back has not succeeded yet; calling [`Gateway::put_back`] goes on.
    NotPutBack(Failure),
    /// Nothing was touched because something outside must change first (Kong down, database unreachable, an entity in
    /// the way); try again later.
    Waiting(Failure),
}

/// Called with what is being done at the moment.
pub type Progress<'a> = &'a (dyn Fn(StepWord) + Send + Sync);

#[async_trait]
pub trait Gateway: Send + Sync {
    /// Cheap enough for every few seconds; never fails, trouble is part of the answer.
    async fn observe(&self) -> KongObserved;

    /// Old workers that live at this moment; much cheaper than a whole look.
    fn old_workers(&self) -> u32;

    /// Whether the *running* Kong is proven to be as `wanted` says: whole worker generation younger than the armed
    /// configuration, names and versions by `GET /` on fresh connections, files at the path Lua resolves equal to the
    /// digests. Touches nothing.
    async fn proven(&self, wanted: &Wanted) -> Result<(), Failure>;

    /// Loads the list that `wanted` would give in a scratch prefix, without touching anything that runs.
    ///
    /// # Errors
    /// The code says who is to blame (`PREFLIGHT_FAILED`, `MISSING_DEPENDENCY`, `NODE_ALREADY_BROKEN`, `EFFECTIVE_CONFIG_DIFFERS`, …), the
    /// message has Kong's own words.
    async fn preflight(&self, wanted: &Wanted, how: Preflight) -> Result<(), Failure>;

    /// Makes the running Kong as `wanted` says and proves it: edit conf, prepare, reload, prove. Steps that are already
    /// true are skipped, so that calling it again after a crash sends at most one more HUP. `before` is the last proven
    /// state, which is put back when the proof fails.
    async fn enact(&self, wanted: &Wanted, before: &Wanted, progress: Progress<'_>)
    -> Result<(), EnactError>;

    /// Brings back `before` (see [`EnactError::NotPutBack`]): set operations on the current file, prepare, reload, prove.
    async fn put_back(&self, before: &Wanted, progress: Progress<'_>) -> Result<(), Failure>;

    /// All entities of `plugin`, every page, every workspace.
    async fn scan(&self, plugin: &PluginName) -> Result<Vec<Entity>, Failure>;

    /// What people call a service, route, consumer or consumer group (`kind`, in the singular); `None` when it has no
    /// name. For showing only.
    async fn name_of(&self, _workspace: &str, _kind: &str, _id: &str) -> Result<Option<String>, Failure> {
        Ok(None)
    }

    /// How many requests were answered since Kong was started, where it counts them by code and says so.
    async fn answers(&self) -> Option<Answers> {
        None
    }

    /// Deletes one entity by id; absent is done.
    async fn delete_entity(&self, id: &str) -> Result<(), Failure>;

    /// Makes an entity be there under its id again, as its body says.
    ///
    /// # Errors
    /// `ENTITY_REFUSED` when Kong will not take it, ever as it is; anything else may pass.
    async fn put_entity(&self, entity: &Entity) -> Result<(), Failure>;
}
