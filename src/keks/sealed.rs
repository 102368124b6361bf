//! Everything but vaults' secrets that the `data` key seals. A table that has a column for a key of the token and stands neither here nor
//! among what the rotation knows by itself keeps its old key from ever being retired, and a test finds it.

use super::store::SealedTable;
use crate::chain::ChainId;
use crate::platform;

/// The tables.
pub const TABLES: &[SealedTable] = &[SealedTable {
    table: "chains",
    key: "chain_id",
    prefix: "rpc_",
    bound: &["chain_id"],
    aad: |bound| Some(platform::chains::associated_data(ChainId(bound[0].parse().ok()?))),
}];
