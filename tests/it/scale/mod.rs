//! More than one machine: a primary with a standby, a pooler in between, and more load than there is room for.

mod failover;
mod overload;
mod pooler;
