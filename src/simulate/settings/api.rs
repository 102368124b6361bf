//! What documents the routes of simulation settings.

use serde_json::json;
use utoipa::ToSchema;

use crate::http::api::schemas::{Id, SecretPath, text, words};
use crate::http::api::{Doc, Tag};

words!(
    /// By what is simulated: the chain's own node, or a service that speaks Tenderly's API.
    SimulationBackend: "rpc" | "tenderly"
);
words!(
    /// Whose choice it is.
    SimulationSource: "organisation" | "daemon"
);
text!(
    /// A name in the service's paths.
    Slug = "acme", pattern: "^[A-Za-z0-9_.-]{1,64}$"
);

/// By what is to be simulated.
#[derive(ToSchema)]
pub struct SetSimulation {
    /// By what.
    pub backend: SimulationBackend,
    /// The service's account, for `tenderly`.
    pub account: Option<Slug>,
    /// The service's project, for `tenderly`.
    pub project: Option<Slug>,
    /// The vault of the service's access key, for `tenderly`.
    pub vault_id: Option<Id>,
    /// Where in it the access key is. Who asks must be able to read it.
    pub secret_path: Option<SecretPath>,
}

/// By what is simulated.
#[derive(ToSchema)]
pub struct SimulationSettings {
    /// By what.
    pub backend: SimulationBackend,
    /// Whose choice that is.
    pub source: SimulationSource,
    /// The service's account.
    #[schema(required = false)]
    pub account: Slug,
    /// The service's project.
    #[schema(required = false)]
    pub project: Slug,
    /// The vault of the service's access key.
    #[schema(required = false)]
    pub vault_id: Id,
    /// Where in it the access key is.
    #[schema(required = false)]
    pub secret_path: SecretPath,
}

/// By what the organisation's intents are simulated.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Simulation, "getSimulationSettings", "By what the organisation's intents are simulated")
        .reply::<SimulationSettings>(200, "The choice.", json!({"backend": "rpc", "source": "daemon"}))
}

/// Choose what the organisation's intents are simulated by.
#[must_use]
pub fn put() -> Doc {
    let choice = json!({
        "backend": "tenderly",
        "account": "acme",
        "project": "main",
        "vault_id": "3f2b8c1e-5d4a-4c1b-9e8f-7a6b5c4d3e2f",
        "secret_path": "tenderly/access-key",
    });
    let mut shown = choice.clone();
    shown["source"] = json!("organisation");
    Doc::new(Tag::Simulation, "setSimulationSettings", "Choose what the organisation's intents are simulated by")
        .says("For owners. Where the service is comes from the daemon's configuration alone.")
        .body::<SetSimulation>(choice)
        .reply::<SimulationSettings>(200, "The choice.", shown)
        .problem(404, "There is no such vault.")
        .problem(422, "The secret cannot be used as an access key.")
}

/// Go back to the daemon's own choice.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Simulation, "resetSimulationSettings", "Go back to the daemon's own choice").empty(204, "Done.")
}
