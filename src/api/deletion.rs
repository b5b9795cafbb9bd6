//! How an account's object is deleted.

use kube::{Resource, ResourceExt};

use super::{CONFIRM_DELETE, HelpDeskAccount};

/// Whether a person confirmed the deletion by naming the account.
pub fn deletion_is_confirmed(account: &HelpDeskAccount) -> bool {
    account.meta().deletion_timestamp.is_some() && account.annotations().get(CONFIRM_DELETE).is_some_and(|name| *name == account.name_any())
}
