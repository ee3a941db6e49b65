//! `kctl plugin …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use kctl_shared::nginx::NginxSetting;

use super::change::{FlowArgs, RolloutArgs, TargetArgs};
use super::undo::{HistoryArgs, PinArgs, UndoArgs};
use crate::lint::{Policy, Target, policy};

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Write the sources of a new plugin.
    New(NewArgs),
    /// Say what Kong would say about a plugin, without a Kong: exit 1 if it would refuse it.
    Lint(LintArgs),
    /// Make one file of a plugin that LuaRocks, tar and kctl take; the same sources give the same bytes.
    Pack(PackArgs),
    /// Install plugins, or upgrade them to other versions, on every targeted node.
    Install(Box<InstallArgs>),
    /// Remove plugins in three steps: configurations, directive, files.
    Remove(RemoveArgs),
    /// Remove plugins but for their files: `enable` brings all of it back, `remove`'s last step is a `resume` away.
    Disable(RemovalArgs),
    /// Have every node load a plugin again that was disabled, and bring its configurations back under their ids.
    Enable(EnableArgs),
    /// List installed plugins.
    List,
    /// What a plugin was, operation by operation; also of one that is gone.
    History(HistoryArgs),
    /// Bring back what a plugin was before; after a removal its configurations too, under their ids.
    Undo(Box<UndoArgs>),
    /// Keep a plugin at its version: nothing changes it to another one.
    // Its --version is the plugin's.
    #[command(disable_version_flag = true)]
    Pin {
        #[command(flatten)]
        pin: PinArgs,
        /// The version it may be changed to; the installed one unless given.
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
    },
    /// Let a pinned plugin change its version again.
    Unpin(PinArgs),
    /// Show one plugin.
    Get {
        name: String,
        #[arg(long, default_value = "")]
        group: String,
    },
}

#[derive(Clone, Debug, Args)]
pub struct NewArgs {
    pub name: String,
    /// Where; a directory of the plugin's name unless given. It must be empty or absent.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PackFormat {
    /// `luarocks install` takes it.
    Rock,
    /// `tar` unpacks it for `lua_package_path`; `luarocks make` builds it.
    TarGz,
}

#[derive(Clone, Debug, Args)]
pub struct PackArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub judge: JudgeArgs,
    #[arg(long, value_enum, default_value = "rock")]
    pub format: PackFormat,
    /// The file to write; named after the rock in this directory unless given.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Where a plugin's sources are.
#[derive(Clone, Debug, Args)]
pub struct SourceArgs {
    /// Directory, x.rock, x.tar.gz, x.zip or x.rockspec.
    #[arg(value_name = "REF")]
    pub reference: PathBuf,
    /// Which plugin, where the reference holds several.
    #[arg(long)]
    pub name: Option<String>,
    /// Version to record, instead of the one the plugin names.
    #[arg(long = "as-version", value_name = "VERSION")]
    pub as_version: Option<String>,
    /// Rocks, source archives or directories that the plugin depends on; their modules travel with it as one release.
    /// For install also further plugins, each before what it depends on: they begin together.
    #[arg(value_name = "DEPENDENCY")]
    pub dependencies: Vec<PathBuf>,
    /// Permit modules beside the plugin that take the place of Kong's or OpenResty's own.
    #[arg(long)]
    pub allow_shadow: bool,
    /// Take the files as they lie, as if there were no rockspec.
    #[arg(long)]
    pub ignore_rockspec: bool,
    /// Take shared libraries too.
    #[arg(long)]
    pub allow_native: bool,
    /// Build a rockspec of another build type than builtin or none (make, cmake, command, …) with this machine's LuaRocks
    /// and pack what comes out. Its commands are arbitrary code and run here, as you; nodes never build anything. Hooks
    /// stay off, nothing is fetched.
    #[arg(long, conflicts_with = "ignore_rockspec")]
    pub allow_build: bool,
    /// A directive that nginx has to be given for the plugin, as a setting of kong.conf, beside those that `kctl.toml`
    /// beside its handler.lua declares; repeat it for more. Part of the release.
    #[arg(long, value_name = "KEY=VALUE", value_parser = nginx)]
    pub nginx: Vec<NginxSetting>,
}

