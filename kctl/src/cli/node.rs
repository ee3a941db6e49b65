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
    /// Let nodes in that ask and are refused: after a restore, a reinstallation, or a decommission; nothing on them
    /// changes by it.
    Approve(ApproveArgs),
    /// Leave nodes exactly as they are until `unhold`: no plugin is installed, removed, reloaded or made good.
    Hold(NodesArgs),
    /// Let held or drained nodes be changed again; drained ones are brought back into their load balancers.
    #[command(visible_alias = "undrain")]
    Unhold(NodesArgs),
    /// Hold nodes and take them out of their load balancers, by the command in their agents' configuration.
    Drain(NodesArgs),
    /// Have nodes try again what they should be, whatever failed before.
    Reconcile(NodesArgs),
    /// Take a node out for ever, once nothing of kctl's runs on it or its Kong is stopped.
    Decommission(DecommissionArgs),
}

#[derive(Clone, Debug, Args)]
pub struct NodesArgs {
    #[arg(required = true)]
    pub nodes: Vec<String>,
    #[command(flatten)]
    pub why: WhyArgs,
}

/// Of changes that take effect at once.
#[derive(Clone, Debug, Args)]
pub struct WhyArgs {
    /// Why; kept in the audit log.
    #[arg(short = 'm', long = "message", value_name = "REASON", default_value = "")]
    pub reason: String,
    /// Show what would be; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Clone, Debug, Args)]
pub struct DecommissionArgs {
    pub node: String,
    /// You attest that the node is no more: nothing is asked of it. Refused while its agent is connected.
    #[arg(long)]
    pub attest: bool,
    #[command(flatten)]
    pub why: WhyArgs,
    /// Return at once, do not wait until it is gone.
    #[arg(long)]
    pub detach: bool,
    /// Stop waiting after this long; it goes on.
    #[arg(long, value_name = "DURATION", value_parser = super::change::duration)]
    pub timeout: Option<std::time::Duration>,
    /// Ask nothing.
    #[arg(short, long)]
    pub yes: bool,
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
