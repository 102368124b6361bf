//! The document against the routes, against itself, and against what is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use intentd::http::api::document;
use intentd::http::router;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack};
use crate::harness::truth::{is_json, validator};

/// Every operation: method, path, and what is said.
fn operations() -> impl Iterator<Item = (String, &'static str, &'static Value)> {
    let paths = document::ours()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(|(method, value)| (method.to_uppercase(), path.as_str(), value))
    })
}

fn resolve(value: &'static Value) -> &'static Value {
    let to = value["$ref"].as_str();
    to.map_or(value, |to| {
        document::ours().pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("{to} is nowhere"))
    })
}

#[test]
fn the_document_is_as_written_down() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/openapi.json");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&file, document::text()).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == document::text(),
        "the document has changed: UPDATE_SNAPSHOTS=1 writes it down, to be read before it is committed"
    );
}

#[test]
fn every_operation_says_what_a_client_needs() {
    let table = router::routes();
    let documented: Vec<_> = operations().collect();
    assert_eq!(documented.len(), table.table().len(), "two routes are one operation");
    assert_eq!(document::check_names(table.documented().map(|(_, doc)| doc)), Ok(()), "one name for two schemas");
    let tags: BTreeSet<&str> =
        document::ours()["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in documented {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is there twice");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{id}: no summary");
        assert!(tags.contains(operation["tags"][0].as_str().unwrap()), "{id}: an unknown tag");
        let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().map(resolve).collect();
        let declared: BTreeSet<&str> =
            parameters.iter().filter(|one| one["in"] == "path").map(|one| one["name"].as_str().unwrap()).collect();
        let named = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
        assert_eq!(declared, named.collect(), "{id}: the parameters of {path}");
        assert!(parameters.iter().all(|one| one["description"].is_string()), "{id}: a parameter without description");
        let replies = operation["responses"].as_object().unwrap();
        let (good, bad): (Vec<_>, Vec<_>) = replies.iter().partition(|(status, _)| status.starts_with('2'));
        assert!(
            !good.is_empty() || ["refreshToken", "logInWithGoogle"].contains(&id),
            "{id}: no reply that is none of refusal"
        );
        assert!(bad.len() >= 3, "{id}: too few problems");
        assert!(
            ["POST", "PUT", "PATCH"].contains(&method.as_str())
                || operation["requestBody"].is_null()
                || method == "DELETE"
        );
        let request = &operation["requestBody"]["content"];
        let contents = replies.values().map(|reply| &resolve(reply)["content"]).chain([request]);
        for (kind, content) in contents.filter_map(Value::as_object).flatten() {
            if is_json(kind) {
                let example = &content["example"];
                assert!(!example.is_null(), "{id}: no example of {}", content["schema"]);
                let faults: Vec<String> = validator(&content["schema"], kind == "application/problem+json")
                    .iter_errors(example)
                    .map(|error| error.to_string())
                    .collect();
                assert!(faults.is_empty(), "{id}: the example does not fit: {faults:?}");
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let ours = document::ours();
    let mut found = BTreeSet::new();
    references(ours, &mut found);
    for to in &found {
        assert!(ours.pointer(to.trim_start_matches('#')).is_some(), "{to} leads nowhere");
    }
    for kind in ["schemas", "responses", "parameters", "headers"] {
        for name in ours["components"][kind].as_object().unwrap().keys() {
            assert!(found.contains(&format!("#/components/{kind}/{name}")), "nothing refers to {kind}/{name}");
        }
    }
}

/// What every caller is answered, as the matrix has written it down.
#[test]
fn the_document_knows_who_may_ask_and_what_they_are_answered() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/access/matrix/statuses.txt");
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut rows: BTreeMap<(String, String), Vec<&str>> = lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            ((words[0].to_owned(), words[1].replace("{*", "{")), words[2..].to_vec())
        })
        .collect();
    for (method, path, operation) in operations() {
        let path = path.trim_end_matches("/{version}").to_owned();
        let statuses =
            rows.remove(&(method.clone(), path.clone())).unwrap_or_else(|| panic!("{method} {path} has no row"));
        for status in &statuses {
            assert!(
                !operation["responses"][status].is_null(),
                "{method} {path}: {status} is answered and not documented"
            );
        }
        let bearer = operation["security"] == json!([{ "bearer": [] }]);
        assert_eq!(bearer, statuses[0] == "401", "{method} {path}: who may ask");
    }
    assert!(rows.is_empty(), "no operations: {rows:?}");
}

#[tokio::test]
async fn the_document_and_its_page_are_served_and_need_nothing_from_elsewhere() {
    let stack = Stack::with(Options { chains: vec![], ..Options::default() }).await;
    let served = Client::new(&stack.owner.base, None).get("/openapi.json").await;
    assert_eq!(&served.clone().expect(200), document::ours());
    let get = async |path: &str| {
        let reply = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{}{path}", stack.owner.base));
        let reply = reply.send().await.unwrap();
        assert_eq!(reply.status(), 200, "{path}");
        let policy = reply.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("http"), "{policy}");
        reply.text().await.unwrap()
    };
    let page = get("/docs").await;
    for (method, path, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap();
        assert!(page.contains(&format!("<article id=\"{id}\">")), "the page has no {id}");
        assert!(page.contains(&format!("{method} &quot;$INTENTD_URL{path}&quot;")), "the page has no call of {id}");
    }
    for outside in ["src=", "<script", "@import", "url(", "style="] {
        assert!(!page.contains(outside), "the page has {outside}");
    }
    assert!(!get("/docs.css").await.contains("url("));
}
