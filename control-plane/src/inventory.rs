//! What the agents told this leader: soft state, rebuilt by every new leader, never replicated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::mutant;
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::proto::agent as pb;
use kctl_shared::spec::NodeStatus;
use kctl_shared::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::rollout::detach::LEASE_MS;
use crate::rollout::fleet::{Alike, Fleet, Refused};

/// Wishes on their way to one agent.
const ASKS: usize = 4;

#[derive(Debug)]
pub struct Inventory {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    fleet: Fleet,
    sessions: BTreeMap<NodeId, Session>,
    versions: BTreeMap<NodeId, Arc<str>>,
    /// One copy of what thousands of nodes report alike.
    known: Known,
    next: u64,
}

#[derive(Debug, Default)]
struct Known {
    plugins: Alike,
    versions: BTreeSet<Arc<str>>,
}

impl Known {
    fn version(&mut self, version: &str) -> Arc<str> {
        if let Some(known) = self.versions.get(version) {
            return known.clone();
        }
        let new: Arc<str> = version.into();
        self.versions.insert(new.clone());
        new
    }
}

impl Inner {
    fn present(&self, ticket: &Ticket) -> Option<&Session> {
        self.sessions.get(&ticket.node).filter(|session| session.id == ticket.id)
    }
}

#[derive(Debug)]
struct Session {
    id: u64,
    boot: u64,
    ended: CancellationToken,
    asks: mpsc::Sender<Ask>,
}

/// Something wanted of an agent beside its spec.
#[derive(Debug)]
pub enum Ask {
    /// Upload what is found on the node under this name.
    Collect { plugin: PluginName, digest: Digest },
    /// Look for what refers to the plugin. Dropped without an answer when the stream ends.
    References { plugin: PluginName, answer: oneshot::Sender<pb::References> },
}

/// A node's present stream. A later one for the same node ends it.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub node: NodeId,
    id: u64,
    /// Cancelled when another stream took this one's place.
    pub replaced: CancellationToken,
}

