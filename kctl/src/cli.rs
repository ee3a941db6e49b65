//! The clap tree, nothing else: one file a noun.

mod audit;
mod change;
mod cluster;
mod conf;
mod dev;
mod doctor;
mod group;
mod node;
mod operation;
mod plugin;
mod undo;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use audit::*;
pub use change::*;
pub use cluster::*;
pub use conf::*;
pub use dev::*;
pub use doctor::*;
pub use group::*;
pub use node::*;
pub use operation::*;
pub use plugin::*;
pub use undo::*;

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

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install, remove and look at plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Look at operations, and step into them while they run.
    #[command(subcommand)]
    Operation(OperationCommand),
    /// Look at nodes, hold, drain and decommission them.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Maintenance windows and holds of groups of nodes.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Look at the control plane itself.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Everything at a glance: members, nodes × plugins, running operations.
    Status {
        /// Print again after every change.
        #[arg(short, long)]
        watch: bool,
    },
    /// Who changed what, and why; oldest first.
    Audit(AuditArgs),
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
