//! Who may come in, and what that may do.

mod matrix;
mod policies;
mod tenants;
mod throttle;
mod tokens;
