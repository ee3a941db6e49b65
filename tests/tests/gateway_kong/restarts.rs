//! `apply = "restart"` on Kongs that could be reloaded: another master, no HUP, and the same proof.

use std::fs;
use std::time::Duration;

use kctl_node_agent::config::Preflight;
use kctl_node_agent::gateway::{EnactError, Gateway as _};
use kctl_shared::spec::KongState;

use crate::node::{Node, enact, put_back, waiting, without};
use crate::versions::plugin;

fn hups(node: &Node) -> usize {
    let log = fs::read_to_string(node.prefix().join("logs/error.log")).unwrap();
    log.matches("(SIGHUP) received").count()
}

async fn comes_and_goes(node: &Node) {
    let original = node.read_conf();
    let kong = node.restarting();
    let before = without("hello", None);
    let first = node.pid().unwrap();
    let wanted = plugin(node, "1.0.0", "");
    enact(&kong, &wanted, &before).await.unwrap();
    let second = node.pid().unwrap();
    assert_ne!(second, first, "another master");
    assert!(node.has("hello"));
    assert_eq!(kong.proven(&wanted).await, Ok(()));
    let seen = kong.observe().await;
    assert_eq!((seen.facts.state, &seen.trouble), (KongState::Running, &None));
    assert_eq!((&seen.armed_generation, &seen.conf_generation), (&wanted.generation, &wanted.generation));
    assert!(seen.old_generations.iter().all(|g| Some(g) == wanted.generation.as_ref()), "{seen:?}");
    assert!(seen.limits.iter().any(|l| l.code == "APPLIED_BY_RESTART"), "{seen:?}");

    // What is as wanted is not restarted again, by another agent neither.
    enact(&node.restarting(), &wanted, &before).await.unwrap();
    assert_eq!(node.pid(), Some(second));

    enact(&kong, &before, &wanted).await.unwrap();
    assert!(!node.has("hello"));
    assert_ne!(node.pid(), Some(second));
    assert_eq!(kong.proven(&before).await, Ok(()));
    assert_eq!(node.read_conf(), original);
    assert_eq!(hups(node), 0);
}

#[tokio::test]
async fn on_a_kong_without_a_database() {
    comes_and_goes(&Node::started("plugins = bundled\n")).await;
}

#[tokio::test]
async fn on_a_database() {
    let Some((node, _database)) = Node::on_database() else { return };
    comes_and_goes(&node).await;
}

#[tokio::test]
async fn on_older_versions() {
    for version in ["0.11.2", "0.14.1", "1.5.1", "2.2.2", "2.8.5", "3.0.2"] {
        let Some(node) = Node::of_version(version) else { return };
        comes_and_goes(&node).await;
    }
}

/// A start that fails leaves nothing running, and one that succeeds may still not be proven: both are put back.
#[tokio::test]
async fn what_does_not_work_is_put_back_by_another_restart() {
    let node = Node::started("plugins = bundled\n");
    let kong = node.restarting();
    let (original, before) = (node.read_conf(), without("hello", None));
    for (more, words) in [("error('boom')", "boom"), ("function H:init_worker() error('boom') end", "boom")] {
        let first = node.pid().unwrap();
        let failure = put_back(enact(&kong, &node.plugin("hello", "1.0.0", more), &before).await);
        assert!(failure.message.contains(words), "{more}: {failure}");
        assert_ne!(node.pid(), Some(first), "{more}");
        assert_eq!(node.loaded("hello"), None);
        assert_eq!(node.read_conf(), original, "{more}");
        assert_eq!(kong.proven(&before).await, Ok(()), "{more}");
    }
    assert_eq!(hups(&node), 0);
}

/// What is in the way is seen before anything is stopped.
#[tokio::test]
async fn nothing_is_stopped_for_a_list_that_cannot_start() {
    let Some((node, _database)) = Node::on_database() else { return };
    let kong = node.restarting();
    let before = without("hello", None);
    let wanted = node.plugin("hello", "1.0.0", "");
    enact(&kong, &wanted, &before).await.unwrap();
    assert_eq!(node.send("POST", "/plugins", serde_json::json!({"name": "hello"})).0, 201);
    let footprint = node.footprint();
    assert_eq!(waiting(enact(&kong, &before, &wanted).await).code, "IN_USE_NOT_ENABLED");
    assert_eq!(node.footprint(), footprint);
}

