//! `kctl group …`: maintenance windows and holds.

use kctl_shared::proto::v1::group_service_client::GroupServiceClient;
use kctl_shared::proto::v1::{GroupView, ListGroupsRequest, SetGroupRequest};

use super::Verb;
use crate::cli::{GroupArgs, GroupCommand};
use crate::fail::Outcome;
use crate::output::{Table, render, time};

pub async fn run(verb: &Verb, command: GroupCommand) -> Outcome {
    let hold = |args: GroupArgs, hold: &str| SetGroupRequest {
        group: args.group,
        hold: hold.into(),
        reason: args.why.reason,
        dry_run: args.why.dry_run,
        ..SetGroupRequest::default()
    };
    match command {
        GroupCommand::List => list(verb).await,
        GroupCommand::Hold(args) => set(verb, hold(args, "hold")).await,
        GroupCommand::Unhold(args) => set(verb, hold(args, "unhold")).await,
        GroupCommand::Set(args) => {
            let request = SetGroupRequest {
                group: args.group,
                windows: args.windows,
                no_windows: args.no_windows,
                expected_nodes: args.expect_nodes,
                shares_database: (args.shared_database || args.no_shared_database)
                    .then_some(args.shared_database),
                reason: args.why.reason,
                dry_run: args.why.dry_run,
                ..SetGroupRequest::default()
            };
            set(verb, request).await
        }
    }
}

async fn list(verb: &Verb) -> Outcome {
    let answer = verb.client.call(|channel| async move {
        Ok(GroupServiceClient::new(channel).list(ListGroupsRequest::default()).await?.into_inner())
    });
    let answer = answer.await?;
    verb.printer.many(&answer.groups, |g| format!("group/{}", g.name), |_| table(&answer.groups))
}

async fn set(verb: &Verb, request: SetGroupRequest) -> Outcome {
    let view = verb.client.call(|channel| {
        let request = request.clone();
        async move { Ok(GroupServiceClient::new(channel).set(request).await?.into_inner()) }
    });
    let view = view.await?;
    verb.printer.one(&view, &format!("group/{}", view.name), || {
        let mut out = render(&table(std::slice::from_ref(&view)));
        if request.dry_run {
            out.push_str("nothing was changed (--dry-run)\n");
        }
        out
    })
}

fn table(groups: &[GroupView]) -> Table {
    let head = ["GROUP", "NODES", "PLUGINS", "CHANGES", "WINDOWS"].map(str::to_owned).to_vec();
    let row = |g: &GroupView| {
        let changes = match (&g.hold, g.open, &g.opens_at) {
            (Some(hold), ..) if hold.reason.is_empty() => "⏸ held".into(),
            (Some(hold), ..) => format!("⏸ held: {}", hold.reason),
            (None, true, _) => "✔ now".into(),
            (None, false, opens) => format!("◷ from {}", time(opens.as_ref())),
        };
        let windows = if g.windows.is_empty() { "always".into() } else { g.windows.join("; ") };
        let nodes = match g.expected_nodes {
            0 => g.nodes.to_string(),
            expected if expected == g.nodes => format!("{expected} as expected"),
            expected => format!("✖ {} of {expected}", g.nodes),
        };
        vec![g.name.clone(), nodes, g.plugins.to_string(), changes, windows]
    };
    std::iter::once(head).chain(groups.iter().map(row)).collect()
}
