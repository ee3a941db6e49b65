//! Counts and percents: how many nodes a wave reaches, how many act at once.

use kctl_shared::fault::Fault;

/// Waves when nothing else is asked for: one canary, a quarter, all.
pub const DEFAULT_WAVES: [&str; 3] = ["1", "25%", "100%"];
pub const DEFAULT_MAX_PARALLEL: &str = "25%";

fn invalid(what: &str) -> Fault {
    Fault::new("INVALID_ROLLOUT", format!("{what:?} is neither a count nor a percent"))
        .hint("give counts and percents, e.g. --waves 1,25%,100% --max-parallel 2")
}

/// `share` of `total`: a count as it is, a percent rounded by `round`.
fn share(text: &str, total: usize, round: fn(usize) -> usize) -> Result<usize, Fault> {
    let number = |digits: &str| digits.trim().parse::<usize>().map_err(|_| invalid(text));
    match text.strip_suffix('%') {
        Some(digits) => match number(digits)? {
            percent if percent <= 100 => Ok(round(percent.saturating_mul(total))),
            _ => Err(invalid(text)),
        },
        None => number(text),
    }
}

/// Splits `nodes` into waves; each entry of `waves` is the cumulative share reached after it. The last wave always
/// reaches all nodes; waves that would add nobody are left out.
///
/// # Errors
/// `INVALID_ROLLOUT`.
pub fn split<T: Clone>(nodes: &[T], waves: &[String]) -> Result<Vec<Vec<T>>, Fault> {
    let mut reached = 0;
    let mut out = Vec::new();
    let all = [waves, &["100%".to_owned()]].concat();
    for wave in &all {
        let upto = share(wave, nodes.len(), |hundredths| hundredths.div_ceil(100))?.min(nodes.len());
        if upto > reached {
            out.push(nodes[reached..upto].to_vec());
            reached = upto;
        }
    }
    Ok(out)
}

/// `waves` with a first one of the size of `canary` before them. It reaches somebody.
///
/// # Errors
/// `INVALID_ROLLOUT`.
pub fn after_canary(canary: String, mut waves: Vec<String>, total: usize) -> Result<Vec<String>, Fault> {
    if share(&canary, total, |hundredths| hundredths.div_ceil(100))? == 0 {
        return Err(invalid(&canary));
    }
    waves.insert(0, canary);
    Ok(waves)
}

/// How many of `total` nodes may act at once; at least one.
///
/// # Errors
/// `INVALID_ROLLOUT`.
pub fn parallel(text: &str, total: usize) -> Result<usize, Fault> {
    Ok(share(text, total, |hundredths| hundredths / 100)?.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(total: usize, waves: &[&str]) -> Vec<usize> {
        let nodes: Vec<_> = (0..total).collect();
        let waves: Vec<_> = waves.iter().map(ToString::to_string).collect();
        split(&nodes, &waves).unwrap().iter().map(Vec::len).collect()
    }

    #[test]
    fn waves_are_cumulative_and_reach_everyone() {
        assert_eq!(sizes(12, &DEFAULT_WAVES), [1, 2, 9]);
        assert_eq!(sizes(5, &DEFAULT_WAVES), [1, 1, 3]);
        assert_eq!(sizes(1, &DEFAULT_WAVES), [1]);
        assert_eq!(sizes(10, &["5", "2", "50%"]), [5, 5]);
        assert_eq!(sizes(0, &["1"]), Vec::<usize>::new());
        assert_eq!(sizes(3, &["9"]), [3]);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "x", "-1", "101%", "1.5", "%"] {
            assert_eq!(split(&[1], &[bad.to_owned()]).unwrap_err().code, "INVALID_ROLLOUT", "{bad}");
        }
        assert_eq!(parallel("25%", 3).unwrap(), 1);
        assert_eq!(parallel("25%", 8).unwrap(), 2);
    }
}
