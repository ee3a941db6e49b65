//! What protects a browser and its network from one another: response headers, and a check of `Host`.
//!
//! Reads need no password on loopback, so a page of another site must not get at them by pointing its own name at
//! 127.0.0.1 (DNS rebinding). The browser then still sends that name in `Host`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;
use kctl_shared::fault::Fault;

use super::{Shared, refuse};

/// Nothing inline, nothing from elsewhere: a name that slipped through escaping still could not run.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CSP),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Sets the headers above, and forbids caches whatever does not say otherwise by itself.
pub(super) async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The names a listener answers to: loopback names when it is bound on loopback, all (`None`) otherwise, since nobody
/// here knows under which names a network reaches it.
pub fn hosts_for(listen: SocketAddr) -> Option<Vec<String>> {
    listen.ip().is_loopback().then(|| {
        let bound = if listen.is_ipv6() { format!("[{}]", listen.ip()) } else { listen.ip().to_string() };
        let mut hosts = vec!["localhost".into(), "127.0.0.1".into(), "[::1]".into()];
        if !hosts.contains(&bound) {
            hosts.push(bound);
        }
        hosts
    })
}

pub(super) async fn check_host(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if let Some(allowed) = &shared.state.allowed_hosts
        && !addressed_to(request.uri(), request.headers())
            .is_some_and(|h| allowed.iter().any(|a| h.eq_ignore_ascii_case(a)))
    {
        let fault =
            Fault::new("HOST_NOT_ALLOWED", "this member does not answer to the host name of the request")
                .hint(format!("use one of: {}", allowed.join(", ")));
        return refuse(StatusCode::FORBIDDEN, &fault);
    }
    next.run(request).await
}

/// The host a request is for, without port; `None` when it says none, several or no valid one.
fn addressed_to(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    if let Some(host) = uri.host() {
        return Some(host.to_owned());
    }
    let mut given = headers.get_all(header::HOST).iter();
    match (given.next(), given.next()) {
        (Some(only), None) => {
            let authority = only.to_str().ok()?.parse::<Authority>().ok()?;
            // `user@host` is no value of this header.
            (!authority.as_str().contains('@')).then(|| authority.host().to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_listeners_have_loopback_names() {
        let hosts = hosts_for("127.0.0.2:80".parse().unwrap()).unwrap();
        assert_eq!(hosts, ["localhost", "127.0.0.1", "[::1]", "127.0.0.2"]);
        assert_eq!(hosts_for("[::1]:80".parse().unwrap()).unwrap().len(), 3);
        assert!(hosts_for("0.0.0.0:80".parse().unwrap()).is_none());
    }

    #[test]
    fn the_host_is_read_without_its_port() {
        for (given, host) in [
            ("localhost:7000", Some("localhost")),
            ("[::1]:7000", Some("[::1]")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("localhost@evil.example", None),
            ("", None),
            ("a b", None),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(given))]);
            assert_eq!(addressed_to(&Uri::from_static("/"), &headers).as_deref(), host, "{given}");
        }
    }
}
