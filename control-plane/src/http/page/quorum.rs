//! Who the members are, who leads, and whether anything can be decided.

use askama::Template;
use kctl_shared::proto::v1::{ClusterView, MemberView};

use super::word::{Tone, Word};

#[derive(Debug, Template)]
#[template(path = "quorum.html")]
pub(super) struct Quorum<'a> {
    verdict: Word<'static>,
    explanation: String,
    term: u64,
    members: Vec<Row<'a>>,
}

#[derive(Debug)]
struct Row<'a> {
    member: &'a MemberView,
    state: Word<'a>,
    /// Address of its dashboard, if it is one a browser may follow.
    link: Option<&'a str>,
    answers: bool,
}

impl<'a> Quorum<'a> {
    pub fn new(cluster: Option<&'a ClusterView>, answering: u64) -> Self {
        let members = cluster.map_or(&[][..], |c| &c.members);
        let voters = members.iter().filter(|m| m.role != "learner");
        let needed = voters.clone().count() / 2 + 1;
        let missing: Vec<_> =
            voters.clone().filter(|m| m.state == "unreachable").map(|m| m.id.to_string()).collect();
        let (verdict, explanation) = match cluster.and_then(|c| c.leader) {
            None => (
                Word { tone: Tone::Bad, symbol: "✖", text: "no leader" },
                "Nothing can be decided until a majority of the voting members agrees on one. \
                 Kong nodes stay as they are."
                    .into(),
            ),
            Some(leader) if missing.is_empty() => (
                Word { tone: Tone::Good, symbol: "✔", text: "quorum" },
                format!("Member {leader} leads; {needed} of {} voting members must agree.", voters.count()),
            ),
            Some(leader) => (
                Word { tone: Tone::Warn, symbol: "▲", text: "quorum, members missing" },
                format!(
                    "Member {leader} leads and cannot reach member {}; {needed} of {} voting members must agree.",
                    missing.join(", "),
                    voters.count()
                ),
            ),
        };
        let rows = members.iter().map(|member| Row {
            member,
            state: Word::new(&member.state),
            link: (member.http.starts_with("http://") || member.http.starts_with("https://"))
                .then_some(member.http.as_str()),
            answers: member.id == answering,
        });
        Self { verdict, explanation, term: cluster.map_or(0, |c| c.term), members: rows.collect() }
    }
}
