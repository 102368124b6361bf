//! One document of all operations.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::schemas::{PATH_PATTERN, Problem};
use super::{Doc, Tag};
use crate::http::routes::Route;

const DESCRIPTION: &str = "\
Agents ask for transactions; humans say what they may do; keys stay in an HSM.

**Credentials.** `Authorization: Bearer` with a token, or with an API key itself (`ocv_…` an agent's, `1ck_…` a human's). Tokens come \
from `POST /v1/auth/agent-token`, `POST /v1/auth/api-key-token` and `POST /v1/auth/token`.

**Bodies** are JSON whatever the `Content-Type` says, of 5 MiB at most (128 KiB without a credential). An empty body is `{}`. Members \
that are not known are ignored, unless they would change what is done: then they are refused. An explicit `null` is a member that is \
not there, unless its description says otherwise. Amounts are decimal texts, never numbers.

**Replies** have no envelope; lists are objects with one list in them. Members that are not set are left out.

**Problems** are `application/problem+json` (RFC 7807), with a `detail` that says what was wrong and what to do. 403 and 422 are \
refusals. 503 is \"could not check\", with `Retry-After`: nothing was signed or reserved, unless the detail says that the outcome is not \
known; then ask again with the same `Idempotency-Key`. What another organisation has is 404.";

/// The statuses of problems: the component's name, and what it means where an operation does not say.
const PROBLEMS: &[(u16, &str, &str, &str)] = &[
    (400, "BadRequest", "The request cannot be read. The detail names the field and the mend.", "name is required"),
    (
        401,
        "Unauthorized",
        "Credentials are missing, or are not valid: unknown, expired, revoked or deactivated.",
        "the credentials are not valid: unknown, expired, revoked or deactivated",
    ),
    (403, "Forbidden", "Refused by a rule, and written down.", "Insufficient permissions"),
    (404, "NotFound", "There is no such thing in the caller's organisation.", "no such vault"),
    (
        408,
        "RequestTimeout",
        "The body did not come in time.",
        "the body did not come in time: send it again, all at once",
    ),
    (409, "Conflict", "It contradicts what there is.", "there is a vault of this name already"),
    (410, "Gone", "It was there, and has ended.", "the secret has expired"),
    (413, "PayloadTooLarge", "The body is larger than it may be.", "the body is larger than 5120 KiB"),
    (422, "Unprocessable", "Understood, and impossible. Nothing was done.", "value: exceeds the balance"),
    (
        429,
        "TooManyRequests",
        "Too many requests. `Retry-After` says when to ask again.",
        "too many requests by this principal: try again in 1 s",
    ),
    (500, "InternalError", "A fault of the daemon.", "an internal error; the daemon's log has the cause"),
    (501, "NotImplemented", "This installation does not have it.", "signing in with Google is not configured"),
    (
        503,
        "Unavailable",
        "It could not be checked. `Retry-After` says when to ask again.",
        "the database is not available",
    ),
];

/// What stands in paths.
const PARAMETERS: &[(&str, &str)] = &[
    ("abi_id", "A contract ABI's id."),
    ("address", "The address of a key."),
    ("agent_id", "An agent's id."),
    ("chain", "A chain's name or id. All EVM chains share the key `ethereum`."),
    ("chain_id", "A chain: its chain id, its name, or the id that the API shows."),
    ("delivery_id", "A delivery's id, which is its message's `webhook-id`."),
    ("freeze_id", "A freeze's id."),
    ("invitation_id", "An invitation's id."),
    ("key_id", "The id of an API key."),
    ("name_or_id", "A chain's name or chain id."),
    ("org_id", "An organisation's id."),
    (
        "path",
        "The secret's path. It may contain slashes: `prod/db/password` is sent as it is, or with each `/` as `%2F`; both are the same \
         secret. It is decoded exactly once.",
    ),
    ("policy_id", "A policy's id."),
    ("rotation_id", "A rotation's id."),
    ("rule_id", "The id of an IP rule."),
    ("secret_id", "A secret's id."),
    (
        "share_id",
        "A share's id. Of a share for a mail address or for anybody with the link it is all that opens it: keep it secret.",
    ),
    ("transaction_id", "A transaction's id."),
    ("user_code", "The code that the program shows to its human."),
    ("user_id", "A human's id."),
    ("vault_id", "A vault's id."),
    ("webhook_id", "A webhook's id."),
];

pub(super) fn problem_ref(status: u16) -> String {
    let name = PROBLEMS.iter().find(|(own, ..)| *own == status).map_or("Undocumented", |(_, name, ..)| name);
    format!("#/components/responses/{name}")
}

