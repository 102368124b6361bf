//! What documents the routes of usage.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Anything, Time, words};
use crate::http::api::{Doc, Tag};
use crate::orgs::limits::api::Limits;

words!(
    /// The one plan there is.
    Plan: "self_hosted"
);
words!(
    /// A plan that does not end.
    PlanStatus: "active"
);
words!(
    /// What is counted.
    UsageKind: "requests" | "signatures"
);
words!(
    /// How one would pay.
    OverageMethodName: "credits" | "x402"
);
words!(
    /// Nobody is billed.
    NoCost: "0.00"
);
words!(
    /// The currency of nothing.
    Currency: "usd"
);

/// This month's counts.
#[derive(ToSchema)]
pub struct MonthUsage {
    /// Requests.
    #[schema(minimum = 0)]
    pub total_requests: i64,
    /// Always 0.
    pub paid_requests: i64,
    /// All of them.
    #[schema(minimum = 0)]
    pub free_requests: i64,
    /// Always nothing.
    pub total_cost_usd: NoCost,
    /// Signatures.
    #[schema(minimum = 0)]
    pub signatures: i64,
}

/// How many there are.
#[derive(ToSchema)]
pub struct Resources {
    /// Vaults.
    #[schema(minimum = 0)]
    pub vaults: i64,
    /// Secrets.
    #[schema(minimum = 0)]
    pub secrets: i64,
    /// Agents.
    #[schema(minimum = 0)]
    pub agents: i64,
    /// Policies.
    #[schema(minimum = 0)]
    pub policies: i64,
    /// Members.
    #[schema(minimum = 0)]
    pub members: i64,
    /// Humans' API keys.
    #[schema(minimum = 0)]
    pub api_keys: i64,
}

/// This month's use.
#[derive(ToSchema)]
pub struct Usage {
    /// The plan.
    pub billing_tier: Plan,
    /// Always `null`: there is none.
    #[schema(required = true)]
    pub free_tier_limit: Option<i64>,
    /// This month.
    pub current_month: MonthUsage,
    /// What there is.
    pub resources: Resources,
}

/// One count of one month.
#[derive(ToSchema)]
pub struct UsageEvent {
    /// Its id: month and kind.
    #[schema(examples("2026-11-01:requests"))]
    pub id: String,
    /// The month's first day.
    #[schema(format = "date", examples("2026-11-01"))]
    pub month: String,
    /// What was counted.
    pub event_type: UsageKind,
    /// How often.
    #[schema(minimum = 0)]
    pub count: i64,
    /// Always nothing.
    pub cost_usd: NoCost,
    /// When the month began.
    pub created_at: Time,
}

/// Use by month.
#[derive(ToSchema)]
pub struct UsageHistory {
    /// The newest first; ten years at most.
    pub events: Vec<UsageEvent>,
}

/// What counts towards the plan.
#[derive(ToSchema)]
pub struct SubscriptionUsage {
    /// Requests of this month.
    #[schema(minimum = 0)]
    pub requests: i64,
    /// Signatures of this month.
    #[schema(minimum = 0)]
    pub signatures: i64,
    /// What there is.
    pub resources: Resources,
}

/// The plan.
#[derive(ToSchema)]
pub struct Subscription {
    /// The plan.
    pub tier: Plan,
    /// Always `null`: it has none.
    #[schema(required = true)]
    pub interval: Option<String>,
    /// Always `null`: it has none.
    #[schema(required = true)]
    pub period_end: Option<Time>,
    /// Always active.
    pub status: PlanStatus,
    /// Always 0.
    pub credit_balance_cents: i64,
    /// The choice that was kept, if there was one.
    #[schema(required = true)]
    pub overage_method: Option<OverageMethodName>,
    /// What was used.
    pub usage: SubscriptionUsage,
    /// What there may be.
    pub limits: Limits,
}

