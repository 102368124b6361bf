//! Policies: who may do what on which paths of a vault, under which conditions.

pub mod api;
pub mod http;
pub mod store;
