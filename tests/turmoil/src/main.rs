//! Plays one seed and prints how it went as JSON. A process for each, because the runtime counts the seeds of its own
//! choices in a number of the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(seed) = std::env::args().nth(1).and_then(|text| text.parse().ok()) else {
        eprintln!(
            "usage: turmoil-run SEED; KCTL_LOG says what is logged, \"turmoil_trace=info\" what happened"
        );
        return ExitCode::from(64);
    };
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("KCTL_LOG") {
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        log.with_ansi(false).without_time().init();
    }
    let outcome = kctl_turmoil::run::run(seed);
    println!("{}", serde_json::json!(outcome));
    if outcome.violated.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
