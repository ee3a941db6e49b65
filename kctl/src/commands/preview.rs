//! What removing a plugin would do, in words: who uses it, and the three steps.

use std::collections::BTreeMap;

use kctl_shared::proto::v1::{EntityView, RemovePreview};

/// Names of what loses the plugin that are written out; more than that a person does not read.
const NAMED: usize = 10;

/// Everything there is to know before consent.
pub fn plan(preview: &RemovePreview) -> String {
    let RemovePreview { plugin, version, nodes, files, .. } = preview;
    let detach = match (&preview.unknown, preview.references) {
        (Some(_), _) => "delete every plugin configuration of it in Kong (kept for undo)".to_owned(),
        (None, 0) => "nothing to delete, which is checked".to_owned(),
        (None, count) => {
            format!(
                "delete {} in Kong (kept for undo): {} it",
                plural(count, "plugin configuration"),
                losers(preview)
            )
        }
    };
    format!(
        "{plugin} {version} {}\nRemoving will:\n  1 detach   {detach}\n  2 disable  drop it from `plugins` and reload {nodes} nodes, waves {}\n  \
         3 purge    delete {files} files from {nodes} nodes (the release stays in the store)\n",
        used(preview),
        preview.waves.join(",")
    )
}

/// "is used by 2 routes and 1 service: route r-7, …."
fn used(preview: &RemovePreview) -> String {
    if let Some(why) = &preview.unknown {
        return format!("may be in use; by what is not known: {} ({})", why.message, why.code);
    }
    if preview.references == 0 {
        return "is used by nothing.".into();
    }
    let named: Vec<String> = preview
        .entities
        .iter()
        .filter(|e| !e.attached_to.is_empty())
        .take(NAMED)
        .map(|e| e.attached_to.join(" with "))
        .collect();
    let more = preview.references as usize
        - named.len()
        - global(&preview.entities).min(preview.references as usize);
    let names = match (named.is_empty(), more) {
        (true, _) => ".".to_owned(),
        (false, 0) => format!(": {}.", named.join(", ")),
        (false, more) => format!(": {} and {more} more.", named.join(", ")),
    };
    format!("is used by {}{names}", scopes(preview))
}

fn global(entities: &[EntityView]) -> usize {
    entities.iter().filter(|e| e.attached_to.is_empty()).count()
}

/// "2 routes lose".
fn losers(preview: &RemovePreview) -> String {
    let lose = if preview.references == 1 && global(&preview.entities) == 0 { "loses" } else { "lose" };
    format!("{} {lose}", scopes(preview))
}

/// "2 routes and 1 service"; of more configurations than are listed, only how many.
fn scopes(preview: &RemovePreview) -> String {
    if preview.references as usize > preview.entities.len() {
        return plural(preview.references, "configuration");
    }
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for entity in &preview.entities {
        *counts.entry(entity.scope.as_str()).or_default() += 1;
    }
    let words: Vec<String> = counts.into_iter().map(|(scope, count)| words(scope, count)).collect();
    match words.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => words.concat(),
    }
}

fn words(scope: &str, count: u32) -> String {
    match scope {
        "global" => "all requests (globally)".into(),
        one => match one.replace('_', " ").split_once('+') {
            // "1 route with consumer": the first is where the requests come along.
            Some((first, rest)) => format!("{} with {}", plural(count, first), rest.replace('+', " and ")),
            None => plural(count, &one.replace('_', " ")),
        },
    }
}

fn plural(count: u32, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kctl_shared::proto::v1::ErrorView;

    fn preview(scopes: &[(&str, &str)]) -> RemovePreview {
        let entity = |(scope, names): &(&str, &str)| EntityView {
            scope: (*scope).into(),
            attached_to: names.split('+').filter(|n| !n.is_empty()).map(str::to_owned).collect(),
            ..EntityView::default()
        };
        RemovePreview {
            plugin: "golden".into(),
            version: "1.0.0".into(),
            references: u32::try_from(scopes.len()).unwrap(),
            entities: scopes.iter().map(entity).collect(),
            ..RemovePreview::default()
        }
    }

    #[test]
    fn who_uses_it_is_counted_by_scope_and_named() {
        for (entities, expected) in [
            (&[][..], "is used by nothing."),
            (&[("route", "route r-7")], "is used by 1 route: route r-7."),
            (
                &[("route", "route r-7"), ("service", "service s"), ("route", "route r-8")],
                "is used by 2 routes and 1 service: route r-7, service s, route r-8.",
            ),
            (&[("global", "")], "is used by all requests (globally)."),
            (
                &[("route+consumer", "route r+consumer c"), ("global", "")],
                "is used by all requests (globally) and 1 route with consumer: route r with consumer c.",
            ),
        ] {
            assert_eq!(used(&preview(entities)), expected);
        }
    }

    #[test]
    fn more_than_is_listed_is_said_as_a_number() {
        let mut many = preview(&[("route", "route r"); 12]);
        assert!(used(&many).ends_with("route r and 2 more."), "{}", used(&many));
        many.references = 5_000;
        assert!(used(&many).starts_with("is used by 5000 configurations: "), "{}", used(&many));
        assert!(plan(&many).contains("5000 configurations lose it"), "{}", plan(&many));
    }

    #[test]
    fn what_nobody_can_tell_is_not_made_up() {
        let mut unknown = preview(&[]);
        unknown.unknown = Some(ErrorView {
            code: "ADMIN_API_UNREACHABLE".into(),
            message: "no Admin API of group default answers".into(),
        });
        let text = plan(&unknown);
        assert!(text.contains("not known: no Admin API of group default answers"), "{text}");
        assert!(!text.contains("lose"), "{text}");
    }
}
