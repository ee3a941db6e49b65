//! Every recorded scenario: by which test it is played, or why it is not.

use std::collections::BTreeSet;

use How::{Left, Played};

/// What became of a scenario.
enum How {
    /// `file::test`.
    Played(&'static [&'static str]),
    /// With the reason.
    Left(&'static str),
}

const BROKEN: How = Played(&[
    "broken_plugins::a_reload_of_any_broken_plugin_is_refused_on_a_node_without_a_database",
    "broken_plugins::a_reload_of_any_broken_plugin_is_refused_on_a_database",
    "broken_plugins::restart_and_start_with_a_broken_plugin_leave_the_node_down",
    "transcripts::refused_starts_read_as_recorded",
]);
const INIT_WORKER: How = Played(&["late_failures::a_throwing_init_worker_leaves_only_log_lines"]);
const ACCESS: How = Played(&["late_failures::a_throwing_access_phase_answers_500_and_is_logged"]);
const API: How = Played(&["late_failures::a_throwing_api_takes_the_whole_admin_api_down"]);
const PREFLIGHT: How = Played(&[
    "broken_plugins::config_parse_in_a_scratch_prefix_refuses_what_does_not_load",
    "preflight::a_scratch_boot_runs_beside_the_node",
]);
const ADDED: How = Played(&["add_plugin::a_reload_enables_a_plugin_that_was_refused_before"]);
const UPGRADED: How = Played(&["add_plugin::new_code_comes_with_a_reload_and_not_with_a_new_worker"]);
const DELETED: How = Played(&["add_plugin::deleted_files_are_missed_at_the_next_init_only"]);
const KEY_REMOVED: How =
    Played(&["prefix_writes::a_key_deleted_from_the_file_survives_a_reload_but_not_a_prepare"]);
const ROOT: How = Played(&[
    "root::the_root_shows_identity_plugins_processes_and_configuration",
    "transcripts::the_root_has_every_recorded_field",
]);
const MIGRATIONS: How = Left(
    "migrations are SQL that a database runs, with a list of those that ran (schema_meta): the stand-in's store is one JSON file \
     without either, and its `kong migrations` finds the work done. What a node is told by `list` when it is not, \
     node-agent/src/doctor/gather/trials.rs reads and tests",
);
const HYBRID: How = Left(
    "its subject is what a control plane tells of its data planes (`/clustering/data-planes`, sync_status, config_hash) and sends \
     them: the stand-in speaks no such protocol. A node that drops a plugin of its cached configuration, the last part, is played \
     without a control plane by in_use::a_kept_configuration_that_uses_a_dropped_plugin_breaks_the_workers",
);

