//! Vaults, secrets and signing keys over HTTP.

mod cmek;
mod cmek_rotation;
mod hostile;
mod keys;
mod leaks;
mod lists;
mod provisioned;
mod restore;
mod secrets;
mod tamper;
mod tenants;
mod values;
mod versions;

use crate::harness::stack::{Options, Stack};

/// No chain: nothing here is sent to one.
async fn stack(daemons: usize, env: &[(&str, &str)]) -> Stack {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Stack::with(Options { chains: vec![], daemons, env, ..Options::default() }).await
}

/// What is sent under a path: `secrets`, `secret-version`, ….
fn at(vault: &str, route: &str, path: &str) -> String {
    format!("/v1/vaults/{vault}/{route}/{path}")
}
