//! Whose request it is, behind proxies. Pure.
//!
//! Anybody can send `X-Forwarded-For`. What it says counts only as far as proxies of ours have written it: each appends, on the
//! right, the address that it was called from. So it is read from the right, and only while the address so far is a listed proxy's.
//! `Forwarded` (RFC 7239), `X-Real-IP` and their like are not read at all: a proxy that sets the one and passes the other on would
//! leave the choice to the caller.

use std::net::{IpAddr, Ipv6Addr};

use crate::net::Networks;

/// The address that a request came from: the socket's peer, or what the listed proxies say they were called from. `lines` are the
/// values of `X-Forwarded-For` in their order.
///
/// An entry that is no address ends the walk at the proxy that wrote it.
#[must_use]
pub fn client_of<'a>(peer: IpAddr, trusted: &Networks, lines: impl DoubleEndedIterator<Item = &'a [u8]>) -> IpAddr {
    let mut client = peer.to_canonical();
    for entry in lines.rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        if !trusted.contains(client) {
            break;
        }
        let Some(caller) = address(entry) else { break };
        client = caller;
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (IpAddr::V6(host.parse::<Ipv6Addr>().ok()?), port.strip_prefix(':').or((port.is_empty()).then_some("0"))?)
        }
        None => match text.parse() {
            Ok(ip) => (ip, "0"),
            Err(_) => {
                let (host, port) = text.split_once(':')?;
                (IpAddr::V4(host.parse().ok()?), port)
            }
        },
    };
    let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_port.then(|| host.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRUSTED: [&str; 3] = ["10.0.0.0/8", "2001:db8:ff::/48", "127.0.0.1"];

    fn client(peer: &str, lines: &[&str]) -> String {
        let trusted = Networks::parse(TRUSTED).unwrap();
        client_of(peer.parse().unwrap(), &trusted, lines.iter().map(|line| line.as_bytes())).to_string()
    }

    #[test]
    fn threat_28_the_header_counts_only_as_far_as_listed_proxies_wrote_it() {
        /// Peer, lines of the header, the client.
        type Case = (&'static str, &'static [&'static str], &'static str);
        let table: [Case; 26] = [
            // Not a listed proxy: whatever it says.
            ("203.0.113.9", &["1.2.3.4"], "203.0.113.9"),
            ("203.0.113.9", &["10.0.0.1"], "203.0.113.9"),
            ("::ffff:203.0.113.9", &["1.2.3.4"], "203.0.113.9"),
            ("2001:db8::1", &["1.2.3.4"], "2001:db8::1"),
            // A listed one, in either family.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("::ffff:10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("2001:db8:ff::2", &["::ffff:1.2.3.4"], "1.2.3.4"),
            // What the caller wrote stands to the left of what the proxy wrote.
            ("10.0.0.1", &["9.9.9.9, 1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["9.9.9.9", "1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["1.2.3.4", "9.9.9.9"], "9.9.9.9"),
            ("10.0.0.1", &["10.0.0.9, 1.2.3.4"], "1.2.3.4"),
            // Through several.
            ("10.0.0.1", &["9.9.9.9, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
            ("10.0.0.1", &["9.9.9.9,1.2.3.4", "10.0.0.3 , 10.0.0.2"], "1.2.3.4"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Ports and brackets.
            ("10.0.0.1", &["1.2.3.4:5678"], "1.2.3.4"),
            ("10.0.0.1", &["[2001:db8::7]:443"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("10.0.0.1", &["\t2001:db8::7 "], "2001:db8::7"),
            ("10.0.0.1", &["[::ffff:1.2.3.4]:1"], "1.2.3.4"),
            // Nothing that can be read: the proxy that wrote it.
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &["9.9.9.9, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["9.9.9.9,"], "10.0.0.1"),
            ("10.0.0.1", &["9.9.9.9,\u{e9}, 10.0.0.2"], "10.0.0.2"),
            ("127.0.0.1", &["for=9.9.9.9"], "127.0.0.1"),
        ];
        for (peer, lines, expected) in table {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn threat_28_what_is_no_address_is_none() {
        for entry in [
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.4:",
            "1.2.3.4:x",
            "1.2.3.4:+1",
            "1.2.3.4:70000",
            "1.2.3.4:1:2",
            "[1.2.3.4]",
            "[::1",
            "::1]",
            "[::1]443",
            "[::1]:",
            "fe80::1%eth0",
            "\"1.2.3.4\"",
            "0x7f.0.0.1",
            "2130706433",
            "1.2.3.4 5.6.7.8",
            "example.org",
            "1.2.3.4/32",
        ] {
            assert_eq!(address(entry.as_bytes()), None, "{entry}");
        }
    }

    proptest! {
        /// Whatever is sent to a proxy, what the proxy itself adds decides.
        #[test]
        fn threat_46_nothing_that_a_caller_writes_changes_who_it_is(forged in prop::collection::vec("[ -~]{0,40}", 0..4)) {
            let mut lines: Vec<&str> = forged.iter().map(String::as_str).collect();
            lines.push("198.51.100.7");
            prop_assert_eq!(client("10.0.0.1", &lines), "198.51.100.7");
            prop_assert_eq!(client("203.0.113.9", &lines), "203.0.113.9");
        }
    }
}
