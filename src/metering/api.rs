//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// This month's use.
#[must_use]
pub fn usage() -> Doc {
    Doc::new(Tag::Billing, "getUsage", "This month's use")
}

/// Use by month.
#[must_use]
pub fn history() -> Doc {
    Doc::new(Tag::Billing, "getUsageHistory", "Use by month")
}

/// The plan, of which there is one.
#[must_use]
pub fn subscription() -> Doc {
    Doc::new(Tag::Billing, "getSubscription", "The plan, of which there is one")
}

/// Always nothing: there is nothing to pay.
#[must_use]
pub fn balance() -> Doc {
    Doc::new(Tag::Billing, "getCreditBalance", "Always nothing: there is nothing to pay")
}

/// Always none: there is nothing to pay.
#[must_use]
pub fn transactions() -> Doc {
    Doc::new(Tag::Billing, "listCreditTransactions", "Always none: there is nothing to pay")
}

/// Keep a choice that has no effect here.
#[must_use]
pub fn set_overage_method() -> Doc {
    Doc::new(Tag::Billing, "setOverageMethod", "Keep a choice that has no effect here")
}

/// As [`set_overage_method`].
#[must_use]
pub fn set_credits_overage_method() -> Doc {
    Doc::new(Tag::Billing, "setCreditsOverageMethod", "Keep a choice that has no effect here")
}
