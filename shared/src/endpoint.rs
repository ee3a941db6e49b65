//! Addresses that may be bound or dialled.
//!
//! Without transport security everything stays on loopback unless the operator says otherwise in so many words: an agent
//! runs what a control plane tells it to, so an open port is a way to run code on every gateway.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tonic::transport::Endpoint;

use crate::fault::Fault;

fn refuse(what: &str, address: &str) -> Fault {
    Fault::new(
        "INSECURE_ADDRESS",
        format!("{what} {address} is not on loopback and the connection is not encrypted"),
    )
    .hint("use a loopback address, or say --insecure if the network is trusted")
}

/// Whether `address` may be listened on.
///
/// # Errors
/// `INSECURE_ADDRESS` for a non-loopback address without `insecure`.
pub fn check_bind(address: SocketAddr, insecure: bool) -> Result<(), Fault> {
    if insecure || address.ip().is_loopback() {
        Ok(())
    } else {
        Err(refuse("listening on", &address.to_string()))
    }
}

/// Whether `url` (`http://host:port`) may be dialled. Names other than `localhost` count as remote.
///
/// # Errors
/// `INSECURE_ADDRESS` as above, `ADDRESS_INVALID` when it is no such URL.
pub fn check_dial(url: &str, insecure: bool) -> Result<(), Fault> {
    let host = host_of(url)?;
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if insecure || loopback { Ok(()) } else { Err(refuse("dialling", url)) }
}

/// How a member at `url` is dialled: who vanishes without a word is noticed within two of `keepalive`.
///
/// # Errors
/// As [`check_dial`].
pub fn dial(url: &str, insecure: bool, connect: Duration, keepalive: Duration) -> Result<Endpoint, Fault> {
    check_dial(url, insecure)?;
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|e| Fault::new("ADDRESS_INVALID", format!("{url}: {e}")))?;
    Ok(endpoint
        .connect_timeout(connect)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        .keep_alive_while_idle(true))
}

fn host_of(url: &str) -> Result<&str, Fault> {
    let invalid = || {
        Fault::new("ADDRESS_INVALID", format!("{url:?} is not an address of the form http://host:port"))
            .hint("give the scheme, the host and the port")
    };
    let rest = url.strip_prefix("http://").ok_or_else(invalid)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let (host, port) = authority.rsplit_once(':').ok_or_else(invalid)?;
    if host.is_empty() || host.contains('@') || port.parse::<u16>().is_err() {
        return Err(invalid());
    }
    Ok(host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_without_consent() {
        for (url, ok) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost:1", true),
            ("http://127.0.0.1.example:1", false),
            ("http://10.0.0.1:1", false),
            ("http://127.0.0.1@evil:1", false),
            ("127.0.0.1:1", false),
            ("http://:1", false),
        ] {
            assert_eq!(check_dial(url, false).is_ok(), ok, "{url}");
        }
        assert!(check_dial("http://10.0.0.1:1", true).is_ok());
        assert!(check_bind("0.0.0.0:0".parse().unwrap(), false).is_err());
        assert!(check_bind("[::1]:0".parse().unwrap(), false).is_ok());
    }
}
