//! Sealing of what the store must not be able to read: signing keys and queued notices (rows T09, V05).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{
    base::{
        error::{Error, ErrorKind},
        hash, random,
    },
    store::Key,
};

/// AES-256-GCM under root keys by id. The associated data is the key's id and the record's own key, so
/// that a sealed text copied into another record doesn't open.
#[derive(Default)]
pub(crate) struct Sealer {
    /// The first one seals, all of them open.
    keys: Vec<(String, LessSafeKey)>,
}

impl Sealer {
    /// # Errors
    /// If a key is refused by the cipher.
    pub(crate) fn new<'a>(keys: impl IntoIterator<Item = (&'a str, &'a [u8; 32])>) -> Result<Self, Error> {
        let keys = keys
            .into_iter()
            .map(|(id, key)| {
                let unbound = UnboundKey::new(&AES_256_GCM, key).map_err(|_| broken())?;
                Ok((id.to_owned(), LessSafeKey::new(unbound)))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { keys })
    }

    /// Seals `plain` for the record at `key`.
    pub(crate) fn seal(&self, key: &Key, plain: &[u8]) -> Result<String, Error> {
        let (id, cipher) = self.keys.first().ok_or_else(broken)?;
        let nonce: [u8; NONCE_LEN] = random::bytes()?;
        let mut sealed = plain.to_vec();
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(id, key), &mut sealed)
            .map_err(|_| broken())?;
        Ok(format!("{id}.{}.{}", hash::base64url(&nonce), hash::base64url(&sealed)))
    }

    /// Whether a text was sealed under the root key that seals now.
    pub(crate) fn is_newest(&self, text: &str) -> bool {
        let id = text.split_once('.').map(|(id, _)| id);
        self.keys.first().is_some_and(|(newest, _)| Some(newest.as_str()) == id)
    }

    /// Opens what was sealed for the record at `key`.
    ///
    /// # Errors
    /// `Unavailable` if the root key is gone, the text was altered, or it belongs to another record.
    pub(crate) fn open(&self, key: &Key, text: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let unreadable = || Error::new(ErrorKind::Unavailable, "a sealed record can't be opened");
        let mut parts = text.split('.');
        let (Some(id), Some(nonce), Some(sealed), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(unreadable());
        };
        let gone = "a record is sealed under a root key that is not among the secrets";
        let (_, cipher) = self.keys.iter().find(|(known, _)| known == id).ok_or(Error::unavailable(gone))?;
        let nonce = hash::from_base64url(nonce).and_then(|raw| raw.try_into().ok()).ok_or_else(unreadable)?;
        let mut sealed = Zeroizing::new(hash::from_base64url(sealed).ok_or_else(unreadable)?);
        let plain = cipher
            .open_in_place(Nonce::assume_unique_for_key(nonce), aad(id, key), &mut sealed)
            .map_err(|_| unreadable())?;
        Ok(Zeroizing::new(plain.to_vec()))
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer([redacted])")
    }
}

fn aad(id: &str, key: &Key) -> Aad<Vec<u8>> {
    Aad::from(format!("{id}\n{}", key.as_str()).into_bytes())
}

fn broken() -> Error {
    Error::internal("sealing failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_t09_a_sealed_text_opens_only_in_its_own_record() {
        let old = Sealer::new([("k1", &[1; 32])]).unwrap();
        let new = Sealer::new([("k2", &[2; 32]), ("k1", &[1; 32])]).unwrap();
        let (here, there) = (Key::new(["a"]), Key::new(["b"]));
        let text = old.seal(&here, b"secret").unwrap();
        assert_eq!(&**new.open(&here, &text).unwrap(), b"secret");
        new.open(&there, &text).unwrap_err();
        old.open(&here, &new.seal(&here, b"secret").unwrap()).unwrap_err();
        assert!(!text.contains("secret"));
        assert!(old.is_newest(&text) && !new.is_newest(&text));
        let gone = old.open(&here, &new.seal(&here, b"secret").unwrap()).unwrap_err();
        assert!(gone.to_string().contains("root key"), "{gone}");
        for broken in ["", "k1", "k1.a.b", "k1.a.b.c", &text[..text.len() - 1]] {
            assert!(new.open(&here, broken).is_err(), "{broken}");
        }
    }
}
