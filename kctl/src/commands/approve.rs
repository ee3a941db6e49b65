//! `kctl node approve`: nodes that followed a cluster of another epoch go over to this one.

use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::ApproveRequest;
use kctl_shared::proto::v1::node_service_client::NodeServiceClient;

use super::Verb;
use crate::cli::ApproveArgs;
use crate::fail::{Fail, Outcome};

pub async fn run(verb: &Verb, args: ApproveArgs) -> Outcome {
    if args.nodes.is_empty() != args.all_nodes {
        let fault = Fault::new("TARGET_REQUIRED", "name the nodes to approve, or all of them")
            .hint("kctl node approve NODE, or --all-nodes");
        return Err(Fail::Usage(fault));
    }
    let request = ApproveRequest {
        nodes: args.nodes,
        all_nodes: args.all_nodes,
        reason: args.reason,
        dry_run: args.dry_run,
    };
    let done = verb
        .client
        .call(|channel| {
            let request = request.clone();
            async move { Ok(NodeServiceClient::new(channel).approve(request).await?.into_inner()) }
        })
        .await?;
    let says = if args.dry_run { "would go over to this cluster" } else { "goes over to this cluster" };
    verb.printer.one(&done, "nodes", || match done.nodes.as_slice() {
        [] => "✔ no node asks to go over\n".into(),
        nodes => nodes.iter().map(|n| format!("✔ {n} {says}; nothing on it changes by it\n")).collect(),
    })
}
