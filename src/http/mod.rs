//! The HTTP edge: routes, problem details, extractors, rate limits. No SQL and no rules.

pub mod extract;
pub mod health;
pub mod limits;
pub mod problem;
pub mod router;
pub mod routes;
