//! A PKCS#11 2.40 module that forwards every call to a real one and misbehaves on demand.
//!
//! What it does wrong is written in a *control file* ([`faults`] has the language), what it saw in a *trace file*
//! ([`trace`]); [`place`] says where both lie. Without a control file it is transparent.
//!
//! Every function is one line of the table in [`table`]: its arguments, and the hook, if any, that knows how to
//! misbehave in a way of its own ([`twists`], [`attributes`]). What all functions share — answer an error instead of asking the
//! module, lose the module's answer, hang, abort — is done once, in [`call`].
//!
//! Test-only: `unsafe` is at home here and nowhere else in the workspace.
#![allow(unsafe_code, non_snake_case)]

mod args;
mod attributes;
mod call;
mod faults;
mod handles;
mod place;
mod table;
mod trace;
mod twists;
