//! Rockspecs are run in the sandbox too.

use kctl_shared::package::{Evaluated, Evaluator, PackageError};

use super::child;
use super::job::{Job, Line};

/// The evaluator that packing gets.
#[derive(Clone, Copy, Debug)]
pub struct Sandboxed;

impl Evaluator for Sandboxed {
    fn evaluate(&self, name: &str, source: &[u8]) -> Result<Evaluated, PackageError> {
        let job = Job::Rockspec { name: name.to_owned(), size: source.len() };
        let endless = |why: &str| PackageError::new("ROCKSPEC_ENDLESS", format!("{name}: {why}"));
        let told = child::run(&job, &[source])
            .map_err(|e| PackageError::new("ROCKSPEC_INVALID", format!("{name} cannot be run: {e}")))?;
        for line in told.lines {
            match line {
                Line::Rockspec(globals) => return Ok(globals),
                Line::Refused { code, message } if code == "ROCKSPEC_ENDLESS" => {
                    return Err(PackageError::new("ROCKSPEC_ENDLESS", message));
                }
                Line::Refused { message, .. } => return Err(PackageError::new("ROCKSPEC_INVALID", message)),
                _ => {}
            }
        }
        Err(endless(&told.death.unwrap_or_else(|| "running it gave nothing".into())))
    }
}
