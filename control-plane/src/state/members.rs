//! Who belongs to the control plane: what people decided, and what became of it.
//!
//! A decision is a command; the leader makes it true in the consensus configuration, whose own entries come back here
//! through [`configured`]. Nothing is ever forgotten: an id that was used once is refused for ever, because a member that
//! comes back with an empty store under an old id would vote twice in terms it has forgotten.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::audit::{CONTROL_PLANE, Draft, list};
use super::command::{Event, LogStamp, Rejection};
use super::model::ClusterState;

/// Members that belong at once, those on their way in or out included: five, and two more while they are replaced.
pub const MAX_MEMBERS: usize = 7;

/// Where a member is reached, as URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAddress {
    pub raft: String,
    pub grpc: String,
    pub http: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub address: MemberAddress,
    pub standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Let in; becomes a voter once it has the log and the artifacts.
    Joining,
    Voter,
    /// To be taken out.
    Leaving,
    /// Out for ever.
    Removed,
}

impl Member {
    pub fn is_wanted(&self) -> bool {
        matches!(self.standing, Standing::Joining | Standing::Voter)
    }
}

pub(super) fn admit(
    state: &mut ClusterState,
    id: u64,
    address: MemberAddress,
) -> Result<Vec<Event>, Rejection> {
    let admitted = Event::MemberAdmitted { id };
    match state.members.get(&id) {
        Some(known) if known.address == address && known.is_wanted() => return Ok(vec![admitted]),
        Some(known) => {
            let message = match known.standing {
                Standing::Removed => format!("member id {id} was used before, by a member that was removed"),
                _ => format!("member id {id} is in use, at {}", known.address.grpc),
            };
            return Err(Rejection::new("MEMBER_ID_REUSED", message)
                .hint("give the new member an id that none ever had, and an empty data_dir"));
        }
        None => {}
    }
    let others = || state.members.iter().filter(|(_, m)| m.standing != Standing::Removed);
    let same = |m: &MemberAddress| m.raft == address.raft || m.grpc == address.grpc;
    if let Some((other, _)) = others().find(|(_, m)| same(&m.address)) {
        return Err(Rejection::new(
            "MEMBER_ADDRESS_IN_USE",
            format!("member {other} is reached at an address of member {id}"),
        )
        .hint(format!("give it addresses of its own, or first: kctl cluster remove {other}")));
    }
    if others().count() >= MAX_MEMBERS {
        return Err(Rejection::new(
            "TOO_MANY_MEMBERS",
            format!("a cluster has at most {MAX_MEMBERS} members at once"),
        )
        .hint("kctl cluster remove ID"));
    }
    state.members.insert(id, Member { address, standing: Standing::Joining });
    Ok(vec![admitted])
}

pub(super) fn dismiss(state: &mut ClusterState, id: u64) -> Result<Vec<Event>, Rejection> {
    let Some(known) = state.members.get(&id) else {
        return Err(Rejection::new("MEMBER_NOT_FOUND", format!("there is no member {id}"))
            .hint("kctl cluster members"));
    };
    if known.is_wanted() {
        let voters = |(other, m): (&u64, &Member)| *other != id && m.standing == Standing::Voter;
        if !state.members.iter().any(voters) {
            return Err(Rejection::new(
                "LAST_MEMBER",
                format!("without member {id} nobody would be left who may vote"),
            )
            .hint("let another member in first: kctl cluster join URL"));
        }
        if let Some(member) = state.members.get_mut(&id) {
            // One that never voted is nowhere yet, or only a learner: it is out at once.
            member.standing =
                if member.standing == Standing::Joining { Standing::Removed } else { Standing::Leaving };
        }
    }
    Ok(vec![Event::MemberDismissed { id }])
}

/// The consensus configuration changed; to be called once it is settled, not for the step between two.
pub fn configured(
    state: &mut ClusterState,
    at: LogStamp,
    nodes: &BTreeMap<u64, MemberAddress>,
    voters: &BTreeSet<u64>,
) {
    for (id, address) in nodes {
        let votes = voters.contains(id);
        let now = if votes { Standing::Voter } else { Standing::Joining };
        let member =
            state.members.entry(*id).or_insert_with(|| Member { address: address.clone(), standing: now });
        if votes && member.standing == Standing::Joining {
            member.standing = Standing::Voter;
        }
    }
    for (_, member) in state.members.iter_mut().filter(|(id, _)| !nodes.contains_key(id)) {
        // One on its way in is not there yet.
        if member.standing != Standing::Joining {
            member.standing = Standing::Removed;
        }
    }
    let learners = nodes.keys().filter(|id| !voters.contains(id));
    let detail = format!("voters {}; learners {}", list(voters), list(learners));
    let draft = Draft { verb: "member.configure", detail, ..Draft::default() };
    state.audit.append(at, CONTROL_PLANE, draft);
}
