//! The newest status view of this member: made here on the leader, followed from the leader elsewhere.
//!
//! The dashboard, the event stream and `WatchStatus` all read this one watch, so that they cannot disagree.

use std::sync::Arc;
use std::time::Duration;

use kctl_shared::network::Dialer;
use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;
use kctl_shared::proto::v1::{ClusterView, MemberView, StatusRequest, StatusView};
use kctl_shared::time::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::inventory::Inventory;
use crate::membership::keeper::Known;
use crate::orchestrator::Report;
use crate::raft::{Consensus, PATIENCE};
use crate::rollout::fleet::Fleet;
use crate::state::members::MemberAddress;
use crate::views::Sources;

/// Changes closer together than this are shown as one.
const MERGE: Duration = Duration::from_millis(50);
/// Views of thousands of nodes take long to make: they are made in one part of this many of the time.
const SHARE: u32 = 20;
/// A node goes from live to suspect without any event.
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Hub {
    pub consensus: Consensus,
    pub inventory: Arc<Inventory>,
    pub report: watch::Receiver<Arc<Report>>,
    pub holdings: watch::Receiver<Known>,
    pub dialer: Dialer,
}

impl Hub {
    /// As this member sees it; nodes are known on the leader only.
    pub fn status(&self) -> StatusView {
        let report = self.report.borrow().clone();
        let leads = self.leads();
        let none = Fleet { leader_since: Timestamp::now(), ..Fleet::default() };
        // Before the state is borrowed: borrowing it twice on one thread waits for ever once somebody wants to change it.
        let cluster = self.cluster();
        self.consensus.with_state(|state| {
            self.inventory.with(|fleet| {
                let fleet = if leads { fleet } else { &none };
                Sources { state, fleet, report: &report, now: Timestamp::now() }.status(cluster)
            })
        })
    }

    pub fn leads(&self) -> bool {
        self.consensus.watch_leadership().borrow().is_leader
    }

    /// Runs `read` over everything a view is made of.
    pub fn view<R>(&self, read: impl FnOnce(Sources<'_>) -> R) -> R {
        let report = self.report.borrow().clone();
        self.consensus.with_state(|state| {
            self.inventory
                .with(|fleet| read(Sources { state, fleet, report: &report, now: Timestamp::now() }))
        })
    }

    pub fn cluster(&self) -> ClusterView {
        let leadership = self.consensus.watch_leadership().borrow().clone();
        let me = self.consensus.id();
        let applied = self.consensus.applied_index();
        let decided = self.consensus.with_state(|s| s.members.clone());
        let holdings = self.holdings.borrow().clone();
        let actual = self.consensus.members();
        let coming = decided.iter().filter(|(id, m)| m.is_wanted() && !actual.contains_key(id));
        let coming: Vec<_> = coming.map(|(id, m)| joining(*id, &m.address)).collect();
        let members = actual.into_iter().map(|(id, m)| {
            let state = match (Some(id) == leadership.leader, m.reachable) {
                (true, _) => "leader",
                (false, Some(false)) => "unreachable",
                (false, _) if id == me && leadership.leader.is_none() => "candidate",
                (false, None) if id != me => "unknown",
                _ => "follower",
            };
            MemberView {
                id,
                address: m.address.grpc,
                role: match decided.get(&id) {
                    Some(known) if !known.is_wanted() => "leaving",
                    _ if m.voter => "voter",
                    _ => "learner",
                }
                .into(),
                state: state.into(),
                applied_index: if id == me { applied } else { m.matched.unwrap_or(0) },
                http: m.address.http,
                raft: m.address.raft,
                artifacts_missing: holdings.get(&id).map(|h| h.artifacts_missing),
            }
        });
        ClusterView {
            leader: leadership.leader,
            term: leadership.term,
            members: members.chain(coming).collect(),
            epoch: self.consensus.epoch(),
        }
    }

    /// gRPC URL of the leader, if one is known.
    pub fn leader_url(&self) -> Option<String> {
        let leader = self.consensus.watch_leadership().borrow().leader?;
        self.consensus.members().get(&leader).map(|m| m.address.grpc.clone())
    }

    /// Keeps `views` at the newest status until `shutdown`.
    pub async fn run(self, views: watch::Sender<Arc<StatusView>>, shutdown: CancellationToken) {
        loop {
            let mut leadership = self.consensus.watch_leadership();
            let led = leadership.borrow_and_update().is_leader;
            // Either branch may be dropped at any await: what it would have published is made anew.
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
                () = async { if led { self.make(&views).await } else { self.follow(&views).await } } => {}
            }
        }
    }

    async fn make(&self, views: &watch::Sender<Arc<StatusView>>) {
        let (mut applied, mut heard) = (self.consensus.watch_applied(), self.inventory.watch());
        let (mut report, mut holdings) = (self.report.clone(), self.holdings.clone());
        loop {
            applied.mark_unchanged();
            heard.mark_unchanged();
            report.mark_unchanged();
            holdings.mark_unchanged();
            let begun = Instant::now();
            publish(views, self.status());
            let took = begun.elapsed();
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                changed = heard.changed() => if changed.is_err() { return },
                changed = report.changed() => if changed.is_err() { return },
                changed = holdings.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(TICK) => {}
            }
            tokio::time::sleep(MERGE.max(took * SHARE)).await;
        }
    }

    /// Streams the leader's view; shows what is known here while there is none to be had.
    async fn follow(&self, views: &watch::Sender<Arc<StatusView>>) {
        loop {
            if let Some(url) = self.leader_url()
                && let Ok(channel) = self.dialer.connect(&url, PATIENCE).await
                && let Ok(stream) = ClusterServiceClient::new(channel).watch_status(StatusRequest {}).await
            {
                let mut stream = stream.into_inner();
                while let Ok(Some(view)) = stream.message().await {
                    publish(views, view);
                }
            }
            publish(views, self.status());
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Let in, and not in the consensus configuration yet.
fn joining(id: u64, address: &MemberAddress) -> MemberView {
    MemberView {
        id,
        address: address.grpc.clone(),
        role: "joining".into(),
        state: "unknown".into(),
        http: address.http.clone(),
        raft: address.raft.clone(),
        ..MemberView::default()
    }
}

fn publish(views: &watch::Sender<Arc<StatusView>>, view: StatusView) {
    views.send_if_modified(|old| {
        let changed = **old != view;
        if changed {
            *old = Arc::new(view);
        }
        changed
    });
}
