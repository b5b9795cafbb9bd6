//! How a person confirms the deletion of an account.

use kube::{Resource, ResourceExt};

use super::HelpDeskAccount;

/// Annotation by which a person confirms a deletion; its value must be the object's own name.
pub const CONFIRM_DELETE: &str = "helpdesk-operator.io/confirm-delete";

/// Whether a person confirmed the deletion by naming the account.
pub fn deletion_is_confirmed(account: &HelpDeskAccount) -> bool {
    account.meta().deletion_timestamp.is_some() && account.annotations().get(CONFIRM_DELETE).is_some_and(|name| *name == account.name_any())
}
