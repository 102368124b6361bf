//! `/device`, `/verify-email`, `/reset-password`, `/accept-invite`: the same page, which looks at its own address.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;

use crate::app::App;
use crate::http::extract::Peer;
use crate::http::problem::Problem;
use crate::http::routes::{Methods, Routes, get};

const PAGE: &str = include_str!("account.html");
const SCRIPT: &str = include_str!("account.js");
const STYLE: &str = include_str!("account.css");

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The pages: public, and without anything that is anybody's.
pub fn routes() -> Routes {
    let page = || file("text/html; charset=utf-8", PAGE);
    Routes::new()
        .route("/device", page())
        .route("/verify-email", page())
        .route("/reset-password", page())
        .route("/accept-invite", page())
        .route("/account.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/account.css", file("text/css; charset=utf-8", STYLE))
}

fn file(kind: &'static str, text: &'static str) -> Methods {
    get(move |State(app): State<Arc<App>>, Peer(peer): Peer| async move {
        app.limits.check_peer(peer)?;
        Ok::<_, Problem>((HEADERS, [(header::CONTENT_TYPE, kind)], text).into_response())
    })
}
