//! A node: its Kong, its disk, its agent, and what is on its way between the agent and the leader.

use crate::mask::Mask;
use crate::spec::Spec;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Machine {
    pub kong: Kong,
    /// The release is on the disk, whole.
    pub files: bool,
    pub disk: Record,
    pub boot: u8,
    pub doing: Doing,
    pub scan: Option<Scan>,
    pub task: Option<TaskReport>,
    /// May work on entities.
    pub lease: bool,
    /// Specs on their way, newest first: each may come late, again and again, or never.
    pub down: [Option<Spec>; HISTORY],
    /// The newest report on its way, and one of the start before.
    pub up: Option<Report>,
    pub up_before: Option<Report>,
    /// The highest generation the agent ever followed.
    pub highest: u8,
}

/// Specs of a node that the network may still deliver.
pub const HISTORY: usize = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kong {
    /// The directive in kong.conf lists the plugin.
    pub conf: bool,
    /// What `kong prepare` left lists it.
    pub armed: bool,
    /// The running workers have it.
    pub loaded: bool,
    /// A reload has passed its checks; its workers come with or without the plugin.
    pub coming: Option<bool>,
    /// Workers that have it drain.
    pub old: bool,
}

impl Kong {
    /// Somebody may still read the plugin's files, now or at the next reload.
    pub fn needs_files(&self) -> bool {
        self.conf || self.armed || self.loaded || self.old || self.coming == Some(true)
    }

    pub fn runs(&self) -> bool {
        self.loaded || self.old || self.coming == Some(true)
    }

    /// All of it is as wanted.
    pub fn proves(&self, listed: bool) -> bool {
        self.conf == listed && self.armed == listed && self.loaded == listed && self.coming.is_none()
    }
}

/// What the agent does not forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    pub spec: Spec,
    /// The plugin was proven to be loaded.
    pub proven: bool,
    /// The grant under which it gave up; 0: none.
    pub failed: u8,
}

/// Where the agent is in changing what Kong runs: between any two it may be killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Doing {
    #[default]
    Idle,
    /// kong.conf is written.
    Wrote(bool),
    Prepared(bool),
    /// HUP was sent and Kong took it.
    Reloading(bool),
    /// What was done is not proven: back to what was.
    Back,
    WroteBack,
    PreparedBack,
    ReloadingBack,
}

/// A scan that has begun: what it saw then, and what is left to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    pub grant: u8,
    pub found: Mask,
    pub todo: Mask,
    pub back: bool,
    pub wanted: Mask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskReport {
    pub grant: u8,
    pub found: Mask,
    /// Complete scans in sequence that saw what is wanted: nothing, or every recorded id.
    pub same: u8,
    /// Differs from one scan to the next; only counted for [`crate::setup::Mutant::FenceByArrival`].
    pub turn: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    pub boot: u8,
    pub grant: u8,
    /// Listed and proven.
    pub enabled: bool,
    pub loaded: bool,
    /// The directive names it, on disk or armed.
    pub listed: bool,
    pub files: bool,
    pub old: bool,
    /// Gave up under this grant.
    pub failed: bool,
    pub task: Option<TaskReport>,
}

impl Machine {
    /// A node of a group that has the plugin at rest, or has it not.
    pub fn at_rest(installed: bool, spec: Spec) -> Self {
        let kong = Kong { conf: installed, armed: installed, loaded: installed, ..Kong::default() };
        let disk = Record { spec, proven: installed, failed: 0 };
        let down = [Some(spec), None];
        let boot = u8::from(spec.generation > 0);
        Self { kong, files: installed, disk, boot, down, highest: spec.generation, ..Self::default() }
    }

    /// What the agent tells: only what it observed or proved.
    pub fn report(&self) -> Report {
        let spec = &self.disk.spec;
        Report {
            boot: self.boot,
            grant: spec.grant,
            enabled: self.disk.proven && self.kong.loaded,
            loaded: self.kong.loaded,
            listed: self.kong.conf || self.kong.armed,
            files: self.files,
            old: self.kong.old,
            failed: spec.grant != 0 && self.disk.failed == spec.grant,
            task: self.task,
        }
    }

    /// The newest spec for the agent goes on its way; the oldest one there is lost.
    pub fn send(&mut self, spec: Spec) {
        if self.down[0].as_ref().is_none_or(|newest| !newest.asks_as(&spec)) {
            self.down.rotate_right(1);
            self.down[0] = Some(spec);
        }
    }

    /// No request on entities is begun any more.
    pub fn lose_lease(&mut self) {
        (self.lease, self.scan, self.task) = (false, None, None);
    }

    /// The agent is killed and starts again: what is not on the disk is forgotten.
    pub fn crash(&mut self, fence_forgotten: bool) {
        self.boot += 1;
        (self.doing, self.scan, self.task, self.lease) = (Doing::Idle, None, None, false);
        self.up_before = self.up.take().or(self.up_before);
        if fence_forgotten {
            self.disk.spec = Spec::default();
        }
    }
}
