//! Where a node may be whose URL came over the API: on a public address, or in a network of `outbound.allow_private`. A name is resolved
//! for each connection and every address of it is looked at; the connection goes to one of those. URLs of the configuration are the
//! operator's own and are not looked at.

use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::outbound::rules::Rules;

/// Resolves names as the system does, and refuses those with a forbidden address.
#[derive(Clone, Debug)]
pub(super) struct GuardedResolver(pub(super) Arc<Rules>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = Arc::clone(&self.0);
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            for address in &found {
                // Whether it is plain HTTP is the admin's choice: a node has no credentials of ours.
                rules.check_address(address.ip(), false)?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::RpcUrl;
    use super::*;
    use crate::net::Networks;

    #[test]
    fn threat_22_a_url_of_the_api_leads_to_the_public_or_to_what_is_listed() {
        let rules = |allow: &[&str]| Arc::new(Rules { allow_private: Networks::parse(allow.iter().copied()).unwrap() });
        let (strict, listed) = (rules(&[]), rules(&["127.0.0.0/8", "10.0.0.0/8"]));
        let inside = [
            "http://127.0.0.1:8545",
            "http://0x7f000001/",
            "http://10.1.2.3:8545",
            "https://[::ffff:127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
        ];
        let nowhere = [
            "http://169.254.169.254/latest",
            "http://[::ffff:169.254.169.254]/",
            "http://2852039166/",
            "http://[fd00:ec2::254]/",
            "http://192.168.0.1/",
            "http://100.100.100.200/",
            "http://0.0.0.0/",
            "http://[::]/",
        ];
        for text in inside {
            assert!(RpcUrl::parse_guarded(text, &strict).is_none(), "{text}");
            assert!(RpcUrl::parse_guarded(text, &listed).is_some(), "{text}");
        }
        for text in nowhere {
            assert!(RpcUrl::parse_guarded(text, &strict).is_none(), "{text}");
            assert!(RpcUrl::parse_guarded(text, &listed).is_none(), "{text}");
            assert!(RpcUrl::parse(text).is_some(), "{text}: an operator's own");
        }
        for text in ["https://rpc.example/key", "http://8.8.8.8:8545", "https://[2606:4700::1]/"] {
            assert!(RpcUrl::parse_guarded(text, &strict).is_some(), "{text}");
        }
    }

    #[tokio::test]
    async fn threat_22_a_name_is_looked_at_when_it_is_resolved() {
        let resolve = |allow: &[&str]| {
            let rules = Rules { allow_private: Networks::parse(allow.iter().copied()).unwrap() };
            GuardedResolver(Arc::new(rules)).resolve("localhost".parse().unwrap())
        };
        assert!(resolve(&[]).await.is_err());
        assert!(resolve(&["127.0.0.0/8", "::1"]).await.is_ok());
    }
}
