//! `kctl node adopt`: what somebody put on nodes by hand becomes kctl's, as it is.

use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::node_service_client::NodeServiceClient;
use kctl_shared::proto::v1::{CollectRequest, GetNodeRequest, InstallRequest, OperationView, Target};

use super::Verb;
use super::install::{ask, finish, request_id, took};
use crate::cli::AdoptArgs;
use crate::fail::Outcome;

pub async fn run(verb: &Verb, args: AdoptArgs) -> Outcome {
    let id = args.node.clone();
    let node = verb
        .client
        .call(|channel| {
            let request = GetNodeRequest { id: id.clone() };
            async move { Ok(NodeServiceClient::new(channel).get(request).await?.into_inner()) }
        })
        .await?;
    let mut plugins = args.plugins.clone();
    if plugins.is_empty() {
        plugins.extend(node.found.iter().filter(|f| !f.digest.is_empty()).map(|f| f.name.clone()));
    }
    if plugins.is_empty() {
        return Err(Fault::new("NOTHING_TO_ADOPT", format!("no plugin was put on {id} by hand"))
            .hint(format!("kctl node get {id}"))
            .into());
    }
    for plugin in plugins {
        adopt(verb, &args, plugin).await?;
    }
    Ok(())
}

async fn adopt(verb: &Verb, args: &AdoptArgs, plugin: String) -> Outcome {
    let wish = CollectRequest { node: args.node.clone(), plugin: plugin.clone() };
    let collected = verb
        .client
        .call(|channel| {
            let wish = wish.clone();
            async move { Ok(NodeServiceClient::new(channel).collect(wish).await?.into_inner()) }
        })
        .await?;
    let (count, version) = (collected.nodes.len(), collected.version.clone());
    eprintln!("✔ found      {plugin} {version} on {count} node(s)   {}", collected.digest);
    // What kctl placed itself stays placed as it is.
    let placed = !collected.method.is_empty();
    let nodes = if collected.everywhere { Vec::new() } else { collected.nodes.clone() };
    let request = InstallRequest {
        request_id: request_id(&args.flow)?,
        plugin: plugin.clone(),
        digest: collected.digest,
        version: version.clone(),
        group: collected.group,
        target: Some(Target { all_nodes: collected.everywhere, nodes }),
        reason: args.flow.reason.clone(),
        dry_run: args.flow.dry_run,
        method: if placed { collected.method } else { "path".into() },
        place: collected.place,
        make: collected.make,
        adopt: true,
        ..InstallRequest::default()
    };
    let accepted = ask(verb, request).await?;
    finish(verb, accepted, &args.flow, &format!("plugin/{plugin}"), |view: Option<&OperationView>| match view
    {
        Some(view) => format!(
            "✔ {plugin} {version} is kctl's on {count} node(s), as it was (operation {}{})\n",
            view.id,
            took(view)
        ),
        None => format!("✔ {plugin} {version} is kctl's already\n"),
    })
    .await
}
