//! What the guardrails would say to a submit, as of now, with nothing reserved: for the simulate routes.

use serde_json::{Value, json};

use super::error::IntentError;
use super::guardrails::{self, Facts, Violation, Window};
use super::parse::Request;
use super::store;
use crate::agents::Agent;
use crate::app::App;
use crate::chain::ChainSpec;
use crate::money::Wei;
use crate::simulate::Simulation;

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

/// Judges some intents of one agent on one chain in order, each as if those before it had been submitted.
pub struct Judge<'a> {
    agent: &'a Agent,
    spec: &'a ChainSpec,
    window: Window,
}

impl<'a> Judge<'a> {
    /// Looks at the agent's window without locking it.
    ///
    /// # Errors
    /// As any statement.
    pub async fn new(app: &App, agent: &'a Agent, spec: &'a ChainSpec) -> Result<Self, IntentError> {
        let window = store::peek_window(&app.db, agent.id, &spec.spend_group).await?;
        Ok(Self { agent, spec, window })
    }

    /// Judges the next one. `gas` is the limit and the fee at most, where they are known; `_simulation` what it would do.
    pub fn judge(&mut self, request: &Request, gas: Option<(u64, Wei)>, _simulation: Option<&Simulation>) -> Verdict {
        let rules = &self.agent.guardrails;
        let facts = Facts { chain: &self.spec.name, to: request.to, value: request.value, gas };
        let mut violations = guardrails::check(rules, &facts);
        match guardrails::check_window(rules, self.window, request.value, gas.map_or(Wei::ZERO, |(_, fee)| fee)) {
            Ok(sums) => self.window = sums,
            Err(broken) => violations.extend(broken),
        }
        Verdict { violations: violations.iter().map(Violation::to_string).collect() }
    }
}
