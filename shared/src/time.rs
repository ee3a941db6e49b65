//! One timestamp type for the replicated state, the protocol and the printed shapes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::simulated;

/// Milliseconds since the Unix epoch, UTC. A plain number, so that replay is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The wall clock, or that of a simulation. For shells only: pure modules get time as an argument.
    pub fn now() -> Self {
        if let Some(now) = simulated::now() {
            return now;
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Milliseconds from `earlier` to `self`; 0 when the clock went back.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    pub fn to_proto(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: i64::try_from(self.0 / 1000).unwrap_or(i64::MAX),
            nanos: (self.0 % 1000) as i32 * 1_000_000,
        }
    }
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(ms) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "@{}", self.0),
        }
    }
}

/// Serde for optional protobuf timestamps: RFC 3339 or null.
pub mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(t: &Option<prost_types::Timestamp>, s: S) -> Result<S::Ok, S::Error> {
        match t.and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok()) {
            Some(t) => s.collect_str(&format_args!("{t:.3}")),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<prost_types::Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        let t: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Some(prost_types::Timestamp { seconds: t.as_second(), nanos: t.subsec_nanosecond() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc3339() {
        assert_eq!(Timestamp(1_500).to_string(), "1970-01-01T00:00:01.500Z");
    }
}
