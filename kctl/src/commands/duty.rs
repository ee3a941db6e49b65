//! What people say of nodes: `kctl node hold | unhold | drain | reconcile | decommission`.

use std::time::{Duration, Instant};

use kctl_shared::proto::v1::node_service_client::NodeServiceClient;
use kctl_shared::proto::v1::{
    DecommissionRequest, GetNodeRequest, HoldNodesRequest, NodeView, NodesResponse, ReconcileRequest,
};

use super::{Verb, consent};
use crate::cli::{DecommissionArgs, NodesArgs};
use crate::fail::{Fail, Outcome};

/// How often a leaving node is looked at.
const LOOK: Duration = Duration::from_millis(500);

fn told(verb: &Verb, done: &NodesResponse, dry_run: bool, says: &str) -> Outcome {
    let would = if dry_run { "would be: " } else { "" };
    verb.printer.one(done, "nodes", || done.nodes.iter().map(|n| format!("✔ {n} {would}{says}\n")).collect())
}

pub async fn hold(verb: &Verb, args: NodesArgs, what: &str, says: &str) -> Outcome {
    let request = HoldNodesRequest {
        nodes: args.nodes,
        what: what.into(),
        reason: args.why.reason,
        dry_run: args.why.dry_run,
    };
    let done = verb.client.call(|channel| {
        let request = request.clone();
        async move { Ok(NodeServiceClient::new(channel).hold(request).await?.into_inner()) }
    });
    told(verb, &done.await?, request.dry_run, says)
}

pub async fn reconcile(verb: &Verb, args: NodesArgs) -> Outcome {
    let request = ReconcileRequest { nodes: args.nodes, reason: args.why.reason, dry_run: args.why.dry_run };
    let done = verb.client.call(|channel| {
        let request = request.clone();
        async move { Ok(NodeServiceClient::new(channel).reconcile(request).await?.into_inner()) }
    });
    told(
        verb,
        &done.await?,
        request.dry_run,
        "tries again what it should be; kctl node get shows what comes of it",
    )
}

pub async fn decommission(verb: &Verb, args: DecommissionArgs) -> Outcome {
    let request = DecommissionRequest {
        node: args.node.clone(),
        attested: args.attest,
        reason: args.why.reason.clone(),
        dry_run: args.why.dry_run,
    };
    if !args.yes && !args.why.dry_run {
        consent::can_ask("decommissioning a node")?;
        let what =
            if args.attest { "is forgotten at once" } else { "loses every plugin that kctl put there" };
        eprintln!("{} {what}, and its agent is not let in again unless it is approved.", args.node);
        consent::typed("the node's name", &args.node)?;
    }
    let done = verb.client.call(|channel| {
        let request = request.clone();
        async move { Ok(NodeServiceClient::new(channel).decommission(request).await?.into_inner()) }
    });
    let done = done.await?;
    if args.why.dry_run || args.detach || args.attest {
        let says = match (args.attest, args.why.dry_run) {
            (true, _) => "decommissioned; its agent is not let in again",
            (false, true) => "decommissioned once nothing of kctl's runs there",
            (false, false) => "is on its way out; kctl node get shows what it waits for",
        };
        return told(verb, &done, args.why.dry_run, says);
    }
    gone(verb, &args).await?;
    told(verb, &done, false, "is decommissioned: nothing of kctl's runs there; stop its agent")
}

/// Waits until the node is no more, and says on the way what it waits for.
async fn gone(verb: &Verb, args: &DecommissionArgs) -> Outcome {
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let seen = verb.client.call(|channel| {
            let request = GetNodeRequest { id: args.node.clone() };
            async move { Ok(NodeServiceClient::new(channel).get(request).await?.into_inner()) }
        });
        let view: NodeView = match seen.await {
            Ok(view) => view,
            Err(fault) if fault.code == "NODE_NOT_FOUND" => return Ok(()),
            Err(fault) => return Err(fault.into()),
        };
        // Its agent asks again, and is refused.
        if view.leaving.is_none() && view.conditions.iter().any(|c| c.code == "NODE_DECOMMISSIONED") {
            return Ok(());
        }
        let waits = view.conditions.iter().find(|c| c.code == "LEAVING").map(|c| c.message.clone());
        let waits = waits.filter(|w| *w != said);
        if let Some(waits) = waits {
            eprintln!("… {}: {waits}", args.node);
            said = waits;
        }
        if args.timeout.is_some_and(|t| begun.elapsed() > t) {
            eprintln!("{} is not gone yet, and goes on leaving; kctl node get {}", args.node, args.node);
            return Err(Fail::Unfinished);
        }
        tokio::time::sleep(LOOK).await;
    }
}
