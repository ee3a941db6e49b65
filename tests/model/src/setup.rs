//! What a run of the checker starts from, which faults it allows and how often, and which bug is planted.

use crate::cluster::Kind;
use crate::mask::Mask;

/// A bounded configuration of the world.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub name: &'static str,
    /// Nodes with an Admin API.
    pub admins: Mask,
    /// Nodes that are registered from the beginning.
    pub members: Mask,
    /// The plugin is in place on all members.
    pub installed: bool,
    /// Plugin entities that exist at the beginning, a bit each.
    pub entities: Mask,
    /// What people ask for, in this order; the next may be asked for before the former ended.
    pub asks: &'static [Kind],
    pub budget: Budget,
    /// States that must be reached, or the run has shown nothing.
    pub goals: &'static [Goal],
    pub mutant: Option<Mutant>,
}

impl Setup {
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn with(self, mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), ..self }
    }
}

/// How often what may still happen; it shrinks along a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// An agent is killed between two of its steps and starts again.
    pub crashes: u8,
    /// Somebody configures the plugin anew through a Kong that still runs it.
    pub recreations: u8,
    /// A proposal takes its time: others are committed before it, or it is lost.
    pub late: u8,
    /// The leader is deposed, and does not know it.
    pub depositions: u8,
    /// Proposals of the deposed leader, decided on what it last knew.
    pub stale: u8,
    /// A node joins.
    pub joins: u8,
    /// A node burns down, and somebody says so.
    pub decommissions: u8,
    /// A node is asked to leave.
    pub leaves: u8,
    pub aborts: u8,
    /// A node is out of reach for longer than a lease and its margin.
    pub silences: u8,
    /// A reload leads to nothing provable.
    pub unproven: u8,
}

/// A state that has to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Installed,
    RolledBack,
    Done,
    Aborted,
    Compensated,
    /// An entity was created again after the first barrier, and the removal came to its end all the same.
    RecreatedThenDone,
    /// A node joined while the plugin was being disabled, and the removal came to its end all the same.
    JoinedThenDone,
    /// A node left, with proof or attested, and the operation came to its end all the same.
    LeftThenInstalled,
    LeftThenDone,
    LeftThenCompensated,
}

impl Goal {
    pub fn name(self) -> &'static str {
        match self {
            Self::Installed => "Installed",
            Self::RolledBack => "RolledBack",
            Self::Done => "Done",
            Self::Aborted => "Aborted",
            Self::Compensated => "Compensated",
            Self::RecreatedThenDone => "RecreatedThenDone",
            Self::JoinedThenDone => "JoinedThenDone",
            Self::LeftThenInstalled => "LeftThenInstalled",
            Self::LeftThenDone => "LeftThenDone",
            Self::LeftThenCompensated => "LeftThenCompensated",
        }
    }
}

/// A bug to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    GuardOnlyAtPropose,
    SkipF2,
    DisableOrderReversed,
    AppliedCountsAsVerified,
    OldWorkersIgnored,
    FenceOffByOne,
    FenceForgotten,
    NoIncarnationCheck,
    DeleteByName,
    FrozenMembers,
    JoinerStraightToActive,
    AbortAfterB2,
    /// The fence counts a scan that began before the last node dropped the plugin, if only its result comes later.
    FenceByArrival,
    /// A node that joins after the point of no return is told what was at rest before the removal.
    JoinerEnabledAfterB2,
    /// Whoever decided on the way back need not have known all nodes that were let act.
    WayBackUnchecked,
    /// A node whose directive still lists the plugin counts as rid of it while no worker has it.
    ListedCountsAsGone,
    /// A node leaves running what its directive does not list any more.
    UnlistedLeftRunning,
    /// A lease is renewed with the node's stream, whichever task the node still works on.
    LeaseOfTheStream,
    /// An applier takes over without waiting for the former one's lease.
    LeaseIgnored,
    /// Who left is asked for in steps that are composed later.
    LeaverAskedAgain,
    /// A node that is to leave is forgotten once it has heard so.
    ForgottenUnproven,
    /// An applier is assigned whoever was the applier when that was decided.
    AssignUnchecked,
}
