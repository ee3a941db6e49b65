//! The leader's hand: asks the members what they have, and makes the consensus configuration what was decided.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Change, Holdings, View, next};
use crate::artifacts::Artifacts;
use crate::raft::Consensus;
use crate::state::members::{Member, Standing};

/// How often members are asked while one is on its way in or out, and while none is.
const SOON: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(3);

/// What each member in reach has; empty on a member that does not lead.
pub type Known = BTreeMap<u64, Holdings>;

/// Runs until `shutdown`; idle while this member does not lead.
pub async fn run(
    consensus: Consensus,
    artifacts: Artifacts,
    known: watch::Sender<Known>,
    shutdown: CancellationToken,
) {
    let mut leadership = consensus.watch_leadership();
    loop {
        // Every arm may be dropped at any await: what it did shows in the configuration, which is looked at anew.
        tokio::select! {
            () = shutdown.cancelled() => return,
            led = leadership.wait_for(|l| l.is_leader) => if led.is_err() { return },
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = consensus.deposed() => {}
            () = keep(&consensus, &artifacts, &known) => {}
        }
        known.send_replace(Known::new());
    }
}

async fn keep(consensus: &Consensus, artifacts: &Artifacts, known: &watch::Sender<Known>) {
    let mut applied = consensus.watch_applied();
    loop {
        let mut holdings: Known = join_all(artifacts.ask_all()).await.into_iter().flatten().collect();
        let (applied_index, artifacts_missing) = (consensus.applied_index(), artifacts.missing());
        holdings.insert(consensus.id(), Holdings { applied_index, artifacts_missing });
        known.send_if_modified(|old| {
            let changed = old.iter().map(missing).ne(holdings.iter().map(missing));
            old.clone_from(&holdings);
            changed
        });
        let (wanted, actual) = (consensus.with_state(|s| s.members.clone()), consensus.members());
        let me = consensus.id();
        let view = View { me, applied_index, wanted: &wanted, actual: &actual, holdings: &holdings };
        if let Some(change) = next(view) {
            tracing::info!(?change, "membership");
            let done = match change {
                Change::AddLearner(id, address) => consensus.add_learner(id, address).await,
                Change::Promote(id) => consensus.promote(id).await,
                Change::HandOver(to) => consensus.hand_over(to).await,
                Change::TakeOut(id) => consensus.take_out(id).await,
            };
            if let Err(fault) = done {
                tracing::warn!(%fault, "the change is tried again");
            }
        }
        let settled = |m: &Member| matches!(m.standing, Standing::Voter | Standing::Removed);
        let pause = if wanted.values().all(settled) { IDLE } else { SOON };
        // What is decided is applied first.
        let decided = applied.wait_for(|_| consensus.with_state(|s| s.members != wanted));
        let _either = tokio::time::timeout(pause, decided).await;
    }
}

/// What people are shown of it; indexes move all the time.
fn missing((id, holdings): (&u64, &Holdings)) -> (u64, u32) {
    (*id, holdings.artifacts_missing)
}
