//! Listening sockets, opened by the master and inherited by its workers.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use crate::kong::conf::Conf;

/// Which of Kong's servers answers on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The proxy.
    Proxy,
    /// The Admin API.
    Admin,
    /// The Status API.
    Status,
}

/// An open listening socket.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Who answers.
    pub server: Server,
    /// Its address.
    pub address: SocketAddr,
    /// The socket; shared with the cycle before when the address did not change.
    pub socket: Rc<TcpListener>,
}

/// Rounds of attempts, half a second apart, as nginx makes them.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Opens every plain-text listener of a configuration, taking over what `inherited` has open already. TLS listeners
/// are left out: the stand-in speaks none. Complaints go to `complain`, line by line.
pub fn open(conf: &Conf, inherited: &[Bound], mut complain: impl FnMut(&str)) -> Result<Vec<Bound>, ()> {
    let mut wanted = Vec::new();
    for (server, key) in
        [(Server::Proxy, "proxy_listen"), (Server::Admin, "admin_listen"), (Server::Status, "status_listen")]
    {
        wanted
            .extend(conf.listeners(key).iter().filter(|listener| !listener.ssl).map(|l| (server, l.address)));
    }
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        let mut bound = Vec::with_capacity(wanted.len());
        let mut taken = false;
        for (server, address) in &wanted {
            if let Some(open) = inherited.iter().find(|open| open.address == *address) {
                bound.push(Bound { server: *server, ..open.clone() });
                continue;
            }
            match TcpListener::bind(address) {
                Ok(socket) => {
                    bound.push(Bound { server: *server, address: *address, socket: Rc::new(socket) })
                }
                Err(error) => {
                    taken = true;
                    let number = error.raw_os_error().unwrap_or_default();
                    complain(&format!("bind() to {address} failed ({number}: {})", words(&error)));
                }
            }
        }
        if !taken {
            return Ok(bound);
        }
    }
    Err(())
}

/// The operating system's text without Rust's addition.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
