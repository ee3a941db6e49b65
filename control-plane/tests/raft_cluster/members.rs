//! Members come, go and lead.

use kctl_control_plane::raft::seed;
use kctl_control_plane::state::members::Standing;
use kctl_control_plane::state::restored;

use super::*;

impl Cluster {
    /// Starts a member that waits, and gives its address.
    async fn start_waiting(&mut self, id: u64) -> MemberAddress {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let raft = format!("http://{}", listener.local_addr().unwrap());
        let address =
            MemberAddress { raft, grpc: format!("http://127.0.0.1:{id}"), ..MemberAddress::default() };
        self.members.insert(id, address.clone());
        self.run_as(id, listener, BTreeMap::new()).await;
        assert!(self.running[&id].consensus.is_waiting());
        address
    }

    async fn decide(&self, command: Command) -> Result<(), String> {
        until("a decision", || async {
            let leader = self.leader().await;
            let outcome = self.running[&leader].consensus.propose(vec![command.clone()]).await.ok()?.pop()?;
            Some(outcome.map(drop).map_err(|rejection| rejection.code))
        })
        .await
    }

    async fn admit(&self, id: u64, address: MemberAddress) -> Result<(), String> {
        self.decide(Command::AdmitMember { id, address, reason: String::new() }).await
    }

    async fn dismiss(&self, id: u64) -> Result<(), String> {
        self.decide(Command::DismissMember { id, reason: String::new() }).await
    }

    /// Lets `id` in and makes it a voter, as the leader's keeper would.
    async fn join(&self, id: u64, address: MemberAddress) {
        self.admit(id, address.clone()).await.unwrap();
        until("the joiner to be a learner", || async {
            let leader = self.leader().await;
            self.running[&leader].consensus.add_learner(id, address.clone()).await.ok()
        })
        .await;
        until("the joiner to have the log", || async {
            let leader = &self.running[&self.leader().await].consensus;
            let matched = leader.members().get(&id)?.matched?;
            (matched + 10 >= leader.applied_index()).then_some(())
        })
        .await;
        until("the joiner to vote", || async {
            self.running[&self.leader().await].consensus.promote(id).await.ok()
        })
        .await;
    }

    async fn take_out(&self, id: u64) {
        self.dismiss(id).await.unwrap();
        until("the member to be out", || async {
            let leader = self.leader().await;
            let consensus = &self.running[&leader].consensus;
            if leader == id {
                let to = (*consensus.members().keys().find(|other| **other != id)?).to_owned();
                consensus.hand_over(to).await.ok()?;
                return None;
            }
            consensus.take_out(id).await.ok()
        })
        .await;
    }
}

