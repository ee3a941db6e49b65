//! Three members of etcd as they come.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::bench::process::Running;
use crate::members::Members;

const MEMBERS: usize = 3;

#[derive(Debug)]
pub struct Etcd {
    urls: Vec<String>,
    _members: Vec<Running>,
}

impl Etcd {
    /// `None` without etcd on the PATH.
    pub fn start(dir: &Path) -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            return None;
        }
        std::fs::create_dir_all(dir).unwrap();
        let url = |address: &String| format!("http://{address}");
        let free = Members::free_addresses(2 * MEMBERS);
        let (peers, clients) = free.split_at(MEMBERS);
        let named = peers.iter().enumerate().map(|(n, peer)| format!("m{n}={}", url(peer)));
        let cluster = named.collect::<Vec<_>>().join(",");
        let start = |n: usize| {
            let (peer, client) = (url(&peers[n]), url(&clients[n]));
            let mut command = Command::new("etcd");
            command.arg("--name").arg(format!("m{n}")).arg("--data-dir").arg(dir.join(n.to_string()));
            command.args(["--initial-cluster", &cluster, "--initial-cluster-state", "new"]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
        };
        let members = (0..MEMBERS).map(start).collect();
        Some(Self { urls: clients.iter().map(url).collect(), _members: members })
    }

    pub fn urls(&self) -> &[String] {
        &self.urls
    }
}
