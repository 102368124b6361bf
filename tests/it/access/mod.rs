//! Who may come in, and what that may do.

mod policies;
pub mod tenants;
mod throttle;
mod tokens;
