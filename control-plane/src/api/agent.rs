//! The stream of one node agent.
//!
//! One task a stream: it takes what the agent says into the inventory, and sends the node's spec whenever its hash
//! changed. Only a leader whose leadership a quorum confirms serves agents; the stream ends when that is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use kctl_shared::fault::Fault;
use kctl_shared::name::{GroupName, NodeId};
use kctl_shared::proto::agent::control_message::Body as Down;
use kctl_shared::proto::agent::{self as pb, agent_message::Body as Up, agent_service_server::AgentService};
use kctl_shared::spec::NodeStatus;
use kctl_shared::time::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::entities::Chunks;
use super::references::Questions;
use crate::desired::node_spec;
use crate::inventory::{Ask, Ticket};
use crate::rollout::detach::LEASE_MS;
use crate::rollout::fleet::{Refused, Why};
use crate::state::{ClusterState, presented};

/// How often an agent is to be heard of, in milliseconds: with few of them, and at the most. The lease of an entity task, and
/// the age at which a node is suspected, bear with two of the longest.
const HEARTBEAT_MS: (u32, u32) = (2_000, 5_000);
/// Heartbeats a second that the leader wants to hear at the most; they cost it some hundredths of a core.
const HEARTBEATS: u32 = 1_000;
/// An agent that connects says who it is within this.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages on their way to one agent; specs are whole, so few are ever queued.
const QUEUE: usize = 4;

#[derive(Clone, Debug)]
pub struct AgentApi(pub Api);

/// Behind a pointer: the channel of each of thousands of agents has room for dozens.
type Outgoing = mpsc::Sender<Box<pb::ControlMessage>>;

#[tonic::async_trait]
impl AgentService for AgentApi {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<pb::ControlMessage, Status>> + Send>>;

    async fn save_entities(
        &self,
        r: Request<Streaming<pb::SaveEntitiesMessage>>,
    ) -> Result<Response<pb::SaveEntitiesResponse>, Status> {
        self.0.take_entities(r.into_inner()).await
    }

    type FetchEntitiesStream = Chunks;

    async fn fetch_entities(
        &self,
        r: Request<pb::EntityWork>,
    ) -> Result<Response<Self::FetchEntitiesStream>, Status> {
        self.0.give_entities(r.into_inner()).await
    }

    async fn session(
        &self,
        r: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, stream) = mpsc::channel(QUEUE);
        let session = Session { api: self.0.clone(), out };
        tokio::spawn(session.run(r.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream).map(|message| Ok(*message)))))
    }
}

struct Session {
    api: Api,
    out: Outgoing,
}

impl Session {
    async fn send(&self, body: Down) -> Result<(), ()> {
        self.out.send(Box::new(pb::ControlMessage { body: Some(body) })).await.map_err(|_| ())
    }

    async fn not_leader(&self) {
        let leader =
            if self.api.hub.leads() { String::new() } else { self.api.hub.leader_url().unwrap_or_default() };
        let members = self.api.hub.consensus.watch_decided().borrow().members.to_vec();
        let _gone = self.send(Down::NotLeader(pb::NotLeader { leader, members })).await;
    }

    async fn run(self, mut incoming: Streaming<pb::AgentMessage>) {
        if !self.api.hub.leads() || self.api.as_leader().await.is_err() {
            return self.not_leader().await;
        }
        let hello = match tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await {
            Ok(Ok(Some(pb::AgentMessage { body: Some(Up::Hello(hello)) }))) => hello,
            _ => return,
        };
        // Behind a pointer, as whatever is done seldom: the session keeps room for its largest part as long as it lasts.
        match Box::pin(self.welcome(hello)).await {
            Ok(peer) => {
                let node = peer.ticket.node.clone();
                tracing::info!(%node, "agent connected");
                self.serve(peer, incoming).await;
                tracing::info!(%node, "agent disconnected");
            }
            Err(Refusal::Fault(fault)) => {
                tracing::warn!(%fault, "agent refused");
                let refused = pb::Refused { code: fault.code, message: fault.message };
                let _gone = self.send(Down::Refused(refused)).await;
            }
            Err(Refusal::NotLeader) => self.not_leader().await,
        }
    }

