//! The audit log's records and the chain that binds them: each carries the hash of the one before it, so that a record
//! cannot be changed, taken out or put in without every later hash being another.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::fault::Fault;
use crate::proto::v1;
use crate::time::Timestamp;

/// Metadata in which a client says who it is, `user@host`.
pub const CLIENT: &str = "kctl-client";
/// Bytes that are hashed of most records.
const USUAL: usize = 512;
/// Before the first record.
pub const GENESIS: Digest = Digest([0; 32]);

/// One change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// From 1, without gaps.
    pub seq: u64,
    /// Log position of the change.
    pub index: u64,
    pub offset: u32,
    pub at: Timestamp,
    /// As the client says of itself, `control-plane`, or `node/ID`.
    pub who: String,
    /// What was done, e.g. `install`, `operation.pause`, `member.admit`.
    pub verb: Cow<'static, str>,
    pub subject: Subject,
    pub reason: String,
    pub request_id: String,
    /// What it came to. Shared, because it may name every node and be said again of every operation.
    pub detail: Arc<str>,
    /// Hash of the record before it.
    pub previous: Digest,
    pub hash: Digest,
}

/// What a change was about; empty where it does not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    pub group: String,
    pub plugin: String,
    pub node: String,
    pub operation: String,
    pub member: String,
}

/// Where a chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {seq}: {why}")]
pub struct Broken {
    pub seq: u64,
    pub why: String,
}

impl Record {
    /// Over everything but the hash itself.
    pub fn computed(&self) -> Digest {
        let s = &self.subject;
        let names = (&s.group, &s.plugin, &s.node, &s.operation, &s.member);
        let place = (self.seq, self.index, self.offset, self.at);
        let words = (&self.who, &self.verb, &self.reason, &self.request_id, &self.detail);
        // No maps and no floats: the encoding is deterministic and cannot fail.
        let mut body = Vec::with_capacity(USUAL);
        let _written = serde_json::to_writer(&mut body, &(place, words, names, self.previous));
        Digest(Sha256::digest(body).into())
    }
}

/// Walks the chain; the hash of its last record.
///
/// # Errors
/// The first record that was changed, or before or behind which one is missing.
pub fn verify(records: &[Record]) -> Result<Option<Digest>, Broken> {
    let mut before: Option<&Record> = None;
    for record in records {
        let broken = |why: &str| Broken { seq: record.seq, why: why.into() };
        if record.computed() != record.hash {
            return Err(broken("it was changed: its content does not fit its hash"));
        }
        match before {
            None if record.seq == 1 && record.previous != GENESIS => {
                return Err(broken("it is the first one and names one before it"));
            }
            Some(b) if record.seq != b.seq + 1 => {
                return Err(broken(&format!(
                    "it follows record {}: some are missing or out of order",
                    b.seq
                )));
            }
            Some(b) if record.previous != b.hash => {
                return Err(broken(&format!("it does not follow from record {}", b.seq)));
            }
            _ => {}
        }
        before = Some(record);
    }
    Ok(before.map(|r| r.hash))
}

impl From<&Record> for v1::AuditRecord {
    fn from(r: &Record) -> Self {
        let s = r.subject.clone();
        Self {
            seq: r.seq,
            index: r.index,
            offset: r.offset,
            created_at: Some(r.at.to_proto()),
            who: r.who.clone(),
            verb: r.verb.clone().into_owned(),
            group: s.group,
            plugin: s.plugin,
            node: s.node,
            operation: s.operation,
            member: s.member,
            reason: r.reason.clone(),
            request_id: r.request_id.clone(),
            detail: r.detail.to_string(),
            previous: r.previous.to_string(),
            hash: r.hash.to_string(),
        }
    }
}

impl TryFrom<v1::AuditRecord> for Record {
    type Error = Fault;

    fn try_from(r: v1::AuditRecord) -> Result<Self, Fault> {
        let bad = |e: crate::digest::DigestError| {
            Fault::new("AUDIT_BROKEN", format!("record {}: {e}", r.seq)).hint("kctl explain AUDIT_BROKEN")
        };
        let time = r.created_at.unwrap_or_default();
        let ms = u64::try_from(time.seconds).unwrap_or(0) * 1_000
            + u64::try_from(time.nanos).unwrap_or(0) / 1_000_000;
        Ok(Self {
            previous: r.previous.parse().map_err(bad)?,
            hash: r.hash.parse().map_err(bad)?,
            seq: r.seq,
            index: r.index,
            offset: r.offset,
            at: Timestamp(ms),
            who: r.who,
            verb: r.verb.into(),
            subject: Subject {
                group: r.group,
                plugin: r.plugin,
                node: r.node,
                operation: r.operation,
                member: r.member,
            },
            reason: r.reason,
            request_id: r.request_id,
            detail: r.detail.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<Record> {
        let mut previous = GENESIS;
        let one = |seq| {
            let mut record = Record {
                seq,
                index: seq * 3,
                offset: 0,
                at: Timestamp(1_700_000_000_000 + seq),
                who: "ada@desk".into(),
                verb: "install".into(),
                subject: Subject { plugin: "golden".into(), ..Subject::default() },
                reason: "CHG-1".into(),
                request_id: "r".into(),
                detail: "".into(),
                previous,
                hash: GENESIS,
            };
            record.hash = record.computed();
            previous = record.hash;
            record
        };
        (1..=length).map(one).collect()
    }

    #[test]
    fn a_changed_missing_or_moved_record_is_named() {
        let good = chain(5);
        assert_eq!(verify(&good).unwrap(), Some(good[4].hash));
        assert!(verify(&good[2..]).is_ok(), "older ones may have been archived");
        let mut changed = good.clone();
        changed[2].who = "eve@desk".into();
        assert_eq!(verify(&changed).unwrap_err().seq, 3);
        // With its own hash made to fit, the next one gives it away.
        changed[2].hash = changed[2].computed();
        assert_eq!(verify(&changed).unwrap_err().seq, 4);
        let missing = [&good[..2], &good[3..]].concat();
        assert_eq!(verify(&missing).unwrap_err().seq, 4);
        let moved = [&good[..1], &good[2..3], &good[1..2]].concat();
        assert_eq!(verify(&moved).unwrap_err().seq, 3);
    }

    #[test]
    fn the_public_form_loses_nothing() {
        for record in chain(3) {
            let json = serde_json::to_string(&v1::AuditRecord::from(&record)).unwrap();
            let read: v1::AuditRecord = serde_json::from_str(&json).unwrap();
            assert_eq!(Record::try_from(read).unwrap(), record);
        }
    }
}
