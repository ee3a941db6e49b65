//! Several plugins in one request: their operations begin together, or none does.

use kctl_shared::fault::Fault;
use kctl_shared::proto::v1;
use kctl_shared::time::Timestamp;
use sha2::{Digest as _, Sha256};
use tonic::{Response, Status};

use super::plugin::{Decision, decide_install, decide_remove};
use super::{Api, request};
use crate::state::batch::{MAX_BATCH, all_or_none, reused};
use crate::state::{Command, LogStamp, apply};

/// The request id of one part of a request, of a plugin or of an operation: the same for every try of the same request.
pub(super) fn part(request: &str, group: &str, what: &str) -> String {
    let digest = Sha256::digest(format!("{request}/{group}/{what}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

fn batch_id(id: &str, parts: usize) -> Result<String, Fault> {
    if !(1..=MAX_BATCH).contains(&parts) {
        let message = format!("1 to {MAX_BATCH} plugins at once, not {parts}");
        return Err(Fault::new("INVALID_OPERATION", message).hint("name fewer at a time"));
    }
    request::request_id(id)
}

/// What to do about each part; whatever is refused is named.
fn each<R>(
    parts: &[R],
    plugin: impl Fn(&R) -> &str,
    decide: impl Fn(&R) -> Result<Decision, Fault>,
) -> Result<Vec<Decision>, Fault> {
    let (mut decided, mut refused, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        let name = request::plugin(plugin(part))?;
        if seen.contains(&name) {
            return Err(Fault::new("PLUGIN_TWICE", format!("{name} is named twice")).hint("name it once"));
        }
        match decide(part) {
            Ok(decision) => decided.push(decision),
            Err(why) => refused.push((name.clone(), why)),
        }
        seen.push(name);
    }
    all_or_none(&refused)?;
    Ok(decided)
}

impl Api {
    pub(super) async fn begin_installs(
        &self,
        r: v1::InstallBatchRequest,
    ) -> Result<Response<v1::BatchAccepted>, Status> {
        self.as_leader().await?;
        let batch = batch_id(&r.request_id, r.installs.len()).map_err(|f| self.fail(&f))?;
        let of_batch = |i: v1::InstallRequest| v1::InstallRequest {
            request_id: part(&batch, &i.group, &i.plugin),
            dry_run: r.dry_run,
            ..i
        };
        let parts: Vec<_> = r.installs.into_iter().map(of_batch).collect();
        let decided = self.hub.consensus.with_state(|s| {
            each(
                &parts,
                |i| &i.plugin,
                |i| {
                    let decision = decide_install(s, i)?;
                    if let Decision::Start(operation) = &decision {
                        self.nobody_elses(operation)?;
                    }
                    Ok(decision)
                },
            )
        });
        self.begin(batch, decided.map_err(|f| self.fail(&f))?, r.dry_run).await
    }

    pub(super) async fn begin_removals(
        &self,
        r: v1::RemoveBatchRequest,
    ) -> Result<Response<v1::BatchAccepted>, Status> {
        self.as_leader().await?;
        let batch = batch_id(&r.request_id, r.removals.len()).map_err(|f| self.fail(&f))?;
        let of_batch = |i: v1::RemoveRequest| v1::RemoveRequest {
            request_id: part(&batch, &i.group, &i.plugin),
            dry_run: r.dry_run,
            ..i
        };
        let parts: Vec<_> = r.removals.into_iter().map(of_batch).collect();
        let decided = self.hub.consensus.with_state(|s| each(&parts, |i| &i.plugin, |i| decide_remove(s, i)));
        let decided = decided.map_err(|f| self.fail(&f))?;
        let mut previews = Vec::new();
        for decision in &decided {
            previews.push(match decision {
                Decision::Start(operation) if r.dry_run => Some(self.preview(operation).await),
                _ => None,
            });
        }
        let mut accepted = self.begin(batch, decided, r.dry_run).await?;
        for (part, preview) in accepted.get_mut().operations.iter_mut().zip(previews) {
            part.preview = preview;
        }
        Ok(accepted)
    }

    async fn begin(
        &self,
        batch: String,
        decided: Vec<Decision>,
        dry_run: bool,
    ) -> Result<Response<v1::BatchAccepted>, Status> {
        let (mut parts, mut operations, mut known) = (Vec::new(), Vec::new(), false);
        for decision in decided {
            parts.push(match decision {
                Decision::Satisfied => None,
                Decision::Known(id) => {
                    known = true;
                    Some(id)
                }
                Decision::Start(mut operation) => {
                    operation.batch = Some(batch.clone());
                    let id = operation.id.clone();
                    operations.push(*operation);
                    Some(id)
                }
            });
        }
        if known && !operations.is_empty() {
            return Err(self.fail(&reused(&batch)));
        }
        let planned = operations.clone();
        let command = Command::StartBatch { operations };
        if dry_run && !planned.is_empty() {
            let mut state = self.hub.consensus.with_state(Clone::clone);
            let at = LogStamp { index: state.generation + 1, offset: 0, proposed_at: Timestamp::now() };
            apply(&mut state, at, command).map_err(|f| self.fail(&f))?;
        } else if !planned.is_empty() {
            self.propose(command).await?;
        }
        let view = |id: Option<String>| -> Result<v1::OperationAccepted, Fault> {
            let Some(id) = id else { return Ok(v1::OperationAccepted::default()) };
            let plan = planned.iter().find(|o| dry_run && o.id == id);
            let operation = self.hub.view(|s| match plan {
                Some(plan) => Ok(v1::OperationView { id: String::new(), ..s.operation(plan) }),
                None => s.state.operation(&id).map(|o| s.operation(o)),
            })?;
            Ok(v1::OperationAccepted { operation: Some(operation), started: plan.is_none(), preview: None })
        };
        let views: Result<Vec<_>, Fault> = parts.into_iter().map(view).collect();
        Ok(Response::new(v1::BatchAccepted { batch, operations: views.map_err(|f| self.fail(&f))? }))
    }
}
