//! A member in a process of its own: consensus, stores and state machine of the product, behind etcd's API, so that both
//! are asked by the same client in the same words.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kctl_control_plane::raft::{Consensus, ConsensusConfig, MemberAddress, Sled};
use kctl_control_plane::state::Command;
use kctl_control_plane::state::model::NodeFacts;
use kctl_shared::name::{GroupName, NodeId};
use kctl_shared::network::{Tcp, dialer};
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::pb::kv_server::{Kv, KvServer};
use super::pb::maintenance_server::{Maintenance, MaintenanceServer};
use super::pb::{self, KeyValue, ResponseHeader};

/// Makes this executable a member; the description follows as JSON.
pub const ARGUMENT: &str = "--member";

#[derive(Debug, Serialize, Deserialize)]
pub struct MemberArgs {
    pub id: u64,
    pub data_dir: PathBuf,
    /// Where members 1, 2, … listen for each other.
    pub peers: Vec<String>,
    /// Where this one listens for clients.
    pub listen: String,
}

/// When this executable was called as a member: is one until it is killed.
pub fn run_if_called_as_member() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(ARGUMENT) {
        let args = serde_json::from_str(&args.next().unwrap_or_default()).unwrap();
        kctl_control_plane::memory::tune();
        crate::bench::runtime().block_on(serve(args));
    }
}

async fn serve(args: MemberArgs) {
    let address = |url: &String| MemberAddress { raft: format!("http://{url}"), ..MemberAddress::default() };
    let members: BTreeMap<u64, _> = (1..).zip(args.peers.iter().map(address)).collect();
    let raft = args.peers[args.id as usize - 1].parse().unwrap();
    let config = ConsensusConfig::new(args.id, args.data_dir, members);
    let (consensus, service) = Consensus::open(config, &Sled, dialer(Arc::new(Tcp), false)).await.unwrap();
    let member = Member { consensus, boot: Arc::new(AtomicU64::new(Timestamp::now().0)) };
    let server = || Server::builder().tcp_nodelay(true);
    let public =
        server().add_service(KvServer::new(member.clone())).add_service(MaintenanceServer::new(member));
    let public = public.serve(args.listen.parse().unwrap());
    tokio::try_join!(server().add_service(service).serve(raft), public).unwrap();
}

#[derive(Clone, Debug)]
struct Member {
    consensus: Consensus,
    /// Raised with each write, so that each changes the state.
    boot: Arc<AtomicU64>,
}

impl Member {
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { member_id: self.consensus.id(), ..ResponseHeader::default() })
    }
}

fn node(key: &[u8]) -> NodeId {
    NodeId::parse(std::str::from_utf8(key).unwrap()).unwrap()
}

#[tonic::async_trait]
impl Kv for Member {
    async fn range(&self, r: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let key = r.into_inner().key;
        self.consensus.linearizable().await.map_err(|fault| Status::unavailable(fault.to_string()))?;
        let found = self.consensus.with_state(|s| s.nodes.get(&node(&key)).map(|n| n.nonce.clone().into()));
        let kvs = found.map(|value| KeyValue { key, value }).into_iter().collect();
        Ok(Response::new(pb::RangeResponse { header: self.header(), kvs }))
    }

    /// An agent that started again: the value is what it drew when it was installed.
    async fn put(&self, r: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let put = r.into_inner();
        let command = Command::RegisterNode {
            node: node(&put.key),
            group: GroupName::parse("default").unwrap(),
            nonce: String::from_utf8(put.value).unwrap(),
            boot: self.boot.fetch_add(1, Ordering::Relaxed),
            facts: NodeFacts::default(),
        };
        let outcomes = self.consensus.propose(vec![command]).await;
        let outcomes = outcomes.map_err(|error| Status::unavailable(error.to_string()))?;
        for outcome in outcomes {
            outcome.map_err(|rejection| Status::failed_precondition(rejection.to_string()))?;
        }
        Ok(Response::new(pb::PutResponse { header: self.header() }))
    }
}

#[tonic::async_trait]
impl Maintenance for Member {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let leads = self.consensus.watch_leadership().borrow().is_leader;
        let leader = if leads { self.consensus.id() } else { 0 };
        Ok(Response::new(pb::StatusResponse { header: self.header(), version: String::new(), leader }))
    }
}
