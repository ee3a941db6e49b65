//! What every change takes: its target, how it rolls out, how it is followed.

use std::time::Duration;

use clap::{Args, ValueEnum};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    Auto,
    Plain,
    Json,
    None,
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
    /// A first wave of this size before the others.
    #[arg(long, value_name = "N|%")]
    pub canary: Option<String>,
    /// Cumulative counts or percents, e.g. 1,25%,100%.
    #[arg(long, value_delimiter = ',')]
    pub waves: Vec<String>,
    /// Nodes that may be reloaded at the same time, count or percent.
    #[arg(long, value_name = "N|%")]
    pub max_parallel: Option<String>,
    /// Nodes that may fail in a step, those out of reach beyond their deadline included, before --on-failure applies.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_failures: u32,
    /// How long a wave must stay healthy (loaded, agent in reach, Kong ready, no more 5xx than before) until the next one.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub bake: Option<Duration>,
    /// How long one node may take for one step.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub node_deadline: Option<Duration>,
    /// With no node settled for so long, --on-failure applies; never unless given.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub progress_deadline: Option<Duration>,
    /// Wait for `kctl operation promote` after these waves: canary (the first), each, or a number; repeat it for more.
    #[arg(long, value_name = "WAVE", value_delimiter = ',')]
    pub pause_after: Vec<String>,
    /// When too many nodes failed: back to what was before, wait for a person, or go on without them. Rollback unless
    /// given; a removal goes on trying, or pauses.
    #[arg(long, value_enum)]
    pub on_failure: Option<OnFailureArg>,
    /// Where a Kong is started for a moment to try the new list, besides loading it: on the nodes of the first wave
    /// (canary), on all (boot), or only where loading fails (parse).
    #[arg(long, value_enum)]
    pub preflight: Option<PreflightArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFailureArg {
    Rollback,
    Pause,
    Continue,
}

impl OnFailureArg {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Continue => "continue",
        }
    }
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

/// `30s`, `5m`, `1h30m`, `250ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a duration such as 30s or 1h30m"))?;
    Duration::try_from(span).map_err(|_| "a duration is not negative".to_owned())
}
