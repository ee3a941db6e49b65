//! What a development cluster consists of, written down before anything is started.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use kctl_shared::fault::Fault;
use serde::{Deserialize, Serialize};

use super::postgres::Database;
use crate::kong;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub dir: PathBuf,
    pub members: usize,
    pub nodes: usize,
    /// Of the first member's dashboard.
    pub port: Option<u16>,
    pub restart: bool,
    /// Version that the stand-in plays; its newest unless given.
    pub kong_version: Option<String>,
    /// A real Kong's executable, and the database made for it.
    pub kong: Option<(PathBuf, Database)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub dir: PathBuf,
    pub restart: bool,
    pub members: Vec<Member>,
    pub nodes: Vec<Node>,
    /// Dropped when the cluster is taken down.
    pub database: Option<Database>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    pub id: u64,
    pub grpc: String,
    pub http: String,
    pub raft: String,
    pub data_dir: PathBuf,
    pub config: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    /// Kong's executable.
    pub kong: PathBuf,
    pub conf: PathBuf,
    pub prefix: PathBuf,
    pub admin: String,
    pub proxy: String,
    pub status: String,
    pub agent_dir: PathBuf,
    pub lua_dir: PathBuf,
    pub agent_config: PathBuf,
}

fn failed(what: &Path, e: &io::Error) -> Fault {
    Fault::new("DEV_DIR", format!("{}: {e}", what.display())).hint("give another --dir")
}

/// Every directory on the way is 0755: Kong's workers may run as another user.
fn make(dir: &Path) -> Result<(), Fault> {
    fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(|e| failed(dir, &e))
}

fn write(path: &Path, text: &str) -> Result<(), Fault> {
    fs::write(path, text).map_err(|e| failed(path, &e))
}

/// Ports that were free a moment ago; all are held until all are found, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>, Fault> {
    let no_port = |e: io::Error| Fault::new("NO_PORT", format!("no free port: {e}"));
    let held: Vec<_> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>().map_err(no_port)?;
    held.iter().map(|l| Ok(l.local_addr().map_err(no_port)?.port())).collect()
}

/// The stand-in's name. The sample plugin is written as plugins are since 1.2.
fn played(version: Option<&str>) -> Result<String, Fault> {
    let Some(version) = version else { return Ok("kong".into()) };
    let old = ["0.", "1.0", "1.1"].iter().any(|old| version.starts_with(old));
    kong::executable_name(version).filter(|_| !old).ok_or_else(|| {
        Fault::new(
            "KONG_VERSION_UNKNOWN",
            format!("{version:?} is no version of Kong from 1.2 on, such as 2.8.5"),
        )
        .hint("kctl dev --kong-version 2.8.5")
    })
}

impl Plan {
    /// Makes the directories and writes every configuration file.
    ///
    /// # Errors
    /// `DEV_DIR`, `DEV_EXISTS`, `NO_PORT`, `DEV_SIZE`, `KONG_VERSION_UNKNOWN`.
    pub fn make(request: &Request, executable: &Path) -> Result<Self, Fault> {
        let dir = &request.dir;
        if !matches!(request.members, 1 | 3 | 5) || !(1..=100).contains(&request.nodes) {
            return Err(Fault::new("DEV_SIZE", "a cluster has 1, 3 or 5 members and 1 to 100 nodes")
                .hint("kctl dev --help"));
        }
        if dir.join("plan.json").exists() {
            return Err(Fault::new("DEV_EXISTS", format!("{} holds a cluster already", dir.display()))
                .hint(format!("kctl dev down --dir {}", dir.display())));
        }
        for sub in ["", "bin", "log", "members", "nodes", "datastore"] {
            make(&dir.join(sub))?;
        }
        let stand_in = dir.join("bin").join(played(request.kong_version.as_deref())?);
        symlink(executable, &stand_in).map_err(|e| failed(&stand_in, &e))?;
        let mut ports = free_ports(request.members * 3 + request.nodes * 3)?.into_iter();
        let mut url = || format!("http://127.0.0.1:{}", ports.next().unwrap_or_default());
        let mut members = Vec::new();
        for id in 1..=request.members as u64 {
            let home = dir.join(format!("members/{id}"));
            make(&home)?;
            let mut http = url();
            if let (1, Some(port)) = (id, request.port) {
                http = format!("http://127.0.0.1:{port}");
            }
            let config = home.join("member.toml");
            members.push(Member { id, grpc: url(), http, raft: url(), data_dir: home.join("data"), config });
        }
        let mut nodes = Vec::new();
        for n in 1..=request.nodes {
            let id = format!("kong-{n}");
            let home = dir.join("nodes").join(&id);
            let node = Node {
                kong: request.kong.as_ref().map_or(&stand_in, |(bin, _)| bin).clone(),
                conf: home.join("kong.conf"),
                prefix: home.join("prefix"),
                admin: url(),
                proxy: url(),
                status: url(),
                agent_dir: home.join("agent"),
                lua_dir: home.join("kctl"),
                agent_config: home.join("agent.toml"),
                id,
            };
            for sub in [&home, &node.prefix, &node.lua_dir] {
                make(sub)?;
            }
            nodes.push(node);
        }
        let database = request.kong.as_ref().map(|(_, database)| database.clone());
        let plan = Self { dir: dir.clone(), restart: request.restart, members, nodes, database };
        plan.write_configs()?;
        let text = serde_json::to_string_pretty(&plan).unwrap_or_default();
        write(&dir.join("plan.json"), &text)?;
        Ok(plan)
    }

