//! People step into a running operation: read what is asked, expand it on the leader's state, propose, show.

use kctl_shared::fault::Fault;
use kctl_shared::proto::v1;
use kctl_shared::time::Timestamp;
use tonic::{Code, Response, Status};

use super::batch::part;
use super::{Api, request};
use crate::rollout::runbook;
use crate::state::operation::{Intervention, Operation, RequestKey};
use crate::state::{ClusterState, Command, LogStamp, apply, batch};

/// How often an expansion is made anew when the operation moved between expanding and applying it.
const TRIES: usize = 5;

/// What is asked for, before it is expanded.
pub(super) enum Wish {
    Pause,
    Resume,
    Promote,
    Retry { failed_only: bool },
    Excuse { node: String },
    Abort,
}

impl Wish {
    fn expand(
        &self,
        state: &ClusterState,
        operation: &Operation,
        reason: &str,
    ) -> Result<Intervention, Fault> {
        let from = operation.cursor;
        Ok(match self {
            Self::Pause => Intervention::Pause,
            Self::Resume => Intervention::Resume,
            Self::Promote => Intervention::Promote { step: from },
            Self::Retry { failed_only } => {
                Intervention::Retry { from, steps: runbook::retry(operation, *failed_only) }
            }
            Self::Excuse { .. } if reason.trim().is_empty() => {
                let message = "going on without a node is for somebody to answer for: say why";
                return Err(Fault::new("INVALID_REASON", message).hint("-m REASON"));
            }
            Self::Excuse { node } => Intervention::Excuse { node: request::node(node)? },
            Self::Abort => Intervention::Abort { from, steps: runbook::abort(state, operation) },
        })
    }

    /// Tells a retry of a request from another request with the same id, another verb included.
    fn body(&self, asked: &v1::StepInRequest) -> String {
        let verb = match self {
            Self::Pause => "pause".to_owned(),
            Self::Resume => "resume".to_owned(),
            Self::Promote => "promote".to_owned(),
            Self::Retry { failed_only } => format!("retry {failed_only}"),
            Self::Excuse { node } => format!("excuse {node}"),
            Self::Abort => "abort".to_owned(),
        };
        format!("{verb} {}", request::body_hash(asked))
    }
}

impl Api {
    pub(super) async fn step_in(
        &self,
        asked: v1::StepInRequest,
        wish: Wish,
    ) -> Result<Response<v1::OperationView>, Status> {
        self.as_leader().await?;
        let batch: Vec<String> = self
            .hub
            .consensus
            .with_state(|state| batch::members(state, &asked.id).map(|o| o.id.clone()).collect());
        if batch.is_empty() {
            return self.step_into(asked, &wish).await;
        }
        let request = request::request_id(&asked.request_id).map_err(|f| self.fail(&f))?;
        let mut answers = Vec::new();
        for id in batch {
            let request_id = part(&request, "", &id);
            let answer = self.step_into(v1::StepInRequest { request_id, id, ..asked.clone() }, &wish).await;
            // Said again to the next leader, it goes on with the rest.
            if answer.as_ref().is_err_and(|status| status.code() == Code::Unavailable) {
                return answer;
            }
            answers.push(answer);
        }
        let first = answers.iter().position(Result::is_ok).unwrap_or_default();
        answers.swap_remove(first)
    }

    async fn step_into(
        &self,
        asked: v1::StepInRequest,
        wish: &Wish,
    ) -> Result<Response<v1::OperationView>, Status> {
        let reason = request::reason(&asked.reason).map_err(|f| self.fail(&f))?;
        let id = request::request_id(&asked.request_id).map_err(|f| self.fail(&f))?;
        for left in (0..TRIES).rev() {
            let command = self.hub.consensus.with_state(|state| {
                let operation = state.operation(&asked.id)?;
                let what = wish.expand(state, operation, &reason)?;
                let body = wish.body(&asked);
                let request = RequestKey { id: id.clone(), body };
                Ok(Command::Intervene { operation: asked.id.clone(), request, reason: reason.clone(), what })
            });
            let command = command.map_err(|f: Fault| self.fail(&f))?;
            if asked.dry_run {
                return self.tried(command, &asked.id);
            }
            match self.propose(command).await {
                Ok(_) => break,
                Err(status) if left > 0 && Fault::from_status(&status).0.code == "SUPERSEDED" => {}
                Err(status) => return Err(status),
            }
        }
        let view = self.hub.view(|s| s.state.operation(&asked.id).map(|o| s.operation(o)));
        view.map(Response::new).map_err(|f| self.fail(&f))
    }

    /// The same, on a copy of the state.
    fn tried(&self, command: Command, id: &String) -> Result<Response<v1::OperationView>, Status> {
        let mut state = self.hub.consensus.with_state(Clone::clone);
        let at = LogStamp { index: state.generation + 1, offset: 0, proposed_at: Timestamp::now() };
        apply(&mut state, at, command).map_err(|f| self.fail(&f))?;
        let view = self.hub.view(|s| {
            let tried = crate::views::Sources { state: &state, ..s };
            state.operation(id).map(|o| tried.operation(o))
        });
        view.map(Response::new).map_err(|f| self.fail(&f))
    }
}
