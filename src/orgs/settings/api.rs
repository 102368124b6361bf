//! What documents the routes of an organisation's settings.

use serde_json::json;
use utoipa::ToSchema;

use crate::http::api::schemas::Anything;
use crate::http::api::{Doc, Tag};

/// An organisation's settings.
#[derive(ToSchema)]
pub struct OrgSettings {
    /// Every intent is simulated before it is signed.
    pub require_simulation: bool,
    /// Lifting a restriction of an agent needs `"confirm_unrestricted": true`.
    pub guardrail_widening_requires_confirm: bool,
}

/// What is to be changed. What is `null` or not given stays.
#[derive(ToSchema)]
pub struct ChangeOrgSettings {
    /// Every intent is simulated before it is signed.
    pub require_simulation: Option<bool>,
    /// Lifting a restriction of an agent needs `"confirm_unrestricted": true`.
    pub guardrail_widening_requires_confirm: Option<bool>,
    /// One of them by its name, with its value in `value`.
    #[schema(max_length = 100)]
    pub key: Option<String>,
    /// The value of the one that `key` names, true or false, also as a text.
    #[schema(required = false)]
    pub value: Anything,
}

/// Look at the organisation's settings.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Organisation, "getOrgSettings", "Look at the organisation's settings").reply::<OrgSettings>(
        200,
        "The settings.",
        json!({"require_simulation": false, "guardrail_widening_requires_confirm": true}),
    )
}

/// Change the organisation's settings.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Organisation, "updateOrgSettings", "Change the organisation's settings")
        .says("For owners. They hold for what is signed from then on.")
        .optional_body::<ChangeOrgSettings>(json!({"require_simulation": true}))
        .reply::<OrgSettings>(
            200,
            "The settings.",
            json!({"require_simulation": true, "guardrail_widening_requires_confirm": true}),
        )
}
