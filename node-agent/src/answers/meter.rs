//! Asks Kong's counters at the right times, one question at a time, beside whatever the agent does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kctl_shared::served::{Answers, Served};
use kctl_shared::spec::{Grant, NodeSpec};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::history::{BEFORE_MS, History, matters};
use crate::gateway::Gateway;

/// When an operation has come to the node, and when it has reloaded Kong: what happens now is what is asked about.
const OFTEN: Duration = Duration::from_secs(1);
/// For this long; it is also how far back "before" reaches.
const NEWS: Duration = Duration::from_millis(BEFORE_MS);
/// While an operation that is no news bakes elsewhere, or for hours.
const STEADY: Duration = Duration::from_secs(5);
/// At rest, so that there is a time before the next operation; as often as Prometheus itself usually asks.
const SELDOM: Duration = Duration::from_secs(15);
/// A Kong that takes long to answer is asked less often: it spends at most a tenth of its time on us.
const SHARE: u32 = 10;

/// When, how long it took, and what was answered.
type Asked = (Instant, Duration, Option<Answers>);

#[derive(Debug)]
pub struct Meter {
    began: Instant,
    history: History,
    /// The question that is under way; gone with the agent.
    asking: JoinSet<Asked>,
    /// When the last one was asked, how long the answer took, and whether there was one.
    asked: Option<(Instant, Duration, bool)>,
    told: Option<Served>,
    /// When an operation came, or reloaded Kong; `None` at rest.
    news: Option<Instant>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            history: History::default(),
            asking: JoinSet::new(),
            asked: None,
            told: None,
            news: None,
        }
    }
}

impl Meter {
    /// To be called each time the agent has looked around; never waits.
    pub fn turn(&mut self, gateway: &Arc<dyn Gateway>, spec: Option<&NodeSpec>) {
        let busy = spec.is_some_and(|spec| spec.plugins.values().any(|p| !p.operation.is_empty()));
        while let Some(asked) = self.asking.try_join_next() {
            // One that broke down said nothing.
            let Ok((at, took, counted)) = asked else { continue };
            self.asked = Some((at, took, counted.is_some()));
            self.history.sample(self.ms(at), counted);
        }
        if busy && self.news.is_none() {
            // Asked at once: what is known of the time before ends here.
            (self.news, self.asked) = (Some(Instant::now()), None);
        } else if !busy {
            self.news = None;
            self.history.rest();
        }
        let served = self.history.served();
        if matters(self.told.as_ref(), served.as_ref()) {
            self.told = served;
        }
        if self.asking.is_empty() && self.is_due() {
            let gateway = Arc::clone(gateway);
            self.asking.spawn(async move {
                let at = Instant::now();
                let counted = gateway.answers().await;
                (at, at.elapsed(), counted)
            });
        }
    }

    fn is_due(&self) -> bool {
        let Some((at, took, counts)) = self.asked else { return true };
        // Who counts nothing will hardly begin to while we wait for it.
        let pause = match self.news.filter(|_| counts) {
            Some(news) if news.elapsed() < NEWS => OFTEN,
            Some(_) => STEADY,
            None => SELDOM,
        };
        at.elapsed() >= pause.max(took * SHARE)
    }

    /// Kong is about to be reloaded.
    pub fn begin(&mut self, grants: BTreeSet<Grant>) {
        self.history.begin(self.ms(Instant::now()), grants);
        self.told = None;
    }

    /// The reload is over.
    pub fn done(&mut self) {
        let now = Instant::now();
        self.history.done(self.ms(now));
        self.news = Some(now);
    }

    /// For the report; it changes seldom.
    pub fn told(&self) -> Option<&Served> {
        self.told.as_ref()
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}
