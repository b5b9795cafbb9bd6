//! An error with its causes, as one line for people.

use std::{error::Error, sync::Arc};

use sqlx::postgres::PgDatabaseError;

/// An error and its causes in one line. What one of them repeats is said once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = words(error);
    let mut last = error;
    while !is_answer(last)
        && let Some(inner) = last.source()
    {
        let said = words(inner);
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        last = inner;
    }
    text
}

/// Whether the error is an answer of the API server, whose cause is that same answer.
fn is_answer(error: &(dyn Error + 'static)) -> bool {
    matches!(find::<kube::Error>(error), Some(kube::Error::Api(_)))
}

/// What an error says by itself. The client's errors of the API server print its whole answer, with the message four times;
/// PostgreSQL's are printed without what it adds to explain them.
pub fn words(error: &(dyn Error + 'static)) -> String {
    if let Some(kube::Error::Api(status)) = find::<kube::Error>(error) {
        return if status.message.is_empty() {
            format!("the API server answered {} {}", status.code, status.reason)
        } else {
            status.message.clone()
        };
    }
    match find::<sqlx::Error>(error).and_then(sqlx::Error::as_database_error).and_then(|e| e.try_downcast_ref::<PgDatabaseError>()) {
        Some(said) => of_postgres(said.code(), said.message(), said.detail(), said.hint()),
        None => error.to_string(),
    }
}

/// The error itself, or what its source is kept in.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    error
        .downcast_ref::<E>()
        .or_else(|| error.downcast_ref::<Box<E>>().map(|boxed| &**boxed))
        .or_else(|| error.downcast_ref::<Arc<E>>().map(|shared| &**shared))
}

/// The message of PostgreSQL with its DETAIL and HINT. The detail of data that is refused (classes 22 and 23) is left out: it
/// shows rows of the tenant.
fn of_postgres(code: &str, message: &str, detail: Option<&str>, hint: Option<&str>) -> String {
    let shows_rows = code.starts_with("22") || code.starts_with("23");
    let mut text = format!("PostgreSQL says: {message}");
    for (name, said) in [("DETAIL", detail.filter(|_| !shows_rows)), ("HINT", hint)] {
        if let Some(said) = said {
            text.push_str(&format!(" {name}: {}", said.replace('\n', "; ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to write the status")]
    struct Failed(#[source] Box<kube::Error>);

    #[test]
    fn what_the_api_server_refuses_is_said_once() {
        let status = kube::core::Status::failure("helpdeskaccounts \"acme\" is forbidden: only the operator writes it", "Forbidden");
        let error = Failed(Box::new(kube::Error::Api(Box::new(status.with_code(403)))));
        assert_eq!(chain(&error), "failed to write the status: helpdeskaccounts \"acme\" is forbidden: only the operator writes it");
        let silent = kube::Error::Api(Box::new(kube::core::Status::failure("", "Forbidden").with_code(403)));
        assert_eq!(chain(&silent), "the API server answered 403 Forbidden");
    }

    #[test]
    fn postgresql_explains_itself_and_shows_no_row() {
        let said = of_postgres("2BP01", "role cannot be dropped", Some("owner of table a\nowner of table b"), None);
        assert_eq!(said, "PostgreSQL says: role cannot be dropped DETAIL: owner of table a; owner of table b");
        let said = of_postgres("42501", "permission denied", None, Some("Only roles with CREATEROLE may."));
        assert_eq!(said, "PostgreSQL says: permission denied HINT: Only roles with CREATEROLE may.");
        let said = of_postgres("23505", "duplicate key", Some("Key (email)=(ana@acme.example) already exists."), None);
        assert!(!said.contains("ana@"), "{said}");
    }
}
