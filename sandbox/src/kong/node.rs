//! A node as one of its workers sees it: loaded plugins, router, plugins iterator, and how current they are.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::task::TaskTracker;

use crate::kong::db::{Data, EMPTY_HASH, Store};
use crate::kong::log;
use crate::kong::lua::Engine;
use crate::kong::proxy::Router;
use crate::kong::shm::Shared;

/// Whether the Admin API's plugin routes were loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminApi {
    /// Nobody has asked anything yet.
    Unloaded,
    /// In service.
    Loaded,
    /// A plugin's `api.lua` threw, and with it the whole Admin API is gone.
    Broken,
}

/// One worker's state.
#[derive(Debug)]
pub struct Node {
    /// The VM with the plugins.
    pub engine: Rc<Engine>,
    /// What the worker shares with the others.
    pub shared: Shared,
    /// Number of workers.
    pub workers: usize,
    /// Pid of the master.
    pub master: i32,
    /// Why the worker did not initialise properly.
    pub init_error: RefCell<Option<String>>,
    /// Upgraded connections; they hold a draining worker as requests do.
    pub tunnels: TaskTracker,
    /// State of the Admin API.
    pub admin: Cell<AdminApi>,
    router: RefCell<Rc<Router>>,
    /// What router and iterator were built from; the iterator lags behind when it cannot be rebuilt.
    routed: RefCell<Rc<Data>>,
    iterated: RefCell<Rc<Data>>,
    /// Version of the datastore this worker knows of.
    seen: Cell<u64>,
    /// Writes through this node that the worker has taken notice of.
    local_writes: Cell<u64>,
    flushes: Cell<u64>,
}

impl Node {
    /// A worker that has built nothing yet.
    pub fn new(engine: Rc<Engine>, shared: Shared, workers: usize, master: i32) -> Self {
        let empty = Rc::new(Data::default());
        Self {
            engine,
            shared,
            workers,
            master,
            init_error: RefCell::new(None),
            tunnels: TaskTracker::new(),
            admin: Cell::new(AdminApi::Unloaded),
            router: RefCell::new(Rc::new(Router::default())),
            routed: RefCell::new(Rc::clone(&empty)),
            iterated: RefCell::new(empty),
            seen: Cell::new(0),
            local_writes: Cell::new(shared.config_version()),
            flushes: Cell::new(shared.flushes()),
        }
    }

    /// The node's datastore.
    pub fn store(&self) -> &Store {
        &self.engine.host().store
    }

    /// The router in service.
    pub fn router(&self) -> Rc<Router> {
        Rc::clone(&self.router.borrow())
    }

    /// Whether any entity of `plugin` is in service.
    pub fn configures(&self, plugin: &str) -> bool {
        let data = self.iterated.borrow();
        data.all("plugins").any(|row| row["name"] == plugin && row["enabled"] != false)
    }

    /// Kong's init_worker phase.
    pub fn start(&self, number: usize) {
        self.shared.set_worker(number, std::process::id());
        let data = self.store().read().unwrap_or_default();
        self.build_router(&data);
        if let Some(complaint) = data.in_use_but_not_enabled(&self.engine.host().conf.loaded_plugins()) {
            let error = if self.store().is_shared() {
                format!("failed to build the plugins iterator: {complaint}")
            } else {
                format!(
                    "failed to initialize declarative config: error building initial plugins iterator: {complaint}"
                )
            };
            return self.fail("966", error);
        }
        if !self.store().is_shared() {
            self.shared.count_router_build();
            self.shared.count_iterator_build();
        }
        self.build_iterator(&data);
        match self.engine.init_worker() {
            Ok(None) => {}
            Ok(Some(error)) => self.fail("987", error),
            Err(error) => self.fail("987", error.to_string()),
        }
    }

    fn fail(&self, line: &str, error: String) {
        log::write(
            "crit",
            &format!(
                "*1 [lua] init.lua:{line}: init_worker(): worker initialization error: {error}; this node must be \
                 restarted, context: init_worker_by_lua*"
            ),
        );
        *self.init_error.borrow_mut() = Some(error);
    }

    fn build_router(&self, data: &Rc<Data>) {
        *self.router.borrow_mut() = Rc::new(Router::build(data));
        *self.routed.borrow_mut() = Rc::clone(data);
        self.seen.set(data.version);
    }

