//! Who changed what: every member has the same chain, and a record that was changed is named.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use kctl_tests::cluster::{Cluster, get};
use kctl_tests::plugins;
use kctl_tests::until;
use serde_json::Value;

#[test]
fn every_change_has_one_record_and_the_chain_gives_changes_away() {
    let cluster = Cluster::start(3, 1);
    let root = cluster.temp().to_owned();
    let source = plugins::good(&root, "noted", "1.0.0");
    let path = source.to_str().unwrap();
    let ran = cluster.kctl(&["plugin", "install", path, "--all-nodes", "-m", "CHG-1042"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let operation = cluster.newest_operation()["id"].as_str().unwrap().to_owned();
    let ran = cluster.kctl(&["cluster", "transfer-leader"]);
    assert_eq!(ran.code, 0, "{ran:?}");

    let all = cluster.json(&["audit"]);
    let all = all.as_array().unwrap();
    let seqs: Vec<_> = all.iter().map(|r| r["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=all.len() as u64).collect::<Vec<_>>(), "without gaps, oldest first");
    let install: Vec<_> = all.iter().filter(|r| r["verb"] == "install").collect();
    let [install] = install.as_slice() else { panic!("{all:#?}") };
    assert!(install["who"].as_str().unwrap().contains('@'), "{install}");
    assert_eq!((install["reason"].as_str(), install["plugin"].as_str()), (Some("CHG-1042"), Some("noted")));
    assert!(!install["request_id"].as_str().unwrap().is_empty(), "{install}");
    let who = |verb: &str| all.iter().find(|r| r["verb"] == verb).map(|r| r["who"].as_str().unwrap());
    assert_eq!(who("node.register"), Some("node/kong-1"));
    assert_eq!(who("operation.finish"), Some("control-plane"));
    assert_eq!(who("member.configure"), Some("control-plane"));
    let of_operation = cluster.json(&["audit", "--operation", &operation]);
    assert!(of_operation.as_array().unwrap().iter().all(|r| r["operation"] == operation.as_str()));
    assert_eq!(cluster.json(&["audit", "--plugin", "other"]), serde_json::json!([]));

    // The same on every member, and again after all of them were killed.
    let chain = |url: &str| -> Option<(Value, Value)> {
        let (_, answer) = get(&format!("{url}/api/v1/audit")).ok()?;
        (answer["count"].as_u64()? > 0).then(|| (answer["count"].clone(), answer["head"].clone()))
    };
    let members = cluster.members();
    let same = || {
        let chains: Option<Vec<_>> = members.iter().map(|m| chain(m["http"].as_str().unwrap())).collect();
        let chains = chains?;
        chains.iter().all(|c| *c == chains[0]).then(|| chains[0].clone())
    };
    let before = until("all members to agree", 30, same);
    let ran = cluster.kctl(&["audit", "verify"]);
    assert!(ran.code == 0 && ran.out.contains(before.1.as_str().unwrap()), "{ran:?}");
    for member in &members {
        kctl_tests::cluster::signal(&member["pid"], "KILL");
    }
    let again = until("all members to be back", 60, same);
    assert!(again.0.as_u64() >= before.0.as_u64());

    let ran = cluster.kctl(&["audit", "-o", "jsonl"]);
    let file = root.join("audit.jsonl");
    let verify = |text: &str| {
        std::fs::write(&file, text).unwrap();
        cluster.kctl(&["audit", "verify", "--file", file.to_str().unwrap()])
    };
    assert_eq!(verify(&ran.out).code, 0);
    let tampered = verify(&ran.out.replace("CHG-1042", "CHG-1043"));
    let named = format!("record {}", install["seq"]);
    assert!(tampered.code == 1 && tampered.err.contains("AUDIT_BROKEN"), "{tampered:?}");
    assert!(tampered.err.contains(&named), "{tampered:?}");
    let without: Vec<_> = ran.out.lines().filter(|l| !l.contains("CHG-1042")).collect();
    let missing = verify(&without.join("\n"));
    assert!(missing.code == 1 && missing.err.contains("AUDIT_BROKEN"), "{missing:?}");
    assert_eq!(verify("no records").code, 1);
}
