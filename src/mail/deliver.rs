//! Delivers one message to its tenant's app.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::Method;

use super::{
    address::Address,
    app_request,
    directory::Directory,
    envelope::{Envelope, Outcome},
    filter::{self, Class},
    recipient::{Destination, Verdict, decide},
};
use crate::{
    error_chain::chain,
    http_client::{self, Call},
    keyed_semaphore::KeyedSemaphore,
};

/// How long an app may take for one message.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many messages one app is given at once. An app that hangs must not take every connection of the mail server.
const AT_ONCE: usize = 2;
/// How long a message waits for its turn before the mail server keeps it for later.
const TURN: Duration = Duration::from_secs(2);

/// How many bounces a tenant gets in an hour. Two programs that answer each other's bounces would never end.
const BOUNCES: u32 = 60;
const HOUR: Duration = Duration::from_secs(3600);

/// Delivers messages.
pub(super) struct Delivery {
    directory: Arc<Directory>,
    bounces: Bounces,
    turns: KeyedSemaphore,
}

impl Delivery {
    /// Delivers to the apps of this directory.
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self { directory, bounces: Bounces::default(), turns: KeyedSemaphore::new(AT_ONCE) }
    }

    /// Whether the recipient takes mail now; otherwise why not.
    pub(super) fn may_deliver(&self, recipient: &str) -> Result<Box<Destination>, Outcome> {
        let no_mailbox = || Outcome::Refused { code: "5.1.1", why: "there is no such mailbox".to_owned() };
        let address = Address::parse(recipient).ok_or_else(no_mailbox)?;
        match decide(&address, &self.directory.facts(&address.domain)) {
            Verdict::Deliver(destination) => Ok(destination),
            Verdict::Later(code, why) => Err(Outcome::Later { code, why: why.to_owned() }),
            Verdict::Never(code, why) => Err(Outcome::Refused { code, why: why.to_owned() }),
            Verdict::NotOurs => Err(no_mailbox()),
        }
    }

    /// Delivers a message.
    pub(super) async fn deliver(&self, envelope: &Envelope, message: Vec<u8>) -> Outcome {
        let outcome = self.try_to_deliver(envelope, message).await.unwrap_or_else(|refused| refused);
        tracing::info!(?outcome, "a message was handled");
        outcome
    }

    async fn try_to_deliver(&self, envelope: &Envelope, message: Vec<u8>) -> Result<Outcome, Outcome> {
        // The stage may have changed since the mail server took the message.
        let to = self.may_deliver(&envelope.recipient)?;
        if has_been_here(&message, &envelope.recipient) {
            return Err(Outcome::Refused { code: "5.4.6", why: "this message was delivered here before: it goes in circles".to_owned() });
        }
        if envelope.sender.is_empty() && !self.bounces.allow(&to.uid, Instant::now()) {
            return Err(Outcome::Later { code: "4.7.1", why: "too many bounces to this help desk; it is tried again".to_owned() });
        }
        let busy = || Outcome::Later { code: "4.3.2", why: "this help desk is busy; it is tried again".to_owned() };
        let _turn = tokio::time::timeout(TURN, self.turns.acquire(&to.uid)).await.map_err(|_| busy())?;
        let message = bytes::Bytes::from(message);
        let class = filter::judge(&to.uid, envelope, message.clone()).await.map_err(|error| {
            tracing::warn!(account = to.account, error = chain(&error), "the filter did not judge a message");
            Outcome::Later { code: "4.3.0", why: "the spam filter does not answer; it is tried again".to_owned() }
        })?;
        let is_spam = class == Class::Spam;
        let message = with_trace(envelope, is_spam, &message);
        let (content_type, body) = app_request::build(&to.intake, &to.mailbox, is_spam, &message);
        let answer = http_client::call(Call {
            method: Method::POST,
            host: &to.host,
            port: to.port,
            authority: &to.fqdn,
            path: &to.intake.path,
            headers: vec![("content-type", content_type), ("x-forwarded-proto", "https".to_owned())],
            body: body.into(),
            patience: PATIENCE,
        });
        let answer = answer.await.map_err(|error| {
            tracing::warn!(account = to.account, error = chain(&error), "an app did not answer");
            Outcome::Later { code: "4.4.2", why: "the help desk does not answer; it is tried again".to_owned() }
        })?;
        Ok(app_request::judge(&to.intake, answer.status, &answer.body))
    }
}

