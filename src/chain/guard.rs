//! Where a node may be whose URL came over the API: not on link-local or metadata addresses, where clouds hand out credentials.
//! A name is resolved for each connection and every address of it is looked at; the connection goes to one of those.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Whether no node is there. Loopback and private networks are where operators have theirs.
#[must_use]
pub fn is_forbidden(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            // Alibaba's metadata service is in the shared address space.
            let metadata = ip == Ipv4Addr::new(100, 100, 100, 200);
            ip.is_link_local() || ip.octets()[0] == 0 || ip.is_multicast() || ip.is_broadcast() || metadata
        }
        IpAddr::V6(ip) => {
            let embedded = match ip.segments() {
                // NAT64 (RFC 6052) and 6to4 (RFC 3056) lead to an IPv4 address.
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
                    Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
                }
                _ => None,
            };
            // AWS' metadata service has a unique local address.
            let metadata = ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            let link_local = ip.segments()[0] & 0xffc0 == 0xfe80;
            embedded.is_some_and(|ip| is_forbidden(ip.into()))
                || link_local
                || ip.is_unspecified()
                || ip.is_multicast()
                || metadata
        }
    }
}

/// Resolves names as the system does, and refuses those with a forbidden address.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuardedResolver;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if found.iter().any(|address| is_forbidden(address.ip())) {
                return Err("the name leads to a link-local or metadata address".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_22_no_node_is_on_a_metadata_address_however_it_is_written() {
        for text in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ] {
            assert!(is_forbidden(text.parse().unwrap()), "{text}");
        }
        for text in ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.1", "100.64.0.1", "8.8.8.8", "2606:4700::1", "fd12::1"]
        {
            assert!(!is_forbidden(text.parse().unwrap()), "{text}");
        }
    }
}
