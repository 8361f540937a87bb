//! Users and their login methods.

use serde::{Deserialize, Serialize};

use super::{Tx, epoch, keys};
use crate::{
    base::{
        contact::{Contact, Email, Phone},
        error::{Error, ErrorKind},
        ident::{LoginId, TenantId, UserId},
        time::Timestamp,
    },
    store::Key,
};

pub use self::third_party::ThirdPartyId;
pub(crate) use self::{
    absorb::absorb,
    active::{Active, Disabled, active, disable, enable},
    email::{may_have, set_email},
    holders::holders,
    proof::{doubtful, prove, set_password, void_codes},
    removal::{delete, remove_login},
    tenants::{add_to_tenant, is_taken_in, leave},
};

mod absorb;
mod active;
mod email;
mod holders;
mod proof;
mod removal;
mod tenants;
mod third_party;

/// One person: one or more login methods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// The user's id; the id of the first login method while nothing was linked.
    pub id: UserId,
    /// Whether other login methods may be linked to this one. A user with several is always primary.
    pub primary: bool,
    /// The login methods, in the order in which they joined.
    pub logins: Vec<LoginMethod>,
    /// Whether nobody may sign in as this user, by whatever login method:
    /// [`Users::disable`](crate::account::Users::disable).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// One credential record of a user: what the wire calls a *recipe user*.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LoginMethod {
    /// The login method's own id.
    pub id: LoginId,
    /// What kind of credential.
    pub kind: LoginKind,
    /// The tenants in which it counts.
    pub tenants: Vec<TenantId>,
    /// When it was made.
    pub joined_at: Timestamp,
    /// Whether the contact was proved.
    pub verified: bool,
    /// The e-mail address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// The phone number, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<Phone>,
    /// The provider's name for the user, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub third_party: Option<ThirdPartyId>,
}

impl LoginMethod {
    /// A verified login method without a contact, in the tenant `public`: for tests of policies.
    pub fn new(id: LoginId, kind: LoginKind, joined_at: Timestamp) -> Self {
        Self {
            id,
            kind,
            tenants: vec![TenantId::PUBLIC],
            joined_at,
            verified: true,
            email: None,
            phone: None,
            third_party: None,
        }
    }
}

/// The kinds of login method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LoginKind {
    /// A password.
    EmailPassword,
    /// A third party's sign-in.
    ThirdParty,
    /// Codes and links by e-mail or SMS.
    Passwordless,
    /// A passkey.
    WebAuthn,
    /// A user of the app itself, whose credential the crate never sees.
    External,
}

impl User {
    /// A user of these login methods: for tests of policies.
    pub fn new(id: UserId, logins: Vec<LoginMethod>) -> Self {
        Self { id, primary: logins.len() > 1, logins, disabled: false }
    }

    /// The login method of this id, if the user has it.
    pub fn login(&self, id: &LoginId) -> Option<&LoginMethod> {
        self.logins.iter().find(|login| login.id == *id)
    }

    /// When the user's first login method was made.
    pub fn joined_at(&self) -> Timestamp {
        self.logins.iter().map(|login| login.joined_at).min().unwrap_or_default()
    }

    /// Whether any login method counts in the tenant.
    pub fn is_in(&self, tenant: &TenantId) -> bool {
        self.logins.iter().any(|login| login.tenants.contains(tenant))
    }
}

/// A login method that is about to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewLogin {
    pub(crate) kind: LoginKind,
    pub(crate) email: Option<Email>,
    pub(crate) phone: Option<Phone>,
    pub(crate) third_party: Option<ThirdPartyId>,
    /// The app's own name for the user, for [`LoginKind::External`].
    pub(crate) external: Option<UserId>,
    pub(crate) verified: bool,
    /// The password's hash, kept in a record of its own.
    pub(crate) password: Option<String>,
}

/// Whose login method a name is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) user: UserId,
    pub(crate) login: LoginId,
}

/// A password's hash, in PHC form.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PasswordHash {
    pub(crate) hash: String,
}

#[derive(Serialize, Deserialize)]
struct PrimaryOf {
    user: UserId,
}

