//! What came before a reload and what after it, whatever the counters do.

use proptest::prelude::*;

use super::*;

fn answers(all: u64, failed: u64) -> Option<Answers> {
    Some(Answers { all, failed })
}

fn grants(index: u64) -> BTreeSet<Grant> {
    [Grant { index, offset: 0 }].into()
}

/// All and failed before, and since.
fn told(history: &History) -> Option<((u64, u64), (u64, u64))> {
    let served = history.served()?;
    Some(((served.before.all, served.before.failed), (served.since.all, served.since.failed)))
}

/// Counted for a while, reloaded at 10 s, back at 12 s.
fn reloaded() -> History {
    let mut history = History::default();
    history.sample(0, answers(1000, 100));
    history.sample(5_000, answers(1100, 101));
    history.sample(9_000, answers(1150, 101));
    history.begin(10_000, grants(7));
    history.sample(10_500, answers(1160, 110));
    history.done(12_000);
    history
}

#[test]
fn what_was_answered_meanwhile_belongs_to_neither_side() {
    let mut history = reloaded();
    // Asked before it was over, answered after.
    history.sample(11_900, answers(1170, 120));
    history.sample(13_000, answers(1200, 130));
    assert_eq!(told(&history), None, "nothing was seen of what came after it");
    history.sample(14_000, answers(1210, 132));
    history.sample(15_000, answers(1230, 135));
    assert_eq!(told(&history), Some(((150, 1), (30, 5))));
    let served = history.served().unwrap();
    assert_eq!((served.before_ms, served.grants), (9_000, grants(7)));
}

#[test]
fn what_is_not_known_is_not_nothing() {
    let mut history = History::default();
    history.begin(10_000, grants(7));
    history.done(11_000);
    history.sample(12_000, answers(10, 10));
    history.sample(13_000, answers(30, 30));
    assert_eq!(told(&history), None, "nobody knows how it was before");
    // Kong begins to count between two looks: nobody knows since when.
    let mut history = reloaded();
    history.sample(13_000, None);
    history.sample(14_000, answers(5_000, 4_000));
    assert_eq!(told(&history), None);
    history.sample(15_000, answers(5_010, 4_000));
    assert_eq!(told(&history), Some(((150, 1), (10, 0))));
    // Nor when, after a long silence.
    history.sample(15_000 + MAX_PIECE_MS + 1, answers(9_000, 4_000));
    assert_eq!(told(&history), Some(((150, 1), (10, 0))));
    // It was asked, and nobody came.
    let mut quiet = History::default();
    quiet.sample(0, answers(3, 0));
    quiet.sample(5_000, answers(3, 0));
    quiet.begin(6_000, grants(7));
    quiet.done(7_000);
    quiet.sample(8_000, answers(3, 0));
    quiet.sample(9_000, answers(8, 5));
    assert_eq!(told(&quiet), Some(((0, 0), (5, 5))));
}

#[test]
fn counters_that_go_backwards_are_those_of_another_kong() {
    let mut history = reloaded();
    history.sample(13_000, answers(1200, 130));
    history.sample(14_000, answers(8, 3));
    assert_eq!(told(&history), Some(((150, 1), (8, 3))));
    history.sample(15_000, answers(10, 2));
    assert_eq!(told(&history), Some(((150, 1), (18, 5))), "less failed: another Kong again");
    // Restarted to bring the change in.
    let mut history = reloaded();
    history.sample(13_000, answers(2, 0));
    history.sample(14_000, answers(5, 1));
    assert_eq!(told(&history), Some(((150, 1), (3, 1))));
}

#[test]
fn only_the_last_minute_is_before() {
    let mut history = History::default();
    for second in 0..=200 {
        history.sample(second * 1000, answers(second * 10, if second < 100 { second } else { 100 }));
    }
    history.begin(200_500, grants(7));
    history.done(201_000);
    history.sample(202_000, answers(3_000, 100));
    history.sample(203_000, answers(3_000, 100));
    assert_eq!(told(&history), Some(((590, 0), (0, 0))));
    // What came after one reload was before the next; at rest nobody asks.
    history.sample(204_000, answers(3_100, 150));
    history.begin(205_000, grants(8));
    history.rest();
    history.done(206_000);
    history.sample(207_000, answers(3_100, 150));
    history.sample(208_000, answers(3_101, 150));
    assert_eq!(told(&history), Some(((650, 50), (1, 0))));
    history.rest();
    assert_eq!(told(&history), None);
}

#[test]
fn a_busy_node_says_little_and_all_that_matters() {
    let served = |all, failed| {
        let before = Answers { all: 300, failed: 0 };
        Some(Served { grants: grants(7), before, before_ms: 60_000, since: Answers { all, failed } })
    };
    let mut messages = 0;
    let mut known = None;
    for second in 0..36_000 {
        let now = served(second * 1_000, second * 10);
        if matters(known.as_ref(), now.as_ref()) {
            known = now;
            messages += 1;
        }
    }
    assert!((40..130).contains(&messages), "{messages}");
    assert!(!matters(served(100, 0).as_ref(), served(104, 4).as_ref()));
    assert!(matters(served(1_000_000, 0).as_ref(), served(1_000_005, 5).as_ref()));
    assert!(
        matters(served(5, 0).as_ref(), None) && matters(None, served(0, 0).as_ref()) && !matters(None, None)
    );
    let other = served(5, 0).map(|s| Served { grants: grants(8), ..s });
    assert!(matters(served(5, 0).as_ref(), other.as_ref()));
}

proptest! {
    /// Samples at any times, with Kongs that are restarted and answers that do not come: never more than happened.
    #[test]
    fn nothing_is_counted_twice(steps in prop::collection::vec((1..20_000_u64, 0..50_u64, 0..50_u64, 0..12_u8), 1..80)) {
        let (mut history, mut at) = (History::default(), 0);
        let (mut kong, mut ever, mut after) = (Answers::default(), Answers::default(), Answers::default());
        for (index, (pause, well, failed, event)) in steps.into_iter().enumerate() {
            at += pause;
            let more = Answers { all: well + failed, failed };
            match event {
                0 => kong = more,
                _ => kong += more,
            }
            ever += more;
            after += more;
            match event {
                1 => history.sample(at, None),
                2 => {
                    history.begin(at, grants(index as u64));
                    at += pause;
                    history.done(at);
                    after = Answers::default();
                }
                3 => history.rest(),
                _ => history.sample(at, Some(kong)),
            }
            if let Some(served) = history.served() {
                prop_assert!(served.since.all <= after.all && served.since.failed <= after.failed);
                prop_assert!(served.before.all <= ever.all && served.before_ms <= BEFORE_MS);
                prop_assert!(served.since.failed <= served.since.all && served.before.failed <= served.before.all);
            }
        }
    }
}
