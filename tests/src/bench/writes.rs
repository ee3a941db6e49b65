//! Committed writes and linearizable reads of three members against three of etcd, on the same disk, over the same API, from
//! the same clients, in turns.

mod etcd;
mod load;
pub mod member;
mod ours;

use std::time::Duration;

use super::figures::{median, spread, verdict};
use load::{Kind, Load, Ran};

/// etcd's v3 API, compiled from `proto/etcd.proto`.
#[allow(missing_debug_implementations, clippy::all)]
pub(crate) mod pb {
    tonic::include_proto!("etcdserverpb");
}

/// What is asked of the median ratio to etcd.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// Operations a second, at least.
    Rate(f64),
    /// Median latency, at most.
    Latency(f64),
}

/// Kind, clients, target.
const LOADS: [(Kind, usize, Target); 5] = [
    (Kind::Put, 1, Target::Latency(1.3)),
    (Kind::Put, 16, Target::Rate(1.0)),
    (Kind::Put, 64, Target::Rate(1.3)),
    (Kind::Put, 256, Target::Rate(1.8)),
    (Kind::Range, 64, Target::Rate(1.5)),
];

/// Measures `rounds` of `seconds` of each load in turns; whether the targets are met. Without etcd ours alone is measured.
pub fn run(rounds: usize, seconds: f64, only: &[usize]) -> bool {
    let runtime = super::runtime();
    let temp = super::directory("kctl-bench-writes-");
    let rounds = rounds.max(3);
    let ours = ours::Ours::start(&temp.path().join("kctl"));
    let etcd = etcd::Etcd::start(&temp.path().join("etcd"));
    if etcd.is_none() {
        println!("\nwrites: there is no etcd to compare with: apt install etcd-server etcd-client");
    }
    let duration = Duration::from_secs_f64(seconds);
    let asked = LOADS.iter().filter(|(_, clients, _)| only.is_empty() || only.contains(clients));
    let met: Vec<bool> = asked
        .map(|(kind, clients, target)| {
            let load = Load { kind: *kind, clients: *clients, duration };
            let (mut own, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..=rounds {
                // Who goes first alternates: whatever else the machine does meets both alike.
                for first in [round % 2 == 0, round % 2 != 0] {
                    if first {
                        own.push(runtime.block_on(load.run(ours.urls())));
                    } else if let Some(etcd) = &etcd {
                        theirs.push(runtime.block_on(load.run(etcd.urls())));
                    }
                }
            }
            // The first of each warms caches and connections up.
            report(&load, *target, &own[1..], theirs.get(1..).unwrap_or_default())
        })
        .collect();
    met.into_iter().all(|met| met)
}

fn report(load: &Load, target: Target, own: &[Ran], theirs: &[Ran]) -> bool {
    let middle = |rounds: &[Ran], of: fn(&Ran) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    let (rate, p50) = (|ran: &Ran| ran.rate, |ran: &Ran| ran.p50);
    println!(
        "\nwrites: {:?} by {} clients ({} rounds of {:?})",
        load.kind,
        load.clients,
        own.len(),
        load.duration
    );
    println!(
        "  kctl {:9.0} a second, p50 {:8.3} ms, p99 {:8.3} ms",
        middle(own, rate),
        middle(own, p50),
        middle(own, |r| r.p99)
    );
    if theirs.is_empty() {
        return true;
    }
    println!(
        "  etcd {:9.0} a second, p50 {:8.3} ms, p99 {:8.3} ms",
        middle(theirs, rate),
        middle(theirs, p50),
        middle(theirs, |r| r.p99)
    );
    let ratios = |of: fn(&Ran) -> f64| own.iter().zip(theirs).map(|(a, b)| of(a) / of(b)).collect::<Vec<_>>();
    let (rates, latencies) = (ratios(rate), ratios(p50));
    let met = match target {
        Target::Rate(least) => median(&rates) >= least,
        Target::Latency(most) => median(&latencies) <= most,
    };
    let wanted = match target {
        Target::Rate(least) => format!("rate at least {least:.1}"),
        Target::Latency(most) => format!("p50 at most {most:.1}"),
    };
    println!("  ratio: rate {}, p50 {}; {wanted} {}", spread(&rates), spread(&latencies), verdict(met));
    met
}
