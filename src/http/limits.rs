//! Limits of one daemon, keyed by what the caller cannot choose — the socket's peer (behind listed proxies, the address that they were
//! called from; of IPv6 its /64, which one host has whole), or the authenticated principal: token buckets, and how many requests of a principal are served at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use lru::LruCache;
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::problem::Problem;
use crate::net::{Networks, site_of};

/// Buckets are dropped once there are more than this many.
const KEYS_MAX: usize = 100_000;
/// Credentials that are remembered as having held here.
const KNOWN_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("above zero");

/// `[limits]`: rates per second and bursts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Per address, for public and unauthenticated requests: requests a second.
    pub ip_per_second: u32,
    /// … and the burst on top.
    pub ip_burst: u32,
    /// Per authenticated principal: requests a second.
    pub principal_per_second: u32,
    /// … and the burst on top.
    pub principal_burst: u32,
    /// Requests of one principal that are served at once.
    pub principal_concurrency: u32,
    /// … and of all principals: beyond it 503, at once.
    pub concurrency: u32,
    /// Connections at once, of all addresses.
    pub connections: u32,
    /// … and of one address, unless it is a trusted proxy's.
    pub connections_per_address: u32,
    /// How long a connection may be without a request that is served, in seconds.
    pub idle_s: u64,
    /// How long a request's body may take to arrive, in seconds.
    pub body_deadline_s: u64,
    /// What the bodies of all requests that are being read may take together, in MiB: from 8.
    pub body_memory_mib: u32,
    /// Per address on the authentication routes: requests a second.
    pub auth_per_second: u32,
    /// … and the burst on top.
    pub auth_burst: u32,
    /// Proxies whose `X-Forwarded-For` (and client certificate headers) are believed. Environment: `INTENTD_TRUSTED_PROXIES`, with
    /// commas.
    pub trusted_proxies: Networks,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            ip_per_second: 100,
            ip_burst: 200,
            principal_per_second: 2_000,
            principal_burst: 4_000,
            principal_concurrency: 512,
            concurrency: 2_048,
            connections: 4_096,
            connections_per_address: 512,
            idle_s: 30,
            body_deadline_s: 60,
            body_memory_mib: 256,
            auth_per_second: 1,
            auth_burst: 5,
            trusted_proxies: Networks::default(),
        }
    }
}

impl LimitsConfig {
    /// The keys of rates that are zero, which would let nobody through.
    pub fn zero_rates(&self) -> impl Iterator<Item = &'static str> {
        let rates = [
            ("limits.ip_per_second", self.ip_per_second),
            ("limits.ip_burst", self.ip_burst),
            ("limits.principal_per_second", self.principal_per_second),
            ("limits.principal_burst", self.principal_burst),
            ("limits.principal_concurrency", self.principal_concurrency),
            ("limits.concurrency", self.concurrency),
            ("limits.auth_per_second", self.auth_per_second),
            ("limits.auth_burst", self.auth_burst),
            ("limits.connections", self.connections),
            ("limits.connections_per_address", self.connections_per_address),
        ];
        rates.into_iter().filter(|(_, rate)| *rate == 0).map(|(key, _)| key)
    }
}

/// The limiters.
pub struct Limits {
    ip: DefaultKeyedRateLimiter<IpAddr>,
    auth: DefaultKeyedRateLimiter<IpAddr>,
    principal: DefaultKeyedRateLimiter<Uuid>,
    /// Addresses that have used up their failures, and until when.
    barred: Mutex<HashMap<IpAddr, Instant>>,
    /// SHA-256 of credentials that held when they were last looked up: their owners are not locked out by whoever guesses from
    /// the same address, such as that of a proxy.
    known: Mutex<LruCache<[u8; 32], ()>>,
    in_flight: Arc<Mutex<InFlight>>,
    in_flight_max: u32,
    /// At once, of everybody.
    places: u32,
    /// What is left for bodies, in KiB.
    body_memory: Arc<Semaphore>,
}

/// Room for a body that is being read, until it is dropped.
#[derive(Debug, Default)]
pub struct Held(Option<OwnedSemaphorePermit>);

/// One request of a principal that is being served, until it is dropped.
#[derive(Debug)]
pub struct Place {
    id: Uuid,
    /// Of an agent: its organisation.
    agent_of: Option<Uuid>,
    in_flight: Arc<Mutex<InFlight>>,
}

/// Requests that are being served.
#[derive(Debug, Default)]
struct InFlight {
    all: u32,
    of_agents: u32,
    /// By principal, and agents' by organisation; what has none has no entry.
    by: HashMap<Uuid, u32>,
}

impl InFlight {
    fn of(&self, id: Uuid) -> u32 {
        self.by.get(&id).copied().unwrap_or_default()
    }

