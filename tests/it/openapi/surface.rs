//! Our document against the surface that existing clients know (`tests/contract/surface.json`): every operation, parameter, member of
//! requests and of replies of it is in ours, and of a type that these clients can send and read. What differs is listed with its reason
//! in `tests/contract/differences.json`, and nothing else differs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use intentd::http::api::document;
use serde_json::{Map, Value};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// They send, we read.
    Request,
    /// We send, they read.
    Reply,
}

/// What a schema says, with its alternatives together.
#[derive(Default)]
struct Shape<'a> {
    /// Empty: any.
    types: BTreeSet<&'a str>,
    any: bool,
    words: Option<BTreeSet<&'a str>>,
    properties: BTreeMap<&'a str, &'a Value>,
    required: BTreeSet<&'a str>,
    items: Option<&'a Value>,
    /// It may have members that are not named.
    open: bool,
}

fn resolve<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(to) => {
            resolve(root, root.pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("{to} is nowhere")))
        }
        None => value,
    }
}

fn read<'a>(root: &'a Value, schema: &'a Value, shape: &mut Shape<'a>) {
    let schema = resolve(root, schema);
    let several: Vec<&Value> =
        ["oneOf", "anyOf"].into_iter().filter_map(|name| schema[name].as_array()).flatten().collect();
    for one in &several {
        read(root, one, shape);
    }
    match &schema["type"] {
        Value::String(one) => {
            shape.types.insert(one);
        }
        Value::Array(all) => shape.types.extend(all.iter().filter_map(Value::as_str)),
        _ => shape.any |= several.is_empty(),
    }
    if schema["nullable"] == true {
        shape.types.insert("null");
    }
    if let Some(words) = schema["enum"].as_array() {
        shape.words.get_or_insert_default().extend(words.iter().filter_map(Value::as_str));
    }
    if let Some(properties) = schema["properties"].as_object() {
        shape.properties.extend(properties.iter().map(|(name, value)| (name.as_str(), value)));
    }
    shape.required.extend(schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str));
    shape.items = shape.items.or_else(|| schema.get("items"));
    shape.open |= schema["additionalProperties"] == true || schema["additionalProperties"].is_object();
}

fn accepts(types: &BTreeSet<&str>, one: &str) -> bool {
    types.contains(one) || (one == "integer" && types.contains("number"))
}

struct Check<'a> {
    theirs: &'a Value,
    ours: &'a Value,
    found: BTreeSet<String>,
    /// Pairs that are being looked at or were.
    seen: BTreeSet<(String, String, bool)>,
}

impl<'a> Check<'a> {
    fn note(&mut self, place: &str, what: impl std::fmt::Display) {
        self.found.insert(format!("{place}: {what}"));
    }

    fn schema(&mut self, place: &str, direction: Direction, theirs: &'a Value, ours: &'a Value) {
        // A schema with a name is its own place, wherever it is used.
        let named = theirs["$ref"].as_str().map(|to| to.rsplit('/').next().unwrap_or_default().to_owned());
        let side = if direction == Direction::Request { "request" } else { "reply" };
        let place = named.map_or_else(|| place.to_owned(), |name| format!("{side} {name}"));
        if !self.seen.insert((theirs.to_string() + &place, ours.to_string(), direction == Direction::Request)) {
            return;
        }
        let (mut they, mut we) = (Shape::default(), Shape::default());
        read(self.theirs, theirs, &mut they);
        read(self.ours, ours, &mut we);
        if we.any && we.properties.is_empty() {
            if direction == Direction::Reply && !they.any {
                self.note(&place, "may be anything here");
            }
            return;
        }
        let (from, to) = if direction == Direction::Request { (&they, &we) } else { (&we, &they) };
        if !they.any {
            for one in from.types.iter().filter(|one| !accepts(&to.types, one)) {
                // Leaving a member out and sending null are the same to us.
                self.found.insert(format!("{place}: {one} does not fit {:?}", to.types));
            }
        }
        match (&from.words, &to.words) {
            (_, None) => {}
            (None, Some(to)) => self.note(&place, format!("one of {to:?} only")),
            (Some(from), Some(to)) => {
                for word in from.difference(to) {
                    self.found.insert(format!("{place}: {word:?} is unknown"));
                }
            }
        }
        if let (Some(theirs), Some(ours)) = (they.items, we.items) {
            self.schema(&format!("{place}[]"), direction, theirs, ours);
        }
        if they.properties.is_empty() || (we.open && we.properties.is_empty()) {
            return;
        }
        for (name, theirs) in &they.properties {
            match we.properties.get(name) {
                Some(ours) => self.schema(&format!("{place}.{name}"), direction, theirs, ours),
                None => self.note(&format!("{place}.{name}"), "is not there"),
            }
        }
        let must: Vec<&str> = match direction {
            Direction::Request => we.required.difference(&they.required).copied().collect(),
            Direction::Reply => they.required.difference(&we.required).copied().collect(),
        };
        for name in must {
            self.note(
                &format!("{place}.{name}"),
                if direction == Direction::Request { "is required here" } else { "may be missing" },
            );
        }
        // Decoders that know which members there must be refuse those that they do not know.
        if direction == Direction::Reply && !they.required.is_empty() {
            for name in we.required.iter().filter(|name| !they.properties.contains_key(*name)) {
                self.note(&format!("{place}.{name}"), "is always there, and strict decoders do not know it");
            }
        }
    }

