//! Which settings of a tenant are carried to a rotated login and into a restored database. Pure.
//!
//! A list, and nothing else: what changes how the tenant's own statements are read, answered or planned. Never what
//! says who somebody is or where names are found (`role`, `search_path`), what loads code (`*_preload_libraries`), what
//! turns off checks (`row_security`, `session_replication_role`), what is written to the server's log or its disks.

/// The settings that are carried, in the server's own spelling.
pub const CARRIED: [&str; 48] = [
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "client_min_messages",
    "constraint_exclusion",
    "cpu_tuple_cost",
    "default_statistics_target",
    "default_text_search_config",
    "default_toast_compression",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "effective_cache_size",
    "enable_hashjoin",
    "enable_indexscan",
    "enable_mergejoin",
    "enable_nestloop",
    "enable_partitionwise_aggregate",
    "enable_partitionwise_join",
    "enable_seqscan",
    "escape_string_warning",
    "extra_float_digits",
    "from_collapse_limit",
    "gin_fuzzy_search_limit",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
    "join_collapse_limit",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "maintenance_work_mem",
    "max_parallel_workers_per_gather",
    "plan_cache_mode",
    "random_page_cost",
    "seq_page_cost",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronous_commit",
    "temp_buffers",
    "transaction_timeout",
    "transform_null_equals",
    "work_mem",
    "xmloption",
];

/// Longer values are not carried: they travel in the manifest of a backup, which is small.
const LONGEST: usize = 256;

/// Of lines `name=value`, as the server keeps them, those that are carried. Of two of one name the later counts.
pub fn carried<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, value) in lines.into_iter().filter_map(|line| line.split_once('=')) {
        let Some(name) = CARRIED.iter().find(|carried| carried.eq_ignore_ascii_case(name)) else { continue };
        found.retain(|(other, _)| other != name);
        if value.len() > LONGEST {
            continue;
        }
        found.push(((*name).to_owned(), value.to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_who_somebody_is_or_loads_code_is_never_carried() {
        for name in [
            "role",
            "search_path",
            "session_authorization",
            "session_preload_libraries",
            "local_preload_libraries",
            "dynamic_library_path",
            "jit_provider",
            "row_security",
            "session_replication_role",
            "log_statement",
            "log_min_duration_statement",
            "default_tablespace",
            "temp_tablespaces",
            "default_table_access_method",
            "default_transaction_read_only",
            "event_triggers",
            "password_encryption",
            "createrole_self_grant",
            "application_name",
            "plpgsql.extra_errors",
        ] {
            assert_eq!(carried([format!("{name}=x").as_str()]), [], "{name} is carried");
        }
    }

    #[test]
    fn the_later_of_two_counts_and_values_are_kept_as_they_are() {
        let lines = ["TimeZone=UTC", "search_path=app", "work_mem=64MB", "timezone=Europe/Berlin", "default_text_search_config=it's = odd"];
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            carried(lines),
            [pair("work_mem", "64MB"), pair("TimeZone", "Europe/Berlin"), pair("default_text_search_config", "it's = odd")]
        );
    }

    #[test]
    fn what_is_too_long_for_a_manifest_is_left_behind() {
        let long = format!("TimeZone={}", "x".repeat(LONGEST + 1));
        assert_eq!(carried([long.as_str(), "work_mem=4MB"]), [("work_mem".to_owned(), "4MB".to_owned())]);
    }

    #[test]
    fn the_list_is_sorted_and_names_nothing_twice() {
        let mut sorted = CARRIED.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted, CARRIED);
    }
}