impl NewLogin {
    pub(crate) fn password(email: Email, hash: String) -> Self {
        Self {
            kind: LoginKind::EmailPassword,
            email: Some(email),
            phone: None,
            third_party: None,
            external: None,
            verified: false,
            password: Some(hash),
        }
    }

    /// Passwordless logins are verified by what they are: the contact was just proved.
    pub(crate) fn passwordless(contact: &Contact) -> Self {
        let (email, phone) = match contact {
            Contact::Email(email) => (Some(email.clone()), None),
            Contact::Phone(phone) => (None, Some(phone.clone())),
        };
        Self {
            kind: LoginKind::Passwordless,
            email,
            phone,
            third_party: None,
            external: None,
            verified: true,
            password: None,
        }
    }

    /// A user of the app's own, whom the app checks.
    pub(crate) fn external(user: &UserId) -> Self {
        Self {
            kind: LoginKind::External,
            email: None,
            phone: None,
            third_party: None,
            external: Some(user.clone()),
            verified: true,
            password: None,
        }
    }

    #[cfg(feature = "third-party")]
    pub(crate) fn third_party(id: ThirdPartyId, email: Option<Email>, verified: bool) -> Self {
        Self {
            kind: LoginKind::ThirdParty,
            email,
            phone: None,
            third_party: Some(id),
            external: None,
            verified,
            password: None,
        }
    }

    /// The contact that it claims, if it has one.
    pub(crate) fn contact(&self) -> Option<Contact> {
        let phone = || self.phone.clone().map(Contact::from);
        self.email.clone().map(Contact::from).or_else(phone)
    }

    /// The key under which this login is found in a tenant.
    pub(crate) fn key(&self, tenant: &TenantId) -> Key {
        match (&self.external, &self.third_party, &self.email, &self.phone) {
            (Some(user), ..) => keys::login(tenant, "external", user.as_str()),
            (_, Some(id), ..) => keys::login(tenant, "thirdparty", &id.name()),
            (_, _, Some(email), _) if self.kind == LoginKind::EmailPassword => {
                keys::login(tenant, "emailpassword", email.as_str())
            }
            (_, _, Some(email), _) => keys::login(tenant, "passwordless-email", email.as_str()),
            (_, _, None, Some(phone)) => keys::login(tenant, "passwordless-phone", phone.as_str()),
            (_, _, None, None) => keys::login(tenant, "nameless", ""),
        }
    }

    /// The contacts by which a primary user is unique in a tenant (row L11).
    fn primary_keys(&self, tenant: &TenantId) -> Vec<Key> {
        let email = self.email.as_ref().map(|email| keys::primary(tenant, "email", email.as_str()));
        let phone = self.phone.as_ref().map(|phone| keys::primary(tenant, "phone", phone.as_str()));
        email.into_iter().chain(phone).collect()
    }
}

impl From<&LoginMethod> for NewLogin {
    fn from(login: &LoginMethod) -> Self {
        Self {
            kind: login.kind,
            email: login.email.clone(),
            phone: login.phone.clone(),
            third_party: login.third_party.clone(),
            external: (login.kind == LoginKind::External).then(|| login.id.alone()),
            verified: login.verified,
            password: None,
        }
    }
}

/// Finds who signs in by this name in a tenant.
pub(crate) async fn owner(tx: &mut Tx, tenant: &TenantId, login: &NewLogin) -> Result<Option<Owner>, Error> {
    tx.get(&login.key(tenant)).await
}

/// Loads a user.
pub(crate) async fn load(tx: &mut Tx, id: &UserId) -> Result<Option<User>, Error> {
    tx.get(&keys::user(id)).await
}

/// Loads a user who must be there.
///
/// # Errors
/// `NotFound` without one.
pub(crate) async fn existing(tx: &mut Tx, id: &UserId) -> Result<User, Error> {
    load(tx, id).await?.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such user"))
}

