//! gRPC services. Each translates a request, asks the core, and translates the answer; nothing is decided here.

mod agent;
mod batch;
mod cluster;
mod duty;
mod entities;
mod membership;
mod node;
mod operation;
mod plugin;
mod policy;
mod references;
mod request;
mod step_in;
mod undo;
mod upload;
mod who;

use std::sync::Arc;
use std::time::Duration;

use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::StatusView;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::artifacts::Artifacts;
use crate::hub::Hub;
use crate::raft::ProposeError;
use crate::state::command::{Command, Event};
use crate::state::members::MemberAddress;
use crate::vault::Vault;

pub use agent::AgentApi;
pub use who::Claimed;

/// What every service needs.
#[derive(Clone, Debug)]
pub struct Api {
    pub hub: Hub,
    pub artifacts: Artifacts,
    pub vault: Vault,
    pub views: watch::Receiver<Arc<StatusView>>,
    /// Of this member.
    pub address: MemberAddress,
    pub shutdown: CancellationToken,
}

/// A confirmed leader answers within this, or says that it could not.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

impl Api {
    fn fail(&self, fault: &Fault) -> Status {
        let leader = if fault.code == "NOT_LEADER" { self.hub.leader_url() } else { None };
        fault.to_status(leader.as_deref())
    }

    fn not_leader(&self) -> Status {
        let fault = match self.hub.leader_url() {
            Some(url) => {
                Fault::new("NOT_LEADER", format!("this member does not lead; the leader is at {url}"))
            }
            None => Fault::new(
                "NO_QUORUM",
                "no leader is known at the moment: a majority of members must be reachable",
            )
            .hint("kctl cluster status"),
        };
        self.fail(&fault)
    }

    /// Afterwards the local state shows every write acknowledged before; only the leader passes.
    async fn as_leader(&self) -> Result<(), Status> {
        if !self.hub.leads() {
            return Err(self.not_leader());
        }
        match tokio::time::timeout(READ_TIMEOUT, self.hub.consensus.linearizable()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.not_leader()),
            Err(_) => Err(self.fail(
                &Fault::new("NO_QUORUM", "a majority of members did not confirm this leader in time")
                    .hint("kctl cluster status"),
            )),
        }
    }

    async fn propose(&self, command: Command) -> Result<Vec<Event>, Status> {
        match self.hub.consensus.propose_by(vec![command], who::asks()).await {
            Ok(mut outcomes) => match outcomes.pop() {
                Some(Ok(events)) => Ok(events),
                Some(Err(rejection)) => Err(self.fail(&rejection)),
                None => Err(self.fail(&Fault::new("INTERNAL", "an entry without outcome"))),
            },
            Err(ProposeError::NotLeader { .. }) => Err(self.not_leader()),
            Err(error) => Err(self.fail(
                &Fault::new("NO_QUORUM", format!("{error}; whether it took effect is unknown"))
                    .hint("repeat it with the same --request-id"),
            )),
        }
    }
}
