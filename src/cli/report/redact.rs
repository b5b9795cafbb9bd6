//! Takes out of a report what leads to a person, belongs to a customer, or is a secret. Pure.
//!
//! Three nets, one behind the other: fields of the operator's kinds are kept only if they are on a list ([`rules`]); what was
//! removed from one object is removed from every text, such as a log; and whatever looks like a mail address or a
//! credential is removed wherever it stands.
//!
//! [`rules`]: super::rules

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::rules::{QUOTING, is_kept};
use crate::api::{DROP_UNPROVEN_APPROVED_BY, DROP_UNPROVEN_REQUESTED_BY, GROUP};

/// What stands in place of a text that was removed.
const REMOVED: &str = "[removed]";

/// Metadata that a report keeps.
const METADATA: [&str; 11] = [
    "name",
    "namespace",
    "uid",
    "generation",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "finalizers",
    "ownerReferences",
    "annotations",
];

/// Knows what is to be removed from texts.
#[derive(Default)]
pub(super) struct Redactor {
    /// What stands in place of each text, the longest texts first.
    replacements: Vec<(String, String)>,
}

impl Redactor {
    /// From the objects, by their kind, as the API server has them.
    pub fn of<'o>(objects: impl Iterator<Item = (&'o str, &'o Value)> + Clone) -> Self {
        let mut names = BTreeSet::new();
        let mut hosts = BTreeSet::new();
        let mut slugs = BTreeSet::new();
        let mut texts = BTreeSet::new();
        for (kind, object) in objects.clone() {
            // A name by which objects refer to each other stays, also if somebody is called so.
            if kind != "DomainClaim" {
                names.extend(object["metadata"]["name"].as_str().map(str::to_owned));
            }
            slugs.extend(object["spec"]["domain"]["slug"].as_str());
            collect(kind, object, &mut hosts, &mut texts);
        }
        for (kind, object) in objects {
            if kind == "HelpDeskPlan" {
                let bases = object["spec"]["placements"].as_array().into_iter().flatten().filter_map(|one| one["domainBase"].as_str());
                for base in bases {
                    hosts.extend(slugs.iter().map(|slug| format!("{slug}.{base}")));
                }
            }
        }
        let mut replacements: Vec<(String, String)> =
            hosts.iter().enumerate().map(|(number, host)| (host.clone(), format!("[host-{}]", number + 1))).collect();
        let is_text = |text: &&String| text.chars().count() > 1 && !names.contains(*text) && !hosts.contains(*text);
        replacements.extend(texts.iter().filter(is_text).map(|text| (text.clone(), REMOVED.to_owned())));
        replacements.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { replacements }
    }

    /// A text without what is to be removed.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (removed, instead) in &self.replacements {
            text = replace_words(&text, removed, instead);
        }
        without_credentials(&without_addresses(&text))
    }

    /// A line of a log: if it is JSON, without the words of a mover.
    pub fn line(&self, line: &str) -> String {
        match serde_json::from_str::<Value>(line) {
            Ok(value @ Value::Object(_)) => self.value(value).to_string(),
            _ => self.text(line),
        }
    }

    /// One of the operator's kinds: only the fields that are on the list.
    pub fn object(&self, kind: &str, object: &Value) -> Value {
        let mut kept = Map::new();
        for part in ["apiVersion", "kind"] {
            kept.insert(part.to_owned(), object[part].clone());
        }
        kept.insert("metadata".to_owned(), metadata(&object["metadata"]));
        for part in ["spec", "status"] {
            if let Some(value) = object.get(part) {
                kept.insert(part.to_owned(), fields(kind, part, value));
            }
        }
        self.value(Value::Object(kept))
    }

    /// Anything else: without the words of a mover, and every text without what is to be removed.
    pub fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(all) => Value::Array(all.into_iter().map(|one| self.value(one)).collect()),
            Value::Object(fields) => {
                let quotes = fields.get("reason").and_then(Value::as_str).is_some_and(|reason| QUOTING.contains(&reason));
                let field = |(key, value): (String, Value)| match key.as_str() {
                    "message" | "error" | "note" if quotes => (key, Value::String(REMOVED.to_owned())),
                    _ => (self.text(&key), self.value(value)),
                };
                Value::Object(fields.into_iter().map(field).collect())
            }
            other => other,
        }
    }
}

