//! Reads of plugins, nodes and members.

use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;
use kctl_shared::proto::v1::node_service_client::NodeServiceClient;
use kctl_shared::proto::v1::plugin_service_client::PluginServiceClient;
use kctl_shared::proto::v1::{
    ClusterRequest, ClusterView, GetNodeRequest, GetPluginRequest, ListNodesRequest, ListPluginsRequest,
    NodeView, PluginView,
};

use super::Verb;
use crate::fail::Outcome;
use crate::output::{Table, render, symbol};

pub async fn plugins(verb: &Verb) -> Outcome {
    let answer = verb
        .client
        .call(|channel| async move {
            Ok(PluginServiceClient::new(channel).list(ListPluginsRequest::default()).await?.into_inner())
        })
        .await?;
    verb.printer.many(
        &answer.plugins,
        |p| format!("plugin/{}", p.name),
        |wide| plugin_table(&answer.plugins, wide),
    )
}

/// # Errors
/// `PLUGIN_NOT_INSTALLED`, and those of the call.
pub async fn get_plugin(verb: &Verb, name: &str, group: &str) -> Outcome<PluginView> {
    let view = verb.client.call(|channel| {
        let request = GetPluginRequest { name: name.to_owned(), group: group.to_owned() };
        async move { Ok(PluginServiceClient::new(channel).get(request).await?.into_inner()) }
    });
    Ok(view.await?)
}

pub async fn plugin(verb: &Verb, name: String, group: String) -> Outcome {
    let view = get_plugin(verb, &name, &group).await?;
    verb.printer.one(&view, &format!("plugin/{}", view.name), || {
        let files = view.files.iter().map(|f| format!("  {} {} bytes\n", f.path, f.size)).collect::<String>();
        let who = if view.set_nginx { "set by kctl" } else { "for the nodes' owner to set" };
        let nginx = view.nginx.iter().map(|s| format!("  needs {s}   {who}\n")).collect::<String>();
        format!("{}{}\n{files}{nginx}", render(&plugin_table(std::slice::from_ref(&view), true)), view.digest)
    })
}

pub fn plugin_table(plugins: &[PluginView], wide: bool) -> Table {
    let mut head: Vec<String> = ["NAME", "VERSION", "GROUP", "STAGE", "NODES"].map(str::to_owned).to_vec();
    if wide {
        head.extend(["OPERATION".into(), "DIGEST".into()]);
    }
    let row = |p: &PluginView| {
        let mut row = vec![
            p.name.clone(),
            p.version.clone(),
            p.group.clone(),
            format!("{} {}", symbol(&p.stage), p.stage),
            format!("{}/{}", p.nodes_enabled, p.nodes_total),
        ];
        if wide {
            row.extend([p.operation.clone(), p.digest.clone()]);
        }
        row
    };
    std::iter::once(head).chain(plugins.iter().map(row)).collect()
}

pub async fn nodes(verb: &Verb) -> Outcome {
    let answer = verb
        .client
        .call(|channel| async move {
            Ok(NodeServiceClient::new(channel).list(ListNodesRequest::default()).await?.into_inner())
        })
        .await?;
    verb.printer.many(&answer.nodes, |n| format!("node/{}", n.id), |_| node_table(&answer.nodes))
}

pub async fn node(verb: &Verb, id: String) -> Outcome {
    let view = verb
        .client
        .call(|channel| {
            let request = GetNodeRequest { id: id.clone() };
            async move { Ok(NodeServiceClient::new(channel).get(request).await?.into_inner()) }
        })
        .await?;
    verb.printer.one(&view, &format!("node/{}", view.id), || {
        let mut out = render(&node_table(std::slice::from_ref(&view)));
        for p in &view.plugins {
            let mark = symbol(&p.state);
            out.push_str(&format!("  {mark} {} {} {} {}\n", p.name, p.version, p.stage, p.state));
        }
        for f in &view.found {
            let place = if f.dir.is_empty() { "files not found" } else { &f.dir };
            let state = if f.loaded { "loaded" } else { "not loaded" };
            let whose = if f.method.is_empty() { "not kctl's" } else { "unknown to this control plane" };
            out.push_str(&format!("  ? {} {} {whose}, {state}, {place}\n", f.name, f.version));
        }
        for c in &view.conditions {
            out.push_str(&format!("  ! {} {}\n", c.code, c.message));
        }
        out
    })
}

pub fn node_table(nodes: &[NodeView]) -> Table {
    let head = ["NODE", "GROUP", "STATE", "KONG", "READY", "PLUGINS"].map(str::to_owned).to_vec();
    let row = |n: &NodeView| {
        let plugins: Vec<_> =
            n.plugins.iter().map(|p| format!("{} {} {}", symbol(&p.state), p.name, p.version)).collect();
        vec![
            n.id.clone(),
            n.group.clone(),
            format!("{} {}", symbol(&n.state), n.state),
            format!("{} {}", n.kong_version, n.kong_state),
            if n.ready { "yes" } else { "no" }.into(),
            plugins.join(", "),
        ]
    };
    std::iter::once(head).chain(nodes.iter().map(row)).collect()
}

pub async fn cluster(verb: &Verb) -> Outcome {
    let view = verb
        .client
        .call(|channel| async move {
            Ok(ClusterServiceClient::new(channel).cluster(ClusterRequest {}).await?.into_inner())
        })
        .await?;
    verb.printer.one(&view, "cluster", || render(&member_table(&view)))
}

pub fn member_table(view: &ClusterView) -> Table {
    let head = ["MEMBER", "ADDRESS", "ROLE", "STATE", "APPLIED", "ARTIFACTS"].map(str::to_owned).to_vec();
    let row = |m: &kctl_shared::proto::v1::MemberView| {
        let state = format!("{} {}", symbol(&m.state), m.state);
        let artifacts = match m.artifacts_missing {
            None => "-".into(),
            Some(0) => "all".into(),
            Some(n) => format!("{n} missing"),
        };
        vec![
            m.id.to_string(),
            m.address.clone(),
            m.role.clone(),
            state,
            m.applied_index.to_string(),
            artifacts,
        ]
    };
    std::iter::once(head).chain(view.members.iter().map(row)).collect()
}
