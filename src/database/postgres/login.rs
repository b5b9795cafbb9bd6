//! Tries a login as its tenant would, without the admin role.

use sqlx::{Connection, PgConnection};

use super::{
    connect::{code, explain, options},
    driver::{ASK, Address},
};
use crate::database::{Error, Password};

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It was let in.
    LetIn,
    /// The password was right, and the login, or the database, is shut to it; the text is the server's.
    Shut(String),
    /// The server does not know the login, or another password of it. It does not say which.
    WrongPassword,
    /// There is no such database.
    NoDatabase,
}

/// Logs in to a database, and leaves again at once.
///
/// # Errors
/// The server did not answer, or not as a server that can be judged.
pub async fn attempt(address: &Address, username: &str, password: &Password, database: &str) -> Result<Attempt, Error> {
    let step = "try a login";
    let options = options(address, username, password).database(database);
    let tried = async {
        match PgConnection::connect_with(&options).await {
            Ok(session) => {
                session.close().await.ok();
                Ok(Attempt::LetIn)
            }
            Err(error) => match code(&error).as_deref() {
                Some("28P01") => Ok(Attempt::WrongPassword),
                Some("3D000") => Ok(Attempt::NoDatabase),
                Some("28000" | "42501" | "55000") => {
                    Ok(Attempt::Shut(error.as_database_error().map_or_else(String::new, |e| e.message().to_owned())))
                }
                _ => Err(explain(address, step, error)),
            },
        }
    };
    match tokio::time::timeout(ASK, tried).await {
        Ok(tried) => tried,
        Err(_) => Err(Error::Unreachable { address: address.to_string(), reason: format!("no answer within {} s", ASK.as_secs()) }),
    }
}
