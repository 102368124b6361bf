//! What documents the routes of customer-managed keys.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Fingerprint, Id, Time, text, words};
use crate::http::api::{Doc, Tag};
use crate::vaults::api::{Vault, example as vault};

text!(
    /// The SHA-256 of the key, in 64 hex digits of any case.
    GivenFingerprint = "abababababababababababababababababababababababababababababababab", pattern: "^[0-9a-fA-F]{64}$"
);
words!(
    /// How far a rotation is.
    RotationStatus: "pending" | "running" | "completed" | "failed"
);

/// With which key clients encrypt.
#[derive(ToSchema)]
pub struct EnableCmek {
    /// The key's SHA-256.
    pub fingerprint: GivenFingerprint,
}

/// To which key a vault is to go over.
#[derive(ToSchema)]
pub struct RotateCmek {
    /// The SHA-256 of the key in `x-cmek-new-key`.
    pub new_fingerprint: GivenFingerprint,
}

/// A rotation.
#[derive(ToSchema)]
pub struct CmekRotation {
    /// Its id.
    pub id: Id,
    /// Of which vault.
    pub vault_id: Id,
    /// The key before.
    pub old_fingerprint: Fingerprint,
    /// The key after.
    pub new_fingerprint: Fingerprint,
    /// How far it is.
    pub status: RotationStatus,
    /// Values to move.
    #[schema(minimum = 0)]
    pub total_secrets: i32,
    /// Values moved.
    #[schema(minimum = 0)]
    pub processed: i32,
    /// When it was asked for.
    pub created_at: Time,
    /// Why it failed.
    #[schema(required = false)]
    pub error: String,
    /// When it began.
    #[schema(required = false)]
    pub started_at: Time,
    /// When it ended.
    #[schema(required = false)]
    pub completed_at: Time,
}

fn rotation() -> Value {
    json!({
        "id": "7d2a8f4e-3b5c-4d7e-8f1a-c2d3e4f5a6b7",
        "vault_id": "3f2b8c1e-5d4a-4c1b-9e8f-7a6b5c4d3e2f",
        "old_fingerprint": "ab".repeat(32),
        "new_fingerprint": "cd".repeat(32),
        "status": "running",
        "total_secrets": 12,
        "processed": 3,
        "created_at": "2026-11-21T12:00:00Z",
        "started_at": "2026-11-21T12:00:00Z",
    })
}

fn encrypted_vault() -> Value {
    let mut vault = vault();
    vault["cmek_enabled"] = json!(true);
    vault["cmek_fingerprint"] = json!("ab".repeat(32));
    vault
}

/// Say that clients encrypt the vault's values.
#[must_use]
pub fn enable() -> Doc {
    Doc::new(Tag::Cmek, "enableCmek", "Say that clients encrypt the vault's values")
        .says("For owners and admins. Values that do not have the clients' format are kept as they are.")
        .body::<EnableCmek>(json!({"fingerprint": "ab".repeat(32)}))
        .reply::<Vault>(200, "The vault.", encrypted_vault())
        .problem(409, "The vault has another key, a rotation of it runs, or its keys are the daemon's own.")
}

/// Say that clients no longer encrypt the vault's values.
#[must_use]
pub fn disable() -> Doc {
    Doc::new(Tag::Cmek, "disableCmek", "Say that clients no longer encrypt the vault's values")
        .reply::<Vault>(200, "The vault.", vault())
        .problem(409, "A rotation of it runs, or its keys are the daemon's own.")
}

/// Move the vault's values from one client's key to another.
#[must_use]
pub fn rotate() -> Doc {
    let key = json!({"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=?$"});
    Doc::new(Tag::Cmek, "rotateCmek", "Move the vault's values from one client's key to another")
        .says("The daemon needs both keys for it. They are kept in memory while it runs, and nowhere else.")
        .header("x-cmek-old-key", true, key.clone(), "The key before: base64 of 32 bytes.")
        .header("x-cmek-new-key", true, key, "The key after: base64 of 32 bytes.")
        .body::<RotateCmek>(json!({"new_fingerprint": "cd".repeat(32)}))
        .reply::<CmekRotation>(202, "It has begun.", rotation())
        .problem(409, "The vault has no client's key, or another rotation of it runs.")
}

/// How far a rotation is.
#[must_use]
pub fn status() -> Doc {
    Doc::new(Tag::Cmek, "getCmekRotation", "How far a rotation is")
        .reply::<CmekRotation>(200, "The rotation.", rotation())
        .problem(409, "The vault's keys are the daemon's own.")
}
