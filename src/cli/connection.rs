//! The connection to the cluster of a kubeconfig.

use std::path::PathBuf;

use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::error::Error;
use crate::cluster;

/// Which cluster, and as whom.
#[derive(Args, Debug)]
pub(super) struct ConnectionArgs {
    /// The kubeconfig; without it, the one of KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; without it, the present one.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The user to impersonate, as kubectl does.
    #[arg(long = "as", global = true, value_name = "USER")]
    impersonate: Option<String>,
    /// The namespace of the operator.
    #[arg(long, global = true, env = "HELPDESK_OPERATOR_NAMESPACE", value_name = "NAMESPACE", default_value = "helpdesk-operator")]
    operator_namespace: String,
}

/// An open connection.
pub(super) struct Connection {
    /// The client.
    pub client: Client,
    /// The namespace of the operator.
    pub operator_namespace: String,
}

impl Connection {
    /// Reads the kubeconfig. Nothing is asked of the cluster yet.
    pub async fn open(args: ConnectionArgs) -> Result<Self, Error> {
        let bad = |error| Error::Kubeconfig(Box::new(error));
        let kubeconfig = match &args.kubeconfig {
            Some(path) => Kubeconfig::read_from(path).map_err(bad)?,
            None => Kubeconfig::read().map_err(bad)?,
        };
        let options = KubeConfigOptions { context: args.context, ..KubeConfigOptions::default() };
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(bad)?;
        if args.impersonate.is_some() {
            config.auth_info.impersonate = args.impersonate;
        }
        let client = cluster::connect(config, std::sync::Arc::default()).map_err(|error| Error::Connect(Box::new(error)))?;
        Ok(Self { client, operator_namespace: args.operator_namespace })
    }
}
