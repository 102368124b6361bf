//! What many operations share: formats of text, and problems.

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A text with a format or pattern, documented once and referred to.
macro_rules! text {
    ($(#[doc = $doc:literal])+ $name:ident = $example:literal $(, $key:ident: $value:expr)* $(,)?) => {
        $(#[doc = $doc])+
        pub struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some(concat!($($doc),+).trim()))
                    .examples([$example])
                    $(.$key(Some($value)))*
                    .build()
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

/// A text that is one of a few words.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident: $($word:literal)|+) => {
        $(#[doc = $doc])+
        pub struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some(concat!($($doc),+).trim()))
                    .enum_values(Some([$($word),+]))
                    .build()
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

#[allow(unused_imports, reason = "used from other features")]
pub(crate) use {text, words};

fn format(name: &str) -> SchemaFormat {
    SchemaFormat::Custom(name.to_owned())
}

text!(
    /// An id: a random UUID (RFC 9562).
    Id = "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01", format: format("uuid")
);
text!(
    /// A time (RFC 3339). Replies are in UTC.
    Time = "2026-11-21T12:00:00Z", format: format("date-time")
);
text!(
    /// An address on an EVM chain. In requests of any case (a checksum that is there must hold, EIP-55); in replies with its checksum.
    Address = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", pattern: "^0x[0-9a-fA-F]{40}$"
);
text!(
    /// An amount in whole units (of ETH, for instance), as a decimal text with at most 18 decimals. Never a number.
    Amount = "0.05", pattern: r"^[0-9]+(\.[0-9]{1,18})?$", max_length: 160
);
text!(
    /// An integer of the smallest unit (wei), in decimal digits.
    Wei = "50000000000000000", pattern: "^[0-9]+$", max_length: 78
);
text!(
    /// An integer that may be negative, in decimal digits.
    SignedInteger = "-50000000000000000", pattern: "^-?[0-9]+$"
);
text!(
    /// 32 bytes in hex, such as the hash of a transaction or block.
    Hash = "0x2f0b1c9a5a4f3a7d8e6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706", pattern: "^0x[0-9a-f]{64}$"
);
text!(
    /// Bytes in hex.
    HexBytes = "0xa9059cbb", pattern: "^0x([0-9a-fA-F]{2})*$"
);
text!(
    /// A SHA-256 in 64 hex digits.
    Fingerprint = "abababababababababababababababababababababababababababababababab", pattern: "^[0-9a-f]{64}$"
);
text!(
    /// An email address.
    Email = "ada@example.com", format: format("email"), max_length: 320
);
text!(
    /// An email address. Case and space around it do not matter.
    GivenEmail = "ada@example.com", pattern: "^[^@]+@[^@]+$", max_length: 320
);
text!(
    /// The path of a secret: letters, digits, `-` and `_` in segments that `/` separates, beginning and ending with a letter or digit.
    SecretPath = "prod/db/password", pattern: PATH_PATTERN, max_length: 1024
);
text!(
    /// Which paths: a glob by whole segments. `*` is one segment, `**` any number of them, also none.
    PathPattern = "prod/**", pattern: r"^(\*\*?|[A-Za-z0-9_-]+)(/(\*\*?|[A-Za-z0-9_-]+))*$", max_length: 1024
);
text!(
    /// Whose: `user:` or `agent:` and an id.
    ActorRef = "user:8f14e45f-ceea-467f-a83c-3b1a5f9e6d01",
    pattern: "^(user|agent):[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
);
text!(
    /// A token, to be sent as `Authorization: Bearer`. A JWT, signed with Ed25519 (RFC 8037) in the HSM.
    AccessToken = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZ2VudDo4ZjE0ZTQ1ZiJ9.c2lnbmF0dXJl"
);
text!(
    /// A name: 1 to 255 characters, no control characters.
    Name = "production", min_length: 1, max_length: 255
);
text!(
    /// A description: up to 4096 characters.
    Description = "What it is for", max_length: 4096
);
text!(
    /// Where a page ends: to be sent as `cursor` for the next one, and not to be read.
    Cursor = "MTc2MzcyNjQwMDAwMDAwMDAwMC84ZjE0ZTQ1Zg"
);
words!(
    /// Who.
    ActorType: "user" | "agent"
);
words!(
    /// The scheme under which a token is sent.
    TokenType: "Bearer"
);

/// What a path's letters may be.
pub(super) const PATH_PATTERN: &str = "^[A-Za-z0-9](?:(?:/?[A-Za-z0-9_-])*/?[A-Za-z0-9])?$";

/// An object whose members are the client's own.
pub struct JsonObject;

impl PartialSchema for JsonObject {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("An object whose members are the client's own."))
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)))
            .build()
            .into()
    }
}

impl ToSchema for JsonObject {}

/// Any JSON value.
pub struct Anything;

impl PartialSchema for Anything {
    fn schema() -> RefOr<Schema> {
        utoipa::openapi::schema::empty().into()
    }
}

impl ToSchema for Anything {}

words!(
    /// `about:blank`, where the status says it all, or a type that clients can act on: `resource_limit_exceeded` (there are as many as
    /// there may be), `approval_required` (a human has to agree first), `idempotency_mismatch` (this `Idempotency-Key` was sent with
    /// another request), `key_held_in_hsm` (a signing key, which no request reads back).
    ProblemType:
        "about:blank" | "resource_limit_exceeded" | "approval_required" | "idempotency_mismatch" | "key_held_in_hsm"
);

/// Why a request was not done (RFC 7807).
#[derive(ToSchema)]
pub struct Problem {
    /// What kind of problem.
    pub r#type: ProblemType,
    /// The status' own phrase.
    #[schema(examples("Forbidden"))]
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What was wrong with this request, and what to do about it. For people.
    #[schema(examples("name is required"))]
    pub detail: String,
}
