//! Which conditions of an account tell of something that is wrong or waited for. Pure.

use crate::api::{Condition, stage::Stage};

/// Whether a condition tells of something that is wrong, or that is waited for, in this stage.
pub(super) fn matters(condition: &Condition, stage: Option<Stage>) -> bool {
    let is_open = stage.is_none_or(Stage::is_open);
    let holds = condition.status == "True";
    match condition.type_.as_str() {
        "Reconciling" | "Stalled" | "RequirementsUnmet" | "Held" | "Overdue" | "QuotaExceeded" | "Unprovable" | "ExtensionsMissing"
        | "CertificateExpires" => holds,
        // What a closed account lacks, it is not meant to have.
        "DatabaseReady" | "AppReady" => !holds && (is_open || condition.status == "Unknown"),
        _ => !holds,
    }
}
