//! Agents that enrol themselves: anybody may ask, and the credentials go to nobody but the human whose address was named.
//!
//! Such an agent may do nothing until that human, or who manages the organisation, grants something. Those whose key nobody has used
//! are bounded for each human and go after some days, so that nobody's organisation is filled by strangers.

use std::net::IpAddr;

use time::Duration;
use zeroize::Zeroizing;

use super::identity::Identity;
use super::{Agent, store};
use crate::access;
use crate::access::throttle::{self, Throttle};
use crate::access::tokens::{KeyKind, PlainKey};
use crate::app::App;
use crate::audit::{self, Actor, Event, Resource};
use crate::db::DbError;
use crate::hsm::HsmError;
use crate::ids::{AgentId, OrgId};
use crate::mail::{self, Letter};
use crate::orgs::{self, limits, limits::LimitError};
use crate::vaults::secrets::SecretError;

/// Most agents that wait for their first use, for each human.
const UNCLAIMED_MAX: i64 = 5;
/// One that was never used goes after this many days, when the next one comes.
const UNCLAIMED_DAYS: i32 = 7;

/// Who asks for what.
pub struct Enrolment {
    /// The agent's name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whose it is to be: an address in lower case.
    pub email: String,
    /// From where it is asked.
    pub ip: Option<IpAddr>,
}

/// An enrolment with all that takes the same time for everybody.
pub struct Prepared {
    enrolment: Enrolment,
    id: AgentId,
    key: PlainKey,
    identity: Identity,
}

/// Makes the agent's keys, whether or not there will be an agent.
///
/// # Errors
/// Any [`HsmError`].
pub async fn prepare(app: &App, enrolment: Enrolment) -> Result<Prepared, HsmError> {
    let key = PlainKey::mint(KeyKind::Agent, &*app.hsm.random::<32>().await?);
    Ok(Prepared { enrolment, id: AgentId::random(), key, identity: Identity::make(&app.hsm).await? })
}

impl Prepared {
    /// What the limit per address is kept by.
    #[must_use]
    pub fn throttle_key(&self) -> [u8; 32] {
        throttle::key(&[self.enrolment.email.as_bytes()])
    }

    /// Does it, after the reply. An enrolment that fails may be asked for again at once.
    pub async fn finish(self, app: &App) {
        let (id, key) = (self.id, self.throttle_key());
        let Err(error) = self.store(app).await else { return };
        tracing::error!(agent = %id, error = %crate::http::problem::chain(&error), "an enrolment failed");
        if let Ok(mut conn) = app.db.acquire().await
            && let Err(error) = throttle::store::forget(&mut conn, Throttle::Enroll, key).await
        {
            tracing::warn!(%error, "its address has to wait before the next one");
        }
    }

