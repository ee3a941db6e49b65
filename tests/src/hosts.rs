//! Several hosts on this machine: network namespaces with an address each, joined by a bridge in a namespace of its own.
//! Nothing outside these namespaces is touched.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Namespaces that are taken down when this is dropped, with every process in them.
#[derive(Debug)]
pub struct Hosts {
    tag: String,
    count: u8,
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    let told = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", told.trim())) }
}

fn ip(words: &str) -> Result<(), String> {
    run(Command::new("ip").args(words.split_whitespace()))
}

impl Hosts {
    /// Hosts 1 to `count`.
    ///
    /// # Errors
    /// Why this machine does not permit it: not root, no iproute2, no network namespaces.
    pub fn new(count: u8) -> Result<Self, String> {
        // Tests of one executable may share its process.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let tag = format!("kctl{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let hosts = Self { tag, count };
        let switch = hosts.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add br0 type bridge forward_delay 0"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        for n in 1..=count {
            let host = hosts.name(n);
            ip(&format!("netns add {host}"))?;
            ip(&format!("link add p{n} netns {switch} type veth peer name eth0 netns {host}"))?;
            ip(&format!("-n {switch} link set p{n} master br0 up"))?;
            ip(&format!("-n {host} addr add {}/24 dev eth0", hosts.address(n)))?;
            ip(&format!("-n {host} link set eth0 up"))?;
            ip(&format!("-n {host} link set lo up"))?;
        }
        Ok(hosts)
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.tag)
    }

    fn name(&self, n: u8) -> String {
        format!("{}-{n}", self.tag)
    }

    pub fn address(&self, n: u8) -> String {
        format!("10.99.0.{n}")
    }

    /// A command that runs on host `n`.
    pub fn command(&self, n: u8, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(n)]).arg(program);
        command
    }

    /// Pulls the cable of host `n`; nobody is told.
    pub fn cut(&self, n: u8) {
        ip(&format!("-n {} link set p{n} down", self.switch())).unwrap();
    }

    pub fn mend(&self, n: u8) {
        ip(&format!("-n {} link set p{n} up", self.switch())).unwrap();
    }

    /// What `from` sends to `to` is lost; the other direction works.
    pub fn deafen(&self, to: u8, from: u8) {
        let (host, address) = (self.name(from), self.address(to));
        ip(&format!("-n {host} neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud permanent"))
            .unwrap();
    }

    pub fn undeafen(&self, to: u8, from: u8) {
        ip(&format!("-n {} neigh del {} dev eth0", self.name(from), self.address(to))).unwrap();
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in (1..=self.count).map(|n| self.name(n)).chain([self.switch()]) {
            if let Ok(pids) = Command::new("ip").args(["netns", "pids", &name]).output() {
                let pids = String::from_utf8_lossy(&pids.stdout);
                let _gone = Command::new("kill").arg("-9").args(pids.split_whitespace()).output();
            }
            let _gone = ip(&format!("netns del {name}"));
        }
    }
}

/// A process that ends with the test.
#[derive(Debug)]
pub struct Daemon(pub Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}
