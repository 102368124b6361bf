//! Who may come in, and what that may do.

mod ip_rules;
mod matrix;
mod policies;
pub mod tenants;
mod throttle;
mod tokens;
