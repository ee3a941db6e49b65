//! What is installed where, and how far.

use askama::Template;
use kctl_shared::proto::v1::{PluginView, StatusView};

use super::word::Word;

/// Of a digest; enough to tell releases apart at a glance, the rest is in the tooltip and the API.
const DIGEST_CHARS: usize = 12;

#[derive(Debug, Template)]
#[template(path = "catalogue.html")]
pub(super) struct Catalogue<'a> {
    rows: Vec<Row<'a>>,
}

#[derive(Debug)]
struct Row<'a> {
    plugin: &'a PluginView,
    stage: Word<'a>,
    digest: &'a str,
}

impl<'a> Catalogue<'a> {
    pub fn new(view: &'a StatusView) -> Self {
        let row = |plugin: &'a PluginView| {
            let digest = plugin.digest.strip_prefix("sha256:").unwrap_or(&plugin.digest);
            Row {
                plugin,
                stage: Word::new(&plugin.stage),
                digest: digest.get(..DIGEST_CHARS).unwrap_or(digest),
            }
        };
        Self { rows: view.plugins.iter().map(row).collect() }
    }
}
