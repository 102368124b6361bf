//! Real things to test against, each ended when its value is dropped.
#![allow(dead_code, reason = "a tool box: not every tool is in use at all times")]

pub mod anvil;
pub mod client;
pub mod contracts;
pub mod daemon;
pub mod freeze;
pub mod hsm;
pub mod install;
pub mod issuer;
pub mod people;
pub mod pg_proxy;
pub mod receiver;
pub mod rpc_proxy;
pub mod shim;
pub mod simulator;
pub mod smtp;
pub mod stack;
pub mod tls;
pub mod truth;
