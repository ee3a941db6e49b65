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
}

#[derive(Clone, Debug, Args)]
pub struct AdoptArgs {
    pub node: String,
    /// Which plugins; all that were found unless given.
    pub plugins: Vec<String>,
    #[command(flatten)]
    pub flow: FlowArgs,
}
