//! Where requests to addresses that people gave us may go. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::net::Networks;

/// Longest URL, in characters.
pub const URL_CHARS_MAX: usize = 2_048;

/// Why a request is not sent: by rule, whatever the other side may be. The text is for whoever configured the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a URL, or not one of the web.
    #[error("must be an https:// URL of at most {URL_CHARS_MAX} characters, without user, password or fragment")]
    Url,
    /// Plain HTTP beyond loopback.
    #[error("must be https: plain http is for loopback addresses that `outbound.allow_private` lists")]
    PlainHttp,
    /// An address of this machine, of a private network, or of nobody.
    #[error(
        "leads to an address that is not on the public Internet: list its network in `outbound.allow_private` if it is meant"
    )]
    Address,
}

/// The rules, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Networks that may be connected to although they are not public.
    pub allow_private: Networks,
}

impl Rules {
    /// What can be told of a URL before its name is resolved.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check_url(&self, url: &Url) -> Result<(), Refusal> {
        let credentials = !url.username().is_empty() || url.password().is_some();
        if url.as_str().len() > URL_CHARS_MAX || credentials || url.fragment().is_some() {
            return Err(Refusal::Url);
        }
        let ip = match url.host() {
            None => return Err(Refusal::Url),
            Some(Host::Domain(_)) => None,
            // The URL parser has read every spelling of an address (hex, octal, one number) by now.
            Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
        };
        match (url.scheme(), ip) {
            ("https" | "http", None) => Ok(()),
            ("https", Some(ip)) => self.check_address(ip, false),
            ("http", Some(ip)) => self.check_address(ip, true),
            _ => Err(Refusal::Url),
        }
    }

    /// One address that is about to be connected to.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check_address(&self, ip: IpAddr, plain_http: bool) -> Result<(), Refusal> {
        let ip = ip.to_canonical();
        if plain_http && !ip.is_loopback() {
            return Err(Refusal::PlainHttp);
        }
        // An address of a translator (RFC 6052) leads to the IPv4 address in it.
        let target = translated(ip).map_or(ip, IpAddr::V4);
        if is_public(target) || self.allow_private.contains(target) { Ok(()) } else { Err(Refusal::Address) }
    }

    /// All addresses of a name. One bad one refuses all: who controls a name could otherwise try until the bad one is taken.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check_addresses(&self, ips: &[IpAddr], plain_http: bool) -> Result<(), Refusal> {
        ips.iter().try_for_each(|ip| self.check_address(*ip, plain_http))
    }
}

/// The IPv4 address inside of 64:ff9b::/96.
fn translated(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V6(ip) => match ip.octets() {
            [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
            _ => None,
        },
        IpAddr::V4(_) => None,
    }
}

/// Whether an address is somebody's on the public Internet, by the IANA registries of special-purpose addresses.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = match (a, b, c) {
        // This network, private use, loopback, multicast, reserved and broadcast.
        (0 | 10 | 127 | 224..=255, _, _) => true,
        // Shared between carrier and customer (RFC 6598).
        (100, 64..=127, _) => true,
        // Link-local, where clouds keep their metadata.
        (169, 254, _) => true,
        (172, 16..=31, _) => true,
        // Protocol assignments, documentation, the 6to4 relay.
        (192, 0, 0 | 2) | (192, 88, 99) => true,
        (192, 168, _) => true,
        // Benchmarks, documentation.
        (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    // Only 2000::/3 is given out. Loopback, unspecified, IPv4-compatible, unique local, link-local and multicast lie outside of it.
    let given_out = a & 0xe000 == 0x2000;
    let special = match (a, b) {
        // Protocol assignments: Teredo, ORCHID, benchmarks.
        (0x2001, 0..=0x01ff) => true,
        // Documentation.
        (0x2001, 0x0db8) | (0x3fff, 0..=0x0fff) => true,
        // 6to4 leads to any IPv4 address.
        (0x2002, _) => true,
        _ => false,
    };
    given_out && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str]) -> Rules {
        Rules { allow_private: Networks::parse(allow.iter().copied()).unwrap() }
    }

    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "203.0.112.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "2001:200::1",
        "3ffe::1",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
    ];

    const SPECIAL: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "169.254.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::a9fe:a9fe",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1.1.1.1",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:10::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];

    #[test]
    fn threat_22_only_public_addresses_are_connected_to() {
        let rules = rules(&[]);
        for ip in PUBLIC {
            assert_eq!(rules.check_address(ip.parse().unwrap(), false), Ok(()), "{ip}");
        }
        for ip in SPECIAL {
            assert_eq!(rules.check_address(ip.parse().unwrap(), false), Err(Refusal::Address), "{ip}");
            // One bad address among good ones refuses the name.
            let mixed = [PUBLIC[0].parse().unwrap(), ip.parse().unwrap()];
            assert_eq!(rules.check_addresses(&mixed, false), Err(Refusal::Address), "{ip}");
        }
    }

    #[test]
    fn threat_22_what_is_allowed_is_allowed_in_every_form_and_nothing_else_is() {
        let rules = rules(&["127.0.0.0/8", "10.1.0.0/16"]);
        for ip in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "10.1.2.3"] {
            assert_eq!(rules.check_address(ip.parse().unwrap(), false), Ok(()), "{ip}");
        }
        for ip in ["::1", "10.2.0.1", "169.254.169.254", "::127.0.0.1"] {
            assert_eq!(rules.check_address(ip.parse().unwrap(), false), Err(Refusal::Address), "{ip}");
        }
        // Plain HTTP is for loopback alone.
        assert_eq!(rules.check_address("127.0.0.1".parse().unwrap(), true), Ok(()));
        assert_eq!(rules.check_address("10.1.2.3".parse().unwrap(), true), Err(Refusal::PlainHttp));
        assert_eq!(rules.check_address("1.1.1.1".parse().unwrap(), true), Err(Refusal::PlainHttp));
    }

    #[test]
    fn threat_22_every_spelling_of_an_address_in_a_url_is_seen() {
        let rules = rules(&[]);
        let check = |url: &str| url.parse::<Url>().map_or(Err(Refusal::Url), |url| rules.check_url(&url));
        for url in
            ["https://example.org", "https://example.org:8443/a?b=c", "https://1.1.1.1/", "https://[2606:4700::1]"]
        {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://0177.0.0.1/",
            "https://127.0.0.1./",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://0/",
            "https://１２７.0.0.1/",
        ] {
            assert_eq!(check(url), Err(Refusal::Address), "{url}");
        }
        for url in ["http://1.1.1.1/", "http://169.254.169.254/"] {
            assert_eq!(check(url), Err(Refusal::PlainHttp), "{url}");
        }
        for url in [
            "ftp://example.org",
            "file:///etc/passwd",
            "gopher://example.org",
            "https://user@example.org/",
            "https://user:pass@example.org/",
            "https://example.org/#x",
            "https://",
            "example.org",
            &format!("https://example.org/{}", "a".repeat(URL_CHARS_MAX)),
        ] {
            assert_eq!(check(url), Err(Refusal::Url), "{url}");
        }
    }
}
