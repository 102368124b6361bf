//! What a transaction pays per gas: the request's numbers or the node's, never above a ceiling. Pure.
//!
//! The ceilings come from chains.toml and from the agent, so a node that lies about prices cannot drain a key.

use super::tx::Fees;

/// Prices as a node quotes them, in wei per gas. Not to be believed beyond the ceilings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeQuote {
    /// The latest block's base fee; `None` where the chain has none (before EIP-1559).
    pub base_fee: Option<u128>,
    /// `eth_gasPrice`.
    pub gas_price: u128,
    /// `eth_maxPriorityFeePerGas`; 0 where the node does not know the method.
    pub priority_fee: u128,
}

/// The fee fields of a request, in wei per gas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeeRequest {
    /// Asks for a legacy transaction.
    pub gas_price: Option<u128>,
    /// Asks for type 2.
    pub max_fee_per_gas: Option<u128>,
    /// Asks for type 2.
    pub max_priority_fee_per_gas: Option<u128>,
}

/// The most wei per gas that may be signed: the lower of the two holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// The chain's, from the registry.
    pub chain_wei: u128,
    /// The agent's guardrail, if it has one.
    pub agent_wei: Option<u128>,
}

impl Ceilings {
    fn lowest(self) -> (u128, CeilingOf) {
        match self.agent_wei {
            Some(agent) if agent < self.chain_wei => (agent, CeilingOf::Agent),
            _ => (self.chain_wei, CeilingOf::Chain),
        }
    }
}

/// Whose ceiling it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CeilingOf {
    /// The registry's.
    Chain,
    /// The agent's guardrail.
    Agent,
}

impl std::fmt::Display for CeilingOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Chain => "chain",
            Self::Agent => "agent",
        })
    }
}

/// Why no fees were chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeeError {
    /// The request contradicts itself.
    #[error(
        "gas_price asks for a legacy transaction and max_fee_per_gas or max_priority_fee_per_gas for type 2: give one or the other"
    )]
    BothKinds,
    /// The tip alone is above the cap on the sum.
    #[error("max_priority_fee_per_gas {tip} is above max_fee_per_gas {max_fee}")]
    TipAboveMax {
        /// The tip, in wei per gas.
        tip: u128,
        /// The cap, in wei per gas.
        max_fee: u128,
    },
    /// No block would take it now.
    #[error("the fee of {offered} wei per gas is below the chain's base fee of {base_fee}")]
    BelowBaseFee {
        /// What the request offers, in wei per gas.
        offered: u128,
        /// What the last block took, in wei per gas.
        base_fee: u128,
    },
    /// Type 2 on a chain without a base fee.
    #[error("this chain has no base fee: give gas_price instead of max_fee_per_gas")]
    NoBaseFee,
    /// The request asks for more than a rule allows.
    #[error("the fee of {offered} wei per gas is above the {of}'s ceiling of {ceiling}")]
    AboveCeiling {
        /// What the request offers, in wei per gas.
        offered: u128,
        /// The limit, in wei per gas.
        ceiling: u128,
        /// Whose limit.
        of: CeilingOf,
    },
    /// A replacement is of the type of what it replaces.
    #[error(
        "a replacement keeps the type of the transaction: give gas_price for a legacy transaction, max_fee_per_gas and max_priority_fee_per_gas for type 2"
    )]
    OtherType,
    /// No pool would take it in the place of what it has.
    #[error("{field} {offered} is too low to replace what was sent: pools ask for a tenth more, {least} at least")]
    TooLowToReplace {
        /// Which number.
        field: &'static str,
        /// What the request offers, in wei per gas.
        offered: u128,
        /// What it takes, in wei per gas.
        least: u128,
    },
    /// The request left the price to the node, and the node asks for more than a rule allows.
    #[error("the node asks more than the ceiling: {quoted} wei per gas, the {of}'s ceiling is {ceiling}")]
    QuoteAboveCeiling {
        /// What the node's numbers come to, in wei per gas.
        quoted: u128,
        /// The limit, in wei per gas.
        ceiling: u128,
        /// Whose limit.
        of: CeilingOf,
    },
}