fn component_name(parameter: &str) -> String {
    let capital =
        |word: &str| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect::<String>();
    parameter.split('_').map(capital).collect()
}

pub(super) fn parameter_ref(name: &str) -> String {
    format!("#/components/parameters/{}", component_name(name))
}

fn responses() -> Map<String, Value> {
    let one = |(status, name, description, detail): &(u16, &str, &str, &str)| {
        let title = name.chars().fold(String::new(), |mut title, c| {
            if c.is_uppercase() && !title.is_empty() {
                title.push(' ');
            }
            title.push(c);
            title
        });
        let example = json!({ "type": "about:blank", "title": title, "status": status, "detail": detail });
        let mut response = json!({
            "description": description,
            "content": {
                "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" }, "example": example },
            },
        });
        if matches!(status, 429 | 503) {
            response["headers"]["Retry-After"] = json!({ "$ref": "#/components/headers/RetryAfter" });
        }
        if *status == 401 {
            response["headers"]["WWW-Authenticate"] =
                json!({ "schema": { "type": "string", "const": "Bearer" }, "description": "The scheme (RFC 6750)." });
        }
        ((*name).to_owned(), response)
    };
    PROBLEMS.iter().map(one).collect()
}

fn parameters() -> Map<String, Value> {
    let one = |(name, description): &(&str, &str)| {
        let (schema, example) = match *name {
            "path" => (
                json!({ "type": "string", "pattern": PATH_PATTERN, "minLength": 1, "maxLength": 1024 }),
                json!("prod/db/password"),
            ),
            "chain" => (json!({ "type": "string", "minLength": 1, "maxLength": 255 }), json!("ethereum")),
            "name_or_id" | "chain_id" => (json!({ "type": "string", "minLength": 1, "maxLength": 255 }), json!("base")),
            "address" => (
                json!({ "type": "string", "minLength": 1, "maxLength": 255 }),
                json!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
            ),
            "user_code" => (json!({ "type": "string", "minLength": 1, "maxLength": 64 }), json!("BCDF-GHJK")),
            _ => (json!({ "type": "string", "format": "uuid" }), json!("8f14e45f-ceea-467f-a83c-3b1a5f9e6d01")),
        };
        let parameter = json!({
            "name": name, "in": "path", "required": true, "description": description, "schema": schema, "example": example,
        });
        (component_name(name), parameter)
    };
    PARAMETERS.iter().map(one).collect()
}

/// The document of these routes.
#[must_use]
pub fn document<'a>(routes: impl IntoIterator<Item = (&'a Route, &'a Doc)>) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut collected: Vec<(String, RefOr<Schema>)> = vec![(Problem::name().into_owned(), Problem::schema())];
    Problem::schemas(&mut collected);
    for (route, doc) in routes {
        let (path, operation) = doc.operation(route.path);
        paths.entry(path).or_default().insert(route.method.as_str().to_lowercase(), operation);
        collected.extend(doc.schemas.iter().cloned());
    }
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for (name, schema) in collected {
        schemas.insert(name, serde_json::to_value(schema).unwrap_or_default());
    }
    let tags: Vec<Value> =
        Tag::ALL.iter().map(|(_, name, description)| json!({ "name": name, "description": description })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "intentd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses(),
            "parameters": parameters(),
            "headers": {
                "RetryAfter": {
                    "description": "Seconds to wait.",
                    "schema": { "type": "integer", "minimum": 0 },
                },
            },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token (JWT), or an API key: an agent's (`ocv_…`) or a human's (`1ck_…`).",
                },
            },
        },
    })
}

/// The document of this daemon, made once.
#[must_use]
pub fn ours() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| document(crate::http::router::routes().documented()))
}

/// As it is served, and printed: indented, members in order.
#[must_use]
pub fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(ours()).unwrap_or_default();
        text.push('\n');
        text
    })
}

/// Schemas of two features that have one name would replace each other.
///
/// # Errors
/// The names that stand for two schemas.
pub fn check_names<'a>(docs: impl IntoIterator<Item = &'a Doc>) -> Result<(), Vec<String>> {
    let mut seen: BTreeMap<&str, Value> = BTreeMap::new();
    let mut twice = Vec::new();
    for (name, schema) in docs.into_iter().flat_map(|doc| &doc.schemas) {
        let schema = serde_json::to_value(schema).unwrap_or_default();
        if seen.insert(name, schema.clone()).is_some_and(|before| before != schema) {
            twice.push(name.clone());
        }
    }
    if twice.is_empty() { Ok(()) } else { Err(twice) }
}
