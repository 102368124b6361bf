//! The HTTP edge: routes, problem details, extractors, rate limits. No SQL and no rules.

pub mod api;
pub mod connections;
pub mod cors;
pub mod extract;
pub mod health;
pub mod leftover;
pub mod limits;
pub mod listen;
pub mod observe;
pub mod pages;
pub mod problem;
pub mod proxies;
pub mod router;
pub mod routes;
pub mod tls;
