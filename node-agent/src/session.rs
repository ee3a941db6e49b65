//! The stream to the control plane: whoever leads is found, told everything, and its specs are handed on.

mod downloads;
pub mod members;

use std::time::Duration;

use kctl_shared::fault::Fault;
use kctl_shared::network::{Dialer, Patience};
use kctl_shared::proto::agent::agent_service_client::AgentServiceClient;
use kctl_shared::proto::agent::control_message::Body as Down;
use kctl_shared::proto::agent::{self as pb, agent_message::Body as Up};
use kctl_shared::proto::v1::artifact_service_client::ArtifactServiceClient;
use kctl_shared::simulated::aside;
use kctl_shared::spec::{FoundPlugin, NodeSpec, NodeStatus};
use kctl_shared::upload::messages;
use rand::RngExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::packages::Packages;
use crate::references::References;
pub use downloads::Downloads;
use members::Members;

pub(crate) const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(2), keepalive: Duration::from_secs(5) };
/// Missing acknowledgements after which another member is tried.
const MISSED: u32 = 3;
/// Longest pause before the next try; each is drawn anew so that agents do not come back all at once.
const MAX_PAUSE_MS: u64 = 2_000;
/// How long a member may take to say who leads.
const FIRST_ANSWER: Duration = Duration::from_secs(8);
/// Agents that start together begin with different members.
const FIRST_TURNS: usize = 64;
/// Changes of status closer together than this are sent as one.
const MERGE: Duration = Duration::from_millis(50);

/// The member of the present session, or the one that is tried first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    pub grpc: String,
    /// Where it has artifacts over plain HTTP; empty when it says nothing of that.
    pub http: String,
}

impl Home {
    /// Of which no more is known than the configuration says.
    pub fn configured(grpc: &str) -> Self {
        Self { grpc: grpc.to_owned(), http: String::new() }
    }
}

/// Who this agent is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub node: String,
    pub group: String,
    pub nonce: String,
    pub boot: u64,
}

#[derive(Debug)]
pub struct Session {
    pub identity: Identity,
    pub members: Members,
    pub dialer: Dialer,
    pub specs: mpsc::Sender<NodeSpec>,
    pub accepted: watch::Receiver<Option<NodeSpec>>,
    pub status: watch::Receiver<NodeStatus>,
    pub lease: watch::Sender<Option<Instant>>,
    /// The member that answered last, for fetching artifacts.
    pub current: watch::Sender<Home>,
    pub packages: Packages,
    /// Where there is somebody to ask for a longer while.
    pub references: Option<References>,
}

