//! Names: of plugins, nodes and groups, valid by construction.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Plugins that come with Kong 3.9, in Kong's own words (`plugins.available_on_server`). Never ours to place or delete.
pub const BUNDLED: &[&str] = &[
    "acl",
    "acme",
    "ai-prompt-decorator",
    "ai-prompt-guard",
    "ai-prompt-template",
    "ai-proxy",
    "ai-request-transformer",
    "ai-response-transformer",
    "aws-lambda",
    "azure-functions",
    "basic-auth",
    "bot-detection",
    "correlation-id",
    "cors",
    "datadog",
    "file-log",
    "grpc-gateway",
    "grpc-web",
    "hmac-auth",
    "http-log",
    "ip-restriction",
    "jwt",
    "key-auth",
    "ldap-auth",
    "loggly",
    "oauth2",
    "opentelemetry",
    "post-function",
    "pre-function",
    "prometheus",
    "proxy-cache",
    "rate-limiting",
    "redirect",
    "request-size-limiting",
    "request-termination",
    "request-transformer",
    "response-ratelimiting",
    "response-transformer",
    "session",
    "standard-webhooks",
    "statsd",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

pub fn is_bundled(name: &str) -> bool {
    BUNDLED.contains(&name)
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NameError {
    /// `NAME_INVALID`, `NAME_RESERVED` or `PLUGIN_BUNDLED`.
    pub code: &'static str,
    pub message: String,
}

/// Quoted and cut, so that a hostile name cannot break a terminal or a log line.
fn shown(s: &str) -> String {
    format!("{:?}", s.chars().take(80).collect::<String>())
}

fn check(s: &str, what: &str, max: usize, extra: &[u8]) -> Result<(), NameError> {
    let fits = !s.is_empty()
        && s.len() <= max
        && s.as_bytes()[0].is_ascii_alphanumeric()
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || extra.contains(&b));
    if fits {
        return Ok(());
    }
    Err(NameError {
        code: "NAME_INVALID",
        message: format!(
            "{} is not a {what}: 1 to {max} ASCII letters, digits, `-` and `_`, beginning with a letter or digit",
            shown(s)
        ),
    })
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// A clone is the same text, not another one: thousands of records name the same few.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(Arc<str>);

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                // Most that are compared are clones of one another, and then the text need not be looked at.
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::parse(s)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// `kong.plugins.<name>`: `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`, neither reserved nor bundled.
    PluginName
}
name_type! {
    /// One Kong instance with its agent: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
    NodeId
}
name_type! {
    /// Nodes that share one Kong configuration store: same characters as a node id.
    GroupName
}

impl PluginName {
    /// # Errors
    /// `NAME_INVALID`; `NAME_RESERVED` for `bundled` and `off`, which mean something else in Kong's `plugins`;
    /// `PLUGIN_BUNDLED` for a plugin that comes with Kong.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        check(s, "plugin name", 64, b"")?;
        if matches!(s, "bundled" | "off") {
            let message = format!("{} means something else in Kong's `plugins` directive", shown(s));
            return Err(NameError { code: "NAME_RESERVED", message });
        }
        if is_bundled(s) {
            let message = format!("{s} is a plugin that comes with Kong");
            return Err(NameError { code: "PLUGIN_BUNDLED", message });
        }
        Ok(Self(s.into()))
    }
}

impl NodeId {
    /// # Errors
    /// `NAME_INVALID`.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        check(s, "node id", 128, b".")?;
        Ok(Self(s.into()))
    }
}

impl GroupName {
    /// # Errors
    /// `NAME_INVALID`.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        check(s, "group name", 128, b".")?;
        Ok(Self(s.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_refused() {
        for (name, code) in [
            ("", "NAME_INVALID"),
            (&"a".repeat(65), "NAME_INVALID"),
            ("../etc", "NAME_INVALID"),
            ("a/b", "NAME_INVALID"),
            ("a;rm -rf /", "NAME_INVALID"),
            ("a$(id)", "NAME_INVALID"),
            ("a\nb", "NAME_INVALID"),
            ("a,b", "NAME_INVALID"),
            ("a#b", "NAME_INVALID"),
            ("a\0", "NAME_INVALID"),
            ("-rf", "NAME_INVALID"),
            ("a b", "NAME_INVALID"),
            ("a.b", "NAME_INVALID"),
            ("k\u{0435}y", "NAME_INVALID"),
            ("bundled", "NAME_RESERVED"),
            ("off", "NAME_RESERVED"),
            ("key-auth", "PLUGIN_BUNDLED"),
        ] {
            assert_eq!(PluginName::parse(name).unwrap_err().code, code, "{name:?}");
        }
        for name in ["orion2GeoJSON", "1claw", "a", "the_middleman", &"a".repeat(64)] {
            assert!(PluginName::parse(name).is_ok(), "{name}");
        }
    }
}
