//! `kctl doctor`.

use std::path::PathBuf;

use clap::Args;

#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Only this node; repeat it for more.
    #[arg(long = "node", value_name = "NODE", conflicts_with = "local")]
    pub node: Vec<String>,
    /// Look at this machine's Kong, with no control plane and no agent.
    #[arg(long)]
    pub local: bool,
    /// The kong.conf that Kong is started with; /etc/kong/kong.conf unless given.
    #[arg(long, value_name = "FILE", requires = "local")]
    pub conf: Option<PathBuf>,
    /// Kong's prefix; as kong.conf says unless given.
    #[arg(long, value_name = "DIR", requires = "local")]
    pub prefix: Option<PathBuf>,
    /// Kong's executable; the one in PATH unless given.
    #[arg(long, value_name = "BIN", requires = "local")]
    pub kong: Option<PathBuf>,
    /// Do what can be done about it, prove it, and look again.
    #[arg(long)]
    pub fix: bool,
    /// With --fix: run `kong migrations up` too, if it is due.
    #[arg(long, requires = "fix")]
    pub migrations: bool,
    /// With --fix: ask nothing.
    #[arg(short, long, requires = "fix")]
    pub yes: bool,
}
