//! `kctl operation …`.

use std::time::Duration;

use clap::Subcommand;

use super::change::duration;

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
