//! Behind proxies: who sent a request, by the header that they write (row O36).

use std::net::IpAddr;

use http::HeaderMap;

use crate::base::error::ConfigError;

/// The proxies in front of the app, which write `X-Forwarded-For`.
///
/// Of the addresses in it only those count that a trusted proxy wrote: the right-most one that isn't itself a trusted
/// proxy's is the client. What the client put there beforehand stands further left and is never read. A connection
/// from anywhere else than a trusted proxy is its own client, whatever the header says.
///
/// ```
/// use tower_mfa::config::TrustedProxies;
/// use http::{HeaderMap, header::HeaderValue};
/// let proxies = TrustedProxies::new(["10.0.0.0/8", "2001:db8::/32"])?;
/// let mut headers = HeaderMap::new();
/// headers.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.1, 192.0.2.7, 10.0.0.9"));
/// assert_eq!(proxies.client("10.0.0.1".parse().unwrap(), &headers).to_string(), "192.0.2.7");
/// assert_eq!(proxies.client("203.0.113.5".parse().unwrap(), &headers).to_string(), "203.0.113.5");
/// # Ok::<(), tower_mfa::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Net>);

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Net {
    address: IpAddr,
    bits: u32,
}

/// More hops than these aren't looked at.
const HOPS: usize = 32;

impl TrustedProxies {
    /// Addresses, or networks as an address and the number of its leading bits that count: `192.0.2.1`,
    /// `10.0.0.0/8`, `2001:db8::/32`.
    ///
    /// # Errors
    /// Those that are neither, and networks of no bits: everybody is nobody to trust.
    pub fn new<'a>(networks: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let (mut nets, mut problems) = (Vec::new(), Vec::new());
        for text in networks {
            match Net::parse(text) {
                Some(net) => nets.push(net),
                None => problems.push(format!(
                    "{text:?} is no address and no network: name trusted proxies as 192.0.2.1 or 10.0.0.0/8"
                )),
            }
        }
        ConfigError::all(problems)?;
        Ok(Self(nets))
    }

    /// The client of a request, from the address that its connection came from and its headers.
    pub fn client(&self, connection: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = connection.to_canonical();
        let lines: Vec<&[u8]> =
            headers.get_all("x-forwarded-for").iter().map(http::HeaderValue::as_bytes).collect();
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        for hop in hops.take(HOPS) {
            if !self.trusts(client) {
                break;
            }
            // What isn't an address ends it: the proxy that wrote it is as far as anybody knows.
            let Some(address) = address(hop) else { break };
            client = address;
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.holds(address))
    }
}

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]:443`.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    bare.parse::<IpAddr>().ok().or_else(with_port).map(|address| address.to_canonical())
}

impl Net {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let address = if bits.is_none() { address.to_canonical() } else { address };
        let most = width(address);
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| (1..=most).contains(bits))?,
            None => most,
        };
        Some(Self { address, bits })
    }

    fn holds(&self, address: IpAddr) -> bool {
        let (width, other) = (width(self.address), width(address));
        width == other && (number(self.address) ^ number(address)) >> (width - self.bits) == 0
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_o36_the_right_most_hop_that_is_no_trusted_proxy() {
        let proxies = TrustedProxies::new(["10.0.0.0/8", "192.0.2.53", "2001:db8:1::/48"]).unwrap();
        // The connection's address, the header's lines, the client.
        let table: [(&str, &[&str], &str); 19] = [
            ("203.0.113.5", &[], "203.0.113.5"),
            ("203.0.113.5", &["198.51.100.1"], "203.0.113.5"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 2.2.2.2, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.2.3.4, 192.0.2.53"], "198.51.100.1"),
            ("192.0.2.54", &["198.51.100.1"], "192.0.2.54"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1,10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8:2::7]:4711"], "2001:db8:2::7"),
            ("10.0.0.1", &["[2001:db8:2::7]"], "2001:db8:2::7"),
            ("2001:db8:1::1", &["2001:db8:2::7, 2001:db8:1:9::2"], "2001:db8:2::7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            // What isn't an address hides what is behind it.
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, _hidden, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1, , "], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1 10.0.0.2"], "10.0.0.1"),
        ];
        for (connection, lines, client) in table {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            let told = proxies.client(connection.parse().unwrap(), &headers);
            assert_eq!(told.to_string(), client, "{connection} {lines:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-forwarded-for",
            format!("198.51.100.1,{}10.0.0.2", "10.0.0.9,".repeat(10_000)).parse().unwrap(),
        );
        assert_eq!(proxies.client("10.0.0.1".parse().unwrap(), &headers).to_string(), "10.0.0.9");
    }

    #[test]
    fn networks_are_read_right() {
        let holds = |net: &str, address: &str| {
            Net::parse(net).unwrap().holds(address.parse::<IpAddr>().unwrap().to_canonical())
        };
        assert!(holds("10.128.0.0/9", "10.255.0.1") && !holds("10.128.0.0/9", "10.127.0.1"));
        assert!(holds("192.0.2.1", "192.0.2.1") && !holds("192.0.2.1", "192.0.2.0"));
        assert!(holds("2001:db8::/33", "2001:db8:7fff::1") && !holds("2001:db8::/33", "2001:db8:8000::1"));
        assert!(holds("::1", "::1") && !holds("0.0.0.0/1", "::1"));
        let bad = [
            "",
            "10.0.0.0/0",
            "10.0.0.0/33",
            "::/0",
            "::/129",
            "10.0.0",
            "host",
            "10.0.0.0/8/9",
            "1.1.1.1/x",
        ];
        let told = TrustedProxies::new(bad).unwrap_err();
        assert_eq!(told.problems().len(), bad.len());
    }
}
