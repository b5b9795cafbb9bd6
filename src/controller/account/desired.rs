//! What each stage wants of database, namespace, routes and backups. Pure.

use crate::lifecycle::Stage;

/// What is wanted of the tenant's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// It exists and its tenant logs in.
    Open,
    /// It exists and nobody of the tenant gets in.
    Shut,
    /// It does not exist, and neither do its roles.
    Gone,
}

/// What is wanted of the tenant's addresses on the web.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// They lead to the app, under the tenant's policy.
    Live,
    /// They answer that the account is suspended.
    Suspended,
    /// They lead nowhere.
    Gone {
        /// Whether the names are kept for the account; otherwise their quarantine begins.
        reserved: bool,
    },
}

/// What is wanted of the tenant's backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backups {
    /// Taken on schedule; each runs out by itself.
    Scheduled,
    /// One Frozen backup, taken while nobody is in; the others run out by themselves.
    Frozen,
    /// The Frozen one only.
    FrozenOnly,
    /// None, not even a key.
    Gone,
}

/// What a stage wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredState {
    /// The tenant's database.
    pub database: Database,
    /// Whether the tenant has a namespace, with its configuration and the Secret with its credentials.
    pub namespace: bool,
    /// The tenant's addresses.
    pub routes: Routes,
    /// The tenant's backups.
    pub backups: Backups,
    /// Whether personal data of the owner is kept.
    pub personal_data: bool,
}

const KEPT: Routes = Routes::Gone { reserved: true };

/// What the stage wants: the table of the product, row by row.
pub const fn state(stage: Stage) -> DesiredState {
    match stage {
        Stage::Trial | Stage::Active => DesiredState {
            database: Database::Open,
            namespace: true,
            routes: Routes::Live,
            backups: Backups::Scheduled,
            personal_data: true,
        },
        Stage::Blocked => DesiredState {
            database: Database::Shut,
            namespace: true,
            routes: Routes::Suspended,
            backups: Backups::Frozen,
            personal_data: true,
        },
        Stage::Terminated => {
            DesiredState { database: Database::Shut, namespace: false, routes: KEPT, backups: Backups::Frozen, personal_data: true }
        }
        Stage::Deleted => {
            DesiredState { database: Database::Gone, namespace: false, routes: KEPT, backups: Backups::FrozenOnly, personal_data: true }
        }
        Stage::Expired => DesiredState {
            database: Database::Gone,
            namespace: false,
            routes: Routes::Gone { reserved: false },
            backups: Backups::Gone,
            personal_data: false,
        },
    }
}
