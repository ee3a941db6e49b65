//! Several plugins in one command: their operations begin together and are watched as one.

use kctl_shared::proto::v1::{BatchAccepted, OperationAccepted, OperationView};
use serde_json::json;

use super::{Verb, preview};
use crate::cli::FlowArgs;
use crate::fail::Outcome;
use crate::progress;

/// The end of a command for `plugins`, in the order of `accepted`: plan, ids, or all operations watched to their ends. The
/// worst of them makes the exit code.
///
/// `line` says how an operation ended well; without one there was nothing to do.
pub async fn finish(
    verb: &Verb,
    accepted: BatchAccepted,
    flow: &FlowArgs,
    plugins: &[String],
    line: impl Fn(&str, Option<&OperationView>) -> String,
) -> Outcome {
    if flow.dry_run {
        return plan(verb, &accepted, plugins, line);
    }
    let views: Vec<Option<OperationView>> = accepted.operations.into_iter().map(|a| a.operation).collect();
    let named = plugins.iter().zip(&views).filter_map(|(p, v)| Some((p.clone(), v.as_ref()?.id.clone())));
    let begun: Vec<(String, String)> = named.collect();
    let ids: Vec<&str> = begun.iter().map(|(_, id)| id.as_str()).collect();
    if flow.detach {
        let shown: Vec<_> = views.iter().flatten().collect();
        return verb.printer.one(
            &json!({"batch": accepted.batch, "operations": shown}),
            &ids.join("\n"),
            || ids.iter().map(|id| format!("{id}\n")).collect(),
        );
    }
    let ended =
        progress::follow_all(&verb.client, &begun, flow.progress, flow.timeout, progress::is_done).await?;
    let satisfied = plugins.iter().zip(&views).filter(|(_, view)| view.is_none());
    let name: Vec<String> = plugins.iter().map(|p| format!("plugin/{p}")).collect();
    verb.printer.one(&json!({"batch": accepted.batch, "operations": ended}), &name.join("\n"), || {
        let well = |v: &&OperationView| v.phase == "Succeeded" || progress::has_stopped(v);
        let lines = ended.iter().filter(well).map(|v| {
            if progress::has_stopped(v) {
                super::install::stopped(v)
            } else {
                line(&v.plugins.join(" "), Some(v))
            }
        });
        satisfied.map(|(plugin, _)| line(plugin, None)).chain(lines).collect()
    })?;
    progress::verdicts(&ended)
}

fn plan(
    verb: &Verb,
    accepted: &BatchAccepted,
    plugins: &[String],
    line: impl Fn(&str, Option<&OperationView>) -> String,
) -> Outcome {
    let json = |part: &OperationAccepted| {
        let mut shown = serde_json::to_value(&part.operation).unwrap_or_default();
        if let (Some(preview), Some(shown)) = (&part.preview, shown.as_object_mut()) {
            shown.insert("preview".into(), json!(preview));
        }
        shown
    };
    let shown: Vec<_> = accepted.operations.iter().map(json).collect();
    let name: Vec<String> = plugins.iter().map(|p| format!("plugin/{p}")).collect();
    verb.printer.one(&json!({"batch": accepted.batch, "operations": shown}), &name.join("\n"), || {
        let text = |(plugin, part): (&String, &OperationAccepted)| match &part.operation {
            Some(view) => {
                let before = part.preview.as_ref().map(preview::plan).unwrap_or_default();
                before + &super::operation::describe(view)
            }
            None => line(plugin, None),
        };
        plugins.iter().zip(&accepted.operations).map(text).collect()
    })
}