/// A user as it will be once [`create`] is committed: policies are asked about it before.
pub(crate) fn prepare(tenant: &TenantId, new: &NewLogin, now: Timestamp) -> Result<User, Error> {
    let id = match &new.external {
        Some(user) => LoginId::parse(user.as_str()).map_err(|_| Error::internal("not a login id"))?,
        None => LoginId::random()?,
    };
    let login = method(now, tenant, new, id);
    Ok(User { id: login.id.alone(), primary: false, logins: vec![login], disabled: false })
}

/// Stages a new user with one login method. The name must be free: `owner` said so in this round.
pub(crate) async fn create(tx: &mut Tx, tenant: &TenantId, user: &User, new: &NewLogin) -> Result<(), Error> {
    epoch::found(tx, keys::user_epoch(&user.id)).await?;
    tx.insert(keys::user(&user.id), user, None).await?;
    match user.logins.first() {
        Some(login) => stage_login(tx, tenant, user, login, new).await,
        None => Err(Error::internal("a new user has a login method")),
    }
}

/// Stages a new login method of an existing user, who becomes primary with it. `login` is [`method`] of `new`.
pub(crate) async fn add_login(
    tx: &mut Tx,
    tenant: &TenantId,
    user: &mut User,
    login: LoginMethod,
    new: &NewLogin,
) -> Result<(), Error> {
    user.logins.push(login.clone());
    make_primary(tx, user).await?;
    stage_login(tx, tenant, user, &login, new).await
}

/// The primary user of a contact that one of the login methods has in one of its tenants, if that isn't `user`.
pub(crate) async fn claimed_by_other(
    tx: &mut Tx,
    user: &UserId,
    logins: &[LoginMethod],
) -> Result<Option<UserId>, Error> {
    for login in logins {
        for tenant in &login.tenants {
            let owner = primary_of(tx, tenant, &NewLogin::from(login)).await?;
            if let Some(other) = owner.filter(|owner| owner != user) {
                return Ok(Some(other));
            }
        }
    }
    Ok(None)
}

/// Whether another primary user owns a contact of `login` in `tenant`.
pub(crate) async fn primary_of(
    tx: &mut Tx,
    tenant: &TenantId,
    login: &NewLogin,
) -> Result<Option<UserId>, Error> {
    for key in login.primary_keys(tenant) {
        if let Some(owner) = tx.get::<PrimaryOf>(&key).await? {
            return Ok(Some(owner.user));
        }
    }
    Ok(None)
}

/// Stages that a user is primary: its contacts are claimed in every tenant where they count.
pub(crate) async fn make_primary(tx: &mut Tx, user: &mut User) -> Result<(), Error> {
    user.primary = true;
    let mine = PrimaryOf { user: user.id.clone() };
    for login in &user.logins {
        for tenant in &login.tenants {
            for key in NewLogin::from(login).primary_keys(tenant) {
                match tx.get::<PrimaryOf>(&key).await? {
                    Some(owner) if owner.user == user.id => {}
                    Some(_) => return Err(Error::internal("a contact has another primary user")),
                    None => tx.put(key, &mine, None).await?,
                }
            }
        }
    }
    tx.put(keys::user(&user.id), user, None).await
}

pub(crate) fn method(now: Timestamp, tenant: &TenantId, new: &NewLogin, id: LoginId) -> LoginMethod {
    LoginMethod {
        id,
        kind: new.kind,
        tenants: vec![tenant.clone()],
        joined_at: now,
        verified: new.verified,
        email: new.email.clone(),
        phone: new.phone.clone(),
        third_party: new.third_party.clone(),
    }
}

async fn stage_login(
    tx: &mut Tx,
    tenant: &TenantId,
    user: &User,
    login: &LoginMethod,
    new: &NewLogin,
) -> Result<(), Error> {
    let owner = Owner { user: user.id.clone(), login: login.id.clone() };
    tx.insert(new.key(tenant), &owner, None).await?;
    tx.insert(keys::login_of(&login.id), &owner, None).await?;
    holders::enter(tx, tenant, &user.id, login).await?;
    if let Some(hash) = &new.password {
        tx.insert(keys::password(&login.id), &PasswordHash { hash: hash.clone() }, None).await?;
    }
    Ok(())
}

pub(crate) fn no_login() -> Error {
    Error::new(ErrorKind::NotFound, "the user has no such login method")
}
