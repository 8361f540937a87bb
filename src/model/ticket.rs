//! Single-use tickets: what a link by mail holds, to set a new password, to prove an address or to change one.
//!
//! A ticket is stored by the digest of its token, so that who reads the store can spend none. It is bound to its
//! user, to one login method, to the exact address that the mail went to, and to a generation: raising the number
//! voids every ticket of that kind at once (rows O11, L04, L05, S10).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Tx, keys, user::Owner};
use crate::{
    base::{
        contact::Email,
        error::Error,
        hash,
        ident::{LoginId, TenantId, UserId},
        random,
        secret::Secret,
    },
    store::Key,
};

/// What a ticket is good for, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    PasswordReset,
    EmailVerification,
    EmailChange,
}

impl Kind {
    /// All of them: what a recovery voids.
    pub(crate) const ALL: [Self; 3] = [Self::PasswordReset, Self::EmailVerification, Self::EmailChange];

    /// How long a ticket works (`spec/wire.md` §9.1, §9.3).
    pub(crate) fn lifetime(self) -> Duration {
        match self {
            Self::PasswordReset => Duration::from_millis(3_600_000),
            Self::EmailVerification | Self::EmailChange => Duration::from_millis(86_400_000),
        }
    }
}

/// A ticket as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    pub(crate) kind: Kind,
    pub(crate) user: UserId,
    pub(crate) login: LoginId,
    /// Where the mail went: what is proved, or changed to.
    pub(crate) email: Email,
    generation: u64,
}

/// What the mail holds: 256 random bits.
#[derive(Clone, Debug)]
pub(crate) struct Token(Secret<String>);

impl Token {
    fn random() -> Result<Self, Error> {
        Ok(Self(Secret::new(random::token()?)))
    }

    /// `None` if no ticket can have it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let raw = hash::from_base64url(text)?;
        (raw.len() == 32).then(|| Self(Secret::new(text.to_owned())))
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }

    fn key(&self, tenant: &TenantId) -> Key {
        keys::ticket(tenant, &hash::base64url(&hash::sha256(self.0.expose().as_bytes())))
    }
}

/// By kind, how often a user's tickets were voided. Kept as long as its user: a ticket that outlived the number
/// would work again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Generations {
    #[serde(default)]
    reset: u64,
    #[serde(default)]
    verification: u64,
    #[serde(default)]
    change: u64,
}

impl Generations {
    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::PasswordReset => &mut self.reset,
            Kind::EmailVerification => &mut self.verification,
            Kind::EmailChange => &mut self.change,
        }
    }
}

/// Stages a ticket for one login method and one address. Reads and writes the same whether the owner exists.
pub(crate) async fn issue(
    tx: &mut Tx,
    tenant: &TenantId,
    kind: Kind,
    owner: &Owner,
    email: &Email,
) -> Result<Token, Error> {
    let mut generations: Generations = tx.get(&keys::tickets_of(&owner.user)).await?.unwrap_or_default();
    let (token, generation) = (Token::random()?, *generations.of(kind));
    let (user, login, email) = (owner.user.clone(), owner.login.clone(), email.clone());
    let ticket = Ticket { kind, user, login, email, generation };
    tx.insert_new(token.key(tenant), &ticket, Some(tx.now() + kind.lifetime()))?;
    Ok(token)
}

/// The ticket of a token, if it works still and for one of these kinds.
pub(crate) async fn find(
    tx: &mut Tx,
    tenant: &TenantId,
    token: &Token,
    kinds: &[Kind],
) -> Result<Option<Ticket>, Error> {
    let Some(ticket) = tx.get::<Ticket>(&token.key(tenant)).await? else { return Ok(None) };
    let mut generations: Generations = tx.get(&keys::tickets_of(&ticket.user)).await?.unwrap_or_default();
    let live = ticket.generation == *generations.of(ticket.kind) && kinds.contains(&ticket.kind);
    Ok(live.then_some(ticket))
}

/// Stages that a ticket is used up: of two who spend it at once, one batch is committed.
pub(crate) async fn spend(
    tx: &mut Tx,
    tenant: &TenantId,
    token: &Token,
    kinds: &[Kind],
) -> Result<Option<Ticket>, Error> {
    let found = find(tx, tenant, token, kinds).await?;
    if let Some(ticket) = &found {
        tx.check(keys::tickets_of(&ticket.user)).await?;
        tx.delete(token.key(tenant)).await?;
    }
    Ok(found)
}

/// Stages that all tickets of these kinds that a user has are void.
pub(crate) async fn void(tx: &mut Tx, user: &UserId, kinds: &[Kind]) -> Result<(), Error> {
    let key = keys::tickets_of(user);
    let mut generations: Generations = tx.get(&key).await?.unwrap_or_default();
    for kind in kinds {
        let number = generations.of(*kind);
        *number = number.saturating_add(1);
    }
    tx.put(key, &generations, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_32_bytes_and_its_key_is_a_digest() {
        let token = Token::random().unwrap();
        let again = Token::parse(token.expose()).unwrap();
        assert_eq!(again.key(&TenantId::PUBLIC), token.key(&TenantId::PUBLIC));
        assert!(!token.key(&TenantId::PUBLIC).as_str().contains(token.expose()));
        assert!(!format!("{token:?}").contains(token.expose()));
        for bad in ["", "a", &token.expose()[1..], &format!("{}A", token.expose()), &"=".repeat(43)] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn stored_form() {
        let ticket = Ticket {
            kind: Kind::PasswordReset,
            user: UserId::parse("u").unwrap(),
            login: LoginId::parse("l").unwrap(),
            email: Email::parse("a@shop.example").unwrap(),
            generation: 2,
        };
        let stored = serde_json::to_value(&ticket).unwrap();
        assert_eq!(stored["kind"], "password-reset");
        assert_eq!(serde_json::from_value::<Ticket>(stored).unwrap(), ticket);
    }
}
