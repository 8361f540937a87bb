//! What an app asks of a sign-up: its own fields beside e-mail and password, and what a password must be.

use std::{borrow::Cow, fmt, future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;

use super::password::{Password, PasswordRules};
use crate::base::{
    error::{BoxError, Error, ErrorKind},
    secret::Secret,
};

/// How long the app's own check of a password may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A field of the sign-up form, beside `email` and `password`.
///
/// ```
/// use tower_mfa::factor::FormField;
/// # fn build(builder: tower_mfa::MfaBuilder) -> tower_mfa::MfaBuilder {
/// builder
///     .sign_up_field(FormField::new("name"))
///     .sign_up_field(FormField::new("age").optional().check(|age| match age.parse::<u8>() {
///         Ok(18..) => Ok(()),
///         _ => Err("You must be 18 or older".into()),
///     }))
/// # }
/// ```
///
/// What was sent reaches [`Hooks::on_user_created`](crate::hooks::Hooks::on_user_created). A client may send a value that
/// isn't text: then its JSON is what was typed, `true` or `18`, and `null` is a field that was left empty.
#[derive(Clone)]
pub struct FormField {
    pub(crate) id: String,
    pub(crate) optional: bool,
    check: Option<Arc<Check>>,
}

type Check = dyn Fn(&str) -> Result<(), Cow<'static, str>> + Send + Sync;

impl FormField {
    /// A field that must be filled in.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), optional: false, check: None }
    }

    /// It may be left out, or empty.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// What it must be like, if it is filled in: `Err` carries the text to show beside the field.
    pub fn check(
        mut self,
        check: impl Fn(&str) -> Result<(), Cow<'static, str>> + Send + Sync + 'static,
    ) -> Self {
        self.check = Some(Arc::new(check));
        self
    }

    /// The text to show beside the field, if what was sent isn't good enough.
    pub(crate) fn judge(&self, value: &str) -> Result<(), Cow<'static, str>> {
        match (value.is_empty(), &self.check) {
            (true, _) if self.optional => Ok(()),
            (true, _) => Err("Field is not optional".into()),
            (false, Some(check)) => check(value),
            (false, None) => Ok(()),
        }
    }
}

impl fmt::Debug for FormField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormField")
            .field("id", &self.id)
            .field("optional", &self.optional)
            .finish_non_exhaustive()
    }
}

/// Whether a password is known from a leak: asked at sign-up, change and reset, never at sign-in.
///
/// ```
/// use tower_mfa::{
///     factor::BreachedPasswords,
///     ident::{BoxError, Secret},
/// };
///
/// /// A list in memory; others ask a service by the first digits of a hash.
/// struct List(std::collections::HashSet<String>);
///
/// impl BreachedPasswords for List {
///     async fn is_breached(&self, password: &Secret<String>) -> Result<bool, BoxError> {
///         Ok(self.0.contains(password.expose()))
///     }
/// }
/// # fn build(builder: tower_mfa::MfaBuilder) -> tower_mfa::MfaBuilder {
/// builder.breached_passwords(List(["password1".to_owned()].into()))
/// # }
/// ```
pub trait BreachedPasswords: Send + Sync + 'static {
    /// Whether nobody should have this password any more. It must not be kept or logged.
    ///
    /// # Errors
    /// The password isn't taken: who can't be asked hasn't said no. The client is answered 503, as after 5 s and
    /// after a panic.
    fn is_breached(&self, password: &Secret<String>) -> impl Future<Output = Result<bool, BoxError>> + Send;
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<bool, BoxError>> + Send + 'a>>;

/// The twin of [`BreachedPasswords`] that can be `dyn`.
trait Erased: Send + Sync {
    fn ask<'a>(&'a self, password: &'a Secret<String>) -> Answer<'a>;
}

impl<B: BreachedPasswords> Erased for B {
    fn ask<'a>(&'a self, password: &'a Secret<String>) -> Answer<'a> {
        Box::pin(self.is_breached(password))
    }
}

/// What the app says of passwords and of the form they come with.
#[derive(Clone, Default)]
pub(crate) struct PasswordSettings {
    pub(crate) rules: PasswordRules,
    pub(crate) fields: Vec<FormField>,
    breached: Option<Arc<dyn Erased>>,
}

impl PasswordSettings {
    pub(crate) fn ask_breached(&mut self, breached: impl BreachedPasswords) {
        self.breached = Some(Arc::new(breached));
    }

    /// The text to show beside the field, if the password isn't good enough.
    ///
    /// # Errors
    /// `Unavailable` if the app's own check failed, took too long or panicked.
    pub(crate) async fn judge(&self, password: &Password) -> Result<Result<(), Cow<'static, str>>, Error> {
        if let Err(text) = self.rules.check(password) {
            return Ok(Err(text));
        }
        let Some(breached) = &self.breached else { return Ok(Ok(())) };
        let asked = AssertUnwindSafe(async { breached.ask(password.secret()).await }).catch_unwind();
        let failed = |e| Error::with(ErrorKind::Unavailable, "the list of breached passwords failed", e);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(Ok(false))) => Ok(Ok(())),
            Ok(Ok(Ok(true))) => Ok(Err("This password is known from a leak. Choose another one.".into())),
            Ok(Ok(Err(error))) => Err(failed(error)),
            Ok(Err(_)) => Err(Error::unavailable("the list of breached passwords panicked")),
            Err(late) => Err(failed(late.into())),
        }
    }
}

impl fmt::Debug for PasswordSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordSettings").field("fields", &self.fields).finish_non_exhaustive()
    }
}
