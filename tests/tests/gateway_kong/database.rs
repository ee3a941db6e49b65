//! A database for nodes, with a switch: the stand-in's is a directory, a real one (`KCTL_TEST_PG=HOST:PORT`, user and
//! password `kong`) is reached through a forwarder.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Url;

#[derive(Debug)]
pub enum Database {
    Directory(PathBuf),
    Forwarded { server: Url, port: u16, name: String, up: Arc<AtomicBool> },
}

impl Database {
    /// `None` when the Kong under test is a real one and no server was named.
    pub fn create(below: &Path) -> Option<Self> {
        if std::env::var_os("KCTL_TEST_KONG").is_none() {
            let directory = below.join("pg");
            std::fs::create_dir(&directory).unwrap();
            return Some(Self::Directory(directory));
        }
        let Ok(server) = std::env::var("KCTL_TEST_PG").map(|url| Url::parse(&url).unwrap()) else {
            eprintln!("KCTL_TEST_PG names no server; nothing is tried on a database");
            return None;
        };
        let name = format!("kctl_gw_{}", uuid::Uuid::new_v4().simple());
        psql(&server, &format!("create database {name}"));
        let up = Arc::new(AtomicBool::new(true));
        let port = forward(server.clone(), up.clone());
        Some(Self::Forwarded { server, port, name, up })
    }

    pub fn conf(&self) -> String {
        match self {
            Self::Directory(directory) => {
                format!("database = postgres\npg_host = {}\npg_database = kong\n", directory.display())
            }
            Self::Forwarded { server, port, name, .. } => format!(
                "database = postgres\npg_host = 127.0.0.1\npg_port = {port}\npg_user = {}\npg_password = {}\npg_database = {name}\n",
                server.username(),
                server.password().unwrap_or_default()
            ),
        }
    }

    pub fn needs_bootstrap(&self) -> bool {
        matches!(self, Self::Forwarded { .. })
    }

    pub fn down(&self) {
        match self {
            Self::Directory(directory) => {
                std::fs::rename(directory, directory.with_extension("away")).unwrap()
            }
            Self::Forwarded { up, .. } => up.store(false, Ordering::SeqCst),
        }
    }

    pub fn up(&self) {
        match self {
            Self::Directory(directory) => {
                std::fs::rename(directory.with_extension("away"), directory).unwrap()
            }
            Self::Forwarded { up, .. } => up.store(true, Ordering::SeqCst),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::Forwarded { server, name, .. } = self {
            psql(server, &format!("drop database if exists {name} with (force)"));
        }
    }
}

fn psql(server: &Url, sql: &str) {
    let mut server = server.clone();
    server.set_path("postgres");
    let ended = Command::new("psql").args(["-q", "-d", server.as_str(), "-c", sql]).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

/// Connections are cut while the switch is off.
fn forward(server: Url, up: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(upstream) =
                TcpStream::connect((server.host_str().unwrap(), server.port().unwrap_or(5432)))
            else {
                continue;
            };
            if !up.load(Ordering::SeqCst) {
                continue;
            }
            let (a, b) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            let (there, back) = (up.clone(), up.clone());
            std::thread::spawn(move || pump(client, upstream, &there));
            std::thread::spawn(move || pump(b, a, &back));
        }
    });
    port
}

fn pump(mut from: TcpStream, mut to: TcpStream, up: &AtomicBool) {
    from.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let mut buffer = [0; 16384];
    while up.load(Ordering::SeqCst) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
