use super::*;

fn member(standing: Standing) -> Member {
    Member { address: MemberAddress::default(), standing }
}

fn info(voter: bool, matched: u64, reachable: bool) -> MemberInfo {
    MemberInfo {
        address: MemberAddress::default(),
        voter,
        matched: Some(matched),
        reachable: Some(reachable),
    }
}

struct World {
    wanted: BTreeMap<u64, Member>,
    actual: BTreeMap<u64, MemberInfo>,
    holdings: BTreeMap<u64, Holdings>,
}

impl World {
    /// Members 1 to 3, 1 leads.
    fn new() -> Self {
        let all = 1..=3;
        Self {
            wanted: all.clone().map(|id| (id, member(Standing::Voter))).collect(),
            actual: all.map(|id| (id, info(true, 900 + id, true))).collect(),
            holdings: BTreeMap::new(),
        }
    }

    fn view(&self) -> View<'_> {
        View {
            me: 1,
            applied_index: 1_000,
            wanted: &self.wanted,
            actual: &self.actual,
            holdings: &self.holdings,
        }
    }
}

#[test]
fn a_joiner_votes_only_with_log_and_artifacts() {
    let mut world = World::new();
    assert_eq!(next(world.view()), None);
    world.wanted.insert(4, member(Standing::Joining));
    assert_eq!(next(world.view()), Some(Change::AddLearner(4, MemberAddress::default())));
    world.actual.insert(4, info(false, 10, true));
    assert_eq!(next(world.view()), None, "nothing is known of what it has");
    for (matched, applied_index, artifacts_missing, ready) in
        [(10, 10, 0, false), (999, 10, 0, false), (999, 999, 1, false), (999, 999, 0, true)]
    {
        world.actual.insert(4, info(false, matched, true));
        world.holdings.insert(4, Holdings { applied_index, artifacts_missing });
        assert_eq!(next(world.view()) == Some(Change::Promote(4)), ready, "{matched} {artifacts_missing}");
    }
}

#[test]
fn a_leader_hands_over_before_it_goes() {
    let mut world = World::new();
    world.wanted.insert(1, member(Standing::Leaving));
    assert_eq!(next(world.view()), Some(Change::HandOver(3)), "the furthest in the log");
    world.actual.insert(3, info(true, 903, false));
    assert_eq!(next(world.view()), Some(Change::HandOver(2)), "one in reach");
    world.wanted.insert(2, member(Standing::Leaving));
    assert_eq!(next(world.view()), Some(Change::TakeOut(2)));
    world.actual.remove(&2);
    assert_eq!(next(world.view()), None, "nobody can take over");
}

#[test]
fn what_would_leave_no_majority_is_refused() {
    let mut world = World::new();
    assert!(keeps_quorum(world.view(), 2).is_ok());
    world.actual.insert(3, info(true, 0, false));
    assert_eq!(keeps_quorum(world.view(), 2).unwrap_err().code, "MEMBER_QUORUM");
    assert!(keeps_quorum(world.view(), 3).is_ok(), "the dead one may go");
    world.wanted.insert(3, member(Standing::Leaving));
    assert!(keeps_quorum(world.view(), 2).is_ok(), "then one is left that reaches itself");
}
