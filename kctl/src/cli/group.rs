//! `kctl group …`.

use clap::{Args, Subcommand};

use super::node::WhyArgs;

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups: nodes that share one Kong configuration store.
    List,
    /// Say when a group's running plugins may be changed.
    Set(SetGroupArgs),
    /// Begin nothing new on a group's nodes until `unhold`; what acts already ends.
    Hold(GroupArgs),
    /// Let operations on a group go on.
    Unhold(GroupArgs),
}

#[derive(Clone, Debug, Args)]
pub struct GroupArgs {
    #[arg(default_value = "default")]
    pub group: String,
    #[command(flatten)]
    pub why: WhyArgs,
}

#[derive(Clone, Debug, Args)]
pub struct SetGroupArgs {
    #[arg(default_value = "default")]
    pub group: String,
    /// A weekly span in which plugins may be enabled, disabled and detached: `Mon-Fri 22:00-04:00`,
    /// `daily 01:30-05:00 +02:00`. UTC unless an offset is given; repeat it for more. Replaces those there are.
    #[arg(
        long = "window",
        value_name = "WINDOW",
        required_unless_present = "no_windows",
        conflicts_with = "no_windows"
    )]
    pub windows: Vec<String>,
    /// Always.
    #[arg(long)]
    pub no_windows: bool,
    #[command(flatten)]
    pub why: WhyArgs,
}
