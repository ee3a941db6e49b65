//! `/events`: the newest status at once, then after every change, as server-sent events.
//!
//! Each change is sent twice: `status` carries the JSON of `/api/v1/status`, `fragment` the part of the page that shows
//! it. A slow reader skips states and gets the newest; nothing queues up for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::StatusView;

use super::{Context, Shared, page, refuse};

/// Browsers that may watch one member at the same time.
pub(super) const MAX_STREAMS: usize = 256;
/// Changes closer together than this are sent as one.
const MERGE: Duration = Duration::from_millis(100);
/// Keeps proxies from cutting a quiet stream, and lets the page notice one that is dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How soon a browser tries again when the stream broke.
const RETRY: Duration = Duration::from_secs(1);

pub(super) async fn stream(State(shared): Context) -> Response {
    let Ok(permit) = shared.streams.clone().try_acquire_owned() else {
        let fault =
            Fault::new("TOO_MANY_STREAMS", format!("{MAX_STREAMS} event streams are open on this member"))
                .hint("watch another member, or read /api/v1/status");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &fault);
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).event(heartbeat());
    let events = Sse::new(changes(shared, permit)).keep_alive(keep_alive);
    ([(HeaderName::from_static("x-accel-buffering"), "no")], events).into_response()
}

/// A comment for proxies, and an event because scripts never see comments.
fn heartbeat() -> Event {
    Event::default().comment("keep-alive").event("heartbeat").data("1")
}

fn changes(
    shared: Arc<Shared>,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    async_stream::stream! {
        // Given back when the reader leaves and the stream is dropped.
        let _permit = permit;
        let mut views = shared.state.views.clone();
        let shutdown = shared.state.shutdown.clone();
        let mut first = true;
        loop {
            let view = views.borrow_and_update().clone();
            let [status, fragment] = events(&shared, &view);
            yield Ok(if first { status.retry(RETRY) } else { status });
            yield Ok(fragment);
            first = false;
            // Both wait for something that stays true: neither loses anything when the other wins.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(MERGE) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = views.changed() => if changed.is_err() { return },
            }
        }
    }
}

fn events(shared: &Shared, view: &StatusView) -> [Event; 2] {
    // Views hold strings and numbers only: both are always written.
    let status = serde_json::to_string(view).unwrap_or_default();
    let fragment = page::fragment(shared, view).unwrap_or_default();
    [Event::default().event("status").data(status), Event::default().event("fragment").data(fragment)]
}
