//! Where outgoing calls may go. Judged is the address that is connected to, so a name cannot lead anywhere else than where
//! it led when it was judged.
//!
//! An address may be called if it lies in a listed network; or if it is public and the list says `public` or has the name
//! that was called. Loopback, private, link-local (the cloud's metadata service) and all other special addresses are
//! reached only through a listed network. Without TLS only listed networks are called.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// The word for all public addresses.
const PUBLIC: &str = "public";
/// The word for nothing at all.
const NOTHING: &str = "none";

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    public: bool,
    names: Vec<Name>,
    networks: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Exactly(String),
    /// `*.` and this: every name below it.
    Below(String),
}

impl Name {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        let (below, rest) = text.strip_prefix("*.").map_or((false, text.as_str()), |rest| (true, rest));
        let fits = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if !rest.split('.').all(fits) {
            return None;
        }
        Some(if below { Self::Below(format!(".{rest}")) } else { Self::Exactly(rest.to_owned()) })
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exactly(name) => host == name,
            Self::Below(end) => host.len() > end.len() && host.ends_with(end.as_str()),
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut policy = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if entry.eq_ignore_ascii_case(PUBLIC) {
                policy.public = true;
            } else if entry.eq_ignore_ascii_case(NOTHING) {
            } else if let Ok(network) = entry.parse::<IpNet>() {
                policy.networks.push(network);
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                policy.networks.push(address.into());
            } else if let Some(name) = Name::read(entry) {
                policy.names.push(name);
            } else {
                return Err(format!(
                    "'{entry}' is not a place that calls may go to; write {PUBLIC}, a host name, *.example.com, \
                     an address or a network like 10.0.0.0/8, or {NOTHING}"
                ));
            }
        }
        Ok(policy)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.public.then(|| PUBLIC.to_owned()));
        words.extend(self.names.iter().map(|name| match name {
            Name::Exactly(name) => name.clone(),
            Name::Below(end) => format!("*{end}"),
        }));
        words.extend(self.networks.iter().map(IpNet::to_string));
        f.write_str(if words.is_empty() { NOTHING.to_owned() } else { words.join(",") }.as_str())
    }
}

impl Policy {
    /// The same before a name has been looked up: what would be refused wherever it leads.
    ///
    /// # Errors
    /// As there.
    pub fn judge(&self, host: &str, plain: bool) -> Result<(), String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.check(host, address, plain);
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            let v6 = self.check(host, Ipv6Addr::LOCALHOST.into(), plain);
            return v6.or_else(|_| self.check(host, Ipv4Addr::LOCALHOST.into(), plain));
        }
        // It may lead into a listed network.
        if !self.networks.is_empty() {
            return Ok(());
        }
        if !self.public && !self.names.iter().any(|listed| listed.matches(&name)) {
            return Err(format!("{host} is not in outgoing_allow ({self})"));
        }
        if plain {
            return Err(format!(
                "http:// to {host} is not encrypted; use https://, or list its network in outgoing_allow"
            ));
        }
        Ok(())
    }

    /// Whether `host`, which has led to `address`, may be called; `plain` is without TLS.
    ///
    /// # Errors
    /// Why not, and what would have to be configured.
    pub fn check(&self, host: &str, address: IpAddr, plain: bool) -> Result<(), String> {
        let address = address.to_canonical();
        if self.networks.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        if let Some(what) = special(address) {
            return Err(format!("{host} is at {address}, {what}; list its network in outgoing_allow to allow it"));
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if !self.public && !self.names.iter().any(|name| name.matches(&host)) {
            return Err(format!("{host} at {address} is not in outgoing_allow ({self})"));
        }
        if plain {
            return Err(format!(
                "http:// to {host} at {address} is not encrypted; use https://, or list its network in outgoing_allow"
            ));
        }
        Ok(())
    }
}

/// What is special about an address that is not public.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (127, ..) => Some("a loopback address"),
        (0, ..) => Some("an address of this machine"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("a private address"),
        (100, 64..=127, _) => Some("a shared address of a carrier"),
        (169, 254, _) => Some("a link-local address"),
        (192, 0, 0) | (192, 31, 196) | (192, 52, 193) | (192, 175, 48) => Some("an address for protocols"),
        (192, 88, 99) => Some("an address of 6to4 relays"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Some("an address for documentation"),
        (198, 18..=19, _) => Some("an address for benchmarks"),
        (224..=239, ..) => Some("a multicast address"),
        (240..=255, ..) => Some("a reserved address"),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        special_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an address of this machine"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        [0, 0, 0, 0, 0, 0, ..] => Some("a reserved address"),
        // NAT64 and 6to4 carry an IPv4 address, which is where they lead.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => Some("a private address"),
        [0x100, 0, 0, ..] => Some("an address that leads nowhere"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("an address for documentation"),
        [0x2001, 0..=0x1ff, ..] => Some("an address for protocols"),
        [0xfc00..=0xfdff, ..] => Some("a private address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfec0..=0xfeff, ..] => Some("a private address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}
