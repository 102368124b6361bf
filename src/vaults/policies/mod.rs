//! Policies: who may do what on which paths of a vault, under which conditions.

pub mod http;
pub mod store;
