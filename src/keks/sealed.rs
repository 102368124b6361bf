//! Everything but vaults' secrets that the `data` key seals. A table that has a column for a key of the token and stands neither here nor
//! among what the rotation knows by itself keeps its old key from ever being retired, and a test finds it.

use super::store::SealedTable;
use crate::chain::ChainId;
use crate::ids::MailId;
use crate::{mail, platform, users, webhooks};

/// The tables.
pub const TABLES: &[SealedTable] = &[
    SealedTable {
        table: "chains",
        key: "chain_id",
        prefix: "rpc_",
        bound: &["chain_id"],
        aad: |bound| Some(platform::chains::associated_data(ChainId(bound[0].parse().ok()?))),
    },
    SealedTable {
        table: "second_factors",
        key: "user_id",
        prefix: "",
        bound: &["org_id", "user_id"],
        aad: |bound| Some(users::mfa::associated_data(bound[0].parse().ok()?, bound[1].parse().ok()?)),
    },
    SealedTable {
        table: "mail_outbox",
        key: "id",
        prefix: "",
        bound: &["id", "recipient"],
        aad: |bound| Some(mail::associated_data(bound[0].parse::<MailId>().ok()?, &bound[1])),
    },
    SealedTable {
        table: "webhooks",
        key: "id",
        prefix: "",
        bound: &["org_id", "id"],
        aad: |bound| Some(webhooks::associated_data(bound[0].parse().ok()?, bound[1].parse().ok()?)),
    },
];
