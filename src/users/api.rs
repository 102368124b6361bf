//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Ask for an account.
#[must_use]
pub fn sign_up() -> Doc {
    Doc::new(Tag::Account, "signUp", "Ask for an account").public()
}

/// Prove an email address.
#[must_use]
pub fn verify_email() -> Doc {
    Doc::new(Tag::Account, "verifyEmail", "Prove an email address").public()
}

/// Log in with a password.
#[must_use]
pub fn log_in() -> Doc {
    Doc::new(Tag::Account, "logIn", "Log in with a password").public()
}

/// Always refused: there is no sign-in with Google.
#[must_use]
pub fn google() -> Doc {
    Doc::new(Tag::Account, "logInWithGoogle", "Always refused: there is no sign-in with Google").public()
}

/// Ask for a letter to choose a new password.
#[must_use]
pub fn forgot_password() -> Doc {
    Doc::new(Tag::Account, "forgotPassword", "Ask for a letter to choose a new password").public()
}

/// Choose a new password.
#[must_use]
pub fn reset_password() -> Doc {
    Doc::new(Tag::Account, "resetPassword", "Choose a new password").public()
}

/// Change the password.
#[must_use]
pub fn change_password() -> Doc {
    Doc::new(Tag::Account, "changePassword", "Change the password")
}

/// Look at the own account.
#[must_use]
pub fn me() -> Doc {
    Doc::new(Tag::Account, "getMe", "Look at the own account")
}

/// Change the own account.
#[must_use]
pub fn change_me() -> Doc {
    Doc::new(Tag::Account, "changeMe", "Change the own account")
}

/// Erase the own account.
#[must_use]
pub fn delete_me() -> Doc {
    Doc::new(Tag::Account, "deleteMe", "Erase the own account")
}
