//! `kctl plugin history | undo | pin | unpin`.

use clap::Args;

use super::change::{FlowArgs, RolloutArgs, TargetArgs};

#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    pub name: String,
    #[arg(long, default_value = "")]
    pub group: String,
}

#[derive(Clone, Debug, Args)]
pub struct UndoArgs {
    pub name: String,
    /// The revision to bring back, as `kctl plugin history` numbers them; the one before the newest unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub to: Option<u32>,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub rollout: RolloutArgs,
    #[command(flatten)]
    pub flow: FlowArgs,
}

#[derive(Clone, Debug, Args)]
pub struct PinArgs {
    pub name: String,
    #[arg(long, default_value = "")]
    pub group: String,
    /// Say what it would do, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}
