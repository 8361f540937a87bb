//! What an app says of users of its own, who sign in by `Mfa::sign_in` and live in a table of the app's.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use crate::{
    base::{
        contact::{Email, Phone},
        error::BoxError,
        ident::UserId,
        payload::Payload,
    },
    model::user::{LoginKind, User},
};

/// Where an app keeps its users: see [`MfaBuilder::own_users`](crate::MfaBuilder::own_users).
///
/// It is asked whenever something is decided about a user who signed in by [`Mfa::sign_in`](crate::Mfa::sign_in), and
/// the answer isn't kept. An error, a panic, or an answer that takes over 5 s fails the request: 503, or 500 for the
/// panic. Nobody gets in because the app's table could not be read.
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
/// use tower_mfa::{
///     account::{AppUser, AppUsers},
///     ident::{BoxError, Email, UserId},
/// };
///
/// /// A table: id, and address.
/// struct Customers(Arc<HashMap<u64, String>>);
///
/// impl AppUsers for Customers {
///     async fn load(&self, user: &UserId) -> Result<Option<AppUser>, BoxError> {
///         let Some(email) = self.0.get(&user.as_str().parse()?) else { return Ok(None) };
///         Ok(Some(AppUser::new().email(Email::parse(email)?)))
///     }
/// }
/// ```
pub trait AppUsers: Send + Sync + 'static {
    /// What the app knows of a user. `None` if there is nobody by this id any more: their sessions are over at the
    /// next judgement, as 401.
    ///
    /// # Errors
    /// If it can't be told now.
    fn load(&self, user: &UserId) -> impl Future<Output = Result<Option<AppUser>, BoxError>> + Send;
}

/// What an app knows of one of its users. Where nothing is said, the user's own enrolment counts.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct AppUser {
    /// Where codes by e-mail go: there alone, and the app answers for it. Security notices go there, too.
    pub email: Option<Email>,
    /// Where codes by SMS go, likewise.
    pub phone: Option<Phone>,
    /// Anything that a policy of the app's reads, such as a group or a risk: see
    /// [`PolicyContext::app_user`](crate::PolicyContext::app_user). It isn't stored, and in no token.
    pub attributes: Payload,
}

impl AppUser {
    /// A user of whom only the id is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// With an address that the app answers for.
    pub fn email(mut self, email: Email) -> Self {
        self.email = Some(email);
        self
    }

    /// With a number that the app answers for.
    pub fn phone(mut self, phone: Phone) -> Self {
        self.phone = Some(phone);
        self
    }

    /// With what policies read.
    pub fn attributes(mut self, attributes: Payload) -> Self {
        self.attributes = attributes;
        self
    }
}

/// A table of the app's that knows an address of each user: the whole of what [`AppUsers`] asks, from a function that
/// the app has already.
///
/// ```
/// # use std::{collections::HashMap, sync::Arc};
/// use tower_mfa::account::EmailOf;
///
/// #[derive(Clone)]
/// struct Customers(Arc<HashMap<String, String>>);
///
/// impl Customers {
///     /// The address of a customer.
///     async fn email(self, id: String) -> std::io::Result<Option<String>> {
///         Ok(self.0.get(&id).cloned())
///     }
/// }
///
/// # fn add(builder: tower_mfa::MfaBuilder, customers: Customers) -> tower_mfa::MfaBuilder {
/// builder.own_users(EmailOf::new(customers, Customers::email))
/// # }
/// ```
#[derive(Clone)]
pub struct EmailOf<T, F> {
    table: T,
    email: F,
}

impl<T, F> EmailOf<T, F> {
    /// From a table, and its function from a user's id to the address; `None` of a user who isn't there. A text that
    /// is no address is an error.
    pub fn new(table: T, email: F) -> Self {
        Self { table, email }
    }
}

impl<T, F> fmt::Debug for EmailOf<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailOf")
    }
}

impl<T, F, R, E> AppUsers for EmailOf<T, F>
where
    T: Clone + Send + Sync + 'static,
    F: Fn(T, String) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Option<String>, E>> + Send,
    E: Into<BoxError>,
{
    async fn load(&self, user: &UserId) -> Result<Option<AppUser>, BoxError> {
        let email = (self.email)(self.table.clone(), user.to_string()).await.map_err(Into::into)?;
        Ok(email.map(|email| Email::parse(&email)).transpose()?.map(|email| AppUser::new().email(email)))
    }
}

/// A user as policies, destinations and notices see them: as stored, and with what the app says.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    /// The login methods of the app's own have its contacts. Never to be stored.
    pub(crate) user: User,
    pub(crate) app: Option<AppUser>,
}

impl Person {
    pub(crate) fn new(mut user: User, app: Option<AppUser>) -> Self {
        if let Some(app) = &app {
            for login in user.logins.iter_mut().filter(|login| login.kind == LoginKind::External) {
                (login.email, login.phone) = (app.email.clone(), app.phone.clone());
            }
        }
        Self { user, app }
    }
}

/// Any such table, chosen at run time.
#[derive(Clone)]
pub(crate) struct AnyAppUsers(Arc<dyn Erased>);

impl AnyAppUsers {
    pub(crate) fn new(users: impl AppUsers) -> Self {
        Self(Arc::new(users))
    }

    pub(crate) async fn load(&self, user: &UserId) -> Result<Option<AppUser>, BoxError> {
        self.0.load_boxed(user).await
    }
}

impl fmt::Debug for AnyAppUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyAppUsers")
    }
}

type Loaded<'a> = Pin<Box<dyn Future<Output = Result<Option<AppUser>, BoxError>> + Send + 'a>>;

/// The twin of [`AppUsers`] that can be `dyn`.
trait Erased: Send + Sync {
    fn load_boxed<'a>(&'a self, user: &'a UserId) -> Loaded<'a>;
}

impl<U: AppUsers> Erased for U {
    fn load_boxed<'a>(&'a self, user: &'a UserId) -> Loaded<'a> {
        Box::pin(self.load(user))
    }
}
