//! The checks, one file for each family. Each says what it sees; what follows from what is not their business.
#![deny(clippy::disallowed_methods)]

mod answers;
pub(super) mod conf;
mod database;
mod effect;
mod files;
mod loading;
mod processes;
mod surroundings;

use super::{Facts, Finding};

pub fn all(facts: &Facts) -> Vec<Finding> {
    if facts.is_of_no_known_kind() {
        return surroundings::check(facts);
    }
    let families = [
        surroundings::check,
        conf::check,
        effect::check,
        database::check,
        files::check,
        loading::check,
        processes::check,
        answers::check,
    ];
    families.iter().flat_map(|check| check(facts)).collect()
}
