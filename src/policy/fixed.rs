//! Facts that are simply given: what a test of a policy needs.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;

use super::{
    AppUser, Boxed, CompletedFactors, Facts, Known, Lazy, MfaPolicy, PolicyContext, PolicyError,
    RequestFacts, Requirements, SessionFacts,
};
use crate::{
    base::{
        ident::{FactorId, LoginId, Permission, Role, SessionHandle, TenantId, UserId},
        payload::Payload,
        time::Timestamp,
    },
    model::user::User,
};

/// Facts about a session, given one by one; what isn't given is empty. Until [`FixedFacts::at`] says another time it is
/// [`Timestamp::EPOCH`], 1970.
#[derive(Clone, Debug)]
pub struct FixedFacts {
    known: Known,
    lazy: Given,
}

#[derive(Clone, Debug)]
struct Given {
    user: User,
    app_user: Option<AppUser>,
    roles: Vec<Role>,
    permissions: Vec<Permission>,
    set_up: Vec<FactorId>,
    for_user: Vec<FactorId>,
    for_tenant: Vec<FactorId>,
    reads: Arc<Mutex<Vec<&'static str>>>,
}

impl FixedFacts {
    /// Facts about a user of this id, in the tenant `public`.
    ///
    /// # Panics
    /// If the id is none: this is for tests.
    #[allow(clippy::expect_used, reason = "documented: for tests of policies")]
    pub fn new(user: &str) -> Self {
        let user = UserId::parse(user).expect("a user id");
        let login = LoginId::parse(user.as_str()).expect("a login id");
        let handle = SessionHandle::parse("00000000-0000-4000-8000-000000000000").expect("a handle");
        Self {
            known: Known {
                tenant: TenantId::PUBLIC,
                completed: CompletedFactors::default(),
                payload: Payload::new(),
                now: Timestamp::EPOCH,
                session: SessionFacts {
                    handle,
                    user: user.clone(),
                    login,
                    created_at: Timestamp::EPOCH,
                    first_factor: None,
                },
                request: None,
            },
            lazy: Given {
                user: User::new(user, Vec::new()),
                app_user: None,
                roles: Vec::new(),
                permissions: Vec::new(),
                set_up: Vec::new(),
                for_user: Vec::new(),
                for_tenant: Vec::new(),
                reads: Arc::default(),
            },
        }
    }

    /// The session's tenant.
    pub fn tenant(mut self, tenant: TenantId) -> Self {
        self.known.tenant = tenant;
        self
    }

    /// The user with login methods.
    pub fn user(mut self, user: User) -> Self {
        self.lazy.user = user;
        self
    }

    /// What the app says of the user.
    pub fn app_user(mut self, user: AppUser) -> Self {
        self.lazy.app_user = Some(user);
        self
    }

