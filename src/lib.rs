//! intentd: an Ethereum intents signing daemon whose keys stay in a PKCS#11 HSM.
//!
//! ARCHITECTURE.md is the map. `intents::submit` is the whole pipeline on one screen.

pub mod access;
pub mod address;
pub mod admin;
pub mod agents;
pub mod app;
pub mod audit;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contracts;
pub mod db;
pub mod dev;
pub mod freezes;
pub mod harden;
pub mod hsm;
pub mod http;
pub mod ids;
pub mod intents;
pub mod keks;
pub mod mail;
pub mod metering;
pub mod money;
pub mod net;
pub mod orgs;
pub mod outbound;
pub mod platform;
pub mod serve;
pub mod sharing;
pub mod simulate;
pub mod telemetry;
pub mod users;
pub mod vaults;
pub mod webhooks;
