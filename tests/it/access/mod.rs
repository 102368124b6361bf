//! Who may come in, and what that may do.

mod assertions;
mod ceilings;
mod certificates;
mod forgeries;
mod origin;
mod policies;
mod tenants;
mod throttle;
mod tokens;
