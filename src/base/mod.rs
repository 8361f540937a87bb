//! Floor 0: the words everything else is written in. Knows no store, no user record, no HTTP but for one seam.

pub(crate) mod contact;
pub(crate) mod error;
pub(crate) mod failpoint;
pub(crate) mod hash;
pub(crate) mod http_client;
pub(crate) mod ident;
pub(crate) mod json;
pub(crate) mod payload;
#[cfg(feature = "phone")]
pub(crate) mod phone;
pub(crate) mod random;
pub(crate) mod secret;
pub(crate) mod task;
pub(crate) mod time;

pub(crate) use failpoint::failpoint;

/// Each of these once, where it comes first.
pub(crate) fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut once = Vec::new();
    for item in items {
        if !once.contains(&item) {
            once.push(item);
        }
    }
    once
}

/// What can stand anywhere in a URL, as it is; the rest by its bytes (RFC 3986, section 2.3).
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// So many of something, in English: `1 minute`, `2 minutes`.
pub(crate) fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
