//! What platform admins say of chains, on top of chains.toml. Pure.

use time::OffsetDateTime;
use url::Url;

use super::spec::{ChainId, ChainSpec, RpcUrl};

/// One row: additions to a chain of the file, or a chain of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Which chain.
    pub chain_id: ChainId,
    /// Whether it signs anything new.
    pub is_enabled: bool,
    /// Instead of the file's.
    pub display_name: Option<String>,
    /// Instead of the file's.
    pub explorer_url: Option<Url>,
    /// Instead of all that the environment and the file name. None of them, where none of a row's can be used: what was replaced is not
    /// asked again because of that.
    pub nodes: Option<Vec<RpcUrl>>,
    /// All of a chain that the file does not have.
    pub own: Option<ChainSpec>,
    /// Withdrawn: nobody sees it, and what was signed on it is followed to its end.
    pub deleted: bool,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// A chain as it is with everything that is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The chain.
    pub spec: ChainSpec,
    /// Whether chains.toml has it: its id, name and ceilings are the file's.
    pub in_file: bool,
    /// Whether it signs anything new.
    pub is_enabled: bool,
    /// See [`Overlay::deleted`].
    pub deleted: bool,
    /// When the row was made and last changed, where there is one.
    pub times: Option<(OffsetDateTime, OffsetDateTime)>,
}

impl Effective {
    /// A chain of the file, of which nothing more is said.
    #[must_use]
    pub fn of_file(spec: ChainSpec) -> Self {
        Self { spec, in_file: true, is_enabled: true, deleted: false, times: None }
    }
}

/// The chains of the file with what the rows add, then the rows' own. The file wins: a row that claims a name or id of the file's for
/// another chain is left out, as is one that makes no sense, with a sentence for the log.
#[must_use]
pub fn effective(file: &[ChainSpec], rows: &[Overlay]) -> (Vec<Effective>, Vec<String>) {
    let mut faults = Vec::new();
    let mut chains: Vec<Effective> = file.iter().cloned().map(Effective::of_file).collect();
    for row in rows {
        let times = Some((row.created_at, row.updated_at));
        if let Some(chain) = chains.iter_mut().find(|chain| chain.spec.chain_id == row.chain_id) {
            let spec = &mut chain.spec;
            if let Some(name) = &row.display_name {
                spec.display_name.clone_from(name);
            }
            if let Some(url) = &row.explorer_url {
                spec.explorer_url = Some(url.clone());
            }
            if let Some(nodes) = &row.nodes {
                (spec.rpc_url, spec.rpc_urls) = (None, nodes.clone());
            }
            (chain.is_enabled, chain.times) = (row.is_enabled, times);
            continue;
        }
        // Additions to a chain that this daemon's file does not have.
        let Some(own) = &row.own else { continue };
        if let Some(other) = chains.iter().find(|chain| chain.spec.name == own.name) {
            faults.push(format!(
                "chain {} of the database is left out: chain {} has its name, {:?}",
                row.chain_id, other.spec.chain_id, own.name
            ));
            continue;
        }
        let wrong = own.faults();
        if !wrong.is_empty() {
            faults.push(format!("chain {} of the database is left out: {}", row.chain_id, wrong.join("; ")));
            continue;
        }
        let spec = ChainSpec { rpc_url: None, rpc_urls: row.nodes.clone().unwrap_or_default(), ..own.clone() };
        let (is_enabled, deleted) = (row.is_enabled, row.deleted);
        chains.push(Effective { spec, in_file: false, is_enabled, deleted, times });
    }
    (chains, faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn spec(name: &str, id: u64) -> ChainSpec {
        ChainSpec::local(name, ChainId(id), RpcUrl::parse("http://127.0.0.1:1").unwrap())
    }

    fn row(id: u64, own: Option<ChainSpec>) -> Overlay {
        let at = datetime!(2026-11-21 12:00 UTC);
        Overlay {
            chain_id: ChainId(id),
            is_enabled: true,
            display_name: None,
            explorer_url: None,
            nodes: None,
            own,
            deleted: false,
            created_at: at,
            updated_at: at,
        }
    }

    #[test]
    fn the_file_wins_for_id_name_and_ceilings() {
        let file = [spec("base", 8453)];
        let raised = ChainSpec { max_fee_per_gas_ceiling_wei: u128::from(u64::MAX), ..spec("cheap", 8453) };
        let rows = [
            Overlay { display_name: Some("Ours".to_owned()), is_enabled: false, ..row(8453, Some(raised)) },
            row(1, Some(spec("base", 1))),
            row(2, None),
            row(3, Some(ChainSpec { confirmations: 0, ..spec("three", 3) })),
            row(4, Some(spec("four", 4))),
        ];
        let (chains, faults) = effective(&file, &rows);
        let names: Vec<_> = chains.iter().map(|chain| (chain.spec.name.as_str(), chain.spec.chain_id.0)).collect();
        assert_eq!(names, [("base", 8453), ("four", 4)]);
        let base = &chains[0];
        assert_eq!(base.spec, ChainSpec { display_name: "Ours".to_owned(), ..file[0].clone() });
        assert!(base.in_file && !base.is_enabled);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(!chains[1].spec.has_node(), "a row's own URLs, or none");
    }

    #[test]
    fn the_nodes_of_a_row_take_the_place_of_all_others() {
        let url = |port: u16| RpcUrl::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let file = [ChainSpec { rpc_urls: vec![url(2), url(3)], ..spec("base", 8453) }];
        let nodes = |nodes: Option<Vec<RpcUrl>>| {
            let (chains, _) = effective(&file, &[Overlay { nodes, ..row(8453, None) }]);
            chains[0].spec.nodes()
        };
        assert_eq!(nodes(None), [url(1), url(2), url(3)]);
        assert_eq!(nodes(Some(vec![url(4)])), [url(4)]);
        assert_eq!(nodes(Some(vec![url(5), url(4)])), [url(5), url(4)]);
        assert_eq!(nodes(Some(Vec::new())), []);
    }
}
