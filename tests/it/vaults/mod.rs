//! Vaults, secrets and signing keys over HTTP.

mod keys;
mod secrets;
