//! The integration tests: one binary, a folder per feature, nextest runs each test in its own process.
#![allow(missing_docs, clippy::unwrap_used)]

mod access;
mod agents;
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
mod openapi;
mod orgs;
mod platform;
mod sharing;
mod simulate;
mod telemetry;
mod users;
mod vaults;
mod webhooks;
