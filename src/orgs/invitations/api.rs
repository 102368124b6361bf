//! What documents the routes of invitations.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Email, GivenEmail, Id, Time, words};
use crate::http::api::{Doc, Tag};
use crate::orgs::members::api::Role;
use crate::users::api::{LetterCode, NewPassword};

words!(
    /// How it stands with an invitation. One that was accepted, or has ended, is not there any more.
    InvitationStatus: "pending"
);

/// Who is to be invited.
#[derive(ToSchema)]
pub struct InviteMember {
    /// Their address.
    pub email: GivenEmail,
    /// What they are to be; `member` if not given.
    pub role: Option<Role>,
}

/// An invitation.
#[derive(ToSchema)]
pub struct Invitation {
    /// Its id.
    pub id: Id,
    /// Whom it invites.
    pub email: Email,
    /// What they are to be.
    pub role: Role,
    /// How it stands.
    pub status: InvitationStatus,
    /// Who invites; `null` is whoever runs the installation.
    #[schema(required = true)]
    pub invited_by: Option<Id>,
    /// When it ends.
    pub expires_at: Time,
    /// When it was made.
    pub created_at: Time,
}

/// Invitations.
#[derive(ToSchema)]
pub struct InvitationList {
    /// Those that are open.
    pub invitations: Vec<Invitation>,
}

/// What is needed to join.
#[derive(ToSchema)]
pub struct AcceptInvitation {
    /// The letter's code.
    pub token: LetterCode,
    /// A password for the new account.
    pub password: NewPassword,
    /// The name to show.
    #[schema(max_length = 255)]
    pub display_name: Option<String>,
}

/// A new account.
#[derive(ToSchema)]
pub struct Joined {
    /// What to do next.
    pub message: String,
    /// Whose account it is.
    pub user_id: Id,
    /// Of which organisation.
    pub org_id: Id,
    /// Its address.
    pub email: Email,
    /// What its human is.
    pub role: Role,
}

fn example() -> Value {
    json!({
        "id": "5f7b9d1c-3e4a-4f6c-8b0d-2c4e6a8b0d2f",
        "email": "grace@example.com",
        "role": "member",
        "status": "pending",
        "invited_by": "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01",
        "expires_at": "2026-11-28T12:00:00Z",
        "created_at": "2026-11-21T12:00:00Z",
    })
}

/// Invite somebody.
#[must_use]
pub fn invite() -> Doc {
    Doc::new(Tag::Organisation, "inviteMember", "Invite somebody")
        .says("A letter has a link to join by. For owners and admins; only owners invite owners.")
        .body::<InviteMember>(json!({"email": "grace@example.com", "role": "member"}))
        .reply::<Invitation>(200, "The invitation.", example())
        .problem(403, "Refused by a rule; `resource_limit_exceeded` when there are as many members as there may be.")
        .problem(409, "They are a member already, the address has an account, or too many invitations are open.")
}

/// List the open invitations.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Organisation, "listInvitations", "List the open invitations").reply::<InvitationList>(
        200,
        "The invitations.",
        json!({"invitations": [example()]}),
    )
}

/// Withdraw an invitation.
#[must_use]
pub fn withdraw() -> Doc {
    Doc::new(Tag::Organisation, "withdrawInvitation", "Withdraw an invitation").empty(204, "Its link leads nowhere.")
}

/// Join by an invitation.
#[must_use]
pub fn accept() -> Doc {
    Doc::new(Tag::Organisation, "acceptInvitation", "Join by an invitation")
        .says("The account is made here; a login follows with the password.")
        .public()
        .body::<AcceptInvitation>(json!({
            "token": "hT5kQ2sV8wZ1xC4vB7nM0aS3dF6gH9jK2lP5oI8uY1t",
            "password": "correct-Horse7battery",
            "display_name": "Grace",
        }))
        .reply::<Joined>(
            200,
            "The account.",
            json!({
                "message": "The account is made: log in with the email address and the password.",
                "user_id": "1d3f5b7a-9c1e-4b3d-8f5a-7c9e1b3d5f7a",
                "org_id": "7f9c24e8-3b12-4f6d-8a5e-9c1d2e3f4a5b",
                "email": "grace@example.com",
                "role": "member",
            }),
        )
        .problem(400, "Something is missing or does not fit, or the code is unknown, was used, or has ended.")
        .problem(403, "`resource_limit_exceeded`: there are as many members as there may be.")
        .problem(404, "The organisation is not there any more.")
        .problem(409, "The address has an account already.")
}
