//! The installation's settings: texts by name, as clients send them.

pub mod api;
pub mod http;
pub mod store;

/// A setting that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Every intent of every organisation is simulated before it is signed. An organisation may want the same for itself, not less.
    RequireSimulation,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::RequireSimulation];

    /// Its name.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::RequireSimulation => "intents_api.require_simulation",
        }
    }

    /// What it is where nobody has set it.
    #[must_use]
    pub fn default_value(self) -> &'static str {
        match self {
            Self::RequireSimulation => "false",
        }
    }

    /// The value as it is kept, if it is one.
    #[must_use]
    pub fn parse(self, text: &str) -> Option<&'static str> {
        match self {
            Self::RequireSimulation => ["true", "false"].into_iter().find(|value| *value == text),
        }
    }
}
