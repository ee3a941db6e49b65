//! Requests in flight over a reload.

use std::thread;

use crate::node::{DECLARATIVE, Datastore, GOLDEN_HANDLER, GOLDEN_SCHEMA, Node};

fn golden_node() -> Node {
    let node = Node::new(&Datastore::Declarative(&format!("{DECLARATIVE}plugins:\n- name: golden\n")));
    node.start();
    node
}

fn shutting_down(node: &Node) -> usize {
    node.workers().values().filter(|title| *title == "nginx: worker process is shutting down").count()
}

#[test]
fn a_long_request_keeps_its_worker_and_its_code() {
    let node = golden_node();
    thread::scope(|scope| {
        let old = node.workers();
        let request = scope.spawn(|| node.proxy("/a?delay=2"));
        node.until("the request is under way", || {
            node.get("/status").json()["server"]["connections_active"].as_u64() > Some(1)
        });
        node.plugin(
            "golden",
            &[("handler", &GOLDEN_HANDLER.replace("1.0.0", "2.0.0")), ("schema", GOLDEN_SCHEMA)],
        );
        node.reload();
        node.until("one old worker stays, draining", || {
            node.workers().len() == 3 && shutting_down(&node) == 1
        });
        assert_eq!(node.golden().as_deref(), Some("golden 2.0.0 hi"), "new requests run on the new code");
        let answer = request.join().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "slow done"));
        assert_eq!(answer.headers["x-golden"], "golden 1.0.0 hi");
        node.until("the old worker is gone", || {
            node.workers().len() == 2 && node.workers().keys().all(|pid| !old.contains_key(pid))
        });
    });
}

#[test]
fn generations_pile_up_behind_endless_connections() {
    let node = golden_node();
    let mut held = Vec::new();
    for _ in 0..2 {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(format!("{}:8000", node.ip)).unwrap();
        write!(stream, "GET /a?delay=forever HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        held.push(stream);
        let draining = held.len();
        node.reload();
        node.until("one more worker drains", || {
            node.workers().len() == 2 + draining && shutting_down(&node) == draining
        });
    }
    held.clear();
    node.until("closed connections let them go", || node.workers().len() == 2);
}

#[test]
fn a_shutdown_timeout_cuts_requests_off() {
    let node = golden_node();
    node.set("nginx_main_worker_shutdown_timeout", "1s");
    assert_eq!(node.kong("restart -c <CONF>").code, 0);
    node.until("the node is ready", || node.ready().0 == 200);
    thread::scope(|scope| {
        let request = scope.spawn(|| node.proxy("/a?delay=30"));
        node.until("the request is under way", || {
            node.get("/status").json()["server"]["connections_active"].as_u64() > Some(1)
        });
        node.reload_through();
        assert_eq!(request.join().unwrap().status, 0, "closed without an answer");
    });
}

#[test]
fn requests_do_not_fail_over_reloads() {
    let node = golden_node();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut failed = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                failed += usize::from(node.proxy("/a").status != 200);
            }
            failed
        });
        for _ in 0..5 {
            node.reload_through();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(asking.join().unwrap(), 0);
    });
}

#[test]
fn reloads_at_the_same_moment_all_succeed_and_coalesce() {
    let node = golden_node();
    let old = node.workers();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| node.reload());
        }
    });
    node.until("a new generation stands alone", || {
        node.workers().len() == 2
            && node.workers().keys().all(|pid| !old.contains_key(pid))
            && node.ready().0 == 200
    });
    assert!((1..=4).contains(&node.log().matches("(SIGHUP) received").count()));
}

#[test]
fn draining_is_announced_and_ended_by_a_reload() {
    let node = golden_node();
    let ran = node.kong("drain -c <CONF> -p <PREFIX>");
    assert_eq!((ran.code, ran.out.as_str()), (0, "Kong's status successfully changed to 'draining'\n"));
    assert_eq!(node.ready(), (503, "draining".to_owned()));
    assert_eq!(node.proxy("/a").status, 200);
    node.reload_through();
}

#[test]
fn a_connection_without_a_request_does_not_hold_a_worker() {
    let node = golden_node();
    let _idle: Vec<_> =
        (0..8).map(|_| std::net::TcpStream::connect(format!("{}:8000", node.ip)).unwrap()).collect();
    node.reload_through();
}

/// Answers one upgrade request and echoes what follows.
fn echo_upstream() -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            .unwrap();
        while stream.read(&mut byte).is_ok_and(|read| read == 1) {
            stream.write_all(&byte).unwrap();
        }
    });
    address
}

#[test]
fn an_upgraded_connection_holds_its_worker_until_it_closes() {
    use std::io::{Read, Write};
    let upstream = echo_upstream();
    let text = DECLARATIVE.replace("http://standin-delay", &format!("http://{upstream}"));
    let node = Node::new(&Datastore::Declarative(&text));
    node.start();
    let mut stream = std::net::TcpStream::connect(format!("{}:8000", node.ip)).unwrap();
    write!(stream, "GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let mut echo = |text: &[u8]| {
        stream.write_all(text).unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, text);
    };
    echo(b"before");
    node.reload();
    node.until("one old worker stays", || node.workers().len() == 3 && shutting_down(&node) == 1);
    echo(b"after");
    drop(stream);
    node.until("it is gone", || node.workers().len() == 2);
}

#[test]
fn requests_reach_a_real_upstream_and_its_absence_is_a_502() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let text = DECLARATIVE.replace("http://standin-delay", &format!("http://{address}/base"));
    let node = Node::new(&Datastore::Declarative(&text));
    node.start();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).unwrap();
        stream
            .write_all(b"HTTP/1.1 201 Created\r\nX-Up: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nup")
            .unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    let answer = node.proxy("/a/rest?x=1");
    assert_eq!((answer.status, answer.body.as_str(), answer.headers["x-up"].as_str()), (201, "up", "1"));
    assert_eq!(answer.headers["via"], "1.1 kong/3.9.1");
    let head = server.join().unwrap();
    assert!(head.starts_with("GET /base/rest?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains(&format!("host: {address}\r\n")), "{head}");
    let refused = node.proxy("/a");
    assert_eq!(refused.status, 502);
    assert!(
        refused.body.contains("\"message\":\"An invalid response was received from the upstream server\""),
        "{refused:?}"
    );
    assert_eq!(node.proxy("/elsewhere").status, 404);
}
