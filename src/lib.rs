//! intentd: an Ethereum intents signing daemon whose keys stay in a PKCS#11 HSM.
//!
//! ARCHITECTURE.md is the map. `intents::submit` is the whole pipeline on one screen.

pub mod address;
pub mod chain;
pub mod clock;
pub mod config;
pub mod db;
pub mod hsm;
pub mod ids;
pub mod money;
pub mod simulate;
