//! What became of a request for an object. That something could not be looked at is an answer too, and never taken for
//! its absence.

use std::fmt::Debug;

use kube::{Api, Resource, api::ListParams};
use serde::de::DeserializeOwned;

use crate::error_chain::chain;

/// What became of a request for an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen<T> {
    /// It is there.
    There(T),
    /// It is not there.
    Missing,
    /// It could not be looked at; the text says why.
    Unseen(String),
}

impl<T> Seen<T> {
    /// The object, if it is there.
    pub fn there(&self) -> Option<&T> {
        match self {
            Self::There(object) => Some(object),
            Self::Missing | Self::Unseen(_) => None,
        }
    }

    /// Whether it is known not to be there.
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    /// Why it could not be looked at.
    pub fn unseen(&self) -> Option<&str> {
        match self {
            Self::Unseen(why) => Some(why),
            Self::There(_) | Self::Missing => None,
        }
    }

    /// The same of something made from the object.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Seen<U> {
        match self {
            Self::There(object) => Seen::There(change(object)),
            Self::Missing => Seen::Missing,
            Self::Unseen(why) => Seen::Unseen(why),
        }
    }

    /// From a request; `what` names what was asked for.
    pub fn of(result: Result<T, kube::Error>, what: &str) -> Self {
        match result {
            Ok(object) => Self::There(object),
            Err(kube::Error::Api(status)) if status.code == 404 => Self::Missing,
            Err(kube::Error::Api(status)) if status.code == 403 => Self::Unseen(format!("{what}: you may not read it")),
            Err(error) => Self::Unseen(format!("{what}: {}", chain(&error))),
        }
    }
}

impl Seen<()> {
    /// Not there, unless it could not be looked at: of a list in which it was not found.
    pub fn and_missing(self) -> Self {
        if let Self::Unseen(why) = self { Self::Unseen(why) } else { Self::Missing }
    }
}

impl<T> Seen<Vec<T>> {
    /// The objects of a list; none, if they could not be looked at.
    pub fn all(&self) -> &[T] {
        self.there().map(Vec::as_slice).unwrap_or_default()
    }
}

/// Asks for one object.
pub(super) async fn get<K>(api: &Api<K>, name: &str, what: &str) -> Seen<K>
where
    K: Clone + Debug + DeserializeOwned,
{
    Seen::of(api.get(name).await, what)
}

/// Asks whether an object is there. Its contents are not sent: of a Secret, nobody reads what is in it.
pub(super) async fn exists<K>(api: &Api<K>, name: &str, what: &str) -> Seen<()>
where
    K: Clone + Debug + DeserializeOwned + Resource,
{
    Seen::of(api.get_metadata(name).await, what).map(drop)
}

/// Asks for a list of objects.
pub(super) async fn list<K>(api: &Api<K>, params: &ListParams, what: &str) -> Seen<Vec<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    Seen::of(api.list(params).await, what).map(|list| list.items)
}