    fn build_iterator(&self, data: &Rc<Data>) {
        if let Err(error) = self.engine.build_iterator(data) {
            log::write(
                "error",
                &format!("[lua] handler.lua:1034: could not rebuild plugins iterator: {error}"),
            );
        }
        *self.iterated.borrow_mut() = Rc::clone(data);
    }

    /// Looks for writes of other nodes; they count after the propagation delay.
    pub async fn poll_cluster_events(&self, propagation: Duration) {
        if self.flushes.replace(self.shared.flushes()) != self.shared.flushes() {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map(|since| since.as_secs_f64())
                .unwrap_or_default();
            log::write(
                "crit",
                &format!(
                    "*2 [lua] init.lua:293: [cluster_events] no 'at' in shm, polling events from: {:.3}, context: ngx.timer",
                    now - 10.0
                ),
            );
        }
        if let Ok(data) = self.store().read() {
            if !propagation.is_zero() {
                tokio::time::sleep(propagation).await;
            }
            self.seen.set(data.version);
        }
    }

    /// Rebuilds what is older than what the worker knows of. A plugin row without its plugin stops the iterator from
    /// being rebuilt at all; the stale one stays in service.
    pub fn rebuild_if_due(&self) {
        let writes = self.shared.config_version();
        let local = self.local_writes.replace(writes) != writes;
        let behind = self.iterated.borrow().version < self.seen.get()
            || self.routed.borrow().version < self.seen.get();
        if !local && !behind {
            return;
        }
        let Ok(data) = self.store().read() else { return };
        let table = |data: &Data, kind: &str| data.entities.get(kind).cloned().unwrap_or_default();
        let differs =
            |built: &Data, kinds: &[&str]| kinds.iter().any(|kind| table(built, kind) != table(&data, kind));
        let reroute = differs(&self.routed.borrow(), &["services", "routes"]);
        if reroute || self.routed.borrow().version != data.version {
            self.build_router(&data);
        }
        if reroute {
            self.shared.count_router_build();
        }
        let rebuild = differs(&self.iterated.borrow(), &["plugins"]);
        if !rebuild {
            *self.iterated.borrow_mut() = Rc::clone(&data);
            return;
        }
        if let Some(complaint) = data.in_use_but_not_enabled(&self.engine.host().conf.loaded_plugins()) {
            log::write(
                "error",
                &format!(
                    "*3 [lua] handler.lua:1034: could not rebuild plugins iterator via timer: {complaint}, context: ngx.timer"
                ),
            );
            return;
        }
        self.build_iterator(&data);
        self.shared.count_iterator_build();
    }

    /// Takes a new declarative configuration into service at once.
    pub fn adopt(&self, data: &Rc<Data>) {
        self.build_router(data);
        self.build_iterator(data);
        self.shared.count_router_build();
        self.shared.count_iterator_build();
        self.local_writes.set(self.shared.config_version());
    }

    /// Catches up with a declarative configuration that another worker of the node took in.
    pub fn adopt_if_due(&self) {
        if !self.store().is_shared()
            && self.local_writes.get() != self.shared.config_version()
            && let Ok(data) = self.store().read()
        {
            self.adopt(&data);
        }
    }

    /// Kong's readiness: `Err` says why not.
    pub fn ready(&self) -> Result<(), String> {
        if self.shared.draining() {
            return Err("draining".to_owned());
        }
        let (routers, iterators) = self.shared.builds();
        if self.store().is_shared() {
            if !self.store().reachable() {
                return Err("failed to connect to database".to_owned());
            }
            if routers == 0 {
                return Err("router builds not yet complete".to_owned());
            }
            if iterators == 0 {
                return Err("plugins iterator build not yet complete".to_owned());
            }
            return Ok(());
        }
        let workers = self.workers as u64;
        if self.store().read().map_or(true, |data| data.hash == EMPTY_HASH) {
            return Err("no configuration available (empty configuration present)".to_owned());
        }
        if routers < workers {
            return Err(format!(
                "router builds not yet complete, router ready in {routers} of {workers} workers"
            ));
        }
        if iterators < workers {
            return Err(format!(
                "plugins iterator builds not yet complete, plugins iterator ready in {iterators} of {workers} workers"
            ));
        }
        Ok(())
    }
}
