//! Who may come in, and what that may do.

mod assertions;
mod bodies;
mod ceilings;
mod certificates;
mod costs;
mod forgeries;
mod ip_rules;
mod matrix;
mod origin;
mod policies;
pub mod tenants;
mod throttle;
mod tokens;
