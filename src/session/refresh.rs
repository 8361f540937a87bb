//! The refresh token: its form, its successors, and what a presented one means.
//!
//! A session's tokens form a line (promise 8). A rotation makes the successor out of the presented token
//! itself, an elevation out of its *hash*; both with a server key and the session's salt, under names of
//! their own. So a repeated or parallel request gets the same token again, and neither a database nor a
//! key alone yields one (rows R03, S02).
//!
//! | presented | meaning |
//! |---|---|
//! | anything, after an end of the session or under a dead epoch | [`Refresh::Ended`] |
//! | the current token | [`Refresh::Rotate`] |
//! | the one before it, within the window | [`Refresh::Replay`]: the same successor again |
//! | one that an elevation put out of use, while the new one is unused | [`Refresh::Superseded`] within the window, then [`Refresh::Ended`] |
//! | any other that we once issued | [`Refresh::Theft`] |
//!
//! What was never issued has no valid MAC and never gets here (row R12).

use std::{fmt, time::Duration};

use zeroize::Zeroizing;

use crate::{
    base::{
        error::Error,
        hash,
        ident::{SessionHandle, UserId},
        random,
        secret::Secret,
        time::Timestamp,
    },
    model::session::Lineage,
};

pub(crate) use self::line::{Completing, Elevation, complete, elevation, on_line, replay, rotate};
#[cfg(test)]
pub(crate) use self::line::{raised, rotated};

mod line;

/// The keys that refresh tokens are made with, all from one root key.
pub(crate) struct RefreshKeys {
    mac: Zeroizing<[u8; 32]>,
    successor: Zeroizing<[u8; 32]>,
    csrf: Zeroizing<[u8; 32]>,
}

impl RefreshKeys {
    pub(crate) fn derive(root: &[u8; 32]) -> Self {
        Self {
            mac: hash::derive(root, "refresh token mac"),
            successor: hash::derive(root, "refresh token successor"),
            csrf: hash::derive(root, "anti-csrf token"),
        }
    }
}

impl fmt::Debug for RefreshKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshKeys([redacted])")
    }
}

/// A refresh token that we issued: `1.<handle>.<user>.<secret>.<mac>`, of letters that survive cookies,
/// headers and scripts unchanged. The secret is 256 bits; the rest only says where to look.
#[derive(Clone)]
pub(crate) struct RefreshToken {
    handle: SessionHandle,
    user: UserId,
    text: Secret<String>,
}

/// Longer than any that we make.
const LONGEST: usize = 512;

impl RefreshToken {
    /// A new session's first token.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub(crate) fn random(handle: SessionHandle, user: UserId, keys: &RefreshKeys) -> Result<Self, Error> {
        Ok(Self::build(handle, user, &Zeroizing::new(random::bytes()?), keys))
    }

    /// Reads a token back. `None` is for all that these keys did not make: a guess, a cut one, an access
    /// token, another app's.
    pub(crate) fn parse(text: &str, keys: &RefreshKeys) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let mut parts = text.split('.');
        let (version, handle, user, secret, mac) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != "1" || parts.next().is_some() {
            return None;
        }
        let handle = SessionHandle::parse(handle).ok()?;
        let user = String::from_utf8(hash::from_base64url(user)?).ok()?;
        let user = UserId::parse(&user).ok()?;
        let secret = Zeroizing::new(hash::from_base64url(secret).filter(|secret| secret.len() == 32)?);
        let mac = hash::from_base64url(mac)?;
        let made = hash::same(&mac, &mac_of(&handle, &user, &secret, keys));
        made.then(|| Self { handle, user, text: Secret::new(text.to_owned()) })
    }

    fn build(handle: SessionHandle, user: UserId, secret: &[u8; 32], keys: &RefreshKeys) -> Self {
        let mac = hash::base64url(&mac_of(&handle, &user, secret, keys));
        let (id, secret) =
            (hash::base64url(user.as_str().as_bytes()), Zeroizing::new(hash::base64url(secret)));
        let text = Secret::new(format!("1.{handle}.{id}.{}.{mac}", *secret));
        Self { handle, user, text }
    }

    pub(crate) fn handle(&self) -> &SessionHandle {
        &self.handle
    }

    #[cfg(test)]
    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }

    /// The token itself.
    pub(crate) fn text(&self) -> &str {
        self.text.expose()
    }

    /// What the access token says of it (wire, section 2.3).
    pub(crate) fn hash1(&self) -> String {
        hash::sha256_hex(self.text().as_bytes())
    }

    /// What the session's row keeps of it.
    pub(crate) fn hash2(&self) -> String {
        hash2_of(&self.hash1())
    }

    /// The anti-CSRF token that goes with it: the same at every re-delivery, another after a rotation or
    /// an elevation (row X03).
    pub(crate) fn anti_csrf(&self, keys: &RefreshKeys) -> String {
        let mac = hash::mac(&keys.csrf, &[self.hash1().as_bytes()]);
        hash::base64url(mac.get(..16).unwrap_or(&mac))
    }
}

