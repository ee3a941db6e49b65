//! The database and its migrations.

use crate::doctor::{Facts, Finding, Repair};

pub fn check(facts: &Facts) -> Vec<Finding> {
    let Some(failure) = &facts.database.trouble else { return Vec::new() };
    let conf = facts.conf_path.display();
    let finding = match failure.code.as_str() {
        "MIGRATIONS_UNFINISHED" => {
            Finding::warning(&failure.code, "migrations of the database were begun and not finished")
                .fix(format!("when every node runs the new version: kong migrations finish -c {conf}"))
        }
        "MIGRATIONS_PENDING" => Finding::error(
            &failure.code,
            "the database lacks what the listed plugins need: migrations have not run",
        )
        .detail("a start or reload with them is refused until they have")
        .fix(format!("once for the group: kong migrations up -c {conf}"))
        .repair_if_allowed(Repair::Migrate),
        "DATABASE_NEEDS_BOOTSTRAP" => Finding::error(&failure.code, "the database has no tables of Kong")
            .fix(format!("check pg_database; for a new one: kong migrations bootstrap -c {conf}")),
        "DATABASE_UNREACHABLE" => Finding::error(&failure.code, "Kong cannot reach its database")
            .detail("a reload now would be refused, and would leave the node not ready")
            .fix("start the database, or correct pg_host, pg_port, pg_user and pg_password"),
        _ => Finding::error(&failure.code, "Kong could not say how far the database's migrations are")
            .fix(format!("kong migrations list -c {conf}")),
    };
    // A sentence of our own has nothing of Kong's in it.
    vec![if failure.code == "DATABASE_UNREACHABLE" && failure.message.starts_with("Kong cannot") {
        finding
    } else {
        finding.says(&failure.message)
    }]
}