/// Chooses type and price. `gas_price` gives a legacy transaction, a type 2 field gives type 2, none gives type 2 where the
/// chain has a base fee (max fee = 2 × base fee + tip) and legacy elsewhere.
///
/// # Errors
/// [`FeeError`]: the request contradicts itself, no block would take it, or it is above a ceiling.
pub fn choose(request: FeeRequest, quote: &FeeQuote, ceilings: Ceilings) -> Result<Fees, FeeError> {
    let FeeRequest { gas_price, max_fee_per_gas, max_priority_fee_per_gas: tip } = request;
    match (gas_price, max_fee_per_gas, tip, quote.base_fee) {
        (Some(_), Some(_), _, _) | (Some(_), _, Some(_), _) => Err(FeeError::BothKinds),
        (Some(gas_price), None, None, base_fee) => {
            within(gas_price, ceilings)?;
            covers(gas_price, base_fee.unwrap_or_default())?;
            Ok(Fees::Legacy { gas_price })
        }
        (None, None, None, None) => {
            quoted_within(quote.gas_price, ceilings)?;
            Ok(Fees::Legacy { gas_price: quote.gas_price })
        }
        (None, _, _, None) => Err(FeeError::NoBaseFee),
        (None, Some(max_fee), tip, Some(base_fee)) => {
            let tip = tip.unwrap_or_else(|| quote.priority_fee.min(max_fee));
            if tip > max_fee {
                return Err(FeeError::TipAboveMax { tip, max_fee });
            }
            within(max_fee, ceilings)?;
            covers(max_fee, base_fee)?;
            Ok(Fees::Eip1559 { max_fee_per_gas: max_fee, max_priority_fee_per_gas: tip })
        }
        (None, None, tip, Some(base_fee)) => {
            if let Some(tip) = tip {
                within(tip, ceilings)?;
            }
            let tip = tip.unwrap_or(quote.priority_fee);
            let max_fee = base_fee.saturating_mul(2).saturating_add(tip);
            quoted_within(max_fee, ceilings)?;
            Ok(Fees::Eip1559 { max_fee_per_gas: max_fee, max_priority_fee_per_gas: tip })
        }
    }
}

/// The fees of a replacement in the same slot: one eighth (12.5 %, rounded up) more on every number, as pools ask for, and
/// at least what a new transaction would pay now. The type stays.
///
/// # Errors
/// [`FeeError::AboveCeiling`] when one eighth more is too much. A quote above the ceiling only means that the quote is not
/// followed.
pub fn bump(fees: Fees, quote: &FeeQuote, ceilings: Ceilings) -> Result<Fees, FeeError> {
    let eighth_more = |wei: u128| wei.saturating_add(wei.div_ceil(8)).max(wei.saturating_add(1));
    let (ceiling, _) = ceilings.lowest();
    match fees {
        Fees::Legacy { gas_price } => {
            let least = eighth_more(gas_price);
            within(least, ceilings)?;
            let gas_price = if quote.gas_price <= ceiling { least.max(quote.gas_price) } else { least };
            Ok(Fees::Legacy { gas_price })
        }
        Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } => {
            let (least_max, least_tip) = (eighth_more(max_fee_per_gas), eighth_more(max_priority_fee_per_gas));
            within(least_max, ceilings)?;
            let now = choose(FeeRequest::default(), quote, ceilings);
            Ok(match now {
                Ok(Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas }) => Fees::Eip1559 {
                    max_fee_per_gas: least_max.max(max_fee_per_gas),
                    max_priority_fee_per_gas: least_tip
                        .max(max_priority_fee_per_gas)
                        .min(least_max.max(max_fee_per_gas)),
                },
                _ => Fees::Eip1559 { max_fee_per_gas: least_max, max_priority_fee_per_gas: least_tip.min(least_max) },
            })
        }
    }
}

/// The numbers that a replacement must outbid: of the attempts of one slot, any may be in a pool. `None` for none.
#[must_use]
pub fn highest(attempts: impl IntoIterator<Item = Fees>) -> Option<Fees> {
    attempts.into_iter().reduce(|a, b| match (a, b) {
        (
            Fees::Eip1559 { max_fee_per_gas: a_max, max_priority_fee_per_gas: a_tip },
            Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas },
        ) => Fees::Eip1559 {
            max_fee_per_gas: a_max.max(max_fee_per_gas),
            max_priority_fee_per_gas: a_tip.max(max_priority_fee_per_gas),
        },
        (Fees::Legacy { gas_price }, other) => Fees::Legacy { gas_price: gas_price.max(other.max_per_gas()) },
        (Fees::Eip1559 { .. }, Fees::Legacy { .. }) => b,
    })
}

