//! Chains in the database.

use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use url::Url;

use super::rules::{Definition, ROWS_MAX, kind_str, parse_kind};
use crate::chain::{ChainId, ChainSpec, Overlay, RpcUrl};
use crate::db::DbError;
use crate::hsm::{Envelope, SealedDek};
use crate::ids::KekId;

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which chain.
    pub chain_id: ChainId,
    /// Its name, for good.
    pub name: String,
    /// Whether it signs anything new.
    pub is_enabled: bool,
    /// Instead of the file's; always there for a chain of its own.
    pub display_name: Option<String>,
    /// Instead of the file's.
    pub explorer_url: Option<Url>,
    /// All of it, for a chain of its own.
    pub own: Option<Definition>,
    /// Its nodes' URLs with spaces between, sealed as one.
    pub rpc: Option<Envelope>,
    /// Withdrawn.
    pub deleted: bool,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// When it was last changed; written by [`put`].
    pub updated_at: OffsetDateTime,
}

impl Row {
    /// A chain of its own.
    #[must_use]
    pub fn of(definition: &Definition, is_enabled: bool, rpc: Option<Envelope>) -> Self {
        let spec = definition.spec();
        let now = crate::clock::now();
        Self {
            chain_id: spec.chain_id,
            name: spec.name.clone(),
            is_enabled,
            display_name: Some(spec.display_name.clone()),
            explorer_url: spec.explorer_url.clone(),
            own: Some(definition.clone()),
            rpc,
            deleted: false,
            created_at: now,
            updated_at: now,
        }
    }

    /// Nothing added to a chain of the file yet.
    #[must_use]
    pub fn over_file(spec: &ChainSpec) -> Self {
        let now = crate::clock::now();
        Self {
            chain_id: spec.chain_id,
            name: spec.name.clone(),
            is_enabled: true,
            display_name: None,
            explorer_url: None,
            own: None,
            rpc: None,
            deleted: false,
            created_at: now,
            updated_at: now,
        }
    }

