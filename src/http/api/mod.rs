//! The API's own description (OpenAPI 3.1). Each feature documents its operations in its `api.rs`, and hands them over with its handlers:
//! a route cannot be served without them, see [`super::routes`].
//!
//! `schemas` has what many of them share, `document` makes one document of all, `page` shows it to people.

pub mod document;
pub mod health;
pub mod http;
mod page;
pub mod schemas;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// Tokens for keys, certificates and passwords.
    Authentication,
    /// A human's own account.
    Account,
    /// Agents.
    Agents,
    /// Agents' own signing keys.
    SigningKeys,
    /// Intents.
    Intents,
    /// What they are simulated by.
    Simulation,
    /// What signs nothing new.
    Freezes,
    /// Vaults.
    Vaults,
    /// Secrets.
    Secrets,
    /// Who may.
    Policies,
    /// Shares.
    Sharing,
    /// Values that clients encrypt.
    Cmek,
    /// Chains.
    Chains,
    /// Members, invitations, settings.
    Organisation,
    /// The audit trail.
    Audit,
    /// What is told to others.
    Webhooks,
    /// Usage.
    Billing,
    /// What runs the installation.
    Platform,
    /// Health.
    Health,
    /// Pages for people, and this document.
    Pages,
}

impl Tag {
    const ALL: [(Self, &'static str, &'static str); 20] = [
        (Self::Authentication, "Authentication", "Tokens for API keys, certificates, assertions and passwords."),
        (Self::Account, "Account", "A human's own account: second factor, API keys, password."),
        (Self::Agents, "Agents", "Programs that act for an organisation, and the guardrails that hold them."),
        (Self::SigningKeys, "Signing keys", "Keys that are made in the HSM and never leave it."),
        (Self::Intents, "Intents", "Transactions that agents want signed, sent or simulated."),
        (
            Self::Simulation,
            "Simulation",
            "By what an organisation's intents are simulated, and names for contracts' errors.",
        ),
        (Self::Freezes, "Freezes", "The kill switch: what signs nothing new until a human lifts it."),
        (Self::Vaults, "Vaults", "What secrets are kept in."),
        (Self::Secrets, "Secrets", "Secrets and their versions."),
        (Self::Policies, "Policies", "Who may read, write and delete which secrets."),
        (Self::Sharing, "Sharing", "Single secrets, lent to somebody for a time."),
        (Self::Cmek, "Customer-managed keys", "Vaults whose values are encrypted by their clients."),
        (Self::Chains, "Chains", "The chains that this installation knows."),
        (Self::Organisation, "Organisation", "Members, invitations, settings, and the addresses that they come from."),
        (Self::Audit, "Audit", "What was done, by whom, from where."),
        (Self::Webhooks, "Webhooks", "What happened, told to addresses of the organisation's own."),
        (Self::Billing, "Usage", "What was used. Nobody is billed."),
        (Self::Platform, "Platform", "For those who run the installation."),
        (Self::Health, "Health", "Whether the daemon works."),
        (Self::Pages, "Pages", "Pages for people, and this document."),
    ];

    fn entry(self) -> &'static (Self, &'static str, &'static str) {
        Self::ALL.iter().find(|(tag, ..)| *tag == self).unwrap_or(&Self::ALL[0])
    }

    /// As the document names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().1
    }
}

/// Who may ask at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Somebody with a token or key.
    Bearer,
    /// Anybody.
    Public,
    /// Anybody; with a credential it may say more.
    Either,
}

