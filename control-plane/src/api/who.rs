//! Who asks, as the client says of itself. A claim, until clients are authenticated: it is recorded, and nothing is
//! decided by it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use kctl_shared::audit::CLIENT;
use tokio::task::futures::TaskLocalFuture;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use crate::state::CONTROL_PLANE;

/// Longer claims are cut.
const MAX: usize = 200;

tokio::task_local! {
    static WHO: String;
}

/// Of the request that is being answered; this member itself when it answers none.
pub(super) fn asks() -> String {
    WHO.try_with(Clone::clone).unwrap_or_else(|_| CONTROL_PLANE.into())
}

/// A service whose handlers know who asks.
#[derive(Clone, Debug)]
pub struct Claimed<S>(pub S);

impl<S: NamedService> NamedService for Claimed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Claimed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<String, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let claim = request.headers().get(CLIENT).and_then(|v| v.to_str().ok());
        let who = match claim.map(|c| c.chars().take(MAX).collect::<String>()) {
            // Nobody passes for what it cannot be.
            Some(who) if !who.is_empty() && who != CONTROL_PLANE && !who.starts_with("node/") => who,
            _ => "unknown".into(),
        };
        WHO.scope(who, self.0.call(request))
    }
}