/// The row's form of what an access token says of its refresh token.
pub(crate) fn hash2_of(hash1: &str) -> String {
    hash::sha256_hex(hash1.as_bytes())
}

/// A new session's salt, in the form that [`Lineage`] keeps.
///
/// # Errors
/// If the operating system gives no randomness.
pub(crate) fn salt() -> Result<String, Error> {
    random::token()
}

/// What follows `presented` in a rotation: a function of the token, the salt and the key.
pub(crate) fn child(keys: &RefreshKeys, salt: &str, presented: &RefreshToken) -> RefreshToken {
    let parts: [&[u8]; 3] = [b"rotation", salt.as_bytes(), presented.text().as_bytes()];
    let secret = Zeroizing::new(hash::mac(&keys.successor, &parts));
    RefreshToken::build(presented.handle.clone(), presented.user.clone(), &secret, keys)
}

/// What follows an elevation: a function of the *hash* that the caller's access token names, so that two
/// completions from one access token get one token (row S02 d). `user` is the one that the session has from
/// now on.
pub(crate) fn elevated(
    keys: &RefreshKeys,
    salt: &str,
    handle: &SessionHandle,
    user: &UserId,
    earlier_hash1: &str,
) -> RefreshToken {
    let parts: [&[u8]; 4] =
        [b"elevation", salt.as_bytes(), handle.as_str().as_bytes(), earlier_hash1.as_bytes()];
    let secret = Zeroizing::new(hash::mac(&keys.successor, &parts));
    RefreshToken::build(handle.clone(), user.clone(), &secret, keys)
}

/// The token to re-deliver: of the successors that the keys at hand give, the one that the row holds as
/// current. `None` if its key is gone.
pub(crate) fn redeliver<'k>(
    keys: impl IntoIterator<Item = &'k RefreshKeys>,
    lineage: &Lineage,
    successor: impl Fn(&RefreshKeys) -> RefreshToken,
) -> Option<RefreshToken> {
    keys.into_iter().map(successor).find(|token| is(&lineage.current, &token.hash2()))
}

/// What presenting a refresh token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Refresh {
    /// Make the successor current, then answer.
    Rotate,
    /// Answer with the successor that was made already; write nothing.
    Replay,
    /// 409: an elevation made another one, which is on its way to this client.
    Superseded,
    /// `UNAUTHORISED`; the session's row goes.
    Ended(End),
    /// `THEFT`; the session's row goes in the batch that says so.
    Theft(Reuse),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its epoch, its user or its tenant.
    Dead,
    /// The end that never moves.
    Absolute,
    /// Not refreshed for too long.
    Expired,
    /// Its requirements were not met in time.
    Half,
    /// The answer to an elevation was lost (row S02 b): audited as `pre_elevation_reuse`.
    PreElevation,
}

