//! The bounded configurations that are checked.

use crate::cluster::Kind;
use crate::mask::Mask;
use crate::setup::{Budget, Goal, Setup};

/// Node 0 has an Admin API, node 1 has none; of node 2 each configuration says what it is.
const FIRST: Mask = 0b001;
const PAIR: Mask = 0b011;
const OUTER: Mask = 0b101;
const ALL_THREE: Mask = 0b111;

const AGAIN: &[Goal] = &[Goal::Done, Goal::RecreatedThenDone];
const BACK: &[Goal] = &[Goal::Done, Goal::Aborted, Goal::Compensated];
const LEFT: &[Goal] = &[Goal::Done, Goal::LeftThenDone];
const JOINED: &[Goal] = &[Goal::Done, Goal::JoinedThenDone];

const NOTHING: Budget = Budget {
    crashes: 0,
    recreations: 0,
    late: 0,
    depositions: 0,
    stale: 0,
    joins: 0,
    decommissions: 0,
    leaves: 0,
    aborts: 0,
    silences: 0,
    unproven: 0,
};

/// A removal from two nodes with one entity.
const REMOVE: Setup = Setup {
    name: "remove",
    admins: FIRST,
    members: PAIR,
    installed: true,
    entities: 0b01,
    asks: &[Kind::Remove],
    budget: NOTHING,
    goals: &[Goal::Done],
    mutant: None,
};

const INSTALL: Setup = Setup {
    name: "install",
    installed: false,
    entities: 0,
    asks: &[Kind::Install],
    goals: &[Goal::Installed],
    ..REMOVE
};

/// Small enough for every run, and large enough to show each end and each planted bug.
pub const ALL: &[Setup] = &[
    REMOVE,
    Setup { name: "remove, crash", budget: Budget { crashes: 1, ..NOTHING }, ..REMOVE },
    Setup { name: "remove, two admins", admins: OUTER, members: ALL_THREE, ..REMOVE },
    Setup { name: "re-create", budget: Budget { recreations: 1, ..NOTHING }, goals: AGAIN, ..REMOVE },
    Setup {
        name: "re-create, two admins",
        admins: OUTER,
        members: OUTER,
        budget: Budget { recreations: 1, ..NOTHING },
        goals: AGAIN,
        ..REMOVE
    },
    Setup {
        name: "re-create, crash",
        budget: Budget { recreations: 1, crashes: 1, ..NOTHING },
        goals: AGAIN,
        ..REMOVE
    },
    Setup { name: "abort", budget: Budget { aborts: 1, ..NOTHING }, goals: BACK, ..REMOVE },
    Setup {
        name: "abort, re-create",
        members: FIRST,
        budget: Budget { aborts: 1, recreations: 1, ..NOTHING },
        goals: &[Goal::Done, Goal::Aborted, Goal::Compensated, Goal::RecreatedThenDone],
        ..REMOVE
    },
    Setup {
        name: "abort, late",
        members: FIRST,
        budget: Budget { aborts: 1, late: 1, ..NOTHING },
        goals: BACK,
        ..REMOVE
    },
    Setup {
        name: "depose",
        members: FIRST,
        budget: Budget { depositions: 1, stale: 1, late: 1, ..NOTHING },
        ..REMOVE
    },
    Setup {
        name: "depose, abort",
        members: FIRST,
        budget: Budget { depositions: 1, stale: 1, aborts: 1, ..NOTHING },
        goals: BACK,
        ..REMOVE
    },
    Setup {
        name: "depose, abort, two admins",
        admins: OUTER,
        members: OUTER,
        budget: Budget { depositions: 1, aborts: 1, ..NOTHING },
        goals: BACK,
        ..REMOVE
    },
    Setup { name: "join", members: FIRST, budget: Budget { joins: 1, ..NOTHING }, goals: JOINED, ..REMOVE },
    Setup {
        name: "decommission",
        budget: Budget { decommissions: 1, crashes: 1, ..NOTHING },
        goals: LEFT,
        ..REMOVE
    },
    Setup { name: "leave", budget: Budget { leaves: 1, ..NOTHING }, goals: LEFT, ..REMOVE },
    Setup {
        name: "leave, two admins",
        admins: OUTER,
        members: OUTER,
        budget: Budget { leaves: 1, ..NOTHING },
        goals: LEFT,
        ..REMOVE
    },
    Setup {
        name: "install, leave",
        budget: Budget { leaves: 1, unproven: 1, ..NOTHING },
        goals: &[Goal::Installed, Goal::RolledBack, Goal::LeftThenInstalled],
        ..INSTALL
    },
    INSTALL,
    Setup {
        name: "install, faults",
        budget: Budget { unproven: 1, crashes: 1, aborts: 1, ..NOTHING },
        goals: &[Goal::Installed, Goal::RolledBack, Goal::Aborted],
        ..INSTALL
    },
    Setup {
        name: "install, join",
        members: FIRST,
        budget: Budget { joins: 1, aborts: 1, late: 1, ..NOTHING },
        goals: &[Goal::Installed, Goal::Aborted],
        ..INSTALL
    },
    Setup {
        name: "install, then remove",
        members: FIRST,
        asks: &[Kind::Install, Kind::Remove],
        budget: Budget { depositions: 1, stale: 1, late: 1, ..NOTHING },
        goals: &[Goal::Installed, Goal::Done],
        ..INSTALL
    },
];

