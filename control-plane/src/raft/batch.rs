//! One log entry's commands. They are encoded once, where they are proposed: the log of each member and the stream to each
//! peer carry the same bytes. What they say is kept beside them until it is applied, which happens once.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kctl_shared::time::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::state::command::Command;

/// The commands of several concurrent callers that share an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands {
    pub proposed_at: Timestamp,
    pub commands: Vec<Command>,
    /// Who asked for each of them, as they say; none: the control plane itself.
    #[serde(default)]
    pub by: Vec<String>,
}

/// [`Commands`], encoded. Cheap to clone.
#[derive(Clone)]
pub struct CommandBatch(Arc<Batch>);

struct Batch {
    /// MessagePack with field names.
    encoded: Vec<u8>,
    count: usize,
    decoded: Mutex<Option<Commands>>,
}

impl CommandBatch {
    /// # Errors
    /// What cannot be encoded.
    pub fn new(commands: Commands) -> io::Result<Self> {
        let encoded = rmp_serde::to_vec_named(&commands).map_err(io::Error::other)?;
        Ok(Self::of(encoded, commands))
    }

    fn of(encoded: Vec<u8>, commands: Commands) -> Self {
        let (count, decoded) = (commands.commands.len(), Mutex::new(Some(commands)));
        Self(Arc::new(Batch { encoded, count, decoded }))
    }

    /// The commands, to be applied.
    ///
    /// # Errors
    /// When they were taken before and can no longer be decoded.
    pub fn take(&self) -> io::Result<Commands> {
        match self.0.decoded.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(commands) => Ok(commands),
            None => rmp_serde::from_slice(&self.0.encoded).map_err(io::Error::other),
        }
    }
}

impl PartialEq for CommandBatch {
    fn eq(&self, other: &Self) -> bool {
        self.0.encoded == other.0.encoded
    }
}

impl Eq for CommandBatch {}

impl fmt::Display for CommandBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.0.count)
    }
}

impl fmt::Debug for CommandBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for CommandBatch {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0.encoded)
    }
}

impl<'de> Deserialize<'de> for CommandBatch {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Either)
    }
}

/// Bytes, or the commands themselves, as logs have them that were written before there were bytes.
struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = CommandBatch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("commands")
    }

    fn visit_bytes<E: serde::de::Error>(self, encoded: &[u8]) -> Result<CommandBatch, E> {
        self.visit_byte_buf(encoded.to_vec())
    }

    fn visit_byte_buf<E: serde::de::Error>(self, encoded: Vec<u8>) -> Result<CommandBatch, E> {
        let commands = rmp_serde::from_slice(&encoded).map_err(E::custom)?;
        Ok(CommandBatch::of(encoded, commands))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CommandBatch, A::Error> {
        let commands = Commands::deserialize(MapAccessDeserializer::new(map))?;
        CommandBatch::new(commands).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{decode, encode};

    fn commands() -> Commands {
        let command = Command::DismissMember { id: 3, reason: "old".into() };
        Commands { proposed_at: Timestamp(7), commands: vec![command; 2], by: vec!["ada@desk".into(); 2] }
    }

    #[test]
    fn what_was_proposed_is_applied_here_and_where_it_was_sent_to() {
        let batch = CommandBatch::new(commands()).unwrap();
        let sent: CommandBatch = decode(&encode(&batch).unwrap()).unwrap();
        assert_eq!((&sent, sent.to_string()), (&batch, "2 commands".to_owned()));
        // Once more than once too: a member may apply what it has applied before it stored that it did.
        for batch in [&batch, &sent, &sent.clone()] {
            assert_eq!(batch.take().unwrap(), commands());
        }
        assert_eq!(encode(&sent).unwrap(), encode(&batch).unwrap());
    }

    #[test]
    fn logs_of_before_are_read() {
        let former: CommandBatch = decode(&encode(&commands()).unwrap()).unwrap();
        assert_eq!(former.take().unwrap(), commands());
        assert!(decode::<CommandBatch>(&encode(&"text").unwrap()).is_err());
    }
}
