//! Finds what a command names.

use kube::Api;

use super::{connection::Connection, error::Error};
use crate::{
    api::{DatabaseServer, HelpDeskAccount, HelpDeskPlan},
    cluster::During,
};

/// The account of this name.
pub(super) async fn account(connection: &Connection, name: &str) -> Result<HelpDeskAccount, Error> {
    let api: Api<HelpDeskAccount> = Api::all(connection.client.clone());
    let found = api.get_opt(name).await.during("read the account")?;
    found.ok_or_else(|| Error::NotFound { kind: "helpdeskaccount", name: name.to_owned() })
}

/// The plan of an account.
pub(super) async fn plan(connection: &Connection, account: &HelpDeskAccount) -> Result<HelpDeskPlan, Error> {
    let api: Api<HelpDeskPlan> = Api::all(connection.client.clone());
    let found = api.get_opt(&account.spec.plan).await.during("read the account's plan")?;
    found.ok_or_else(|| Error::NotFound { kind: "helpdeskplan", name: account.spec.plan.clone() })
}

/// The server of this name.
pub(super) async fn server(connection: &Connection, name: &str) -> Result<DatabaseServer, Error> {
    let api: Api<DatabaseServer> = Api::all(connection.client.clone());
    let found = api.get_opt(name).await.during("read the server")?;
    found.ok_or_else(|| Error::NotFound { kind: "databaseserver", name: name.to_owned() })
}
