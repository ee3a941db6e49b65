//! Three members of a control plane, a process each, that speak etcd's API.

use std::path::Path;
use std::process::Command;

use super::member::{ARGUMENT, MemberArgs};
use crate::bench::process::Running;
use crate::members::Members;

const MEMBERS: u64 = 3;

#[derive(Debug)]
pub struct Ours {
    urls: Vec<String>,
    _members: Vec<Running>,
}

impl Ours {
    pub fn start(dir: &Path) -> Self {
        let free = Members::free_addresses(2 * MEMBERS as usize);
        let (peers, clients) = free.split_at(MEMBERS as usize);
        let start = |(id, client): (u64, &String)| {
            let args = MemberArgs {
                id,
                data_dir: dir.join(id.to_string()),
                peers: peers.to_vec(),
                listen: client.clone(),
            };
            let mut command = Command::new(std::env::current_exe().unwrap());
            Running::start(command.arg(ARGUMENT).arg(serde_json::to_string(&args).unwrap()))
        };
        let members = (1..=MEMBERS).zip(clients).map(start).collect();
        Self { urls: clients.iter().map(|address| format!("http://{address}")).collect(), _members: members }
    }

    pub fn urls(&self) -> &[String] {
        &self.urls
    }
}
