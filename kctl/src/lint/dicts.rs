//! Which shared dictionaries each Kong brings: `ngx.shared.NAME` of any other is nil until somebody has nginx make it.

use super::target::Target;

/// (name, first, last): as Kong's `templates/nginx_kong.lua` has them at the first release of each minor version, 0.9 to 3.9,
/// and the one that its `conf_loader` adds. Those that depend on the node's settings are among them.
const DICTS: &[(&str, u32, u32)] = &[
    ("kong", 10, NOW),
    ("kong_cache", 11, 13),
    ("kong_cassandra", 11, 303),
    ("kong_cluster_events", 11, NOW),
    ("kong_clustering", 200, 201),
    ("kong_core_db_cache", 200, NOW),
    ("kong_core_db_cache_2", 200, 208),
    ("kong_core_db_cache_miss", 200, NOW),
    ("kong_core_db_cache_miss_2", 200, 208),
    ("kong_db_cache", 14, NOW),
    ("kong_db_cache_2", 102, 208),
    ("kong_db_cache_miss", 14, NOW),
    ("kong_db_cache_miss_2", 102, 208),
    ("kong_dns_cache", 308, NOW),
    ("kong_healthchecks", 12, NOW),
    ("kong_locks", 14, NOW),
    ("kong_process_events", 11, 302),
    ("kong_rate_limiting_counters", 14, NOW),
    ("kong_secrets", 304, NOW),
    ("prometheus_metrics", 14, NOW),
];
const NOW: u32 = u32::MAX;

/// Whether that version brings the dictionary.
pub fn provides(name: &str, kong: Target) -> bool {
    DICTS.iter().any(|(n, from, to)| *n == name && (*from..=*to).contains(&kong.number()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_come_and_go() {
        let has = |name, version| provides(name, Target::parse(version).unwrap());
        assert!(has("kong_db_cache", "3.9") && has("kong_db_cache", "2.8"));
        assert!(has("kong_cassandra", "2.8") && !has("kong_cassandra", "3.9"));
        assert!(has("kong_secrets", "3.9") && !has("kong_secrets", "2.8"));
        assert!(!has("my_cache", "3.9"));
    }
}
