//! How a person confirms the deletion of an account.

use kube::{Resource, ResourceExt};

use super::HelpDeskAccount;

/// Annotation by which a person confirms a deletion. Its value must be the object's name.
pub const CONFIRM_DELETE: &str = "helpdesk-operator.io/confirm-delete";

/// Whether a person confirmed the deletion of the account: the annotation has the account's name.
pub fn deletion_is_confirmed(account: &HelpDeskAccount) -> bool {
    account.meta().deletion_timestamp.is_some() && account.annotations().get(CONFIRM_DELETE).is_some_and(|name| *name == account.name_any())
}
