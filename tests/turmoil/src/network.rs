//! Turmoil behind the network port. Every host listens on all of its addresses, and is dialled by name.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use kctl_shared::network::{Io, Listener, Network, Promise};
use tonic::transport::Uri;
use turmoil::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, Debug)]
pub struct Simulated;

impl Network for Simulated {
    fn connect(&self, uri: Uri) -> Promise<'static, Io> {
        Box::pin(async move {
            let nobody = || io::Error::new(io::ErrorKind::InvalidInput, "no host and port");
            let host = uri.host().ok_or_else(nobody)?.to_owned();
            let port = uri.port_u16().ok_or_else(nobody)?;
            Ok(Box::new(TcpStream::connect((host, port)).await?) as Io)
        })
    }

    fn listen(&self, address: SocketAddr) -> Promise<'static, Box<dyn Listener>> {
        Box::pin(async move {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?;
            Ok(Box::new(Ear(listener)) as Box<dyn Listener>)
        })
    }
}

struct Ear(TcpListener);

impl Listener for Ear {
    fn accept(&mut self) -> Promise<'_, (Io, SocketAddr)> {
        Box::pin(async {
            let (stream, peer) = self.0.accept().await?;
            Ok((Box::new(stream) as Io, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