/// How a plugin is judged before anything is done with it.
#[derive(Clone, Debug, Args)]
pub struct JudgeArgs {
    /// Kong to judge it for, e.g. 3.9, 3.x or 2.8.
    #[arg(long, value_name = "VERSION", value_parser = Target::parse)]
    pub kong: Option<Target>,
    /// How grave a rule is: RULE=error|warning|note|off; repeat it for more.
    #[arg(long, value_name = "RULE=LEVEL", value_parser = policy, value_delimiter = ',')]
    pub policy: Vec<Policy>,
    /// Do not judge it here.
    #[arg(long)]
    pub no_lint: bool,
}

#[derive(Clone, Debug, Args)]
pub struct LintArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// Show notes too.
    #[arg(long)]
    pub notes: bool,
    /// Compare its modules with those of the plugins that are installed in the cluster too.
    #[arg(long)]
    pub against_cluster: bool,
}

#[derive(Clone, Debug, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// Permit a lower version than the installed one.
    #[arg(long)]
    pub allow_downgrade: bool,
    /// Have the agents set in kong.conf what the plugin needs of nginx, and take it out again when the plugin is removed;
    /// what the file says already is left alone. As it is installed now unless given.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub set_nginx: Option<bool>,
    #[command(flatten)]
    pub method: MethodArgs,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub rollout: RolloutArgs,
    #[command(flatten)]
    pub flow: FlowArgs,
}

/// How files get onto the nodes.
#[derive(Clone, Debug, Args)]
pub struct MethodArgs {
    /// How files get onto the nodes, and off them again; as the plugin is installed now unless given, else store.
    #[arg(long, value_enum)]
    pub method: Option<InstallMethod>,
    /// With luarocks: the tree to install into, e.g. /usr/local; a tree of the release's own unless given.
    #[arg(long, value_name = "DIR", conflicts_with = "path")]
    pub tree: Option<String>,
    /// With luarocks: build from sources with `luarocks make` instead of installing a rock.
    #[arg(long)]
    pub make: bool,
    /// With path: where the files are on every node, the plugin's own directory or one with kong/plugins/NAME in it;
    /// wherever Lua finds them unless given.
    #[arg(long, value_name = "DIR")]
    pub path: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InstallMethod {
    /// Unpacked by the agent; needs nothing on the node.
    Store,
    /// Installed and removed by the node's LuaRocks.
    Luarocks,
    /// Already on the node: compared and enabled, never changed or deleted.
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RemoveStep {
    /// No configuration of it is left in Kong; every node still loads it.
    Detach,
    /// No node loads it any more; its files stay.
    Disable,
    /// Its files are gone too.
    Purge,
}

impl RemoveStep {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detach => "detach",
            Self::Disable => "disable",
            Self::Purge => "purge",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct RemoveArgs {
    /// Stop after this step and wait for `kctl operation resume` or `abort`; purge, the last one, unless given.
    #[arg(long, value_enum, default_value = "purge")]
    pub step: RemoveStep,
    #[command(flatten)]
    pub removal: RemovalArgs,
}

#[derive(Clone, Debug, Args)]
pub struct RemovalArgs {
    /// The plugin; or several, whose removals begin together.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub rollout: RolloutArgs,
    #[command(flatten)]
    pub flow: FlowArgs,
}

#[derive(Clone, Debug, Args)]
pub struct EnableArgs {
    pub name: String,
    #[arg(long, default_value = "")]
    pub group: String,
    #[command(flatten)]
    pub flow: FlowArgs,
}

/// `nginx_http_lua_shared_dict=my_cache 10m`.
fn nginx(text: &str) -> Result<NginxSetting, String> {
    NginxSetting::parse(text).map_err(|e| e.to_string())
}
