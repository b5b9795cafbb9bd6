//! How the app of a class takes mail.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the app takes mail. The mail intake delivers to it if the chart runs one.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClassMail {
    /// How a message is handed to the app: one HTTP request with the method POST.
    pub intake: MailIntake,
}

/// How a message is handed to the app.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.messageField) || self.mailboxes.all(m, !has(m.fields) && !has(m.quarantine))").message("mailboxes: fields and quarantine are fields of a form; name the field of the message in messageField, or leave them out"))]
pub struct MailIntake {
    /// The component that takes the request, on its port.
    #[schemars(length(min = 1, max = 40))]
    pub component: String,
    /// The path of the request.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$')").message("path is absolute and plain, such as /REST/1.0/NoAuth/mail-gateway: no final slash, no empty or dot segments, no escapes"))]
    pub path: String,
    /// The field with the message, if the app expects a form (multipart/form-data, RFC 7578). If absent, the message itself
    /// is the body (message/rfc822).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9_.\[\]-]+$"))]
    pub message_field: Option<String>,
    /// What the body of the answer begins with when the app has taken the message. If absent, the status code decides: 2xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub accepted: Option<String>,
    /// What the body of the answer begins with when the app refuses the message for good: it goes back to its sender. Every
    /// other answer means that it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub refused: Option<String>,
    /// The addresses of a tenant, by their part before the `@`. The first one also gets mail for `postmaster`.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub mailboxes: Vec<Mailbox>,
}

/// One address of every tenant.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mailbox {
    /// The part before the `@`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"))]
    pub name: String,
    /// The other fields of the form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub fields: Vec<FormField>,
    /// The fields for a message that the filter takes for spam: they override fields of the same name. They put it where
    /// agents look for mail that was taken for spam by mistake. If absent, spam is delivered like other mail. In both cases
    /// the message has the header `X-Spam-Flag: YES`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub quarantine: Vec<FormField>,
}

/// One field of a form.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FormField {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9_.\[\]-]+$"))]
    pub name: String,
    /// Its value; no variables.
    #[schemars(length(max = 200))]
    pub value: String,
}
