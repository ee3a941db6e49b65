//! `kctl conf …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Clone, Debug, Args)]
pub struct ConfFileArgs {
    /// The file.
    #[arg(long, value_name = "FILE")]
    pub conf: PathBuf,
    /// Version of the Kong that reads it, as `kong version` says it; the newest unless given.
    #[arg(long, value_name = "VERSION")]
    pub kong: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ConfCommand {
    /// Print the names that Kong would load.
    Get {
        #[command(flatten)]
        file: ConfFileArgs,
    },
    /// Add names; every other byte of the file stays.
    Add(ConfEditArgs),
    /// Take names out; every other byte of the file stays.
    Remove(ConfEditArgs),
}

#[derive(Clone, Debug, Args)]
pub struct ConfEditArgs {
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub file: ConfFileArgs,
    /// Show the difference; write nothing.
    #[arg(long)]
    pub dry_run: bool,
}
