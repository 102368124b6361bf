//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// By what the organisation's intents are simulated.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Simulation, "getSimulationSettings", "By what the organisation's intents are simulated")
}

/// Choose what the organisation's intents are simulated by.
#[must_use]
pub fn put() -> Doc {
    Doc::new(Tag::Simulation, "setSimulationSettings", "Choose what the organisation's intents are simulated by")
}

/// Go back to the daemon's own choice.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Simulation, "resetSimulationSettings", "Go back to the daemon's own choice")
}