/// Whoever stopped a Kong starts it: an agent that was ended between the two does so when it is back.
#[tokio::test]
async fn an_agent_killed_anywhere_goes_on() {
    let node = Node::started("plugins = bundled\n");
    let original = node.read_conf();
    let (wanted, without) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    let mut started = 0;
    for step in 0..20 {
        let (to, from) = if step % 2 == 0 { (&wanted, &without) } else { (&without, &wanted) };
        let limit = Duration::from_millis(40 * (step / 2));
        let _given_up = tokio::time::timeout(limit, enact(&node.restarting(), to, from)).await;
        let kong = node.restarting();
        // As the agent's loop has it; the old master may go in the middle of this.
        let mut tries = 0..10;
        while let Err(error) = enact(&kong, to, from).await {
            assert!(tries.next().is_some(), "step {step}: {error:?}");
            if kong.observe().await.stopped_by_us {
                assert_eq!(kong.put_back(from, &|_| {}).await, Ok(()), "step {step}");
                started += 1;
            }
        }
        assert_eq!(node.loaded("hello").is_some(), step % 2 == 0);
        assert_eq!(kong.proven(to).await, Ok(()));
    }
    assert_eq!(node.read_conf(), original);
    assert_eq!(hups(&node), 0);
    println!("Kong was down {started} times");
}

/// A restart that was cut off between stop and start, for certain.
#[tokio::test]
async fn a_kong_that_was_stopped_for_a_restart_is_started() {
    let node = Node::started("plugins = bundled\n");
    let (wanted, without) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    // `kong` stops as it should and then never comes to start.
    let real = node.bin.display().to_string();
    let slow = node.path("kong-stuck");
    let script = format!(
        "#!/bin/sh\ncase $1 in restart) {real} stop -p {} >/dev/null; sleep 600;; *) exec {real} \"$@\";; esac\n",
        node.prefix().display()
    );
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let kong = node.restarting_with(slow);
    let cut_off = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! {
            ended = enact(&kong, &wanted, &without) => panic!("{ended:?}"),
            () = async { while node.is_up() { tokio::time::sleep(Duration::from_millis(10)).await } } => {}
        }
    });
    cut_off.await.unwrap();
    drop(kong);
    let kong = node.restarting();
    let seen = kong.observe().await;
    assert_eq!((seen.facts.state, seen.stopped_by_us), (KongState::Down, true));
    kong.put_back(&without, &|_| {}).await.unwrap();
    assert!(node.is_up() && !node.has("hello"));
    assert!(!kong.observe().await.stopped_by_us);
    enact(&kong, &wanted, &without).await.unwrap();
    assert!(node.has("hello"));
    assert_eq!(hups(&node), 0);
}

/// In a container Kong ends with its master, and the container with Kong.
#[tokio::test]
async fn a_kong_in_the_foreground_is_left_to_its_supervisor() {
    let node = Node::new("plugins = bundled\nnginx_main_daemon = off\n");
    let mut supervised = node.in_foreground();
    kctl_tests::until("the Admin API", 30, || node.get("/").ok());
    let (kong, before) = (node.restarting(), without("hello", None));
    let wanted = node.plugin("hello", "1.0.0", "");
    let footprint = node.footprint();
    let tried = kong.preflight(&wanted, Preflight::Parse).await.unwrap_err();
    assert_eq!(tried.code, "RESTART_IN_FOREGROUND");
    assert_eq!(enact(&kong, &wanted, &before).await, Err(EnactError::Refused(tried)));
    assert_eq!(node.footprint(), footprint);
    enact(&node.gateway(), &wanted, &before).await.unwrap();
    assert!(node.has("hello"));
    node.stop();
    supervised.wait().unwrap();
}

/// A Kong that somebody else stopped stays so.
#[tokio::test]
async fn a_kong_that_is_down_is_not_started() {
    let node = Node::started("plugins = bundled\n");
    let kong = node.restarting();
    let before = without("hello", None);
    let wanted = node.plugin("hello", "1.0.0", "");
    enact(&kong, &wanted, &before).await.unwrap();
    let conf = node.read_conf();
    node.stop();
    assert!(
        matches!(enact(&kong, &before, &wanted).await, Err(EnactError::Waiting(f)) if f.code == "KONG_DOWN")
    );
    assert_eq!((node.read_conf(), node.is_up()), (conf, false));
    assert!(!kong.observe().await.stopped_by_us);
}
