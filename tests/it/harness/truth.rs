//! Every reply that a test's client gets is held against the API's own description: the operation says that there is such a status, and
//! the body is what it says. So each test is also one of the document. The same for what was accepted: a request that was done is one
//! that the document allows.
//!
//! Of replies nothing may be there that the document does not name: their schemas are closed for this.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use intentd::http::api::document;
use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};

/// What was sent and what came back.
pub struct Exchange<'a> {
    pub method: &'a Method,
    /// Without the query.
    pub path: &'a str,
    pub request: Option<&'a [u8]>,
    pub status: u16,
    pub kind: Option<&'a str>,
    pub body: &'a [u8],
}

struct Operation {
    method: String,
    /// The path's segments.
    template: Vec<String>,
    value: &'static Value,
}

fn operations() -> &'static [Operation] {
    static OPERATIONS: OnceLock<Vec<Operation>> = OnceLock::new();
    OPERATIONS.get_or_init(|| {
        let paths = document::ours()["paths"].as_object().unwrap();
        let each = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(|(method, value)| Operation {
                method: method.to_uppercase(),
                template: path.split('/').map(str::to_owned).collect(),
                value,
            })
        });
        each.collect()
    })
}

/// How well a path fits: the number of segments that are the template's own. `{path}` is one or more segments, every other parameter one.
fn fits(template: &[String], path: &[&str]) -> Option<usize> {
    match (template, path) {
        ([], []) => Some(0),
        ([first, rest @ ..], [segment, after @ ..]) if first == "{path}" => {
            let here = if segment.is_empty() && after.is_empty() { None } else { fits(rest, after) };
            here.or_else(|| fits(template, after))
        }
        ([first, rest @ ..], [segment, after @ ..]) if first.starts_with('{') => {
            if segment.is_empty() {
                None
            } else {
                fits(rest, after)
            }
        }
        ([first, rest @ ..], [segment, after @ ..]) => {
            if first == segment {
                fits(rest, after).map(|own| own + 1)
            } else {
                None
            }
        }
        _ => None,
    }
}

fn operation(method: &Method, path: &str) -> Option<&'static Operation> {
    let path: Vec<&str> = path.split('/').collect();
    let of_method = operations().iter().filter(|operation| operation.method == method.as_str());
    of_method.filter_map(|one| Some((fits(&one.template, &path)?, one))).max_by_key(|(own, _)| *own).map(|(_, one)| one)
}

fn resolve(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        Some(to) => document::ours().pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("{to} is nowhere")),
        None => value,
    }
}

/// A schema that knows the document's others; `closed`: without members that are not named.
pub fn validator(schema: &Value, closed: bool) -> Validator {
    let mut whole = schema.clone();
    whole["components"] = json!({ "schemas": document::ours()["components"]["schemas"] });
    if closed {
        close(&mut whole);
    }
    jsonschema::options()
        .should_validate_formats(true)
        .build(&whole)
        .unwrap_or_else(|error| panic!("{error}: {schema}"))
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("properties").is_some_and(Value::is_object) && !members.contains_key("additionalProperties")
            {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// One for each schema that this process has come across.
fn cached(schema: &Value, closed: bool) -> Arc<Validator> {
    type Key = (String, bool);
    static VALIDATORS: Mutex<Option<HashMap<Key, Arc<Validator>>>> = Mutex::new(None);
    let key = (schema.to_string(), closed);
    let mut validators = VALIDATORS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let validators = validators.get_or_insert_default();
    Arc::clone(validators.entry(key).or_insert_with(|| Arc::new(validator(schema, closed))))
}

fn faults(schema: &Value, closed: bool, instance: &Value) -> Vec<String> {
    cached(schema, closed)
        .iter_errors(instance)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect()
}

/// Whether a media type is one JSON value; lines of JSON are not.
pub fn is_json(kind: &str) -> bool {
    kind == "application/json" || kind.ends_with("+json")
}

/// # Panics
/// When it is not what the document says. What no operation is about is somebody else's.
pub fn check(exchange: &Exchange<'_>) {
    let Some(operation) = operation(exchange.method, exchange.path) else { return };
    let name = operation.value["operationId"].as_str().unwrap();
    let what = format!("{} {} ({name}): {}", exchange.method, exchange.path, exchange.status);
    let reply = &operation.value["responses"][exchange.status.to_string()];
    assert!(
        !reply.is_null(),
        "{what}: the document does not know this status: {}",
        String::from_utf8_lossy(exchange.body)
    );
    let content = &resolve(reply)["content"];
    match content.as_object() {
        None => assert!(exchange.body.is_empty(), "{what}: the document says that there is no body"),
        Some(content) => {
            let kind = exchange.kind.unwrap_or_default().split(';').next().unwrap_or_default();
            let Some(content) = content.get(kind) else { panic!("{what}: the document does not know {kind}") };
            if is_json(kind) {
                let body: Value =
                    serde_json::from_slice(exchange.body).unwrap_or_else(|error| panic!("{what}: {error}"));
                let faults = faults(&content["schema"], true, &body);
                assert!(faults.is_empty(), "{what}: the document says otherwise: {faults:?} in {body}");
            }
        }
    }
    let schema = &operation.value["requestBody"]["content"]["application/json"]["schema"];
    if (200..300).contains(&exchange.status) && schema.is_object() {
        let sent = exchange.request.filter(|bytes| !bytes.trim_ascii().is_empty()).unwrap_or(b"{}");
        let Ok(sent) = serde_json::from_slice::<Value>(sent) else { return };
        let faults = faults(schema, false, &sent);
        assert!(faults.is_empty(), "{what}: it was accepted, and the document does not allow it: {faults:?} in {sent}");
    }
}
