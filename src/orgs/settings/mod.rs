//! What an organisation has set for itself.

pub mod api;
pub mod http;
pub mod rules;
pub mod store;

pub use store::Settings;
