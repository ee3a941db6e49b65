//! `kctl plugin enable`: a removal that stopped before the files goes back.

use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::{OperationView, StepInRequest};

use super::Verb;
use super::install::request_id;
use super::operation::{call_off, describe, get};
use super::read::get_plugin;
use crate::cli::EnableArgs;
use crate::fail::Outcome;
use crate::progress;

pub async fn run(verb: &Verb, args: EnableArgs) -> Outcome {
    let EnableArgs { name, group, flow } = args;
    let plugin = get_plugin(verb, &name, &group).await?;
    let shown = format!("plugin/{name}");
    if plugin.operation.is_empty() {
        let nothing = serde_json::json!({"started": false});
        return verb.printer.one(&nothing, &shown, || format!("✔ {name} is not disabled; nothing to do.\n"));
    }
    let removal = disabled(get(verb, &plugin.operation).await?)?;
    let request = StepInRequest {
        request_id: request_id(&flow)?,
        id: removal.id,
        reason: flow.reason.clone(),
        dry_run: flow.dry_run,
    };
    let view = call_off(verb, request).await?;
    if flow.dry_run {
        return verb.printer.one(&view, &shown, || describe(&view));
    }
    if flow.detach {
        return verb.printer.one(&view, &view.id, || format!("{}\n", view.id));
    }
    let view =
        progress::follow(&verb.client, &view.id, flow.progress, flow.timeout, progress::has_ended).await?;
    if view.refused.is_empty() && ["Aborted", "Compensated"].contains(&view.phase.as_str()) {
        let line = || format!("✔ {name} is {} again, on every node that dropped it.\n", view.version);
        return verb.printer.one(&view, &shown, line);
    }
    if !verb.printer.is_table() {
        verb.printer.one(&view, &shown, String::new)?;
    }
    progress::verdict(&view)
}

/// The operation that has the plugin, if it is a removal that stopped where everything can come back.
fn disabled(view: OperationView) -> Outcome<OperationView> {
    let (id, plugins) = (&view.id, view.plugins.join(" "));
    if view.kind != "remove" || !progress::has_stopped(&view) {
        let message = format!("{} {id} works on {plugins}, which was not disabled", view.kind);
        return Err(Fault::new("PLUGIN_BUSY", message).hint(format!("kctl operation status {id} -w")).into());
    }
    if !view.batch.is_empty() {
        let message = format!("{plugins} was disabled together with others, and they come back together");
        let hint = format!("kctl operation abort {}", view.batch);
        return Err(Fault::new("PLUGIN_BUSY", message).hint(hint).into());
    }
    Ok(view)
}
