//! `/device`, `/verify-email`, `/reset-password`, `/accept-invite`: the same page, which looks at its own address.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;

use crate::app::App;
use crate::http::api::{Doc, Tag};
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
    let page = |id, summary| {
        let doc = Doc::new(Tag::Pages, id, summary).public().file("text/html", "The page.");
        file("text/html; charset=utf-8", PAGE, doc)
    };
    let part = |id, summary, kind| Doc::new(Tag::Pages, id, summary).public().file(kind, "The file.");
    let script = part("getAccountScript", "What the account pages run", "text/javascript");
    let style = part("getAccountStyle", "How the account pages look", "text/css");
    Routes::new()
        .route("/device", page("getDevicePage", "Where a human lets a program in"))
        .route("/verify-email", page("getVerifyEmailPage", "Where a human proves an email address"))
        .route("/reset-password", page("getResetPasswordPage", "Where a human chooses a new password"))
        .route("/accept-invite", page("getAcceptInvitePage", "Where a human joins an organisation"))
        .route("/account.js", file("text/javascript; charset=utf-8", SCRIPT, script))
        .route("/account.css", file("text/css; charset=utf-8", STYLE, style))
}

fn file(kind: &'static str, text: &'static str, doc: Doc) -> Methods {
    let reply = move |State(app): State<Arc<App>>, Peer(peer): Peer| async move {
        app.limits.check_peer(peer)?;
        Ok::<_, Problem>((HEADERS, [(header::CONTENT_TYPE, kind)], text).into_response())
    };
    get(reply, doc)
}
