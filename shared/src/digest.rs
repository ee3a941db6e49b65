//! SHA-256 digests as they are written everywhere: `sha256:<64 hex digits>`.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// First eight hex digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }

    /// All hex digits, without the prefix: for file names.
    pub fn hex(&self) -> String {
        self.written()[PREFIX.len()..].to_owned()
    }

    fn written(&self) -> Written {
        let mut text = [0; WRITTEN];
        text[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
        // The length is right, which is all that can be wrong.
        let _fits = hex::encode_to_slice(self.0, &mut text[PREFIX.len()..]);
        Written(text)
    }
}

const PREFIX: &str = "sha256:";
const WRITTEN: usize = PREFIX.len() + 64;

/// A digest as text, without memory of its own: each record of the audit log is hashed with one in it.
struct Written([u8; WRITTEN]);

impl Deref for Written {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sha256 digest")]
pub struct DigestError(String);

impl FromStr for Digest {
    type Err = DigestError;

    /// With or without the `sha256:` prefix.
    fn from_str(s: &str) -> Result<Self, DigestError> {
        let digits = s.strip_prefix(PREFIX).unwrap_or(s);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| DigestError(s.chars().take(100).collect()))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.written())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
