//! Answers that no Kong should give.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::metrics::MAX_METRICS;
use super::*;

/// Answers every request by what `answer` makes of its path.
async fn api(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> AdminApi {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let text = answer(head.split_whitespace().nth(1).unwrap_or_default());
                stream.write_all(text.as_bytes()).await
            });
        }
    });
    AdminApi::new(address, Duration::from_millis(500)).unwrap()
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn plugin() -> PluginName {
    PluginName::parse("hello").unwrap()
}

#[tokio::test]
async fn every_odd_answer_has_its_code() {
    for (code, text) in [
        ("ADMIN_API_REFUSED", answer("401 Unauthorized", "{\"message\":\"Unauthorized\"}")),
        ("ADMIN_API_BAD_ANSWER", answer("404 Not Found", "{\"message\":\"Not found\"}")),
        ("ADMIN_API_BROKEN", answer("500 Internal Server Error", "<html>")),
        ("ADMIN_API_BAD_ANSWER", answer("200 OK", "<html><body>hello</body></html>")),
        ("ADMIN_API_BAD_ANSWER", answer("200 OK", "{\"version\": \"3.9")),
        ("ADMIN_API_BAD_ANSWER", answer("200 OK", "[]")),
        ("ADMIN_API_BAD_ANSWER", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned()),
        ("ADMIN_API_BAD_ANSWER", answer("301 Moved\r\nlocation: http://127.0.0.1:1/", "")),
        ("ADMIN_API_UNREACHABLE", String::new()),
    ] {
        let shown = text.clone();
        let api = api(move |_| text.clone()).await;
        assert_eq!(api.root().await.unwrap_err().code, code, "{shown}");
    }
}

#[tokio::test]
async fn one_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = AdminApi::new(listener.local_addr().unwrap(), Duration::from_millis(100)).unwrap();
    let failure = api.root().await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.message.contains("no answer in time")),
        ("ADMIN_API_UNREACHABLE", true)
    );
}

#[tokio::test]
async fn pages_are_followed_to_their_end() {
    let api = api(|path| {
        if path.starts_with("/workspaces") {
            return answer("404 Not Found", "{}");
        }
        let page = if path.contains("offset=b%2F2") {
            ("2", "hello", "null", "")
        } else {
            ("1", "other", "\"/plugins?offset=b%2F2\"", ",\"offset\":\"b/2\"")
        };
        answer(
            "200 OK",
            &format!(
                "{{\"data\":[{{\"id\":\"{}\",\"name\":\"{}\",\"route\":{{\"id\":\"r\"}}}}],\"next\":{}{}}}",
                page.0, page.1, page.2, page.3
            ),
        )
    })
    .await;
    let found = api.entities(&plugin()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].id.as_str(), found[0].scope.as_str(), found[0].target.as_str()),
        ("2", "route", "route=r")
    );
}

#[tokio::test]
async fn workspaces_are_all_looked_at() {
    let api = api(|path| match path.split('?').next() {
        Some("/workspaces") => {
            answer("200 OK", "{\"data\":[{\"name\":\"default\"},{\"name\":\"a b\"}],\"next\":null}")
        }
        Some("/a%20b/plugins") => {
            answer("200 OK", "{\"data\":[{\"id\":\"7\",\"name\":\"hello\"}],\"next\":null}")
        }
        _ => answer("200 OK", "{\"data\":[],\"next\":null}"),
    })
    .await;
    assert_eq!(api.entities(&plugin()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn pages_that_make_no_sense_are_refused() {
    for page in [
        "{\"data\":[{\"id\":\"1\",\"name\":\"x\"}],\"next\":\"/plugins?offset=a\",\"offset\":\"a\"}",
        "{\"data\":[],\"next\":\"/plugins?offset=a\",\"offset\":\"a\"}",
        "{\"data\":[{\"id\":\"1\",\"name\":\"x\"},{\"id\":\"1\",\"name\":\"x\"}],\"next\":null}",
        "{\"data\":[{\"name\":\"hello\"}],\"next\":null}",
        "{\"next\":null}",
        "{\"data\":[],\"next\":\"/plugins?offset=a\"}",
    ] {
        let api = api(move |path| {
            if path.starts_with("/workspaces") {
                answer("404 Not Found", "{}")
            } else {
                answer("200 OK", page)
            }
        })
        .await;
        assert_eq!(api.entities(&plugin()).await.unwrap_err().code, "ADMIN_API_BAD_ANSWER", "{page}");
    }
}

#[tokio::test]
async fn what_kong_never_takes_again_is_told_from_what_passes() {
    let (gone, taken) = (
        r#"{"message":"the foreign key does not reference an existing 'routes' entity.","code":4}"#,
        r#"{"message":"UNIQUE violation detected","code":5}"#,
    );
    let absent = r#"{"message":"schema violation (name: plugin 'hello' not enabled; add it)","code":2}"#;
    for (code, text) in [
        (None, answer("200 OK", "{}")),
        (Some("ENTITY_REFUSED"), answer("400 Bad Request", gone)),
        (Some("ENTITY_REFUSED"), answer("409 Conflict", taken)),
        (Some("ENTITY_REFUSED"), answer("404 Not Found", r#"{"message":"Not found"}"#)),
        (Some("ADMIN_API_BAD_ANSWER"), answer("400 Bad Request", absent)),
        (Some("ADMIN_API_REFUSED"), answer("401 Unauthorized", "{}")),
        (Some("ADMIN_API_BROKEN"), answer("500 Internal Server Error", "<html>")),
    ] {
        let shown = text.clone();
        let api = api(move |path| {
            let known = path == "/a%20team/plugins/11111111-1111-4111-8111-111111111111";
            if known { text.clone() } else { answer("503 Elsewhere", path) }
        })
        .await;
        let mut entity = Entity {
            id: "11111111-1111-4111-8111-111111111111".into(),
            scope: "global".into(),
            target: String::new(),
            body: String::new(),
            workspace: "a team".into(),
        };
        assert_eq!(api.put(&entity).await.err().map(|f| f.code).as_deref(), code, "{shown}");
        entity.id = "../services/s".into();
        assert_eq!(api.put(&entity).await.unwrap_err().code, "BAD_ENTITY_ID");
    }
}

#[tokio::test]
async fn counters_are_read_whole_or_not_at_all() {
    let counted = "kong_http_requests_total{code=\"500\"} 3\nkong_http_requests_total{code=\"200\"} 4\n";
    let half = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{counted}", 2 * counted.len());
    let long = format!("{counted}{}", "x".repeat(MAX_METRICS));
    for (expected, text) in [
        (Ok(Some((7, 3))), answer("200 OK", counted)),
        (Ok(None), answer("200 OK", "kong_datastore_reachable 1\n")),
        (Err("ADMIN_API_BAD_ANSWER"), answer("404 Not Found", counted)),
        (Err("ADMIN_API_BROKEN"), answer("500 Internal Server Error", counted)),
        (Err("ADMIN_API_BAD_ANSWER"), half),
        (Err("ADMIN_API_BAD_ANSWER"), answer("200 OK", &long)),
        (Err("ADMIN_API_UNREACHABLE"), String::new()),
    ] {
        let api = api(move |_| text.clone()).await;
        let answers = api.answers().await;
        let answers = answers.map(|a| a.map(|a| (a.all, a.failed))).map_err(|f| f.code);
        assert_eq!(answers, expected.map_err(str::to_owned));
    }
}
