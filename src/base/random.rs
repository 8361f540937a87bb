//! The one place that asks the operating system for randomness (rows O01, R01).

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use super::{error::Error, hash};

/// `N` random bytes.
///
/// # Errors
/// If the operating system gives no randomness: the caller answers `UNAVAILABLE`, never a constant.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut out = [0; N];
    source().fill(&mut out).map_err(|_| Error::unavailable("the operating system gave no randomness"))?;
    Ok(out)
}

/// The operating system's randomness, for a library that wants a source.
pub(crate) fn source() -> SystemRandom {
    SystemRandom::new()
}

/// A version 4 UUID in its usual text form.
pub(crate) fn uuid() -> Result<String, Error> {
    crate::base::failpoint!(blocking "rng.constant" => Ok("07070707-0707-4707-8707-070707070707".to_owned()));
    let mut raw: [u8; 16] = bytes()?;
    raw[6] = (raw[6] & 0x0f) | 0x40;
    raw[8] = (raw[8] & 0x3f) | 0x80;
    let hex = hash::hex(&raw);
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// 256 random bits, base64url without padding.
pub(crate) fn token() -> Result<String, Error> {
    Ok(hash::base64url(&bytes::<32>()?))
}

/// `digits` decimal digits, uniform, leading zeros included: values past the last whole multiple are drawn anew.
pub(crate) fn digits(digits: u32) -> Result<String, Error> {
    let span = 10_u64.pow(digits);
    let limit = u64::MAX - u64::MAX % span;
    loop {
        let drawn = u64::from_le_bytes(bytes()?);
        if drawn < limit {
            return Ok(format!("{:0width$}", drawn % span, width = digits as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_o01_codes_are_uniform_over_all_six_digit_strings() {
        // 100 buckets of the leading two digits, 10^5 draws: chi-squared with 99 degrees of freedom
        // stays below 180 but for one run in a million.
        let mut seen = [0_u32; 100];
        for _ in 0..100_000 {
            let code = digits(6).unwrap();
            assert_eq!(code.len(), 6);
            seen[code[..2].parse::<usize>().unwrap()] += 1;
        }
        let chi: f64 = seen.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 180.0, "chi-squared {chi}");
    }

    #[test]
    fn uuids_are_version_four() {
        let id = uuid().unwrap();
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'));
    }
}
