//! What clients send.

use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::access::input;
use crate::agents::request::time_of;
use crate::http::problem::Problem;
use crate::vaults::secrets::NewSecret;
use crate::vaults::secrets::generate::{Charset, LENGTH};
use crate::vaults::secrets::rules::{METADATA_BYTES_MAX, ROTATION_POLICY_BYTES_MAX, SecretType, fits};
use crate::vaults::secrets::versions::Rotation;

/// Of a random value, unless the request says otherwise.
const LENGTH_DEFAULT: usize = 32;

/// `value` is a [`Value`], so that an error about its type does not repeat it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct PutSecret {
    value: Option<Value>,
    r#type: Option<String>,
    metadata: Option<Value>,
    rotation_policy: Option<Value>,
    expires_at: Option<String>,
    max_access_count: Option<i64>,
}

impl PutSecret {
    /// The secret.
    ///
    /// # Errors
    /// 400.
    pub fn secret(self) -> Result<NewSecret, Problem> {
        let Some(Value::String(value)) = self.value else {
            return Err(Problem::bad_request("value is required and must be a string"));
        };
        let value = Zeroizing::new(value);
        let max_access_count = match self.max_access_count {
            None | Some(0) => None,
            Some(count) => Some(
                i32::try_from(count)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or_else(|| Problem::bad_request("max_access_count must be a whole number, 0 for no limit"))?,
            ),
        };
        let rotation_policy = object("rotation_policy", self.rotation_policy, ROTATION_POLICY_BYTES_MAX)?;
        Ok(NewSecret {
            kind: kind(self.r#type.as_deref().unwrap_or("generic"))?,
            value,
            metadata: object("metadata", self.metadata, METADATA_BYTES_MAX)?.unwrap_or_else(|| json!({})),
            rotation_policy,
            expires_at: ends(self.expires_at)?,
            max_access_count,
        })
    }
}

fn kind(text: &str) -> Result<SecretType, Problem> {
    SecretType::parse(text).ok_or_else(|| {
        Problem::bad_request(
            "type must be generic, api_key, password, private_key, certificate, file, note, ssh_key, env_bundle or env",
        )
    })
}

fn ends(at: Option<String>) -> Result<Option<OffsetDateTime>, Problem> {
    Ok(at.map(|at| time_of("expires_at", &at)).transpose()?)
}

fn object(field: &str, value: Option<Value>, bytes_max: usize) -> Result<Option<Value>, Problem> {
    let object = input::object(field, value)?;
    if object.as_ref().is_some_and(|object| !fits(object, bytes_max)) {
        return Err(Problem::bad_request(format!("{field} must have at most {bytes_max} bytes of JSON")));
    }
    Ok(object)
}

/// How a random value is to be made.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct RotateSecret {
    length: Option<u64>,
    charset: Option<String>,
    r#type: Option<String>,
    expires_at: Option<String>,
}

impl RotateSecret {
    /// The rotation.
    ///
    /// # Errors
    /// 400.
    pub fn rotation(self) -> Result<Rotation, Problem> {
        let length = match self.length {
            None => LENGTH_DEFAULT,
            Some(length) => usize::try_from(length).ok().filter(|length| LENGTH.contains(length)).ok_or_else(|| {
                Problem::bad_request(format!("length must be {} to {} characters", LENGTH.start(), LENGTH.end()))
            })?,
        };
        let charset = self.charset.as_deref().unwrap_or("alphanumeric");
        Ok(Rotation {
            charset: Charset::parse(charset)
                .ok_or_else(|| Problem::bad_request("charset must be hex, base64, alphanumeric or ascii"))?,
            length,
            kind: self.r#type.as_deref().map(kind).transpose()?,
            expires_at: ends(self.expires_at)?,
        })
    }
}

/// How a deletion is to be undone.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct RestoreSecret {
    /// Whether the signing key is to sign again.
    pub reactivate_signing_key: Option<bool>,
}
