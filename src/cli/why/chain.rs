//! A chain of objects from an account to the first cause of what is wrong with it.

use serde::Serialize;

use crate::api::{Condition, Time};

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Object {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Object {
    /// An object without a namespace.
    pub fn of(kind: &'static str, name: impl Into<String>) -> Self {
        Self { kind, namespace: None, name: name.into() }
    }

    /// An object in a namespace.
    pub fn within(kind: &'static str, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: Some(namespace.into()), name: name.into() }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// One object of a chain, and what it says or lacks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Link {
    /// The object.
    pub object: Object,
    /// The type of the condition that says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The condition's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The condition's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What is so, as a sentence.
    pub says: String,
    /// What to do about it, where the documents have no row for it.
    #[serde(skip)]
    pub remedy: Option<String>,
}

impl Link {
    /// From a condition of the object.
    pub fn told(object: Object, condition: &Condition) -> Self {
        Self {
            object,
            condition: Some(condition.type_.clone()),
            status: Some(condition.status.clone()),
            reason: Some(condition.reason.clone()),
            since: Some(condition.last_transition_time.clone()),
            says: condition.message.clone(),
            remedy: None,
        }
    }

    /// From what was seen of the object.
    pub fn seen(object: Object, says: impl Into<String>) -> Self {
        Self { object, condition: None, status: None, reason: None, since: None, says: says.into(), remedy: None }
    }

    /// The same with what to do about it.
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// Whether both are about the same object for the same reason.
    pub fn is_same(&self, other: &Self) -> bool {
        self.object == other.object && self.reason == other.reason && (self.reason.is_some() || self.says == other.says)
    }
}

/// From the account to a first cause, which is the last link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cause {
    /// The links; never empty.
    pub chain: Vec<Link>,
    /// Whether this passes by itself, or is as somebody wants it.
    pub passes: bool,
}

impl Cause {
    /// Whether both end at the same cause.
    pub fn is_same(&self, other: &Self) -> bool {
        matches!((self.chain.last(), other.chain.last()), (Some(mine), Some(theirs)) if mine.is_same(theirs))
    }
}
