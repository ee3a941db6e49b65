//! `kctl plugin remove`: show what it would do, ask, watch the three steps.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use kctl_shared::proto::v1::plugin_service_client::PluginServiceClient;
use kctl_shared::proto::v1::{RemovePreview, RemoveRequest};

use super::Verb;
use super::install::{finish, policy, request_id, target, took};
use crate::cli::RemoveArgs;
use crate::fail::{Fail, Outcome};

pub async fn run(verb: &Verb, args: RemoveArgs) -> Outcome {
    let example = format!("kctl plugin remove {} --all-nodes", args.name);
    let (target, group) = target(&args.target, &example)?;
    let asks = !args.flow.yes && !args.flow.dry_run;
    if asks && !io::stdin().is_terminal() {
        return Err(Fail::usage(
            "CONSENT_REQUIRED",
            "removing asks for consent and there is no terminal",
            "add --yes",
        ));
    }
    let request = RemoveRequest {
        request_id: request_id(&args.flow)?,
        plugin: args.name.clone(),
        group,
        target: Some(target),
        policy: Some(policy(&args.rollout)),
        reason: args.flow.reason.clone(),
        dry_run: args.flow.dry_run,
    };
    if asks {
        let preview =
            verb.client
                .call(|channel| {
                    let request = request.clone();
                    async move {
                        Ok(PluginServiceClient::new(channel).preview_remove(request).await?.into_inner())
                    }
                })
                .await?;
        consent(&preview)?;
    }
    let accepted = verb
        .client
        .call(|channel| {
            let request = request.clone();
            async move { Ok(PluginServiceClient::new(channel).remove(request).await?.into_inner()) }
        })
        .await?;
    finish(verb, accepted, &args.flow, &format!("plugin/{}", args.name), |view| match view {
        Some(view) if view.partial => {
            format!("▲ removed {}, but not from every node{}.\n", args.name, took(view).replace(',', ", in"))
        }
        Some(view) => format!("✔ removed {}{}.\n", args.name, took(view).replace(',', " in")),
        None => String::new(),
    })
    .await
}

fn consent(preview: &RemovePreview) -> Outcome {
    let mut err = io::stderr();
    writeln!(err, "Removing {} {} will:", preview.plugin, preview.version)?;
    writeln!(err, "  1 detach   delete every plugin configuration of it in Kong")?;
    writeln!(
        err,
        "  2 disable  drop it from `plugins` and reload {} nodes, waves {}",
        preview.nodes,
        preview.waves.join(",")
    )?;
    writeln!(
        err,
        "  3 purge    delete {} files from {} nodes (the release stays in the store)",
        preview.files, preview.nodes
    )?;
    write!(err, "Type the plugin name to continue: ")?;
    err.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if line.trim() == preview.plugin {
        return Ok(());
    }
    Err(Fail::usage("CONSENT_REFUSED", "that is not the plugin's name; nothing was changed", "run it again"))
}