/// An operation, but for its method and path: these are the route's.
#[derive(Clone)]
pub struct Doc {
    tag: Tag,
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    access: Access,
    behind_path: Option<Value>,
    parameters: Vec<Value>,
    body: Option<Value>,
    replies: BTreeMap<u16, Value>,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Doc {
    /// An operation for whoever has a credential. `id` is its `operationId`.
    #[must_use]
    pub fn new(tag: Tag, id: &'static str, summary: &'static str) -> Self {
        Self {
            tag,
            id,
            summary,
            description: "",
            access: Access::Bearer,
            behind_path: None,
            parameters: Vec::new(),
            body: None,
            replies: BTreeMap::new(),
            schemas: Vec::new(),
        }
    }

    /// What more there is to say. Markdown.
    #[must_use]
    pub fn says(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// For everybody.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.access = Access::Public;
        self
    }

    /// For everybody, and a credential is looked at.
    #[must_use]
    pub fn public_or_bearer(mut self) -> Self {
        self.access = Access::Either;
        self
    }

    /// Behind the secret's path another segment follows.
    #[must_use]
    pub fn then(mut self, name: &'static str, schema: Value, description: &str) -> Self {
        self.behind_path = Some(json!({
            "name": name, "in": "path", "required": true, "schema": schema, "description": description,
        }));
        self
    }

    /// A parameter of the query, which may be left out.
    #[must_use]
    pub fn query(mut self, name: &'static str, schema: Value, description: &str) -> Self {
        self.parameters.push(json!({ "name": name, "in": "query", "schema": schema, "description": description }));
        self
    }

    /// A list that comes in pages: without `limit` there are `default` rows, and never more than `most`.
    #[must_use]
    pub fn pages(self, default: i64, most: i64) -> Self {
        let schema = json!({ "type": "integer", "minimum": 1, "maximum": most, "default": default });
        let limit = "Rows of a page, at most.";
        self.query("limit", schema, limit).query(
            "cursor",
            json!({ "type": "string", "maxLength": 4096 }),
            "Where to go on: the `next_cursor` of the page before.",
        )
    }

    /// A header of the request.
    #[must_use]
    pub fn header(mut self, name: &'static str, required: bool, schema: Value, description: &str) -> Self {
        self.parameters.push(
            json!({ "name": name, "in": "header", "required": required, "schema": schema, "description": description }),
        );
        self
    }

    fn refer<T: ToSchema>(&mut self) -> Value {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }

    fn content<T: ToSchema>(&mut self, example: Value) -> Value {
        let schema = self.refer::<T>();
        json!({ "application/json": { "schema": schema, "example": example } })
    }

    /// The body that it takes, which has something in it that must be there.
    #[must_use]
    pub fn body<T: ToSchema>(mut self, example: Value) -> Self {
        self.body = Some(json!({ "required": true, "content": self.content::<T>(example) }));
        self
    }

    /// The body that it takes, which may be left out.
    #[must_use]
    pub fn optional_body<T: ToSchema>(mut self, example: Value) -> Self {
        self.body = Some(json!({ "required": false, "content": self.content::<T>(example) }));
        self
    }

    /// A reply with JSON.
    #[must_use]
    pub fn reply<T: ToSchema>(mut self, status: u16, description: &str, example: Value) -> Self {
        let content = self.content::<T>(example);
        self.replies.insert(status, json!({ "description": description, "content": content }));
        self
    }

    /// A reply without a body.
    #[must_use]
    pub fn empty(mut self, status: u16, description: &str) -> Self {
        self.replies.insert(status, json!({ "description": description }));
        self
    }

    /// A file.
    #[must_use]
    pub fn file(mut self, kind: &str, description: &str) -> Self {
        let content = json!({ kind: { "schema": { "type": "string" } } });
        self.replies.insert(200, json!({ "description": description, "content": content }));
        self
    }

    /// A header of a reply that was described before.
    #[must_use]
    pub fn reply_header(mut self, status: u16, name: &str, schema: Value, description: &str) -> Self {
        if let Some(reply) = self.replies.get_mut(&status) {
            reply["headers"][name] = json!({ "schema": schema, "description": description });
        }
        self
    }

    /// A problem that only this operation has, or what it means here.
    #[must_use]
    pub fn problem(mut self, status: u16, description: &str) -> Self {
        self.replies.insert(status, json!({ "$ref": document::problem_ref(status), "description": description }));
        self
    }

    /// A problem with members of its own.
    #[must_use]
    pub fn problem_with<T: ToSchema>(mut self, status: u16, description: &str, example: Value) -> Self {
        let schema = self.refer::<T>();
        let content = json!({ "application/problem+json": { "schema": schema, "example": example } });
        self.replies.insert(status, json!({ "description": description, "content": content }));
        self
    }

    /// The operation at a path, and what it refers to.
    fn operation(&self, path: &str) -> (String, Value) {
        let mut documented: Vec<String> = Vec::new();
        let mut parameters = Vec::new();
        for segment in path.split('/') {
            match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                None => documented.push(segment.to_owned()),
                Some(name) => {
                    let name = name.trim_start_matches('*');
                    parameters.push(json!({ "$ref": document::parameter_ref(name) }));
                    documented.push(format!("{{{name}}}"));
                }
            }
        }
        if let Some(behind) = &self.behind_path {
            documented.push(format!("{{{}}}", behind["name"].as_str().unwrap_or_default()));
            parameters.push(behind.clone());
        }
        let mut statuses = vec![429, 500, 503];
        if self.access != Access::Public {
            statuses.extend([401, 403]);
        }
        if !parameters.is_empty() {
            statuses.push(404);
        }
        if self.body.is_some() {
            statuses.extend([400, 408, 413]);
        }
        if self.parameters.iter().any(|parameter| parameter["in"] == "query") {
            statuses.push(400);
        }
        let mut responses: Map<String, Value> = statuses
            .into_iter()
            .map(|status| (status.to_string(), json!({ "$ref": document::problem_ref(status) })))
            .collect();
        responses.extend(self.replies.iter().map(|(status, reply)| (status.to_string(), reply.clone())));
        parameters.extend(self.parameters.iter().cloned());
        let bearer = json!({ "bearer": [] });
        let mut operation = json!({
            "tags": [self.tag.name()],
            "operationId": self.id,
            "summary": self.summary,
            "responses": responses,
            "security": match self.access {
                Access::Bearer => json!([bearer]),
                Access::Public => json!([]),
                Access::Either => json!([{}, bearer]),
            },
        });
        if !self.description.is_empty() {
            operation["description"] = json!(self.description);
        }
        if !parameters.is_empty() {
            operation["parameters"] = json!(parameters);
        }
        if let Some(body) = &self.body {
            operation["requestBody"] = body.clone();
        }
        (documented.join("/"), operation)
    }
}
