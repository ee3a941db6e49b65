//! The `*_listen` settings.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// One address a server listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address, IP and port.
    pub address: SocketAddr,
    /// Text form as `GET /` shows it.
    pub text: String,
    /// Flags after the address: `ssl`, `http2`, `reuseport`, …
    pub flags: Vec<String>,
    /// Whether TLS is spoken here.
    pub ssl: bool,
}

const FLAGS: [&str; 7] = ["ssl", "http2", "proxy_protocol", "deferred", "bind", "reuseport", "udp"];

/// Reads a listen setting; `off` anywhere means nothing is listened on.
pub fn parse(key: &str, value: &str) -> Result<Vec<Listener>, String> {
    let malformed = || {
        format!(
            "{key} must be of form: [off] | <ip>:<port> [{}], [... next entry ...]",
            FLAGS.map(|flag| format!("{flag}] [")).concat().trim_end_matches("] [")
        )
    };
    let mut listeners = Vec::new();
    for entry in value.split(',').map(str::trim) {
        let mut words = entry.split_whitespace();
        let Some(address) = words.next() else { continue };
        if address == "off" {
            return Ok(Vec::new());
        }
        let flags: Vec<String> = words.map(str::to_owned).collect();
        let known = |flag: &String| {
            FLAGS.contains(&flag.as_str())
                || ["backlog=", "ipv6only=", "so_keepalive="].iter().any(|prefix| flag.starts_with(prefix))
        };
        if !flags.iter().all(known) {
            return Err(malformed());
        }
        let address: SocketAddr =
            address.replace("localhost", "127.0.0.1").parse().map_err(|_| malformed())?;
        let ssl = flags.iter().any(|flag| flag == "ssl");
        let text =
            std::iter::once(address.to_string()).chain(flags.iter().cloned()).collect::<Vec<_>>().join(" ");
        listeners.push(Listener { address, text, flags, ssl });
    }
    Ok(listeners)
}

impl Listener {
    /// The shape of `configuration.*_listeners[]` in `GET /`.
    pub fn to_json(&self) -> Value {
        let has = |name: &str| self.flags.iter().any(|flag| flag == name);
        let backlog = self.flags.iter().find(|flag| flag.starts_with("backlog="));
        json!({
            "proxy_protocol": has("proxy_protocol"), "deferred": has("deferred"), "reuseport": has("reuseport"),
            "backlog=%d+": backlog.map_or(json!(false), |flag| json!(flag)),
            "ipv6only=on": has("ipv6only=on"), "ipv6only=off": has("ipv6only=off"), "ssl": self.ssl,
            "so_keepalive=on": has("so_keepalive=on"), "so_keepalive=off": has("so_keepalive=off"),
            "so_keepalive=%w*:%w*:%d*": false, "listener": self.text, "port": self.address.port(),
            "ip": self.address.ip().to_string(), "bind": has("bind"), "http2": has("http2"),
        })
    }
}
