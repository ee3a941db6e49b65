//! `kctl doctor` with a control plane: every node as its agent sees it, and the control plane itself.

use std::collections::{BTreeMap, BTreeSet};

use kctl_node_agent::doctor::Finding;
use kctl_shared::codes;
use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;
use kctl_shared::proto::v1::{
    ClusterRequest, ClusterView, NodeView, OperationView, StatusRequest, StatusView,
};
use serde::Serialize;

use super::{Verb, show, status, verdict};
use crate::cli::DoctorArgs;
use crate::fail::{Fail, Outcome};

#[derive(Serialize)]
struct Report {
    /// `ok`, `warnings` or `errors`.
    status: &'static str,
    findings: Vec<Finding>,
    /// What was looked at and is in order.
    passed: Vec<String>,
}

pub async fn run(verb: &Verb, args: &DoctorArgs) -> Outcome {
    let (findings, passed) = match overview(verb).await {
        Ok(view) => {
            if let Some(node) = args.node.iter().find(|name| view.nodes.iter().all(|n| n.id != **name)) {
                return Err(Fault::new("NODE_NOT_FOUND", format!("there is no node {node}"))
                    .hint("kctl node list")
                    .into());
            }
            let only =
                |f: &Finding| args.node.is_empty() || f.node.as_ref().is_some_and(|n| args.node.contains(n));
            let mut findings = of(&view);
            findings.retain(only);
            let nodes = view.nodes.iter().filter(|n| args.node.is_empty() || args.node.contains(&n.id));
            (findings, nodes.filter(|n| is_sound(n)).map(sound).collect())
        }
        Err(fault) if matches!(fault.code.as_str(), "NO_QUORUM" | "NOT_LEADER") => {
            (leaderless(verb, &fault).await, Vec::new())
        }
        Err(fault) => return Err(fault.into()),
    };
    let report = Report { status: status(&findings), findings, passed };
    verb.printer.one(&report, report.status, || {
        let passed = report.passed.iter().map(|sentence| format!("✔ {sentence}\n")).collect::<String>();
        format!("{}{passed}", show::findings(&report.findings))
    })?;
    if args.fix && !report.findings.is_empty() {
        let message = "what is wrong here is mended on the nodes themselves, as the fix lines say";
        return Err(Fail::Fault(Fault::new("FIX_ON_NODE", message).hint("run the fix lines on their nodes")));
    }
    verdict(&report.findings)
}

async fn overview(verb: &Verb) -> Result<StatusView, Fault> {
    verb.client
        .call(|channel| async move {
            Ok(ClusterServiceClient::new(channel).status(StatusRequest {}).await?.into_inner())
        })
        .await
}

/// Membership is told by every member, with or without a quorum.
async fn leaderless(verb: &Verb, fault: &Fault) -> Vec<Finding> {
    let first = Finding::error(&fault.code, &fault.message)
        .detail("nothing is decided; agents and Kong stay exactly as they are")
        .fix("start members until a majority runs: systemctl start kctl-control-plane");
    let asked = verb
        .client
        .call(|channel| async move {
            Ok(ClusterServiceClient::new(channel).cluster(ClusterRequest {}).await?.into_inner())
        })
        .await;
    std::iter::once(first).chain(asked.iter().flat_map(members)).collect()
}

/// Everything the overview shows that is not as it should be: the control plane first, then operations, then nodes.
pub fn of(view: &StatusView) -> Vec<Finding> {
    let mut found: Vec<Finding> = view.cluster.iter().flat_map(members).collect();
    found.extend(view.operations.iter().flat_map(waiting));
    found.extend(skew(view));
    found.extend(view.nodes.iter().flat_map(node));
    found.sort_by_key(|f| f.severity);
    found
}

fn members(cluster: &ClusterView) -> Vec<Finding> {
    let mut found = Vec::new();
    if cluster.leader.is_none() {
        found.push(
            Finding::error("NO_LEADER", "no member of the control plane leads")
                .fix("wait a few seconds; then start the members that are down"),
        );
    }
    for member in cluster.members.iter().filter(|m| m.state == "unreachable") {
        found.push(
            Finding::warning(
                "MEMBER_UNREACHABLE",
                format!("member {} ({}) does not answer", member.id, member.address),
            )
            .about(member.id.to_string())
            .fix("start it: systemctl start kctl-control-plane (on its machine)"),
        );
    }
    found
}

/// Reasons that are no trouble: work is going on.
fn is_work(reason: &str) -> bool {
    matches!(reason, "IN_PROGRESS" | "BAKING")
}

fn waiting(operation: &OperationView) -> Vec<Finding> {
    let stuck = operation.waiting_on.iter().filter(|w| !is_work(&w.reason));
    let one = |w: &kctl_shared::proto::v1::WaitingOn| {
        let plugins = operation.plugins.join(", ");
        let message = format!(
            "{} of {plugins} waits: {}",
            operation.kind,
            if w.message.is_empty() { &w.reason } else { &w.message }
        );
        let mut finding = Finding::warning("OPERATION_WAITING", message)
            .about(&operation.id)
            .detail(format!("its reason is {}", w.reason))
            .fix(format!("kctl explain {}; watch it: kctl operation status {} -w", w.reason, operation.id));
        finding.node = Some(w.node.clone()).filter(|node| !node.is_empty());
        finding
    };
    stuck.map(one).collect()
}

