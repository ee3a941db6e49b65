//! `kctl audit …`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::change::duration;

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    /// Only what concerns this plugin.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub plugin: String,
    /// Only what concerns this operation.
    #[arg(long, value_name = "ID", default_value = "")]
    pub operation: String,
    /// Only the last so long, such as 1h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub since: Option<Duration>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Compute the chain of records again; ends with 1 and names the record where it does not hold.
    Verify {
        /// Of records that `kctl audit -o jsonl` (or `-o json`) wrote, without asking anybody.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}
