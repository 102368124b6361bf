//! The document as one page without scripts: by tag, with an anchor for each operation. Pure.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// How deep schemas are shown inside each other.
const DEPTH_MAX: usize = 8;

/// The page.
#[must_use]
pub fn render(document: &Value) -> String {
    let mut out = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>intentd API</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"stylesheet\" href=\"/docs.css\"></head><body>",
    );
    let page = Page { document };
    page.write(&mut out);
    out.push_str("</body></html>\n");
    out
}

struct Page<'a> {
    document: &'a Value,
}

/// One operation.
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    body: &'a Value,
}

impl<'a> Page<'a> {
    fn write(&self, out: &mut String) {
        let info = &self.document["info"];
        put(out, "<h1>", &format!("{} {}", text(&info["title"]), text(&info["version"])), "</h1>");
        out.push_str("<p><a href=\"/openapi.json\">openapi.json</a></p>");
        for paragraph in text(&info["description"]).split("\n\n") {
            markdown(out, paragraph);
        }
        let tags: Vec<&Value> = self.document["tags"].as_array().map(|tags| tags.iter().collect()).unwrap_or_default();
        out.push_str("<nav><ul>");
        for tag in &tags {
            let name = text(&tag["name"]);
            let _ = write!(out, "<li><a href=\"#{}\">{}</a><ul>", slug(name), escape(name));
            for operation in self.operations(name) {
                let _ = write!(
                    out,
                    "<li><a href=\"#{}\"><b>{}</b> {}</a></li>",
                    escape(text(&operation.body["operationId"])),
                    operation.method.to_uppercase(),
                    escape(operation.path)
                );
            }
            out.push_str("</ul></li>");
        }
        out.push_str("</ul></nav>");
        for tag in tags {
            let name = text(&tag["name"]);
            let _ = write!(out, "<section><h2 id=\"{}\">{}</h2>", slug(name), escape(name));
            markdown(out, text(&tag["description"]));
            for operation in self.operations(name) {
                self.operation(out, &operation);
            }
            out.push_str("</section>");
        }
    }

