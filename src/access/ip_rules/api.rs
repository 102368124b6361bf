//! What documents the routes of IP rules.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Id, Time, words};
use crate::http::api::{Doc, Tag};
use crate::vaults::policies::api::Network;

words!(
    /// What the rule does.
    IpRuleType: "allow" | "deny"
);
words!(
    /// What the rule does. `block` is another word for `deny`.
    GivenIpRuleType: "allow" | "deny" | "block"
);
words!(
    /// To whom it applies.
    AppliesTo: "all" | "humans" | "agents"
);

/// An IP rule to be made.
#[derive(ToSchema)]
pub struct CreateIpRule {
    /// What it does.
    pub rule_type: GivenIpRuleType,
    /// To which addresses.
    pub cidr: Network,
    /// What it is called.
    #[schema(max_length = 255)]
    pub label: Option<String>,
    /// The same as `label`.
    #[schema(max_length = 255)]
    pub description: Option<String>,
    /// To whom it applies; `all` if not given.
    pub applies_to: Option<GivenAppliesTo>,
}

words!(
    /// To whom it applies.
    GivenAppliesTo: "all" | "humans" | "agents"
);

/// An IP rule.
#[derive(ToSchema)]
pub struct IpRule {
    /// Its id.
    pub id: Id,
    /// Whose.
    pub org_id: Id,
    /// What it does.
    pub rule_type: IpRuleType,
    /// To which addresses.
    pub cidr: Network,
    /// What it is called.
    #[schema(required = true)]
    pub label: Option<String>,
    /// To whom it applies.
    pub applies_to: AppliesTo,
    /// Who made it.
    pub created_by: Id,
    /// When.
    pub created_at: Time,
}

/// IP rules.
#[derive(ToSchema)]
pub struct IpRuleList {
    /// All of them.
    pub rules: Vec<IpRule>,
}

fn example() -> Value {
    json!({
        "id": "2c4e6a8b-0d1f-4a3c-8e5b-7f9d1b3c5e7a",
        "org_id": "7f9c24e8-3b12-4f6d-8a5e-9c1d2e3f4a5b",
        "rule_type": "allow",
        "cidr": "203.0.113.0/24",
        "label": "office",
        "applies_to": "humans",
        "created_by": "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01",
        "created_at": "2026-11-21T12:00:00Z",
    })
}

const LOCKS_OUT: &str = "It would lock out who asks.";

/// List the IP rules.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Organisation, "listIpRules", "List the IP rules").reply::<IpRuleList>(
        200,
        "The rules.",
        json!({"rules": [example()]}),
    )
}

/// Make an IP rule.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Organisation, "createIpRule", "Make an IP rule")
        .says("It holds on every daemon within a second. For owners and admins.")
        .body::<CreateIpRule>(
            json!({"rule_type": "allow", "cidr": "203.0.113.0/24", "label": "office", "applies_to": "humans"}),
        )
        .reply::<IpRule>(201, "The rule.", example())
        .problem(409, "There are as many rules as there may be.")
        .problem(422, LOCKS_OUT)
}

/// Delete an IP rule.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Organisation, "deleteIpRule", "Delete an IP rule").empty(204, "It is gone.").problem(422, LOCKS_OUT)
}
