//! What documents the routes of the installation's settings.

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::http::api::schemas::words;
use crate::http::api::{Doc, Tag};

words!(
    /// Yes or no, as a text.
    Flag: "true" | "false"
);
words!(
    /// A setting's name.
    SettingName: "intents_api.require_simulation"
);

/// A flag, or a text of one.
pub struct GivenFlag;

impl utoipa::PartialSchema for GivenFlag {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["true", "false"]));
        OneOfBuilder::new().item(ObjectBuilder::new().schema_type(Type::Boolean)).item(text).into()
    }
}

impl ToSchema for GivenFlag {}

/// The settings by name.
#[derive(ToSchema)]
pub struct SettingValues {
    /// Every intent of every organisation is simulated before it is signed.
    #[serde(rename = "intents_api.require_simulation")]
    pub require_simulation: Flag,
}

/// The installation's settings.
#[derive(ToSchema)]
pub struct PlatformSettings {
    /// All of them.
    pub settings: SettingValues,
}

/// Settings by name.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GivenSettings {
    /// Every intent of every organisation is simulated before it is signed.
    #[serde(rename = "intents_api.require_simulation")]
    #[schema(required = false)]
    pub require_simulation: GivenFlag,
}

/// What is to be changed, in one of three spellings: `{"settings": {name: value}}`, `{name: value}`, or
/// `{"key": name, "value": value}`.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePlatformSettings {
    /// Settings by name.
    #[schema(required = false)]
    pub settings: GivenSettings,
    /// A setting's name, with `value`.
    #[schema(required = false)]
    pub key: SettingName,
    /// Its value, with `key`.
    #[schema(required = false)]
    pub value: GivenFlag,
    /// A setting by its name.
    #[serde(rename = "intents_api.require_simulation")]
    #[schema(required = false)]
    pub require_simulation: GivenFlag,
}

/// Look at the installation's settings.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Platform, "getPlatformSettings", "Look at the installation's settings").reply::<PlatformSettings>(
        200,
        "The settings.",
        json!({"settings": {"intents_api.require_simulation": "false"}}),
    )
}

/// Change the installation's settings.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Platform, "setPlatformSettings", "Change the installation's settings")
        .optional_body::<ChangePlatformSettings>(json!({"settings": {"intents_api.require_simulation": "true"}}))
        .reply::<PlatformSettings>(
            200,
            "The settings.",
            json!({"settings": {"intents_api.require_simulation": "true"}}),
        )
}
