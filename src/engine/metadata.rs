//! What the app keeps about users.

use serde_json::{Map, Value};

use super::Mfa;
use crate::{
    base::{error::Error, ident::UserId},
    model::{
        Tx, keys,
        metadata::{self, Metadata},
    },
};

/// What the app keeps about a user, a JSON object: see [`Mfa::metadata`].
///
/// It isn't in any token, and nothing of the crate's is in it: what a user opted into is kept apart. It is deleted with
/// the user.
#[derive(Debug)]
pub struct MetadataOf<'a> {
    pub(super) mfa: &'a Mfa,
}

impl MetadataOf<'_> {
    /// What is kept about a user; nothing of one who isn't there.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn of(&self, user: &UserId) -> Result<Map<String, Value>, Error> {
        Ok(self.mfa.db().get::<Metadata>(&keys::metadata(user)).await?.unwrap_or_default().members)
    }

    /// Merges members into it: each takes the place of the one of its name, `null` removes it. Answers all of it.
    ///
    /// ```
    /// # use serde_json::json;
    /// # use tower_mfa::{Mfa, ident::UserId};
    /// # async fn keep(mfa: &Mfa, user: &UserId) -> Result<(), tower_mfa::Error> {
    /// let update = json!({ "theme": "dark", "beta": null });
    /// let all = mfa.metadata().merge(user, update.as_object().cloned().unwrap_or_default()).await?;
    /// assert_eq!(all["theme"], "dark");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `NotFound` without the user; `Invalid` if it were more than 64 KiB of JSON then. Nothing is changed then.
    pub async fn merge(
        &self,
        user: &UserId,
        update: Map<String, Value>,
    ) -> Result<Map<String, Value>, Error> {
        self.edit(user, move |members| {
            for (name, value) in &update {
                match value {
                    Value::Null => drop(members.remove(name)),
                    value => drop(members.insert(name.clone(), value.clone())),
                }
            }
        })
        .await
    }

    /// Changes it in any way. If somebody else changes it at the same time, `edit` is called again with what they
    /// wrote: no change is lost. Answers all of it.
    ///
    /// # Errors
    /// As [`MetadataOf::merge`].
    pub async fn edit(
        &self,
        user: &UserId,
        edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static,
    ) -> Result<Map<String, Value>, Error> {
        let user = user.clone();
        self.mfa
            .change(|desk| async move {
                let (user, edit) = (&user, &edit);
                let stage = |mut tx: Tx| async move {
                    let members = metadata::change(&mut tx, user, edit).await?;
                    tx.commit(members)
                };
                Ok((desk.kit.db.transact(user, stage).await?, Vec::new()))
            })
            .await
    }
}
