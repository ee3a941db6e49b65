//! `kctl status`.

use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;
use kctl_shared::proto::v1::{StatusRequest, StatusView};

use super::{Verb, operation, read};
use crate::fail::{Fail, Outcome};
use crate::output::render;

pub async fn run(verb: &Verb, watch: bool) -> Outcome {
    if !watch {
        let view = verb
            .client
            .call(|channel| async move {
                Ok(ClusterServiceClient::new(channel).status(StatusRequest {}).await?.into_inner())
            })
            .await?;
        return print(verb, &view);
    }
    loop {
        let mut stream = verb
            .client
            .call(|channel| async move {
                Ok(ClusterServiceClient::new(channel).watch_status(StatusRequest {}).await?.into_inner())
            })
            .await?;
        loop {
            // tonic keeps a partly read message when the other arm wins.
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Err(Fail::Interrupted),
                view = stream.message() => match view {
                    Ok(Some(view)) => print(verb, &view)?,
                    Ok(None) | Err(_) => break,
                },
            }
        }
    }
}

fn print(verb: &Verb, view: &StatusView) -> Outcome {
    verb.printer.one(view, "status", || describe(view))
}

pub fn describe(view: &StatusView) -> String {
    let members = view.cluster.as_ref().map(|c| render(&read::member_table(c))).unwrap_or_default();
    let mut out = format!("{members}\n{}", render(&read::node_table(&view.nodes)));
    if !view.plugins.is_empty() {
        out.push_str(&format!("\n{}", render(&read::plugin_table(&view.plugins, false))));
    }
    for running in &view.operations {
        out.push_str(&format!("\n{}", operation::describe(running)));
    }
    out
}