impl Session {
    /// Runs until `shutdown`. Without a control plane the node stays exactly as it is.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut hint: Option<String> = None;
        let mut turn = rand::rng().random_range(0..FIRST_TURNS);
        let mut failures: u32 = 0;
        loop {
            let url = hint.take().unwrap_or_else(|| {
                turn += 1;
                self.members.at(turn)
            });
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.connect(&url) => ended,
            };
            match ended {
                Ended::Redirected(leader) => {
                    failures = failures.saturating_add(1);
                    hint = Some(leader).filter(|l| !l.is_empty() && *l != url);
                }
                Ended::Served => failures = 0,
                Ended::Failed(why) => {
                    tracing::debug!(%url, %why, "no session");
                    failures = failures.saturating_add(1);
                }
            }
            if hint.is_none() || failures > 4 {
                let most = (100_u64 << failures.min(6)).min(MAX_PAUSE_MS);
                let pause = Duration::from_millis(rand::rng().random_range(20..=most));
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    fn hello(&self) -> pb::AgentMessage {
        let fence = self.accepted.borrow().as_ref().map_or((0, 0), |s| (s.epoch, s.generation));
        let status = self.status.borrow().clone();
        pb::AgentMessage {
            body: Some(Up::Hello(pb::Hello {
                node: self.identity.node.clone(),
                group: self.identity.group.clone(),
                install_nonce: self.identity.nonce.clone(),
                boot_counter: self.identity.boot,
                agent_version: env!("CARGO_PKG_VERSION").into(),
                status: Some((&status).into()),
                epoch: fence.0,
                generation: fence.1,
            })),
        }
    }

    async fn connect(&self, url: &str) -> Ended {
        let channel = match self.dialer.connect(url, PATIENCE).await {
            Ok(channel) => channel,
            Err(fault) => return Ended::Failed(fault.to_string()),
        };
        let (out, messages) = mpsc::channel(16);
        let mut status = self.status.clone();
        status.mark_unchanged();
        if out.send(self.hello()).await.is_err() {
            return Ended::Failed("closed".into());
        }
        let mut incoming = match AgentServiceClient::new(channel).session(ReceiverStream::new(messages)).await
        {
            Ok(response) => response.into_inner(),
            Err(status) => return Ended::Failed(status.to_string()),
        };
        let welcome = match tokio::time::timeout(FIRST_ANSWER, incoming.message()).await {
            Ok(Ok(Some(pb::ControlMessage { body: Some(body) }))) => match body {
                Down::Welcome(welcome) => welcome,
                Down::NotLeader(n) => {
                    self.members.learn(n.members);
                    return Ended::Redirected(n.leader);
                }
                Down::Refused(r) => {
                    tracing::error!(code = %r.code, message = %r.message, "the control plane refuses this agent");
                    return Ended::Failed(r.code);
                }
                _ => return Ended::Failed("an answer out of order".into()),
            },
            Ok(Ok(_)) => return Ended::Failed("closed".into()),
            Ok(Err(status)) => return Ended::Failed(status.to_string()),
            Err(_) => return Ended::Failed("no answer in time".into()),
        };
        tracing::info!(%url, member = welcome.member, "connected");
        self.current.send_replace(Home { grpc: url.to_owned(), http: welcome.http.clone() });
        self.serve(&welcome, &out, &mut incoming, status).await
    }

    async fn serve(
        &self,
        welcome: &pb::Welcome,
        out: &mpsc::Sender<pb::AgentMessage>,
        incoming: &mut tonic::Streaming<pb::ControlMessage>,
        mut status: watch::Receiver<NodeStatus>,
    ) -> Ended {
        let lease = Duration::from_millis(welcome.lease_ms.into());
        let mut ticker = ticker(welcome, Duration::ZERO);
        // What the greeting said of the node counts as told.
        let mut told = Instant::now();
        let (mut seq, mut acked) = (0_u64, 0_u64);
        // When the heartbeats that are not acknowledged yet were sent, oldest first.
        let mut sent: std::collections::VecDeque<(u64, Instant)> = std::collections::VecDeque::new();
        let send = |body: Up| out.send(pb::AgentMessage { body: Some(body) });
        loop {
            // Cancel-safe arms: a tick, a watch, and tonic's message(), which keeps a partly read frame.
            tokio::select! {
                _ = ticker.tick() => {
                    if seq >= acked + u64::from(MISSED) {
                        return Ended::Failed("heartbeats are not acknowledged".into());
                    }
                    seq += 1;
                    sent.push_back((seq, Instant::now()));
                    if send(Up::Heartbeat(pb::Heartbeat { seq })).await.is_err() {
                        return Ended::Served;
                    }
                }
                changed = status.changed() => {
                    if changed.is_err() {
                        return Ended::Served;
                    }
                    // At once after a quiet time: a whole cluster may be waiting for this one.
                    tokio::time::sleep_until(told + MERGE).await;
                    told = Instant::now();
                    let now = status.borrow_and_update().clone();
                    if send(Up::Status((&now).into())).await.is_err() {
                        return Ended::Served;
                    }
                }
                message = incoming.message() => match message {
                    Ok(Some(pb::ControlMessage { body: Some(body) })) => match body {
                        Down::Spec(spec) => match NodeSpec::try_from(spec) {
                            Ok(spec) => if self.specs.send(spec).await.is_err() { return Ended::Served },
                            Err(fault) => tracing::error!(%fault, "unreadable spec"),
                        },
                        Down::Ack(ack) => {
                            acked = acked.max(ack.seq);
                            while sent.front().is_some_and(|(s, _)| *s <= acked) {
                                // Counted from when it was sent: the control plane counts from when it arrived.
                                let at = sent.pop_front().map(|(_, at)| at + lease);
                                self.lease.send_replace(at);
                            }
                        }
                        Down::NotLeader(n) => return Ended::Redirected(n.leader),
                        Down::Refused(r) => return Ended::Failed(r.code),
                        Down::Collect(wish) => self.collect(wish),
                        Down::FindReferences(asked) => {
                            if let Some(references) = self.references.clone() {
                                let out = out.clone();
                                // Aside: the stream goes on meanwhile.
                                tokio::spawn(async move {
                                    let body = Some(Up::References(references.find(&asked).await));
                                    let _gone = out.send(pb::AgentMessage { body }).await;
                                });
                            }
                        }
                        Down::Members(now) => self.members.learn(now.urls),
                        // With more agents they are to be heard of less often, and the other way round.
                        Down::Welcome(again) => ticker = self::ticker(&again, period(&again)),
                    },
                    Ok(_) | Err(_) => return Ended::Served,
                },
            }
        }
    }
}

impl Session {
    /// Uploads what was found on the node, aside: the stream goes on. Whoever asked sees it arrive, or not.
    fn collect(&self, wish: pb::Collect) {
        let found = self.status.borrow().found.iter().find(|f| f.plugin.as_str() == wish.plugin).cloned();
        let (packages, url) = (self.packages.clone(), self.current.borrow().grpc.clone());
        let dialer = self.dialer.clone();
        tokio::spawn(async move {
            let Some(found) = found.filter(|f| f.digest.is_some_and(|d| d.to_string() == wish.digest)) else {
                return tracing::warn!(plugin = %wish.plugin, digest = %wish.digest, "not found any more");
            };
            match upload(&packages, found, &url, &dialer).await {
                Ok(()) => tracing::info!(plugin = %wish.plugin, "uploaded as it was found"),
                Err(fault) => tracing::warn!(plugin = %wish.plugin, %fault, "not uploaded"),
            }
        });
    }
}

async fn upload(packages: &Packages, found: FoundPlugin, url: &str, dialer: &Dialer) -> Result<(), Fault> {
    let packages = packages.clone();
    let packed = aside(move || packages.pack(&found)).await;
    let package = packed.map_err(|e| Fault::new("INTERNAL", e.to_string()))?;
    let package = package.map_err(|f| Fault::new(&f.code, f.message))?;
    let channel = dialer.connect(url, PATIENCE).await?;
    let messages = messages(&package, &package.to_artifact().into());
    let sent = ArtifactServiceClient::new(channel).upload(tokio_stream::iter(messages)).await;
    sent.map(drop).map_err(|status| Fault::from_status(&status).0)
}

fn period(welcome: &pb::Welcome) -> Duration {
    Duration::from_millis(welcome.heartbeat_ms.max(100).into())
}

/// Ticks as often as the member wants to hear of this agent.
fn ticker(welcome: &pb::Welcome, first: Duration) -> Interval {
    let mut ticker = tokio::time::interval_at(Instant::now() + first, period(welcome));
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticker
}

enum Ended {
    Redirected(String),
    Served,
    Failed(String),
}
