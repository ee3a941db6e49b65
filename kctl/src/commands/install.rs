//! `kctl plugin install`: pack, upload, ask, watch.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kctl_shared::fault::Fault;
use kctl_shared::method::Method;
use kctl_shared::package::{Loaded, Package};
use kctl_shared::proto::v1::artifact_service_client::ArtifactServiceClient;
use kctl_shared::proto::v1::node_service_client::NodeServiceClient;
use kctl_shared::proto::v1::plugin_service_client::PluginServiceClient;

use kctl_shared::proto::v1::{
    InstallBatchRequest, InstallRequest, ListNodesRequest, OperationAccepted, OperationView, PluginView,
    RolloutPolicy, Target,
};

use kctl_shared::upload::messages;

use super::{Verb, batch, lint};
use crate::cli::{FlowArgs, InstallArgs, InstallMethod, MethodArgs, RolloutArgs, SourceArgs, TargetArgs};
use crate::fail::{Fail, Outcome};
use crate::lint::{Others, Target as Kong, clashes};
use crate::progress;

pub async fn run(verb: &Verb, args: InstallArgs) -> Outcome {
    let (target, group) = target(&args.target, "kctl plugin install … --all-nodes")?;
    let method = method(&args.method)?;
    let sources = lint::each_plugin(&args.source)?;
    if sources.len() > 1 {
        one_at_a_time(&args)?;
    }
    let id = request_id(&args.flow)?;
    let (mut requests, mut names) = (Vec::new(), Vec::new());
    let mut kongs = args.judge.kong.map(|kong| vec![kong]);
    let mut taken = Vec::new();
    for source in &sources {
        taken.push(take(source, &args)?);
    }
    for loaded in &taken {
        if kongs.is_none() && !args.judge.no_lint {
            kongs = Some(self::kongs(verb).await?);
        }
        lint::pass(loaded, &args.judge, kongs.as_deref().unwrap_or_default())?;
        let package = &loaded.package;
        let here = if group.is_empty() { "default" } else { group.as_str() };
        let mut installed = lint::installed(&verb.client).await?;
        installed.retain(|view| view.group == here);
        if !args.judge.no_lint {
            no_clash(package, &installed)?;
        }
        let before =
            installed.iter().find(|v| v.name == package.plugin.as_str()).is_some_and(|v| v.set_nginx);
        tell_needs(package, args.set_nginx.unwrap_or(before))?;
        names.push(package.plugin.to_string());
        requests.push(InstallRequest {
            request_id: id.clone(),
            plugin: package.plugin.to_string(),
            digest: package.digest().to_string(),
            version: package.version.clone(),
            group: group.clone(),
            target: Some(target.clone()),
            policy: Some(policy(&args.rollout)),
            reason: args.flow.reason.clone(),
            allow_downgrade: args.allow_downgrade,
            dry_run: args.flow.dry_run,
            method: method.0.clone(),
            place: method.1.clone(),
            make: args.method.make,
            allow_shadow: args.source.allow_shadow,
            adopt: false,
            set_nginx: args.set_nginx,
        });
    }
    // Nothing is uploaded before all of them were found good.
    for loaded in taken.iter().filter(|_| !args.flow.dry_run) {
        upload(verb, &loaded.package, &Bytes::from(loaded.package.to_artifact())).await?;
    }
    let [request] = &requests[..] else {
        let batch = InstallBatchRequest { request_id: id, installs: requests, dry_run: args.flow.dry_run };
        let accepted = verb.client.call(|channel| {
            let batch = batch.clone();
            async move { Ok(PluginServiceClient::new(channel).install_batch(batch).await?.into_inner()) }
        });
        return batch::finish(verb, accepted.await?, &args.flow, &names, is_loaded).await;
    };
    let accepted = ask(verb, request.clone()).await?;
    let name = format!("{} {}", request.plugin, request.version);
    finish(verb, accepted, &args.flow, &format!("plugin/{}", request.plugin), |view| is_loaded(&name, view))
        .await
}

/// Reads the plugin and says what it is.
fn take(source: &SourceArgs, args: &InstallArgs) -> Outcome<Loaded> {
    let loaded = lint::take(source)?;
    let package = &loaded.package;
    if matches!(args.method.method, Some(InstallMethod::Path)) && !source.nginx.is_empty() {
        return Err(Fail::usage(
            "METHOD_INVALID",
            "with --method path a release is the files that are on the nodes, and --nginx would add one",
            "write it into kctl.toml beside handler.lua on the nodes, see kctl explain DECLARATION_INVALID",
        ));
    }
    let size: u64 = package.files.iter().chain(&package.extras).map(|f| f.entry.size).sum();
    eprintln!(
        "✔ packed     {} {}   {} files, {:.1} KiB   {}",
        package.plugin,
        package.version,
        package.files.len() + package.extras.len(),
        size as f64 / 1024.0,
        package.digest()
    );
    for extra in &package.extras {
        eprintln!("  with       {}", extra.entry.path);
    }
    for path in &package.left_out {
        eprintln!("  left out   {path}");
    }
    Ok(loaded)
}