    fn operations(&self, tag: &str) -> Vec<Operation<'a>> {
        let paths = self.document["paths"].as_object();
        let of_path = |(path, methods): (&'a String, &'a Value)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.map(|(method, body)| Operation { method, path, body }).collect::<Vec<_>>()
        };
        let all = paths.into_iter().flatten().flat_map(of_path);
        all.filter(|operation| operation.body["tags"][0] == tag).collect()
    }

    /// What a `$ref` refers to.
    fn resolve(&self, value: &'a Value) -> &'a Value {
        let Some(pointer) = value["$ref"].as_str().and_then(|to| to.strip_prefix('#')) else { return value };
        self.document.pointer(pointer).unwrap_or(value)
    }

    fn operation(&self, out: &mut String, operation: &Operation<'a>) {
        let Operation { method, path, body } = operation;
        let id = text(&body["operationId"]);
        let _ = write!(
            out,
            "<article id=\"{id}\"><h3><a href=\"#{id}\"><b class=\"{method}\">{}</b> <code>{}</code></a></h3>",
            method.to_uppercase(),
            escape(path)
        );
        let public =
            body["security"].as_array().is_some_and(|all| all.iter().all(|one| one == &Value::Object(Map::new())));
        put(out, "<p>", text(&body["summary"]), if public { ". <i>Public.</i></p>" } else { ".</p>" });
        markdown(out, text(&body["description"]));
        let parameters: Vec<&Value> =
            body["parameters"].as_array().into_iter().flatten().map(|one| self.resolve(one)).collect();
        if !parameters.is_empty() {
            out.push_str("<table><tr><th>Parameter<th>In<th>Type<th></tr>");
            for parameter in &parameters {
                let _ = write!(
                    out,
                    "<tr><td><code>{}</code>{}<td>{}<td>{}<td>",
                    escape(text(&parameter["name"])),
                    if parameter["required"] == true { " *" } else { "" },
                    escape(text(&parameter["in"])),
                    escape(&self.kind(&parameter["schema"])),
                );
                inline(out, text(&parameter["description"]));
                out.push_str("</tr>");
            }
            out.push_str("</table>");
        }
        let request = &body["requestBody"]["content"]["application/json"];
        if request.is_object() {
            out.push_str("<h4>Request</h4>");
            self.fields(out, &request["schema"], 0);
        }
        self.curl(out, operation, &request["example"], public);
        out.push_str("<h4>Replies</h4>");
        for (status, reply) in body["responses"].as_object().into_iter().flatten() {
            self.reply(out, status, reply);
        }
        out.push_str("</article>");
    }

    fn reply(&self, out: &mut String, status: &str, reply: &'a Value) {
        let resolved = self.resolve(reply);
        let description = reply["description"].as_str().unwrap_or_else(|| text(&resolved["description"]));
        let content = resolved["content"]["application/json"].as_object();
        let _ = write!(out, "<p><b>{status}</b> ");
        inline(out, description);
        out.push_str("</p>");
        for (name, header) in resolved["headers"].as_object().into_iter().flatten() {
            let _ = write!(out, "<p class=\"header\"><code>{}</code>: ", escape(name));
            inline(out, text(&self.resolve(header)["description"]));
            out.push_str("</p>");
        }
        if let Some(content) = content {
            self.fields(out, &content["schema"], 0);
            if let Some(example) = content.get("example") {
                put(out, "<pre>", &serde_json::to_string_pretty(example).unwrap_or_default(), "</pre>");
            }
        }
    }

    fn curl(&self, out: &mut String, operation: &Operation<'_>, example: &Value, public: bool) {
        let mut command = format!("curl -X {} \"$INTENTD_URL{}\"", operation.method.to_uppercase(), operation.path);
        if !public {
            command.push_str(" \\\n  -H \"Authorization: Bearer $TOKEN\"");
        }
        if !example.is_null() {
            let _ = write!(command, " \\\n  -d '{example}'");
        }
        put(out, "<pre>", &command, "</pre>");
    }

    /// A word for a schema.
    fn kind(&self, schema: &'a Value) -> String {
        if let Some(to) = schema["$ref"].as_str() {
            let name = to.rsplit('/').next().unwrap_or_default();
            let resolved = self.resolve(schema);
            let plain = resolved["type"] != "object" && resolved["properties"].is_null();
            return if plain && !resolved["type"].is_null() { self.kind(resolved) } else { name.to_owned() };
        }
        if let Some(words) = schema["enum"].as_array() {
            return words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        }
        for several in ["oneOf", "anyOf"] {
            if let Some(all) = schema[several].as_array() {
                return all.iter().map(|one| self.kind(one)).collect::<Vec<_>>().join(" | ");
            }
        }
        let items = || format!("list of {}", self.kind(&schema["items"]));
        let one = |kind: &str| if kind == "array" { items() } else { kind.to_owned() };
        let mut kind = match &schema["type"] {
            Value::String(kind) => one(kind),
            Value::Array(kinds) => kinds.iter().map(|kind| one(text(kind))).collect::<Vec<_>>().join(" | "),
            _ => "any".to_owned(),
        };
        if let Some(format) = schema["format"].as_str().filter(|format| !format.starts_with("int")) {
            let _ = write!(kind, " ({format})");
        }
        for (bound, sign) in [("minimum", "≥"), ("maximum", "≤")] {
            if let Some(limit) = schema[bound].as_number() {
                let _ = write!(kind, " {sign} {limit}");
            }
        }
        kind
    }

    /// The object that a schema means, if it means one.
    fn object(&self, schema: &'a Value) -> Option<&'a Value> {
        let schema = self.resolve(schema);
        if schema["properties"].is_object() {
            return Some(schema);
        }
        if schema["items"].is_object() {
            return self.object(&schema["items"]);
        }
        let several = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|name| schema[name].as_array()).flatten();
        several.filter_map(|one| self.object(one)).next()
    }

    fn fields(&self, out: &mut String, schema: &'a Value, depth: usize) {
        let Some(object) = self.object(schema).filter(|_| depth < DEPTH_MAX) else { return };
        let required = |name: &str| object["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
        out.push_str("<table><tr><th>Member<th>Type<th></tr>");
        let (first, then): (Vec<_>, Vec<_>) =
            object["properties"].as_object().into_iter().flatten().partition(|(name, _)| required(name));
        for (name, field) in first.into_iter().chain(then) {
            let _ = write!(
                out,
                "<tr><td><code>{}</code>{}<td>{}<td>",
                escape(name),
                if required(name) { " *" } else { "" },
                escape(&self.kind(field)),
            );
            let description = field["description"].as_str().or_else(|| field["oneOf"][0]["description"].as_str());
            let description = description.unwrap_or_else(|| text(&self.resolve(field)["description"]));
            inline(out, description);
            if self.object(field).is_some() {
                self.fields(out, field, depth + 1);
            }
            out.push_str("</tr>");
        }
        out.push_str("</table>");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn slug(name: &str) -> String {
    name.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn put(out: &mut String, before: &str, text: &str, after: &str) {
    out.push_str(before);
    out.push_str(&escape(text));
    out.push_str(after);
}

/// A paragraph.
fn markdown(out: &mut String, text: &str) {
    if !text.is_empty() {
        out.push_str("<p>");
        inline(out, text);
        out.push_str("</p>");
    }
}

/// The little of Markdown that descriptions use: `code` and **strong**.
fn inline(out: &mut String, text: &str) {
    for (n, part) in text.split('`').enumerate() {
        if n % 2 == 1 {
            put(out, "<code>", part, "</code>");
            continue;
        }
        for (n, part) in part.split("**").enumerate() {
            if n % 2 == 1 {
                put(out, "<strong>", part, "</strong>");
            } else {
                out.push_str(&escape(part));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_in_the_document_cannot_become_markup() {
        let evil = "<script>alert('x')</script>\" onload=\"";
        let document = json!({
            "info": {"title": evil, "version": evil, "description": evil},
            "tags": [{"name": evil, "description": evil}],
            "paths": {evil: {"get": {
                "tags": [evil], "operationId": "x", "summary": evil, "description": evil,
                "parameters": [{"name": evil, "in": evil, "schema": {"type": evil}, "description": evil}],
                "requestBody": {"content": {"application/json": {"schema": {"properties": {evil: {"enum": [evil]}}}, "example": evil}}},
                "responses": {"200": {"description": evil, "headers": {evil: {"description": evil}}}},
            }}},
        });
        let page = render(&document);
        assert!(!page.contains("<script") && !page.contains("\" onload"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
    }
}