/// More of them, complete as well, for longer runs.
pub const LARGE: &[Setup] = &[
    Setup {
        name: "leave, abort",
        budget: Budget { leaves: 1, aborts: 1, ..NOTHING },
        goals: &[Goal::LeftThenDone, Goal::Aborted, Goal::LeftThenCompensated],
        ..REMOVE
    },
    Setup {
        name: "leave, re-create",
        budget: Budget { leaves: 1, recreations: 1, ..NOTHING },
        goals: LEFT,
        ..REMOVE
    },
    Setup {
        name: "leave, crash",
        budget: Budget { leaves: 1, crashes: 1, ..NOTHING },
        goals: LEFT,
        ..REMOVE
    },
    Setup {
        name: "join, crash",
        members: FIRST,
        budget: Budget { joins: 1, crashes: 1, ..NOTHING },
        goals: JOINED,
        ..REMOVE
    },
    Setup {
        name: "abort, silence",
        admins: OUTER,
        members: OUTER,
        budget: Budget { aborts: 1, silences: 1, ..NOTHING },
        goals: BACK,
        ..REMOVE
    },
    Setup {
        name: "join, re-create",
        admins: PAIR,
        members: FIRST,
        budget: Budget { joins: 1, recreations: 1, ..NOTHING },
        goals: &[Goal::Done, Goal::JoinedThenDone, Goal::RecreatedThenDone],
        ..REMOVE
    },
    Setup {
        name: "depose, two nodes",
        budget: Budget { depositions: 1, stale: 1, late: 1, ..NOTHING },
        ..REMOVE
    },
];

/// Too large to be looked at completely: any number of their states can be looked at, and nothing has to be reached.
pub const ENDLESS: &[Setup] = &[
    Setup {
        name: "leave, abort, late",
        budget: Budget { leaves: 1, aborts: 1, late: 1, ..NOTHING },
        goals: &[],
        ..REMOVE
    },
    Setup {
        name: "abort, silence, late",
        admins: OUTER,
        members: OUTER,
        budget: Budget { aborts: 1, silences: 1, late: 1, ..NOTHING },
        goals: &[],
        ..REMOVE
    },
    Setup {
        name: "everything",
        admins: OUTER,
        entities: 0b11,
        budget: Budget {
            crashes: 1,
            recreations: 1,
            late: 1,
            depositions: 1,
            stale: 1,
            joins: 1,
            decommissions: 1,
            leaves: 1,
            aborts: 1,
            silences: 1,
            unproven: 1,
        },
        goals: &[],
        ..REMOVE
    },
];
