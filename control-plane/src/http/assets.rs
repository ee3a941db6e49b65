//! The files a page needs, embedded in the binary and named after their content, so that they may be cached for ever.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use super::{Shared, no_such_path};

const SCRIPT: &str = include_str!("../../assets/live.js");
const STYLE: &str = include_str!("../../assets/style.css");
const ICON: &str = include_str!("../../assets/icon.svg");

/// Enough of a digest that two builds never share a name.
const HASH_CHARS: usize = 16;
const FOR_EVER: &str = "public, max-age=31536000, immutable";

#[derive(Debug)]
pub(super) struct Asset {
    /// `stem-hash.ext`
    name: String,
    media: &'static str,
    body: &'static str,
}

#[derive(Debug)]
pub(super) struct Assets {
    pub script: Asset,
    pub style: Asset,
    pub icon: Asset,
}

impl Asset {
    fn new(stem: &str, extension: &str, media: &'static str, body: &'static str) -> Self {
        let hash = hex::encode(Sha256::digest(body.as_bytes()));
        Self { name: format!("{stem}-{}.{extension}", &hash[..HASH_CHARS]), media, body }
    }

    pub fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.name)
    }
}

impl Assets {
    pub fn new() -> Self {
        Self {
            script: Asset::new("live", "js", "text/javascript; charset=utf-8", SCRIPT),
            style: Asset::new("style", "css", "text/css; charset=utf-8", STYLE),
            icon: Asset::new("icon", "svg", "image/svg+xml", ICON),
        }
    }

    /// Differs between builds whose pages would not work with each other's files.
    pub fn edition(&self) -> String {
        format!("{} {}", self.script.name, self.style.name)
    }

    fn find(&self, name: &str) -> Option<&Asset> {
        [&self.script, &self.style, &self.icon].into_iter().find(|a| a.name == name)
    }
}

pub(super) async fn serve(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(asset) = shared.assets.find(&name) else { return no_such_path().await };
    let etag = asset.etag();
    let caching = [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, FOR_EVER.into())];
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    if known.flat_map(|v| v.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == etag) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, asset.media)], asset.body).into_response()
}
