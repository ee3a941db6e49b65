//! The agent's steps: each changes one thing, on the disk, in Kong, or in its memory.

use crate::laws::Law;
use crate::machine::{Doing, Machine, Scan, TaskReport};
use crate::mask::{Mask, has, lowest};
use crate::plan::SCANS;
use crate::setup::{Mutant, Setup};
use crate::spec::Spec;

/// What an agent does beside changing its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    Nothing,
    Unlisted { by_putting_back: bool },
    Deleted,
}

/// One step of the loop that makes the node equal to its spec. `None`: nothing to do, or something is waited for.
pub fn act(setup: &Setup, machine: &mut Machine, admin: bool, in_use: bool) -> Option<Fact> {
    let (spec, kong) = (machine.disk.spec, machine.kong);
    let refused = |listed: bool| admin && in_use && !listed;
    let mut fact = Fact::Nothing;
    machine.doing = match machine.doing {
        Doing::Idle => return begin(setup, machine, refused(spec.enabled)),
        Doing::Wrote(wanted) => {
            machine.kong.armed = kong.conf;
            Doing::Prepared(wanted)
        }
        Doing::Prepared(_) if refused(kong.armed) => Doing::Back,
        Doing::Prepared(wanted) => {
            machine.kong.coming = Some(kong.armed);
            Doing::Reloading(wanted)
        }
        Doing::Reloading(_) | Doing::ReloadingBack if kong.coming.is_some() => return None,
        Doing::Reloading(wanted) if kong.loaded == wanted => {
            machine.disk.proven = wanted;
            Doing::Idle
        }
        Doing::Reloading(_) => Doing::Back,
        Doing::Back => {
            machine.kong.conf = machine.disk.proven;
            if kong.conf && !machine.kong.conf {
                fact = Fact::Unlisted { by_putting_back: true };
            }
            Doing::WroteBack
        }
        Doing::WroteBack => {
            machine.kong.armed = kong.conf;
            Doing::PreparedBack
        }
        Doing::PreparedBack if refused(kong.armed) => return None,
        Doing::PreparedBack => {
            machine.kong.coming = Some(kong.armed);
            Doing::ReloadingBack
        }
        Doing::ReloadingBack => {
            machine.disk.failed = spec.grant;
            Doing::Idle
        }
    };
    Some(fact)
}

fn begin(setup: &Setup, machine: &mut Machine, refused: bool) -> Option<Fact> {
    let (spec, kong, proven) = (machine.disk.spec, machine.kong, machine.disk.proven);
    let given_up = machine.disk.failed == spec.grant;
    if spec.grant == 0 {
        return None;
    }
    if spec.staged && !machine.files && !given_up {
        machine.files = true;
        return Some(Fact::Nothing);
    }
    let runs = kong.loaded && !setup.is(Mutant::UnlistedLeftRunning);
    let as_wanted = proven == spec.enabled && (spec.enabled || !(kong.conf || kong.armed || runs));
    if !as_wanted && !given_up {
        if kong.proves(spec.enabled) {
            machine.disk.proven = spec.enabled;
            return Some(Fact::Nothing);
        }
        if refused {
            return None;
        }
        machine.kong.conf = spec.enabled;
        machine.doing = Doing::Wrote(spec.enabled);
        let unlisted = kong.conf && !spec.enabled;
        return Some(if unlisted { Fact::Unlisted { by_putting_back: false } } else { Fact::Nothing });
    }
    let drained = !kong.old || setup.is(Mutant::OldWorkersIgnored);
    let needed = kong.conf || kong.armed || kong.loaded || proven || !drained;
    if spec.staged || spec.enabled || !machine.files || needed {
        return None;
    }
    machine.files = false;
    Some(Fact::Deleted)
}

/// Takes a spec unless it is older than the one followed. The fence that fell, or the conflict, is told.
pub fn follow(setup: &Setup, machine: &mut Machine, spec: Spec) -> Option<Option<Law>> {
    let present = machine.disk.spec;
    let slack = u8::from(setup.is(Mutant::FenceOffByOne));
    if spec.generation + slack < present.generation || spec == present {
        return None;
    }
    let conflict = spec.generation == present.generation && !spec.asks_as(&present);
    let fell = spec.generation < machine.highest;
    machine.disk.spec = spec;
    machine.highest = machine.highest.max(spec.generation);
    if !setup.is(Mutant::FenceOffByOne) && !setup.is(Mutant::FenceForgotten) {
        // What would be refused need not be on its way.
        for slot in machine.down.iter_mut().filter(|s| s.is_some_and(|s| s.generation < spec.generation)) {
            *slot = None;
        }
    }
    Some((conflict || fell).then_some(Law::I8))
}

/// A look at all pages of the store begins: what it sees is what is there now.
pub fn begin_scan(setup: &Setup, machine: &mut Machine, entities: Mask) -> bool {
    let Some(task) = machine.disk.spec.task.filter(|_| machine.lease && machine.scan.is_none()) else {
        return false;
    };
    let known = machine.task.is_some_and(|t| t.grant == task.grant && t.found == entities && t.same >= SCANS);
    if known && !setup.is(Mutant::FenceByArrival) {
        // It would say what the last one said.
        return false;
    }
    let due = match task.back {
        true => task.entities & !entities,
        false if setup.is(Mutant::DeleteByName) => entities,
        false => entities & task.entities,
    };
    let (grant, back, wanted) = (task.grant, task.back, task.entities);
    machine.scan = Some(Scan { grant, found: entities, todo: due, back, wanted });
    true
}

/// One request of a scan's: an entity goes, or comes back; after the last of them the scan is complete.
pub fn work(setup: &Setup, machine: &mut Machine, entities: &mut Mask) -> Option<Mask> {
    let scan = machine.scan.as_mut().filter(|_| machine.lease)?;
    if scan.todo != 0 {
        let one = lowest(scan.todo);
        scan.todo &= !one;
        let deleted = !scan.back && *entities & one != 0;
        if scan.back && !machine.kong.loaded {
            return None;
        }
        *entities = if scan.back { *entities | one } else { *entities & !one };
        return Some(if deleted { one } else { 0 });
    }
    let Scan { grant, found, back, wanted, .. } = *scan;
    machine.scan = None;
    let before = machine.task.filter(|t| t.grant == grant);
    let as_wanted = if back { found & wanted == wanted } else { found == 0 };
    let same = if as_wanted { before.map_or(1, |t| (t.same + 1).min(SCANS)) } else { 0 };
    let turn = setup.is(Mutant::FenceByArrival) && !machine.task.is_some_and(|t| t.turn);
    machine.task = Some(TaskReport { grant, found, same, turn });
    Some(0)
}

/// Whether an entity can be created through this node: an Admin API takes only what its Kong has loaded.
pub fn accepts(machine: &Machine, admins: Mask, node: usize) -> bool {
    has(admins, node) && machine.kong.loaded
}
