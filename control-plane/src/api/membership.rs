//! Members in and out, and who leads.

use std::collections::BTreeMap;
use std::time::Duration;

use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;
use kctl_shared::proto::v1::{
    IdentifyRequest, IdentifyResponse, JoinRequest, MemberChange, RemoveMemberRequest, TransferLeaderResponse,
};
use kctl_shared::time::Timestamp;
use tonic::Status;

use super::{Api, request};
use crate::membership::{View, keeps_quorum, successor};
use crate::raft::{MemberInfo, PATIENCE};
use crate::state::members::{Member, MemberAddress};
use crate::state::{Command, LogStamp, apply};

/// A member that is up says who it is within this.
const IDENTIFY: Duration = Duration::from_secs(5);
/// A leader that is asked to hand over has a successor within this, or goes on.
const TRANSFER: Duration = Duration::from_secs(10);

impl Api {
    /// Runs `read` over what decisions on membership are made of.
    fn with_members<R>(&self, read: impl FnOnce(View<'_>) -> R) -> R {
        let consensus = &self.hub.consensus;
        let wanted: BTreeMap<u64, Member> = consensus.with_state(|s| s.members.clone());
        let actual: BTreeMap<u64, MemberInfo> = consensus.members();
        let holdings = self.hub.holdings.borrow().clone();
        read(View {
            me: consensus.id(),
            applied_index: consensus.applied_index(),
            wanted: &wanted,
            actual: &actual,
            holdings: &holdings,
        })
    }

    async fn identify(&self, url: &str) -> Result<IdentifyResponse, Fault> {
        let mut client = ClusterServiceClient::new(self.hub.dialer.channel(url, PATIENCE)?);
        let asked = tokio::time::timeout(IDENTIFY, client.identify(IdentifyRequest {})).await;
        let unreachable = |why: String| {
            Fault::new("MEMBER_UNREACHABLE", format!("nobody answers as a member at {url}: {why}"))
                .hint("start the new member first, with `join` in its configuration")
        };
        match asked {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(unreachable(status.message().to_owned())),
            Err(_) => Err(unreachable("no answer in time".into())),
        }
    }

    pub(super) async fn let_in(&self, r: JoinRequest) -> Result<MemberChange, Status> {
        let reason = request::reason(&r.reason).map_err(|f| self.fail(&f))?;
        let who = self.identify(&r.address).await.map_err(|f| self.fail(&f))?;
        let member = who.member.unwrap_or_default();
        let address = MemberAddress { raft: member.raft, grpc: member.address, http: member.http };
        for url in [&address.raft, &address.grpc, &address.http] {
            self.hub.dialer.check(url).map_err(|f| self.fail(&f))?;
        }
        let id = member.id;
        let known = self.hub.consensus.with_state(|s| s.members.get(&id).cloned());
        let here = known.is_some_and(|m| m.is_wanted() && m.address == address);
        if !who.waiting && !here {
            let message = format!("member {id} at {} belongs to a cluster already", r.address);
            return Err(self.fail(
                &Fault::new("MEMBER_NOT_WAITING", message)
                    .hint("start it with a new id, an empty data_dir and `join` in its configuration"),
            ));
        }
        self.decide(Command::AdmitMember { id, address, reason }, id, !here, r.dry_run).await
    }

    pub(super) async fn take_out(&self, r: RemoveMemberRequest) -> Result<MemberChange, Status> {
        let reason = request::reason(&r.reason).map_err(|f| self.fail(&f))?;
        let known = self.hub.consensus.with_state(|s| s.members.get(&r.id).cloned());
        let wanted = known.is_some_and(|m| m.is_wanted());
        if wanted {
            self.with_members(|view| keeps_quorum(view, r.id)).map_err(|f| self.fail(&f))?;
        }
        self.decide(Command::DismissMember { id: r.id, reason }, r.id, wanted, r.dry_run).await
    }

    async fn decide(
        &self,
        command: Command,
        id: u64,
        changes: bool,
        dry_run: bool,
    ) -> Result<MemberChange, Status> {
        if dry_run {
            let mut state = self.hub.consensus.with_state(Clone::clone);
            let at = LogStamp { index: state.generation + 1, offset: 0, proposed_at: Timestamp::now() };
            apply(&mut state, at, command).map_err(|f| self.fail(&f))?;
        } else {
            self.propose(command).await?;
        }
        Ok(MemberChange { id, changed: changes && !dry_run })
    }

    pub(super) async fn hand_over(&self, to: Option<u64>) -> Result<TransferLeaderResponse, Status> {
        let consensus = &self.hub.consensus;
        let to = self.with_members(|view| match to {
            None => successor(view).ok_or_else(|| {
                Fault::new("NO_SUCCESSOR", "no other voter is in reach").hint("kctl cluster members")
            }),
            Some(id) if id == view.me => Ok(id),
            Some(id) => match view.actual.get(&id) {
                None => Err(Fault::new("MEMBER_NOT_FOUND", format!("there is no member {id}"))
                    .hint("kctl cluster members")),
                Some(m) if !m.voter || m.reachable != Some(true) => {
                    let message = format!("member {id} cannot lead: it must be a voter and in reach");
                    Err(Fault::new("NO_SUCCESSOR", message).hint("kctl cluster members"))
                }
                Some(_) => Ok(id),
            },
        });
        let to = to.map_err(|f| self.fail(&f))?;
        let mut leadership = consensus.watch_leadership();
        if to != consensus.id() {
            consensus.hand_over(to).await.map_err(|f| self.fail(&f))?;
        }
        let taken = tokio::time::timeout(TRANSFER, leadership.wait_for(|l| l.leader == Some(to))).await;
        match taken {
            Ok(Ok(now)) => Ok(TransferLeaderResponse { leader: to, term: now.term }),
            _ => Err(self.fail(
                &Fault::new("TRANSFER_FAILED", format!("member {to} did not take over in time"))
                    .hint("kctl cluster status"),
            )),
        }
    }
}