fn standing(consensus: &Consensus, id: u64) -> Option<Standing> {
    consensus.with_state(|s| s.members.get(&id).map(|m| m.standing))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_member_catches_up_by_snapshot_and_takes_the_place_of_another() {
    let mut cluster = Cluster::start(3, 50).await;
    // More than the log keeps behind a snapshot: the first entries are gone.
    for n in 0..1_500_u64 {
        cluster.write(n % 7).await;
    }
    let address = cluster.start_waiting(4).await;
    cluster.join(4, address).await;
    let fresh = cluster.running[&4].consensus.clone();
    until("the state to be there", || async { (count(&fresh) == 7).then_some(()) }).await;
    let old = cluster.leader().await;
    cluster.take_out(old).await;
    assert_ne!(cluster.leader().await, old, "leadership moved first");
    cluster.stop(old).await;
    cluster.write(8).await;
    let leader = cluster.running[&cluster.leader().await].consensus.clone();
    assert_eq!(leader.members().keys().filter(|id| **id != old).count(), 3);
    until("all to agree", || async {
        let all = cluster.running.values().map(|m| m.consensus.with_state(Clone::clone));
        let mut all = all.collect::<Vec<_>>().into_iter();
        let first = all.next()?;
        all.all(|state| state == first).then_some(())
    })
    .await;
    assert_eq!(standing(&fresh, 4), Some(Standing::Voter));
    assert_eq!(standing(&fresh, old), Some(Standing::Removed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_never_used_again_and_the_last_voter_stays() {
    let mut cluster = Cluster::start(1, 1_000).await;
    let address = cluster.start_waiting(2).await;
    assert_eq!(cluster.admit(1, address.clone()).await.unwrap_err(), "MEMBER_ID_REUSED");
    assert_eq!(cluster.dismiss(1).await.unwrap_err(), "LAST_MEMBER");
    assert_eq!(cluster.dismiss(9).await.unwrap_err(), "MEMBER_NOT_FOUND");
    cluster.join(2, address.clone()).await;
    cluster.admit(2, address.clone()).await.unwrap();
    assert_eq!(cluster.admit(3, address.clone()).await.unwrap_err(), "MEMBER_ADDRESS_IN_USE");
    cluster.take_out(2).await;
    assert_eq!(cluster.admit(2, address.clone()).await.unwrap_err(), "MEMBER_ID_REUSED");
    cluster.dismiss(2).await.unwrap();
    // One that was called off before it came blocks nobody's address.
    let [raft, grpc] = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(str::to_owned);
    let elsewhere = MemberAddress { raft, grpc, ..MemberAddress::default() };
    cluster.admit(7, elsewhere.clone()).await.unwrap();
    cluster.dismiss(7).await.unwrap();
    cluster.admit(8, elsewhere).await.unwrap();
    // It is remembered by a store that is opened again, too.
    cluster.stop(1).await;
    cluster.restart(1).await;
    assert_eq!(cluster.admit(2, address).await.unwrap_err(), "MEMBER_ID_REUSED");
    let removed = cluster.running[&2].consensus.clone();
    assert_eq!(removed.mark_removed().code, "MEMBER_REMOVED");
    cluster.stop(2).await;
    drop(removed);
    let refused = until("the store to be released", || async {
        let config = ConsensusConfig::new(2, cluster.path(2), BTreeMap::new());
        Consensus::open(config, &Sled, dialer(Arc::new(Tcp), false))
            .await
            .err()
            .filter(|f| f.code != "STORE_IN_USE")
    })
    .await;
    assert_eq!(refused.code, "MEMBER_REMOVED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_sent() {
    let cluster = Cluster::start(3, 1_000).await;
    cluster.write(0).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let to = leader % 3 + 1;
        until("the other to lead", || async {
            let consensus = &cluster.running[&leader].consensus;
            if consensus.watch_leadership().borrow().is_leader {
                consensus.hand_over(to).await.unwrap();
            }
            cluster.running[&to].consensus.watch_leadership().borrow().is_leader.then_some(())
        })
        .await;
        cluster.write(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seeded_cluster_goes_on_behind_its_index_and_hears_no_other_epoch() {
    let mut cluster = Cluster::start(3, 1_000).await;
    for n in 0..5 {
        cluster.write(n).await;
    }
    let captured = cluster.running[&cluster.leader().await].consensus.capture();
    let mut state = captured.state.clone();
    let at = kctl_control_plane::state::LogStamp {
        index: captured.index + 1_000,
        offset: 0,
        proposed_at: state.clock,
    };
    // The member that is gone is made anew, alone, at its former address, while the others still send to it.
    cluster.stop(1).await;
    let only = BTreeMap::from([(1, cluster.members[&1].clone())]);
    restored(&mut state, at, 9, &only, captured.index);
    let _removed =
        until("the store to be released", || async { std::fs::remove_dir_all(cluster.path(1)).ok() }).await;
    seed(&cluster.path(1), 1, &only, at.index, &state).unwrap();
    cluster.restart(1).await;
    let alone = cluster.running[&1].consensus.clone();
    until("it to lead itself", || async { alone.watch_leadership().borrow().is_leader.then_some(()) }).await;
    let outcome = alone.propose(vec![register(77)]).await.unwrap();
    assert!(outcome[0].is_ok());
    assert!(alone.applied_index() > at.index && alone.epoch() == 9);
    // The others have their majority, and neither takes anything of the other.
    for id in [2, 3] {
        cluster.running[&id]
            .consensus
            .watch_leadership()
            .wait_for(|l| l.leader.is_some_and(|l| l != 1))
            .await
            .unwrap();
    }
    let others = [2, 3].map(|id| cluster.running[&id].consensus.clone());
    let other = others.iter().find(|c| c.watch_leadership().borrow().is_leader);
    if let Some(other) = other {
        other.propose(vec![register(88)]).await.unwrap();
    }
    assert!(alone.with_state(|s| s.nodes.contains_key(&node(77)) && !s.nodes.contains_key(&node(88))));
    assert!(others.iter().all(|c| c.with_state(|s| !s.nodes.contains_key(&node(77)) && s.epoch == 1)));
}
