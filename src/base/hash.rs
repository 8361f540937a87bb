//! Digests, MACs, encodings and sealing, each spelt once.

use aws_lc_rs::{constant_time, digest, hkdf, hmac};
use base64_simd::{AsOut as _, STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

/// Lower-case hexadecimal.
pub(crate) fn hex(data: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    data.iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

pub(crate) fn sha256_hex(data: &[u8]) -> String {
    hex(&sha256(data))
}

/// HMAC-SHA-256 over the parts, each preceded by its length, so that no two lists of parts collide.
pub(crate) fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// HMAC-SHA-256 as others spell it: over the data as it is.
pub(crate) fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref());
    out
}

/// HMAC-SHA-1, for those who sign by nothing better.
pub(crate) fn hmac_sha1(key: &[u8], data: &[u8]) -> [u8; 20] {
    let mut out = [0; 20];
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    out.copy_from_slice(hmac::sign(&key, data).as_ref());
    out
}

/// A key of its own for one purpose, derived from a root key (HKDF-SHA-256, RFC 5869).
pub(crate) fn derive(root: &[u8; 32], purpose: &str) -> Zeroizing<[u8; 32]> {
    struct Len;
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            32
        }
    }
    let mut out = Zeroizing::new([0; 32]);
    let info = [purpose.as_bytes()];
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tower-mfa");
    // Both calls fail only for outputs beyond 255 blocks; 32 bytes are one.
    if let Ok(okm) = salt.extract(root).expand(&info, Len) {
        let _ = okm.fill(&mut *out);
    }
    out
}

/// Whether two secrets are equal, in time that does not depend on where they differ (row G09).
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

pub(crate) fn base64url(data: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode_to_string(data)
}

/// Decodes canonical base64url: no padding, no spare bits, so one value has one spelling (row J17). Anything else is
/// `None`.
pub(crate) fn from_base64url(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode_to_vec(text).ok()
}

/// The same into a buffer, for what is short and read often: the bytes, and nothing if they don't fit.
pub(crate) fn base64url_into<'b>(text: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let room = buffer.get_mut(..URL_SAFE_NO_PAD.decoded_length(text).ok()?)?;
    Some(URL_SAFE_NO_PAD.decode(text, room.as_out()).ok()?)
}

/// Standard base64 with padding, as the front token wants it.
pub(crate) fn base64(data: &[u8]) -> String {
    STANDARD.encode_to_string(data)
}

/// Decodes standard base64 with padding.
#[cfg(any(test, feature = "third-party"))]
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode_to_vec(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refresh_token_vector() {
        let hash1 = sha256_hex(b"test-refresh-token");
        assert_eq!(hash1, "0a9b110d5e553bd98e9965c70a601c15c36805016ba60d54f20f5830c39edcde");
        assert_eq!(
            sha256_hex(hash1.as_bytes()),
            "900f104187725398f5468327b31d05a8012618ae27589024cf12c200bce995a8"
        );
    }

    #[test]
    fn one_spelling() {
        assert_eq!(from_base64url("_w").as_deref(), Some(&[0xff][..]));
        for other in ["_w==", "_x", "/w", "_w ", "_"] {
            assert_eq!(from_base64url(other), None, "{other}");
        }
    }

    /// What fits is all there is and no more; of what doesn't fit there is nothing, however little is missing.
    #[test]
    fn a_buffer_takes_the_whole_or_nothing() {
        let bytes: Vec<u8> = (0..100).collect();
        for length in 0..=bytes.len() {
            let (data, text) = (&bytes[..length], base64url(&bytes[..length]));
            for room in [length, length + 1, 128] {
                let mut buffer = vec![0xff; room];
                assert_eq!(base64url_into(text.as_bytes(), &mut buffer), Some(data), "{length} in {room}");
            }
            for room in [0, length.saturating_sub(1)].into_iter().filter(|room| *room < length) {
                let mut buffer = vec![0xff; room];
                assert_eq!(base64url_into(text.as_bytes(), &mut buffer), None, "{length} in {room}");
            }
        }
        for other in ["_w==", "_x", "/w", "_w ", "_"] {
            assert_eq!(base64url_into(other.as_bytes(), &mut [0; 8]), None, "{other}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        let key = [7; 32];
        assert_ne!(mac(&key, &[b"ab", b"c"]), mac(&key, &[b"a", b"bc"]));
        assert_ne!(*derive(&key, "a"), *derive(&key, "b"));
        assert_ne!(*derive(&key, "a"), [0; 32]);
    }
}