/// The fees of a replacement whose caller names them, all or some; what is left out is as in [`bump`]. The type stays.
///
/// # Errors
/// [`FeeError`]: of the other type, too low for any pool, or above a ceiling.
pub fn bump_to(fees: Fees, wanted: FeeRequest, quote: &FeeQuote, ceilings: Ceilings) -> Result<Fees, FeeError> {
    let FeeRequest { gas_price, max_fee_per_gas: max_fee, max_priority_fee_per_gas: tip } = wanted;
    let enough = |field, offered: u128, before: u128| {
        let least = before.saturating_add(before.div_ceil(10)).max(before.saturating_add(1));
        if offered < least { Err(FeeError::TooLowToReplace { field, offered, least }) } else { Ok(()) }
    };
    match fees {
        _ if wanted == FeeRequest::default() => bump(fees, quote, ceilings),
        Fees::Legacy { gas_price: before } => {
            let (Some(gas_price), None, None) = (gas_price, max_fee, tip) else { return Err(FeeError::OtherType) };
            enough("gas_price", gas_price, before)?;
            within(gas_price, ceilings)?;
            covers(gas_price, quote.base_fee.unwrap_or_default())?;
            Ok(Fees::Legacy { gas_price })
        }
        Fees::Eip1559 { .. } if gas_price.is_some() => Err(FeeError::OtherType),
        Fees::Eip1559 { max_fee_per_gas: max_before, max_priority_fee_per_gas: tip_before } => {
            // What is named is judged by itself, before what is left out is made to fit it.
            let unbound = Ceilings { chain_wei: u128::MAX, agent_wei: None };
            let Fees::Eip1559 { max_fee_per_gas: own_max, max_priority_fee_per_gas: own_tip } =
                bump(fees, quote, unbound)?
            else {
                return Err(FeeError::OtherType);
            };
            let (ceiling, _) = ceilings.lowest();
            let least_max = max_before.saturating_add(max_before.div_ceil(8)).max(max_before.saturating_add(1));
            let max_fee_per_gas = match max_fee {
                Some(max_fee) => max_fee,
                None => own_max.min(ceiling).max(least_max).max(tip.unwrap_or_default()),
            };
            let max_priority_fee_per_gas = tip.unwrap_or_else(|| own_tip.min(max_fee_per_gas));
            enough("max_fee_per_gas", max_fee_per_gas, max_before)?;
            enough("max_priority_fee_per_gas", max_priority_fee_per_gas, tip_before)?;
            if max_priority_fee_per_gas > max_fee_per_gas {
                return Err(FeeError::TipAboveMax { tip: max_priority_fee_per_gas, max_fee: max_fee_per_gas });
            }
            within(max_fee_per_gas, ceilings)?;
            covers(max_fee_per_gas, quote.base_fee.unwrap_or_default())?;
            Ok(Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas })
        }
    }
}

/// Whether the market has moved above what a transaction pays: blocks would take others before it.
#[must_use]
pub fn is_below_market(fees: Fees, quote: &FeeQuote) -> bool {
    match fees {
        Fees::Legacy { gas_price } => gas_price < quote.gas_price,
        Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } => {
            max_priority_fee_per_gas < quote.priority_fee
                || max_fee_per_gas < quote.base_fee.unwrap_or_default().saturating_add(quote.priority_fee)
        }
    }
}

fn within(offered: u128, ceilings: Ceilings) -> Result<(), FeeError> {
    let (ceiling, of) = ceilings.lowest();
    if offered > ceiling { Err(FeeError::AboveCeiling { offered, ceiling, of }) } else { Ok(()) }
}

fn quoted_within(quoted: u128, ceilings: Ceilings) -> Result<(), FeeError> {
    let (ceiling, of) = ceilings.lowest();
    if quoted > ceiling { Err(FeeError::QuoteAboveCeiling { quoted, ceiling, of }) } else { Ok(()) }
}

fn covers(offered: u128, base_fee: u128) -> Result<(), FeeError> {
    if offered < base_fee { Err(FeeError::BelowBaseFee { offered, base_fee }) } else { Ok(()) }
}

