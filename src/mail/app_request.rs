//! The request that hands a message to an app, and what its answer means. Pure.

use std::collections::BTreeMap;

use super::envelope::Outcome;
use crate::{
    api::class_mail::{MailIntake, Mailbox},
    digest::sha256,
};

/// The content type and the body of the request.
pub(super) fn build(intake: &MailIntake, mailbox: &Mailbox, is_spam: bool, message: &[u8]) -> (String, Vec<u8>) {
    let Some(message_field) = &intake.message_field else { return ("message/rfc822".to_owned(), message.to_vec()) };
    // It cannot be in a message that is not its own digest.
    let boundary = sha256(message);
    let mut body = Vec::with_capacity(message.len() + 1024);
    let overridden = mailbox.quarantine.iter().filter(|_| is_spam);
    let fields: BTreeMap<_, _> = mailbox.fields.iter().chain(overridden).map(|field| (&field.name, &field.value)).collect();
    for (name, value) in fields {
        body.extend_from_slice(format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").as_bytes());
    }
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{message_field}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(message);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// What an answer of the app means. Its words are repeated to nobody: they may be the tenant's.
pub(super) fn judge(intake: &MailIntake, status: u16, body: &[u8]) -> Outcome {
    let begins = |with: &Option<String>| with.as_ref().map(|with| body.trim_ascii_start().starts_with(with.as_bytes()));
    let is_success = (200..300).contains(&status);
    if is_success && begins(&intake.refused) == Some(true) {
        return Outcome::Refused { code: "5.6.0", why: "the help desk refuses this message".to_owned() };
    }
    if is_success && begins(&intake.accepted).unwrap_or(true) {
        return Outcome::Delivered;
    }
    Outcome::Later { code: "4.3.0", why: format!("the help desk did not take the message (HTTP status {status}); it is tried again") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn intake(change: serde_json::Value) -> MailIntake {
        let mut intake = json!({"component": "web", "path": "/in", "mailboxes": [{"name": "support",
            "fields": [{"name": "queue", "value": "General"}, {"name": "action", "value": "correspond"}],
            "quarantine": [{"name": "queue", "value": "Spam"}]}]});
        for (key, value) in change.as_object().unwrap() {
            intake[key] = value.clone();
        }
        serde_json::from_value(intake).unwrap()
    }

    #[test]
    fn a_form_has_every_field_once_and_the_message_unchanged() {
        let intake = intake(json!({"messageField": "message"}));
        let message = b"Subject: x\r\n\r\n\xff--\r\n";
        let text = |is_spam| String::from_utf8_lossy(&build(&intake, &intake.mailboxes[0], is_spam, message).1).into_owned();
        assert_eq!(text(false).matches("name=\"queue\"\r\n\r\nGeneral\r\n").count(), 1);
        assert_eq!((text(true).matches("name=\"queue\"").count(), text(true).contains("\r\n\r\nSpam\r\n")), (1, true));
        assert!(build(&intake, &intake.mailboxes[0], true, message).1.windows(message.len()).any(|part| part == message));
    }

    #[test]
    fn without_a_form_the_message_is_the_body() {
        let intake = intake(json!({}));
        assert_eq!(build(&intake, &intake.mailboxes[0], false, b"x"), ("message/rfc822".into(), b"x".to_vec()));
    }

    #[test]
    fn only_what_the_class_calls_so_is_accepted_or_refused() {
        let rt = intake(json!({"accepted": "ok", "refused": "not ok"}));
        assert_eq!(judge(&rt, 200, b"\nok\n"), Outcome::Delivered);
        assert!(matches!(judge(&rt, 200, b"not ok - no"), Outcome::Refused { .. }));
        for (status, body) in
            [(200, &b"temporary failure - x"[..]), (200, b""), (200, b"<html>"), (500, b"ok"), (302, b"ok"), (503, b"not ok")]
        {
            assert!(matches!(judge(&rt, status, body), Outcome::Later { .. }), "{status}");
        }
        assert_eq!(judge(&intake(json!({})), 204, b""), Outcome::Delivered);
    }
}