/// The metadata of an object: no managed fields, which repeat fields, and of annotations only the operator's own.
pub(super) fn metadata(metadata: &Value) -> Value {
    let mut kept: Map<String, Value> = METADATA.iter().filter_map(|key| Some(((*key).to_owned(), metadata.get(*key)?.clone()))).collect();
    if let Some(Value::Object(annotations)) = kept.get_mut("annotations") {
        annotations.retain(|key, _| key.starts_with(GROUP));
        for person in [DROP_UNPROVEN_REQUESTED_BY, DROP_UNPROVEN_APPROVED_BY] {
            if let Some(value) = annotations.get_mut(person) {
                *value = Value::String(REMOVED.to_owned());
            }
        }
    }
    Value::Object(kept)
}

/// The fields that are on the list; in place of every other text stands that it was removed.
fn fields(kind: &str, path: &str, value: &Value) -> Value {
    match value {
        Value::Object(all) => {
            Value::Object(all.iter().map(|(key, value)| (key.clone(), fields(kind, &format!("{path}.{key}"), value))).collect())
        }
        Value::Array(all) => Value::Array(all.iter().map(|value| fields(kind, &format!("{path}[]"), value)).collect()),
        Value::String(_) if is_kept(kind, path) != Some(true) => Value::String(REMOVED.to_owned()),
        other => other.clone(),
    }
}

/// The texts of an object that are to be removed wherever they stand, host names apart.
fn collect(kind: &str, object: &Value, hosts: &mut BTreeSet<String>, texts: &mut BTreeSet<String>) {
    for part in ["spec", "status"] {
        removed(kind, part, &object[part], texts);
    }
    let annotations = &object["metadata"]["annotations"];
    for person in [DROP_UNPROVEN_REQUESTED_BY, DROP_UNPROVEN_APPROVED_BY] {
        texts.extend(annotations[person].as_str().map(str::to_owned));
    }
    match kind {
        "DomainClaim" => hosts.extend(object["metadata"]["name"].as_str().map(str::to_owned)),
        "HelpDeskAccount" => {
            let custom = object["spec"]["domain"]["custom"].as_array().into_iter().flatten();
            let shown = object["status"]["domains"].as_array().into_iter().flatten().map(|domain| &domain["host"]);
            hosts.extend(custom.chain(shown).filter_map(Value::as_str).map(str::to_owned));
        }
        _ => {}
    }
}

fn removed(kind: &str, path: &str, value: &Value, texts: &mut BTreeSet<String>) {
    match value {
        Value::Object(all) => all.iter().for_each(|(key, value)| removed(kind, &format!("{path}.{key}"), value, texts)),
        Value::Array(all) => all.iter().for_each(|value| removed(kind, &format!("{path}[]"), value, texts)),
        // A class names variables and files that are words of everyday use; only accounts and backups are of customers.
        Value::String(text) if ["HelpDeskAccount", "ColdBackup"].contains(&kind) && is_kept(kind, path) != Some(true) => {
            texts.insert(text.clone());
        }
        _ => {}
    }
}

