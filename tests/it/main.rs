//! The integration tests: one binary, a folder per feature, nextest runs each test in its own process.
#![allow(missing_docs, clippy::unwrap_used)]

mod access;
mod agents;
mod arbitrary;
mod architecture;
mod audit;
mod chain;
mod chaos;
mod clients;
mod contract;
mod daemon;
mod freezes;
mod harness;
mod hsm;
mod hsm_faults;
mod intents;
mod keks;
mod newcomer;
mod orgs;
mod platform;
mod scale;
mod sharing;
mod simulate;
mod users;
mod vaults;
mod webhooks;
