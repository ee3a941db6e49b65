//! `kctl cluster …`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Members and who leads.
    Status,
}
