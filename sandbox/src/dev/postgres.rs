//! A database of its own for a real Kong, in a Postgres server on this machine.

use kctl_shared::fault::Fault;
use serde::{Deserialize, Serialize};
use tokio_postgres::{Config, NoTls, config::Host};

/// Where Kong finds it; the password is the one that was given on the command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Database {
    /// The server, as it was given.
    pub server: String,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub name: String,
}

fn failed(e: impl std::fmt::Display) -> Fault {
    Fault::new("POSTGRES", format!("{e}"))
        .hint("check --pg: postgres://user:password@127.0.0.1:5432, a user who may create databases")
}

impl Database {
    /// Makes a fresh database.
    ///
    /// # Errors
    /// `POSTGRES`, also for a server that is not on loopback.
    pub async fn create(server: &str) -> Result<Self, Fault> {
        let config: Config = server.parse().map_err(failed)?;
        let host = match config.get_hosts() {
            [Host::Tcp(host)]
                if host == "localhost"
                    || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) =>
            {
                host.clone()
            }
            _ => return Err(failed("the server must be one address on loopback")),
        };
        let database = Self {
            server: server.to_owned(),
            host,
            port: config.get_ports().first().copied().unwrap_or(5432),
            user: config.get_user().unwrap_or("postgres").to_owned(),
            password: String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned(),
            name: format!("kctl_dev_{}", uuid::Uuid::new_v4().simple()),
        };
        database.execute(&format!("CREATE DATABASE {}", database.name)).await?;
        Ok(database)
    }

    /// # Errors
    /// `POSTGRES`.
    pub async fn drop(&self) -> Result<(), Fault> {
        self.execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await
    }

    async fn execute(&self, statement: &str) -> Result<(), Fault> {
        let mut config: Config = self.server.parse().map_err(failed)?;
        if config.get_dbname().is_none() {
            config.dbname("postgres");
        }
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        let connection = tokio::spawn(connection);
        let done = client.batch_execute(statement).await.map_err(failed);
        drop(client);
        drop(connection.await);
        done
    }

    pub fn kong_conf(&self) -> String {
        format!(
            "database = postgres\npg_host = {}\npg_port = {}\npg_user = {}\npg_password = {}\npg_database = {}\n",
            self.host, self.port, self.user, self.password, self.name
        )
    }
}