/// What is about one plugin cannot be said of several.
fn one_at_a_time(args: &InstallArgs) -> Outcome {
    let source = &args.source;
    let about_one = [
        (source.name.is_some(), "--name"),
        (source.as_version.is_some(), "--as-version"),
        (!source.nginx.is_empty(), "--nginx"),
        (args.method.path.is_some(), "--path"),
    ];
    match about_one.into_iter().find(|(given, _)| *given) {
        None => Ok(()),
        Some((_, option)) => Err(Fail::usage(
            "SEVERAL_PLUGINS",
            format!("{option} is about one plugin, and several are named"),
            "install that one by itself",
        )),
    }
}

fn is_loaded(plugin: &str, view: Option<&OperationView>) -> String {
    let Some(view) = view else { return format!("✔ {plugin} is installed already; nothing to do.\n") };
    let (loaded, all) = reached(view);
    let mark = if view.partial { "▲" } else { "✔" };
    let safe = if view.partial { "" } else { " Safe to attach to routes." };
    format!(
        "{mark} {} {} is loaded on {loaded}/{all} nodes (operation {}{}).{safe}\n",
        view.plugins.join(" "),
        view.version,
        view.id,
        took(view)
    )
}

/// What the control plane would refuse is refused before anything is uploaded.
fn no_clash(package: &Package, installed: &[PluginView]) -> Result<(), Fault> {
    let others: Vec<Others> = installed.iter().map(Others::from).collect();
    match clashes(package, &others).first() {
        None => Ok(()),
        Some(clash) => Err(Fault::new("MODULE_CONFLICT", clash.to_string())
            .hint("make both plugins bring the same module, or only one of them")),
    }
}

/// What the plugin needs of nginx, and who sees to it.
fn tell_needs(package: &Package, set: bool) -> Result<(), Fault> {
    let needs = package.nginx().map_err(Fault::from)?;
    for setting in &needs {
        eprintln!("  needs      {setting}");
    }
    match (needs.is_empty(), set) {
        (true, _) => {}
        (false, true) => eprintln!("  nginx      the agents set it in kong.conf where it is not set already"),
        (false, false) => eprintln!(
            "  nginx      needs these directives in every node's kong.conf; pass --set-nginx to have kctl set them"
        ),
    }
    Ok(())
}

/// Sends the request to whoever leads.
pub async fn ask(verb: &Verb, request: InstallRequest) -> Result<OperationAccepted, Fault> {
    let sent = verb.client.call(|channel| {
        let request = request.clone();
        async move { Ok(PluginServiceClient::new(channel).install(request).await?.into_inner()) }
    });
    sent.await
}

/// (name, place) of the method asked for, checked here so that nothing is uploaded for a typing error.
fn method(args: &MethodArgs) -> Outcome<(String, String)> {
    let name = args.method.map(|m| match m {
        InstallMethod::Store => "store",
        InstallMethod::Luarocks => "luarocks",
        InstallMethod::Path => "path",
    });
    // A tree or a path says which method is meant.
    let implied = match (&args.tree, &args.path, args.make) {
        (Some(_), _, _) | (_, _, true) => Some("luarocks"),
        (_, Some(_), _) => Some("path"),
        _ => None,
    };
    if let (Some(name), Some(implied)) = (name, implied)
        && name != implied
    {
        return Err(Fail::usage(
            "METHOD_INVALID",
            format!(
                "--tree and --make are for --method luarocks, --path is for --method path, not for {name}"
            ),
            "see kctl plugin install --help",
        ));
    }
    let name = name.or(implied).unwrap_or_default();
    let place = args.tree.as_ref().or(args.path.as_ref()).cloned().unwrap_or_default();
    match Method::parse(name, &place, args.make) {
        Ok(_) => Ok((name.to_owned(), place)),
        Err(fault) => Err(Fail::usage(&fault.code, fault.message, fault.hint)),
    }
}

/// The versions of Kong there are in the cluster; the newest known if none can be told.
async fn kongs(verb: &Verb) -> Outcome<Vec<Kong>> {
    let nodes = verb.client.call(|channel| async move {
        Ok(NodeServiceClient::new(channel).list(ListNodesRequest::default()).await?.into_inner())
    });
    let mut found: Vec<Kong> =
        nodes.await?.nodes.iter().filter_map(|n| Kong::parse(&n.kong_version).ok()).collect();
    found.sort_by_key(|k| k.number());
    found.dedup();
    Ok(if found.is_empty() { vec![Kong::default()] } else { found })
}

async fn upload(verb: &Verb, package: &Package, bytes: &Bytes) -> Result<(), Fault> {
    let messages = messages(package, bytes);
    let stored = verb
        .client
        .call(|channel| {
            let messages = messages.clone();
            async move {
                Ok(ArtifactServiceClient::new(channel)
                    .upload(tokio_stream::iter(messages))
                    .await?
                    .into_inner())
            }
        })
        .await?;
    eprintln!("✔ uploaded   {} copies", stored.copies);
    Ok(())
}