const SCENARIOS: &[(&str, How)] = &[
    (
        "01-version.txt",
        Played(&[
            "version::version_prints_just_the_number",
            "version::unknown_commands_print_the_usage_to_stderr_and_exit_1",
        ]),
    ),
    (
        "02-start-stop-health.txt",
        Played(&[
            "lifecycle::a_node_starts_once_reports_health_and_quits",
            "lifecycle::stop_is_fast_and_says_so",
            "transcripts::kong_env_has_every_recorded_key",
        ]),
    ),
    (
        "03-start-failures-other.txt",
        Played(&[
            "lifecycle::bad_settings_are_refused_and_unknown_ones_are_not",
            "lifecycle::a_taken_port_is_tried_five_times",
        ]),
    ),
    (
        "03b-restart-without-c.txt",
        Played(&["lifecycle::a_restart_without_a_file_comes_up_with_kongs_defaults"]),
    ),
    (
        "03c-reload-failures-other.txt",
        Played(&[
            "readiness::settings_that_nginx_refuses_are_seen_by_the_command",
            "readiness::listeners_move_with_a_reload_unless_their_address_is_taken",
            "readiness::files_that_do_not_parse_are_refused_by_the_master",
        ]),
    ),
    ("21-dbless-plugin-absent.txt", BROKEN),
    ("21-pg-plugin-absent.txt", BROKEN),
    ("22-dbless-plugin-schema-missing.txt", BROKEN),
    ("22-pg-plugin-schema-missing.txt", BROKEN),
    ("23-dbless-plugin-handler-missing.txt", BROKEN),
    ("24-dbless-plugin-handler-syntax-error.txt", BROKEN),
    ("24-pg-plugin-handler-syntax-error.txt", BROKEN),
    ("25-dbless-plugin-handler-runtime-error.txt", BROKEN),
    ("26-dbless-plugin-schema-syntax-error.txt", BROKEN),
    ("27-dbless-plugin-schema-invalid.txt", BROKEN),
    ("27-pg-plugin-schema-invalid.txt", BROKEN),
    ("28-dbless-plugin-schema-no-config.txt", BROKEN),
    (
        "29-dbless-plugin-schema-name-mismatch.txt",
        Played(&[
            "broken_plugins::a_version_with_a_suffix_is_cleaned_and_a_foreign_name_in_the_schema_is_ignored",
        ]),
    ),
    ("30-dbless-plugin-handler-no-priority.txt", BROKEN),
    ("31-dbless-plugin-handler-no-version.txt", BROKEN),
    ("32-dbless-plugin-handler-bad-version.txt", BROKEN),
    ("33-dbless-plugin-handler-returns-nothing.txt", BROKEN),
    ("34-dbless-plugin-init-worker-error.txt", INIT_WORKER),
    ("34-pg-plugin-init-worker-error.txt", INIT_WORKER),
    ("35-dbless-plugin-access-error.txt", ACCESS),
    ("35-pg-plugin-access-error.txt", ACCESS),
    ("36-dbless-plugin-api-error.txt", API),
    ("36-pg-plugin-api-error.txt", API),
    ("37-dbless-plugin-daos-error.txt", BROKEN),
    ("37-pg-plugin-daos-error.txt", BROKEN),
    ("38-dbless-preflight-without-touching-the-running-kong.txt", PREFLIGHT),
    ("38-pg-preflight-without-touching-the-running-kong.txt", PREFLIGHT),
    (
        "38-preflight-config-parse-needs-a-scratch-prefix.txt",
        Played(&["preflight::config_parse_reads_the_kong_env_of_a_prefix_that_has_one"]),
    ),
    (
        "39-dbless-which-commands-write-the-prefix.txt",
        Played(&["prefix_writes::only_prepare_and_reload_rewrite_a_running_prefix"]),
    ),
    ("40-dbless-reload-add-good-plugin.txt", ADDED),
    ("40-pg-reload-add-good-plugin.txt", ADDED),
    ("41-dbless-upgrade-in-place.txt", UPGRADED),
    ("41-pg-upgrade-in-place.txt", UPGRADED),
    (
        "42-dbless-upgrade-schema-change-with-entities.txt",
        Played(&["schema_change::a_declarative_file_is_judged_by_the_new_schema_and_refused_as_a_whole"]),
    ),
    (
        "42-pg-upgrade-schema-change-with-entities.txt",
        Played(&[
            "schema_change::a_database_shows_stored_entities_in_their_new_shape_and_judges_them_when_they_change",
        ]),
    ),
    (
        "43-dbless-in-use-but-not-in-plugins.txt",
        Played(&[
            "in_use::a_plugin_in_a_declarative_file_cannot_be_dropped",
            "in_use::a_kept_configuration_that_uses_a_dropped_plugin_breaks_the_workers",
        ]),
    ),
    (
        "43-pg-in-use-but-not-in-plugins.txt",
        Played(&["in_use::a_plugin_in_use_cannot_be_dropped_on_a_database"]),
    ),
    ("44-dbless-reload-after-plugins-key-removed.txt", KEY_REMOVED),
    ("44-pg-reload-after-plugins-key-removed.txt", KEY_REMOVED),
    ("45-dbless-files-of-loaded-plugin-deleted.txt", DELETED),
    ("45-pg-files-of-loaded-plugin-deleted.txt", DELETED),
    (
        "46-pg-two-nodes-one-without-the-plugin.txt",
        Played(&["two_nodes::a_node_that_lacks_a_plugin_in_use_takes_no_plugin_change_at_all"]),
    ),
    (
        "47-dbless-sighup-symlink-perms-path.txt",
        Played(&[
            "prefix_writes::a_hup_loads_new_code_but_no_new_settings",
            "late_failures::files_that_only_root_can_read_load_in_the_master_and_fail_in_workers",
            "add_plugin::the_first_entry_of_the_path_wins_over_bundled_plugins_too",
        ]),
    ),
    ("48-pg-remove-in-good-order.txt", Played(&["removal::entities_first_then_the_list_then_the_files"])),
    (
        "50-pg-plugins-crud.txt",
        Played(&[
            "plugins_crud::an_entity_shows_every_field",
            "plugins_crud::patch_merges_the_configuration",
            "plugins_crud::put_replaces_or_creates_under_the_given_id",
            "plugins_crud::delete_is_idempotent_and_cascades",
        ]),
    ),
    ("51-pg-schema-violations.txt", Played(&["admin_errors::schema_violations_name_every_field"])),
    (
        "52-pg-not-enabled-and-unknown.txt",
        Played(&["admin_errors::plugins_that_are_not_enabled_are_unknown_to_every_verb"]),
    ),
    (
        "53-pg-schemas-endpoints.txt",
        Played(&["admin_errors::schemas_are_shown_with_defaults_and_without_functions"]),
    ),
    ("54-get-plugins-enabled.json", ROOT),
    ("54-get-root.json", ROOT),
    ("54-pg-root-and-enabled.txt", ROOT),
    ("55-pg-plugins-pagination.txt", Played(&["plugins_crud::lists_come_in_pages"])),
    (
        "56-debug-log-loading-plugin.txt",
        Played(&["lifecycle::at_level_debug_the_log_names_every_plugin_as_it_is_loaded"]),
    ),
    (
        "57-cli-vv.txt",
        Played(&[
            "version::more_words_come_with_their_level",
            "transcripts::the_whole_configuration_is_told_as_recorded",
        ]),
    ),
    (
        "58-pg-plugins-value-forms.txt",
        Played(&["broken_plugins::names_are_taken_from_the_list_as_they_stand"]),
    ),
    ("60-pg-migrations-plugin.txt", MIGRATIONS),
    ("61-pg-start-run-migrations.txt", MIGRATIONS),
    (
        "70-dbless-worker-drain-during-reload.txt",
        Played(&["drain::a_long_request_keeps_its_worker_and_its_code"]),
    ),
    (
        "71-dbless-concurrent-reloads.txt",
        Played(&["drain::reloads_at_the_same_moment_all_succeed_and_coalesce"]),
    ),
    ("72-dbless-load-20-reloads.txt", Played(&["drain::requests_do_not_fail_over_reloads"])),
    (
        "73-dbless-status-ready-during-lifecycle.txt",
        Played(&["readiness::only_a_good_reload_brings_readiness_back"]),
    ),
    (
        "74-dbless-after-a-failed-reload.txt",
        Played(&["after_failure::without_a_database_a_posted_configuration_heals_readiness"]),
    ),
    (
        "74-pg-after-a-failed-reload.txt",
        Played(&["after_failure::on_a_database_nothing_but_a_good_reload_heals_readiness"]),
    ),
    ("75-dbless-kong-drain.txt", Played(&["drain::draining_is_announced_and_ended_by_a_reload"])),
    ("80-hybrid-plugin-missing-on-dp.txt", HYBRID),
    (
        "91-preflight-verdicts.txt",
        Played(&["lua_surroundings::statements_pass_and_fail_where_kong_lets_them"]),
    ),
];

