//! A member that waits asks those it was told of to let it in, until it belongs.

use std::time::Duration;

use kctl_shared::fault::Fault;
use kctl_shared::network::Dialer;
use kctl_shared::proto::v1::JoinRequest;
use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;
use tokio_util::sync::CancellationToken;

use crate::raft::{Consensus, PATIENCE};

const PAUSE: Duration = Duration::from_secs(1);

/// Runs until it belongs to a cluster, or `shutdown`. `me` is its own gRPC URL, `members` those of members to ask; with
/// none it waits for somebody to run `kctl cluster join`.
///
/// # Errors
/// What is not going to change by asking again: `MEMBER_ID_REUSED`, `MEMBER_ADDRESS_IN_USE`.
pub async fn run(
    consensus: Consensus,
    me: String,
    members: Vec<String>,
    dialer: Dialer,
    shutdown: CancellationToken,
) -> Result<(), Fault> {
    let mut turn = 0;
    let mut hint = None;
    while consensus.is_waiting() && !members.is_empty() {
        let url = hint.take().unwrap_or_else(|| members[turn % members.len()].clone());
        turn += 1;
        let request = JoinRequest { address: me.clone(), ..JoinRequest::default() };
        let asked = async {
            let mut client = ClusterServiceClient::new(dialer.channel(&url, PATIENCE)?);
            client.join(request).await.map(drop).map_err(|s| {
                let (fault, leader) = Fault::from_status(&s);
                hint = leader.filter(|l| *l != url);
                fault
            })
        };
        // Asking again what was granted changes nothing.
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            asked = asked => match asked {
                Ok(()) => tracing::info!(%url, "let in"),
                Err(fault) if matches!(fault.code.as_str(), "MEMBER_ID_REUSED" | "MEMBER_ADDRESS_IN_USE") => {
                    return Err(fault);
                }
                Err(fault) => tracing::info!(%url, %fault, "not let in yet"),
            },
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    shutdown.cancelled().await;
    Ok(())
}
