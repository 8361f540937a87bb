//! (method, path, tenant segment) -> [`Endpoint`]: one table (`spec/wire.md` §1.1 and §1.6).

use http::Method;

use crate::{
    base::ident::TenantId,
    config::{Config, EmailVerification},
};

/// What a request to the base path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Refresh,
    SignOut,
    MfaInfo,
    CreateCode,
    ResendCode,
    ConsumeCode,
    SignIn,
    SignUp,
    AskReset,
    Reset,
    AskVerification,
    Verify,
    IsVerified,
    PasswordExists,
    CodeExists,
    PhoneExists,
    /// The path that both recipes shared once: `rid` says which is meant (§1.1.7).
    OldExists,
    AuthorisationUrl,
    ThirdPartySignInUp,
    /// A form post of another site's, on purpose: it is read before anything else is asked.
    AppleCallback,
    LoginMethods,
    Jwks,
    OpenIdConfiguration,
}

impl Endpoint {
    /// Whether the app has what it is about; a route that it doesn't have is the inner service's.
    pub(super) fn is_served(self, config: &Config) -> bool {
        match self {
            Self::SignIn | Self::SignUp => cfg!(feature = "password"),
            Self::AskReset | Self::Reset => cfg!(feature = "password") && config.delivers,
            Self::AuthorisationUrl | Self::ThirdPartySignInUp | Self::AppleCallback => {
                cfg!(feature = "third-party")
            }
            Self::AskVerification | Self::Verify | Self::IsVerified => {
                config.email_verification != EmailVerification::Off
            }
            _ => true,
        }
    }
}

/// One line a route.
const ROUTES: [(Method, &str, Endpoint); 26] = [
    (Method::POST, "/session/refresh", Endpoint::Refresh),
    (Method::POST, "/signout", Endpoint::SignOut),
    (Method::PUT, "/mfa/info", Endpoint::MfaInfo),
    (Method::POST, "/signinup/code", Endpoint::CreateCode),
    (Method::POST, "/signinup/code/resend", Endpoint::ResendCode),
    (Method::POST, "/signinup/code/consume", Endpoint::ConsumeCode),
    (Method::POST, "/signin", Endpoint::SignIn),
    (Method::POST, "/signup", Endpoint::SignUp),
    (Method::POST, "/user/password/reset/token", Endpoint::AskReset),
    (Method::POST, "/user/password/reset", Endpoint::Reset),
    (Method::POST, "/user/email/verify/token", Endpoint::AskVerification),
    (Method::POST, "/user/email/verify", Endpoint::Verify),
    (Method::GET, "/user/email/verify", Endpoint::IsVerified),
    (Method::GET, "/emailpassword/email/exists", Endpoint::PasswordExists),
    (Method::GET, "/passwordless/email/exists", Endpoint::CodeExists),
    (Method::GET, "/passwordless/phonenumber/exists", Endpoint::PhoneExists),
    (Method::GET, "/passwordless/phoneNumber/exists", Endpoint::PhoneExists),
    (Method::GET, "/signup/email/exists", Endpoint::OldExists),
    (Method::GET, "/signup/phonenumber/exists", Endpoint::PhoneExists),
    (Method::GET, "/signup/phoneNumber/exists", Endpoint::PhoneExists),
    (Method::GET, "/authorisationurl", Endpoint::AuthorisationUrl),
    (Method::POST, "/signinup", Endpoint::ThirdPartySignInUp),
    (Method::POST, "/callback/apple", Endpoint::AppleCallback),
    (Method::GET, "/loginmethods", Endpoint::LoginMethods),
    (Method::GET, "/jwt/jwks.json", Endpoint::Jwks),
    (Method::GET, "/.well-known/openid-configuration", Endpoint::OpenIdConfiguration),
];

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To us, in this tenant.
    Ours(Endpoint, TenantId),
    /// To us, but the tenant can't exist (row N02).
    NoTenant,
    /// To the inner service, untouched.
    Inner,
}

/// Finds the route. A match without tenant wins over one with (§1.1.5); HEAD is not GET here, because the
/// inner service may serve it.
pub(super) fn find(base: &str, method: &Method, path: &str) -> Route {
    let path = path.strip_suffix('/').unwrap_or(path);
    let Some(rest) = path.strip_prefix(base).filter(|rest| rest.starts_with('/')) else {
        return Route::Inner;
    };
    if let Some(endpoint) = exact(method, rest) {
        return Route::Ours(endpoint, TenantId::PUBLIC);
    }
    let Some(inside) = rest.strip_prefix('/') else { return Route::Inner };
    let Some(slash) = inside.find('/') else { return Route::Inner };
    let (segment, tail) = inside.split_at(slash);
    match exact(method, tail) {
        Some(endpoint) => match TenantId::parse(segment) {
            Ok(tenant) => Route::Ours(endpoint, tenant),
            Err(_) => Route::NoTenant,
        },
        None => Route::Inner,
    }
}

/// The endpoint at a path below the base path.
fn exact(method: &Method, rest: &str) -> Option<Endpoint> {
    ROUTES.iter().find(|(m, path, _)| m == method && *path == rest).map(|(.., endpoint)| *endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> TenantId {
        TenantId::parse(id).unwrap()
    }

    #[test]
    fn sec_n02_one_table_decides() {
        let ours = |endpoint, id: &str| Route::Ours(endpoint, tenant(id));
        let table = [
            (Method::POST, "/auth/signin", ours(Endpoint::SignIn, "public")),
            (Method::POST, "/auth/signin/", ours(Endpoint::SignIn, "public")),
            (Method::POST, "/auth/t1/signin", ours(Endpoint::SignIn, "t1")),
            (Method::POST, "/auth/signinup/code", ours(Endpoint::CreateCode, "public")),
            (Method::POST, "/auth/signinup/signinup/code", ours(Endpoint::CreateCode, "signinup")),
            (Method::POST, "/auth/T1/signin", Route::NoTenant),
            (Method::POST, "/auth/t%31/signin", Route::NoTenant),
            (Method::POST, "/auth/../signin", Route::NoTenant),
            (Method::POST, "/auth//signin", Route::NoTenant),
            (Method::POST, "/auth/a/b/signin", Route::Inner),
            (Method::GET, "/auth/signin", Route::Inner),
            (Method::POST, "/auth", Route::Inner),
            (Method::POST, "/authx/signin", Route::Inner),
            (Method::POST, "/Auth/signin", Route::Inner),
            (Method::POST, "/auth/signin/x", Route::Inner),
            (Method::OPTIONS, "/auth/signin", Route::Inner),
            (Method::PUT, "/auth/mfa/info", ours(Endpoint::MfaInfo, "public")),
            (Method::GET, "/auth/jwt/jwks.json", ours(Endpoint::Jwks, "public")),
        ];
        for (method, path, expected) in table {
            assert_eq!(find("/auth", &method, path), expected, "{method} {path}");
        }
    }
}