/// How many bounces each tenant got since when.
#[derive(Default)]
struct Bounces(Mutex<HashMap<String, (Instant, u32)>>);

impl Bounces {
    /// Whether a tenant gets one more.
    fn allow(&self, uid: &str, now: Instant) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|_, (since, _)| now.duration_since(*since) < HOUR);
        let (_, count) = counts.entry(uid.to_owned()).or_insert((now, 0));
        *count += 1;
        *count <= BOUNCES
    }
}

/// The message with the headers of its last step (RFC 5321, section 4.4), and with the filter's word.
fn with_trace(envelope: &Envelope, is_spam: bool, message: &[u8]) -> Vec<u8> {
    let flag = if is_spam { "YES" } else { "NO" };
    let mut traced =
        format!("Return-Path: <{}>\r\nDelivered-To: {}\r\nX-Spam-Flag: {flag}\r\n", envelope.sender, envelope.recipient).into_bytes();
    traced.extend(&*without_header(message, "X-Spam-Flag"));
    traced
}

/// The lines of the head of a message, each with its end.
fn head(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    message.split_inclusive(|byte| *byte == b'\n').take_while(|line| !matches!(line, [b'\n'] | [b'\r', b'\n']))
}

fn is_header(line: &[u8], name: &str) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes())) && line.get(name.len()) == Some(&b':')
}

/// The message without every header of this name: what a sender claims does not count.
fn without_header<'m>(message: &'m [u8], name: &str) -> Cow<'m, [u8]> {
    if !head(message).any(|line| is_header(line, name)) {
        return message.into();
    }
    let mut kept = Vec::with_capacity(message.len());
    let (mut skips, mut length) = (false, 0);
    for line in head(message) {
        length += line.len();
        skips = is_header(line, name) || (skips && matches!(line.first(), Some(b' ' | b'\t')));
        if !skips {
            kept.extend_from_slice(line);
        }
    }
    kept.extend_from_slice(&message[length..]);
    kept.into()
}

/// Whether this recipient got the message before: then it goes in circles.
fn has_been_here(message: &[u8], recipient: &str) -> bool {
    let delivered = head(message).filter(|line| is_header(line, "Delivered-To"));
    let mut to = delivered.map(|line| line["Delivered-To:".len()..].trim_ascii());
    to.any(|to| to.eq_ignore_ascii_case(recipient.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_filters_word_and_not_the_senders() {
        let envelope = Envelope { sender: "a@b.example".into(), recipient: "support@acme.example".into(), ..Envelope::default() };
        let sent = b"x-spam-flag: NO\r\n folded\r\nSubject: x\r\n\r\nX-Spam-Flag: body\r\n".to_vec();
        let traced = String::from_utf8(with_trace(&envelope, true, &sent)).unwrap();
        assert_eq!(
            traced,
            "Return-Path: <a@b.example>\r\nDelivered-To: support@acme.example\r\nX-Spam-Flag: YES\r\nSubject: x\r\n\r\nX-Spam-Flag: body\r\n"
        );
        assert!(has_been_here(traced.as_bytes(), "Support@acme.example"));
        assert!(!has_been_here(traced.as_bytes(), "sales@acme.example"));
        assert!(!has_been_here(b"Subject: x\r\n\r\nDelivered-To: support@acme.example", "support@acme.example"));
    }

    #[test]
    fn bounces_are_counted_for_each_tenant_and_forgotten_after_an_hour() {
        let (bounces, now) = (Bounces::default(), Instant::now());
        assert!((0..BOUNCES).all(|_| bounces.allow("acme", now)));
        assert!(!bounces.allow("acme", now) && bounces.allow("beta", now));
        assert!(bounces.allow("acme", now + HOUR));
    }

    #[test]
    fn no_message_makes_it_panic() {
        for message in [&b""[..], b"\n", b"\r\n", b"X-Spam-Flag", b"X-Spam-Flag:", b"\xff\n\n", b" folded first\nX-Spam-Flag: a\n\tb"] {
            without_header(message, "X-Spam-Flag");
            has_been_here(message, "x@y.example");
        }
    }
}
