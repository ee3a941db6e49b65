//! Configuration of an agent: a TOML file.

use std::path::{Path, PathBuf};

use kctl_shared::endpoint;
use kctl_shared::fault::Fault;
use kctl_shared::name::{GroupName, NodeId};
use serde::{Deserialize, Serialize};

use crate::gateway::kong::{KongConfig, Limits};
use crate::gateway::locate;
use crate::hooks::Hooks;
use crate::reconcile::Policy;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub node: NodeId,
    #[serde(default = "default_group")]
    pub group: GroupName,
    /// gRPC URLs of the control plane's members, in any order.
    pub control_plane: Vec<String>,
    /// Permits addresses off loopback without transport security.
    #[serde(default)]
    pub insecure: bool,
    /// The agent's own memory; survives restarts and is never shared.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Where plugin files go; readable by Kong's workers.
    #[serde(default = "default_lua_dir")]
    pub lua_dir: PathBuf,
    /// What is done about files and directives of kctl's that somebody else changed.
    #[serde(default)]
    pub drift: Drift,
    #[serde(default)]
    pub kong: KongSection,
    /// Commands that take the node out of its load balancer and bring it back.
    pub hooks: Option<Hooks>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    /// They are made good, and it is told.
    #[default]
    Heal,
    /// It is told.
    Report,
}

/// What is not said is looked for, see [`locate`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KongSection {
    pub bin: Option<PathBuf>,
    /// The file the running Kong was started with.
    pub conf: Option<PathBuf>,
    pub prefix: Option<PathBuf>,
    /// For plugins that are installed with the method luarocks; looked for on the PATH unless given.
    pub luarocks: Option<PathBuf>,
    pub preflight: Preflight,
    #[serde(default)]
    pub apply: Apply,
    /// Shortest time from one reload to the next; putting back does not wait.
    pub reload_interval_ms: u64,
    /// Generations of old workers that may be alive when another one is added: each holds its own memory.
    pub max_old_generations: usize,
}

impl Default for KongSection {
    fn default() -> Self {
        Self {
            bin: None,
            conf: None,
            prefix: None,
            luarocks: None,
            preflight: Preflight::default(),
            apply: Apply::default(),
            reload_interval_ms: 1000,
            max_old_generations: Limits::default().old_generations,
        }
    }
}

/// How a list is tried before anything running is touched; the later, the more thoroughly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preflight {
    /// `kong config parse`, and a scratch boot where that fails.
    #[default]
    Parse,
    /// Always a scratch boot too.
    Boot,
}

/// How a changed list is brought in. Kong before 0.11 is always restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Apply {
    /// `kong prepare` and `kong reload`: no request is lost.
    #[default]
    Reload,
    /// `kong restart`: the node is away for a moment.
    Restart,
}

fn default_group() -> GroupName {
    "default".parse().expect("a valid name")
}

fn default_state_dir() -> PathBuf {
    "/var/lib/kctl-node-agent".into()
}

fn default_lua_dir() -> PathBuf {
    "/opt/kctl".into()
}

impl Config {
    /// # Errors
    /// `CONFIG_INVALID`, `INSECURE_ADDRESS`, `ADDRESS_INVALID`.
    pub fn load(path: &Path) -> Result<Self, Fault> {
        let invalid = |m: String| Fault::new("CONFIG_INVALID", m).hint("see deploy/agent.example.toml");
        let text = std::fs::read_to_string(path)
            .map_err(|e| invalid(format!("cannot read {}: {e}", path.display())))?;
        let config: Self = toml::from_str(&text).map_err(|e| invalid(format!("{}: {e}", path.display())))?;
        if config.control_plane.is_empty() {
            return Err(invalid("control_plane names no member".into()));
        }
        for url in &config.control_plane {
            endpoint::check_dial(url, config.insecure)?;
        }
        let kong = [&config.kong.conf, &config.kong.prefix, &config.kong.luarocks].into_iter().flatten();
        for dir in [&config.state_dir, &config.lua_dir].into_iter().chain(kong) {
            if !dir.is_absolute() {
                return Err(invalid(format!("{} is not an absolute path", dir.display())));
            }
        }
        if let Some(complaint) = config.hooks.as_ref().and_then(Hooks::complaint) {
            return Err(invalid(complaint));
        }
        Ok(config)
    }

    pub fn policy(&self) -> Policy {
        Policy {
            reload_interval_ms: self.kong.reload_interval_ms,
            heal: self.drift == Drift::Heal,
            drains: self.hooks.is_some(),
        }
    }

    /// Where Kong is, as far as it was said, and where it was found otherwise.
    ///
    /// # Errors
    /// `KONG_NOT_LOCATED`.
    pub fn kong(&self) -> Result<KongConfig, Fault> {
        let told = self.kong.clone();
        Ok(KongConfig {
            bin: told.bin.map_or_else(locate::bin, Ok)?,
            conf: told.conf.map_or_else(locate::conf, Ok)?,
            prefix: told.prefix.map_or_else(locate::prefix, Ok)?,
            state_dir: self.state_dir.clone(),
            lua_dir: self.lua_dir.clone(),
            preflight: told.preflight,
            apply: told.apply,
        })
    }
}
