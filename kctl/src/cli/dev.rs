//! `kctl dev …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    #[command(subcommand)]
    pub command: Option<DevCommand>,
    /// Control plane members: 1, 3 or 5.
    #[arg(long, default_value_t = 3)]
    pub members: usize,
    /// Kong nodes.
    #[arg(long, default_value_t = 3)]
    pub nodes: usize,
    /// Port of the first member's dashboard; a free one otherwise.
    #[arg(long)]
    pub port: Option<u16>,
    /// Directory for everything; a temporary one otherwise.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Install, prove, use on a route, remove, end.
    #[arg(long, conflicts_with = "detach")]
    pub once: bool,
    /// Return when all is healthy; `kctl dev down --dir D` stops it.
    #[arg(long)]
    pub detach: bool,
    /// Leave dead what dies.
    #[arg(long)]
    pub no_restart: bool,
    /// Version of Kong that the stand-in plays, such as 2.8.5; from 1.2 on.
    #[arg(long, value_name = "VERSION", conflicts_with = "kong")]
    pub kong_version: Option<String>,
    /// Kong executable to use instead of the stand-in.
    #[arg(long, requires = "pg")]
    pub kong: Option<PathBuf>,
    /// Postgres server for a real Kong, on loopback: postgres://user:password@127.0.0.1:5432
    #[arg(long, requires = "kong")]
    pub pg: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum DevCommand {
    /// Stop a cluster that was started with --detach.
    Down {
        #[arg(long)]
        dir: PathBuf,
    },
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        dir: PathBuf,
    },
}
