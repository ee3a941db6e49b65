//! Accepted connections whose first request has not arrived yet.
//!
//! A worker that is told to drain accepts nothing more, but a client that was let in a moment before is still answered.
//! The HTTP library would close it, as one that has said nothing; so the drain waits for its first byte.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a silent connection is given.
const FIRST_BYTE: Duration = Duration::from_secs(1);

/// Accepts until told to drain.
#[derive(Debug)]
pub struct Entrance {
    listener: TcpListener,
    draining: watch::Receiver<bool>,
    silent: watch::Sender<usize>,
}

impl Entrance {
    pub fn new(listener: TcpListener, draining: watch::Receiver<bool>) -> Self {
        Self { listener, draining, silent: watch::Sender::new(0) }
    }

    /// Ends when the worker drains and whoever was let in has said something or had the time to.
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        let (mut draining, mut silent) = (self.draining.clone(), self.silent.subscribe());
        async move {
            // A closed channel means the worker is going; draining is right then too.
            let _ = draining.wait_for(|draining| *draining).await;
            let _ = tokio::time::timeout(FIRST_BYTE, silent.wait_for(|count| *count == 0)).await;
        }
    }
}

impl Listener for Entrance {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let mut draining = self.draining.clone();
        let told = async move { drop(draining.wait_for(|draining| *draining).await) };
        tokio::select! {
            biased;
            () = told => {}
            (stream, peer) = Listener::accept(&mut self.listener) => {
                self.silent.send_modify(|count| *count += 1);
                return (Connection { stream, silent: Some(self.silent.clone()) }, peer);
            }
        }
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The client's address.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, Entrance>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Entrance>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A stream that tells of its first byte.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    silent: Option<watch::Sender<usize>>,
}

impl Connection {
    fn heard(&mut self) {
        if let Some(silent) = self.silent.take() {
            silent.send_modify(|count| *count -= 1);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.heard();
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if outcome.is_ready() {
            self.heard();
        }
        outcome
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
