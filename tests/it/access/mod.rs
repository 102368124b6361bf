//! Who may come in, and what that may do.

mod policies;
mod tenants;
mod throttle;
mod tokens;
