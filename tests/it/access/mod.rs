//! Who may come in, and what that may do.

mod ip_rules;
mod policies;
mod tenants;
mod throttle;
mod tokens;
