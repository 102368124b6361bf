//! Time. Rules take it as an argument; this is the one place that reads the machine's clock.
//!
//! Spending windows and leases do not use it: they go by the database's clock, which all daemons share.

use time::OffsetDateTime;

/// The wall clock, in UTC, to the microsecond: what is answered is then what Postgres keeps.
#[must_use]
pub fn now() -> OffsetDateTime {
    to_microsecond(OffsetDateTime::now_utc())
}

/// A time without what Postgres would drop of it.
#[must_use]
pub fn to_microsecond(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(at.microsecond() * 1_000).unwrap_or(at)
}

/// RFC 3339 in UTC, as every time in the API is written.
#[must_use]
pub fn rfc3339(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC).format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
