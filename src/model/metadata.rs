//! What the app keeps about a user; and what the user opted into, a record of its own, so that no call about the
//! first reaches it (row P16).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Tx,
    change::{self, Change, ChangeKind, Subject},
    keys, user,
};
use crate::base::{
    distinct,
    error::Error,
    ident::{FactorId, TenantId, UserId},
};

/// How much the app may keep about a user, in bytes of JSON.
pub(crate) const MOST: usize = 64 * 1024;

/// What the app keeps about a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) members: Map<String, Value>,
}

/// Stages a change of what the app keeps about a user, and answers it as it is then.
///
/// # Errors
/// `NotFound` without the user, `Invalid` if it grew beyond [`MOST`].
pub(crate) async fn change(
    tx: &mut Tx,
    id: &UserId,
    edit: impl FnOnce(&mut Map<String, Value>),
) -> Result<Map<String, Value>, Error> {
    let (key, owner) = (keys::metadata(id), keys::user(id));
    tx.prefetch([key.clone(), owner.clone()]).await?;
    user::existing(tx, id).await?;
    let before: Metadata = tx.get(&key).await?.unwrap_or_default();
    let mut after = before.clone();
    edit(&mut after.members);
    if after == before {
        return Ok(after.members);
    }
    if serde_json::to_vec(&after).map_or(usize::MAX, |text| text.len()) > MOST {
        return Err(Error::invalid("what is kept about a user is at most 64 KiB of JSON"));
    }
    // With the user it goes; a user that goes meanwhile leaves nothing behind.
    tx.check(owner).await?;
    match after.members.is_empty() {
        true => tx.delete(key).await?,
        false => tx.put(key, &after, None).await?,
    }
    Ok(after.members)
}

/// A user's factors, in the order in which they were added, each once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RequiredFactors {
    factors: Vec<FactorId>,
    /// What was opted into in one tenant only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    in_tenants: BTreeMap<TenantId, Vec<FactorId>>,
}

impl RequiredFactors {
    /// Adds a factor, everywhere or in a tenant; says whether anything changed.
    pub(crate) fn add(&mut self, tenant: Option<&TenantId>, factor: &FactorId) -> bool {
        let list = match tenant {
            Some(tenant) => self.in_tenants.entry(tenant.clone()).or_default(),
            None => &mut self.factors,
        };
        let new = !list.contains(factor);
        if new {
            list.push(factor.clone());
        }
        new
    }

    /// Removes a factor from where it was added; says whether anything changed.
    pub(crate) fn remove(&mut self, tenant: Option<&TenantId>, factor: &FactorId) -> bool {
        let list = match tenant {
            Some(tenant) => self.in_tenants.get_mut(tenant),
            None => Some(&mut self.factors),
        };
        let Some(list) = list else { return false };
        let before = list.len();
        list.retain(|known| known != factor);
        let changed = list.len() != before;
        self.in_tenants.retain(|_, list| !list.is_empty());
        changed
    }

    /// What counts in a tenant: what was opted into everywhere, then what only there.
    pub(crate) fn within(&self, tenant: &TenantId) -> Vec<FactorId> {
        let there = self.in_tenants.get(tenant).into_iter().flatten();
        distinct(self.factors.iter().chain(there).cloned())
    }

    /// Forgets what was opted into in a tenant alone; says whether there was anything.
    pub(crate) fn forget(&mut self, tenant: &TenantId) -> bool {
        self.in_tenants.remove(tenant).is_some()
    }

    /// What was opted into everywhere; or in one tenant only.
    pub(crate) fn listed(&self, tenant: Option<&TenantId>) -> Vec<FactorId> {
        match tenant {
            Some(tenant) => self.in_tenants.get(tenant).cloned().unwrap_or_default(),
            None => self.factors.clone(),
        }
    }
}

/// Stages a change of what a user opted into and, if it is one, that the user's sessions are judged anew.
/// Answers the list as it is then.
pub(crate) async fn edit(
    tx: &mut Tx,
    user: &UserId,
    edit: impl FnOnce(&mut RequiredFactors) -> bool,
) -> Result<(RequiredFactors, Option<Change>), Error> {
    let key = keys::required(user);
    let mut list: RequiredFactors = tx.get(&key).await?.unwrap_or_default();
    if !edit(&mut list) {
        return Ok((list, None));
    }
    tx.put(key, &list, None).await?;
    let change = change::stage(tx, Subject::User(user.clone()), ChangeKind::JudgeAnew).await?;
    Ok((list, Some(change)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The vectors keep the list in a document with other things; only the list is ours.
    #[test]
    fn the_list_follows_the_vectors() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/vectors/required_factors_storage.json")).unwrap();
        let listed = |document: &Value| match &document["_supertokens"]["requiredSecondaryFactors"] {
            Value::Null => json!([]),
            list => list.clone(),
        };
        let cases = vectors["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let name = &case["name"];
            let stored = json!({ "factors": listed(&case["input"]["metadata"]) });
            let mut list: RequiredFactors = serde_json::from_value(stored).unwrap();
            let operations = case["input"]["operations"].as_array().unwrap();
            let steps = operations.iter().map(|step| {
                let factor = || FactorId::parse(step["factorId"].as_str().unwrap()).unwrap();
                let wrote = match step["op"].as_str().unwrap() {
                    "add" => list.add(None, &factor()),
                    "remove" => list.remove(None, &factor()),
                    "get" => false,
                    other => panic!("{name}: no operation {other}"),
                };
                json!({ "wrote": wrote, "required": list.listed(None) })
            });
            assert_eq!(steps.collect::<Value>(), case["expected"]["steps"], "{name}");
            assert_eq!(json!(list.listed(None)), listed(&case["expected"]["metadataAfter"]), "{name}");
        }
    }
}