fn skew(view: &StatusView) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for node in view.nodes.iter().filter(|n| !n.kong_version.is_empty()) {
        groups.entry(&node.group).or_default().insert(&node.kong_version);
    }
    for (group, versions) in groups.into_iter().filter(|(_, versions)| versions.len() > 1) {
        let list = versions.into_iter().collect::<Vec<_>>().join(", ");
        found.push(
            Finding::warning(
                "VERSION_SKEW",
                format!("nodes of group {group} run different versions of Kong: {list}"),
            )
            .about(group)
            .fix("bring them to one version; a plugin may load on some of them only"),
        );
    }
    let own = env!("CARGO_PKG_VERSION");
    let agents: BTreeSet<&str> =
        view.nodes.iter().map(|n| n.agent_version.as_str()).filter(|v| !v.is_empty() && *v != own).collect();
    if !agents.is_empty() {
        let list = agents.into_iter().collect::<Vec<_>>().join(", ");
        found.push(
            Finding::warning(
                "VERSION_SKEW",
                format!("agents of other versions than this kctl ({own}): {list}"),
            )
            .fix("upgrade them: kctl node list shows which"),
        );
    }
    found
}

fn node(view: &NodeView) -> Vec<Finding> {
    let mut found = Vec::new();
    match view.state.as_str() {
        "Lost" => found.push(
            Finding::error(
                "NODE_LOST",
                "its agent has not been heard for a while; what follows is from before",
            )
            .fix("on the node: systemctl status kctl-node-agent"),
        ),
        "Suspect" => found.push(
            Finding::warning("NODE_SUSPECT", "its agent missed its heartbeats").fix("wait a few seconds"),
        ),
        "Unknown" => found.push(
            Finding::warning("NODE_NOT_REPORTED", "it has not reported since the present leader took over")
                .fix("wait a few seconds; then on the node: systemctl status kctl-node-agent"),
        ),
        _ => {}
    }
    for condition in &view.conditions {
        found.push(condition_finding(&condition.code, &condition.message));
    }
    let said: BTreeSet<String> = found.iter().map(|f| f.code.clone()).collect();
    for plugin in view.plugins.iter().filter(|p| !p.code.is_empty() && !said.contains(&p.code)) {
        let mut finding = condition_finding(&plugin.code, &format!("{}: {}", plugin.name, plugin.message))
            .about(&plugin.name);
        finding.details.push(format!("it is {} there", plugin.state));
        found.push(finding);
    }
    if view.old_workers > 0 {
        let message =
            format!("{} worker(s) of an earlier configuration still serve requests", view.old_workers);
        found.push(Finding::warning("OLD_WORKERS", message).fix(todo("OLD_WORKERS")));
    }
    found.iter_mut().for_each(|finding| finding.node = Some(view.id.clone()));
    found
}

fn condition_finding(code: &str, message: &str) -> Finding {
    let mild = matches!(
        code,
        "CONF_NOT_IN_EFFECT" | "PUT_BACK_DUE" | "OLD_WORKERS" | "DRAINING" | "CONF_NOT_PREPARED"
    );
    let finding = if mild { Finding::warning(code, message) } else { Finding::error(code, message) };
    let on_node = "on the node: kctl doctor --local --conf KONG.CONF --fix";
    finding.detail(todo(code)).fix(on_node)
}

fn todo(code: &str) -> String {
    codes::find(code).map(|entry| entry.todo.to_owned()).unwrap_or_default()
}

fn is_sound(view: &NodeView) -> bool {
    node(view).is_empty()
}

fn sound(view: &NodeView) -> String {
    format!("{} is sound ({} plugins, Kong {})", view.id, view.plugins.len(), view.kong_version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kctl_shared::proto::v1::{Condition, MemberView, WaitingOn};

    #[test]
    fn a_cluster_tells_all_that_is_wrong_with_it() {
        let member = |id, state: &str| MemberView { id, state: state.into(), ..MemberView::default() };
        let node = |id: &str, state: &str, version: &str, codes: &[&str]| NodeView {
            id: id.into(),
            state: state.into(),
            kong_version: version.into(),
            conditions: codes.iter().map(|c| Condition { code: (*c).into(), message: "m".into() }).collect(),
            ..NodeView::default()
        };
        let waits = WaitingOn { node: "b".into(), reason: "KONG_DOWN".into(), ..WaitingOn::default() };
        let works = WaitingOn { reason: "IN_PROGRESS".into(), ..WaitingOn::default() };
        let view = StatusView {
            cluster: Some(ClusterView {
                leader: None,
                members: vec![member(1, "follower"), member(2, "unreachable")],
                term: 1,
                epoch: 1,
            }),
            nodes: vec![node("a", "Live", "3.9.1", &["IN_USE_NOT_ENABLED"]), node("b", "Lost", "3.8.0", &[])],
            operations: vec![OperationView {
                id: "o".into(),
                waiting_on: vec![waits, works],
                ..OperationView::default()
            }],
            ..StatusView::default()
        };
        let found = of(&view);
        let seen: Vec<_> =
            found.iter().map(|f| (f.code.as_str(), f.node.as_deref().unwrap_or("-"))).collect();
        let expected = [
            ("NO_LEADER", "-"),
            ("IN_USE_NOT_ENABLED", "a"),
            ("NODE_LOST", "b"),
            ("MEMBER_UNREACHABLE", "-"),
            ("OPERATION_WAITING", "b"),
            ("VERSION_SKEW", "-"),
        ];
        assert_eq!(seen, expected);
        assert!(
            of(&StatusView { nodes: vec![node("a", "Live", "3.9.1", &[])], ..StatusView::default() })
                .is_empty()
        );
    }
}
