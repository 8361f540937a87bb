//! By what kinds of browser or app a user signed in: to tell them of a new one.
//!
//! A kind is what the client calls itself, its numbers left out, so that an update is no new device. That is a hint
//! and no proof: whoever uses the same browser on the same system isn't told apart, and anybody can claim to be it. It
//! decides nothing but whether a message is sent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Tx, keys};
use crate::base::{error::Error, hash, ident::UserId};

/// The newest so many are known, and how long after the last new one.
const MOST: usize = 20;
const LIFE: Duration = Duration::from_secs(400 * 24 * 3600);

/// Digests alone: the store needn't know who uses what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Agents {
    known: Vec<String>,
}

/// Stages that a user signed in by this. Says whether it is a new kind: never the first one, as nothing is known
/// before.
pub(crate) async fn note(tx: &mut Tx, user: &UserId, agent: Option<&str>) -> Result<bool, Error> {
    let (key, kind) = (keys::agents(user), kind(user, agent.unwrap_or_default()));
    let mut agents: Agents = tx.get(&key).await?.unwrap_or_default();
    if agents.known.contains(&kind) {
        return Ok(false);
    }
    let is_new = !agents.known.is_empty();
    agents.known.push(kind);
    let surplus = agents.known.len().saturating_sub(MOST);
    agents.known.drain(..surplus);
    let end = tx.now() + LIFE;
    tx.put(key, &agents, Some(end)).await?;
    Ok(is_new)
}

/// What a client calls itself, as a person may be shown it: at most 256 characters, no control ones.
pub(crate) fn shown(agent: &str) -> String {
    agent.chars().filter(|c| !c.is_control()).take(256).collect()
}

fn kind(user: &UserId, agent: &str) -> String {
    let kind: String = agent.chars().filter(|c| !c.is_ascii_digit()).collect();
    // Versions differ in how many parts they have, too.
    let kind = kind.replace('.', "");
    let mut digest = hash::sha256_hex(format!("{user} {kind}").as_bytes());
    digest.truncate(16);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_no_new_device_and_another_browser_is() {
        let (alice, bob) = (UserId::parse("alice").unwrap(), UserId::parse("bob").unwrap());
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36";
        let newer = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/121.0 Safari/537.36";
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0";
        assert_eq!(kind(&alice, chrome), kind(&alice, newer));
        assert_ne!(kind(&alice, chrome), kind(&alice, firefox));
        assert_ne!(kind(&alice, chrome), kind(&bob, chrome));
    }
}
