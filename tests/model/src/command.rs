//! What goes into the log.

use crate::cluster::{Kind, Phase, Step};
use crate::mask::Mask;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    Register {
        node: usize,
        boot: u8,
    },
    /// A person attests that the node is no more.
    Decommission {
        node: usize,
    },
    /// It is to go, once it has nothing left.
    Leave {
        node: usize,
    },
    /// It has proven that.
    Forget {
        node: usize,
    },
    Start {
        kind: Kind,
        steps: Vec<Step>,
    },
    Dispatch {
        operation: usize,
        step: usize,
        nodes: Mask,
    },
    Settle {
        operation: usize,
        step: usize,
        verified: Mask,
        failed: Mask,
    },
    Advance {
        operation: usize,
        from: usize,
    },
    /// On with other steps: a removal that must detach again, or an install on its way back.
    Reroute {
        operation: usize,
        from: usize,
        back: bool,
        steps: Vec<Step>,
    },
    /// `former` is the grant of the applier that is replaced; 0: there was none.
    Assign {
        operation: usize,
        node: usize,
        former: u8,
    },
    Record {
        operation: usize,
        step: usize,
        entities: Mask,
    },
    Finish {
        operation: usize,
        phase: Phase,
    },
    Abort {
        operation: usize,
        from: usize,
        steps: Vec<Step>,
    },
}