impl Default for Inventory {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Inventory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held; a poisoned lock would only say that a panic happened elsewhere.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts changes of what any node reported; heartbeats are not counted.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn bump(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Forgets everything: a new leader knows nothing that it was not told itself.
    pub fn reset(&self, now: Timestamp) {
        let mut inner = self.lock();
        for (_, session) in std::mem::take(&mut inner.sessions) {
            session.ended.cancel();
        }
        inner.fleet = Fleet { leader_since: now, ..Fleet::default() };
        inner.known = Known::default();
        drop(inner);
        self.bump();
    }

    pub fn with<R>(&self, read: impl FnOnce(&Fleet) -> R) -> R {
        read(&self.lock().fleet)
    }

    pub fn agent_version(&self, node: &NodeId) -> String {
        self.lock().versions.get(node).map(|v| v.to_string()).unwrap_or_default()
    }

    /// Opens a node's stream and ends the one before it.
    ///
    /// # Errors
    /// `SUPERSEDED` when a later start of the same agent is connected.
    pub fn open(
        &self,
        node: NodeId,
        boot: u64,
        version: String,
        now: Timestamp,
    ) -> Result<(Ticket, mpsc::Receiver<Ask>), Fault> {
        let mut inner = self.lock();
        if let Some(present) = inner.sessions.get(&node) {
            if present.boot > boot && !mutant::is("no-incarnation-check") {
                return Err(Fault::new(
                    "SUPERSEDED",
                    format!("a later start of node {node}'s agent is connected"),
                )
                .hint("stop the older copy of the agent"));
            }
            present.ended.cancel();
        }
        inner.next += 1;
        let id = inner.next;
        let (replaced, (asks, asked)) = (CancellationToken::new(), mpsc::channel(ASKS));
        inner.sessions.insert(node.clone(), Session { id, boot, ended: replaced.clone(), asks });
        let version = inner.known.version(&version);
        inner.versions.insert(node.clone(), version);
        inner.fleet.reports.entry(node.clone()).or_default().last_seen = now;
        inner.fleet.refused.remove(&node);
        drop(inner);
        self.bump();
        Ok((Ticket { node, id, replaced }, asked))
    }

    /// Agents that are connected.
    pub fn sessions(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Passes something on to a node's agent.
    ///
    /// # Errors
    /// `AGENT_UNREACHABLE` when it is not connected, or does not take what it is asked for.
    pub fn ask(&self, node: &NodeId, ask: Ask) -> Result<(), Fault> {
        let inner = self.lock();
        let sent = inner.sessions.get(node).is_some_and(|session| session.asks.try_send(ask).is_ok());
        if sent {
            return Ok(());
        }
        Err(Fault::new("AGENT_UNREACHABLE", format!("the agent of node {node} is not connected"))
            .hint(format!("kctl node get {node}")))
    }

    /// Whether the node's agent has a stream here.
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.lock().sessions.contains_key(node)
    }

    /// The newest generation that the node said to follow; 0 when nothing is known of it.
    pub fn followed(&self, node: &NodeId) -> u64 {
        self.lock().fleet.status(node).map_or(0, |status| status.observed_generation)
    }

    /// Somebody let the node in that was refused; it asks again.
    pub fn admit(&self, node: &NodeId) {
        self.lock().fleet.refused.remove(node);
        self.bump();
    }

    /// The node asked and was not taken in.
    pub fn refuse(&self, node: &NodeId, refused: Refused) {
        let before = self.lock().fleet.refused.insert(node.clone(), refused);
        if before.is_none() {
            self.bump();
        }
    }

    pub fn close(&self, ticket: &Ticket) {
        let mut inner = self.lock();
        if inner.present(ticket).is_some() {
            inner.sessions.remove(&ticket.node);
        }
    }

    /// A heartbeat: alive, and its lease renewed once the acknowledgement arrives.
    pub fn heard(&self, ticket: &Ticket, now: Timestamp) {
        let mut inner = self.lock();
        if inner.present(ticket).is_none() {
            return;
        }
        if let Some(report) = inner.fleet.reports.get_mut(&ticket.node) {
            // A node that was missed must show as back at once.
            let missed = now.since(report.last_seen) >= crate::rollout::fleet::SUSPECT_MS;
            report.last_seen = now;
            report.lease_until = now.plus_ms(LEASE_MS);
            if missed {
                drop(inner);
                self.bump();
            }
        }
    }

    pub fn ingest(&self, ticket: &Ticket, mut status: NodeStatus, now: Timestamp) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        status.plugins = inner.known.plugins.share(status.plugins);
        // What arrives by a stream that another one replaced is older than what that one said.
        let Some(boot) = inner.present(ticket).map(|session| session.boot) else { return };
        let report = inner.fleet.reports.entry(ticket.node.clone()).or_default();
        (report.boot, report.last_seen) = (boot, now);
        match (&report.status.task, &status.task) {
            (before, Some(task)) => {
                let same = before.as_ref().is_some_and(|b| b.is_of_same(task));
                let empty = task.entities.is_empty() && task.empty_in_a_row >= 2;
                report.empty_since = empty.then(|| report.empty_since.filter(|_| same).unwrap_or(now));
            }
            (_, None) => report.empty_since = None,
        }
        report.watch_health(&status, now);
        let changed = report.status != status;
        report.status = status;
        drop(guard);
        if changed {
            self.bump();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_stream_says_nothing_any_more() {
        let (inventory, node) = (Inventory::default(), NodeId::parse("n1").unwrap());
        let status = |generation| NodeStatus { observed_generation: generation, ..NodeStatus::default() };
        let open = |boot| inventory.open(node.clone(), boot, String::new(), Timestamp(1)).unwrap().0;
        let (old, new) = (open(1), open(2));
        inventory.ingest(&new, status(7), Timestamp(2));
        inventory.ingest(&old, status(6), Timestamp(3));
        inventory.heard(&old, Timestamp(4));
        inventory.with(|fleet| {
            let report = &fleet.reports[&node];
            assert_eq!((report.boot, report.status.observed_generation), (2, 7));
            assert_eq!(report.last_seen, Timestamp(2));
        });
    }
}
