//! Keys that nobody should rely on.

use crate::base::hash;

/// At least 2048 bits and an exponent of at least 65537; both big-endian without leading zeros (row J19).
pub(super) fn strong(n: &[u8], e: &[u8]) -> bool {
    let long = n.len() > 256 || (n.len() == 256 && n.first().is_some_and(|byte| *byte >= 0x80));
    let exponent = e.iter().fold(0_u64, |sum, byte| sum.saturating_mul(256).saturating_add(u64::from(*byte)));
    long && n.first() != Some(&0) && exponent >= 65537
}

/// Shorter than 256 bits, a text, a pattern, or the key of the standard's own example (row J20): nothing
/// that a random source gives in this world's lifetime.
pub(super) fn guessable(secret: &[u8]) -> bool {
    const EXAMPLE: &str =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let text = secret.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let repeats = (1..=secret.len() / 2)
        .any(|period| secret.iter().zip(secret.iter().skip(period)).all(|(a, b)| a == b));
    let counts = secret.iter().zip(secret.iter().skip(1)).all(|(a, b)| a.wrapping_add(1) == *b);
    secret.len() < 32 || text || repeats || counts || hash::base64url(secret) == EXAMPLE
}
