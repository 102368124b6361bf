//! What the guardrails would say to a submit, as of now, with nothing reserved: for the simulate routes.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use serde_json::{Value, json};

use super::IntentError;
use super::calldata;
use super::effects::Effects;
use super::guardrails::{self, Facts, Seen, Violation, Window};
use super::parse::Request;
use super::store;
use crate::agents::Agent;
use crate::app::App;
use crate::chain::{ChainSpec, UnsignedTx};
use crate::money::Wei;
use crate::simulate::{Simulation, SimulationStatus};

/// The rules' answer.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The broken rules' texts.
    pub violations: Vec<String>,
}

impl Verdict {
    /// As the API shows it.
    #[must_use]
    pub fn show(&self) -> Value {
        json!({ "allowed": self.violations.is_empty(), "violations": self.violations })
    }
}

/// Judges some intents of one agent on one chain in order, each as if those before it had been submitted and not been refused.
pub struct Judge<'a> {
    app: &'a App,
    agent: &'a Agent,
    spec: &'a ChainSpec,
    windows: BTreeMap<String, Window>,
}

impl<'a> Judge<'a> {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(app: &'a App, agent: &'a Agent, spec: &'a ChainSpec) -> Self {
        Self { app, agent, spec, windows: BTreeMap::new() }
    }

    /// Judges the next one by what [`guardrails::judge`] judges every submit. `tx` is the transaction with its fee at most, where both are
    /// known.
    ///
    /// # Errors
    /// As any statement.
    pub async fn judge(
        &mut self,
        request: &Request,
        signer: Address,
        tx: Option<(&UnsignedTx, Wei)>,
        simulation: &Simulation,
    ) -> Result<Verdict, IntentError> {
        let (rules, spec) = (&self.agent.guardrails, self.spec);
        let calls = calldata::read(request.to, request.value.0, &request.data);
        let effects = Effects::of_simulation(simulation, signer);
        let seen = match simulation.status {
            SimulationStatus::Success => Seen::of(effects.as_ref()),
            // It would be refused for that already; which rule it would break if it went through, nobody knows.
            SimulationStatus::Reverted | SimulationStatus::Error => Seen::Later,
        };
        let facts = match tx {
            Some((tx, max_fee)) => Facts::of(&spec.name, tx, max_fee, &calls, seen),
            None => Facts {
                chain: &spec.name,
                chain_id: spec.chain_id,
                signer: Some(signer),
                calls: &calls,
                gas: None,
                seen,
            },
        };
        self.look(guardrails::charges(rules, &spec.spend_group, &facts).into_iter().map(|charge| charge.unit)).await?;
        let judged = guardrails::judge(rules, &spec.spend_group, &facts, |unit| self.windows.get(unit).copied());
        if judged.allows() {
            self.windows.extend(judged.charges.into_iter().map(|(charge, sums)| (charge.unit, sums)));
            return Ok(Verdict::default());
        }
        Ok(Verdict { violations: judged.violations().iter().map(Violation::to_string).collect() })
    }

    /// Looks at the windows that have not been looked at, without locking them.
    async fn look(&mut self, units: impl Iterator<Item = String>) -> Result<(), IntentError> {
        let units: Vec<String> = units.filter(|unit| !self.windows.contains_key(unit)).collect();
        if !units.is_empty() {
            self.windows.extend(store::peek_windows(&self.app.db, self.agent.id, &units).await?);
        }
        Ok(())
    }
}
