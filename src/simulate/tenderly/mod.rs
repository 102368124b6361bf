//! A client for Tenderly's simulation API, as Tenderly and `intentd simulator` serve it: one simulation, or a bundle in order.
//!
//! - [`wire`]: what is sent and read; tolerant of every form that was seen.
//! - [`read`]: pure: from an answer to what moved. What is in it is held against what was asked: an answer about another transaction is
//!   none.
//! - [`transport`]: HTTP: bounded in time and size, one retry where nothing was reached.
//!
//! The access key goes into one header and nowhere else. What went wrong is in the log alone.

pub mod read;
mod transport;
pub mod wire;

use std::fmt;

use serde::{Deserialize, Deserializer};
use url::Url;

pub use transport::Client;

use self::transport::{Failure, Reply};
use super::call::Call;
use super::node::words::end_of;
use super::node::{End, Outcome, Run};
use super::{Method, SimulateError};
use crate::chain::{ChainSpec, UnsignedTx};
use crate::config::Secret;

/// How often one of our unmined transactions that would revert is left out before we give up: each costs a request.
const LEFT_OUT_MAX: usize = 2;

/// A name in a URL's path: 1 to 64 letters, digits, `-`, `_` and `.`, not only dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slug(String);

impl Slug {
    /// `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && text.bytes().any(|b| b != b'.');
        good.then(|| Self(text.to_owned()))
    }

    /// What a simulator on this machine calls its only account and project.
    #[must_use]
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Slug {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("must be 1 to 64 letters, digits, '-', '_' and '.'"))
    }
}

/// An account at the service.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The account.
    pub account: Slug,
    /// The project.
    pub project: Slug,
    /// The key. `Debug` does not show it.
    pub access_key: Secret,
}

/// A client with an account.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where.
    pub client: Client,
    /// As whom.
    pub credentials: Credentials,
    /// Whether the service keeps the simulations.
    pub save: bool,
}

impl Session {
    /// Where a person looks at a simulation.
    fn dashboard_url(&self, id: &str) -> Option<String> {
        let Credentials { account, project, .. } = &self.credentials;
        let mut url: Url = self.client.dashboard().clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend([account.as_str(), project.as_str(), "simulator", id]);
        Some(url.into())
    }
}

/// Runs `prior` and then `calls`, each on the state that the one before left.
pub(super) async fn run(
    session: &Session,
    spec: &ChainSpec,
    prior: &[UnsignedTx],
    calls: Vec<Call>,
) -> Result<Run, SimulateError> {
    let mut first: Vec<Call> = prior.iter().map(|tx| Call::from(tx).unpaid()).collect();
    for _ in 0..=LEFT_OUT_MAX {
        let outcomes = match (first.as_slice(), calls.as_slice()) {
            ([], [call]) => single(session, spec, call).await?,
            _ => bundle(session, spec, &first, &calls).await?,
        };
        // A bundle stops at its first failure. One of ours that reverts changes nothing for the others: go on without it.
        match outcomes.iter().take(first.len()).position(|outcome| !outcome.succeeded()) {
            Some(index) if !matches!(outcomes[index].end, End::Refused(..)) => {
                first.remove(index);
            }
            _ => return Run::new(Method::Tenderly, first.len(), outcomes),
        }
    }
    tracing::warn!(chain = %spec.name, "several unmined transactions of a key would revert: the simulator stops at each");
    Err(SimulateError::Simulator { retry_after_s: 5 })
}

async fn single(session: &Session, spec: &ChainSpec, call: &Call) -> Result<Vec<Outcome>, SimulateError> {
    let request = wire::SimulateRequest::new(spec.chain_id.0, call, session.save);
    let answer = ask(session, spec, "simulate", &request).await?;
    let result = match answer {
        Ok(body) => read_body::<wire::Simulated>(session, spec, &body)?,
        Err(refused) => return Ok(vec![refused]),
    };
    Ok(vec![read_outcome(session, spec, call, &result)?])
}

