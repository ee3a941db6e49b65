//! Kong's listener directives, reduced to one address that this machine can ask in plain HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a directive such as `admin_listen` offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// `off`, or not set.
    Off,
    /// Only listeners that speak TLS, or are not sockets of the network.
    Unusable,
    Plain(SocketAddr),
}

impl Listener {
    /// `127.0.0.1:8001 reuseport backlog=16384, 127.0.0.1:8444 http2 ssl`: the first plain one counts, and one for all
    /// addresses is asked on loopback.
    pub fn parse(directive: Option<&str>) -> Self {
        let directive = directive.unwrap_or("off").trim();
        if directive.is_empty() || directive == "off" {
            return Self::Off;
        }
        let plain = directive.split(',').find_map(|item| {
            let mut words = item.split_whitespace();
            let address = words.next()?;
            if words.any(|flag| flag == "ssl") {
                return None;
            }
            let address: SocketAddr = address.parse().ok()?;
            Some(match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
                IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
                _ => address,
            })
        });
        plain.map_or(Self::Unusable, Self::Plain)
    }

    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Plain(address) => Some(address),
            Self::Off | Self::Unusable => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_plain_listener_counts() {
        for (directive, expected) in [
            (
                Some("127.0.0.1:8001 reuseport backlog=16384, 127.0.0.1:8444 http2 ssl reuseport"),
                Some("127.0.0.1:8001"),
            ),
            (Some("0.0.0.0:8444 ssl, 0.0.0.0:8001"), Some("127.0.0.1:8001")),
            (Some("[::]:8001"), Some("[::1]:8001")),
            (Some("off"), None),
            (Some("unix:/x/admin.sock"), None),
            (None, None),
        ] {
            let expected: Option<SocketAddr> = expected.map(|e| e.parse().unwrap());
            assert_eq!(Listener::parse(directive).address(), expected, "{directive:?}");
        }
        assert_eq!(Listener::parse(Some("127.0.0.1:8444 ssl")), Listener::Unusable);
    }
}