    async fn store(self, app: &App) -> Result<(), SecretError> {
        let Self { enrolment, id, key, identity } = self;
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        let Some((_, org_id)) = orgs::store::human_by_email(&mut conn, &enrolment.email, false).await? else {
            return Ok(());
        };
        drop(conn);
        let identity = identity.seal(app, org_id, id).await?;
        let letter = mail::seal(&app.hsm, letter(&enrolment, (id, org_id), &key)).await?;

        let event = |actor: Actor, action: &'static str, resource: Resource| {
            let by = Event { org_id: Some(org_id), ip: enrolment.ip, ..Event::new(actor, action, resource) };
            by.with("human_email", enrolment.email.as_str())
        };
        let mut tx = app.db.begin().await.map_err(DbError::from)?;
        match limits::admit(&mut tx, org_id, limits::Kind::Agents).await {
            Ok(()) => {}
            Err(LimitError::Db(error)) => return Err(error.into()),
            Err(LimitError::Reached(reached)) => {
                drop(tx);
                let refused =
                    event(Actor::Anonymous, "access.denied", Resource::kind("agent")).with("asked", "agent.enroll");
                let mut conn = app.db.acquire().await.map_err(DbError::from)?;
                audit::record(&mut conn, refused.with("reason", reached.to_string())).await?;
                return Ok(());
            }
        }
        // The human's row is held: of several at once, on whichever daemon, each counts those before it.
        let human = orgs::store::human_by_email(&mut tx, &enrolment.email, true).await?;
        let Some((human, _)) = human.filter(|(_, org)| *org == org_id) else { return Ok(()) };
        for expired in store::expire_unclaimed(&mut tx, human, UNCLAIMED_DAYS).await? {
            let gone = Event::by_system(org_id, "agent.deactivate", Resource::new("agent", expired));
            audit::record(&mut tx, gone.with("reason", "enrolled and never used")).await?;
        }
        if store::count_unclaimed(&mut tx, human).await? >= UNCLAIMED_MAX {
            let refused =
                event(Actor::Anonymous, "access.denied", Resource::kind("agent")).with("asked", "agent.enroll");
            audit::record(&mut tx, refused.with("reason", "too many enrolled agents wait for their first use")).await?;
            tx.commit().await.map_err(DbError::from)?;
            return Ok(());
        }
        let mut agent = Agent::blank(id, org_id, human, crate::clock::now());
        agent.name.clone_from(&enrolment.name);
        agent.description.clone_from(&enrolment.description);
        agent.unclaimed = true;
        store::insert(&mut tx, &agent, Some(&key)).await?;
        let written = event(Actor::Anonymous, "secret.write", Resource::kind("secret"));
        if !identity.store(&mut tx, &mut agent, access::Actor::Agent(id), &written).await? {
            return Err(SecretError::Contended);
        }
        let enrolled =
            event(Actor::Anonymous, "agent.enroll", Resource::new("agent", id)).with("agent", agent.render());
        audit::record(&mut tx, enrolled).await?;
        mail::store::post(&mut tx, &letter).await?;
        tx.commit().await.map_err(DbError::from)?;
        app.mail.nudge();
        Ok(())
    }
}

/// What the human gets. The name is a stranger's: only what cannot become a link is repeated.
fn letter(enrolment: &Enrolment, (id, org_id): (AgentId, OrgId), key: &PlainKey) -> Letter {
    let name = mail::plain(&enrolment.name);
    let from = enrolment.ip.map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_string());
    let body = format!(
        "A program that calls itself \"{name}\"\nasked, from {from}, to be an agent of your organisation\n({org_id}).\n\n\
         If you expect it, give it these credentials. They are shown nowhere else:\n\n\
         agent id: {id}\n\
         API key:  {}\n\n\
         It may do nothing yet: no vault, no secret and no transaction is open to\nit until you grant something.\n\
         If you do not expect it, there is nothing to do: it goes away when it is\nnot used within {UNCLAIMED_DAYS} days.\n",
        key.reveal(),
    );
    Letter {
        kind: "agent_enrolled",
        recipient: enrolment.email.clone(),
        subject: format!("Agent \"{name}\" asks to work for you").into(),
        body: Zeroizing::new(body),
        expires_at: crate::clock::now() + Duration::days(UNCLAIMED_DAYS.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_words_are_no_link_in_a_mail() {
        let enrolment = Enrolment {
            name: format!("Ärger: <a href=\"https://evil.example/x?y\">klick</a>\r\nBcc: x@y.z{}", "a".repeat(200)),
            description: None,
            email: "human@example.com".to_owned(),
            ip: None,
        };
        let (id, key) = (AgentId::random(), PlainKey::mint(KeyKind::Agent, &[7; 32]));
        let Letter { subject, body, .. } = letter(&enrolment, (id, OrgId::random()), &key);
        assert!(subject.starts_with("Agent \"Ärger_ _a href__https___evil_example"), "{subject}");
        assert!(subject.chars().count() < 110 && !subject.contains(['\r', '\n']), "{subject}");
        for bad in ["evil.example", "://", "<", "@", "Bcc:"] {
            assert!(!body.contains(bad), "{bad}: {}", body.as_str());
        }
        assert!(body.contains(key.reveal()) && body.contains(&id.to_string()));
    }
}