    fn end(&mut self, id: Uuid) {
        if let Some(count) = self.by.get_mut(&id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by.remove(&id);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.lock();
        in_flight.all = in_flight.all.saturating_sub(1);
        in_flight.end(self.id);
        if let Some(org) = self.agent_of {
            in_flight.of_agents = in_flight.of_agents.saturating_sub(1);
            in_flight.end(org);
        }
    }
}

impl Limits {
    /// From the configuration, whose rates have been checked to be above zero.
    #[must_use]
    pub fn new(config: &LimitsConfig) -> Self {
        let quota = |per_second: u32, burst: u32| {
            Quota::per_second(NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN))
                .allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
        };
        Self {
            ip: RateLimiter::keyed(quota(config.ip_per_second, config.ip_burst)),
            auth: RateLimiter::keyed(quota(config.auth_per_second, config.auth_burst)),
            principal: RateLimiter::keyed(quota(config.principal_per_second, config.principal_burst)),
            barred: Mutex::default(),
            known: Mutex::new(LruCache::new(KNOWN_MAX)),
            in_flight: Arc::default(),
            in_flight_max: config.principal_concurrency,
            places: config.concurrency,
            body_memory: Arc::new(Semaphore::new(config.body_memory_mib as usize * 1024)),
        }
    }

    /// Holds room for a body of which `bytes` are there.
    ///
    /// # Errors
    /// 503 with `Retry-After`: the other bodies take all of it.
    pub fn hold_body(&self, held: &mut Held, bytes: usize) -> Result<(), Problem> {
        let has = held.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(1024).saturating_sub(has);
        let taken =
            u32::try_from(more).ok().and_then(|more| Arc::clone(&self.body_memory).try_acquire_many_owned(more).ok());
        let Some(taken) = taken else {
            return Err(Problem::unavailable("too many large requests are being read: send it again", 1));
        };
        match &mut held.0 {
            Some(permit) => permit.merge(taken),
            none => *none = Some(taken),
        }
        Ok(())
    }

    /// Before a credential is looked up: an address that has used up its failures costs no further look-ups.
    ///
    /// # Errors
    /// 429 with `Retry-After`.
    pub fn check_credential(&self, peer: Option<IpAddr>, credential: &str) -> Result<(), Problem> {
        let Some(ip) = peer.map(site_of) else { return Ok(()) };
        let mut barred = self.barred.lock();
        let Some(until) = barred.get(&ip).copied() else { return Ok(()) };
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            barred.remove(&ip);
            return Ok(());
        }
        drop(barred);
        if self.known.lock().contains(&hash(credential)) {
            return Ok(());
        }
        Err(too_many(FAILURES, wait))
    }

    /// The credential was looked up, and holds.
    pub fn credential_held(&self, credential: &str) {
        self.known.lock().put(hash(credential), ());
    }

    /// The credential does not hold: the address pays, and is barred once it has nothing left.
    ///
    /// # Errors
    /// 429 with `Retry-After`.
    pub fn credential_failed(&self, peer: Option<IpAddr>, credential: &str) -> Result<(), Problem> {
        self.known.lock().pop(&hash(credential));
        let Some(ip) = peer.map(site_of) else { return Ok(()) };
        take(&self.ip, &ip).map_err(|wait| {
            let mut barred = self.barred.lock();
            if barred.len() > KEYS_MAX {
                let now = Instant::now();
                barred.retain(|_, until| *until > now);
            }
            barred.insert(ip, Instant::now() + wait);
            too_many(FAILURES, wait)
        })
    }

    /// A public or unauthenticated request from this peer.
    ///
    /// # Errors
    /// 429 with `Retry-After`.
    pub fn check_peer(&self, peer: Option<IpAddr>) -> Result<(), Problem> {
        peer.map_or(Ok(()), |ip| check(&self.ip, &site_of(ip), "requests from this address"))
    }

    /// A request to an authentication route from this peer.
    ///
    /// # Errors
    /// 429 with `Retry-After`.
    pub fn check_auth(&self, peer: Option<IpAddr>) -> Result<(), Problem> {
        peer.map_or(Ok(()), |ip| check(&self.auth, &site_of(ip), "authentication attempts from this address"))
    }

    /// A request of an authenticated principal, which takes a place until it is served: slow requests of one principal leave room for
    /// everybody else's, and what is past the daemon's capacity does not pile up behind it. Agents of one organisation have at most half
    /// of all places, and all agents three quarters: a human can freeze them at any time. `agent_of` is an agent's organisation.
    ///
    /// # Errors
    /// 429, or 503 when all places are taken, with `Retry-After`.
    pub fn admit(&self, id: Uuid, agent_of: Option<Uuid>) -> Result<Place, Problem> {
        check(&self.principal, &id, "requests by this principal")?;
        let second = Duration::from_secs(1);
        let mut in_flight = self.in_flight.lock();
        if in_flight.of(id) >= self.in_flight_max {
            return Err(too_many("requests by this principal at once", second));
        }
        if agent_of.is_some_and(|org| in_flight.of(org) >= self.places.div_ceil(2)) {
            return Err(too_many("requests by agents of this organisation at once", second));
        }
        let full_for_agents = agent_of.is_some() && in_flight.of_agents >= self.places - self.places / 4;
        if full_for_agents || in_flight.all >= self.places {
            let wait = "this daemon is serving as many requests as it can: try again in 1 s";
            return Err(Problem::unavailable(wait, 1));
        }
        in_flight.all += 1;
        *in_flight.by.entry(id).or_default() += 1;
        if let Some(org) = agent_of {
            in_flight.of_agents += 1;
            *in_flight.by.entry(org).or_default() += 1;
        }
        drop(in_flight);
        Ok(Place { id, agent_of, in_flight: Arc::clone(&self.in_flight) })
    }
}

