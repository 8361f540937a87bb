//! Web origins (RFC 6454): scheme, host and port, and which of them are one site.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::base::error::ParseError;

/// A web origin in the one form in which browsers send it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Origin {
    text: String,
    https: bool,
    host: String,
}

impl Origin {
    /// Reads `scheme://host[:port]`; a single `/` may follow, as people write it so.
    ///
    /// # Errors
    /// If there is anything else, or the scheme is neither `http` nor `https`.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        Self::read(text).ok_or(ParseError::new("web origin"))
    }

    fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let host = canonical_host(host)?;
        let port = match port {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse::<u16>().ok()?),
            Some(_) => return None,
            None => None,
        };
        let scheme = if https { "https" } else { "http" };
        let text = match port.filter(|port| *port != if https { 443 } else { 80 }) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        Some(Self { text, https, host })
    }

    /// The form that browsers send in `Origin`.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The host: lower case, an IPv6 address in brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn is_https(&self) -> bool {
        self.https
    }

    /// Whether it can only be this machine (row C01).
    pub(crate) fn is_loopback(&self) -> bool {
        match address(&self.host) {
            Some(Address::V4(v4)) => v4.is_loopback(),
            Some(Address::V6(v6)) => v6.is_loopback(),
            None => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }

    /// Whether cookies with `SameSite=Lax` go along between the two: the same scheme and the same
    /// registrable domain. Names that start with `localhost` and addresses count as one site.
    pub(crate) fn same_site(&self, other: &Origin) -> bool {
        self.https == other.https && site(&self.host) == site(&other.host)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether the text is an IP address as a host is written.
pub(crate) fn is_address(host: &str) -> bool {
    address(host).is_some()
}

fn site(host: &str) -> &str {
    if host.starts_with("localhost") || host.ends_with(".localhost") || is_address(host) {
        "localhost"
    } else {
        psl::domain_str(host).unwrap_or(host)
    }
}

enum Address {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

fn address(host: &str) -> Option<Address> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(Address::V6),
        None => host.parse().ok().map(Address::V4),
    }
}

fn canonical_host(host: &str) -> Option<String> {
    if let Some(address) = address(host) {
        return Some(match address {
            Address::V4(v4) => v4.to_string(),
            Address::V6(v6) => format!("[{v6}]"),
        });
    }
    let ascii = idna::domain_to_ascii(host).ok()?;
    let named = ascii.len() <= 253
        && ascii.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        });
    named.then_some(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form() {
        for (text, form) in [
            ("https://App.Example.com", "https://app.example.com"),
            ("https://app.example.com/", "https://app.example.com"),
            ("HTTPS://app.example.com:443", "https://app.example.com"),
            ("https://app.example.com:80", "https://app.example.com:80"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[0:0::1]:8080", "http://[::1]:8080"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
        ] {
            assert_eq!(Origin::parse(text).unwrap().as_str(), form, "{text}");
        }
        for bad in [
            "",
            "null",
            "app.example.com",
            "ftp://a.b",
            "https://",
            "https://a b",
            "https://a.b/c",
            "https://a.b//",
            "https://u@a.b",
            "https://a.b?x",
            "https://a.b#x",
            "https://a.b:",
            "https://a.b:x",
            "https://a.b:99999",
            "https://a..b",
            "https://a;b",
            "https://a.b:+1",
            "https://[::1",
        ] {
            // An empty port is the default one by the grammar; nobody means it.
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sites() {
        for (a, b, same) in [
            ("https://api.shop.test", "https://shop.test", true),
            ("https://api.shop.co.uk", "https://www.shop.co.uk", true),
            ("https://shop.co.uk", "https://other.co.uk", false),
            ("https://a.github.io", "https://b.github.io", false),
            ("http://api.shop.test", "https://shop.test", false),
            ("http://localhost:3000", "http://127.0.0.1:8080", true),
            ("http://localhost:3000", "http://[::1]", true),
            ("https://shop.test", "https://shop.test.evil.com", false),
            ("https://com", "https://com", true),
        ] {
            let site = |text| Origin::parse(text).unwrap();
            assert_eq!(site(a).same_site(&site(b)), same, "{a} {b}");
        }
    }

    #[test]
    fn loopback_is_this_machine_only() {
        for (text, loopback) in [
            ("http://localhost:1", true),
            ("http://a.localhost", true),
            ("http://127.0.0.9", true),
            ("http://[::1]", true),
            ("http://localhost.evil.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(Origin::parse(text).unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