    /// As the registry takes it.
    #[must_use]
    pub fn overlay(self, nodes: Option<Vec<RpcUrl>>) -> Overlay {
        Overlay {
            chain_id: self.chain_id,
            is_enabled: self.is_enabled,
            display_name: self.display_name,
            explorer_url: self.explorer_url,
            nodes,
            own: self.own.map(|own| own.spec().clone()),
            deleted: self.deleted,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }

    /// For the audit trail: everything but the URL.
    #[must_use]
    pub fn render(&self) -> Value {
        let mut shown = json!({
            "chain_id": self.chain_id.0,
            "name": self.name,
            "is_enabled": self.is_enabled,
            "display_name": self.display_name,
            "explorer_url": self.explorer_url.as_ref().map(Url::as_str),
            "has_rpc_url": self.rpc.is_some(),
        });
        if let (Some(own), Value::Object(shown)) = (&self.own, &mut shown) {
            shown.extend(safety(own.spec()));
        }
        shown
    }
}

/// What of a chain keeps those safe who use it.
#[must_use]
pub fn safety(spec: &ChainSpec) -> serde_json::Map<String, Value> {
    let fields = json!({
        "kind": kind_str(spec.kind),
        "spend_group": spec.spend_group,
        "max_fee_per_gas_ceiling_wei": spec.max_fee_per_gas_ceiling_wei.to_string(),
        "max_gas_limit": spec.max_gas_limit,
        "confirmations": spec.confirmations,
        "sign_only_ttl_s": spec.sign_only_ttl_s,
        "block_time_ms": spec.block_time_ms,
        "rpc_deadline_ms": spec.rpc_deadline_ms,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

#[derive(FromRow)]
struct Columns {
    chain_id: i64,
    name: String,
    is_enabled: bool,
    display_name: Option<String>,
    explorer_url: Option<String>,
    kind: Option<String>,
    spend_group: Option<String>,
    native_currency: Option<String>,
    is_testnet: Option<bool>,
    max_fee_per_gas_ceiling_wei: Option<i64>,
    max_gas_limit: Option<i64>,
    confirmations: Option<i64>,
    sign_only_ttl_s: Option<i64>,
    block_time_ms: Option<i64>,
    rpc_deadline_ms: Option<i64>,
    rpc_kek_id: Option<KekId>,
    rpc_dek_iv: Option<Vec<u8>>,
    rpc_dek_sealed: Option<Vec<u8>>,
    rpc_nonce: Option<Vec<u8>>,
    rpc_ciphertext: Option<Vec<u8>>,
    deleted: bool,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl Columns {
    fn definition(&self) -> Option<Definition> {
        let number = |n: Option<i64>| u64::try_from(n?).ok();
        Some(Definition::of(&ChainSpec {
            name: self.name.clone(),
            display_name: self.display_name.clone()?,
            chain_id: ChainId(u64::try_from(self.chain_id).ok()?),
            kind: parse_kind(self.kind.as_deref()?)?,
            spend_group: self.spend_group.clone()?,
            native_currency: self.native_currency.clone()?,
            explorer_url: self.explorer_url.as_deref().and_then(|text| text.parse().ok()),
            is_testnet: self.is_testnet?,
            max_fee_per_gas_ceiling_wei: u128::from(number(self.max_fee_per_gas_ceiling_wei)?),
            max_gas_limit: number(self.max_gas_limit)?,
            confirmations: number(self.confirmations)?,
            sign_only_ttl_s: number(self.sign_only_ttl_s)?,
            block_time_ms: number(self.block_time_ms)?,
            rpc_deadline_ms: number(self.rpc_deadline_ms)?,
            // What a unit is worth is for chains.toml to say.
            usd_per_unit: None,
            usd_feed: None,
            // As chains.toml has them by default.
            bump_after_s: 90,
            bump_max: 8,
            rpc_url: None,
            rpc_urls: Vec::new(),
        }))
    }

    fn envelope(&self) -> Option<Envelope> {
        let dek = SealedDek {
            kek_id: self.rpc_kek_id?,
            iv: self.rpc_dek_iv.as_deref()?.try_into().ok()?,
            ciphertext: self.rpc_dek_sealed.clone()?,
        };
        let nonce = self.rpc_nonce.as_deref()?.try_into().ok()?;
        Some(Envelope { dek, nonce, ciphertext: self.rpc_ciphertext.clone()? })
    }

    fn row(self) -> Row {
        let (own, rpc) = (self.definition(), self.envelope());
        Row {
            chain_id: ChainId(self.chain_id.unsigned_abs()),
            name: self.name,
            is_enabled: self.is_enabled,
            display_name: self.display_name,
            explorer_url: self.explorer_url.and_then(|text| text.parse().ok()),
            own,
            rpc,
            deleted: self.deleted,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT chain_id, name, is_enabled, display_name, explorer_url, kind, spend_group, native_currency, is_testnet,
                    max_fee_per_gas_ceiling_wei, max_gas_limit, confirmations, sign_only_ttl_s, block_time_ms, rpc_deadline_ms,
                    rpc_kek_id, rpc_dek_iv, rpc_dek_sealed, rpc_nonce, rpc_ciphertext, deleted_at IS NOT NULL AS deleted,
                    created_at, updated_at FROM chains ",
            $tail
        )
    };
}

/// All rows, those that are withdrawn included.
///
/// # Errors
/// As any statement.
pub async fn list(conn: &mut PgConnection) -> Result<Vec<Row>, DbError> {
    let rows: Vec<Columns> =
        sqlx::query_as(select!("ORDER BY created_at, chain_id LIMIT $1")).bind(ROWS_MAX).fetch_all(conn).await?;
    Ok(rows.into_iter().map(Columns::row).collect())
}

/// A row, to change it.
///
/// # Errors
/// As any statement.
pub async fn get_for_update(conn: &mut PgConnection, chain_id: ChainId) -> Result<Option<Row>, DbError> {
    let row: Option<Columns> = sqlx::query_as(select!("WHERE chain_id = $1 FOR UPDATE"))
        .bind(i64::try_from(chain_id.0).unwrap_or(i64::MAX))
        .fetch_optional(conn)
        .await?;
    Ok(row.map(Columns::row))
}

/// Whether another row fits. Rows that are made at once may exceed it by as many; the list is cut all the same.
///
/// # Errors
/// As any statement.
pub async fn has_room(conn: &mut PgConnection) -> Result<bool, DbError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM chains").fetch_one(conn).await?;
    Ok(count < ROWS_MAX)
}

/// Writes a row, new or changed. The name stays.
///
/// # Errors
/// [`DbError::Duplicate`] when another chain has the name.
pub async fn put(conn: &mut PgConnection, row: &Row) -> Result<(), DbError> {
    let spec = row.own.as_ref().map(Definition::spec);
    let number = |of: fn(&ChainSpec) -> u64| spec.map(of).and_then(|n| i64::try_from(n).ok());
    let ceiling = spec.and_then(|spec| i64::try_from(spec.max_fee_per_gas_ceiling_wei).ok());
    let rpc = row.rpc.as_ref();
    sqlx::query(
        "INSERT INTO chains (chain_id, name, is_enabled, display_name, explorer_url, kind, spend_group, native_currency, is_testnet,
                             max_fee_per_gas_ceiling_wei, max_gas_limit, confirmations, sign_only_ttl_s, block_time_ms,
                             rpc_deadline_ms, rpc_kek_id, rpc_dek_iv, rpc_dek_sealed, rpc_nonce, rpc_ciphertext, deleted_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                 CASE WHEN $21 THEN now() END)
         ON CONFLICT (chain_id) DO UPDATE
            SET is_enabled = excluded.is_enabled, display_name = excluded.display_name, explorer_url = excluded.explorer_url,
                kind = excluded.kind, spend_group = excluded.spend_group, native_currency = excluded.native_currency,
                is_testnet = excluded.is_testnet, max_fee_per_gas_ceiling_wei = excluded.max_fee_per_gas_ceiling_wei,
                max_gas_limit = excluded.max_gas_limit, confirmations = excluded.confirmations,
                sign_only_ttl_s = excluded.sign_only_ttl_s, block_time_ms = excluded.block_time_ms,
                rpc_deadline_ms = excluded.rpc_deadline_ms, rpc_kek_id = excluded.rpc_kek_id, rpc_dek_iv = excluded.rpc_dek_iv,
                rpc_dek_sealed = excluded.rpc_dek_sealed, rpc_nonce = excluded.rpc_nonce,
                rpc_ciphertext = excluded.rpc_ciphertext, deleted_at = excluded.deleted_at, updated_at = now()",
    )
    .bind(i64::try_from(row.chain_id.0).unwrap_or(i64::MAX))
    .bind(&row.name)
    .bind(row.is_enabled)
    .bind(row.display_name.as_deref())
    .bind(row.explorer_url.as_ref().map(Url::as_str))
    .bind(spec.map(|spec| kind_str(spec.kind)))
    .bind(spec.map(|spec| spec.spend_group.as_str()))
    .bind(spec.map(|spec| spec.native_currency.as_str()))
    .bind(spec.map(|spec| spec.is_testnet))
    .bind(ceiling)
    .bind(number(|spec| spec.max_gas_limit))
    .bind(number(|spec| spec.confirmations))
    .bind(number(|spec| spec.sign_only_ttl_s))
    .bind(number(|spec| spec.block_time_ms))
    .bind(number(|spec| spec.rpc_deadline_ms))
    .bind(rpc.map(|rpc| rpc.dek.kek_id))
    .bind(rpc.map(|rpc| rpc.dek.iv.to_vec()))
    .bind(rpc.map(|rpc| rpc.dek.ciphertext.as_slice()))
    .bind(rpc.map(|rpc| rpc.nonce.to_vec()))
    .bind(rpc.map(|rpc| rpc.ciphertext.as_slice()))
    .bind(row.deleted)
    .execute(conn)
    .await?;
    Ok(())
}
