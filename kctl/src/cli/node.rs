//! `kctl node …`.

use clap::{Args, Subcommand};

use super::change::FlowArgs;

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes.
    List,
    /// Show one node.
    Get { id: String },
    /// Take over plugins that somebody put on a node by hand; nothing on it changes.
    Adopt(AdoptArgs),
    /// Let nodes go over to this control plane that followed one of another epoch; nothing on them changes by it.
    Approve(ApproveArgs),
}

#[derive(Clone, Debug, Args)]
pub struct ApproveArgs {
    pub nodes: Vec<String>,
    /// All nodes that ask and are refused.
    #[arg(long)]
    pub all_nodes: bool,
    /// Why; kept in the audit log.
    #[arg(short = 'm', long = "message", value_name = "REASON", default_value = "")]
    pub reason: String,
    /// Show which would be; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Clone, Debug, Args)]
pub struct AdoptArgs {
    pub node: String,
    /// Which plugins; all that were found unless given.
    pub plugins: Vec<String>,
    #[command(flatten)]
    pub flow: FlowArgs,
}
