//! `/v1/org/…`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::store;
use crate::access::http::require;
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::Resource;
use crate::clock::rfc3339;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get};

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new().route("/v1/org/members", get(members))
}

async fn members(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::MemberList, Resource::kind("member")).await?;
    let mut conn = app.db.acquire().await?;
    let members = store::members(&mut conn, principal.org_id).await?;
    let members: Vec<Value> = members
        .iter()
        .map(|member| {
            json!({
                "id": member.id,
                "email": member.email,
                "display_name": member.display_name,
                "role": member.role,
                "auth_method": "api_key",
                "created_at": rfc3339(member.created_at),
            })
        })
        .collect();
    Ok(Json(json!({ "members": members })))
}
