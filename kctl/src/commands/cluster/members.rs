//! Members in and out, and who leads.

use std::time::Duration;

use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;
use kctl_shared::proto::v1::{
    ClusterView, JoinRequest, MemberChange, MemberView, RemoveMemberRequest, StatusRequest,
    TransferLeaderRequest,
};
use tokio::time::Instant;

use crate::cli::MemberArgs;
use crate::commands::{Verb, consent, read};
use crate::fail::{Fail, Outcome};

const LOOK: Duration = Duration::from_millis(250);

/// As the leader sees it, who alone knows what the others have.
async fn cluster(verb: &Verb) -> Outcome<ClusterView> {
    let status = verb
        .client
        .call(|channel| async move {
            Ok(ClusterServiceClient::new(channel).status(StatusRequest {}).await?.into_inner())
        })
        .await?;
    Ok(status.cluster.unwrap_or_default())
}

pub async fn list(verb: &Verb) -> Outcome {
    let view = cluster(verb).await?;
    verb.printer.many(&view.members, |m| format!("member/{}", m.id), |_| read::member_table(&view))
}

pub async fn join(verb: &Verb, address: String, args: MemberArgs) -> Outcome {
    let request = JoinRequest { address, reason: args.reason.clone(), dry_run: args.dry_run };
    let change = verb
        .client
        .call(|channel| {
            let request = request.clone();
            async move { Ok(ClusterServiceClient::new(channel).join(request).await?.into_inner()) }
        })
        .await?;
    let votes = |m: Option<&MemberView>| m.is_some_and(|m| m.role == "voter");
    let waits = |m: Option<&MemberView>| match m {
        Some(MemberView { artifacts_missing: Some(n @ 1..), .. }) => format!("it lacks {n} artifacts"),
        Some(m) if m.role == "learner" => "it gets the log".into(),
        _ => "it is being let in".into(),
    };
    settle(verb, &change, &args, votes, waits, "is a voter").await
}

pub async fn remove(verb: &Verb, id: u64, args: MemberArgs, yes: bool) -> Outcome {
    if !yes && !args.dry_run {
        consent::can_ask("removing a member")?;
        eprintln!("Member {id} will be taken out of the control plane for ever.");
        consent::typed("the member's id", &id.to_string())?;
    }
    let request = RemoveMemberRequest { id, reason: args.reason.clone(), dry_run: args.dry_run };
    let change = verb
        .client
        .call(|channel| {
            let request = request.clone();
            async move { Ok(ClusterServiceClient::new(channel).remove_member(request).await?.into_inner()) }
        })
        .await?;
    let waits = |_: Option<&MemberView>| "it is being taken out".into();
    settle(verb, &change, &args, |m| m.is_none(), waits, "is out; its process ends by itself").await
}

/// Waits until what was decided is so.
async fn settle(
    verb: &Verb,
    change: &MemberChange,
    args: &MemberArgs,
    is_so: impl Fn(Option<&MemberView>) -> bool,
    waits: impl Fn(Option<&MemberView>) -> String,
    done: &str,
) -> Outcome {
    let id = change.id;
    let name = format!("member/{id}");
    if args.dry_run {
        return verb.printer.one(change, &name, || format!("✔ member {id}: nothing stands against it\n"));
    }
    if args.detach {
        return verb
            .printer
            .one(change, &name, || format!("✔ member {id}: it is decided; see kctl cluster members\n"));
    }
    let deadline = Instant::now() + args.timeout;
    let mut said = String::new();
    loop {
        let view = cluster(verb).await?;
        let member = view.members.iter().find(|m| m.id == id);
        if is_so(member) {
            break;
        }
        let now = waits(member);
        if now != said {
            eprintln!("  member {id}: {now}");
            said = now;
        }
        if Instant::now() > deadline {
            eprintln!("  it goes on; look again: kctl cluster members");
            return Err(Fail::Unfinished);
        }
        tokio::time::sleep(LOOK).await;
    }
    verb.printer.one(change, &name, || format!("✔ member {id} {done}\n"))
}

pub async fn transfer(verb: &Verb, id: Option<u64>) -> Outcome {
    let now = verb
        .client
        .call(|channel| async move {
            let request = TransferLeaderRequest { id };
            Ok(ClusterServiceClient::new(channel).transfer_leader(request).await?.into_inner())
        })
        .await?;
    verb.printer.one(&now, &format!("member/{}", now.leader), || {
        format!("✔ member {} leads (term {})\n", now.leader, now.term)
    })
}
