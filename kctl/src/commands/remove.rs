//! `kctl plugin remove | disable`: show what it would do, ask, watch the three steps.

use std::io::{self, Write as _};

use kctl_shared::proto::v1::plugin_service_client::PluginServiceClient;
use kctl_shared::proto::v1::{OperationView, RemoveBatchRequest, RemovePreview, RemoveRequest};

use super::install::{finish, policy, request_id, target, took};
use super::{Verb, batch, consent, preview};
use crate::cli::{RemovalArgs, RemoveStep};
use crate::fail::Outcome;

pub async fn run(verb: &Verb, args: RemovalArgs, step: RemoveStep) -> Outcome {
    let word = if matches!(step, RemoveStep::Disable) { "disable" } else { "remove" };
    let example = format!("kctl plugin {word} {} --all-nodes", args.names.join(" "));
    let (target, group) = target(&args.target, &example)?;
    let asks = !args.flow.yes && !args.flow.dry_run;
    if asks {
        consent::can_ask("removing")?;
    }
    let id = request_id(&args.flow)?;
    let request = |name: &String| RemoveRequest {
        request_id: id.clone(),
        plugin: name.clone(),
        group: group.clone(),
        target: Some(target.clone()),
        policy: Some(policy(&args.rollout)),
        reason: args.flow.reason.clone(),
        dry_run: args.flow.dry_run,
        step: step.as_str().into(),
    };
    let requests: Vec<RemoveRequest> = args.names.iter().map(request).collect();
    if asks {
        ask(verb, &requests).await?;
    }
    let [request] = &requests[..] else {
        let batch = RemoveBatchRequest { request_id: id, removals: requests, dry_run: args.flow.dry_run };
        let accepted = verb.client.call(|channel| {
            let batch = batch.clone();
            async move { Ok(PluginServiceClient::new(channel).remove_batch(batch).await?.into_inner()) }
        });
        return batch::finish(verb, accepted.await?, &args.flow, &args.names, removed).await;
    };
    let accepted = verb.client.call(|channel| {
        let request = request.clone();
        async move { Ok(PluginServiceClient::new(channel).remove(request).await?.into_inner()) }
    });
    let accepted = accepted.await?;
    if let Some(preview) = accepted.preview.as_ref().filter(|_| args.flow.dry_run) {
        return show(verb, preview, accepted.operation.as_ref());
    }
    let name = &request.plugin;
    finish(verb, accepted, &args.flow, &format!("plugin/{name}"), |view| removed(name, view)).await
}

fn removed(name: &str, view: Option<&OperationView>) -> String {
    match view {
        Some(view) if view.partial => {
            format!("▲ removed {name}, but not from every node{}.\n", took(view).replace(',', ", in"))
        }
        Some(view) => format!(
            "✔ removed {name}{}.   undo: kctl plugin undo {name} --all-nodes\n",
            took(view).replace(',', " in")
        ),
        None => String::new(),
    }
}

/// A dry run: what would be done, and what refers to the plugin now.
fn show(verb: &Verb, preview: &RemovePreview, operation: Option<&OperationView>) -> Outcome {
    let mut shown = serde_json::to_value(operation).unwrap_or_default();
    shown["preview"] = serde_json::to_value(preview).unwrap_or_default();
    verb.printer.one(&shown, &format!("plugin/{}", preview.plugin), || {
        preview::plan(preview) + &operation.map(super::operation::describe).unwrap_or_default()
    })
}

/// Shows what all of them would do, and has their names typed.
async fn ask(verb: &Verb, requests: &[RemoveRequest]) -> Outcome {
    for request in requests {
        let preview = verb.client.call(|channel| {
            let request = request.clone();
            async move { Ok(PluginServiceClient::new(channel).preview_remove(request).await?.into_inner()) }
        });
        write!(io::stderr(), "{}", preview::plan(&preview.await?))?;
        if request.step != RemoveStep::Purge.as_str() {
            writeln!(io::stderr(), "It stops after {}, from where it goes on or back.", request.step)?;
        }
    }
    let names: Vec<&str> = requests.iter().map(|r| r.plugin.as_str()).collect();
    let what = if names.len() == 1 { "the plugin name" } else { "the plugin names, with blanks between," };
    consent::typed(what, &names.join(" "))
}
