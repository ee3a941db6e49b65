//! Which of Kong's own modules which version has: a name here, with the versions from and to.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::target::Target;

/// `NAME FROM-[TO] …`; a name stands for its `NAME.init` too.
const TABLE: &str = include_str!("kong_modules.txt");

fn table() -> &'static HashMap<&'static str, Vec<(u32, u32)>> {
    static TABLE_READ: OnceLock<HashMap<&'static str, Vec<(u32, u32)>>> = OnceLock::new();
    TABLE_READ.get_or_init(|| {
        let range = |text: &str| {
            let (from, to) = text.split_once('-')?;
            let number = |text| Target::parse(text).ok().map(|t| t.number());
            Some((number(from)?, number(to).unwrap_or(u32::MAX)))
        };
        let row = |line: &'static str| {
            let (name, ranges) = line.split_once(' ')?;
            Some((name, ranges.split(' ').filter_map(range).collect()))
        };
        TABLE.lines().filter_map(row).collect()
    })
}

/// Whether that version has the module `kong` or `kong.…`. What is older than the table is taken for its first version.
pub fn provides(name: &str, target: Target) -> bool {
    let number = target.number().max(FIRST);
    let found = table().get(name).or_else(|| table().get(name.strip_suffix(".init")?));
    found.is_some_and(|ranges| ranges.iter().any(|(from, to)| (*from..=*to).contains(&number)))
}

/// 0.14, the first version of the table.
const FIRST: u32 = 14;

/// Whether that version brings a plugin of that name.
pub fn bundles(plugin: &str, target: Target) -> bool {
    provides(&format!("kong.plugins.{plugin}.handler"), target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_and_go() {
        let has = |name, version| provides(name, Target::parse(version).unwrap());
        for (name, version, there) in [
            ("kong.plugins.base_plugin", "2.8", true),
            ("kong.plugins.base_plugin", "3.0", false),
            ("kong.tools.utils", "2.8", true),
            ("kong.db.schema.typedefs", "3.9", true),
            ("kong.api.crud_helpers", "0.14", true),
            ("kong.api.crud_helpers", "1.0", false),
            ("kong.tools.uuid", "3.9", true),
            ("kong.tools.uuid", "2.8", false),
            ("kong.runloop.events", "99.0", true),
            ("kong.db.schema.init", "3.9", true),
            ("kong.enterprise_edition.redis", "3.9", false),
        ] {
            assert_eq!(has(name, version), there, "{name} {version}");
        }
        assert!(bundles("key-auth", Target::default()) && !bundles("mine", Target::default()));
    }
}