/// The sources next to this one, by their module's name.
fn source(module: &str) -> String {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    std::fs::read_to_string(directory.join(format!("{module}.rs"))).unwrap_or_default()
}

#[test]
fn every_scenario_is_played_by_a_test_or_left_for_a_reason() {
    let mut left = Vec::new();
    for (file, how) in SCENARIOS {
        match how {
            Played(tests) => {
                for test in *tests {
                    let (module, name) = test.split_once("::").unwrap();
                    assert!(
                        source(module).contains(&format!("fn {name}(")),
                        "{file}: there is no test {test}"
                    );
                }
                println!("played  {file}: {}", tests.join(", "));
            }
            Left(reason) => left.push((file, reason)),
        }
    }
    for (file, reason) in &left {
        println!("left    {file}: {reason}");
    }
    println!("{} scenarios, {} of them left", SCENARIOS.len(), left.len());
}

#[test]
#[ignore = "needs the recordings themselves: KONG_GOLDEN=DIR"]
fn every_recording_is_a_scenario() {
    let directory = std::env::var_os("KONG_GOLDEN").expect("KONG_GOLDEN names a directory of recordings");
    let recorded: BTreeSet<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    let known: BTreeSet<String> = SCENARIOS.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(known.len(), SCENARIOS.len(), "a scenario is listed twice");
    let unknown: Vec<_> = recorded.difference(&known).collect();
    let gone: Vec<_> = known.difference(&recorded).collect();
    assert!(unknown.is_empty() && gone.is_empty(), "not listed: {unknown:?}; not recorded: {gone:?}");
}