/// A bundle that holds one that cannot start is refused as a whole, without a word which one it is: it is looked for by halving.
async fn bundle(
    session: &Session,
    spec: &ChainSpec,
    first: &[Call],
    calls: &[Call],
) -> Result<Vec<Outcome>, SimulateError> {
    let all: Vec<&Call> = first.iter().chain(calls).collect();
    let mut refused = match attempt(session, spec, &all, first.len()).await? {
        Ok(outcomes) => return Ok(outcomes),
        Err(refused) => refused,
    };
    // `start` of them can start, `end` of them cannot.
    let (mut start, mut end, mut good) = (0, all.len(), Vec::new());
    while end - start > 1 {
        let half = start + (end - start) / 2;
        match attempt(session, spec, &all[..half], first.len()).await? {
            Ok(outcomes) if !outcomes.iter().all(Outcome::succeeded) => return Ok(outcomes),
            Ok(outcomes) => (start, good) = (half, outcomes),
            Err(outcome) => (end, refused) = (half, outcome),
        }
    }
    good.push(refused);
    Ok(good)
}

/// One request for all of them, of which the first `prior` are not kept for people; or that it cannot start.
async fn attempt(
    session: &Session,
    spec: &ChainSpec,
    all: &[&Call],
    prior: usize,
) -> Result<Result<Vec<Outcome>, Outcome>, SimulateError> {
    let requests = all
        .iter()
        .enumerate()
        .map(|(index, call)| wire::SimulateRequest::new(spec.chain_id.0, call, session.save && index >= prior));
    let request = wire::BundleRequest { simulations: requests.collect() };
    let answer = ask(session, spec, "simulate-bundle", &request).await?;
    let results = match answer {
        Ok(body) => read_body::<wire::BundleSimulated>(session, spec, &body)?.simulation_results,
        Err(refused) => return Ok(Err(refused)),
    };
    if results.is_empty() || results.len() > all.len() {
        return Err(unusable(session, spec, Failure::Garbage("another number of results than of transactions")));
    }
    let outcomes: Vec<Outcome> = all
        .iter()
        .zip(&results)
        .map(|(call, result)| read_outcome(session, spec, call, result))
        .collect::<Result<_, _>>()?;
    // It may stop early only where something failed.
    if outcomes.len() < all.len() && outcomes.iter().all(Outcome::succeeded) {
        return Err(unusable(session, spec, Failure::Garbage("it stopped before a failure")));
    }
    Ok(Ok(outcomes))
}

/// The body of an answer; or, where the service says that the transaction cannot start, that.
async fn ask(
    session: &Session,
    spec: &ChainSpec,
    route: &str,
    request: &impl serde::Serialize,
) -> Result<Result<Vec<u8>, Outcome>, SimulateError> {
    let reply = session.client.post(&session.credentials, route, request).await;
    match reply.map_err(|failure| unusable(session, spec, failure))? {
        Reply::Simulated(body) => Ok(Ok(body)),
        Reply::Refused { slug, message } => match end_of(&message) {
            // That it would revert is a result and never an HTTP error.
            Some(end @ End::Refused(..)) => Ok(Err(Outcome::ended(end))),
            _ => Err(unusable(session, spec, Failure::Refused { slug, message })),
        },
    }
}

fn read_body<T: for<'de> Deserialize<'de>>(
    session: &Session,
    spec: &ChainSpec,
    body: &[u8],
) -> Result<T, SimulateError> {
    serde_json::from_slice(body).map_err(|_| unusable(session, spec, Failure::Garbage("not the JSON of a simulation")))
}

fn read_outcome(
    session: &Session,
    spec: &ChainSpec,
    call: &Call,
    result: &wire::Simulated,
) -> Result<Outcome, SimulateError> {
    let mut outcome =
        read::outcome(result, spec.chain_id.0, call).map_err(|what| unusable(session, spec, Failure::Garbage(what)))?;
    if session.save {
        outcome.dashboard_url = outcome.id.and_then(|id| session.dashboard_url(&id.to_string()));
    }
    Ok(outcome)
}

/// The cause goes to the log, here alone.
fn unusable(session: &Session, spec: &ChainSpec, failure: Failure) -> SimulateError {
    let Credentials { account, project, .. } = &session.credentials;
    tracing::warn!(chain = %spec.name, %account, %project, cause = %failure, "the simulator gave no usable answer");
    SimulateError::Simulator { retry_after_s: failure.retry_after_s() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_stays_one_segment_of_a_path() {
        for good in ["acme", "my-project_2", "v1.0"] {
            assert_eq!(Slug::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a?b", "a#b", "a%2fb", "ä", "a b", &"x".repeat(65)] {
            assert_eq!(Slug::parse(bad), None, "{bad}");
        }
    }
}
