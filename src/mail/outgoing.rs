//! Signs what apps send (DKIM), with the key of their tenant, or refuses it. The mail server shows each message to rspamd's
//! proxy, which speaks milter to it, and the proxy asks here in rspamd's own protocol.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    directory::Directory,
    filter,
    sender::{Sender, author_domain, may_send},
    tokens::Tokens,
};
use crate::error_chain::chain;

struct Signer {
    directory: Arc<Directory>,
    tokens: Arc<Tokens>,
}

/// Why a message is not taken.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// The app is to try again.
    Later(&'static str),
    /// It is not to.
    Never(String),
}

/// The path at which messages are shown, by GET with a body. The mail server bounds their size.
pub(super) fn router(directory: Arc<Directory>, tokens: Arc<Tokens>) -> Router {
    let signer = Arc::new(Signer { directory, tokens });
    Router::new().route("/checkv2", any(check)).layer(DefaultBodyLimit::disable()).with_state(signer)
}

async fn check(State(signer): State<Arc<Signer>>, headers: HeaderMap, message: Bytes) -> Response {
    // The name that the app logged in with.
    let account = headers.get("user").and_then(|user| user.to_str().ok()).unwrap_or_default();
    let answer = match signer.sign(account, message).await {
        Ok(signature) => json!({"action": "no action", "dkim-signature": signature}),
        Err(refusal) => {
            tracing::info!(account, ?refusal, "a message that an app sends is not taken");
            refused(&refusal)
        }
    };
    ([(CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

fn refused(refusal: &Refusal) -> Value {
    let (action, why) = match refusal {
        Refusal::Later(why) => ("soft reject", *why),
        Refusal::Never(why) => ("reject", why.as_str()),
    };
    json!({"action": action, "messages": {"smtp_message": why}})
}

impl Signer {
    /// The signature of a message that the app of this account sends.
    async fn sign(&self, account: &str, message: Bytes) -> Result<String, Refusal> {
        let domain = author_domain(&message).map_err(|why| Refusal::Never(why.to_owned()))?;
        allow(account, &domain, &may_send(&self.directory.facts(&domain)))?;
        let failed = |error: &(dyn std::error::Error + 'static)| {
            tracing::warn!(account, error = chain(error), "a message cannot be signed");
            Refusal::Later("the message cannot be signed now; try again")
        };
        let key = self.tokens.signing_key(account).await.map_err(|error| failed(&error))?;
        let key = key.ok_or(Refusal::Later("this help desk has no key for signatures yet; try again"))?;
        let signature = filter::sign(&key, &domain, message).await.map_err(|error| failed(&error))?;
        // Lines of a header end without a carriage return in milter.
        Ok(signature.replace('\r', ""))
    }
}

/// Whether the app of this account may send in the name of this domain, which belongs to `owner`.
fn allow(account: &str, domain: &str, owner: &Sender) -> Result<(), Refusal> {
    match owner {
        Sender::Account(owner) if owner == account => Ok(()),
        Sender::Unknown => Err(Refusal::Later("the mail intake cannot tell whose address this is; try again")),
        Sender::Account(_) | Sender::Nobody => {
            let shown: String = domain.chars().filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).take(253).collect();
            Err(Refusal::Never(format!("the header From has to be an address of your help desk, and {shown} is no host name of it")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_sends_in_the_name_of_its_own_tenant_only() {
        let of = |owner: Sender| allow("acme", "acme.example\r\n554 x", &owner);
        assert_eq!(of(Sender::Account("acme".into())), Ok(()));
        for other in [Sender::Account("beta".into()), Sender::Nobody] {
            let Err(Refusal::Never(why)) = of(other) else { panic!("it may") };
            assert!(why.contains("acme.example554x is no host name of it"), "{why}");
        }
        assert!(matches!(of(Sender::Unknown), Err(Refusal::Later(_))));
        assert!(allow("", "acme.example", &Sender::Account("acme".into())).is_err(), "nobody logged in");
    }
}
