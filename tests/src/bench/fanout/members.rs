//! Three members, a process each, as they are installed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use kctl_shared::proto::v1::ClusterRequest;
use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;

use crate::bench::process::Running;
use crate::members::{self, until};

const MEMBERS: usize = 3;

#[derive(Debug)]
pub struct Members {
    /// By the URL that agents and people reach it at.
    running: BTreeMap<String, Running>,
}

impl Members {
    pub fn start(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let free = members::Members::free_addresses(3 * MEMBERS);
        let addresses: Vec<_> = free.chunks(3).collect();
        let entries: String = (1..)
            .zip(&addresses)
            .map(|(id, a)| {
                format!(
                    "{id} = {{ grpc = \"http://{}\", http = \"http://{}\", raft = \"http://{}\" }}\n",
                    a[0], a[1], a[2]
                )
            })
            .collect();
        let start = |(id, a): (usize, &&[String])| {
            let (config, data) = (dir.join(format!("{id}.toml")), dir.join(id.to_string()));
            let listen = format!("grpc = \"{}\"\nhttp = \"{}\"\nraft = \"{}\"\n", a[0], a[1], a[2]);
            let text = format!("id = {id}\ndata_dir = {data:?}\n\n[listen]\n{listen}\n[members]\n{entries}");
            fs::write(&config, text).unwrap();
            let log = File::create(dir.join(format!("{id}.log"))).unwrap();
            let mut command = Command::new(crate::bench::sibling("kctl-control-plane"));
            let running = Running::start(command.arg("--config").arg(config).stderr(log));
            (format!("http://{}", a[0]), running)
        };
        Self { running: (1..).zip(&addresses).map(start).collect() }
    }

    pub fn urls(&self) -> Vec<String> {
        self.running.keys().cloned().collect()
    }

    pub fn get(&self, url: &str) -> &Running {
        &self.running[url]
    }

    pub fn get_mut(&mut self, url: &str) -> &mut Running {
        self.running.get_mut(url).unwrap()
    }

    /// URL of the member that leads.
    pub async fn leader(&self) -> String {
        until("a leader", || async {
            for url in self.running.keys() {
                let Ok(mut client) = ClusterServiceClient::connect(url.clone()).await else { continue };
                let Ok(view) = client.cluster(ClusterRequest {}).await else { continue };
                let view = view.into_inner();
                let leader = view.members.iter().find(|m| Some(m.id) == view.leader);
                if let Some(leader) = leader {
                    return Some(leader.address.clone());
                }
            }
            None
        })
        .await
    }
}
