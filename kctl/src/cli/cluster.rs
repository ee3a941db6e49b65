//! `kctl cluster …`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::change::duration;

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Members and who leads.
    Status,
    /// List members.
    Members,
    /// Let a member in that waits: started with a new id, an empty data_dir and `join` in its configuration.
    Join {
        /// Its gRPC URL.
        #[arg(value_name = "URL")]
        address: String,
        #[command(flatten)]
        change: MemberArgs,
    },
    /// Take a member out for ever; its id is never used again.
    Remove {
        id: u64,
        #[command(flatten)]
        change: MemberArgs,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Have another member lead.
    TransferLeader {
        /// Which; the voter that is furthest in the log unless given.
        id: Option<u64>,
    },
    /// Write the control plane's state and all artifacts into one file.
    Backup {
        file: PathBuf,
        /// Replace a file that is there.
        #[arg(long)]
        force: bool,
    },
    /// Whether a backup is whole, and what is in it; asks nobody.
    Inspect { file: PathBuf },
    /// Make a member of a new cluster from a backup, in an empty data directory; asks nobody.
    ///
    /// Once for each member of the new cluster, with the same file and the same epoch. Agents are refused by the new cluster
    /// until they are let go over to it: kctl node approve.
    Restore(RestoreArgs),
}

#[derive(Clone, Debug, Args)]
pub struct MemberArgs {
    /// Why; kept in the audit log.
    #[arg(short = 'm', long = "message", value_name = "REASON", default_value = "")]
    pub reason: String,
    /// Validate; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Return once it is decided instead of waiting until it is so.
    #[arg(long)]
    pub detach: bool,
    /// Stop waiting after this long; it goes on.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2m")]
    pub timeout: Duration,
}

#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    pub file: PathBuf,
    /// The member's configuration: its id, its data_dir and the members of the new cluster.
    #[arg(long, value_name = "FILE", env = "KCTL_MEMBER_CONFIG")]
    pub config: PathBuf,
    /// Restore into this directory instead of the configuration's.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// As the first restored member was given; a new one unless given.
    #[arg(long)]
    pub epoch: Option<u64>,
}
