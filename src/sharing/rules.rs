//! What may be asked of a share, and when one opens. Pure.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Share;
use crate::access::input::InputError;
use crate::access::policy::{Circumstances, Conditions, NETWORKS_MAX};
use crate::agents::request::time_of;
use crate::ids::{AgentId, UserId};

/// The longest that a share may last.
pub const LIFE_MAX: Duration = Duration::days(366);
/// Longest passphrase, in bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 1_024;

/// For whom a share is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// A human of the organisation.
    User(UserId),
    /// An agent of the organisation.
    Agent(AgentId),
    /// The human who registered the agent that shares.
    Creator,
    /// Whoever reads the mail of this address.
    Email(String),
    /// Whoever has the link.
    AnyoneWithLink,
}

impl Addressee {
    /// As the API and the table write it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Agent(_) => "agent",
            Self::Creator => "creator",
            Self::Email(_) => "external_email",
            Self::AnyoneWithLink => "anyone_with_link",
        }
    }
}

/// A share as it is to be made.
pub struct NewShare {
    /// For whom.
    pub addressee: Addressee,
    /// How often it may be opened; `None`: as often as one likes.
    pub max_access_count: Option<i32>,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// What opens it beside the link.
    pub passphrase: Option<Zeroizing<String>>,
    /// From where it may be opened; empty: from anywhere.
    pub ip_allowlist: Vec<String>,
}

/// The body of a request. The passphrase is a [`Value`], so that an error about its type does not repeat it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ShareRequest {
    recipient_type: Option<String>,
    recipient_id: Option<String>,
    email: Option<String>,
    permissions: Option<Vec<String>>,
    max_access_count: Option<i64>,
    expires_at: Option<String>,
    passphrase: Option<Value>,
    ip_allowlist: Option<Vec<String>>,
}

impl ShareRequest {
    /// Checks all of it.
    ///
    /// # Errors
    /// [`InputError`], with the mend.
    pub fn share(self, now: OffsetDateTime) -> Result<NewShare, InputError> {
        let addressee = addressee(self.recipient_type.as_deref(), self.recipient_id, self.email)?;
        if self.permissions.is_some_and(|given| given.is_empty() || given.iter().any(|p| p != "read")) {
            return Err(InputError("permissions: a share can only be read, [\"read\"]".to_owned()));
        }
        let max_access_count = match self.max_access_count {
            None | Some(0) => None,
            Some(count) => Some(
                i32::try_from(count)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or_else(|| InputError("max_access_count must be a whole number, 0 for no limit".to_owned()))?,
            ),
        };
        let expires_at = self.expires_at.ok_or_else(|| InputError("expires_at is required".to_owned()))?;
        let expires_at = time_of("expires_at", &expires_at)?;
        if expires_at <= now || expires_at - now > LIFE_MAX {
            let days = LIFE_MAX.whole_days();
            return Err(InputError(format!("expires_at must lie in the future, by {days} days at most")));
        }
        let ip_allowlist = self.ip_allowlist.unwrap_or_default();
        if !ip_allowlist.is_empty() {
            conditions(&ip_allowlist).ok_or_else(|| {
                InputError(format!(
                    "ip_allowlist must be a list of at most {NETWORKS_MAX} networks such as \"10.0.0.0/8\" or single addresses"
                ))
            })?;
        }
        Ok(NewShare { addressee, max_access_count, expires_at, passphrase: passphrase(self.passphrase)?, ip_allowlist })
    }
}

/// What names a recipient must agree with the kind of recipient: who gives an id means that person and nobody else.
fn addressee(kind: Option<&str>, id: Option<String>, email: Option<String>) -> Result<Addressee, InputError> {
    let id = id.filter(|id| !id.is_empty());
    let email = email.filter(|email| !email.trim().is_empty());
    let uuid = || -> Result<Uuid, InputError> {
        let text =
            id.as_deref().ok_or_else(|| InputError("recipient_id is required for this recipient_type".to_owned()))?;
        text.parse().map_err(|_| InputError("recipient_id must be the id (UUID) of a user or an agent".to_owned()))
    };
    let addressee = match kind {
        Some("user") => Addressee::User(UserId(uuid()?)),
        Some("agent") => Addressee::Agent(AgentId(uuid()?)),
        Some("creator") => Addressee::Creator,
        Some("external_email") => {
            let text = email.as_deref().ok_or_else(|| InputError("email is required for external_email".to_owned()))?;
            Addressee::Email(address(text)?)
        }
        Some("anyone_with_link") => Addressee::AnyoneWithLink,
        _ => {
            return Err(InputError(
                "recipient_type must be user, agent, creator, external_email or anyone_with_link".to_owned(),
            ));
        }
    };
    match addressee {
        Addressee::Creator | Addressee::Email(_) | Addressee::AnyoneWithLink if id.is_some() => {
            Err(InputError("recipient_id is for the recipient_types user and agent".to_owned()))
        }
        Addressee::AnyoneWithLink | Addressee::Creator if email.is_some() => {
            Err(InputError("email is for the recipient_type external_email".to_owned()))
        }
        addressee => Ok(addressee),
    }
}

