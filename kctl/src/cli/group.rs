//! `kctl group …`.

use clap::{ArgGroup, Args, Subcommand};

use super::node::WhyArgs;

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups: nodes that share one Kong configuration store.
    List,
    /// Say when a group's running plugins may be changed, and what nodes there are.
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
#[group(skip)]
#[command(group(ArgGroup::new("what").required(true).multiple(true)))]
pub struct SetGroupArgs {
    #[arg(default_value = "default")]
    pub group: String,
    /// A weekly span in which plugins may be enabled, disabled and detached: `Mon-Fri 22:00-04:00`,
    /// `daily 01:30-05:00 +02:00`. UTC unless an offset is given; repeat it for more. Replaces those there are.
    #[arg(long = "window", value_name = "WINDOW", group = "what", conflicts_with = "no_windows")]
    pub windows: Vec<String>,
    /// Always.
    #[arg(long, group = "what")]
    pub no_windows: bool,
    /// How many nodes use the group's database: while kctl knows of more or fewer, nothing begins. 0: as many as there are.
    #[arg(long, value_name = "N", group = "what")]
    pub expect_nodes: Option<u32>,
    /// Another group's nodes use the same database, and are meant to.
    #[arg(long, group = "what", conflicts_with = "no_shared_database")]
    pub shared_database: bool,
    /// The group's database is its own.
    #[arg(long, group = "what")]
    pub no_shared_database: bool,
    #[command(flatten)]
    pub why: WhyArgs,
}
