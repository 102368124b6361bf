//! What documents the routes of secrets and their versions.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{ActorRef, Fingerprint, Id, JsonObject, SecretPath, Time, words};
use crate::http::api::{Doc, Tag};

words!(
    /// What kind of secret. A `private_key` or `ssh_key` is not read back by agents that may send intents.
    SecretKind:
        "generic" | "api_key" | "password" | "private_key" | "certificate" | "file" | "note" | "ssh_key" | "env_bundle" | "env"
);
words!(
    /// Of what a random value is made.
    Charset: "hex" | "base64" | "alphanumeric" | "ascii"
);
words!(
    /// `disabled`: it is kept, and not read. `destroyed`: there is nothing left of it.
    VersionState: "enabled" | "disabled" | "destroyed"
);

/// A secret to be stored.
#[derive(ToSchema)]
pub struct PutSecret {
    /// The secret itself.
    #[schema(examples("s3cr3t"))]
    pub value: String,
    /// What kind; `generic` if not given.
    pub r#type: Option<SecretKind>,
    /// Whatever the client keeps with it: 16 KiB of JSON at most.
    pub metadata: Option<JsonObject>,
    /// Kept and shown, and not acted on: 4 KiB of JSON at most.
    pub rotation_policy: Option<JsonObject>,
    /// When it ends.
    pub expires_at: Option<Time>,
    /// How often it may be read; 0 is without a limit.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    pub max_access_count: Option<i64>,
}

/// A secret without its value.
#[derive(ToSchema)]
pub struct SecretMetadata {
    /// The secret's id, the same for all its versions.
    pub id: Id,
    /// Where it is.
    pub path: SecretPath,
    /// What kind.
    pub r#type: SecretKind,
    /// Which version, from 1.
    #[schema(minimum = 1)]
    pub version: i32,
    /// What the client keeps with it.
    pub metadata: JsonObject,
    /// When this version was stored.
    pub created_at: Time,
    /// When it ends.
    #[schema(required = false)]
    pub expires_at: Time,
}

/// Secrets.
#[derive(ToSchema)]
pub struct SecretList {
    /// In the order of their paths.
    pub secrets: Vec<SecretMetadata>,
    /// Only when there are more.
    #[schema(required = false)]
    pub next_cursor: String,
}

/// A secret.
#[derive(ToSchema)]
pub struct Secret {
    /// The secret's id.
    pub id: Id,
    /// Where it is.
    pub path: SecretPath,
    /// What kind.
    pub r#type: SecretKind,
    /// The secret itself.
    pub value: String,
    /// Which version, from 1.
    #[schema(minimum = 1)]
    pub version: i32,
    /// What the client keeps with it.
    pub metadata: JsonObject,
    /// Who stored this version.
    pub created_by: ActorRef,
    /// When.
    pub created_at: Time,
    /// When it ends.
    #[schema(required = false)]
    pub expires_at: Time,
    /// `true` where the value is what a client encrypted.
    #[schema(required = false)]
    pub cmek_encrypted: bool,
    /// Kept for the client.
    #[schema(required = false)]
    pub rotation_policy: JsonObject,
}

/// One version of a secret, without its value.
#[derive(ToSchema)]
pub struct SecretVersion {
    /// The secret's id.
    pub id: Id,
    /// Where it is.
    pub path: SecretPath,
    /// What kind.
    pub r#type: SecretKind,
    /// Which version, from 1.
    #[schema(minimum = 1)]
    pub version: i32,
    /// What the client keeps with it.
    pub metadata: JsonObject,
    /// Whether it is read.
    pub state: VersionState,
    /// Who stored it.
    pub created_by: ActorRef,
    /// When.
    pub created_at: Time,
    /// When it ends.
    #[schema(required = false)]
    pub expires_at: Time,
    /// Since when it is not read.
    #[schema(required = false)]
    pub disabled_at: Time,
    /// Since when there is nothing left of it.
    #[schema(required = false)]
    pub destroyed_at: Time,
    /// `true` where the value is what a client encrypted.
    #[schema(required = false)]
    pub cmek_encrypted: bool,
    /// The SHA-256 of that client's key.
    #[schema(required = false)]
    pub cmek_fingerprint: Fingerprint,
}