/// An address that mail can be sent to, in lower case.
fn address(text: &str) -> Result<String, InputError> {
    let email = text.trim().to_lowercase();
    let parts =
        email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ',' | ';' | '"');
    if !parts || email.len() > 254 || email.chars().any(odd) {
        return Err(InputError("email must be an email address".to_owned()));
    }
    Ok(email)
}

fn passphrase(value: Option<Value>) -> Result<Option<Zeroizing<String>>, InputError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let text = Zeroizing::new(text);
            if text.is_empty() || text.len() > PASSPHRASE_BYTES_MAX {
                return Err(InputError(format!("passphrase must have 1 to {PASSPHRASE_BYTES_MAX} bytes")));
            }
            Ok(Some(text))
        }
        Some(_) => Err(InputError("passphrase must be a string".to_owned())),
    }
}

/// The networks, as a policy's condition. `None`: they are not understood.
fn conditions(ip_allowlist: &[String]) -> Option<Conditions> {
    Conditions::parse(&json!({ "ip_allowlist": ip_allowlist })).ok()
}

/// Why a share does not open, for whoever may open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Its time is over (410).
    #[error("the share has expired")]
    Expired,
    /// Opened as often as it may be (410).
    #[error("the share was opened as often as its max_access_count allows")]
    Exhausted,
}

/// Whether it has come to its end.
///
/// # Errors
/// [`Closed`].
pub fn check_open(share: &Share, now: OffsetDateTime) -> Result<(), Closed> {
    if now >= share.expires_at {
        return Err(Closed::Expired);
    }
    if share.max_access_count.is_some_and(|max| share.access_count >= max) {
        return Err(Closed::Exhausted);
    }
    Ok(())
}

/// Whether it may be opened from there. A list that this binary does not understand lets nobody in.
#[must_use]
pub fn admits(share: &Share, ip: Option<IpAddr>, now: OffsetDateTime) -> bool {
    share.ip_allowlist.is_empty()
        || conditions(&share.ip_allowlist).is_some_and(|conditions| conditions.hold(&Circumstances { now, ip }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    fn read(body: Value) -> Result<NewShare, InputError> {
        serde_json::from_value::<ShareRequest>(body).unwrap().share(NOW)
    }

    fn with(name: &str, value: Value) -> Value {
        let mut body = json!({"recipient_type": "anyone_with_link", "expires_at": "2026-11-22T12:00:00Z"});
        body[name] = value;
        body
    }

    #[test]
    fn what_clients_send_is_taken() {
        let id = "7d444840-9dc0-41d1-b245-5ffdce74fad2";
        let nulls = json!({"recipient_type": "anyone_with_link", "expires_at": "2026-11-22T12:00:00+02:00", "recipient_id": null,
            "email": "", "permissions": null, "max_access_count": null, "passphrase": null, "ip_allowlist": [], "note": 1});
        let share = read(nulls).unwrap();
        assert_eq!(
            (share.addressee, share.max_access_count, share.passphrase.is_none()),
            (Addressee::AnyoneWithLink, None, true)
        );
        assert_eq!(share.expires_at, datetime!(2026-11-22 10:00 UTC));
        for (kind, member, value, expected) in [
            ("user", "recipient_id", id, Addressee::User(UserId(id.parse().unwrap()))),
            ("agent", "recipient_id", id, Addressee::Agent(AgentId(id.parse().unwrap()))),
            ("creator", "email", "", Addressee::Creator),
            ("external_email", "email", " A@Example.COM ", Addressee::Email("a@example.com".to_owned())),
        ] {
            let mut body = with(member, json!(value));
            body["recipient_type"] = json!(kind);
            assert_eq!(read(body).unwrap().addressee, expected);
        }
        assert_eq!(read(with("max_access_count", json!(5))).unwrap().max_access_count, Some(5));
        assert!(read(with("permissions", json!(["read"]))).is_ok());
    }

    #[test]
    fn what_would_mean_something_else_is_refused() {
        let id = "7d444840-9dc0-41d1-b245-5ffdce74fad2";
        let cases = [
            with("recipient_type", json!(null)),
            with("recipient_type", json!("User")),
            with("recipient_type", json!("user")),
            with("recipient_type", json!("external_email")),
            with("recipient_id", json!(id)),
            with("email", json!("a@b")),
            with("permissions", json!([])),
            with("permissions", json!(["read", "write"])),
            with("max_access_count", json!(-1)),
            with("max_access_count", json!(3_000_000_000_i64)),
            with("expires_at", json!(null)),
            with("expires_at", json!("2026-11-21T12:00:00Z")),
            with("expires_at", json!("2027-11-23T12:00:00Z")),
            with("expires_at", json!("tomorrow")),
            with("passphrase", json!("")),
            with("passphrase", json!(1)),
            with("passphrase", json!("x".repeat(PASSPHRASE_BYTES_MAX + 1))),
            with("ip_allowlist", json!(["everywhere"])),
            with("ip_allowlist", json!(vec!["10.0.0.1"; NETWORKS_MAX + 1])),
        ];
        for body in cases {
            let shown = body.to_string();
            assert!(read(body).is_err(), "{shown}");
        }
        for email in [
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a@b c",
            "a@b\r\nBcc: x@y",
            "<a@b>",
            "a@b,c@d",
            &format!("{}@b", "a".repeat(254)),
        ] {
            assert!(address(email).is_err(), "{email:?}");
        }
    }
}
