//! What keeps a browser and the member safe from one another, and its cache honest.

use reqwest::StatusCode;
use reqwest::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HOST, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};

use crate::fixture::{Server, view};

/// Value of the first `attribute="…"` that starts with `prefix`.
fn linked<'a>(page: &'a str, prefix: &str) -> &'a str {
    let start = page.find(&format!("\"{prefix}")).unwrap() + 1;
    page[start..].split('"').next().unwrap()
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let server = Server::start(view()).await;
    let page = server.text("/").await;
    for path in ["/", "/api/v1/status", "/events", "/nope", "/metrics", linked(&page, "/assets/style-")] {
        let answer = server.get(path).await;
        let csp = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(csp.split("; ").any(|p| p == part), "{path}: {part}");
        }
        assert!(!csp.contains("unsafe"));
        assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers()[REFERRER_POLICY], "no-referrer");
    }
}

#[tokio::test]
async fn the_page_needs_nothing_the_policy_forbids() {
    let page = Server::start(view()).await.text("/").await;
    assert!(!page.contains(" style=") && !page.contains("<style") && !page.contains(" onclick="));
    assert!(!page.contains("src=\"http") && !page.contains("src=\"//"));
}

#[tokio::test]
async fn files_are_named_after_their_content_and_kept() {
    let server = Server::start(view()).await;
    let page = server.text("/").await;
    for (prefix, media) in [
        ("/assets/live-", "text/javascript"),
        ("/assets/style-", "text/css"),
        ("/assets/icon-", "image/svg+xml"),
    ] {
        let path = linked(&page, prefix);
        let answer = server.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(media));
        assert!(answer.headers()[CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        let etag = answer.headers()[ETAG].clone();
        let again = reqwest::Client::new().get(format!("{}{path}", server.url)).header(IF_NONE_MATCH, etag);
        assert_eq!(again.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    }
    assert_eq!(server.get("/").await.headers()[CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn other_host_names_are_refused_on_loopback() {
    let server = Server::start(view()).await;
    let client = reqwest::Client::new();
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:7000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:7000", 200),
        ("evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("10.0.0.1", 403),
    ] {
        for path in ["/", "/api/v1/status", "/metrics"] {
            let answer = client.get(format!("{}{path}", server.url)).header(HOST, host).send().await.unwrap();
            assert_eq!(answer.status(), status, "{host} {path}");
            if status == 403 {
                assert!(answer.text().await.unwrap().contains("HOST_NOT_ALLOWED"));
            }
        }
    }
}
