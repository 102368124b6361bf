//! What documents the routes of shares.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Cursor, Email, Id, SecretPath, Time, words};
use crate::http::api::{Doc, Tag};
use crate::vaults::policies::api::Network;
use crate::vaults::secrets::api::SecretKind;

words!(
    /// For whom: a human or an agent of the organisation, the human who registered the agent that shares (`creator`), whoever reads the
    /// mail of an address, or whoever has the link.
    RecipientType: "user" | "agent" | "external_email" | "anyone_with_link" | "creator"
);
words!(
    /// What a share grants.
    SharePermission: "read"
);

/// A share to be made.
#[derive(ToSchema)]
pub struct CreateShare {
    /// For whom.
    pub recipient_type: RecipientType,
    /// The human or agent, for `user` and `agent`.
    #[schema(examples("9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f"), max_length = 45)]
    pub recipient_id: Option<String>,
    /// The address, for `external_email`.
    #[schema(examples("ada@example.com"), max_length = 254)]
    pub email: Option<String>,
    /// What it grants: a share can only be read.
    #[schema(min_items = 1)]
    pub permissions: Option<Vec<SharePermission>>,
    /// How often it may be opened; 0 is without a limit.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    pub max_access_count: Option<i64>,
    /// When it ends: within 366 days.
    pub expires_at: Time,
    /// What is needed to open it, beside the link.
    #[schema(min_length = 1, max_length = 1024)]
    pub passphrase: Option<String>,
    /// From where it may be opened; from anywhere if empty.
    #[schema(max_items = 256)]
    pub ip_allowlist: Option<Vec<Network>>,
}

/// A share that was made.
#[derive(ToSchema)]
pub struct Share {
    /// Its id.
    pub id: Id,
    /// Its link.
    #[schema(format = "uri", examples("https://intentd.example/v1/share/1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"))]
    pub share_url: String,
    /// For whom.
    pub recipient_type: RecipientType,
    /// The address that it is for.
    #[schema(required = false)]
    pub recipient_email: Email,
    /// When it ends.
    pub expires_at: Time,
    /// How often it may be opened; 0 is without a limit.
    #[schema(minimum = 0)]
    pub max_access_count: i32,
}

/// A share of a list.
#[derive(ToSchema)]
pub struct ListedShare {
    /// Its id.
    pub id: Id,
    /// Of which secret.
    pub secret_path: SecretPath,
    /// For whom.
    pub recipient_type: RecipientType,
    /// The address that it is for.
    #[schema(required = false)]
    pub recipient_email: Email,
    /// How often it was opened.
    #[schema(minimum = 0)]
    pub access_count: i32,
    /// How often it may be opened; 0 is without a limit.
    #[schema(minimum = 0)]
    pub max_access_count: i32,
    /// When it ends.
    pub expires_at: Time,
    /// When it was made.
    pub created_at: Time,
    /// Whether it has ended.
    pub is_expired: bool,
    /// Whether who it is for has accepted it.
    pub is_accepted: bool,
}

/// Shares.
#[derive(ToSchema)]
pub struct ShareList {
    /// The newest first.
    pub shares: Vec<ListedShare>,
    /// Only when there are more.
    #[schema(required = false)]
    pub next_cursor: Cursor,
}

/// What a share opens.
#[derive(ToSchema)]
pub struct SharedSecret {
    /// The share's id.
    pub id: Id,
    /// The secret's path.
    pub path: SecretPath,
    /// What kind of secret.
    pub r#type: SecretKind,
    /// The secret itself: its latest version.
    pub value: String,
    /// How often the share was opened, this time included.
    #[schema(minimum = 1)]
    pub access_count: i32,
    /// How often it may be opened; 0 is without a limit.
    #[schema(minimum = 0)]
    pub max_access_count: i32,
}

/// What opens a share that has a passphrase.
#[derive(ToSchema)]
pub struct OpenShare {
    /// The passphrase.
    pub passphrase: Option<String>,
}

const SHARE: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";

fn listed() -> Value {
    json!({
        "id": SHARE,
        "secret_path": "prod/db/password",
        "recipient_type": "agent",
        "access_count": 1,
        "max_access_count": 5,
        "expires_at": "2026-12-21T12:00:00Z",
        "created_at": "2026-11-21T12:00:00Z",
        "is_expired": false,
        "is_accepted": true,
    })
}

/// Share a secret.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Sharing, "shareSecret", "Share a secret")
        .says("It lends its maker's right to read, looked up again at every opening. An organisation makes at most ten a minute.")
        .body::<CreateShare>(json!({
            "recipient_type": "agent",
            "recipient_id": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
            "max_access_count": 5,
            "expires_at": "2026-12-21T12:00:00Z",
        }))
        .reply::<Share>(
            201,
            "The share.",
            json!({
                "id": SHARE,
                "share_url": format!("https://intentd.example/v1/share/{SHARE}"),
                "recipient_type": "agent",
                "expires_at": "2026-12-21T12:00:00Z",
                "max_access_count": 5,
            }),
        )
        .problem(410, "The secret is deleted or has ended.")
}

/// Open a share.
#[must_use]
pub fn open() -> Doc {
    Doc::new(Tag::Sharing, "openShare", "Open a share")
        .says(
            "A share for a mail address or for anybody with the link needs no credential; one for somebody needs theirs, and to be accepted \
             first. A passphrase comes as JSON in the body of this GET (`{\"passphrase\": \"…\"}`): in the query it would end up in logs. \
             Bodies of a GET are beyond what OpenAPI describes.",
        )
        .public_or_bearer()
        .reply::<SharedSecret>(
            200,
            "The secret.",
            json!({
                "id": SHARE,
                "path": "prod/db/password",
                "type": "password",
                "value": "s3cr3t",
                "access_count": 1,
                "max_access_count": 5,
            }),
        )
        .reply_header(200, "Cache-Control", json!({"type": "string", "const": "no-store"}), "Not to be kept.")
        .problem(400, "The body cannot be read.")
        .problem(403, "Refused by a rule: another network, no or a wrong passphrase, or its maker may not read the secret any more.")
        .problem(404, "There is no such share, it was revoked, or it is somebody else's.")
        .problem(408, "The body did not come in time.")
        .problem(410, "It has ended, was opened as often as it may be, or the secret is gone.")
        .problem(413, "The body is larger than it may be.")
}

/// Revoke a share.
#[must_use]
pub fn revoke() -> Doc {
    Doc::new(Tag::Sharing, "revokeShare", "Revoke a share").empty(204, "It opens nothing any more.")
}

/// List the shares that the caller has made.
#[must_use]
pub fn outbound() -> Doc {
    Doc::new(Tag::Sharing, "listOutboundShares", "List the shares that the caller has made")
        .pages(100, 200)
        .reply::<ShareList>(200, "The shares.", json!({"shares": [listed()]}))
}

/// List the shares that are for the caller.
#[must_use]
pub fn inbound() -> Doc {
    Doc::new(Tag::Sharing, "listInboundShares", "List the shares that are for the caller")
        .pages(100, 200)
        .reply::<ShareList>(200, "The shares.", json!({"shares": [listed()]}))
}

/// Accept a share.
#[must_use]
pub fn accept() -> Doc {
    Doc::new(Tag::Sharing, "acceptShare", "Accept a share")
        .empty(204, "It can be opened.")
        .problem(410, "It has ended, or was declined.")
}

/// Decline a share.
#[must_use]
pub fn decline() -> Doc {
    Doc::new(Tag::Sharing, "declineShare", "Decline a share")
        .empty(204, "It cannot be opened.")
        .problem(410, "It has ended.")
}