    async fn welcome(&self, hello: pb::Hello) -> Result<Peer, Refusal> {
        let invalid = |e: kctl_shared::name::NameError| Fault::new(e.code, e.message);
        let node = NodeId::parse(&hello.node).map_err(invalid)?;
        let group = GroupName::parse(&hello.group).map_err(invalid)?;
        let status: NodeStatus = hello.status.clone().unwrap_or_default().try_into()?;
        let (epoch, generation, approved) = self
            .api
            .hub
            .consensus
            .with_state(|s| (s.epoch, s.generation, s.approved.get(&node) == Some(&hello.epoch)));
        // One that never followed anybody follows this cluster.
        if hello.epoch != 0 && hello.epoch != epoch && !approved {
            self.api.hub.inventory.refuse(&node, asks(Why::Epoch, &hello, group));
            return Err(Refusal::Fault(Fault::new(
                "EPOCH_CHANGED",
                format!(
                    "node {node} follows the cluster of epoch {}, and this one is of epoch {epoch}: it was restored from a backup. \
                     Let it go over, which changes nothing on it: kctl node approve {node}",
                    hello.epoch
                ),
            )));
        }
        if hello.epoch == epoch && hello.generation > generation {
            return Err(Refusal::Fault(Fault::new(
                "AGENT_AHEAD",
                format!(
                    "node {node} has followed generation {} of epoch {}, this cluster is at {generation} of {epoch}",
                    hello.generation, hello.epoch
                ),
            )));
        }
        if let Some((why, fault)) = self.api.stranger(&node, &hello) {
            self.api.hub.inventory.refuse(&node, asks(why, &hello, group));
            return Err(Refusal::Fault(fault));
        }
        let identity = Identity { group, nonce: hello.install_nonce, boot: hello.boot_counter };
        self.register(&node, &identity, &status).await?;
        // One copy of the name, for the state, the session and its reports.
        let known = |s: &ClusterState| s.nodes.get_key_value(&node).map(|(known, _)| known.clone());
        let node = self.api.hub.consensus.with_state(known).unwrap_or(node);
        let now = Timestamp::now();
        let (ticket, asks) =
            self.api.hub.inventory.open(node, hello.boot_counter, hello.agent_version, now)?;
        self.api.hub.inventory.ingest(&ticket, status, now);
        Ok(Peer { identity, ticket, asks, questions: Questions::default() })
    }

    /// Commits what decisions need to know about the node, if it is new.
    async fn register(&self, node: &NodeId, who: &Identity, status: &NodeStatus) -> Result<(), Refusal> {
        let command = self
            .api
            .hub
            .consensus
            .with_state(|s| presented(s, node, &who.group, &who.nonce, who.boot, &status.kong));
        if let Some(command) = command {
            self.api.propose(command).await.map_err(|status| {
                let (fault, _) = Fault::from_status(&status);
                if matches!(fault.code.as_str(), "NOT_LEADER" | "NO_QUORUM") {
                    Refusal::NotLeader
                } else {
                    Refusal::Fault(fault)
                }
            })?;
        }
        Ok(())
    }

