//! Histories that no correct control plane can produce, and the same ones mended.

use kctl_tests::history::{Verdict, check, parse};

/// What is wrong; the history; the line whose change mends it, and what it should have been.
struct Broken {
    what: &'static str,
    lines: &'static [&'static str],
    mended: (usize, &'static str),
}

/// `P? f args` begins a call of process P, `P! told` ends it, `P.` is unknown, `P-` did not happen.
fn history(lines: &[&str]) -> String {
    lines.iter().map(|line| event(line) + "\n").collect()
}

fn event(line: &str) -> String {
    let (process, rest) = line.split_at(1);
    let words: Vec<_> = rest[1..].split_whitespace().collect();
    match (&rest[..1], &words[..]) {
        ("!", [told]) => format!(r#"{{"process":{process},"type":"ok","told":{told}}}"#),
        (".", []) => format!(r#"{{"process":{process},"type":"info"}}"#),
        ("-", []) => format!(r#"{{"process":{process},"type":"fail"}}"#),
        ("?", [f, args @ ..]) => {
            let value = match (*f, args) {
                ("register", [node, boot]) => format!(r#"{{"node":"{node}","boot":{boot}}}"#),
                ("read", [node]) => format!(r#"{{"node":"{node}"}}"#),
                ("release" | "holder", [plugin]) => format!(r#"{{"plugin":"{plugin}"}}"#),
                ("start", [id, plugin, request]) => {
                    format!(r#"{{"operation":"{id}","plugin":"{plugin}","request":"{request}"}}"#)
                }
                _ => panic!("{line}"),
            };
            format!(r#"{{"process":{process},"type":"invoke","f":"{f}","value":{value}}}"#)
        }
        _ => panic!("{line}"),
    }
}

const BROKEN: [Broken; 12] = [
    Broken {
        what: "an acknowledged write is lost",
        lines: &["0? register n1 5", r#"0! "accepted""#, "1? read n1", "1! null"],
        mended: (3, "1! 5"),
    },
    Broken {
        what: "a read after a read goes back",
        lines: &["0? register n1 5", "1? read n1", "1! 5", "1? read n1", "1! null", r#"0! "accepted""#],
        mended: (4, "1! 5"),
    },
    Broken {
        what: "a read sees what was not written yet",
        lines: &["1? read n1", "1! 5", "0? register n1 5", r#"0! "accepted""#],
        mended: (1, "1! null"),
    },
    Broken {
        what: "a read sees what nobody wrote",
        lines: &["0? register n1 5", r#"0! "accepted""#, "1? read n1", "1! 6"],
        mended: (3, "1! 5"),
    },
    Broken {
        what: "what did not happen is seen",
        lines: &["0? register n1 5", "0-", "1? read n1", "1! 5"],
        mended: (1, "0."),
    },
    Broken {
        what: "an older boot is accepted after a newer one",
        lines: &["0? register n1 5", r#"0! "accepted""#, "1? register n1 4", r#"1! "accepted""#],
        mended: (3, r#"1! "SUPERSEDED""#),
    },
    Broken {
        what: "an older boot is refused before any newer one",
        lines: &["1? register n1 4", r#"1! "SUPERSEDED""#, "0? register n1 5", r#"0! "accepted""#],
        mended: (1, r#"1! "accepted""#),
    },
    Broken {
        what: "two operations hold one plugin",
        lines: &[
            "0? release p",
            r#"0! "accepted""#,
            "0? start a p ra",
            "1? start b p rb",
            r#"0! "accepted""#,
            r#"1! "accepted""#,
        ],
        mended: (5, r#"1! "PLUGIN_BUSY""#),
    },
    Broken {
        what: "the holder is one that was refused",
        lines: &[
            "0? release p",
            r#"0! "accepted""#,
            "0? start a p ra",
            r#"0! "accepted""#,
            "1? start b p rb",
            r#"1! "PLUGIN_BUSY""#,
            "1? holder p",
            r#"1! "b""#,
        ],
        mended: (7, r#"1! "a""#),
    },
    Broken {
        what: "a repeated request is refused",
        lines: &[
            "0? release p",
            r#"0! "accepted""#,
            "0? start a p ra",
            "0.",
            "1? start a p ra",
            r#"1! "PLUGIN_BUSY""#,
        ],
        mended: (5, r#"1! "accepted""#),
    },
    Broken {
        what: "something unknown happens, is undone, and happens again",
        lines: &[
            "0? register n1 5",
            "0.",
            "1? read n1",
            "1! 5",
            "1? read n1",
            "1! null",
            "1? read n1",
            "1! 5",
        ],
        mended: (5, "1! 5"),
    },
    Broken {
        what: "two readers see two writes in different orders",
        lines: &[
            "0? register n1 1",
            "1? register n2 1",
            "2? read n1",
            "2! 1",
            "2? read n2",
            "2! null",
            "3? read n2",
            "3! 1",
            "3? read n1",
            "3! null",
            r#"0! "accepted""#,
            r#"1! "accepted""#,
        ],
        mended: (9, "3! 1"),
    },
];

#[test]
fn every_broken_history_is_flagged_and_mended_it_is_not() {
    for broken in &BROKEN {
        let judge = |lines: &[&str]| check(&parse(&history(lines)).unwrap()).unwrap();
        let verdict = judge(broken.lines);
        assert!(matches!(verdict, Verdict::NotLinearizable { .. }), "{}: {verdict:?}", broken.what);
        let mut mended = broken.lines.to_vec();
        mended[broken.mended.0] = broken.mended.1;
        let verdict = judge(&mended);
        assert!(matches!(verdict, Verdict::Linearizable(_)), "mended, {}: {verdict:?}", broken.what);
    }
}

#[test]
fn concurrent_and_unknown_calls_may_have_happened_or_not() {
    for read in ["null", "5", "7"] {
        let told = format!("2! {read}");
        let lines = ["0? register n1 5", "0.", "1? register n1 7", "2? read n1", &told];
        let verdict = check(&parse(&history(&lines)).unwrap()).unwrap();
        assert!(matches!(verdict, Verdict::Linearizable(_)), "{read}: {verdict:?}");
    }
    // One order for all readers, found only by going back on a first guess.
    let lines = [
        "0? register n1 5",
        "1? register n1 7",
        "2? read n1",
        "2! 5",
        "2? read n1",
        "2! 7",
        "1! \"accepted\"",
        "0! \"accepted\"",
    ];
    assert!(matches!(check(&parse(&history(&lines)).unwrap()), Ok(Verdict::Linearizable(_))));
}

#[test]
fn what_is_no_history_is_said() {
    for (lines, word) in [
        (&["0! 1"][..], "has no call"),
        (&["0? read n1", "0? read n1"], "has a call already"),
        (&["0? register n1 1", "0.", "0? read n1"], "has a call already"),
    ] {
        let told = check(&parse(&history(lines)).unwrap()).unwrap_err();
        assert!(told.contains(word), "{told}");
    }
    assert!(parse("{\"process\": 0}").unwrap_err().starts_with("line 1"));
    assert!(parse("\nnot json").unwrap_err().starts_with("line 2"));
}
