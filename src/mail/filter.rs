//! Asks the spam filter (rspamd), teaches it, and lets it sign. What it learns belongs to one tenant: it is told whose by `Deliver-To`.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;

use super::{envelope::Envelope, tokens::SigningKey};
use crate::http_client::{self, Call};

/// How long the filter may take for one message.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where it judges messages.
const JUDGES: u16 = 11333;
/// Where it learns.
const LEARNS: u16 = 11334;

/// Why the filter said nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("failed to ask the spam filter")]
    Silent(#[from] http_client::Error),
    #[error("failed to ask the spam filter: it answered with HTTP status {0}")]
    Status(u16),
    #[error("failed to understand the spam filter")]
    Answer(#[source] serde_json::Error),
    #[error("failed to sign a message: the spam filter gave no signature")]
    Unsigned,
}

/// The two kinds of mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Spam.
    Spam,
    /// Mail that is welcome.
    Ham,
}

#[derive(Deserialize)]
struct Judgement {
    action: String,
}

/// How the filter takes a message for the tenant with this uid.
pub(super) async fn judge(uid: &str, envelope: &Envelope, message: Bytes) -> Result<Class, Error> {
    let mut headers = vec![("deliver-to", uid.to_owned()), ("rcpt", envelope.recipient.clone()), ("from", envelope.sender.clone())];
    let known = [("ip", &envelope.client), ("helo", &envelope.helo)].into_iter().filter(|(_, value)| !value.is_empty());
    headers.extend(known.map(|(name, value)| (name, value.clone())));
    let answer = ask(JUDGES, "/checkv2", headers, message).await?;
    let judgement: Judgement = serde_json::from_slice(&answer).map_err(Error::Answer)?;
    Ok(class(&judgement.action))
}

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "dkim-signature")]
    signature: Option<String>,
}

/// The signature of a message in the name of this domain: the value of its header.
pub(super) async fn sign(key: &SigningKey, domain: &str, message: Bytes) -> Result<String, Error> {
    let headers = vec![
        // Nothing else is looked at.
        ("settings", r#"{"symbols_enabled":["DKIM_SIGNED"]}"#.to_owned()),
        ("performdkimsign", "yes".to_owned()),
        ("dkimdomain", domain.to_owned()),
        ("dkimselector", key.selector.clone()),
        ("dkimprivatekey", key.private.to_string()),
    ];
    let answer = ask(JUDGES, "/checkv2", headers, message).await?;
    let signed: Signed = serde_json::from_slice(&answer).map_err(Error::Answer)?;
    signed.signature.ok_or(Error::Unsigned)
}

/// Teaches the filter that a message is of this class, for the tenant with this uid.
pub(super) async fn learn(uid: &str, class: Class, message: Bytes) -> Result<(), Error> {
    let path = match class {
        Class::Spam => "/learnspam",
        Class::Ham => "/learnham",
    };
    ask(LEARNS, path, vec![("deliver-to", uid.to_owned())], message).await.map(drop)
}

async fn ask(port: u16, path: &str, headers: Vec<(&'static str, String)>, body: Bytes) -> Result<Bytes, Error> {
    let (host, authority) = ("127.0.0.1", "localhost");
    let call = Call { method: Method::POST, host, port, authority, path, headers, body, patience: PATIENCE };
    let answer = http_client::call(call).await?;
    match answer.status {
        // Also what was learned before, and what is too short to learn from.
        200..300 => Ok(answer.body),
        status => Err(Error::Status(status)),
    }
}

/// The class of an action of rspamd. It never refuses: spam is kept apart, where agents find it.
fn class(action: &str) -> Class {
    match action {
        "reject" | "add header" | "rewrite subject" => Class::Spam,
        _ => Class::Ham,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_filter_would_mark_or_refuse_is_spam() {
        for spam in ["reject", "add header", "rewrite subject"] {
            assert_eq!(class(spam), Class::Spam);
        }
        for ham in ["no action", "greylist", "soft reject"] {
            assert_eq!(class(ham), Class::Ham);
        }
    }
}
