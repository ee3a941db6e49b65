//! `kctl plugin history | undo | pin | unpin`: what a plugin was, that again, and what it stays.

use kctl_shared::proto::v1::plugin_service_client::PluginServiceClient;
use kctl_shared::proto::v1::{HistoryRequest, PinRequest, RevisionView, UndoRequest};

use super::Verb;
use super::install::{finish, policy, request_id, target, took};
use crate::cli::{HistoryArgs, PinArgs, UndoArgs};
use crate::fail::Outcome;
use crate::output::{Table, time};

pub async fn history(verb: &Verb, args: HistoryArgs) -> Outcome {
    let answer = verb.client.call(|channel| {
        let request = HistoryRequest { name: args.name.clone(), group: args.group.clone() };
        async move { Ok(PluginServiceClient::new(channel).history(request).await?.into_inner()) }
    });
    let revisions = answer.await?.revisions;
    verb.printer.many(&revisions, |r| r.revision.to_string(), |wide| table(&revisions, wide))
}

fn table(revisions: &[RevisionView], wide: bool) -> Table {
    let mut head: Vec<String> =
        ["REVISION", "WHAT", "VERSION", "WHEN", "OPERATION", "REASON"].map(str::to_owned).to_vec();
    if wide {
        head.extend(["DIGEST", "METHOD", "CONFIGURATIONS"].map(str::to_owned));
    }
    let row = |r: &RevisionView| {
        let what = if r.undo_to > 0 { format!("{} to {}", r.what, r.undo_to) } else { r.what.clone() };
        let mut row = vec![
            r.revision.to_string(),
            what,
            r.version.clone(),
            time(r.created_at.as_ref()),
            r.operation.clone(),
            r.reason.clone(),
        ];
        if wide {
            row.extend([r.digest.clone(), r.method.clone(), r.entities.to_string()]);
        }
        row
    };
    std::iter::once(head).chain(revisions.iter().map(row)).collect()
}

pub async fn undo(verb: &Verb, args: UndoArgs) -> Outcome {
    let (target, group) = target(&args.target, &format!("kctl plugin undo {} --all-nodes", args.name))?;
    let request = UndoRequest {
        request_id: request_id(&args.flow)?,
        plugin: args.name.clone(),
        group,
        to: args.to.unwrap_or_default(),
        target: Some(target),
        policy: Some(policy(&args.rollout)),
        reason: args.flow.reason.clone(),
        dry_run: args.flow.dry_run,
    };
    let accepted = verb.client.call(|channel| {
        let request = request.clone();
        async move { Ok(PluginServiceClient::new(channel).undo(request).await?.into_inner()) }
    });
    let accepted = accepted.await?;
    finish(verb, accepted, &args.flow, &format!("plugin/{}", args.name), |view| match view {
        Some(view) => {
            let attached = view.steps.iter().find(|s| s.name == "attach").map(|s| format!("; {}", s.summary));
            let mark = if view.partial || !view.refused.is_empty() { "▲" } else { "✔" };
            format!(
                "{mark} {} is {} again (operation {}{}){}.\n",
                args.name,
                view.version,
                view.id,
                took(view),
                attached.unwrap_or_default()
            )
        }
        None => format!("✔ {} is that already; nothing to do.\n", args.name),
    })
    .await
}

pub async fn pin(verb: &Verb, args: PinArgs, version: Option<String>, unpin: bool) -> Outcome {
    let request = PinRequest {
        name: args.name.clone(),
        group: args.group.clone(),
        version: version.unwrap_or_default(),
        unpin,
        dry_run: args.dry_run,
    };
    let view = verb.client.call(|channel| {
        let request = request.clone();
        async move { Ok(PluginServiceClient::new(channel).pin(request).await?.into_inner()) }
    });
    let view = view.await?;
    verb.printer.one(&view, &format!("plugin/{}", view.name), || {
        let would = if args.dry_run { "would be" } else { "is" };
        if view.pinned.is_empty() {
            format!("✔ {} {would} free to change its version.\n", view.name)
        } else {
            format!("✔ {} {would} pinned to {}.\n", view.name, view.pinned)
        }
    })
}
