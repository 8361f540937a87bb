//! The crate's routes in one table, for whatever goes through all of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tower_mfa::{
    MfaBuilder,
    config::{Countries, EmailVerification, Passwordless},
};

use crate::{
    spy::{ALICE, BOB, ROUTES},
    support::{PASSWORD, TestApp, credentials, provider::AtOnce},
};

/// What a route wants of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    Nothing,
    /// A refresh token or a session, always.
    Session,
    /// With the flag that a further factor comes with.
    IfLinking,
    /// One that came along, though it goes without.
    IfThere,
}
use Wants::{IfLinking, IfThere, Nothing, Session};

/// Method, route, what it wants of a session, whether it is a tenant's, a body that is understood.
pub type Route = (&'static str, &'static str, Wants, bool, Value);

/// The route table, but for TOTP, passkeys and OAuth clients.
pub fn routes() -> Vec<Route> {
    let form = |fields: &[(&str, &str)]| {
        let fields: Vec<Value> =
            fields.iter().map(|(id, value)| json!({ "id": id, "value": value })).collect();
        json!({ "formFields": fields })
    };
    let ids = json!({ "deviceId": "", "preAuthSessionId": "" });
    let guess = json!({ "deviceId": "", "preAuthSessionId": "", "userInputCode": "000000" });
    let token = json!({ "method": "token", "token": "x" });
    let mut reset = form(&[("password", PASSWORD)]);
    reset["method"] = json!("token");
    reset["token"] = json!("x");
    let none = Value::Null;
    vec![
        ("POST", "/session/refresh", Session, false, none.clone()),
        ("POST", "/signout", Session, false, none.clone()),
        ("PUT", "/mfa/info", Session, false, json!({})),
        ("POST", "/signinup/code", IfLinking, true, json!({ "email": ALICE })),
        ("POST", "/signinup/code/resend", IfLinking, true, ids),
        ("POST", "/signinup/code/consume", IfLinking, true, guess),
        ("GET", "/passwordless/email/exists?email=a@b.example", Nothing, true, none.clone()),
        ("GET", "/passwordless/phonenumber/exists?phoneNumber=%2B36301111142", Nothing, true, none.clone()),
        ("GET", "/passwordless/phoneNumber/exists?phoneNumber=%2B36301111142", Nothing, true, none.clone()),
        ("GET", "/signup/email/exists?email=a@b.example", Nothing, true, none.clone()),
        ("GET", "/signup/phonenumber/exists?phoneNumber=%2B36301111142", Nothing, true, none.clone()),
        ("GET", "/signup/phoneNumber/exists?phoneNumber=%2B36301111142", Nothing, true, none.clone()),
        ("POST", "/signin", IfLinking, true, credentials(ALICE, "not the password 1")),
        ("POST", "/signup", IfLinking, true, credentials(ALICE, PASSWORD)),
        ("GET", "/emailpassword/email/exists?email=a@b.example", Nothing, true, none.clone()),
        ("POST", "/user/password/reset/token", Nothing, true, form(&[("email", BOB)])),
        ("POST", "/user/password/reset", Nothing, true, reset),
        ("GET", "/authorisationurl", Nothing, true, none.clone()),
        ("POST", "/signinup", IfLinking, true, json!({ "thirdPartyId": "nobody", "redirectURIInfo": {} })),
        ("POST", "/callback/apple", Nothing, false, none.clone()),
        ("POST", "/user/email/verify/token", Session, false, json!({})),
        ("POST", "/user/email/verify", IfThere, true, token),
        ("GET", "/user/email/verify", Session, false, none.clone()),
        ("GET", "/loginmethods", Nothing, true, none.clone()),
        ("GET", "/jwt/jwks.json", Nothing, false, none.clone()),
        ("GET", "/.well-known/openid-configuration", Nothing, false, none),
    ]
}

/// An app that has every recipe.
pub async fn everything() -> TestApp {
    everything_with(&AtOnce::default(), |b| b).await
}

pub async fn everything_with(provider: &AtOnce, change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> TestApp {
    TestApp::with(|b| {
        let b = b.passwordless(Passwordless::email_or_phone(Countries::all()));
        change(b.third_party(provider.settings()).email_verification(EmailVerification::Optional))
    })
    .await
}

/// The crate's own table, as it is written.
#[test]
fn no_route_is_left_out() {
    let source = include_str!("../../src/api/route.rs");
    let table = source.split("const ROUTES").nth(1).and_then(|rest| rest.split("];").next()).unwrap();
    let served: BTreeSet<(&str, &str)> = table
        .split("(Method::")
        .skip(1)
        .filter_map(|line| {
            let (method, rest) = line.split_once(", \"")?;
            Some((method, rest.split('"').next()?))
        })
        .collect();
    assert!(served.len() > 20, "{served:?}");
    let listed: BTreeSet<(&str, &str)> =
        routes().iter().map(|(method, route, ..)| (*method, route.split('?').next().unwrap())).collect();
    assert_eq!(listed, served);
    // A form that a provider's page posts isn't the SDKs'.
    let sdks: BTreeSet<(&str, &str)> = ROUTES.into_iter().chain([("POST", "/callback/apple")]).collect();
    assert_eq!(sdks, served);
}
