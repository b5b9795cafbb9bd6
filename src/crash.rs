//! Points at which a test kills the process: each right after something was stored.
//!
//! They exist only in builds with debug assertions, never in a release build.

/// Aborts the process if the environment variable `HELPDESK_OPERATOR_CRASH_AT` names this point, as `point:detail`.
#[cfg(debug_assertions)]
pub fn point(name: &str, detail: &str) {
    if std::env::var("HELPDESK_OPERATOR_CRASH_AT").is_ok_and(|at| at == format!("{name}:{detail}")) {
        tracing::error!(point = name, detail, "crashing on purpose");
        std::process::abort();
    }
}

/// Does nothing in a release build.
#[cfg(not(debug_assertions))]
pub fn point(_name: &str, _detail: &str) {}
