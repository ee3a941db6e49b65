//! Agents killed and edits interrupted at any point.

use kctl_node_agent::gateway::{Gateway as _, Wanted};

use crate::node::{Node, enact, put_back, without};

#[tokio::test]
async fn an_interrupted_edit_is_taken_back_by_name() {
    let node = Node::started("plugins = bundled\n");
    let kong = node.gateway();
    let original = node.read_conf();
    let (wanted, before) =
        (node.plugin("hello", "1.0.0", "function H:init_worker() error('boom') end"), Wanted::default());
    // `before` does not name the plugin at all; what was added is remembered.
    assert_eq!(put_back(enact(&kong, &wanted, &before).await).code, "INIT_WORKER_FAILED");
    assert_eq!(node.read_conf(), original);
    assert_eq!(node.loaded("hello"), None);
}

#[tokio::test]
async fn an_agent_killed_anywhere_goes_on() {
    let node = Node::started("plugins = bundled\n");
    let original = node.read_conf();
    let (wanted, without) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    for step in 0..24 {
        let (to, from) = if step % 2 == 0 { (&wanted, &without) } else { (&without, &wanted) };
        let limit = std::time::Duration::from_millis(20 * (step / 2));
        // Dropped in the middle of whatever it does, its commands killed with it.
        let _given_up = tokio::time::timeout(limit, enact(&node.gateway(), to, from)).await;
        let kong = node.gateway();
        assert_eq!(enact(&kong, to, from).await, Ok(()), "step {step}");
        assert_eq!(node.loaded("hello").is_some(), step % 2 == 0);
        assert_eq!(kong.proven(to).await, Ok(()));
    }
    assert_eq!(node.read_conf(), original);
    assert_eq!(
        std::fs::read_dir(node.temp.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("kctl-new"))
            .count(),
        0
    );
}

#[tokio::test]
async fn a_prepare_killed_half_way_does_not_confuse() {
    let node = Node::started("plugins = bundled\nlog_level = warn\n");
    let kong = node.gateway();
    let (wanted, without) = (node.plugin("hello", "1.0.0", ""), without("hello", None));
    enact(&kong, &wanted, &without).await.unwrap();
    std::fs::remove_file(node.prefix().join(".kong_env")).unwrap();
    let kong = node.gateway();
    enact(&kong, &without, &wanted).await.unwrap();
    assert_eq!(node.loaded("hello"), None);
    assert_eq!(kong.proven(&without).await, Ok(()));
}