/// Versions of a secret.
#[derive(ToSchema)]
pub struct SecretVersionList {
    /// The newest first.
    pub versions: Vec<SecretVersion>,
    /// Only when there are more.
    #[schema(required = false)]
    pub next_cursor: String,
}

/// How a random value is to be made.
#[derive(ToSchema)]
pub struct RotateSecret {
    /// How many characters; 32 if not given.
    #[schema(minimum = 8, maximum = 1024)]
    pub length: Option<u64>,
    /// Of which; `alphanumeric` if not given.
    pub charset: Option<Charset>,
    /// What kind; as before if not given.
    pub r#type: Option<SecretKind>,
    /// When it ends.
    pub expires_at: Option<Time>,
}

/// How a deletion is to be undone.
#[derive(ToSchema)]
pub struct RestoreSecret {
    /// Whether its signing key is to sign again. It does not unless this says so.
    pub reactivate_signing_key: Option<bool>,
}

fn metadata() -> Value {
    json!({
        "id": "5a0f6d2e-1b3c-4d5e-8f90-a1b2c3d4e5f6",
        "path": "prod/db/password",
        "type": "password",
        "version": 3,
        "metadata": {"owner": "payments"},
        "created_at": "2026-11-21T12:00:00Z",
        "expires_at": "2027-11-21T12:00:00Z",
    })
}

fn opened() -> Value {
    let mut secret = metadata();
    secret["value"] = json!("s3cr3t");
    secret["created_by"] = json!("user:8f14e45f-ceea-467f-a83c-3b1a5f9e6d01");
    secret
}

fn version() -> Value {
    let mut version = metadata();
    version["created_by"] = json!("user:8f14e45f-ceea-467f-a83c-3b1a5f9e6d01");
    version["state"] = json!("enabled");
    version
}

const BAD_PATH: &str = "The path, or something else of the request, cannot be read.";
const UNREADABLE: &str =
    "Refused by a rule. `key_held_in_hsm`: a signing key, which no request reads back; the detail has its address.";
const GONE: &str = "Deleted, expired, or read as often as it may be.";

/// List the secrets that the caller may read.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Secrets, "listSecrets", "List the secrets that the caller may read")
        .says("Never values. Without `limit` up to 5000.")
        .query("prefix", json!({"type": "string"}), "Only paths that begin so.")
        .query(
            "expiring_within",
            json!({"type": "string", "pattern": "^([0-9]{1,10}[smhdw]?)?$", "examples": ["7d"]}),
            "Only those that end within so many seconds, or a whole number of `s`, `m`, `h`, `d` or `w`; ten years at most.",
        )
        .query(
            "limit",
            json!({"type": "integer", "minimum": 1, "maximum": 4_294_967_295_u32}),
            "Secrets of a page; more than 1000 are 1000.",
        )
        .query("cursor", json!({"type": "string"}), "Where to go on: the `next_cursor` of the page before.")
        .reply::<SecretList>(200, "The secrets.", json!({"secrets": [metadata()]}))
}

/// Store a secret.
#[must_use]
pub fn write() -> Doc {
    Doc::new(Tag::Secrets, "putSecret", "Store a secret")
        .says(
            "Each PUT makes a new version. A `private_key` at a signing path (`keys/…`, `wallets/…`, `agents/{id}/keys/…`) that is a valid \
             secp256k1 scalar is moved into the HSM: its plaintext is not kept, and nobody reads it back, unless a human stored it with \
             `metadata.exportable = true`.",
        )
        .body::<PutSecret>(json!({"value": "s3cr3t", "type": "password", "metadata": {"owner": "payments"}}))
        .reply::<SecretMetadata>(201, "The secret without its value.", metadata())
        .problem(400, BAD_PATH)
        .problem(403, "Refused by a rule; `resource_limit_exceeded` when there are as many secrets as there may be.")
        .problem(422, "At a signing path, a key that is none: it is not a valid scalar.")
}

