//! `kctl operation …`: look at operations, and step into them.

mod logs;
mod several;
mod step_in;

use kctl_shared::proto::v1::operation_service_client::OperationServiceClient;
use kctl_shared::proto::v1::{GetOperationRequest, ListOperationsRequest, OperationView};

use super::Verb;
use crate::cli::{OperationCommand, ProgressStyle};
use crate::fail::Outcome;
use crate::output::{render, symbol, time};
use crate::progress;
pub use step_in::call_off;

pub async fn run(verb: &Verb, command: OperationCommand) -> Outcome {
    match command {
        OperationCommand::List { limit, running } => list(verb, limit, running).await,
        OperationCommand::Status { id, watch: false, .. } => {
            several::show(verb, &id, &several::find(verb, &id).await?)
        }
        OperationCommand::Status { id, watch: true, timeout } => {
            let views = several::find(verb, &id).await?;
            let style = ProgressStyle::Auto;
            let views = several::follow(verb, &views, style, timeout, progress::has_ended).await?;
            several::show(verb, &id, &views)?;
            progress::verdicts(&views)
        }
        OperationCommand::Logs { id, node } => logs::run(verb, &id, node.as_deref()).await,
        OperationCommand::Pause(args) => step_in::pause(verb, args).await,
        OperationCommand::Resume(args) => step_in::resume(verb, args).await,
        OperationCommand::Promote(args) => step_in::promote(verb, args).await,
        OperationCommand::Retry { follow, failed_only } => step_in::retry(verb, follow, failed_only).await,
        OperationCommand::Excuse { step_in, node } => step_in::excuse(verb, step_in, node).await,
        OperationCommand::Abort(args) => step_in::abort(verb, args).await,
    }
}

pub async fn get(verb: &Verb, id: &str) -> Outcome<OperationView> {
    let view = verb.client.call(|channel| {
        let request = GetOperationRequest { id: id.to_owned() };
        async move { Ok(OperationServiceClient::new(channel).get(request).await?.into_inner()) }
    });
    Ok(view.await?)
}

async fn listed(verb: &Verb, request: ListOperationsRequest) -> Outcome<Vec<OperationView>> {
    let answer = verb.client.call(|channel| {
        let request = request.clone();
        async move { Ok(OperationServiceClient::new(channel).list(request).await?.into_inner()) }
    });
    Ok(answer.await?.operations)
}

async fn list(verb: &Verb, limit: u32, running: bool) -> Outcome {
    let operations = listed(verb, ListOperationsRequest { limit, running, batch: String::new() }).await?;
    verb.printer.many(
        &operations,
        |o| o.id.clone(),
        |wide| {
            let mut head: Vec<String> =
                ["ID", "KIND", "PLUGIN", "VERSION", "PHASE", "CREATED"].map(str::to_owned).to_vec();
            if wide {
                head.extend(["BATCH", "REASON"].map(str::to_owned));
            }
            let row = |o: &OperationView| {
                let phase = format!("{} {}", symbol(&o.phase), o.phase);
                let mut row = vec![
                    o.id.clone(),
                    o.kind.clone(),
                    o.plugins.join(","),
                    o.version.clone(),
                    phase,
                    time(o.created_at.as_ref()),
                ];
                if wide {
                    row.extend([o.batch.clone(), o.reason.clone()]);
                }
                row
            };
            std::iter::once(head).chain(operations.iter().map(row)).collect()
        },
    )
}

/// An operation for people.
pub fn describe(view: &OperationView) -> String {
    let mut out = format!(
        "{} {} {}   {} {}\n",
        view.kind,
        view.plugins.join(","),
        view.version,
        symbol(&view.phase),
        view.phase
    );
    if !view.id.is_empty() {
        out.push_str(&format!("id {}   created {}\n", view.id, time(view.created_at.as_ref())));
    }
    if !view.batch.is_empty() {
        out.push_str(&format!("in effect together with others, or not at all: batch {}\n", view.batch));
    }
    if let Some(error) = &view.error {
        out.push_str(&format!("✖ {} {}\n", error.code, error.message));
    }
    let mut table = vec![["STEP", "WAVE", "PHASE", "NODES"].map(str::to_owned).to_vec()];
    for step in &view.steps {
        let wave = if step.wave > 0 { step.wave.to_string() } else { "-".into() };
        let mut nodes: Vec<_> = step.nodes.iter().map(|n| format!("{} {}", n.node, n.status)).collect();
        if step.forgotten > 0 && (!nodes.is_empty() || step.summary.is_empty()) {
            nodes.push(format!("{} not kept one by one", step.forgotten));
        }
        let nodes = if nodes.is_empty() { step.summary.clone() } else { nodes.join(", ") };
        table.push(vec![step.name.clone(), wave, format!("{} {}", symbol(&step.phase), step.phase), nodes]);
    }
    out.push_str(&render(&table));
    for excuse in &view.excused {
        out.push_str(&format!("without {}: {}\n", excuse.node, excuse.reason));
    }
    for waiting in &view.waiting_on {
        out.push_str(&format!(
            "waiting on {}{} since {}: {}\n",
            if waiting.node.is_empty() { String::new() } else { format!("{} ", waiting.node) },
            waiting.reason,
            time(waiting.since.as_ref()),
            waiting.message
        ));
    }
    out
}