/// What a no-op that takes over a nonce pays: what the market asks, and enough to replace bytes that may be in a pool, but never more
/// than the chain's ceiling. At the ceiling it may not replace them; then they are mined themselves, which closes the nonce too.
#[must_use]
pub fn noop_fees(current: Option<Fees>, fresh: Fees, ceiling_wei: u128) -> Fees {
    let bump = |wei: u128| wei.saturating_add(wei / 8).saturating_add(1);
    match (current, fresh) {
        (None, fresh) => fresh,
        (Some(Fees::Legacy { gas_price }), fresh) => {
            Fees::Legacy { gas_price: bump(gas_price).max(fresh.max_per_gas()).min(ceiling_wei) }
        }
        (Some(Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas }), fresh) => {
            let tip = match fresh {
                Fees::Eip1559 { max_priority_fee_per_gas, .. } => max_priority_fee_per_gas,
                Fees::Legacy { gas_price } => gas_price,
            };
            let max_fee_per_gas = bump(max_fee_per_gas).max(fresh.max_per_gas()).min(ceiling_wei);
            let max_priority_fee_per_gas = bump(max_priority_fee_per_gas).max(tip).min(max_fee_per_gas);
            Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUOTE: FeeQuote = FeeQuote { base_fee: Some(100), gas_price: 130, priority_fee: 20 };
    const OLD_CHAIN: FeeQuote = FeeQuote { base_fee: None, gas_price: 130, priority_fee: 0 };
    const CEILINGS: Ceilings = Ceilings { chain_wei: 1_000, agent_wei: None };

    fn request(gas_price: Option<u128>, max_fee_per_gas: Option<u128>, tip: Option<u128>) -> FeeRequest {
        FeeRequest { gas_price, max_fee_per_gas, max_priority_fee_per_gas: tip }
    }

    fn legacy(gas_price: u128) -> Fees {
        Fees::Legacy { gas_price }
    }

    fn typed(max_fee_per_gas: u128, max_priority_fee_per_gas: u128) -> Fees {
        Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas }
    }

    #[test]
    fn the_request_chooses_the_type_and_the_node_fills_the_gaps() {
        let table = [
            (request(None, None, None), QUOTE, typed(220, 20)),
            (request(None, None, None), OLD_CHAIN, legacy(130)),
            (request(Some(150), None, None), QUOTE, legacy(150)),
            (request(Some(150), None, None), OLD_CHAIN, legacy(150)),
            (request(None, Some(500), None), QUOTE, typed(500, 20)),
            (request(None, Some(500), Some(30)), QUOTE, typed(500, 30)),
            (request(None, Some(500), Some(0)), QUOTE, typed(500, 0)),
            (request(None, Some(500), Some(500)), QUOTE, typed(500, 500)),
            (request(None, Some(100), None), QUOTE, typed(100, 20)),
            (request(None, None, Some(30)), QUOTE, typed(230, 30)),
            (request(None, Some(1_000), None), QUOTE, typed(1_000, 20)),
            (request(Some(1_000), None, None), QUOTE, legacy(1_000)),
            // The node's tip never makes a transaction invalid.
            (request(None, Some(150), None), FeeQuote { priority_fee: 900, ..QUOTE }, typed(150, 150)),
        ];
        for (request, quote, fees) in table {
            assert_eq!(choose(request, &quote, CEILINGS), Ok(fees), "{request:?}");
        }
    }

    #[test]
    fn contradictions_hopeless_fees_and_the_wrong_type_are_errors() {
        let table = [
            (request(Some(150), Some(150), None), QUOTE, FeeError::BothKinds),
            (request(Some(150), None, Some(1)), QUOTE, FeeError::BothKinds),
            (request(Some(150), Some(150), Some(1)), OLD_CHAIN, FeeError::BothKinds),
            (request(None, Some(150), Some(151)), QUOTE, FeeError::TipAboveMax { tip: 151, max_fee: 150 }),
            (request(None, Some(99), None), QUOTE, FeeError::BelowBaseFee { offered: 99, base_fee: 100 }),
            (request(Some(99), None, None), QUOTE, FeeError::BelowBaseFee { offered: 99, base_fee: 100 }),
            (request(None, Some(150), None), OLD_CHAIN, FeeError::NoBaseFee),
            (request(None, None, Some(1)), OLD_CHAIN, FeeError::NoBaseFee),
        ];
        for (request, quote, error) in table {
            assert_eq!(choose(request, &quote, CEILINGS), Err(error), "{request:?}");
        }
    }

    #[test]
    fn threat_15_the_lower_of_the_two_ceilings_holds_and_is_named() {
        let strict = Ceilings { agent_wei: Some(400), ..CEILINGS };
        let loose = Ceilings { agent_wei: Some(4_000), ..CEILINGS };
        let table = [
            (request(None, Some(1_001), None), CEILINGS, 1_000, CeilingOf::Chain),
            (request(Some(1_001), None, None), CEILINGS, 1_000, CeilingOf::Chain),
            (request(None, Some(1_001), None), loose, 1_000, CeilingOf::Chain),
            (request(None, Some(401), None), strict, 400, CeilingOf::Agent),
            (request(Some(401), None, None), strict, 400, CeilingOf::Agent),
            (request(None, None, Some(401)), strict, 400, CeilingOf::Agent),
        ];
        for (request, ceilings, ceiling, of) in table {
            let offered = ceiling + 1;
            assert_eq!(choose(request, &QUOTE, ceilings), Err(FeeError::AboveCeiling { offered, ceiling, of }));
        }
    }

    #[test]
    fn threat_14_a_quote_above_the_ceiling_is_the_nodes_fault_and_is_refused() {
        let quotes = [
            FeeQuote { base_fee: Some(500), ..QUOTE },
            FeeQuote { priority_fee: 801, ..QUOTE },
            FeeQuote { base_fee: Some(u128::MAX), priority_fee: u128::MAX, gas_price: 0 },
            FeeQuote { gas_price: 1_001, ..OLD_CHAIN },
        ];
        for quote in quotes {
            let error = choose(FeeRequest::default(), &quote, CEILINGS).unwrap_err();
            assert!(matches!(error, FeeError::QuoteAboveCeiling { ceiling: 1_000, .. }), "{quote:?}: {error:?}");
        }
        // And does not matter where the request has said its own.
        let lie = FeeQuote { priority_fee: u128::MAX, gas_price: u128::MAX, ..QUOTE };
        assert_eq!(choose(request(None, Some(300), Some(1)), &lie, CEILINGS), Ok(typed(300, 1)));
    }

    #[test]
    fn a_replacement_pays_an_eighth_more_or_todays_price() {
        let table = [
            (typed(400, 40), QUOTE, typed(450, 45)),
            (typed(401, 41), QUOTE, typed(452, 47)),
            (typed(100, 10), QUOTE, typed(220, 20)),
            (typed(400, 0), QUOTE, typed(450, 20)),
            (legacy(80), QUOTE, legacy(130)),
            (legacy(800), QUOTE, legacy(900)),
            // A quote above the ceiling is not followed.
            (legacy(800), FeeQuote { gas_price: 1_001, ..QUOTE }, legacy(900)),
            (typed(400, 40), FeeQuote { priority_fee: 5_000, ..QUOTE }, typed(450, 45)),
        ];
        for (fees, quote, bumped) in table {
            assert_eq!(bump(fees, &quote, CEILINGS), Ok(bumped), "{fees:?}");
        }
        assert!(matches!(bump(legacy(889), &QUOTE, CEILINGS), Err(FeeError::AboveCeiling { offered: 1_001, .. })));
        assert!(matches!(bump(typed(900, 1), &QUOTE, CEILINGS), Err(FeeError::AboveCeiling { .. })));
    }

    prop_compose! {
        fn any_case()(
            fields in any::<(Option<u128>, Option<u128>, Option<u128>)>(), small: bool,
            quote in any::<(Option<u128>, u128, u128)>(), ceilings in any::<(u128, Option<u128>)>(),
        ) -> (FeeRequest, FeeQuote, Ceilings) {
            // Small numbers meet each other's bounds more often than large ones do.
            let cut = |wei: u128| if small { wei % 2_000 } else { wei };
            let (gas_price, max_fee_per_gas, tip) = fields;
            (
                request(gas_price.map(cut), max_fee_per_gas.map(cut), tip.map(cut)),
                FeeQuote { base_fee: quote.0.map(cut), gas_price: cut(quote.1), priority_fee: cut(quote.2) },
                Ceilings { chain_wei: cut(ceilings.0), agent_wei: ceilings.1.map(cut) },
            )
        }
    }

    #[test]
    fn a_no_op_replaces_what_is_out_there_and_never_passes_the_ceiling() {
        let fees = |max, tip| Fees::Eip1559 { max_fee_per_gas: max, max_priority_fee_per_gas: tip };
        assert_eq!(noop_fees(None, fees(10, 1), 100), fees(10, 1));
        assert_eq!(noop_fees(Some(fees(80, 8)), fees(10, 1), 100), fees(91, 10));
        // Signed at the ceiling itself: the nonce can still be closed.
        assert_eq!(noop_fees(Some(fees(100, 100)), fees(10, 1), 100), fees(100, 100));
        assert_eq!(noop_fees(Some(Fees::Legacy { gas_price: 100 }), fees(10, 1), 100), Fees::Legacy { gas_price: 100 });
    }

    proptest! {
        #[test]
        fn threat_14_nothing_is_ever_chosen_above_a_ceiling((request, quote, ceilings) in any_case()) {
            let most = ceilings.chain_wei.min(ceilings.agent_wei.unwrap_or(u128::MAX));
            let Ok(fees) = choose(request, &quote, ceilings) else { return Ok(()) };
            for fees in [Ok(fees), bump(fees, &quote, ceilings)].into_iter().flatten() {
                prop_assert!(fees.max_per_gas() <= most);
                if let Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } = fees {
                    prop_assert!(max_priority_fee_per_gas <= max_fee_per_gas);
                }
            }
        }

        #[test]
        fn a_replacement_is_always_an_eighth_more((request, quote, ceilings) in any_case()) {
            let Ok(fees) = choose(request, &quote, ceilings) else { return Ok(()) };
            let Ok(bumped) = bump(fees, &quote, ceilings) else { return Ok(()) };
            let enough = |old: u128, new: u128| new > old && new - old >= old.div_ceil(8);
            match (fees, bumped) {
                (Fees::Legacy { gas_price: old }, Fees::Legacy { gas_price: new }) => prop_assert!(enough(old, new)),
                (
                    Fees::Eip1559 { max_fee_per_gas: old, max_priority_fee_per_gas: old_tip },
                    Fees::Eip1559 { max_fee_per_gas: new, max_priority_fee_per_gas: new_tip },
                ) => prop_assert!(enough(old, new) && enough(old_tip, new_tip)),
                _ => prop_assert!(false, "the type changed"),
            }
        }
    }

    #[test]
    fn a_replacement_outbids_every_attempt_and_keeps_its_type() {
        assert_eq!(highest([]), None);
        assert_eq!(highest([typed(200, 10), typed(150, 30)]), Some(typed(200, 30)));
        assert_eq!(highest([legacy(100), legacy(90)]), Some(legacy(100)));
        type Case = (Fees, FeeRequest, Result<Fees, &'static str>);
        let table: [Case; 14] = [
            (typed(220, 20), request(None, None, None), Ok(typed(248, 23))),
            (legacy(200), request(None, None, None), Ok(legacy(225))),
            (typed(220, 20), request(None, Some(500), Some(30)), Ok(typed(500, 30))),
            (typed(220, 20), request(None, Some(500), None), Ok(typed(500, 23))),
            (typed(220, 20), request(None, None, Some(30)), Ok(typed(248, 30))),
            (typed(220, 20), request(None, None, Some(400)), Ok(typed(400, 400))),
            (typed(220, 20), request(None, Some(242), Some(22)), Ok(typed(242, 22))),
            (typed(220, 20), request(None, Some(241), Some(22)), Err("max_fee_per_gas 241 is too low")),
            (typed(220, 20), request(None, Some(242), Some(21)), Err("max_priority_fee_per_gas 21 is too low")),
            (typed(220, 20), request(None, Some(300), Some(301)), Err("is above max_fee_per_gas")),
            (typed(220, 20), request(None, Some(1_001), None), Err("ceiling of 1000")),
            (typed(220, 20), request(Some(500), None, None), Err("keeps the type")),
            (legacy(200), request(None, Some(500), None), Err("keeps the type")),
            (legacy(200), request(Some(1_001), None, None), Err("ceiling of 1000")),
        ];
        for (before, wanted, expected) in table {
            match (bump_to(before, wanted, &QUOTE, CEILINGS), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{before:?} {wanted:?}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, _) => panic!("{before:?} {wanted:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_transaction_is_below_the_market_when_blocks_would_take_others() {
        for (fees, below) in [
            (typed(120, 20), false),
            (typed(119, 20), true),
            (typed(500, 19), true),
            (legacy(130), false),
            (legacy(129), true),
        ] {
            assert_eq!(is_below_market(fees, &QUOTE), below, "{fees:?}");
        }
    }
}
