//! What people do to a running operation, and how it goes on by itself. Not a test of its own.

use kctl_control_plane::rollout::runbook;
use kctl_control_plane::state::Command;
use kctl_control_plane::state::operation::{
    Intervention, OnFailure, OperationKind, Phase, Policy, RequestKey, StepKind,
};
use kctl_shared::name::NodeId;
use rand::RngExt as _;

use crate::world::World;

impl World {
    /// As the API would: expands on the present state, then proposes.
    pub fn intervene(&mut self, what: Intervention) -> Result<(), String> {
        let id = format!("request-{}", self.now.0 * 1000 + self.rng.random_range(0..1000));
        let request = RequestKey { id, body: format!("{what:?}") };
        let operation = self.current.clone();
        let command = Command::Intervene { operation, request, reason: "because".into(), what };
        let outcome = self.try_propose(command.clone());
        if outcome.is_ok() {
            // A retry of the request is recognised and changes nothing but the clock.
            let before = self.state.clone();
            self.try_propose(command).unwrap();
            assert_eq!(self.state, before, "seed {}", self.seed);
        }
        outcome
    }

    pub fn pause(&mut self) -> Result<(), String> {
        self.intervene(Intervention::Pause)
    }

    pub fn resume(&mut self) -> Result<(), String> {
        self.intervene(Intervention::Resume)
    }

    pub fn promote(&mut self) -> Result<(), String> {
        let step = self.operation().cursor;
        self.intervene(Intervention::Promote { step })
    }

    pub fn retry(&mut self, failed_only: bool) -> Result<(), String> {
        let (from, steps) = (self.operation().cursor, runbook::retry(self.operation(), failed_only));
        self.intervene(Intervention::Retry { from, steps })
    }

    pub fn excuse(&mut self, n: usize) -> Result<(), String> {
        self.intervene(Intervention::Excuse { node: NodeId::parse(&format!("n{n}")).unwrap() })
    }

    pub fn abort(&mut self) -> Result<(), String> {
        let (from, steps) = (self.operation().cursor, runbook::abort(&self.state, self.operation()));
        self.intervene(Intervention::Abort { from, steps })
    }

    pub fn any_policy(&mut self) -> Policy {
        let on_failure = [OnFailure::Rollback, OnFailure::Pause, OnFailure::Continue];
        Policy {
            bake_ms: [0, 0, 2_000, 10_000][self.rng.random_range(0..4)],
            progress_deadline_ms: [0, 0, 30_000][self.rng.random_range(0..3)],
            pause_after: [vec![], vec![], vec![1], vec![1, 2]][self.rng.random_range(0..4)]
                .iter()
                .copied()
                .collect(),
            on_failure: on_failure[self.rng.random_range(0..3)],
            max_failures: self.rng.random_range(0..2),
            stop_after: [None, None, Some(StepKind::Detach), Some(StepKind::Disable)]
                [self.rng.random_range(0..4)],
            ..Policy::default()
        }
    }

    /// Chaos, and people who do this and that in between. How often each verb was taken is added up.
    pub fn chaos_and_people(&mut self, rounds: usize, nodes: usize, taken: &mut [usize; 6]) {
        for _ in 0..rounds {
            let n = self.rng.random_range(0..nodes);
            let failed_only = self.rng.random_bool(0.5);
            let verb = self.rng.random_range(0..90);
            let outcome = match verb {
                0 => self.pause(),
                1 => self.resume(),
                2 => self.promote(),
                3 => self.retry(failed_only),
                4 if self.rng.random_bool(0.2) => self.excuse(n),
                5 if self.rng.random_bool(0.1) => self.abort(),
                6 if self.operation().kind != OperationKind::Remove && self.rng.random_bool(0.1) => {
                    self.lose(n);
                    continue;
                }
                _ => {
                    self.chaos(1);
                    continue;
                }
            };
            if outcome.is_ok() {
                taken[verb] += 1;
            }
        }
    }

    /// Nobody holds it any longer: whatever it waits for a person is decided.
    pub fn let_go(&mut self) {
        if self.phase() == Phase::Paused
            && self.promote().is_err()
            && self.resume().is_err()
            && let Err(code) = self.retry(true)
        {
            panic!("seed {}: nothing helps: {code}: {:#?}", self.seed, self.operation());
        }
    }
}
