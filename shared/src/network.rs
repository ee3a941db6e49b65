//! The port to the network: where connections go to and come from.
//!
//! The daemons use [`Tcp`]. A simulation puts a network of its own behind the same port and runs what they run.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tonic::codegen::Service;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Uri};

use crate::endpoint;
use crate::fault::Fault;

/// Bytes in both directions.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

pub type Io = Box<dyn Connection>;

/// Nothing here goes by who is at the other end.
impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// What a port promises.
pub type Promise<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Connects to the host and port of `uri`; how long that may take the caller says.
    fn connect(&self, uri: Uri) -> Promise<'static, Io>;

    fn listen(&self, address: SocketAddr) -> Promise<'static, Box<dyn Listener>>;
}

pub trait Listener: Send + 'static {
    /// Cancel-safe.
    fn accept(&mut self) -> Promise<'_, (Io, SocketAddr)>;

    /// # Errors
    /// As the operating system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The network there is.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

/// Connections that may wait to be accepted, as far as the kernel allows (`net.core.somaxconn`): thousands of agents come at
/// once, and one that finds no place tries again only after a second.
const BACKLOG: u32 = 65_535;

impl Network for Tcp {
    fn connect(&self, uri: Uri) -> Promise<'static, Io> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        Box::pin(async move {
            let connected = connector.call(uri).await.map_err(io::Error::other)?;
            Ok(Box::new(connected.into_inner()) as Io)
        })
    }

    fn listen(&self, address: SocketAddr) -> Promise<'static, Box<dyn Listener>> {
        Box::pin(async move {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(Box::new(socket.listen(BACKLOG)?) as Box<dyn Listener>)
        })
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> Promise<'_, (Io, SocketAddr)> {
        Box::pin(async {
            let (stream, peer) = Self::accept(self).await?;
            // Small messages in both directions, each of which somebody waits for. One that is closed already needs none.
            let _closed = stream.set_nodelay(true);
            Ok((Box::new(stream) as Io, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

/// How a member is dialled.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection to come about.
    pub connect: Duration,
    /// Who vanishes without a word is noticed within two of it.
    pub keepalive: Duration,
}

/// Dials members. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    network: Arc<dyn Network>,
    insecure: bool,
}

/// `insecure` permits addresses off loopback, see [`endpoint`].
pub fn dialer(network: Arc<dyn Network>, insecure: bool) -> Dialer {
    Dialer { network, insecure }
}

impl Dialer {
    /// Whether `url` may be dialled.
    ///
    /// # Errors
    /// As [`endpoint::check_dial`].
    pub fn check(&self, url: &str) -> Result<(), Fault> {
        endpoint::check_dial(url, self.insecure)
    }

    /// A connection of the caller's own, for what is not gRPC.
    ///
    /// # Errors
    /// `UNREACHABLE`, and those of [`endpoint::check_dial`].
    pub async fn open(&self, url: &str, patience: Patience) -> Result<Io, Fault> {
        self.check(url)?;
        let failed = |why: &dyn fmt::Display| Fault::new("UNREACHABLE", format!("{url}: {why}"));
        let uri: Uri = url.parse().map_err(|e| failed(&e))?;
        let connected = tokio::time::timeout(patience.connect, self.network.connect(uri)).await;
        connected.map_err(|_| failed(&"no connection in time"))?.map_err(|e| failed(&e))
    }

    /// A channel that connects when it is first used and again whenever it broke.
    ///
    /// # Errors
    /// As [`endpoint::check_dial`].
    pub fn channel(&self, url: &str, patience: Patience) -> Result<Channel, Fault> {
        let endpoint = endpoint::dial(url, self.insecure, patience.connect, patience.keepalive)?;
        Ok(endpoint.connect_with_connector_lazy(Connector(self.network.clone())))
    }

    /// As [`Self::channel`], connected now.
    ///
    /// # Errors
    /// `UNREACHABLE`, and those of [`endpoint::check_dial`].
    pub async fn connect(&self, url: &str, patience: Patience) -> Result<Channel, Fault> {
        let endpoint = endpoint::dial(url, self.insecure, patience.connect, patience.keepalive)?;
        let connected = endpoint.connect_with_connector(Connector(self.network.clone())).await;
        connected.map_err(|e| Fault::new("UNREACHABLE", format!("{url}: {e}")))
    }
}

struct Connector(Arc<dyn Network>);

impl Service<Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = io::Error;
    type Future = Promise<'static, TokioIo<Io>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.connect(uri);
        Box::pin(async move { Ok(TokioIo::new(connecting.await?)) })
    }
}