    /// # Errors
    /// `DEV_NOT_FOUND` when the directory holds no cluster.
    pub fn load(dir: &Path) -> Result<Self, Fault> {
        let missing = || {
            Fault::new("DEV_NOT_FOUND", format!("{} holds no development cluster", dir.display()))
                .hint("check --dir")
        };
        let text = fs::read_to_string(dir.join("plan.json")).map_err(|_| missing())?;
        serde_json::from_str(&text).map_err(|_| missing())
    }

    fn write_configs(&self) -> Result<(), Fault> {
        let port = |url: &str| url.rsplit(':').next().unwrap_or_default().to_owned();
        let table = |m: &Member| {
            format!("[members.{}]\ngrpc = {:?}\nhttp = {:?}\nraft = {:?}\n", m.id, m.grpc, m.http, m.raft)
        };
        let members: String = self.members.iter().map(table).collect();
        for m in &self.members {
            let listen = |url| format!("127.0.0.1:{}", port(url));
            let text = format!(
                "id = {}\ndata_dir = {:?}\nlisten = {{ grpc = {:?}, http = {:?}, raft = {:?} }}\n{members}",
                m.id,
                m.data_dir,
                listen(&m.grpc),
                listen(&m.http),
                listen(&m.raft)
            );
            write(&m.config, &text)?;
        }
        let endpoints: Vec<_> = self.members.iter().map(|m| &m.grpc).collect();
        let context = format!("current = \"dev\"\n\n[contexts.dev]\nendpoints = {endpoints:?}\n");
        write(&self.dir.join("kctl.toml"), &context)?;
        let datastore = match &self.database {
            Some(database) => database.kong_conf(),
            None => format!(
                "database = postgres\npg_host = {}\npg_database = kong\n",
                self.dir.join("datastore").display()
            ),
        };
        for n in &self.nodes {
            let conf = format!(
                "# Kong node {} of a development cluster.\nprefix = {}\n{datastore}proxy_listen = 127.0.0.1:{}\nadmin_listen = 127.0.0.1:{}\n\
                 status_listen = 127.0.0.1:{}\nadmin_gui_listen = off\nnginx_main_worker_processes = 2\nplugins = bundled\n",
                n.id,
                n.prefix.display(),
                port(&n.proxy),
                port(&n.admin),
                port(&n.status)
            );
            write(&n.conf, &conf)?;
            let agent = format!(
                "node = {:?}\ngroup = \"default\"\ncontrol_plane = {endpoints:?}\nstate_dir = {:?}\nlua_dir = {:?}\n\n\
                 [kong]\nbin = {:?}\nconf = {:?}\nprefix = {:?}\n",
                n.id, n.agent_dir, n.lua_dir, n.kong, n.conf, n.prefix
            );
            write(&n.agent_config, &agent)?;
        }
        Ok(())
    }
}
