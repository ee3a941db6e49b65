//! The clap tree, nothing else.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kctl_shared::nginx::NginxSetting;

use crate::lint::{Policy, Target, policy};

#[derive(Debug, Parser)]
#[command(
    name = "kctl",
    version,
    about = "Lifecycle control plane for Kong Gateway plugins",
    propagate_version = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// gRPC URL of a member; repeat it for more.
    #[arg(long, global = true, env = "KCTL_SERVER", value_delimiter = ',')]
    pub server: Vec<String>,
    /// Context of the configuration file to use.
    #[arg(long, global = true, env = "KCTL_CONTEXT")]
    pub context: Option<String>,
    /// Permit addresses off loopback without transport security.
    #[arg(long, global = true, env = "KCTL_INSECURE")]
    pub insecure: bool,
    /// How results are printed on standard output.
    #[arg(short, long, global = true, value_enum)]
    pub output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[value(alias = "human")]
    Table,
    Wide,
    Json,
    Yaml,
    Jsonl,
    Name,
    /// SARIF 2.1.0; `kctl plugin lint` only.
    Sarif,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    Auto,
    Plain,
    Json,
    None,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install, remove and look at plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Look at operations.
    #[command(subcommand)]
    Operation(OperationCommand),
    /// Look at nodes.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Look at the control plane itself.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Everything at a glance: members, nodes × plugins, running operations.
    Status {
        /// Print again after every change.
        #[arg(short, long)]
        watch: bool,
    },
    /// What is wrong with the cluster, a node, or this machine's Kong; the true cause first.
    ///
    /// Ends with 0 when nothing was found, 2 when there are only warnings, 1 when there are errors.
    Doctor(DoctorArgs),
    /// What a code means, why it happens and what to do; without one, all of them.
    Explain { code: Option<String> },
    /// A cluster on this machine: members, stand-in Kong nodes and agents as separate processes.
    Dev(DevArgs),
    /// Edit the list of plugins in a kong.conf or kong.yml as the agent does, with no control plane.
    #[command(subcommand)]
    Conf(ConfCommand),
    /// Versions of kctl and of the control plane.
    Version,
    /// Completion script for a shell.
    Completion { shell: clap_complete::Shell },
}

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Write the sources of a new plugin.
    New(NewArgs),
    /// Say what Kong would say about a plugin, without a Kong: exit 1 if it would refuse it.
    Lint(LintArgs),
    /// Make one file of a plugin that LuaRocks, tar and kctl take; the same sources give the same bytes.
    Pack(PackArgs),
    /// Install a plugin, or upgrade it to another version, on every targeted node.
    Install(Box<InstallArgs>),
    /// Remove a plugin in three steps: configurations, directive, files.
    Remove(RemoveArgs),
    /// List installed plugins.
    List,
    /// Show one plugin.
    Get {
        name: String,
        #[arg(long, default_value = "")]
        group: String,
    },
}

