//! Artifacts of releases, for agents: HTTP/1.1 carries bytes at a third of what they cost in gRPC messages.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;

use super::{Context, refuse};

pub(super) async fn serve(State(shared): Context, Path(digest): Path<String>) -> Response {
    let Ok(digest) = digest.parse::<Digest>() else {
        let fault = Fault::new("INVALID_DIGEST", format!("{digest:?} is no digest"));
        return refuse(StatusCode::BAD_REQUEST, &fault.hint("kctl plugin list"));
    };
    match (shared.state.artifact)(digest).await {
        Ok(loan) => {
            let length = loan.bytes.len();
            let pieces = futures_util::stream::iter(loan.pieces().map(Ok::<_, std::convert::Infallible>));
            let headers = [
                (header::CONTENT_TYPE, "application/x-tar".to_owned()),
                (header::CONTENT_LENGTH, length.to_string()),
            ];
            (headers, Body::from_stream(pieces)).into_response()
        }
        Err(fault) if fault.code == "ARTIFACT_NOT_FOUND" => refuse(StatusCode::NOT_FOUND, &fault),
        Err(fault) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &fault),
    }
}
