//! `kctl operation …`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::change::{ProgressStyle, duration};

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
    /// Show one operation, or those of a batch.
    Status {
        /// Of an operation, or of the batch that several plugins in one command are.
        id: String,
        /// Watch it until it has ended.
        #[arg(short, long)]
        watch: bool,
        /// Stop watching after this long.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// What happened, moment by moment, in Kong's own words where it has some.
    Logs {
        id: String,
        /// Only what concerns this node.
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
    },
    /// Let no further node act; those that act finish.
    Pause(StepInArgs),
    /// Go on with a paused operation, and watch it.
    Resume(FollowArgs),
    /// End a wave's bake, or the pause after it, at once, and watch the operation.
    Promote(FollowArgs),
    /// Try the step again that a paused operation stands at, on all nodes that are not verified, and watch it.
    Retry {
        #[command(flatten)]
        follow: FollowArgs,
        /// Only on nodes that failed.
        #[arg(long)]
        failed_only: bool,
    },
    /// Let barriers pass without a node; the operation then ends partial (exit 3), and the node follows when it is back.
    Excuse {
        #[command(flatten)]
        step_in: StepInArgs,
        #[arg(long, value_name = "NODE")]
        node: String,
    },
    /// Call it off: back to what was before. A removal until it deletes files; what it took away comes
    /// back, and it exits with 3.
    Abort(FollowArgs),
}

#[derive(Clone, Debug, Args)]
pub struct StepInArgs {
    /// Of an operation, or of a batch: then of each of its operations that the verb fits.
    pub id: String,
    /// Why; kept with the operation.
    #[arg(short = 'm', long = "message", value_name = "REASON", default_value = "")]
    pub reason: String,
    /// Validate and show what would become of it; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// UUID that makes a retry of this very request safe.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct FollowArgs {
    #[command(flatten)]
    pub step_in: StepInArgs,
    /// Return at once instead of watching it.
    #[arg(long)]
    pub detach: bool,
    /// Stop watching after this long; the operation goes on.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// How progress is shown on standard error.
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ProgressStyle,
}
