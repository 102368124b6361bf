//! Accounts, sign-ups, links and challenges in the database. Times are the database's.

mod accounts;
mod pending;

pub use accounts::{
    Account, Company, Erased, Locked, NewUser, Profile, account, company, email_is_taken, erase, insert, lock,
    lock_organisation, lock_proven, name_and_password, profile, rehash, set_password, update_profile,
};
pub use pending::{
    Challenge, Signup, challenge, put_challenge, put_reset, put_signup, reset_owner, take_challenge, take_reset,
    take_signup,
};
