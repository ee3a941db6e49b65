//! A worker: the master's fork that serves requests.

use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::Cycle;
use crate::kong::lua::Phase;
use crate::kong::node::Node;
use crate::kong::shm::Shared;
use crate::kong::{log, raw};

/// What a fork needs to become a worker.
#[derive(Debug)]
pub struct Worker<'a> {
    /// Number within the generation.
    pub number: usize,
    /// The master's cycle at the moment of the fork.
    pub cycle: &'a Cycle,
    /// The node's shared memory.
    pub shared: Shared,
    /// The argv memory.
    pub title: Option<&'a raw::Title>,
    /// Pid of the master.
    pub master: i32,
}

/// How serving ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// QUIT: after the last request.
    Drained,
    /// TERM, or the drain took too long.
    Stopped,
}

impl Worker<'_> {
    /// Serves until signalled; the result is the exit code.
    pub fn run(self) -> i32 {
        self.retitle("nginx: worker process");
        let host = self.cycle.engine.host();
        host.phase.set(Phase::Worker);
        host.worker_id.set(u64::try_from(self.number).ok());
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                log::write("emerg", &format!("epoll_create() failed ({error})"));
                return 2;
            }
        };
        let end = LocalSet::new().block_on(&runtime, self.serve());
        match end {
            Ok(_) => {
                log::write("notice", "exiting");
                log::write("notice", "exit");
                0
            }
            Err(error) => {
                log::write("emerg", &format!("worker failed ({error})"));
                2
            }
        }
    }

    fn retitle(&self, title: &str) {
        if let Some(area) = self.title {
            area.set(title);
        }
    }

    async fn serve(&self) -> std::io::Result<End> {
        let mut quit = signal(SignalKind::quit())?;
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // A worker takes no notice of these, but their default would kill it.
        let _ignored = [
            signal(SignalKind::hangup())?,
            signal(SignalKind::user_defined1())?,
            signal(SignalKind::alarm())?,
            signal(SignalKind::child())?,
            signal(SignalKind::window_change())?,
        ];
        raw::unblock_signals();
        let node =
            Rc::new(Node::new(Rc::clone(&self.cycle.engine), self.shared, self.cycle.workers, self.master));
        node.start(self.number);
        super::timers::start(&node);
        let (drain, draining) = watch::channel(false);
        let servers = super::serve::start(&node, &self.cycle.listeners, &draining)?;
        tokio::pin!(servers);
        tokio::select! {
            // Ends early only when a socket breaks; the master will fork another.
            () = &mut servers, if !self.cycle.listeners.is_empty() => return Ok(End::Stopped),
            _ = term.recv() => return Ok(End::Stopped),
            _ = interrupt.recv() => return Ok(End::Stopped),
            _ = quit.recv() => {}
        }
        self.retitle("nginx: worker process is shutting down");
        log::write("notice", "gracefully shutting down");
        node.engine.host().exiting.set(true);
        // The receivers live in `servers`; without any there is nothing to drain.
        let _ = drain.send(true);
        let limit = self.cycle.shutdown_timeout.unwrap_or(Duration::MAX);
        let drained = async {
            servers.await;
            node.tunnels.close();
            node.tunnels.wait().await;
        };
        tokio::select! {
            () = drained => Ok(End::Drained),
            () = tokio::time::sleep(limit) => Ok(End::Stopped),
            _ = term.recv() => Ok(End::Stopped),
        }
    }
}
