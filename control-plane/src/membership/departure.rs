//! A member that was taken out finds out and ends, instead of asking for votes for ever.
//!
//! The entry that takes a member out need not reach it any more, and it may go on believing in the leader it had. So
//! whoever does not lead and has applied nothing new for a while asks the members it knows; what any of them has applied is
//! final, because a removed id never comes back.

use std::time::Duration;

use futures_util::future::join_all;
use kctl_shared::fault::Fault;
use tokio_util::sync::CancellationToken;

use crate::artifacts::Artifacts;
use crate::raft::Consensus;
use crate::state::members::Standing;

/// Longer than an election takes; asking costs next to nothing.
const SILENCE: Duration = Duration::from_secs(3);

/// Runs until `shutdown`.
///
/// # Errors
/// `MEMBER_REMOVED`.
pub async fn watch(
    consensus: Consensus,
    artifacts: Artifacts,
    shutdown: CancellationToken,
) -> Result<(), Fault> {
    let mut leadership = consensus.watch_leadership();
    let mut applied = consensus.watch_applied();
    loop {
        applied.mark_unchanged();
        let me = consensus.id();
        let standing = consensus.with_state(|s| s.members.get(&me).map(|m| m.standing));
        if standing == Some(Standing::Removed) {
            return Err(consensus.mark_removed());
        }
        let leads = leadership.borrow_and_update().is_leader;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            changed = leadership.changed() => if changed.is_err() { return Ok(()) },
            changed = applied.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(SILENCE), if !leads => {
                let told = join_all(artifacts.ask_removed()).await;
                if told.into_iter().any(|removed| removed) {
                    return Err(consensus.mark_removed());
                }
            }
        }
    }
}
