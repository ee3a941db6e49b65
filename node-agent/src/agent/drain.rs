//! Out of the load balancer before Kong is away for a moment, and back in after it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::spec::{Failure, Grant};

use super::Agent;
use crate::hooks::{Hook, Hooks};
use crate::ledger::Traffic;

/// A hook that failed rests so long before it is run again.
const REST: Duration = Duration::from_secs(5);

/// The owner's way in and out of the load balancer, if there is one, and why it failed last.
#[derive(Debug, Default)]
pub struct Balancer {
    hooks: Option<Hooks>,
    failed: Option<(Instant, Failure)>,
}

impl Balancer {
    pub fn new(hooks: Option<Hooks>) -> Self {
        Self { hooks, failed: None }
    }

    /// The failure, while the hook rests.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failed.as_ref().filter(|(at, _)| at.elapsed() < REST).map(|(_, failure)| failure.clone())
    }

    async fn run(&mut self, hook: Hook, node: Option<&NodeId>) -> Result<(), Failure> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let ran = hooks.run(hook, node).await;
        self.failed = ran.clone().err().map(|failure| {
            tracing::warn!(%failure, "hook");
            (Instant::now(), failure)
        });
        ran
    }
}

impl Agent {
    /// Whatever waits for a reload waits on where the node cannot be drained: nothing was touched.
    pub(super) async fn drain(&mut self, plugins: &BTreeMap<PluginName, Grant>) {
        self.ledger.update("ledger.draining", |r| r.traffic = Traffic::Unsure);
        match self.balancer.run(Hook::Drain, self.ledger.record().node.as_ref()).await {
            Ok(()) => self.ledger.update("ledger.drained", |r| r.traffic = Traffic::Out),
            Err(failure) => self.hold(plugins, &failure),
        }
    }

    pub(super) async fn undrain(&mut self) {
        self.ledger.update("ledger.undraining", |r| r.traffic = Traffic::Unsure);
        if self.balancer.run(Hook::Undrain, self.ledger.record().node.as_ref()).await.is_ok() {
            self.ledger.update("ledger.undrained", |r| r.traffic = Traffic::In);
        }
    }
}
