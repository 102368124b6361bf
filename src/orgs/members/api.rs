//! What documents the routes of members.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Email, Id, Time, words};
use crate::http::api::{Doc, Tag};
use crate::users::api::AuthMethod;

words!(
    /// What a member may: owners everything, admins everything but what concerns owners and the organisation's settings.
    Role: "owner" | "admin" | "member"
);

/// What a member is to be.
#[derive(ToSchema)]
pub struct ChangeMember {
    /// The role.
    pub role: Role,
}

/// A member.
#[derive(ToSchema)]
pub struct Member {
    /// Their id.
    pub id: Id,
    /// Their address.
    pub email: Email,
    /// The name to show.
    #[schema(required = true)]
    pub display_name: Option<String>,
    /// What they are.
    pub role: Role,
    /// How they log in.
    pub auth_method: AuthMethod,
    /// Since when they are there.
    pub created_at: Time,
}

/// Members.
#[derive(ToSchema)]
pub struct MemberList {
    /// All of them.
    pub members: Vec<Member>,
}

fn example() -> Value {
    json!({
        "id": "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01",
        "email": "ada@example.com",
        "display_name": "Ada",
        "role": "admin",
        "auth_method": "password",
        "created_at": "2026-11-21T12:00:00Z",
    })
}

/// List the members.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Organisation, "listMembers", "List the members").reply::<MemberList>(
        200,
        "The members.",
        json!({"members": [example()]}),
    )
}

/// Change a member's role.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Organisation, "changeMember", "Change a member's role")
        .says("Everybody may take less. Only owners make and unmake owners.")
        .body::<ChangeMember>(json!({"role": "admin"}))
        .reply::<Member>(200, "The member.", example())
        .problem(409, "The last owner stays.")
}

/// Remove a member.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Organisation, "removeMember", "Remove a member")
        .says("Their account is erased, with their keys. Everybody may leave.")
        .empty(204, "They are gone.")
        .problem(409, "The last owner stays.")
}
