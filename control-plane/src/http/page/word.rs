//! A state as the page shows it.

use askama::Template;
pub(super) use kctl_shared::word::Tone;

#[derive(Clone, Copy, Debug, Template)]
#[template(path = "word.html")]
pub(super) struct Word<'a> {
    pub tone: Tone,
    pub symbol: &'static str,
    pub text: &'a str,
}

impl<'a> Word<'a> {
    pub fn new(text: &'a str) -> Self {
        let (tone, symbol) = kctl_shared::word::mark(text);
        Self { tone, symbol, text }
    }
}
