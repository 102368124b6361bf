//! The chains that platform admins add to those of chains.toml, and what they change of those. Rows decide; every daemon reads them again
//! every two seconds, and the one that has changed them at once.

pub mod api;
pub mod http;
pub mod rules;
pub mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::access::Principal;
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::chain::{Chain, ChainId, ChainSpec, NODES_MAX, Overlay, RpcUrl};
use crate::db::DbError;
use crate::hsm::{Envelope, HsmError};

use self::rules::{Definition, Fault, Request, URL_CHARS_MAX};
use self::store::Row;

/// How often the rows are read.
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// URLs that have been opened, by what was opened: a row that stays the same costs the HSM nothing. Held while the rows are read and
/// applied, so that no older reading is applied after a newer one.
#[derive(Default)]
pub struct Rows(tokio::sync::Mutex<HashMap<ChainId, (Envelope, Vec<RpcUrl>)>>);

/// Why a chain was not added or changed.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// Something in the request (400 or 422).
    #[error(transparent)]
    Fault(#[from] Fault),
    /// There is one of this id or name (409).
    #[error("{0}")]
    Exists(String),
    /// No such chain (404).
    #[error("no such chain; GET /v1/admin/chains lists them")]
    NotFound,
    /// chains.toml has it (409).
    #[error("chain {0} is in chains.toml and cannot be removed here: disable it with PUT and \"is_enabled\": false")]
    InFile(String),
    /// Whatever is at the URL, it did not answer as a node of the chain (422). One answer for everything that may be there: it is not
    /// for the caller to find out.
    #[error("rpc_url: at one of these URLs no node of chain {0} answers, so nothing was stored")]
    Node(ChainId),
    /// The URLs could not be sealed.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// Could not be done.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for ChainError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// What binds a sealed URL to its chain.
#[must_use]
pub fn associated_data(chain_id: ChainId) -> Vec<u8> {
    [b"intentd chain rpc url 1".as_slice(), &chain_id.0.to_be_bytes()].concat()
}

/// Reads the rows and lays them over chains.toml.
///
/// # Errors
/// When the rows cannot be read; then the chains stay as they are. A URL that cannot be opened leaves its chain without a node, which
/// signs nothing.
pub async fn refresh(app: &App) -> Result<(), DbError> {
    let mut opened = app.chain_rows.0.lock().await;
    let rows = store::list(&mut *app.db.acquire().await?).await?;
    let mut overlays: Vec<Overlay> = Vec::with_capacity(rows.len());
    for row in rows {
        let nodes = match &row.rpc {
            None => None,
            Some(sealed) => Some(match opened.get(&row.chain_id) {
                Some((same, nodes)) if same == sealed => nodes.clone(),
                _ => match open(app, row.chain_id, sealed).await {
                    Ok(nodes) => {
                        opened.insert(row.chain_id, (sealed.clone(), nodes.clone()));
                        nodes
                    }
                    Err(why) => {
                        tracing::warn!(chain_id = %row.chain_id, "the RPC URLs of a chain cannot be used: {why}");
                        Vec::new()
                    }
                },
            }),
        };
        overlays.push(row.overlay(nodes));
    }
    for fault in app.chains.apply(&overlays) {
        tracing::warn!("{fault}");
    }
    Ok(())
}

/// Those of a row's URLs that are allowed; one at least.
async fn open(app: &App, chain_id: ChainId, sealed: &Envelope) -> Result<Vec<RpcUrl>, String> {
    let text = app.hsm.open(&associated_data(chain_id), sealed).await.map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&text).map_err(|_| "it is not text".to_owned())?;
    // How long a URL may be is asked when it is stored: one that was there before that stays.
    let nodes: Vec<RpcUrl> =
        text.split_whitespace().filter_map(|text| RpcUrl::parse_guarded(text, app.outbound.rules())).collect();
    if text.split_whitespace().any(|text| text.len() > URL_CHARS_MAX) {
        tracing::warn!(%chain_id, "an RPC URL of a chain is longer than {URL_CHARS_MAX} characters: it is used, and has to be shorter when it is next set");
    }
    match (nodes.len(), text.split_whitespace().count()) {
        (0, _) => Err("none is, or is any longer, one that is allowed".to_owned()),
        (usable, all) => {
            if usable < all {
                tracing::warn!(%chain_id, usable, all, "some RPC URLs of a chain are not, or no longer, allowed");
            }
            Ok(nodes)
        }
    }
}

fn parse_url(app: &App, text: &str) -> Option<RpcUrl> {
    (text.len() <= URL_CHARS_MAX).then(|| RpcUrl::parse_guarded(text, app.outbound.rules())).flatten()
}

/// Reads the rows again and again until the daemon stops.
pub async fn keep_refreshing(app: Arc<App>) {
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(REFRESH_EVERY) => {}
        }
        if let Err(error) = refresh(&app).await {
            tracing::warn!(%error, "the chains of the database were not read; they stay as they are");
        }
    }
}

/// Here at once; the other daemons follow by themselves.
async fn refresh_now(app: &App) {
    if let Err(error) = refresh(app).await {
        tracing::warn!(%error, "the chains of the database were not read; they are read again in a moment");
    }
}

