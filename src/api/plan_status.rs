//! What the operator saw of a plan.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::in_use::InUseBy;

/// The observed state of the plan.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelpDeskPlanStatus {
    /// The `metadata.generation` that the rest of the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The accounts of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use_by: Option<InUseBy>,
    /// The regions of these accounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions_in_use: Vec<String>,
    /// Ready: everything that the plan names is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
