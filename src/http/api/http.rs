//! `/openapi.json`, and `/docs` for people. Public: there is nothing in them that is anybody's.

use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;

use super::{Doc, Tag, document, page};
use crate::app::App;
use crate::http::extract::Peer;
use crate::http::problem::Problem;
use crate::http::routes::{Methods, Routes, get};

const STYLE: &str = include_str!("docs.css");

/// Nothing from elsewhere, no script, nothing inline, in nobody's frame.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "public, max-age=300"),
];

/// The routes.
pub fn routes() -> Routes {
    let docs = Doc::new(Tag::Pages, "getDocs", "This document as a page").public().file("text/html", "The page.");
    let style = Doc::new(Tag::Pages, "getDocsStyle", "How that page looks").public().file("text/css", "The file.");
    let own = Doc::new(Tag::Pages, "getOpenApi", "This document").public().reply::<super::schemas::JsonObject>(
        200,
        "The document (OpenAPI 3.1).",
        serde_json::json!({"openapi": "3.1.0"}),
    );
    Routes::new()
        .route("/openapi.json", file("application/json", document::text, own))
        .route("/docs", file("text/html; charset=utf-8", html, docs))
        .route("/docs.css", file("text/css; charset=utf-8", || STYLE, style))
}

fn html() -> &'static str {
    static HTML: OnceLock<String> = OnceLock::new();
    HTML.get_or_init(|| page::render(document::ours()))
}

fn file(kind: &'static str, text: fn() -> &'static str, doc: Doc) -> Methods {
    let reply = move |State(app): State<Arc<App>>, Peer(peer): Peer| async move {
        app.limits.check_peer(peer)?;
        Ok::<_, Problem>((HEADERS, [(header::CONTENT_TYPE, kind)], text()).into_response())
    };
    get(reply, doc)
}
