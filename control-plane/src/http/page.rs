//! The dashboard: one page, complete as served. Its live part is rendered by the same code for the page and for the
//! event stream, so that the script only has to put it in place.
//!
//! Each module here turns a part of the view into what its template shows; templates decide nothing.

mod catalogue;
mod conditions;
mod matrix;
mod moment;
mod operation;
mod quorum;
mod summary;
mod word;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::{OperationView, StatusView};

use self::catalogue::Catalogue;
use self::conditions::Conditions;
use self::matrix::Matrix;
use self::operation::OperationCard;
use self::quorum::Quorum;
use self::summary::Summary;
use super::assets::Assets;
use super::{Context, Shared, refuse};

/// Ended operations that are shown under the running ones.
const RECENT: usize = 5;

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    assets: &'a Assets,
    member: u64,
    version: &'a str,
    live: Live<'a>,
}

/// Everything that changes.
#[derive(Template)]
#[template(path = "live.html")]
struct Live<'a> {
    /// A page whose files belong to another build loads itself anew.
    edition: String,
    summary: Summary,
    quorum: Quorum<'a>,
    running: Vec<OperationCard<'a>>,
    ended: Vec<OperationCard<'a>>,
    matrix: Matrix<'a>,
    conditions: Conditions<'a>,
    catalogue: Catalogue<'a>,
}

/// Template types whose output is markup with everything in it escaped already.
macro_rules! markup {
    ($($template:ty),+ $(,)?) => { $(impl askama::filters::HtmlSafe for $template {})+ };
}
markup!(
    Live<'_>,
    Quorum<'_>,
    OperationCard<'_>,
    Matrix<'_>,
    Conditions<'_>,
    Catalogue<'_>,
    word::Word<'_>,
    moment::Moment
);

impl<'a> Live<'a> {
    fn new(shared: &Shared, view: &'a StatusView, ended: &'a [OperationView]) -> Self {
        let (over, running): (Vec<_>, Vec<_>) = view.operations.iter().partition(|o| o.finished_at.is_some());
        // The view and the record are not read in one instant: either may know of an end before the other does.
        let unknown = over.into_iter().filter(|o| ended.iter().all(|e| e.id != o.id));
        let known = ended.iter().filter(|e| running.iter().all(|r| r.id != e.id));
        let ended = unknown.chain(known).map(OperationCard::new).collect();
        Self {
            edition: shared.assets.edition(),
            summary: Summary::new(view),
            quorum: Quorum::new(view.cluster.as_ref(), shared.state.member),
            running: running.into_iter().map(OperationCard::new).collect(),
            ended,
            matrix: Matrix::new(view),
            conditions: Conditions::new(view),
            catalogue: Catalogue::new(view),
        }
    }
}

pub(super) async fn show(State(shared): Context) -> Response {
    let view = shared.state.views.borrow().clone();
    let ended = (shared.state.ended)(RECENT);
    let page = Page {
        assets: &shared.assets,
        member: shared.state.member,
        version: shared.state.version,
        live: Live::new(&shared, &view, &ended),
    };
    match page.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            let fault = Fault::new("INTERNAL", format!("the page could not be written: {error}"))
                .hint("GET /api/v1/status");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, &fault)
        }
    }
}

/// The live part alone.
pub(super) fn fragment(shared: &Shared, view: &StatusView) -> askama::Result<String> {
    let ended = (shared.state.ended)(RECENT);
    Live::new(shared, view, &ended).render()
}
