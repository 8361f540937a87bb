//! What users sign in with, changed by themselves or brought along.

use std::sync::Arc;

use super::{Users, complete};
use crate::{
    base::{contact::Email, error::Error, ident::LoginId},
    flow::change::EmailChange,
    session::Session,
};
#[cfg(feature = "password")]
use crate::{
    base::{ident::TenantId, secret::Secret},
    factor::password::{Password, TooLong},
    flow::change::PasswordChange,
    model::{
        audit::{self, Audited, Event},
        tenant,
        user::{self, NewLogin, User},
    },
};

impl Users<'_> {
    /// Changes the password of a session's user, who types the current one. Wrong ones are counted with those at
    /// sign-in. Every other session of the user ends, links to reset the password are void, the user is told by mail,
    /// and this session goes on under new tokens, which leave with the response (row S09).
    ///
    /// What guards it is what guards every change of factors: see
    /// [`factor_changes`](crate::MfaBuilder::factor_changes). The current password counts as proved by this call; a
    /// user with a stronger factor is asked for that one first.
    ///
    /// ```
    /// # use tower_mfa::{Mfa, Session, account::PasswordChange, ident::Secret};
    /// # async fn change(mfa: &Mfa, session: &Session, old: String, new: String) -> Result<String, tower_mfa::Error> {
    /// Ok(match mfa.users().change_password(session, old, new).await? {
    ///     PasswordChange::Changed => "Your password was changed.".to_owned(),
    ///     PasswordChange::NotGoodEnough(why) => why,
    ///     _ => "Please try again.".to_owned(),
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` if the user has no password, `Invalid` if one of the two is longer than 1024 bytes or the response's
    /// head was sent; `SessionEnded`, `StaleToken`, `Unavailable` as
    /// [`Session::set_claim`](crate::Session::set_claim). Nothing is changed then.
    #[cfg(feature = "password")]
    pub async fn change_password(
        &self,
        session: &Session,
        current: impl Into<Secret<String>>,
        new: impl Into<Secret<String>>,
    ) -> Result<PasswordChange, Error> {
        let read = |text| Password::new(text).map_err(|TooLong| Error::invalid("the password is too long"));
        let (current, new): (Password, Password) = (read(current.into())?, read(new.into())?);
        let (desk, caller) = complete::caller(self.mfa, session)?;
        let (kit, held) = (Arc::clone(&desk.kit), session.clone());
        let work = async move {
            desk.change_password(&caller, &held, current, new).await.map_err(complete::refused)
        };
        kit.run(work).await
    }

    /// Asks for another e-mail address of a login method: a link goes to the new address, and once the user opens it,
    /// signed in, names and codes follow, every other session ends, and the former address is told (row S09). One
    /// change at a time: a later one, a reset of the password and a recovery void the link (row L04). An address that
    /// somebody else has gets no mail, which isn't told either.
    ///
    /// # Errors
    /// `Invalid` if [`EmailVerification`](crate::config::EmailVerification) is off, the login method has no address of
    /// its own or has this one; `NotFound` if it isn't the user's; `SessionEnded`, `StaleToken`, `Unavailable` as
    /// [`Session::set_claim`](crate::Session::set_claim).
    pub async fn change_email(
        &self,
        session: &Session,
        login: &LoginId,
        email: &Email,
    ) -> Result<EmailChange, Error> {
        let (desk, caller) = complete::caller(self.mfa, session)?;
        let (kit, held) = (Arc::clone(&desk.kit), session.clone());
        let (login, email) = (login.clone(), email.clone());
        let work = async move {
            desk.ask_email_change(&caller, &held, &login, &email).await.map_err(complete::refused)
        };
        kit.run(work).await
    }

    /// Makes a user who signs in by an address and a password that another system hashed, by Argon2id in PHC form
    /// (`$argon2id$v=19$m=…`) or, with the feature `bcrypt`, by bcrypt (`$2b$12$…`, `$2a$…`, `$2y$…`): an app moves
    /// without asking anybody for a new password. A hash that isn't what would be made today is made anew at the next
    /// sign-in (row W07). The address counts as `verified` or not as the app says.
    ///
    /// Of a password bcrypt hashes 72 bytes. Whoever has a longer one, or one with a NUL in it, can't sign in by it: what
    /// the other system never looked at can't be told right from wrong. They set another one by mail (row W02). How long
    /// an answer takes tells who hasn't signed in yet since the move.
    ///
    /// # Errors
    /// `Invalid` if the hash isn't of these kinds, or would never be computed: Argon2id that costs more than four times
    /// what is configured, bcrypt with a cost below 4 or above 14 (row W03). `Invalid` as well if somebody signs in by
    /// the address and a password; `NotFound` without the tenant.
    #[cfg(feature = "password")]
    pub async fn import_password_hash(
        &self,
        tenant: &TenantId,
        email: &Email,
        hash: impl Into<Secret<String>>,
        verified: bool,
    ) -> Result<User, Error> {
        let hash = hash.into();
        if !self.mfa.desk.passwords.computes(hash.expose()) {
            return Err(Error::invalid("this is no hash that would be computed"));
        }
        let new = NewLogin::password(email.clone(), hash.expose().clone());
        let (tenant, new) = (tenant.clone(), NewLogin { verified, ..new });
        self.mfa
            .change(|desk| async move {
                let (tenant, new) = (&tenant, &new);
                let stage = |mut tx: crate::model::Tx| async move {
                    tenant::joinable(&mut tx, tenant).await?;
                    if user::owner(&mut tx, tenant, new).await?.is_some() {
                        return Err(Error::invalid("the address is another user's"));
                    }
                    let user = user::prepare(tenant, new, tx.now())?;
                    user::create(&mut tx, tenant, &user, new).await?;
                    audit::stage(&mut tx, Event::new(Audited::UserCreated, tenant).user(&user.id))?;
                    tx.commit(user)
                };
                Ok((desk.kit.db.transact(tenant, stage).await?, Vec::new()))
            })
            .await
    }
}
