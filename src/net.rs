//! Lists of networks, as configurations name them. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Most entries of a list.
const NETWORKS_MAX: usize = 1_000;

/// Some networks. IPv4 addresses and networks are compared as such, also when they come mapped into IPv6.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// A text that names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a network such as 10.0.0.0/8, nor a single address")]
pub struct NetworkError(String);

impl Networks {
    /// Reads networks and single addresses.
    ///
    /// # Errors
    /// [`NetworkError`], naming the entry.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, NetworkError> {
        entries.into_iter().map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the address lies in one of them.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// What limits are kept by: an IPv4 address, or the /64 of an IPv6 address, all of which one host has.
#[must_use]
pub fn site_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
        four => four,
    }
}

fn network(text: &str) -> Result<IpNet, NetworkError> {
    let text = text.trim();
    let network: Option<IpNet> = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = network.ok_or_else(|| NetworkError(text.chars().take(64).collect()))?;
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    Ok(mapped.and_then(|(ip, prefix)| Ipv4Net::new(ip, prefix).ok()).map_or(network, IpNet::V4).trunc())
}

impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(ToString::to_string)).finish()
    }
}

/// A list of texts, or (from the environment) one text with commas.
impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a list of networks such as \"10.0.0.0/8\"")]
        enum Form {
            List(Vec<String>),
            Text(String),
        }
        let networks = match Form::deserialize(deserializer)? {
            Form::List(list) => Self::parse(list.iter().map(String::as_str)),
            Form::Text(text) => Self::parse(text.split(',').filter(|entry| !entry.trim().is_empty())),
        };
        let networks = networks.map_err(D::Error::custom)?;
        if networks.0.len() > NETWORKS_MAX {
            return Err(D::Error::custom(format!("at most {NETWORKS_MAX} networks")));
        }
        Ok(networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_28_a_network_means_the_same_in_either_family() {
        let networks = Networks::parse(["10.1.2.3/8", "::ffff:192.0.2.0/120", "2001:db8::/32", "::1", " 203.0.113.7 "]);
        let networks = networks.unwrap();
        for inside in [
            "10.255.0.1",
            "::ffff:10.0.0.1",
            "192.0.2.255",
            "::ffff:192.0.2.1",
            "2001:db8:1::",
            "::1",
            "203.0.113.7",
            "::ffff:203.0.113.7",
        ] {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.3.1", "2001:db9::", "::2", "203.0.113.8", "::ffff:11.0.0.1", "::10.0.0.1"] {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0", "localhost", "10.0.0.1:80", "[::1]", "fe80::1%eth0", "010.0.0.1"] {
            assert!(Networks::parse([wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_list_or_one_text_with_commas() {
        let read = |value: serde_json::Value| serde_json::from_value::<Networks>(value);
        let both = Networks::parse(["10.0.0.0/8", "::1"]).unwrap();
        assert_eq!(read(serde_json::json!(["10.0.0.0/8", "::1"])).unwrap(), both);
        assert_eq!(read(serde_json::json!("10.0.0.0/8, ::1,")).unwrap(), both);
        assert_eq!(read(serde_json::json!("")).unwrap(), Networks::default());
        assert!(read(serde_json::json!(1)).is_err() && read(serde_json::json!(["x"])).is_err());
    }
}