/// The target of a mutation; nothing is changed everywhere by accident.
pub fn target(args: &TargetArgs, example: &str) -> Outcome<(Target, String)> {
    let group = args.group.clone().unwrap_or_default();
    match (args.all_nodes || (args.group.is_some() && args.nodes.is_empty()), args.nodes.is_empty()) {
        (true, true) => Ok((Target { all_nodes: true, nodes: Vec::new() }, group)),
        (false, false) => Ok((Target { all_nodes: false, nodes: args.nodes.clone() }, group)),
        _ => Err(Fail::usage(
            "TARGET_REQUIRED",
            "a change needs one target: --all-nodes, --group GROUP or --node NODE",
            format!("for example: {example}"),
        )),
    }
}

pub fn policy(args: &RolloutArgs) -> RolloutPolicy {
    let ms = |d: Option<Duration>| d.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    RolloutPolicy {
        canary: args.canary.clone().unwrap_or_default(),
        waves: args.waves.clone(),
        max_parallel: args.max_parallel.clone().unwrap_or_default(),
        max_failures: args.max_failures,
        preflight: args.preflight.map(|p| p.as_str().to_owned()).unwrap_or_default(),
        node_deadline_ms: ms(args.node_deadline),
        bake_ms: ms(args.bake),
        progress_deadline_ms: ms(args.progress_deadline),
        pause_after: args.pause_after.clone(),
        on_failure: args.on_failure.map(|o| o.as_str().to_owned()).unwrap_or_default(),
    }
}

pub fn request_id(flow: &FlowArgs) -> Outcome<String> {
    parse_request_id(flow.request_id.as_deref())
}

pub fn parse_request_id(given: Option<&str>) -> Outcome<String> {
    match given {
        None => Ok(uuid::Uuid::now_v7().to_string()),
        Some(id) => match uuid::Uuid::parse_str(id) {
            Ok(id) => Ok(id.to_string()),
            Err(_) => Err(Fail::usage(
                "INVALID_REQUEST_ID",
                format!("{id:?} is not a UUID"),
                "leave --request-id out",
            )),
        },
    }
}

/// How many nodes it was enabled on, of how many; a wave that was tried again counts once.
fn reached(view: &OperationView) -> (usize, usize) {
    let entries = || view.steps.iter().filter(|s| s.name == "enable").flat_map(|s| &s.nodes);
    let all: BTreeSet<_> = view.steps.iter().flat_map(|s| &s.nodes).map(|n| n.node.as_str()).collect();
    let loaded: BTreeSet<_> = entries().filter(|n| n.status == "verified").map(|n| n.node.as_str()).collect();
    let done = view.steps.iter().filter(|s| s.name == "enable" && s.phase == "Done");
    let forgotten: usize = done.map(|s| s.forgotten as usize).sum();
    (loaded.len() + forgotten, all.len() + forgotten)
}

pub fn took(view: &OperationView) -> String {
    let ms = |t: &prost_types::Timestamp| t.seconds * 1000 + i64::from(t.nanos) / 1_000_000;
    match (&view.created_at, &view.finished_at) {
        (Some(from), Some(to)) => format!(", {:.1}s", (ms(to) - ms(from)) as f64 / 1000.0),
        _ => String::new(),
    }
}

/// The common end of all mutations: plan, id, or the operation watched to its end.
pub async fn finish(
    verb: &Verb,
    accepted: OperationAccepted,
    flow: &FlowArgs,
    name: &str,
    text: impl Fn(Option<&OperationView>) -> String,
) -> Outcome {
    let Some(view) = accepted.operation else {
        return verb.printer.one(&serde_json::json!({"started": false}), name, || text(None));
    };
    if flow.dry_run {
        return verb.printer.one(&view, name, || super::operation::describe(&view));
    }
    if flow.detach {
        return verb.printer.one(&view, &view.id, || format!("{}\n", view.id));
    }
    let view =
        progress::follow(&verb.client, &view.id, flow.progress, flow.timeout, progress::is_done).await?;
    if progress::has_stopped(&view) {
        return verb.printer.one(&view, name, || stopped(&view));
    }
    if view.phase != "Succeeded" && verb.printer.is_table() {
        return progress::verdict(&view);
    }
    verb.printer.one(&view, name, || text(Some(&view)))?;
    progress::verdict(&view)
}

/// Where a removal stands that was to stop, and what may follow.
pub fn stopped(view: &OperationView) -> String {
    let step = view.policy.as_ref().map(|p| p.stop_after.as_str()).unwrap_or_default();
    format!(
        "⏸ {step} is done and {} stays as it is (operation {1}).   go on: kctl operation resume {1}, or back: kctl operation abort {1}\n",
        view.plugins.join(" "),
        view.id
    )
}
