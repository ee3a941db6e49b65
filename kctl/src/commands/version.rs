//! `kctl version`.

use kctl_shared::proto::v1::VersionRequest;
use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;
use serde::Serialize;

use crate::cli::Global;
use crate::client::Client;
use crate::context;
use crate::fail::Outcome;
use crate::output::Printer;

#[derive(Serialize)]
struct Versions {
    client: &'static str,
    /// Null when no control plane answers.
    server: Option<String>,
}

pub async fn run(global: &Global, printer: &Printer) -> Outcome {
    let server = match context::resolve(global) {
        Ok(context) => {
            let client = Client::new(context);
            let asked = client.call(|channel| async move {
                Ok(ClusterServiceClient::new(channel).version(VersionRequest {}).await?.into_inner())
            });
            // The client's own version needs nobody; the server's is not worth a long wait.
            tokio::time::timeout(std::time::Duration::from_secs(2), asked)
                .await
                .ok()
                .and_then(Result::ok)
                .map(|v| v.version)
        }
        Err(_) => None,
    };
    let versions = Versions { client: env!("CARGO_PKG_VERSION"), server };
    printer.one(&versions, versions.client, || {
        format!(
            "kctl {}\ncontrol plane {}\n",
            versions.client,
            versions.server.as_deref().unwrap_or("not reached")
        )
    })
}
