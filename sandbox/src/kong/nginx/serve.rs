//! HTTP in front of a node: sockets on one side, the node's single Lua thread on the other.

use std::net::SocketAddr;
use std::rc::Rc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::binds::{Bound, Server};
use super::fresh::{Entrance, Peer};
use crate::kong::node::Node;
use crate::kong::{api, proxy};

/// Largest request body the stand-in reads; it keeps bodies in memory.
const MAX_BODY: usize = 64 << 20;

/// One request as a node handles it.
#[derive(Debug)]
pub struct Incoming {
    /// Method, target, headers, and the extensions that carry a protocol upgrade.
    pub parts: Parts,
    /// The whole body.
    pub body: Bytes,
    /// The client.
    pub peer: SocketAddr,
    /// The address it came to.
    pub local: SocketAddr,
}

impl Incoming {
    /// What the client says the body is; empty when it does not.
    pub fn content_type(&self) -> &str {
        let kind = self.parts.headers.get(http::header::CONTENT_TYPE);
        kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default()
    }
}

/// What a node says to a request.
#[derive(Debug)]
pub enum Reply {
    /// An answer.
    Response(Response),
    /// The connection is closed without a word.
    Abort,
}

type Job = (Server, Incoming, oneshot::Sender<Reply>);

#[derive(Debug, Clone)]
struct Door {
    server: Server,
    local: SocketAddr,
    jobs: mpsc::UnboundedSender<Job>,
}

/// Starts answering on all sockets. The future ends when `draining` was set and the last request is over.
pub fn start(
    node: &Rc<Node>,
    listeners: &[Bound],
    draining: &watch::Receiver<bool>,
) -> std::io::Result<impl Future<Output = ()> + use<>> {
    // Unbounded on purpose: every job holds a connection, and those are bounded by the process's descriptors.
    let (jobs, mut inbox) = mpsc::unbounded_channel::<Job>();
    let mut servers = JoinSet::new();
    for bound in listeners {
        let socket = bound.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        let door = Door { server: bound.server, local: bound.address, jobs: jobs.clone() };
        let app = Router::new().fallback(enter).with_state(door);
        let entrance = Entrance::new(listener, draining.clone());
        let closing = entrance.closing();
        servers.spawn(async move {
            let service = app.into_make_service_with_connect_info::<Peer>();
            axum::serve(entrance, service).with_graceful_shutdown(closing).await
        });
    }
    drop(jobs);
    let node = Rc::clone(node);
    tokio::task::spawn_local(async move {
        while let Some((server, incoming, reply)) = inbox.recv().await {
            let node = Rc::clone(&node);
            tokio::task::spawn_local(async move {
                node.shared.begin_request();
                let answer = match server {
                    Server::Admin => Reply::Response(api::admin(&node, incoming).await),
                    Server::Status => Reply::Response(api::status(&node, incoming)),
                    Server::Proxy => proxy::handle(&node, incoming).await,
                };
                node.shared.end_request();
                // The client may have gone.
                let _ = reply.send(answer);
            });
        }
    });
    Ok(async move { while servers.join_next().await.is_some() {} })
}

async fn enter(
    State(door): State<Door>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let (reply, answer) = oneshot::channel();
    let incoming = Incoming { parts, body, peer, local: door.local };
    if door.jobs.send((door.server, incoming, reply)).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    }
    match answer.await {
        Ok(Reply::Response(response)) => response,
        // Unwinding the connection's task is the one way to close it without an answer.
        Ok(Reply::Abort) => std::panic::resume_unwind(Box::new("connection closed")),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn plain(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