/// Replaces a text where it stands as a word of its own.
fn replace_words(text: &str, removed: &str, instead: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(removed) {
        let end = at + removed.len();
        let before = rest[..at].chars().next_back().or_else(|| out.chars().next_back());
        let is_word = !before.is_some_and(char::is_alphanumeric) && !rest[end..].chars().next().is_some_and(char::is_alphanumeric);
        out.push_str(&rest[..at]);
        out.push_str(if is_word { instead } else { removed });
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Without anything that looks like a mail address.
fn without_addresses(text: &str) -> String {
    let is_local = |letter: char| letter.is_alphanumeric() || "._%+-'".contains(letter);
    let is_domain = |letter: char| letter.is_alphanumeric() || ".-".contains(letter);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let local = rest[..at].trim_end_matches(is_local).len();
        let domain = rest[at + 1..].len() - rest[at + 1..].trim_start_matches(is_domain).len();
        let is_address = local < at && domain > 0;
        out.push_str(&rest[..if is_address { local } else { at + 1 }]);
        if is_address {
            out.push_str("[address]");
            rest = &rest[at + 1 + domain..];
        } else {
            rest = &rest[at + 1..];
        }
    }
    out.push_str(rest);
    out
}

/// What begins a secret, up to the next character that cannot belong to it.
const SECRETS: [&str; 7] = ["AGE-SECRET-KEY-", "password=", "password\":\"", "Bearer ", "eyJ", "-----BEGIN ", "secretAccessKey"];

/// Without anything that looks like a credential.
fn without_credentials(text: &str) -> String {
    let mut text = text.to_owned();
    for begin in SECRETS {
        let mut from = 0;
        while let Some(at) = text[from..].find(begin).map(|at| at + from) {
            let start = at + begin.len();
            let length = match begin {
                "-----BEGIN " => text[start..].find("-----END").unwrap_or(text.len() - start),
                _ => text[start..].find(|letter: char| letter.is_whitespace() || "\"'&,;)".contains(letter)).unwrap_or(text.len() - start),
            };
            let is_secret = length > 7 || begin.starts_with("password");
            if is_secret && length > 0 {
                text.replace_range(start..start + length, REMOVED);
                from = start + REMOVED.len();
            } else {
                from = start;
            }
        }
    }
    text
}

/// Names of environment variables are kept, and where their values come from; a value is not.
pub(super) fn without_values(mut object: Value) -> Value {
    match &mut object {
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                if key == "env" {
                    for variable in value.as_array_mut().into_iter().flatten() {
                        if variable.get("value").is_some() {
                            variable["value"] = Value::String(REMOVED.to_owned());
                        }
                    }
                }
                *value = without_values(value.take());
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|value| *value = without_values(value.take())),
        _ => {}
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redactor() -> Redactor {
        let account = json!({"metadata": {"name": "acme"}, "spec": {"displayName": "Acme Ltd", "owner": {"name": "Ana", "email": "ana@acme.example"},
            "domain": {"slug": "acme", "custom": ["help.acme.example"]}}});
        let plan = json!({"metadata": {"name": "standard"}, "spec": {"placements": [{"domainBase": "helpdesk.example"}]}});
        Redactor::of([("HelpDeskAccount", &account), ("HelpDeskPlan", &plan)].into_iter())
    }

    #[test]
    fn what_is_removed_from_an_object_is_removed_from_every_text() {
        let told = redactor().text("Ana of Acme Ltd (ana@acme.example) at help.acme.example, acme.helpdesk.example; Anatomy, account acme");
        assert_eq!(told, "[removed] of [removed] ([removed]) at [host-2], [host-1]; Anatomy, account acme");
    }

    #[test]
    fn addresses_and_credentials_are_removed_wherever_they_stand() {
        let told = |text: &str| Redactor::default().text(text);
        assert_eq!(told("from bob.k+x@mail.example: no"), "from [address]: no");
        assert_eq!(told("postgresql://t_a:s3cr3t@pg:5432/t"), "postgresql://t_a:[address]:5432/t");
        assert_eq!(told("password=hunter22 host=pg"), "password=[removed] host=pg");
        assert_eq!(told("AGE-SECRET-KEY-1QQQQQQQQQQ end"), "AGE-SECRET-KEY-[removed] end");
        assert_eq!(told("Authorization: Bearer abcdefghijkl"), "Authorization: Bearer [removed]");
        assert!(!told("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----").contains("MIIE"));
        assert_eq!(told("a @ b, @x and y@"), "a @ b, @x and y@");
    }

    #[test]
    fn the_words_of_a_mover_are_removed_because_they_may_quote_rows() {
        let told = redactor().line(r#"{"level":"WARN","reason":"MoverFailed","error":"7 rows: Carla","retry_in":30}"#);
        assert!(!told.contains("Carla") && told.contains("MoverFailed") && told.contains("30"), "{told}");
        let condition = redactor().value(json!({"conditions": [{"type": "Ready", "reason": "SecretMissing", "message": "create it"}]}));
        assert_eq!(condition["conditions"][0]["message"], "create it");
    }

    #[test]
    fn annotations_of_others_and_managed_fields_are_left_out() {
        let kept = metadata(&json!({"name": "acme", "managedFields": [{"x": "Ana"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "Ana", "helpdesk-operator.io/adopt": "none",
                "helpdesk-operator.io/drop-unproven-requested-by": "ana"}}));
        assert_eq!(
            kept,
            json!({"name": "acme", "annotations": {"helpdesk-operator.io/adopt": "none", "helpdesk-operator.io/drop-unproven-requested-by": "[removed]"}})
        );
    }
}
