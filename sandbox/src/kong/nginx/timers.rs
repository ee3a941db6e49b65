//! A worker's periodic duties: noticing writes and rebuilding router and plugins iterator.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::kong::node::Node;

/// How often a worker looks whether a sibling took in a declarative configuration; one atomic load each time.
const SIBLING_CHECK: Duration = Duration::from_millis(250);

/// Starts both timers of Kong: the poll for cluster events and the rebuild.
pub fn start(node: &Rc<Node>) {
    let seconds =
        |key: &str| Duration::from_secs_f64(node.engine.host().conf.number(key).clamp(0.05, 86_400.0));
    if node.engine.host().store.is_shared() {
        let poll = seconds("db_update_frequency");
        let propagation =
            Duration::from_secs_f64(node.engine.host().conf.number("db_update_propagation").max(0.0));
        let polling = Rc::clone(node);
        spawn_local(async move {
            loop {
                sleep(poll).await;
                polling.poll_cluster_events(propagation).await;
            }
        });
    }
    // Without a database a new configuration comes from a sibling worker, which Kong announces by an event.
    let shared = node.engine.host().store.is_shared();
    let rebuild = if shared { seconds("worker_state_update_frequency") } else { SIBLING_CHECK };
    let rebuilding = Rc::clone(node);
    spawn_local(async move {
        loop {
            sleep(rebuild).await;
            if shared {
                rebuilding.rebuild_if_due();
            } else {
                rebuilding.adopt_if_due();
            }
        }
    });
}
