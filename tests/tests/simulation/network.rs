//! Between agents and members: in order within a stream, cut off anywhere; across streams, late, repeated and mixed up.

use std::collections::VecDeque;

use kctl_control_plane::rollout::fleet::Why;
use kctl_shared::name::NodeId;
use kctl_shared::spec::{NodeSpec, NodeStatus};
use kctl_shared::time::Timestamp;

use super::control::{LEASE, Who};
use super::world::World;

const BEAT_MS: u64 = 2_000;

pub enum Up {
    Hello(NodeStatus, (u64, u64)),
    Status(NodeStatus),
    Beat,
}

/// From an agent to a member: in order, cut off anywhere.
pub struct Stream {
    pub to: usize,
    pub who: Who,
    pub queue: VecDeque<(Timestamp, Up)>,
    /// Until the registration it waits for is decided.
    pub blocked: bool,
}

pub enum Down {
    Spec(NodeSpec),
    Ack(Timestamp),
}

impl World {
    /// The agent's side of its stream.
    pub fn talk(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        let Some(process) = &mut node.agent.process else { return };
        let Some((session, _)) = node.session else { return };
        let Some(stream) = self.streams.get_mut(&session) else { return };
        if let Some(status) = process.status.take() {
            process.told = Some(status.clone());
            stream.queue.push_back((self.now, Up::Status(status)));
        }
        if self.now.since(node.beat_at) >= BEAT_MS {
            node.beat_at = self.now;
            stream.queue.push_back((self.now, Up::Beat));
        }
    }

    /// The agent opens a stream to a member.
    pub fn connect(&mut self, id: &NodeId, member: usize) {
        let session = self.serial();
        let Some(node) = self.nodes.get_mut(id) else { return };
        let Some(process) = &mut node.agent.process else { return };
        let fence = process.record.spec.as_ref().map(|s| (s.epoch, s.generation)).unwrap_or_default();
        let status = process.status.take().or_else(|| process.told.clone()).unwrap_or_default();
        process.told = Some(status.clone());
        let who =
            Who { node: id.clone(), session, nonce: process.record.nonce.clone(), boot: process.record.boot };
        node.session = Some((session, member));
        let queue = VecDeque::from([(self.now, Up::Hello(status, fence))]);
        self.streams.insert(session, Stream { to: member, who, queue, blocked: false });
    }

    pub fn hang_up(&mut self, session: u64) {
        let Some(stream) = self.streams.remove(&session) else { return };
        self.ended(session, stream.to, &stream.who.node);
        if let Some(node) = self.nodes.get_mut(&stream.who.node)
            && node.session.is_some_and(|(s, _)| s == session)
        {
            node.session = None;
        }
    }

    /// A stream of an agent's that both sides know to have ended.
    pub fn ended(&mut self, session: u64, to: usize, node: &NodeId) {
        let member = &mut self.members[to];
        if member.sessions.get(node).is_some_and(|s| s.session == session) {
            member.close(node);
        }
    }

    /// A member looks at the next message of a stream.
    pub fn deliver_up(&mut self, session: u64) {
        let Some(stream) = self.streams.get_mut(&session).filter(|s| !s.blocked) else { return };
        let Some((sent, message)) = stream.queue.pop_front() else { return };
        let (to, who) = (stream.to, stream.who.clone());
        let node = self.nodes.get(&who.node);
        let present = node.is_some_and(|n| n.session.is_some_and(|(s, _)| s == session));
        // Whoever does not lead cannot take in an agent that knows nothing to compare it with.
        let strange = node.is_some_and(|n| n.machine.is_strange || n.agent.record.spec.is_none());
        if !present {
            self.count("late message of a former stream");
        }
        let now = self.now;
        let member = &mut self.members[to];
        if !member.leads || (strange && to != self.leader) {
            return self.hang_up(session);
        }
        let (status, hello) = match message {
            Up::Beat => {
                if member.beat(&who, now) {
                    return self.down.push((who.node, session, Down::Ack(sent)));
                }
                return self.hang_up(session);
            }
            Up::Hello(_, fence) if fence > (member.state.epoch, member.state.generation) => {
                self.count("agent ahead of a deposed leader");
                return self.hang_up(session);
            }
            Up::Hello(_, fence) if let Some(why) = member.refuses(&who, fence.1, now) => {
                self.count(match why {
                    Why::Installation => "another installation refused",
                    Why::Decommissioned => "decommissioned one refused",
                    Why::RolledBack | Why::Epoch => "one that was set back refused",
                });
                return self.hang_up(session);
            }
            Up::Hello(status, _) => (status, true),
            Up::Status(status) => (status, false),
        };
        match member.registration(&who, &status) {
            Some(command) => {
                if let Some(stream) = self.streams.get_mut(&session) {
                    stream.blocked = true;
                }
                self.propose(to, vec![command], Some((who, hello, status)));
            }
            None => {
                let taken = member.take(&who, hello, status, now);
                self.heard(&who, to, taken);
            }
        }
    }

    /// Whether what an agent said was taken in.
    pub fn heard(&mut self, who: &Who, by: usize, taken: bool) {
        if !taken {
            return self.hang_up(who.session);
        }
        let node = self.nodes.get_mut(&who.node).filter(|n| n.agent.record.nonce == who.nonce);
        if let Some(node) = node.filter(|_| by == self.leader) {
            node.machine.is_strange = false;
        }
    }

    pub fn deliver_down(&mut self, index: usize, keep: bool) {
        let (id, session, message) = if keep {
            let (id, session, message) = &self.down[index];
            let Down::Spec(spec) = message else { return };
            (id.clone(), *session, Down::Spec(spec.clone()))
        } else {
            self.down.remove(index)
        };
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let present = node.session.is_some_and(|(s, _)| s == session);
        let Some(process) = &mut node.agent.process else { return };
        match message {
            // Whatever stream it came by: the fence decides.
            Down::Spec(spec) => process.inbox.push_back(spec),
            Down::Ack(sent) if present => process.lease_until = process.lease_until.max(sent.plus_ms(LEASE)),
            Down::Ack(_) => {}
        }
    }
}
