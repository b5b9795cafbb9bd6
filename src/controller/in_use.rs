//! Which accounts use a class or a plan, and the finalizer that keeps the object while there are any.
//!
//! The controllers of both kinds watch all accounts, of every shard, and keep of them what they read.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
};

use futures::Stream;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::is_gone;
use crate::{
    api::{
        HelpDeskAccount, IN_USE, InUseBy,
        conditions::{Finding, Type},
    },
    cluster::{ClusterError, During},
    lifecycle::Stage,
    readiness::Readiness,
};

/// Lists and watches all accounts, and keeps of them what `strip` leaves.
pub(crate) fn accounts(
    readiness: &Readiness,
    api: Api<HelpDeskAccount>,
    strip: fn(&mut HelpDeskAccount),
) -> (Store<HelpDeskAccount>, impl Stream<Item = Result<watcher::Event<HelpDeskAccount>, watcher::Error>> + Send + use<>) {
    let (cache, writer) = reflector::store();
    let stream = readiness.watch(api, watcher::Config::default()).modify(move |account: &mut HelpDeskAccount| {
        account.managed_fields_mut().clear();
        account.annotations_mut().clear();
        strip(account);
    });
    (cache, stream.reflect(writer))
}

/// Whether the account uses its plan, and the class of its plan. One that has expired uses nothing any more.
pub(crate) fn uses(account: &HelpDeskAccount) -> bool {
    account.status.as_ref().and_then(|status| status.stage) != Some(Stage::Expired)
}

/// Hash of what makes an account use a plan.
pub(crate) fn usage(cache: &Store<HelpDeskAccount>, account: &HelpDeskAccount) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&account.metadata.uid, &account.spec.plan, uses(account), is_gone(cache, account)).hash(&mut hasher);
    hasher.finish()
}

/// The plan that each account had when it was seen last: the plan that an account leaves has to be looked at too.
#[derive(Default)]
pub(crate) struct Plans(Mutex<HashMap<String, String>>);

impl Plans {
    /// The account's plan, and the one that it had before.
    pub fn of(&self, account: &HelpDeskAccount) -> Vec<String> {
        let plan = account.spec.plan.clone();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.insert(account.name_any(), plan.clone()).filter(|before| *before != plan);
        [plan].into_iter().chain(before).collect()
    }
}

/// Sets the finalizer of an object that is in use, and takes it off one that is not. Returns the object as it is then.
pub(crate) async fn hold<K>(api: &Api<K>, object: K, in_use: &InUseBy) -> Result<K, ClusterError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let is_held = object.finalizers().iter().any(|finalizer| finalizer == IN_USE);
    let is_ending = object.meta().deletion_timestamp.is_some();
    let hold = in_use.accounts > 0;
    if hold == is_held || (hold && is_ending) {
        return Ok(object);
    }
    let others = object.finalizers().iter().filter(|finalizer| *finalizer != IN_USE).cloned();
    let finalizers: Vec<String> = others.chain(hold.then(|| IN_USE.to_owned())).collect();
    // With the version that was read, a finalizer that another controller just added is not lost.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.during("set the finalizer of what is in use")
}

/// The condition Ready of an object that was deleted and is in use.
pub(crate) fn ending(object: &impl ResourceExt, in_use: &InUseBy) -> Option<Finding> {
    let is_ending = object.meta().deletion_timestamp.is_some() && in_use.accounts > 0;
    is_ending.then(|| {
        let message = format!("it was deleted, and goes once nobody uses it; nothing changes for those who do: {in_use}");
        Finding::no(Type::Ready, "InUse", message)
    })
}