#[derive(Clone, Debug, Args)]
pub struct TargetArgs {
    /// All nodes of the group, those that join later included.
    #[arg(long)]
    pub all_nodes: bool,
    /// One node; repeat it for more.
    #[arg(long = "node", value_name = "NODE")]
    pub nodes: Vec<String>,
    /// All nodes of this group.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct RolloutArgs {
    /// Cumulative counts or percents, e.g. 1,25%,100%.
    #[arg(long, value_delimiter = ',')]
    pub waves: Vec<String>,
    /// Nodes that may be reloaded at the same time, count or percent.
    #[arg(long, value_name = "N|%")]
    pub max_parallel: Option<String>,
    /// Nodes that may fail before everything is rolled back.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_failures: u32,
    /// How long one node may take for one step.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub node_deadline: Option<Duration>,
    /// Where a Kong is started for a moment to try the new list, besides loading it: on the nodes of the first wave
    /// (canary), on all (boot), or only where loading fails (parse).
    #[arg(long, value_enum)]
    pub preflight: Option<PreflightArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PreflightArg {
    Canary,
    Boot,
    Parse,
}

impl PreflightArg {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Boot => "boot",
            Self::Parse => "parse",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct FlowArgs {
    /// Validate and show the plan; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print the operation's id and return at once.
    #[arg(long)]
    pub detach: bool,
    /// Stop watching after this long; the operation goes on.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Why; kept with the operation.
    #[arg(short = 'm', long = "message", value_name = "REASON", default_value = "")]
    pub reason: String,
    /// UUID that makes a retry of this very request safe.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<String>,
    /// Ask nothing.
    #[arg(short, long)]
    pub yes: bool,
    /// How progress is shown on standard error.
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ProgressStyle,
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

#[derive(Clone, Debug, Args)]
pub struct RemoveArgs {
    pub name: String,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub rollout: RolloutArgs,
    #[command(flatten)]
    pub flow: FlowArgs,
}

#[derive(Debug, Subcommand)]
pub enum OperationCommand {
    /// List operations, newest first.
    List {
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Only those that have not ended.
        #[arg(long)]
        running: bool,
    },
    /// Show one operation.
    Status {
        id: String,
        /// Watch it until it has ended.
        #[arg(short, long)]
        watch: bool,
        /// Stop watching after this long.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        timeout: Option<Duration>,
    },
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes.
    List,
    /// Show one node.
    Get { id: String },
    /// Take over plugins that somebody put on a node by hand; nothing on it changes.
    Adopt(AdoptArgs),
}

#[derive(Clone, Debug, Args)]
pub struct AdoptArgs {
    pub node: String,
    /// Which plugins; all that were found unless given.
    pub plugins: Vec<String>,
    #[command(flatten)]
    pub flow: FlowArgs,
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Members and who leads.
    Status,
}

#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Only this node; repeat it for more.
    #[arg(long = "node", value_name = "NODE", conflicts_with = "local")]
    pub node: Vec<String>,
    /// Look at this machine's Kong, with no control plane and no agent.
    #[arg(long)]
    pub local: bool,
    /// The kong.conf that Kong is started with; /etc/kong/kong.conf unless given.
    #[arg(long, value_name = "FILE", requires = "local")]
    pub conf: Option<PathBuf>,
    /// Kong's prefix; as kong.conf says unless given.
    #[arg(long, value_name = "DIR", requires = "local")]
    pub prefix: Option<PathBuf>,
    /// Kong's executable; the one in PATH unless given.
    #[arg(long, value_name = "BIN", requires = "local")]
    pub kong: Option<PathBuf>,
    /// Do what can be done about it, prove it, and look again.
    #[arg(long)]
    pub fix: bool,
    /// With --fix: run `kong migrations up` too, if it is due.
    #[arg(long, requires = "fix")]
    pub migrations: bool,
    /// With --fix: ask nothing.
    #[arg(short, long, requires = "fix")]
    pub yes: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ConfFileArgs {
    /// The file.
    #[arg(long, value_name = "FILE")]
    pub conf: PathBuf,
    /// Version of the Kong that reads it, as `kong version` says it; the newest unless given.
    #[arg(long, value_name = "VERSION")]
    pub kong: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ConfCommand {
    /// Print the names that Kong would load.
    Get {
        #[command(flatten)]
        file: ConfFileArgs,
    },
    /// Add names; every other byte of the file stays.
    Add {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        file: ConfFileArgs,
        /// Show the difference; write nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take names out; every other byte of the file stays.
    Remove {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        file: ConfFileArgs,
        /// Show the difference; write nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    #[command(subcommand)]
    pub command: Option<DevCommand>,
    /// Control plane members: 1, 3 or 5.
    #[arg(long, default_value_t = 3)]
    pub members: usize,
    /// Kong nodes.
    #[arg(long, default_value_t = 3)]
    pub nodes: usize,
    /// Port of the first member's dashboard; a free one otherwise.
    #[arg(long)]
    pub port: Option<u16>,
    /// Directory for everything; a temporary one otherwise.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Install, prove, use on a route, remove, end.
    #[arg(long, conflicts_with = "detach")]
    pub once: bool,
    /// Return when all is healthy; `kctl dev down --dir D` stops it.
    #[arg(long)]
    pub detach: bool,
    /// Leave dead what dies.
    #[arg(long)]
    pub no_restart: bool,
    /// Version of Kong that the stand-in plays, such as 2.8.5; from 1.2 on.
    #[arg(long, value_name = "VERSION", conflicts_with = "kong")]
    pub kong_version: Option<String>,
    /// Kong executable to use instead of the stand-in.
    #[arg(long, requires = "pg")]
    pub kong: Option<PathBuf>,
    /// Postgres server for a real Kong, on loopback: postgres://user:password@127.0.0.1:5432
    #[arg(long, requires = "kong")]
    pub pg: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum DevCommand {
    /// Stop a cluster that was started with --detach.
    Down {
        #[arg(long)]
        dir: PathBuf,
    },
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        dir: PathBuf,
    },
}

/// `nginx_http_lua_shared_dict=my_cache 10m`.
fn nginx(text: &str) -> Result<NginxSetting, String> {
    NginxSetting::parse(text).map_err(|e| e.to_string())
}

/// `30s`, `5m`, `1h30m`, `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a duration such as 30s or 1h30m"))?;
    Duration::try_from(span).map_err(|_| "a duration is not negative".to_owned())
}
