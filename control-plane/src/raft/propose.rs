//! Commands of concurrent callers gather into shared log entries: while entries are on their way to the disks of a
//! majority, the next one fills.

use std::sync::Arc;

use kctl_shared::time::Timestamp;
use openraft::Raft;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::machine::StateMachine;
use super::types::{CommandBatch, Commands, MemberAddress, Outcome, TypeConfig};
use crate::state::Command;

/// Entries under way at once: one is written while the next fills.
const IN_FLIGHT: usize = 2;
/// Commands in one entry.
const MAX_COMMANDS: usize = 512;
/// Callers that may wait; more are held back.
const QUEUE: usize = 4_096;

#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Nothing happened.
    #[error("this member does not lead")]
    NotLeader { leader: Option<(u64, MemberAddress)> },
    /// It may take effect yet.
    #[error("no quorum confirmed the entry: {0}")]
    Unknown(String),
    #[error("this member is shutting down")]
    ShuttingDown,
}

type Answer = oneshot::Sender<Result<Vec<Outcome>, ProposeError>>;

/// Commands of one caller, who that is, and where the outcomes go.
type Proposal = (Vec<Command>, String, Answer);

#[derive(Clone, Debug)]
pub(super) struct Proposals {
    queue: mpsc::Sender<Proposal>,
}

impl Proposals {
    pub(super) fn start(raft: Raft<TypeConfig, StateMachine>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(gather(raft, waiting));
        Self { queue }
    }

    pub(super) async fn propose(
        &self,
        commands: Vec<Command>,
        who: String,
    ) -> Result<Vec<Outcome>, ProposeError> {
        let (tx, rx) = oneshot::channel();
        self.queue.send((commands, who, tx)).await.map_err(|_| ProposeError::ShuttingDown)?;
        rx.await.map_err(|_| ProposeError::ShuttingDown)?
    }
}

async fn gather(raft: Raft<TypeConfig, StateMachine>, mut waiting: mpsc::Receiver<Proposal>) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some((mut commands, who, answer)) = waiting.recv().await {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let mut by = vec![who; commands.len()];
        let mut answers = vec![(commands.len(), answer)];
        while commands.len() < MAX_COMMANDS
            && let Ok((more, who, answer)) = waiting.try_recv()
        {
            by.extend(std::iter::repeat_n(who, more.len()));
            answers.push((more.len(), answer));
            commands.extend(more);
        }
        let raft = raft.clone();
        tokio::spawn(async move {
            let result = write(&raft, Commands { proposed_at: Timestamp::now(), commands, by }).await;
            drop(slot);
            match result {
                Ok(outcomes) => {
                    let mut outcomes = outcomes.into_iter();
                    for (count, answer) in answers {
                        // A caller that went away does not need its answer.
                        drop(answer.send(Ok(outcomes.by_ref().take(count).collect())));
                    }
                }
                Err(error) => {
                    for (_, answer) in answers {
                        drop(answer.send(Err(error.clone())));
                    }
                }
            }
        });
    }
}

async fn write(raft: &Raft<TypeConfig, StateMachine>, batch: Commands) -> Result<Vec<Outcome>, ProposeError> {
    let batch = CommandBatch::new(batch).map_err(|e| ProposeError::Unknown(e.to_string()))?;
    Ok(raft.client_write(batch).await.map_err(explain)?.data.0)
}

fn explain(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ProposeError::NotLeader { leader: forward.leader_id.zip(forward.leader_node) }
        }
        RaftError::APIError(other) => ProposeError::Unknown(other.to_string()),
        RaftError::Fatal(fatal) => ProposeError::Unknown(fatal.to_string()),
    }
}
