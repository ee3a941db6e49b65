//! `GET /`, `/status` and `/plugins/enabled`.

use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::{Answer, tail};
use crate::kong::db::ApiError;
use crate::kong::log;
use crate::kong::lua::host::hostname;
use crate::kong::nginx::Incoming;
use crate::kong::node::Node;
use crate::kong::version::{played, since};

/// What a node says of itself.
pub fn root(node: &Rc<Node>, request: &Incoming) -> Answer {
    let host = node.engine.host();
    let mut available = Map::new();
    let mut names = Vec::new();
    for (name, version, priority) in node.engine.available().map_err(|_| ApiError::unexpected())? {
        // A PRIORITY that passed the loader is integral.
        #[allow(clippy::cast_possible_truncation)]
        let priority = priority as i64;
        names.push(name.clone());
        let shown =
            if since(3, 0, 0) { json!({"version": version, "priority": priority}) } else { json!(true) };
        available.insert(name, shown);
    }
    let mut pids = Map::new();
    let mut workers = Vec::new();
    for number in 0..node.workers {
        match node.shared.worker(number) {
            Some(pid) => workers.push(pid),
            None if !since(2, 3, 3) => {}
            None => log::write(
                "error",
                &format!(
                    "*2 [lua] kong.lua:102: fn(): could not get worker process id for worker #{number}: not found{}",
                    tail(request)
                ),
            ),
        }
    }
    let seeds: Map<String, Value> = workers.iter().map(|pid| (format!("pid: {pid}"), json!(pid))).collect();
    if !workers.is_empty() {
        pids.insert("workers".to_owned(), json!(workers));
    }
    pids.insert("master".to_owned(), json!(node.master));
    let data = node.store().read()?;
    let available = if since(0, 9, 0) { Value::Object(available) } else { json!(names) };
    let mut shown = json!({
        "plugins": {"available_on_server": available, "enabled_in_cluster": data.plugin_names()},
        "hostname": hostname(), "version": played().to_string(), "tagline": "Welcome to kong",
        "lua_version": "LuaJIT 2.1-20231117",
    });
    if since(0, 6, 0) {
        shown["timers"] = json!({"pending": 1, "running": 641});
        shown["configuration"] = host.conf.to_json();
    }
    if since(0, 11, 0) {
        shown["node_id"] = json!(host.node_id);
    }
    if since(2, 3, 3) {
        shown["pids"] = json!(pids);
    } else if since(0, 10, 0) {
        shown["prng_seeds"] = json!(seeds);
    }
    if since(3, 6, 0) {
        shown["edition"] = json!("community");
    }
    Ok((200, shown))
}

/// Names of the loaded plugins.
pub fn enabled(node: &Rc<Node>) -> Answer {
    let names = node.engine.available().map_err(|_| ApiError::unexpected())?;
    let names: Vec<String> = names.into_iter().map(|(name, _, _)| name).collect();
    Ok((200, json!({"enabled_plugins": names})))
}

/// Memory, connections, and the state of the datastore.
pub fn status(node: &Rc<Node>) -> Value {
    let dicts = [
        ("kong", "5.00", "0.04"),
        ("kong_locks", "8.00", "0.06"),
        ("kong_healthchecks", "5.00", "0.04"),
        ("kong_cluster_events", "5.00", "0.04"),
        ("kong_rate_limiting_counters", "12.00", "0.08"),
        ("kong_core_db_cache", "128.00", "0.76"),
        ("kong_core_db_cache_miss", "12.00", "0.08"),
        ("kong_db_cache", "128.00", "0.76"),
        ("kong_db_cache_miss", "12.00", "0.08"),
        ("kong_secrets", "5.00", "0.04"),
        ("prometheus_metrics", "5.00", "0.04"),
    ];
    let dicts: Map<String, Value> = dicts
        .into_iter()
        .map(|(name, capacity, used)| {
            (
                name.to_owned(),
                json!({"allocated_slabs": format!("{used} MiB"), "capacity": format!("{capacity} MiB")}),
            )
        })
        .collect();
    let vms: Vec<Value> = (0..node.workers)
        .filter_map(|number| node.shared.worker(number))
        .map(|pid| json!({"pid": pid, "http_allocated_gc": "51.55 MiB"}))
        .collect();
    let (total, active) = node.shared.requests();
    let mut answer = json!({
        "memory": {"lua_shared_dicts": dicts, "workers_lua_vms": vms},
        "server": {
            "connections_writing": active, "connections_waiting": 0, "total_requests": total,
            "connections_accepted": total, "connections_handled": total, "connections_active": active,
            "connections_reading": 0,
        },
    });
    if node.store().is_shared() {
        answer["database"] = json!({"reachable": node.store().reachable()});
    } else {
        let hash = node.store().read().map(|data| data.hash.clone()).unwrap_or_default();
        answer["configuration_hash"] = json!(hash);
    }
    answer
}
