//! The HSM against a real SoftHSM2. The numbered invariants are those of the notes on PKCS#11 that ARCHITECTURE.md sums up.
//! What needs a module that misbehaves is tested with the fault shim.

mod cache;
mod envelope;
mod import;
mod integrity;
mod keks;
mod keys;
mod operator;
mod oracle;
mod raw;
mod sessions;