    async fn serve(&self, mut peer: Peer, mut incoming: Streaming<pb::AgentMessage>) {
        let hub = &self.api.hub;
        let node = peer.ticket.node.clone();
        let (epoch, term) = (hub.consensus.with_state(|s| s.epoch), hub.consensus.term());
        let mut welcome = pb::Welcome {
            epoch,
            term,
            member: hub.consensus.id(),
            heartbeat_ms: heartbeat_ms(hub.inventory.sessions()),
            lease_ms: LEASE_MS as u32,
            http: self.api.address.http.clone(),
        };
        if self.send(Down::Welcome(welcome.clone())).await.is_err() {
            return;
        }
        let mut decided = hub.consensus.watch_decided();
        decided.mark_changed();
        let mut sent = String::new();
        let mut named: Arc<[String]> = Arc::new([]);
        loop {
            // All arms are cancel-safe: watches remember, and tonic's message() keeps a partly read frame.
            tokio::select! {
                () = self.api.shutdown.cancelled() => break,
                () = peer.ticket.replaced.cancelled() => break,
                () = hub.consensus.deposed() => {
                    self.not_leader().await;
                    break;
                }
                changed = decided.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let urls = decided.borrow_and_update().members.clone();
                    if self.tell(&node, urls, &mut named, &mut sent).await.is_err() {
                        break;
                    }
                }
                ask = peer.asks.recv() => {
                    let Some(ask) = ask else { break };
                    if self.send(peer.questions.put(ask)).await.is_err() {
                        break;
                    }
                }
                message = incoming.message() => {
                    let Ok(Some(pb::AgentMessage { body: Some(body) })) = message else { break };
                    let taken = match body {
                        Up::References(found) => {
                            peer.questions.answered(found);
                            Ok(())
                        }
                        body => {
                            let beats = matches!(body, Up::Heartbeat(_));
                            let taken = self.take(&peer, body).await;
                            if taken.is_ok() && beats { self.pace(&mut welcome).await } else { taken }
                        }
                    };
                    if taken.is_err() {
                        break;
                    }
                }
            }
        }
        hub.inventory.close(&peer.ticket);
    }

    /// Tells the agent who the members are and what its node should be, each if it is not what it was told last.
    async fn tell(
        &self,
        node: &NodeId,
        urls: Arc<[String]>,
        named: &mut Arc<[String]>,
        sent: &mut String,
    ) -> Result<(), ()> {
        if urls != *named {
            self.send(Down::Members(pb::Members { urls: urls.to_vec() })).await?;
            *named = urls;
        }
        let known = |s: &ClusterState| s.nodes.contains_key(node).then(|| node_spec(s, node));
        let Some(spec) = self.api.hub.consensus.with_state(known) else {
            let message = format!("node {node} was decommissioned");
            let refused = pb::Refused { code: "NODE_DECOMMISSIONED".into(), message };
            self.send(Down::Refused(refused)).await?;
            return Err(());
        };
        let hash = spec.hash();
        if hash != *sent {
            self.send(Down::Spec((&spec).into())).await?;
            *sent = hash;
        }
        Ok(())
    }

    /// Says again how often the agent is to be heard of, once that is another thing.
    async fn pace(&self, welcome: &mut pb::Welcome) -> Result<(), ()> {
        let wanted = heartbeat_ms(self.api.hub.inventory.sessions());
        if wanted.abs_diff(welcome.heartbeat_ms) < wanted / 4 {
            return Ok(());
        }
        welcome.heartbeat_ms = wanted;
        self.send(Down::Welcome(welcome.clone())).await
    }

    async fn take(&self, peer: &Peer, body: Up) -> Result<(), ()> {
        let now = Timestamp::now();
        match body {
            Up::Heartbeat(beat) => {
                self.api.hub.inventory.heard(&peer.ticket, now);
                self.send(Down::Ack(pb::Ack { seq: beat.seq })).await
            }
            Up::Status(status) => {
                let status: NodeStatus = status.try_into().map_err(|fault| {
                    tracing::warn!(node = %peer.ticket.node, %fault, "unreadable status");
                })?;
                Box::pin(self.register(&peer.ticket.node, &peer.identity, &status)).await.map_err(|_| ())?;
                self.api.hub.inventory.ingest(&peer.ticket, status, now);
                Ok(())
            }
            Up::Hello(_) | Up::References(_) => Err(()),
        }
    }
}

/// The agent asked, and is not taken in until somebody approves it.
fn asks(why: Why, hello: &pb::Hello, group: GroupName) -> Refused {
    Refused {
        why,
        epoch: hello.epoch,
        nonce: hello.install_nonce.clone(),
        boot: hello.boot_counter,
        group,
        since: Timestamp::now(),
    }
}

/// For so many agents.
fn heartbeat_ms(agents: usize) -> u32 {
    let all = u32::try_from(agents).unwrap_or(u32::MAX).saturating_mul(1_000) / HEARTBEATS;
    all.clamp(HEARTBEAT_MS.0, HEARTBEAT_MS.1)
}

struct Peer {
    identity: Identity,
    ticket: Ticket,
    asks: mpsc::Receiver<Ask>,
    questions: Questions,
}

/// Who the agent says it is, beside its node id.
struct Identity {
    group: GroupName,
    nonce: String,
    boot: u64,
}

enum Refusal {
    Fault(Fault),
    NotLeader,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