/// Which token was used a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// The one before the current, after its window (row R06).
    Recent,
    /// An earlier one (row R07).
    Older,
}

/// Judges a token whose MAC was valid, by its `hash2`. `dead` says that the row's epochs are below what
/// was revoked, or that its user or tenant is gone.
pub(crate) fn decide(
    lineage: &Lineage,
    dead: bool,
    presented: &str,
    now: Timestamp,
    grace: Duration,
) -> Refresh {
    if let Some(end) = ended(lineage, dead, now) {
        return Refresh::Ended(end);
    }
    if is(&lineage.current, presented) {
        return Refresh::Rotate;
    }
    if let Some(previous) = lineage.previous.as_ref().filter(|previous| is(&previous.hash2, presented)) {
        let in_window = now <= previous.rotated_at + grace;
        return if in_window { Refresh::Replay } else { Refresh::Theft(Reuse::Recent) };
    }
    match lineage.superseded.iter().find(|superseded| is(&superseded.hash2, presented)) {
        Some(superseded) if now <= superseded.until => Refresh::Superseded,
        Some(_) => Refresh::Ended(End::PreElevation),
        None => Refresh::Theft(Reuse::Older),
    }
}

/// Whether the session is over, whatever is presented (row R11).
pub(crate) fn ended(lineage: &Lineage, dead: bool, now: Timestamp) -> Option<End> {
    match () {
        () if dead => Some(End::Dead),
        () if now >= lineage.absolute_until => Some(End::Absolute),
        () if now >= lineage.expires_at => Some(End::Expired),
        () if lineage.half_until.is_some_and(|half| now >= half) => Some(End::Half),
        () => None,
    }
}

/// Of several tokens of *one* session, sent in one request, the one that counts: a live one, if there is
/// one; an older one beside it is a leftover, not reuse (row C04).
pub(crate) fn decide_any<'t>(
    lineage: &Lineage,
    dead: bool,
    tokens: &'t [RefreshToken],
    now: Timestamp,
    grace: Duration,
) -> Option<(&'t RefreshToken, Refresh)> {
    let judged = tokens.iter().map(|token| (token, decide(lineage, dead, &token.hash2(), now, grace)));
    judged.min_by_key(|(_, refresh)| match refresh {
        Refresh::Rotate => 0,
        Refresh::Replay => 1,
        Refresh::Superseded => 2,
        Refresh::Ended(_) => 3,
        Refresh::Theft(_) => 4,
    })
}

/// What a request's refresh values come to, before any row is read (rows C04, R12).
#[derive(Debug)]
pub(crate) enum Offered {
    /// Nothing that we made.
    Nothing,
    /// Tokens of one session, at least one.
    Session(Vec<RefreshToken>),
    /// Tokens of several: nothing is rotated and nothing cleared.
    Several,
}

/// Reads the values with the keys at hand, the newest first.
pub(crate) fn offered(values: &[&str], keys: &[RefreshKeys]) -> Offered {
    let tokens: Vec<RefreshToken> = values
        .iter()
        .filter_map(|value| keys.iter().find_map(|keys| RefreshToken::parse(value, keys)))
        .collect();
    match tokens.first() {
        None => Offered::Nothing,
        Some(first) if tokens.iter().all(|token| token.handle == first.handle) => Offered::Session(tokens),
        Some(_) => Offered::Several,
    }
}

/// In constant time (row R01).
fn is(stored: &str, presented: &str) -> bool {
    hash::same(stored.as_bytes(), presented.as_bytes())
}

fn mac_of(handle: &SessionHandle, user: &UserId, secret: &[u8], keys: &RefreshKeys) -> [u8; 32] {
    hash::mac(&keys.mac, &[handle.as_str().as_bytes(), user.as_str().as_bytes(), secret])
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken([redacted])")
    }
}

#[cfg(test)]
mod tests;
