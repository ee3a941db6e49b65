//! Reading a rollout policy: what was asked for becomes numbers, or a fault that says what makes no sense.

use std::collections::BTreeSet;

use kctl_shared::fault::Fault;
use kctl_shared::proto::v1;

use crate::rollout::waves;
use crate::state::operation::{OnFailure, OperationKind, Policy, Preflight, StepKind};

const DEFAULT_NODE_DEADLINE_MS: u64 = 300_000;
/// A deadline or a bake beyond a day is a typing error.
const MAX_MS: u64 = 86_400_000;
const MAX_WAVES: usize = 100;

fn invalid(message: impl Into<String>, hint: &str) -> Fault {
    Fault::new("INVALID_ROLLOUT", message).hint(hint)
}

pub(super) fn policy(
    kind: OperationKind,
    policy: Option<v1::RolloutPolicy>,
    nodes: usize,
) -> Result<Policy, Fault> {
    let policy = policy.unwrap_or_default();
    let mut waves =
        if policy.waves.is_empty() { waves::DEFAULT_WAVES.map(str::to_owned).to_vec() } else { policy.waves };
    if !policy.canary.is_empty() {
        waves = waves::after_canary(policy.canary, waves, nodes)?;
    }
    let parallel =
        if policy.max_parallel.is_empty() { waves::DEFAULT_MAX_PARALLEL } else { &policy.max_parallel };
    let deadline =
        if policy.node_deadline_ms == 0 { DEFAULT_NODE_DEADLINE_MS } else { policy.node_deadline_ms };
    let times = [deadline, policy.bake_ms, policy.progress_deadline_ms];
    if times.iter().any(|ms| *ms > MAX_MS) || waves.len() > MAX_WAVES {
        let message = format!("at most {MAX_WAVES} waves, and deadlines and a bake of at most 24h");
        return Err(invalid(message, "see kctl plugin install --help"));
    }
    let preflight = Preflight::parse(&policy.preflight).ok_or_else(|| {
        let message = format!("{:?} is no way to try a plugin", policy.preflight);
        invalid(message, "--preflight canary, boot or parse")
    })?;
    let reached = waves::split(&vec![(); nodes], &waves)?.len();
    Ok(Policy {
        preflight,
        max_parallel: waves::parallel(parallel, nodes)?,
        max_failures: policy.max_failures as usize,
        node_deadline_ms: deadline,
        bake_ms: policy.bake_ms,
        progress_deadline_ms: policy.progress_deadline_ms,
        pause_after: pause_after(&policy.pause_after, reached)?,
        on_failure: on_failure(kind, &policy.on_failure)?,
        stop_after: None,
        waves,
    })
}

fn on_failure(kind: OperationKind, text: &str) -> Result<OnFailure, Fault> {
    let wanted = OnFailure::parse(text).ok_or_else(|| {
        invalid(
            format!("{text:?} is nothing to do about failures"),
            "--on-failure rollback, pause or continue",
        )
    })?;
    match (kind, text) {
        (OperationKind::Remove, "" | "pause") => Ok(OnFailure::Pause),
        (OperationKind::Remove, _) => Err(invalid(
            format!("a removal cannot {text} when a node fails: it goes on trying, or pauses"),
            "leave --on-failure out",
        )),
        _ => Ok(wanted),
    }
}

/// The step of a removal to stop after; its last one is the whole removal.
pub(super) fn stop_after(step: &str) -> Result<Option<StepKind>, Fault> {
    match step {
        "" | "purge" => Ok(None),
        "detach" => Ok(Some(StepKind::Detach)),
        "disable" => Ok(Some(StepKind::Disable)),
        other => Err(invalid(
            format!("{other:?} is no step of a removal"),
            "--step detach, disable or purge; without it all three",
        )),
    }
}

/// Numbers of waves, of `waves` there are.
fn pause_after(asked: &[String], waves: usize) -> Result<BTreeSet<u32>, Fault> {
    let mut numbers = BTreeSet::new();
    for text in asked {
        match text.as_str() {
            "canary" => drop(numbers.insert(1)),
            "each" => numbers.extend((1..).take(waves.saturating_sub(1))),
            number => match number.parse::<u32>() {
                Ok(wave) if wave > 0 && wave as usize <= waves => drop(numbers.insert(wave)),
                _ => {
                    let message = format!("there is no wave {number:?} to pause after; there are {waves}");
                    return Err(invalid(message, "--pause-after canary, each, or the number of a wave"));
                }
            },
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(edit: impl FnOnce(&mut v1::RolloutPolicy)) -> Result<Policy, Fault> {
        let mut wish = v1::RolloutPolicy::default();
        edit(&mut wish);
        policy(OperationKind::Install, Some(wish), 8)
    }

    #[test]
    fn words_become_numbers() {
        let each = asked(|p| p.pause_after = vec!["each".into()]).unwrap();
        assert_eq!(each.pause_after, [1, 2].into());
        let canary = asked(|p| {
            p.canary = "25%".into();
            p.pause_after = vec!["canary".into()];
        });
        let canary = canary.unwrap();
        assert_eq!((canary.waves[0].as_str(), canary.pause_after), ("25%", [1].into()));
    }

    #[test]
    fn nonsense_is_refused() {
        for refused in [
            asked(|p| p.on_failure = "panic".into()),
            asked(|p| p.pause_after = vec!["4".into()]),
            asked(|p| p.pause_after = vec!["0".into()]),
            asked(|p| p.canary = "0".into()),
            asked(|p| p.canary = "101%".into()),
            asked(|p| p.bake_ms = MAX_MS + 1),
            policy(
                OperationKind::Remove,
                Some(v1::RolloutPolicy { on_failure: "rollback".into(), ..Default::default() }),
                8,
            ),
        ] {
            assert_eq!(refused.unwrap_err().code, "INVALID_ROLLOUT");
        }
    }
}
