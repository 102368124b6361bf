//! What documents the routes of health.

use serde_json::json;
use utoipa::ToSchema;

use super::schemas::words;
use super::{Doc, Tag};

words!(
    /// `degraded`: the daemon serves, and the database or the HSM does not answer.
    Condition: "healthy" | "degraded"
);
words!(
    /// Whether the database answers.
    DatabaseStatus: "ok" | "unavailable"
);
words!(
    /// `degraded`: some of the HSM's sessions do not answer. `unavailable`: it cannot sign.
    HsmStatus: "ok" | "degraded" | "unavailable"
);

/// Whether the daemon works.
#[derive(ToSchema)]
pub struct Health {
    /// All in all.
    pub status: Condition,
    /// Always `intentd`.
    #[schema(examples("intentd"))]
    pub service: String,
    /// Its version.
    #[schema(examples("0.1.0"))]
    pub version: String,
    /// Of the database.
    pub database: DatabaseStatus,
    /// Of the HSM.
    pub hsm: HsmStatus,
}

/// Whether the HSM signs.
#[derive(ToSchema)]
pub struct HsmHealth {
    /// By a signature that was made just now.
    pub status: HsmStatus,
    /// What kind of HSM.
    #[schema(examples("pkcs11"))]
    pub hsm_provider: String,
    /// Whether its module answers.
    pub connected: bool,
}

/// Health.
#[must_use]
pub fn health() -> Doc {
    Doc::new(Tag::Health, "getHealth", "Whether the daemon works")
        .says("200 as long as the process serves; what does not work is in the body.")
        .public()
        .reply::<Health>(
            200,
            "The daemon serves.",
            json!({"status": "healthy", "service": "intentd", "version": "0.1.0", "database": "ok", "hsm": "ok"}),
        )
}

/// The HSM's health.
#[must_use]
pub fn hsm() -> Doc {
    let healthy = json!({"status": "ok", "hsm_provider": "pkcs11", "connected": true});
    let broken = json!({"status": "unavailable", "hsm_provider": "pkcs11", "connected": false});
    Doc::new(Tag::Health, "getHsmHealth", "Whether the HSM signs")
        .public()
        .reply::<HsmHealth>(200, "It signs.", healthy)
        .reply::<HsmHealth>(503, "It does not sign.", broken)
}