/// Read a secret.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Secrets, "getSecret", "Read a secret")
        .says("Each reading counts towards `max_access_count` and is in the audit trail.")
        .reply::<Secret>(200, "The secret.", opened())
        .problem(400, BAD_PATH)
        .problem(403, UNREADABLE)
        .problem(410, GONE)
}

/// Delete a secret.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Secrets, "deleteSecret", "Delete a secret")
        .says("Owners and admins can undo it until something else is stored at the path.")
        .empty(204, "It is deleted.")
        .problem(400, BAD_PATH)
        .problem(410, "It is deleted already.")
}

/// List a secret's versions.
#[must_use]
pub fn versions_list() -> Doc {
    Doc::new(Tag::Secrets, "listSecretVersions", "List a secret's versions")
        .says("Never values.")
        .query(
            "limit",
            json!({"type": "integer", "minimum": 1, "format": "int64", "default": 1000}),
            "Versions of a page; more than 1000 are 1000.",
        )
        .query(
            "cursor",
            json!({"type": "string", "pattern": "^([+-]?[0-9]{1,10})?$"}),
            "Where to go on: the `next_cursor` of the page before.",
        )
        .reply::<SecretVersionList>(200, "The versions.", json!({"versions": [version()]}))
        .problem(400, BAD_PATH)
        .problem(403, UNREADABLE)
        .problem(410, "It is deleted.")
}

fn of_version(doc: Doc) -> Doc {
    doc.then("version", json!({"type": "integer", "minimum": 1, "maximum": 2_147_483_647}), "Which version, from 1.")
        .problem(400, "The path or the version cannot be read.")
}

/// Read one version of a secret.
#[must_use]
pub fn versions_read() -> Doc {
    of_version(Doc::new(Tag::Secrets, "getSecretVersion", "Read one version of a secret"))
        .reply::<Secret>(200, "The version.", opened())
        .problem(403, UNREADABLE)
        .problem(410, "Deleted, disabled, destroyed, expired, or read as often as it may be.")
}

/// Disable one version of a secret.
#[must_use]
pub fn versions_disable() -> Doc {
    of_version(Doc::new(Tag::Secrets, "disableSecretVersion", "Disable one version of a secret"))
        .says("It is kept, and not read any more, for good. A signing key that is that version signs nothing new.")
        .reply::<SecretVersion>(200, "The version.", {
            let mut disabled = version();
            disabled["state"] = json!("disabled");
            disabled["disabled_at"] = json!("2026-11-22T12:00:00Z");
            disabled
        })
        .problem(410, "The secret is deleted.")
}

/// Replace a secret's value by a random one.
#[must_use]
pub fn versions_rotate() -> Doc {
    Doc::new(Tag::Secrets, "rotateSecret", "Replace a secret's value by a random one")
        .says("The value is made by the HSM. The reply does not have it.")
        .optional_body::<RotateSecret>(json!({"length": 32, "charset": "alphanumeric"}))
        .reply::<SecretMetadata>(201, "The new version without its value.", metadata())
        .problem(400, BAD_PATH)
        .problem(403, "Refused by a rule; `resource_limit_exceeded` when there are as many versions as there may be.")
        .problem(410, GONE)
        .problem(422, "Clients encrypt the vault's values: a value of the daemon's is none of theirs.")
}

/// Undo the deletion of a secret.
#[must_use]
pub fn versions_restore() -> Doc {
    Doc::new(Tag::Secrets, "restoreSecret", "Undo the deletion of a secret")
        .says("For owners and admins. A signing key stays stopped unless the request says otherwise.")
        .optional_body::<RestoreSecret>(json!({"reactivate_signing_key": false}))
        .reply::<SecretMetadata>(200, "The secret without its value.", metadata())
        .problem(400, BAD_PATH)
        .problem(403, "Refused by a rule; `resource_limit_exceeded` when there are as many secrets as there may be.")
        .problem(409, "It is not deleted, or has no signing key to reactivate.")
        .problem(410, "There is nothing left of it.")
}
