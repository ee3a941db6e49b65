//! The leader's loop: wake, plan, propose. It has no memory: what it needs is in the replicated state, or told again by
//! the agents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kctl_shared::time::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::inventory::Inventory;
use crate::raft::Consensus;
use crate::rollout::{self, WaitingOn};
use crate::state::command::Command;
use crate::state::operation::OperationId;

/// Why each live operation does not move.
pub type Report = BTreeMap<OperationId, Vec<WaitingOn>>;

/// Deadlines and liveness pass without any event to wake on.
const TICK: Duration = Duration::from_millis(500);
/// Longest rest after a round; it rests for as long as the round took, so that with few nodes nobody waits.
const GATHER: Duration = Duration::from_millis(50);

/// Runs until `shutdown`; idle while this member does not lead.
pub async fn run(
    consensus: Consensus,
    inventory: Arc<Inventory>,
    report: watch::Sender<Arc<Report>>,
    shutdown: CancellationToken,
) {
    let mut leadership = consensus.watch_leadership();
    loop {
        // Waiting for a value and for a token: both are cancel-safe.
        tokio::select! {
            () = shutdown.cancelled() => return,
            led = leadership.wait_for(|l| l.is_leader) => if led.is_err() { return },
        }
        // What an earlier leader acknowledged must be seen before anything is decided.
        if consensus.linearizable().await.is_err() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(100)) => continue,
            }
        }
        inventory.reset(Timestamp::now());
        tracing::info!(member = consensus.id(), term = consensus.term(), "leading");
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = lead(&consensus, &inventory, &report) => {}
            () = consensus.deposed() => tracing::info!("no longer leading"),
        }
        report.send_replace(Arc::default());
    }
}

/// Cancel-safe: a proposal that is dropped midway is found applied or not by whoever leads next.
async fn lead(consensus: &Consensus, inventory: &Inventory, report: &watch::Sender<Arc<Report>>) {
    let mut applied = consensus.watch_applied();
    let mut heard = inventory.watch();
    loop {
        applied.mark_unchanged();
        heard.mark_unchanged();
        let begun = Instant::now();
        let plan = consensus.with_state(|s| inventory.with(|f| rollout::plan(s, f, Timestamp::now())));
        report.send_if_modified(|old| {
            let changed = **old != plan.report;
            if changed {
                *old = Arc::new(plan.report);
            }
            changed
        });
        let thought = begun.elapsed();
        let answers = plan.commands.iter().any(|c| matches!(c, Command::Settle { .. }));
        if !plan.commands.is_empty() {
            match consensus.propose(plan.commands).await {
                Ok(outcomes) => {
                    for outcome in outcomes {
                        match outcome {
                            Ok(events) => tracing::info!(?events, "applied"),
                            Err(rejection) => tracing::info!(%rejection, "overtaken by another entry"),
                        }
                    }
                    if answers {
                        // Thousands answer within a moment: each round takes in what came meanwhile.
                        tokio::time::sleep(begun.elapsed().min(GATHER)).await;
                    }
                    continue;
                }
                Err(error) => tracing::warn!(%error, "proposal failed"),
            }
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            changed = heard.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK) => {}
        }
        // Whatever is reported wakes this; a large fleet is not looked through for each of its nodes.
        tokio::time::sleep(thought.min(GATHER)).await;
    }
}