    fn operation(&mut self, name: &str, theirs: &'a Value, ours: &'a Value) {
        let (their_root, our_root) = (self.theirs, self.ours);
        let of = |root: &'a Value, operation: &'a Value| -> Vec<&'a Value> {
            operation["parameters"].as_array().into_iter().flatten().map(|one| resolve(root, one)).collect()
        };
        let our_parameters = of(our_root, ours);
        for parameter in of(their_root, theirs) {
            let (place, of) = (&parameter["in"], &parameter["name"]);
            let found =
                our_parameters.iter().find(|own| own["in"] == *place && (own["name"] == *of || place == "path"));
            match found {
                Some(own) => {
                    let at = format!("{name} {} {}", text(place), text(of));
                    self.schema(&at, Direction::Request, &parameter["schema"], &own["schema"]);
                }
                None => self.note(&format!("{name} {} {}", text(place), text(of)), "is not there"),
            }
        }
        for own in our_parameters.iter().filter(|own| own["in"] != "path" && own["required"] == true) {
            let known = of(their_root, theirs).iter().any(|theirs| theirs["name"] == own["name"]);
            if !known {
                self.note(&format!("{name} {}", text(&own["name"])), "is required here");
            }
        }
        let request = |operation: &'a Value| &operation["requestBody"]["content"]["application/json"]["schema"];
        if request(theirs).is_object() {
            match request(ours).is_object() {
                true => self.schema(&format!("{name} request"), Direction::Request, request(theirs), request(ours)),
                false => self.note(&format!("{name} request"), "is not there"),
            }
        } else if ours["requestBody"]["required"] == true {
            self.note(&format!("{name} request"), "is required here");
        }
        for (status, reply) in theirs["responses"].as_object().into_iter().flatten() {
            let own = &ours["responses"][status];
            if own.is_null() {
                self.note(&format!("{name} {status}"), "is never answered");
                continue;
            }
            let schema = |root: &'a Value, reply: &'a Value| -> Option<&'a Value> {
                let content = resolve(root, reply)["content"].as_object()?;
                content.values().next().map(|content| &content["schema"])
            };
            match (schema(their_root, reply), schema(our_root, own)) {
                (Some(theirs), Some(ours)) => self.schema(&format!("{name} {status}"), Direction::Reply, theirs, ours),
                (Some(_), None) => self.note(&format!("{name} {status}"), "has no body"),
                // A body where they document none is one that they do not read.
                (None, _) => {}
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn file(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract").join(name);
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// The names of a path's parameters are nobody's business.
fn shape(path: &str) -> String {
    path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment }).collect::<Vec<_>>().join("/")
}

#[test]
fn what_existing_clients_send_and_read_is_in_the_document() {
    let theirs = file("surface.json");
    let ours = document::ours();
    let by_shape: BTreeMap<String, &Map<String, Value>> =
        ours["paths"].as_object().unwrap().iter().map(|(path, all)| (shape(path), all.as_object().unwrap())).collect();
    let mut check = Check { theirs: &theirs, ours, found: BTreeSet::new(), seen: BTreeSet::new() };
    for (path, methods) in theirs["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = format!("{} {path}", method.to_uppercase());
            match by_shape.get(&shape(path)).and_then(|own| own.get(method)) {
                Some(own) => check.operation(&name, operation, own),
                None => check.note(&name, "is not there"),
            }
        }
    }
    let listed = file("differences.json");
    let listed: BTreeMap<&str, &str> = listed
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|entry| {
            let reason = entry["reason"].as_str().filter(|reason| reason.len() > 20).expect("a reason");
            entry["differences"].as_array().unwrap().iter().map(move |one| (one.as_str().unwrap(), reason))
        })
        .collect();
    let new: Vec<&String> = check.found.iter().filter(|found| !listed.contains_key(found.as_str())).collect();
    let gone: Vec<&&str> = listed.keys().filter(|listed| !check.found.contains(**listed)).collect();
    assert!(new.is_empty(), "the document differs, without a reason that is written down: {new:#?}");
    assert!(gone.is_empty(), "this differs no longer, take it off the list: {gone:#?}");
}
