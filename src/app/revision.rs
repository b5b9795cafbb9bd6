//! Revisions of a class: `ControllerRevisions` in the operator's namespace, each with the class as it was. Pure.
//!
//! An account keeps the revision that it was given until it is upgraded, whatever becomes of the class.

use std::sync::Arc;

use k8s_openapi::{api::apps::v1::ControllerRevision, apimachinery::pkg::runtime::RawExtension};
use kube::{ResourceExt, api::ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    api::{
        HelpDeskClassSpec,
        help_desk_class::{Hook, Upgrade},
    },
    digest::sha256,
};

/// Label on a revision of a class.
pub const CLASS_REVISION: &str = "helpdesk-operator.io/class-revision";
/// How much of the class's name is in that of a revision.
const NAME_PART: usize = 50;

/// What a revision has.
#[derive(Serialize, Deserialize)]
struct Content {
    class: String,
    spec: HelpDeskClassSpec,
}

/// What accounts get of a class: all but how they are upgraded to it.
fn without_upgrade(spec: &HelpDeskClassSpec) -> HelpDeskClassSpec {
    HelpDeskClassSpec { upgrade: Upgrade::default(), ..spec.clone() }
}

/// The revision of a class as it is now. Its name follows from its content.
///
/// # Errors
/// The class cannot be written as JSON, which does not happen.
pub fn of(class: &str, spec: &HelpDeskClassSpec, namespace: &str, number: i64) -> Result<ControllerRevision, serde_json::Error> {
    let data = serde_json::to_value(Content { class: class.to_owned(), spec: without_upgrade(spec) })?;
    let part = class.chars().take(NAME_PART).collect::<String>();
    let name = format!("{}-{}", part.trim_end_matches(['-', '.']), &sha256(data.to_string().as_bytes())[..10]);
    Ok(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            labels: Some([(CLASS_REVISION.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        revision: number,
        data: Some(RawExtension(data)),
    })
}

/// The class that a revision is of, and the class as it was. `None`: the content cannot be read.
pub fn content(revision: &ControllerRevision) -> Option<(String, HelpDeskClassSpec)> {
    let Content { class, spec } = Content::deserialize(&revision.data.as_ref()?.0).ok()?;
    Some((class, spec))
}

/// The newest of the class's revisions that has the class as it is now. What a newer operator adds to a class by default
/// makes no other revision.
pub fn same<'r>(revisions: &'r [Arc<ControllerRevision>], class: &str, spec: &HelpDeskClassSpec) -> Option<&'r Arc<ControllerRevision>> {
    let wanted = without_upgrade(spec);
    let is_same = |revision: &&Arc<ControllerRevision>| content(revision).is_some_and(|(of, spec)| of == class && spec == wanted);
    revisions.iter().filter(is_same).max_by_key(|revision| revision.revision)
}

/// The revisions of a class that no account needs: those that `is_used` does not know, but for the newest `kept` of them.
pub fn unused(revisions: &[Arc<ControllerRevision>], class: &str, kept: usize, is_used: impl Fn(&str) -> bool) -> Vec<String> {
    let mut own: Vec<_> = revisions.iter().filter(|revision| content(revision).is_some_and(|(of, _)| of == class)).collect();
    own.sort_by_key(|revision| std::cmp::Reverse(revision.revision));
    own.into_iter().skip(kept).map(|revision| revision.name_any()).filter(|name| !is_used(name)).collect()
}

/// A digest of the hook `migrate`, with the image that it runs in: a hook with the same digest need not run again. Without
/// the hook it is a digest of nothing.
pub fn migration(class: &HelpDeskClassSpec) -> String {
    let hook = class.hooks.migrate.as_ref();
    let image = match hook {
        Some(Hook { exec: Some(exec), .. }) => {
            let component = class.components.iter().find(|component| component.name == exec.component);
            component.and_then(|component| Some(component.workload.as_ref()?.image.as_str()))
        }
        _ => None,
    };
    let content = hook.map(|hook| json!({"exec": hook.exec, "sql": hook.sql, "http": hook.http, "image": image}));
    sha256(content.unwrap_or_default().to_string().as_bytes())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(version: &str, more: serde_json::Value) -> HelpDeskClassSpec {
        let mut class = json!({
            "app": {"name": "echo", "version": version},
            "components": [{"name": "web", "port": 8080, "workload": {"image": format!("echo:{version}"), "runAsUser": 33}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
        });
        class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(class).unwrap()
    }

    fn made(spec: &HelpDeskClassSpec, number: i64) -> Arc<ControllerRevision> {
        Arc::new(of("echo", spec, "helpdesk-operator", number).unwrap())
    }

    #[test]
    fn a_revision_says_what_the_class_was() {
        let (one, two) = (class("1", json!({})), class("2", json!({})));
        let all = [made(&one, 1), made(&two, 2)];
        assert_eq!(content(&all[0]), Some(("echo".to_owned(), one.clone())));
        assert_eq!(same(&all, "echo", &one).unwrap().name_any(), all[0].name_any());
        assert_ne!(all[0].name_any(), all[1].name_any());
        assert!(same(&all, "another", &one).is_none());
    }

    #[test]
    fn how_accounts_are_upgraded_makes_no_other_revision() {
        let slowly = class("1", json!({"upgrade": {"maxConcurrent": 1, "paused": true}}));
        assert_eq!(made(&class("1", json!({})), 1), made(&slowly, 1));
    }

    #[test]
    fn what_a_newer_operator_adds_by_default_makes_no_other_revision() {
        let mut stored = (*made(&class("1", json!({})), 1)).clone();
        // As an operator without the field `capabilities` had stored it.
        stored.data.as_mut().unwrap().0["spec"].as_object_mut().unwrap().remove("capabilities");
        assert!(same(&[Arc::new(stored)], "echo", &class("1", json!({}))).is_some());
    }

    #[test]
    fn a_revision_that_an_account_has_is_kept_however_old() {
        let all: Vec<_> = (1..=5).map(|number| made(&class(&number.to_string(), json!({})), number)).collect();
        let first = all[0].name_any();
        assert_eq!(unused(&all, "echo", 2, |name| name == first), [all[2].name_any(), all[1].name_any()]);
    }

    #[test]
    fn the_same_hook_in_another_image_is_another_migration() {
        let hook = json!({"hooks": {"migrate": {"exec": {"component": "web", "command": ["migrate"]}}}});
        assert_ne!(migration(&class("1", hook.clone())), migration(&class("2", hook)));
        let sql = json!({"hooks": {"migrate": {"sql": {"statements": "SELECT 1"}}}});
        assert_eq!(migration(&class("1", sql.clone())), migration(&class("2", sql)));
        assert_eq!(migration(&class("1", json!({}))), migration(&class("2", json!({}))));
    }
}
