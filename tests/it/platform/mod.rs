//! The installation: chains that come and go while daemons run, and settings that bind every organisation.

mod chains;
mod settings;
