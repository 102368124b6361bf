//! The dashboard and the alerts name metrics and labels that there are, and the dashboard draws every one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use intentd::telemetry::table::{ALL, Kind, Metric};
use serde_json::Value;

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards").join(name)).unwrap()
}

/// The words of an expression, with what follows them.
fn words(expression: &str) -> Vec<(&str, &str)> {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(part_of_word) {
        let length = rest[start..].find(|c| !part_of_word(c)).unwrap_or(rest.len() - start);
        let (word, after) = rest[start..].split_at(length);
        found.push((word, after));
        rest = after;
    }
    found
}

fn is_name(word: &str) -> bool {
    word.starts_with("intentd_") || word.starts_with("process_")
}

/// The metric that a word of an expression names; a histogram by one of its series.
#[track_caller]
fn metric_of(word: &str) -> &'static Metric {
    let found = ALL.iter().find(|metric| match metric.kind {
        Kind::Histogram => {
            ["_bucket", "_sum", "_count"].iter().any(|series| word.strip_suffix(series) == Some(metric.name))
        }
        Kind::Counter | Kind::Gauge => word == metric.name,
    });
    found.unwrap_or_else(|| panic!("there is no metric {word}"))
}

/// The labels of each selector must be its metric's.
#[track_caller]
fn check(expression: &str) -> BTreeSet<&'static str> {
    let mut named = BTreeSet::new();
    let mut labels: BTreeSet<&str> = BTreeSet::from(["le", "instance", "job"]);
    for (word, after) in words(expression).into_iter().filter(|(word, _)| is_name(word)) {
        let metric = metric_of(word);
        named.insert(metric.name);
        labels.extend(metric.labels);
        if let Some(selector) = after.strip_prefix('{') {
            for matcher in selector[..selector.find('}').unwrap()].split("\",") {
                let label = matcher.split(['=', '!']).next().unwrap().trim();
                let known = metric.labels.contains(&label) || ["instance", "job", "le"].contains(&label);
                assert!(known, "{} has no label {label:?}: {expression}", metric.name);
            }
        }
        // A counter by itself is a number since the start, which nobody wants to see.
        let raw = metric.kind == Kind::Counter && !["rate(", "increase("].iter().any(|f| expression.contains(f));
        assert!(!raw, "{word} without rate or increase: {expression}");
    }
    for by in expression.split(" by (").skip(1) {
        for label in by[..by.find(')').unwrap()].split(',').map(str::trim) {
            assert!(labels.contains(label), "by {label:?}: {expression}");
        }
    }
    named
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| expressions(value, found));
        }
        Value::Array(all) => all.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_draws_every_metric_and_none_that_there_is_not() {
    let dashboard: Value = serde_json::from_str(&file("intentd.json")).unwrap();
    let mut all = Vec::new();
    expressions(&dashboard, &mut all);
    assert!(all.len() > 40, "{}", all.len());
    let drawn: BTreeSet<&str> = all.iter().flat_map(|expression| check(expression)).collect();
    let missing: Vec<_> = ALL.iter().map(|metric| metric.name).filter(|name| !drawn.contains(name)).collect();
    assert!(missing.is_empty(), "not drawn: {missing:?}");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id is given twice");
    let rows = panels.iter().filter(|panel| panel["type"] == "row").map(|row| row["title"].as_str().unwrap());
    for wanted in ["Overview", "Intents", "Latency by stage", "HSM", "RPC", "Tracker", "Database"] {
        assert!(rows.clone().any(|row| row == wanted), "no row {wanted}");
    }
}

/// Each rule's `expr`, with the lines that a folded one goes on over.
fn alerts(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for rule in text.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap().to_owned();
        for part in ["        expr: ", "        labels: { severity: ", "          summary: \"", "          action: \""]
        {
            assert!(rule.contains(part), "{name} lacks {part:?}");
        }
        let lines = rule.lines().skip_while(|line| !line.starts_with("        expr: "));
        let (first, more) = (lines.clone().next().unwrap(), lines.skip(1));
        let more: Vec<_> = more.take_while(|line| line.starts_with("          ")).collect();
        let expression = format!("{} {}", first.trim_start_matches("        expr: "), more.join(" "));
        assert!(found.insert(name, expression.replace(">-", "")).is_none(), "two rules of one name");
    }
    found
}

#[test]
fn the_alerts_ask_for_metrics_that_there_are() {
    let alerts = alerts(&file("alerts.yml"));
    assert!(alerts.len() >= 20);
    // A process that is gone has no metrics of ours: that is what this one asks.
    let gone = alerts.iter().filter(|(_, expression)| expression.contains("absent(up{job=\"intentd\"})"));
    assert_eq!(gone.map(|(name, _)| &**name).collect::<Vec<_>>(), ["IntentdDown"]);
    for (name, expression) in alerts {
        assert!(!check(&expression).is_empty() || name == "IntentdDown", "{name} asks for nothing of ours");
    }
}

/// Words that alerts wait for are words that are recorded: a typing error would be an alert that never comes.
#[test]
fn what_alerts_wait_for_is_what_is_recorded() {
    let sources = [
        "src/telemetry/record.rs",
        "src/intents/error.rs",
        "src/telemetry/story.rs",
        "src/intents/mod.rs",
        "src/hsm/error.rs",
    ];
    let read = |path: &&str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let sources: String = sources.iter().map(read).collect();
    let mut words = 0;
    for (name, expression) in alerts(&file("alerts.yml")) {
        for label in ["outcome", "class", "what", "stage", "percent"] {
            for matcher in expression.split(&format!("{label}=")).skip(1) {
                let values = matcher.trim_start_matches('~').trim_start_matches('"').split('"').next().unwrap();
                for word in values.split('|') {
                    words += 1;
                    assert!(sources.contains(&format!("\"{word}\"")), "{name}: {label} is never {word:?}");
                }
            }
        }
    }
    assert!(words > 20, "{words}");
}

#[test]
fn a_query_for_what_there_is_not_is_found() {
    let wrong = [
        "intentd_no_such",
        "rate(intentd_http_request_seconds[5m])",
        "intentd_http_requests_total",
        "rate(intentd_http_requests_total{path=\"/\"}[5m])",
        "sum by (agent) (intentd_slots_open)",
    ];
    for expression in wrong {
        assert!(std::panic::catch_unwind(|| check(expression)).is_err(), "{expression}");
    }
    check("sum by (chain) (intentd_slots_open{instance=~\".*\", chain=\"base\"})");
}
