//! Users of the app's own: the app checked who they are, and keeps them. What is stored here is one record, an
//! account with an external login, made when somebody signs in for the first time.

use super::{Caller, Desk, Refusal, complete::Outcome, evaluate::guarded};
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{FactorId, TenantId, UserId},
    },
    factor::{self, Bound, Credential},
    model::{
        keys,
        spend::Spend,
        tenant,
        user::{self, LoginKind, NewLogin, Owner, User},
    },
    policy::{AnyAppUsers, Person, PolicyError},
};

impl Desk {
    /// Starts a session for a user whom the app checked.
    pub(crate) async fn sign_in_own(
        &self,
        caller: &Caller,
        user: &UserId,
        factor: FactorId,
    ) -> Result<Outcome, Refusal> {
        self.admit_first(caller, &factor).await.map_err(|refusal| match refusal {
            Refusal::Denied(_) => Refusal::BadInput("this factor can't start a session here"),
            other => other,
        })?;
        let tenant = &caller.tenant;
        let known: Option<User> = self.kit.db.get(&keys::user(user)).await?;
        let credential = match known {
            None => Credential::Named(NewLogin::external(user)),
            Some(known) => Credential::Known(self.login_in(tenant, known).await?),
        };
        let bound = Bound { tenant: tenant.clone(), session: None };
        let proof = factor::accepted(factor, self.kit.db.now(), bound, Spend::Nothing, credential);
        self.sign_in(caller, proof).await
    }

    /// By which login method a known user signs in to a tenant: the app's own if there is one, which counts in any
    /// tenant that the app names.
    async fn login_in(&self, tenant: &TenantId, user: User) -> Result<Owner, Error> {
        let own = user.logins.iter().find(|login| login.kind == LoginKind::External);
        let here = user.logins.iter().find(|login| login.tenants.contains(tenant));
        let login = match (own, here) {
            // Who is disabled comes to no other tenant, and is refused as everywhere.
            (Some(own), _) if own.tenants.contains(tenant) || user.disabled => own,
            (Some(own), _) => {
                self.join(tenant, &user.id).await?;
                own
            }
            (None, Some(here)) => here,
            (None, None) => return Err(Error::invalid("the user is in other tenants only")),
        };
        Ok(Owner { user: user.id.clone(), login: login.id.clone() })
    }

    async fn join(&self, tenant: &TenantId, id: &UserId) -> Result<(), Error> {
        self.kit
            .db
            .transact(id, |mut tx| async move {
                let mut user = user::existing(&mut tx, id).await?;
                tenant::joinable(&mut tx, tenant).await?;
                user::add_to_tenant(&mut tx, &mut user, tenant).await?;
                tx.commit(())
            })
            .await
    }

    /// A stored user as policies, destinations and notices see them.
    pub(crate) async fn person(&self, stored: User) -> Result<Person, Error> {
        person(self.own_users.as_ref(), stored).await
    }
}

/// Asks the app about a user of its own; of others nothing is asked.
///
/// # Errors
/// `SessionEnded` if the app has nobody by this id any more; why it didn't answer, else.
pub(super) async fn person(own_users: Option<&AnyAppUsers>, stored: User) -> Result<Person, Error> {
    let own = stored.logins.iter().find(|login| login.kind == LoginKind::External);
    let Some((users, id)) = own_users.zip(own.map(|login| login.id.alone())) else {
        return Ok(Person::new(stored, None));
    };
    let app = guarded(async { users.load(&id).await.map_err(PolicyError::unavailable) }).await?;
    match app {
        Some(app) => Ok(Person::new(stored, Some(app))),
        None => Err(Error::new(ErrorKind::SessionEnded, "the app has no such user any more")),
    }
}
