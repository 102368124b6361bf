//! The daemon as a process: its start, its end, its limits, what it lets out, and what it does when something below it is gone.

mod dependencies;
mod hashes;
pub mod leaks;
mod lifecycle;
mod limits;
mod start;