    /// The user's roles in the tenant.
    ///
    /// # Panics
    /// If a text is no role: this is for tests.
    #[allow(clippy::expect_used, reason = "documented: for tests of policies")]
    pub fn roles<'a>(mut self, roles: impl IntoIterator<Item = &'a str>) -> Self {
        self.lazy.roles = roles.into_iter().map(|role| Role::parse(role).expect("a role")).collect();
        self
    }

    /// What the user's roles in the tenant allow.
    ///
    /// # Panics
    /// If a text is no permission: this is for tests.
    #[allow(clippy::expect_used, reason = "documented: for tests of policies")]
    pub fn permissions<'a>(mut self, permissions: impl IntoIterator<Item = &'a str>) -> Self {
        self.lazy.permissions =
            permissions.into_iter().map(|text| Permission::parse(text).expect("a permission")).collect();
        self
    }

    /// The factors for which the user has a credential.
    pub fn set_up(mut self, factors: impl IntoIterator<Item = FactorId>) -> Self {
        self.lazy.set_up = factors.into_iter().collect();
        self
    }

    /// The factors the user opted into.
    pub fn required_for_user(mut self, factors: impl IntoIterator<Item = FactorId>) -> Self {
        self.lazy.for_user = factors.into_iter().collect();
        self
    }

    /// The factors the tenant asks for.
    pub fn required_for_tenant(mut self, factors: impl IntoIterator<Item = FactorId>) -> Self {
        self.lazy.for_tenant = factors.into_iter().collect();
        self
    }

    /// The factors completed so far.
    pub fn completed(mut self, completed: CompletedFactors) -> Self {
        self.known.completed = completed;
        self
    }

    /// The session's payload.
    pub fn payload(mut self, payload: Payload) -> Self {
        self.known.payload = payload;
        self
    }

    /// The time.
    pub fn at(mut self, now: Timestamp) -> Self {
        self.known.now = now;
        self
    }

    /// The request.
    pub fn request(mut self, request: RequestFacts) -> Self {
        self.known.request = Some(request);
        self
    }

    /// What a policy demands by these facts, at once: a test of a policy needs no store and no runtime.
    ///
    /// ```
    /// use tower_mfa::{FactorId, policy::{FixedFacts, ForRole}};
    /// let policy = ForRole::new("admin", FactorId::TOTP);
    /// let demand = FixedFacts::new("alice").roles(["admin"]).ask(&policy)?;
    /// assert_eq!(demand, FactorId::TOTP.into());
    /// assert!(FixedFacts::new("bob").ask(&policy)?.demands_nothing());
    /// # Ok::<(), tower_mfa::policy::PolicyError>(())
    /// ```
    ///
    /// # Errors
    /// The policy's own.
    ///
    /// # Panics
    /// If the policy waits for something that isn't a fact, such as a database of the app's: this is for tests.
    #[allow(clippy::expect_used, reason = "documented: for tests of policies")]
    pub fn ask(&self, policy: &impl MfaPolicy) -> Result<Requirements, PolicyError> {
        let context = PolicyContext::fixed(self.clone());
        policy.requirements(&context).now_or_never().expect("a policy that waits for nothing but facts")
    }

    /// The lazy facts that were asked for, in order, each once: `user`, `app_user`, `roles`, `permissions`,
    /// `factors_set_up`,
    /// `required_for_user`, `required_for_tenant`. Clones share what they remember.
    pub fn reads(&self) -> Vec<&'static str> {
        self.lazy.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PolicyContext<'static> {
    /// A context over facts that are given: for tests of policies.
    pub fn fixed(facts: FixedFacts) -> Self {
        Self { known: facts.known, facts: Lazy::Own(Box::new(facts.lazy)) }
    }
}

impl Given {
    fn noted(&self, name: &'static str) {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if !reads.contains(&name) {
            reads.push(name);
        }
    }
}

impl Facts for Given {
    fn user(&self) -> Boxed<'_, &User> {
        self.noted("user");
        Box::pin(async { Ok(&self.user) })
    }

    fn app_user(&self) -> Boxed<'_, Option<&AppUser>> {
        self.noted("app_user");
        Box::pin(async { Ok(self.app_user.as_ref()) })
    }

    fn roles(&self) -> Boxed<'_, &[Role]> {
        self.noted("roles");
        Box::pin(async { Ok(self.roles.as_slice()) })
    }

    fn permissions(&self) -> Boxed<'_, &[Permission]> {
        self.noted("permissions");
        Box::pin(async { Ok(self.permissions.as_slice()) })
    }

    fn factors_set_up(&self) -> Boxed<'_, &[FactorId]> {
        self.noted("factors_set_up");
        Box::pin(async { Ok(self.set_up.as_slice()) })
    }

    fn required_for_user(&self) -> Boxed<'_, &[FactorId]> {
        self.noted("required_for_user");
        Box::pin(async { Ok(self.for_user.as_slice()) })
    }

    fn required_for_tenant(&self) -> Boxed<'_, &[FactorId]> {
        self.noted("required_for_tenant");
        Box::pin(async { Ok(self.for_tenant.as_slice()) })
    }
}
