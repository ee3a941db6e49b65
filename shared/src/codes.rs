//! Every stable code there is, with what it means, why it happens and what to do: `kctl explain`.
//!
//! One line a code in the text file of its family: `CODE | means | why | todo`. A test holds the lists against the sources.

const FAMILIES: [(&str, &str); 6] = [
    ("kong", include_str!("codes/kong.txt")),
    ("agent", include_str!("codes/agent.txt")),
    ("package", include_str!("codes/package.txt")),
    ("lint", include_str!("codes/lint.txt")),
    ("cluster", include_str!("codes/cluster.txt")),
    ("cli", include_str!("codes/cli.txt")),
];

/// How alike two words must be (0 to 1) for one to be offered in place of the other.
const ALIKE: f64 = 0.86;
const MOST_NEAR: usize = 5;

/// One code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    pub code: &'static str,
    /// Who says it: `kong`, `agent`, `package`, `lint`, `cluster` or `cli`.
    pub family: &'static str,
    pub means: &'static str,
    pub why: &'static str,
    pub todo: &'static str,
}

/// All of them, by family.
pub fn all() -> impl Iterator<Item = Entry> {
    FAMILIES.iter().flat_map(|(family, text)| text.lines().filter_map(|line| entry(family, line)))
}

/// Comments, blank lines and lines that are not of the form are none.
fn entry(family: &'static str, line: &'static str) -> Option<Entry> {
    let mut fields = line.split(" | ").map(str::trim);
    let entry = Entry {
        code: fields.next().filter(|code| !code.starts_with('#') && !code.is_empty())?,
        family,
        means: fields.next()?,
        why: fields.next()?,
        todo: fields.next()?,
    };
    fields.next().is_none().then_some(entry)
}

/// In whatever case it is written, with `-` or `_`.
pub fn find(code: &str) -> Option<Entry> {
    let code = normal(code);
    all().find(|entry| entry.code == code)
}

/// Codes that may have been meant, the likeliest first.
pub fn near(code: &str) -> Vec<&'static str> {
    let code = normal(code);
    let part = |entry: &Entry| code.len() > 2 && entry.code.contains(code.as_str());
    let score = |entry: &Entry| if part(entry) { 1.0 } else { strsim::jaro_winkler(&code, entry.code) };
    let mut found: Vec<(f64, &'static str)> =
        all().map(|e| (score(&e), e.code)).filter(|(s, _)| *s >= ALIKE).collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    found.into_iter().take(MOST_NEAR).map(|(_, code)| code).collect()
}

fn normal(code: &str) -> String {
    code.trim().to_ascii_uppercase().replace(['-', ' '], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_an_entry_and_every_code_is_there_once() {
        let mut seen = std::collections::BTreeSet::new();
        for (family, text) in FAMILIES {
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let entry = entry(family, line).unwrap_or_else(|| panic!("not an entry: {line}"));
                assert!(seen.insert(entry.code), "{} is there twice", entry.code);
                let sentences = [entry.means, entry.why, entry.todo];
                assert!(sentences.iter().all(|s| s.ends_with('.')), "unfinished: {line}");
            }
        }
        assert!(seen.len() > 200);
    }

    #[test]
    fn a_code_is_found_however_it_is_written_and_near_ones_are_offered() {
        assert_eq!(find("in-use not_enabled").map(|e| e.code), Some("IN_USE_NOT_ENABLED"));
        assert_eq!(find("NOT_A_CODE"), None);
        assert_eq!(near("NO_HANDLR").first(), Some(&"NO_HANDLER"));
        assert!(near("shadowed").contains(&"FILES_SHADOWED"));
        assert_eq!(near("zzzzzzzz"), Vec::<&str>::new());
    }
}
