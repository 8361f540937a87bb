//! Users and their login methods.

use std::{pin::Pin, sync::Arc};

use super::Mfa;
use crate::{
    base::{
        contact::{Contact, Email, Phone},
        error::{Error, ErrorKind},
        ident::{FactorId, LoginId, TenantId, UserId},
    },
    delivery::{Notice, telling::factor_of},
    model::{
        Staged, Tx,
        audit::{self, Audited, Cause, Event},
        change::{self, Change, ChangeKind, Subject},
        keys, session, tenant,
        user::{self, NewLogin, Owner, User},
    },
    session::Session,
};

/// Users and their login methods: see [`Mfa::users`].
#[derive(Debug)]
pub struct Users<'a> {
    pub(super) mfa: &'a Mfa,
}

impl Users<'_> {
    /// A user with all login methods.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn load(&self, user: &UserId) -> Result<Option<User>, Error> {
        self.mfa.db().get(&keys::user(user)).await
    }

    /// The users who have an e-mail address in a tenant, by whatever login method: a password, codes, a third party.
    /// Whether they proved it, each login method says ([`User::has_proved`]).
    ///
    /// # Errors
    /// If the store failed.
    pub async fn by_email(&self, tenant: &TenantId, email: &Email) -> Result<Vec<User>, Error> {
        let (db, contact) = (self.mfa.db(), &Contact::from(email.clone()));
        let look = |mut tx: Tx| async move {
            let holders = user::holders(&mut tx, tenant, contact).await?;
            tx.abandon(holders)
        };
        db.look(look).await
    }

    /// The user who signs in by codes to a number in a tenant, or completes them.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn by_phone(&self, tenant: &TenantId, phone: &Phone) -> Result<Option<User>, Error> {
        let key = NewLogin::passwordless(&phone.clone().into()).key(tenant);
        match self.mfa.db().get::<Owner>(&key).await? {
            Some(owner) => self.load(&owner.user).await,
            None => Ok(None),
        }
    }

    /// Where codes and links for the user of a session go, or would if they asked for the first one: by factor, and
    /// masked (`+***42`), as the user may see them. Read anew from the store, for no token has contacts in it (row
    /// P18). Sent back by that session, a masked one stands for the one it was made of.
    ///
    /// # Errors
    /// `SessionEnded` if user or login method are gone; if the store failed.
    pub async fn masked_contacts(&self, session: &Session) -> Result<Vec<(FactorId, Vec<String>)>, Error> {
        let over = || Error::new(ErrorKind::SessionEnded, "the session's user or login method is gone");
        let who = self.mfa.desk.person_of(&session.user_id()).await?.ok_or_else(over)?;
        let listed = self.mfa.desk.factors.contacts(&who.user, &session.login_id()).ok_or_else(over)?;
        let masked = |list: Vec<Contact>| list.iter().map(Contact::masked).collect();
        Ok(listed.destinations().map(|(factor, list)| (factor, masked(list))).collect())
    }

    /// Makes a user who signs in by codes to this address, already proved elsewhere.
    ///
    /// # Errors
    /// `Invalid` if somebody signs in by codes to the address in the tenant already; one who has it by a password or a third
    /// party is no obstacle, and stays another user. `NotFound` without the tenant.
    pub async fn create(&self, tenant: &TenantId, email: &Email) -> Result<User, Error> {
        let (tenant, new) = (tenant.clone(), NewLogin::passwordless(&email.clone().into()));
        self.mfa
            .change(|desk| async move {
                let user = desk
                    .kit
                    .db
                    .transact(&tenant, |mut tx| {
                        let (tenant, new) = (&tenant, &new);
                        async move {
                            tenant::joinable(&mut tx, tenant).await?;
                            if user::owner(&mut tx, tenant, new).await?.is_some() {
                                return Err(Error::invalid("the address signs in another user by codes"));
                            }
                            let user = user::prepare(tenant, new, tx.now())?;
                            user::create(&mut tx, tenant, &user, new).await?;
                            audit::stage(&mut tx, Event::new(Audited::UserCreated, tenant).user(&user.id))?;
                            tx.commit(user)
                        }
                    })
                    .await?;
                Ok((user, Vec::new()))
            })
            .await
    }

    /// Gives a user another login method: codes to this address, already proved elsewhere. Every session of
    /// the user ends, as whenever what one signs in with changes (row S09).
    ///
    /// # Errors
    /// `Invalid` if somebody signs in by codes to the address in the tenant already, this user among them, or if it, or a
    /// contact that the user has, is another primary user's, to whom login methods were joined. `NotFound` without
    /// the user or the tenant.
    pub async fn add_email(&self, user: &UserId, tenant: &TenantId, email: &Email) -> Result<User, Error> {
        self.add_contact(user, tenant, &email.clone().into()).await
    }

    /// As [`Users::add_email`], for codes to a number.
    ///
    /// # Errors
    /// As [`Users::add_email`].
    pub async fn add_phone(&self, user: &UserId, tenant: &TenantId, phone: &Phone) -> Result<User, Error> {
        self.add_contact(user, tenant, &phone.clone().into()).await
    }

    async fn add_contact(&self, user: &UserId, tenant: &TenantId, contact: &Contact) -> Result<User, Error> {
        let (id, tenant) = (user.clone(), tenant.clone());
        let new = NewLogin::passwordless(contact);
        let courier = Arc::clone(&self.mfa.desk.courier);
        self.edit(id, move |mut tx, mut user| {
            let (tenant, new, courier) = (tenant.clone(), new.clone(), Arc::clone(&courier));
            Box::pin(async move {
                tenant::joinable(&mut tx, &tenant).await?;
                let taken = user::owner(&mut tx, &tenant, &new).await?.is_some()
                    || user::primary_of(&mut tx, &tenant, &new).await?.is_some_and(|other| other != user.id)
                    || user::claimed_by_other(&mut tx, &user.id, &user.logins).await?.is_some();
                if taken {
                    return Err(Error::invalid("the contact, or one of the user's own, is another user's"));
                }
                let login = user::method(tx.now(), &tenant, &new, LoginId::random()?);
                if let Some(factor) = factor_of(&login) {
                    courier.tell(&mut tx, &tenant, &user, |to| Notice::FactorAdded {
                        to,
                        factor: factor.clone(),
                    })?;
                }
                user::add_login(&mut tx, &tenant, &mut user, login, &new).await?;
                audit::stage(&mut tx, Event::new(Audited::LoginAdded, &tenant).user(&user.id))?;
                let change = session::end_of_user(&mut tx, &user.id, None, Cause::FactorsChanged).await?;
                crate::base::failpoint!("factor.add.before_commit");
                tx.commit((user, vec![change]))
            })
        })
        .await
    }

    /// Takes a login method away from a user, with its credential and its codes under way: nobody signs in by it
    /// any more, and the factors that it proved aren't set up any more. Every session of the user ends, those that it
    /// began among them, as whenever what one signs in with changes (rows S09, L12). What the user opted into stays: see
    /// [`FactorsOf::opt_out`](crate::account::FactorsOf::opt_out).
    ///
    /// # Errors
    /// `NotFound` without the user or if the login method isn't theirs; `Invalid` if it is their last one, or the last
    /// one that claims nothing unproved ([`User::is_proved`]): what nobody proved is no way back to an account. Only where
    /// no link proves addresses ([`EmailVerification::Off`](crate::config::EmailVerification::Off)) one that begins no
    /// sign-in in any tenant goes all the same, such as a phone that only completes them and was lost.
    pub async fn remove_login(&self, user: &UserId, login: &LoginId) -> Result<User, Error> {
        let (login, courier) = (login.clone(), Arc::clone(&self.mfa.desk.courier));
        let desk = Arc::clone(&self.mfa.desk);
        self.edit(user.clone(), move |mut tx, mut user| {
            let (login, courier, desk) = (login.clone(), Arc::clone(&courier), Arc::clone(&desk));
            Box::pin(async move {
                let must_stay = match user.login(&login) {
                    Some(login) => desk.last_proved_stays(&mut tx, login).await?,
                    None => true,
                };
                if let Some(factor) = user.login(&login).and_then(factor_of) {
                    let tenant = user.login(&login).and_then(|login| login.tenants.first()).cloned();
                    let tenant = tenant.unwrap_or(TenantId::PUBLIC);
                    courier.tell(&mut tx, &tenant, &user, |to| Notice::FactorRemoved {
                        to,
                        factor: factor.clone(),
                    })?;
                }
                user::remove_login(&mut tx, &mut user, &login, must_stay).await?;
                let event = Event::new(Audited::LoginRemoved, &TenantId::PUBLIC).user(&user.id);
                audit::stage(&mut tx, event)?;
                let change = session::end_of_user(&mut tx, &user.id, None, Cause::FactorsChanged).await?;
                crate::base::failpoint!("factor.remove.before_commit");
                tx.commit((user, vec![change]))
            })
        })
        .await
    }

    /// Lets all of a user's login methods count in more tenants.
    ///
    /// # Errors
    /// `Invalid` if a name is taken there, `NotFound` without the user or a tenant.
    pub async fn add_to_tenants(
        &self,
        user: &UserId,
        tenants: impl IntoIterator<Item = TenantId>,
    ) -> Result<User, Error> {
        let tenants: Vec<TenantId> = tenants.into_iter().collect();
        self.edit(user.clone(), move |mut tx, mut user| {
            let tenants = tenants.clone();
            Box::pin(async move {
                for tenant in &tenants {
                    tenant::joinable(&mut tx, tenant).await?;
                    user::add_to_tenant(&mut tx, &mut user, tenant).await?;
                }
                tx.commit((user, Vec::new()))
            })
        })
        .await
    }

    /// Takes a user out of a tenant, with all that is theirs only there: names to sign in by, codes under way, roles,
    /// opt-ins, sessions (row N05). Their login methods stay, and count in the other tenants they are in.
    ///
    /// # Errors
    /// `NotFound` without the user. One who isn't in the tenant is no error.
    pub async fn remove_from_tenant(&self, user: &UserId, tenant: &TenantId) -> Result<User, Error> {
        let tenant = tenant.clone();
        self.edit(user.clone(), move |mut tx, mut user| {
            let tenant = tenant.clone();
            Box::pin(async move {
                let changes = user::leave(&mut tx, &mut user, &tenant).await?;
                tx.commit((user, changes))
            })
        })
        .await
    }

    /// Lets nobody sign in as a user any more, by whatever login method, on whatever way: a password is wrong, no code
    /// and no link to set a password is sent, a third party or [`Mfa::sign_in`] is refused. Every session ends, codes and
    /// links under way are void (row S10). Whoever tries learns no more than with an address that is nobody's, unless
    /// they proved who they are. [`User::disabled`] says so; nothing else of the user changes.
    ///
    /// ```
    /// # async fn lock(mfa: &tower_mfa::Mfa, user: &tower_mfa::ident::UserId) -> Result<(), tower_mfa::Error> {
    /// assert!(mfa.users().disable(user).await?.disabled);
    /// assert!(!mfa.users().enable(user).await?.disabled);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `NotFound` without the user. One who is disabled already is no error.
    pub async fn disable(&self, user: &UserId) -> Result<User, Error> {
        self.edit(user.clone(), |mut tx, mut user| {
            Box::pin(async move {
                if user.disabled {
                    return tx.abandon((user, Vec::new()));
                }
                let change = user::disable(&mut tx, &mut user).await?;
                tx.commit((user, vec![change]))
            })
        })
        .await
    }

    /// Lets a user sign in again. Sessions that ended stay so.
    ///
    /// # Errors
    /// `NotFound` without the user. One who isn't disabled is no error.
    pub async fn enable(&self, user: &UserId) -> Result<User, Error> {
        self.edit(user.clone(), |mut tx, mut user| {
            Box::pin(async move {
                if !user.disabled {
                    return tx.abandon((user, Vec::new()));
                }
                user::enable(&mut tx, &mut user).await?;
                tx.commit((user, Vec::new()))
            })
        })
        .await
    }

    /// Deletes a user, with everything that is only theirs; every session ends.
    ///
    /// # Errors
    /// `NotFound` without the user.
    pub async fn delete(&self, user: &UserId) -> Result<(), Error> {
        self.edit(user.clone(), |mut tx, user| {
            Box::pin(async move {
                let gone = user::delete(&mut tx, user.clone()).await?;
                tx.commit((user, vec![gone]))
            })
        })
        .await?;
        Ok(())
    }

    /// The app's own rule about a user changed: the next request of each of their sessions asks the policy.
    ///
    /// # Errors
    /// `NotFound` without the user: one of the app's own is there from their first sign-in on; if the store failed.
    pub async fn judge_anew(&self, user: &UserId) -> Result<(), Error> {
        self.edit(user.clone(), |mut tx, user| {
            Box::pin(async move {
                let subject = Subject::User(user.id.clone());
                let change = change::stage(&mut tx, subject, ChangeKind::JudgeAnew).await?;
                tx.commit((user, vec![change]))
            })
        })
        .await?;
        Ok(())
    }

    async fn edit(
        &self,
        id: UserId,
        edit: impl Fn(Tx, User) -> Edited + Send + Sync + 'static,
    ) -> Result<User, Error> {
        self.mfa
            .change(|desk| async move {
                let (id, edit) = (&id, &edit);
                desk.kit
                    .db
                    .transact(id, |mut tx| async move {
                        let user = user::existing(&mut tx, id).await?;
                        edit(tx, user).await
                    })
                    .await
            })
            .await
    }
}

type Edit = Result<Staged<(User, Vec<Change>)>, Error>;
type Edited = Pin<Box<dyn Future<Output = Edit> + Send>>;
