//! What a Kong that starts now should come up with.
#![deny(clippy::disallowed_methods)]

use kctl_shared::spec::NodeSpec;

use crate::gateway::Wanted;
use crate::ledger::Record;

/// Without a generation directory yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub wanted: Wanted,
    /// What is not as the spec says, a sentence each.
    pub notes: Vec<String>,
}

/// Plugins that the spec does not name stay as they were proven; those that failed here stay at what was proven before.
pub fn plan(spec: &NodeSpec, record: &Record, names: &[String]) -> Plan {
    let mut plan = Plan::default();
    let unnamed = record.proven.listed.iter().filter(|(plugin, _)| !spec.plugins.contains_key(*plugin));
    plan.wanted.listed.extend(unnamed.map(|(plugin, release)| (plugin.clone(), release.clone())));
    for (plugin, wanted) in &spec.plugins {
        let managed = record.managed.contains(plugin);
        if !managed && names.iter().any(|name| name == plugin.as_str()) {
            plan.notes.push(format!("{plugin} was listed by somebody else and is left alone"));
            continue;
        }
        let failed = record.attempts.failure(plugin, wanted.grant);
        let release = match (&wanted.enabled, failed) {
            (Some(_), Some(failure)) => {
                plan.notes
                    .push(format!("{plugin} failed on this node before ({failure}) and stays as it was"));
                record.proven.listed.get(plugin)
            }
            (enabled, _) => enabled.as_ref(),
        };
        match release {
            Some(release) => {
                plan.wanted.listed.insert(plugin.clone(), release.clone());
            }
            None if managed => {
                plan.wanted.unlisted.insert(plugin.clone());
            }
            None => {}
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use kctl_shared::digest::Digest;
    use kctl_shared::name::PluginName;
    use kctl_shared::spec::{Failure, Grant, PluginSpec, ReleaseRef};

    fn name(name: &str) -> PluginName {
        PluginName::parse(name).unwrap()
    }

    fn release(version: &str) -> ReleaseRef {
        ReleaseRef::new(version, Digest::of(version.as_bytes()))
    }

    #[test]
    fn the_spec_decides_but_for_what_is_not_its_own_or_failed_here() {
        let grant = Grant { index: 7, offset: 0 };
        let enabled =
            |version: &str| PluginSpec { grant, enabled: Some(release(version)), ..PluginSpec::default() };
        let spec = NodeSpec {
            node: "n1".parse().unwrap(),
            epoch: 1,
            supersedes: None,
            generation: 7,
            plugins: [
                (name("new"), enabled("1.0.0")),
                (name("gone"), PluginSpec { grant, ..PluginSpec::default() }),
                (name("by-hand"), enabled("1.0.0")),
                (name("broken"), enabled("2.0.0")),
            ]
            .into(),
            task: None,
            hold: None,
        };
        let mut record = Record::default();
        record.managed.extend([name("gone"), name("broken")]);
        record.proven.listed =
            [(name("kept"), release("3")), (name("broken"), release("1")), (name("gone"), release("1"))]
                .into();
        record.attempts.fail(&name("broken"), grant, Failure::new("PREFLIGHT_FAILED", "no"));
        let names = ["bundled", "by-hand", "gone"].map(str::to_owned);
        let plan = plan(&spec, &record, &names);
        let listed: Vec<_> =
            plan.wanted.listed.iter().map(|(n, r)| (n.as_str(), r.version.as_str())).collect();
        assert_eq!(listed, [("broken", "1"), ("kept", "3"), ("new", "1.0.0")]);
        assert_eq!(plan.wanted.unlisted, [name("gone")].into());
        assert_eq!(plan.notes.len(), 2);
    }
}