/// URLs whose nodes have all said that they serve this chain, sealed as one; none for none. Each is held against the rules of such URLs,
/// and asked by itself.
async fn seal_nodes(app: &App, definition: &Definition, texts: &[&str]) -> Result<Option<Envelope>, ChainError> {
    if texts.is_empty() {
        return Ok(None);
    }
    let nodes: Option<Vec<RpcUrl>> = texts.iter().map(|text| parse_url(app, text)).collect();
    let nodes = nodes.filter(|nodes| nodes.len() <= NODES_MAX).ok_or(Fault::RpcUrl)?;
    let chain_id = definition.chain_id();
    let asked = nodes.iter().map(|url| async move {
        let spec = ChainSpec { rpc_url: Some(url.clone()), ..definition.spec().clone() };
        let candidate = Chain::candidate(spec).map_err(|text| Fault::Invalid(format!("rpc_url: {text}")))?;
        if let Err(error) = candidate.rpc().await {
            tracing::info!(%chain_id, %error, "the RPC URL of a chain was refused");
            return Err(ChainError::Node(chain_id));
        }
        Ok(())
    });
    // All of them, so that the time does not tell which one it was.
    for answer in futures::future::join_all(asked).await {
        answer?;
    }
    let text = nodes.iter().map(RpcUrl::reveal).collect::<Vec<_>>().join(" ");
    Ok(Some(app.hsm.seal(&associated_data(chain_id), text.as_bytes()).await?))
}

/// A new chain. One that was removed comes back, as the same.
///
/// # Errors
/// [`ChainError`].
pub async fn create(app: &App, principal: &Principal, request: &Request) -> Result<Arc<Chain>, ChainError> {
    let definition = rules::define(request)?;
    let spec = definition.spec();
    let exists =
        || ChainError::Exists(format!("there is a chain of id {} or name {} already", spec.chain_id, spec.name));
    let in_file = |chain: &Arc<Chain>| chain.effective().in_file && chain.spec().name == spec.name;
    if app.chains.of_file(spec.chain_id).is_some() || app.chains.iter().any(|chain| in_file(&chain)) {
        return Err(exists());
    }
    let nodes = request.nodes().unwrap_or_default();
    let rpc = seal_nodes(app, &definition, &nodes).await?;
    let mut tx = app.db.begin().await?;
    let before = store::get_for_update(&mut tx, spec.chain_id).await?;
    if before.is_none() && !store::has_room(&mut tx).await? {
        return Err(Fault::TooMany.into());
    }
    let row = match before {
        Some(row) if !row.deleted => return Err(exists()),
        Some(row) => {
            rules::same_chain(&row.own.map(|own| own.spec().clone()).ok_or_else(exists)?, spec)?;
            Row { created_at: row.created_at, ..Row::of(&definition, request.is_enabled.unwrap_or(true), rpc) }
        }
        None => Row::of(&definition, request.is_enabled.unwrap_or(true), rpc),
    };
    store::put(&mut tx, &row).await.map_err(|error| match error {
        DbError::Duplicate(_) => exists(),
        error => error.into(),
    })?;
    let resource = Resource::new("chain", spec.chain_id);
    let event = Event::by(principal, "chain.create", resource);
    audit::record(&mut tx, event.with("chain", row.render()).with("rpc_url_count", nodes.len())).await?;
    tx.commit().await?;
    refresh_now(app).await;
    app.chains.by_id(spec.chain_id).ok_or(ChainError::NotFound)
}

/// Changes a chain: of one in chains.toml what is not the file's, of another everything but what makes it this chain.
///
/// # Errors
/// [`ChainError`].
pub async fn change(
    app: &App,
    principal: &Principal,
    chain: &Arc<Chain>,
    request: &Request,
) -> Result<Arc<Chain>, ChainError> {
    let chain_id = chain.spec().chain_id;
    let nodes = rules::changed_nodes(request)?;
    let rpc = seal_nodes(app, &Definition::of(chain.spec()), nodes.as_deref().unwrap_or_default()).await?;
    let mut tx = app.db.begin().await?;
    let held = store::get_for_update(&mut tx, chain_id).await?;
    let file = app.chains.of_file(chain_id);
    let before = match (held, file) {
        (Some(row), _) => row,
        (None, Some(spec)) => Row::over_file(spec),
        (None, None) => return Err(ChainError::NotFound),
    };
    let mut after = rules::change(&before, file, request)?;
    if nodes.is_some() {
        after.rpc = rpc;
    }
    store::put(&mut tx, &after).await?;
    let event = Event::by(principal, "chain.update", Resource::new("chain", chain_id))
        .with("before", before.render())
        .with("after", after.render())
        .with("rpc_url_changed", nodes.is_some())
        .with_some("rpc_url_count", nodes.as_ref().map(Vec::len));
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    refresh_now(app).await;
    app.chains.by_id(chain_id).ok_or(ChainError::NotFound)
}

/// Withdraws a chain: nobody sees it, nothing new is signed for it, and what was signed on it is followed to its end.
///
/// # Errors
/// [`ChainError`].
pub async fn remove(app: &App, principal: &Principal, chain: &Arc<Chain>) -> Result<(), ChainError> {
    let spec = chain.spec();
    if app.chains.of_file(spec.chain_id).is_some() {
        return Err(ChainError::InFile(spec.name.clone()));
    }
    let mut tx = app.db.begin().await?;
    let row = store::get_for_update(&mut tx, spec.chain_id).await?.filter(|row| !row.deleted);
    let before = row.ok_or(ChainError::NotFound)?;
    store::put(&mut tx, &Row { is_enabled: false, deleted: true, ..before.clone() }).await?;
    let resource = Resource::new("chain", spec.chain_id);
    audit::record(&mut tx, Event::by(principal, "chain.delete", resource).with("chain", before.render())).await?;
    tx.commit().await?;
    refresh_now(app).await;
    Ok(())
}