const FAILURES: &str = "requests with invalid credentials from this address";

fn hash(credential: &str) -> [u8; 32] {
    Sha256::digest(credential).into()
}

fn check<K: std::hash::Hash + Eq + Clone>(
    limiter: &DefaultKeyedRateLimiter<K>,
    key: &K,
    what: &str,
) -> Result<(), Problem> {
    take(limiter, key).map_err(|wait| too_many(what, wait))
}

/// One from the key's bucket, or how long until there is one.
fn take<K: std::hash::Hash + Eq + Clone>(limiter: &DefaultKeyedRateLimiter<K>, key: &K) -> Result<(), Duration> {
    if limiter.len() > KEYS_MAX {
        limiter.retain_recent();
    }
    let now = || DefaultClock::default().now();
    limiter.check_key(key).map_err(|not_until| not_until.wait_time_from(now()).max(Duration::from_millis(1)))
}

/// The reply to whoever has done something too often: 429, with `Retry-After` in whole seconds.
#[must_use]
pub fn too_many(what: &str, wait: Duration) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(StatusCode::TOO_MANY_REQUESTS, format!("too many {what}: try again in {seconds} s"))
        .retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_46_one_ipv6_network_is_one_caller() {
        let limits =
            Limits::new(&LimitsConfig { auth_per_second: 1, auth_burst: 5, ip_burst: 5, ..LimitsConfig::default() });
        let passes = |network: &str| {
            let from = |n: u32| format!("{network}::{n:x}:{n:x}").parse().ok();
            (0..100).filter(|n| limits.check_auth(from(*n)).is_ok()).count()
        };
        assert!((5..10).contains(&passes("2001:db8:0:1")));
        assert!((5..10).contains(&passes("2001:db8:0:2")), "another network has its own");
        let ends = |n: u32| limits.credential_failed(format!("2001:db8:0:3::{n:x}").parse().ok(), "guess").is_err();
        assert!((0..200).any(ends));
        assert!(limits.check_credential("2001:db8:0:3:ffff::1".parse().ok(), "another").is_err());
        assert!(limits.check_credential("2001:db8:0:4::1".parse().ok(), "another").is_ok());
        let four = |n: u8| limits.check_auth(format!("192.0.2.{n}").parse().ok());
        assert!((0..100).all(|n| four(n).is_ok()), "of IPv4 each address is one");
    }

    #[test]
    fn threat_29_agents_leave_places_for_others_and_for_whoever_freezes_them() {
        let limits = Limits::new(&LimitsConfig { concurrency: 8, principal_concurrency: 3, ..LimitsConfig::default() });
        let [ours, theirs] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let status = |place: Result<Place, Problem>| place.map_err(|problem| problem.status().as_u16());
        let agent = |id: u128, org: Uuid| status(limits.admit(Uuid::from_u128(id), Some(org)));
        let human = |id: u128| status(limits.admit(Uuid::from_u128(id), None));
        let mut places = Vec::from([agent(10, ours), agent(10, ours), agent(10, ours)].map(Result::unwrap));
        assert_eq!(agent(10, ours).unwrap_err(), 429, "of one principal");
        places.push(agent(11, ours).unwrap());
        assert_eq!(agent(12, ours).unwrap_err(), 429, "half of all is an organisation's agents'");
        places.extend([agent(20, theirs), agent(21, theirs)].map(Result::unwrap));
        assert_eq!(agent(22, theirs).unwrap_err(), 503, "three quarters are agents'");
        places.extend([human(30), human(31)].map(Result::unwrap));
        assert_eq!(human(32).unwrap_err(), 503, "all are taken");
        drop(places);
        assert!(human(32).is_ok() && agent(12, ours).is_ok());
        assert!(limits.in_flight.lock().by.is_empty());
    }

    #[test]
    fn threat_29_bodies_take_what_there_is_for_them_and_give_it_back() {
        let limits = Limits::new(&LimitsConfig { body_memory_mib: 8, ..LimitsConfig::default() });
        let mib = 1024 * 1024;
        let (mut one, mut two) = (Held::default(), Held::default());
        for bytes in [1, 1024, 1025, 3 * mib, 5 * mib] {
            assert!(limits.hold_body(&mut one, bytes).is_ok());
        }
        assert!(limits.hold_body(&mut two, 3 * mib).is_ok());
        let refused = limits.hold_body(&mut two, 3 * mib + 1).map_err(|problem| problem.status());
        assert_eq!(refused, Err(StatusCode::SERVICE_UNAVAILABLE));
        drop(one);
        assert!(limits.hold_body(&mut two, 5 * mib).is_ok());
    }
}
