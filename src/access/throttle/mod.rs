//! Limits that hold across daemons: so many in so long, kept in Postgres. For what is rare and worth guarding (guessing at
//! passwords, codes and passphrases; mail to others; new shares). Ordinary traffic is limited per daemon, see `http::limits`.

pub mod store;

use std::time::Duration;

use sha2::{Digest, Sha256};

pub use store::{give_back, take};

/// What is limited, by the bytes that it is limited by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// Failed logins, by email address: before a password is looked at.
    Login,
    /// Codes of a second factor, by human.
    SecondFactor,
    /// Mail that anybody can have sent (sign-up, forgotten password), by email address.
    Mail,
    /// Enrolments of agents, by email address of the human.
    Enroll,
    /// User codes of the device flow that are asked for, by email address.
    DeviceCode,
    /// Guesses at a user code of the device flow, by human.
    DeviceApproval,
    /// Invitations of an email address, by that address.
    Invitation,
    /// New shares, by organisation.
    Share,
    /// Passphrases of a share, by share.
    SharePassphrase,
    /// Denials by guardrails, by agent: how many more than these freeze it.
    Denials(u16),
}

impl Throttle {
    /// How it is named in the table, how many, and in how long.
    #[must_use]
    pub fn rule(self) -> (&'static str, u16, Duration) {
        const MINUTE: u64 = 60;
        let (name, most, seconds) = match self {
            Self::Login => ("login", 10, 10 * MINUTE),
            Self::SecondFactor => ("second_factor", 5, 5 * MINUTE),
            Self::Mail => ("mail", 3, 10 * MINUTE),
            Self::Enroll => ("enroll", 1, 10 * MINUTE),
            Self::DeviceCode => ("device_code", 3, 10 * MINUTE),
            Self::DeviceApproval => ("device_approval", 10, 10 * MINUTE),
            Self::Invitation => ("invitation", 3, 10 * MINUTE),
            Self::Share => ("share", 10, MINUTE),
            Self::SharePassphrase => ("share_passphrase", 10, 10 * MINUTE),
            Self::Denials(most) => ("denials", most, 60 * MINUTE),
        };
        (name, most, Duration::from_secs(seconds))
    }
}

/// What a limit is kept by: never the text itself.
#[must_use]
pub fn key(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