/// Nothing.
#[derive(ToSchema)]
pub struct CreditBalance {
    /// Always 0.
    pub balance_cents: i64,
    /// Always 0.
    pub credit_balance_cents: i64,
    /// Of what there is nothing.
    pub currency: Currency,
    /// Always empty.
    #[schema(max_items = 0)]
    pub expiring: Vec<Anything>,
}

/// Nothing.
#[derive(ToSchema)]
pub struct CreditTransactionList {
    /// Always empty.
    #[schema(max_items = 0)]
    pub transactions: Vec<Anything>,
}

/// A choice that has no effect here. Either member says it.
#[derive(ToSchema)]
pub struct SetOverageMethod {
    /// The choice.
    pub method: Option<OverageMethodName>,
    /// The same, for clients that name it so.
    pub overage_method: Option<OverageMethodName>,
}

/// The choice that was kept.
#[derive(ToSchema)]
pub struct OverageMethod {
    /// The choice.
    pub method: OverageMethodName,
    /// The same.
    pub overage_method: OverageMethodName,
}

fn resources() -> Value {
    json!({"vaults": 3, "secrets": 41, "agents": 5, "policies": 9, "members": 4, "api_keys": 2})
}

/// This month's use.
#[must_use]
pub fn usage() -> Doc {
    let month = json!({
        "total_requests": 1204, "paid_requests": 0, "free_requests": 1204, "total_cost_usd": "0.00", "signatures": 87,
    });
    Doc::new(Tag::Billing, "getUsage", "This month's use").reply::<Usage>(
        200,
        "The use.",
        json!({"billing_tier": "self_hosted", "free_tier_limit": null, "current_month": month, "resources": resources()}),
    )
}

/// Use by month.
#[must_use]
pub fn history() -> Doc {
    let event = json!({
        "id": "2026-11-01:requests",
        "month": "2026-11-01",
        "event_type": "requests",
        "count": 1204,
        "cost_usd": "0.00",
        "created_at": "2026-11-01T00:00:00Z",
    });
    Doc::new(Tag::Billing, "getUsageHistory", "Use by month").reply::<UsageHistory>(
        200,
        "The use.",
        json!({"events": [event]}),
    )
}

/// The plan, of which there is one.
#[must_use]
pub fn subscription() -> Doc {
    Doc::new(Tag::Billing, "getSubscription", "The plan, of which there is one").reply::<Subscription>(
        200,
        "The plan.",
        json!({
            "tier": "self_hosted",
            "interval": null,
            "period_end": null,
            "status": "active",
            "credit_balance_cents": 0,
            "overage_method": "credits",
            "usage": {"requests": 1204, "signatures": 87, "resources": resources()},
            "limits": {"vaults": 100, "secrets": null, "agents": 50, "policies": null, "members": 20, "api_keys": null},
        }),
    )
}

/// Always nothing: there is nothing to pay.
#[must_use]
pub fn balance() -> Doc {
    Doc::new(Tag::Billing, "getCreditBalance", "Always nothing: there is nothing to pay").reply::<CreditBalance>(
        200,
        "Nothing.",
        json!({"balance_cents": 0, "credit_balance_cents": 0, "currency": "usd", "expiring": []}),
    )
}

/// Always none: there is nothing to pay.
#[must_use]
pub fn transactions() -> Doc {
    Doc::new(Tag::Billing, "listCreditTransactions", "Always none: there is nothing to pay")
        .reply::<CreditTransactionList>(200, "None.", json!({"transactions": []}))
}

fn overage(id: &'static str) -> Doc {
    Doc::new(Tag::Billing, id, "Keep a choice that has no effect here")
        .says("For owners.")
        .body::<SetOverageMethod>(json!({"method": "credits"}))
        .reply::<OverageMethod>(200, "The choice.", json!({"method": "credits", "overage_method": "credits"}))
}

/// Keep a choice that has no effect here.
#[must_use]
pub fn set_overage_method() -> Doc {
    overage("setOverageMethod")
}

/// As [`set_overage_method`], at the other path that clients know.
#[must_use]
pub fn set_credits_overage_method() -> Doc {
    overage("setCreditsOverageMethod")
}
