//! Keys: paths of escaped segments that compare as bytes.

use std::{
    borrow::Borrow,
    fmt::{self, Write as _},
};

use crate::base::{error::ParseError, time::Timestamp};

/// A record's key: segments joined by `/`, each escaped so that no value can reach into the next.
///
/// Everything but `A-Z a-z 0-9 - _ . ~ @ + :` is written `%XX`, so a key is printable ASCII, has one
/// spelling, and compares the same as bytes in every store.
///
/// ```
/// use tower_mfa::store::Key;
/// let key = Key::new(["login", "public", "email", "a/b@c.d"]);
/// assert_eq!(key.as_str(), "login/public/email/a%2Fb@c.d");
/// assert_eq!(Key::parse(key.as_str()).unwrap(), key);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// From its segments, unescaped.
    pub fn new<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Self {
        let mut path = String::new();
        for (at, segment) in segments.into_iter().enumerate() {
            if at > 0 {
                path.push('/');
            }
            escape(segment.as_ref(), &mut path);
        }
        Self(path)
    }

    /// From the text form, as a store kept it.
    ///
    /// # Errors
    /// If the text is not what [`Key::as_str`] gives for some key.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let segments: Option<Vec<String>> = text.split('/').map(unescape).collect();
        let key = Self::new(segments.ok_or(ParseError::new("key"))?);
        if key.0 == text { Ok(key) } else { Err(ParseError::new("key")) }
    }

    /// The text form: printable ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment, unescaped.
    pub(crate) fn last(&self) -> String {
        self.0.rsplit('/').next().and_then(unescape).unwrap_or_default()
    }

    /// Whether this key is strictly under `prefix`: `a/b` is under `a`, `ab` is not.
    pub fn is_under(&self, prefix: &Key) -> bool {
        self.0.strip_prefix(&prefix.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// A key orders and hashes as its text does, so a map of keys can be asked by [`Scan::range`].
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which records to list: those strictly under a prefix, in key order, after a key, at most so many.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scan {
    /// The keys wanted are strictly under this one.
    pub prefix: Key,
    /// Only keys greater than this one.
    pub after: Option<Key>,
    /// At most so many.
    pub limit: usize,
}

impl Scan {
    /// Everything under `prefix`, at most 1000.
    pub fn under(prefix: Key) -> Self {
        Self { prefix, after: None, limit: 1000 }
    }

    /// Only keys greater than `key`.
    pub fn after(mut self, key: Key) -> Self {
        self.after = Some(key);
        self
    }

    /// At most `limit` records.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Whether `key` is among those wanted, the limit apart.
    pub fn wants(&self, key: &Key) -> bool {
        key.is_under(&self.prefix) && self.after.as_ref().is_none_or(|after| key > after)
    }

    /// The range of text forms wanted, first included, last excluded: for stores that compare bytes.
    /// The first is never greater than the last.
    pub fn range(&self) -> (String, String) {
        // `0` follows `/`, and no escaped segment can hold either beyond what a segment's text has.
        let (low, high) = (format!("{}/", self.prefix.0), format!("{}0", self.prefix.0));
        match &self.after {
            // The smallest text after `key` is `key` with the smallest byte a key can hold.
            Some(key) if key.0 >= low => (format!("{}\u{1}", key.0).min(high.clone()), high),
            _ => (low, high),
        }
    }
}

/// Time-ordered text for a key segment: sorts as the time does.
pub(crate) fn sortable(time: Timestamp) -> String {
    format!("{:016x}", time.as_millis().max(0))
}

fn escape(segment: &str, out: &mut String) {
    for byte in segment.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

fn unescape(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) =
                (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'@' | b'+' | b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_never_run_together() {
        assert_ne!(Key::new(["a", "b/c"]), Key::new(["a/b", "c"]));
        assert_ne!(Key::new(["a%2Fb"]), Key::new(["a/b"]));
        for bad in ["a b", "a%2f", "%41", "%", "ä"] {
            assert!(Key::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Key::new(["ä", "\0"]).as_str(), "%C3%A4/%00");
        assert_eq!(Key::new(["x", "a/b"]).last(), "a/b");
    }

    #[test]
    fn ranges_never_run_backwards() {
        let scan = Scan::under(Key::new(["m"]));
        for after in ["a", "m", "m/x", "z"] {
            let scan = scan.clone().after(Key::new(after.split('/')));
            let (low, high) = scan.range();
            assert!(low <= high, "{after}");
            for key in ["m", "m/a", "m/x", "m/x/y", "m/y", "m0", "ma", "n/x"] {
                let within = low.as_str() <= key && key < high.as_str();
                assert_eq!(scan.wants(&Key::new(key.split('/'))), within, "{key} after {after}");
            }
        }
    }

    #[test]
    fn prefixes_do_not_bleed() {
        let scan = Scan::under(Key::new(["user", "a"]));
        let (low, high) = scan.range();
        let inside = |text: &str| low.as_str() <= text && text < high.as_str();
        assert!(inside("user/a/1") && inside("user/a/~"));
        assert!(!inside("user/a") && !inside("user/ab/1") && !inside("user/a0"));
        assert!(Key::new(["user", "a", "1"]).is_under(&scan.prefix));
    }
}
