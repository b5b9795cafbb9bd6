//! A notice as a CloudEvent, and its signature. Pure.

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac;
use serde_json::json;

use super::{Kind, Notice};
use crate::{api::Time, clock::Moment, lifecycle::Stage};

/// The media type of a CloudEvent in structured mode (CloudEvents 1.0.2, JSON event format).
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// The account that a notice is about. Nothing personal but its name.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The account's name.
    pub account: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The stage that is enforced.
    pub stage: Stage,
    /// When nothing of it will be left.
    pub data_gone_by: Option<Moment>,
}

/// The notice as JSON. The same notice has the same id whenever it is sent.
pub fn body(notice: &Notice, about: &About<'_>, installation: &str) -> String {
    let (kind, lead) = match notice.kind {
        Kind::Upcoming(lead) => ("io.helpdesk-operator.stage.upcoming.v1", Some(lead)),
        Kind::Entered => ("io.helpdesk-operator.stage.entered.v1", None),
    };
    let event = json!({
        "specversion": "1.0",
        "id": notice.id(installation, about.uid),
        "source": format!("/helpdesk-operator/{installation}"),
        "type": kind,
        "subject": about.account,
        "time": Time(notice.time()),
        "datacontenttype": "application/json",
        "data": {
            "account": about.account,
            "accountUID": about.uid,
            "presentStage": about.stage,
            "stage": notice.stage,
            "at": Time(notice.at),
            "before": lead,
            "dataGoneBy": about.data_gone_by.map(Time),
        },
    });
    event.to_string()
}

/// The secret of signatures, from what a Secret has: `whsec_` and base64, as libraries of Standard Webhooks write it, or any text.
pub fn key(secret: &str) -> hmac::Key {
    let secret = secret.trim();
    let decoded = secret.strip_prefix("whsec_").and_then(|text| BASE64_STANDARD.decode(text).ok());
    hmac::Key::new(hmac::HMAC_SHA256, decoded.as_deref().unwrap_or(secret.as_bytes()))
}

/// The header `webhook-signature` (Standard Webhooks, "Signature scheme"): of the id, the time of sending and the body.
pub fn signature(key: &hmac::Key, id: &str, sent_at: Moment, body: &str) -> String {
    let signed = format!("{id}.{}.{body}", sent_at.as_second());
    format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(key, signed.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Window;

    #[test]
    fn a_notice_is_a_cloud_event_without_anything_personal() {
        let at: Moment = "2026-03-01T00:00:00Z".parse().unwrap();
        let notice = Notice { kind: Kind::Upcoming(Window::days(7)), stage: Stage::Terminated, at };
        let about = About { account: "acme", uid: "u", stage: Stage::Blocked, data_gone_by: Some(at) };
        let event: serde_json::Value = serde_json::from_str(&body(&notice, &about, "abc")).unwrap();
        assert_eq!(
            event,
            json!({
                "specversion": "1.0", "id": notice.id("abc", "u"), "source": "/helpdesk-operator/abc",
                "type": "io.helpdesk-operator.stage.upcoming.v1", "subject": "acme", "time": "2026-02-22T00:00:00Z",
                "datacontenttype": "application/json",
                "data": {"account": "acme", "accountUID": "u", "presentStage": "Blocked", "stage": "Terminated", "at": "2026-03-01T00:00:00Z",
                    "before": "7d", "dataGoneBy": "2026-03-01T00:00:00Z"},
            })
        );
    }

    /// The example of the specification's libraries: secret, id, time and body with their signature.
    #[test]
    fn the_signature_is_the_one_of_standard_webhooks() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let sent = Moment::from_second(1_614_265_330).unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", sent, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
