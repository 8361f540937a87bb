//! RFC 9470: mounts for API clients answer header tokens by a challenge, and cookies never.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::get};
use http::{Method, Request};
use serde_json::json;
use tower_mfa::{
    FactorId, MfaLayer, RequireFactors, SessionExtractor,
    claim::{FactorsMet, HasValue, Roles},
    guard::{RequireClaims, StepUp},
    policy::Everyone,
};

use super::{
    MODES,
    guards::{ask, both, guarded},
};
use crate::{
    spy::{ALICE, bare, everyone, signed_up, token_headers, with},
    support::{Answer, Mode, TestApp, send},
};

fn challenge(answer: &Answer) -> Option<&str> {
    answer.headers.get("www-authenticate").map(|value| value.to_str().unwrap())
}

/// A challenge of RFC 9470, with these in it.
fn challenged(answer: &Answer, why: &str, acr_values: &str, max_age: Option<u64>) {
    let mut expected = format!(
        "Bearer error=\"insufficient_user_authentication\", error_description=\"{why}\", \
         acr_values=\"{acr_values}\""
    );
    if let Some(age) = max_age {
        expected.push_str(&format!(", max_age=\"{age}\""));
    }
    assert_eq!(challenge(answer), Some(&*expected), "{}", answer.text);
    answer.is(401);
    assert_eq!((&answer.body["status"], &answer.body["message"]), (&json!(401), &json!("invalid claim")));
    assert_eq!(answer.headers["cache-control"], "no-store");
}

const MISSING: &str = "a further factor is needed";
const EXPIRED: &str = "the authentication is too old";
const LEVEL: &str = "a higher level of authentication is needed";
/// What a request without a token is told, and one with a bad one.
const NOBODY: &str = "Bearer realm=\"session\"";
const BAD: &str = "Bearer error=\"invalid_token\"";
const EMAIL: &str = "urn:tower-mfa:factor:otp-email";

/// A factor of the app's own, with a name that fits into no header.
struct Odd;

impl StepUp for Odd {
    fn rule() -> RequireFactors {
        RequireFactors::one_of([odd(), FactorId::TOTP])
    }
}

fn odd() -> FactorId {
    FactorId::parse("own \"ключ\\").unwrap()
}

#[tokio::test]
async fn header_tokens_get_the_challenge_where_the_mount_says_so_and_cookies_never() {
    for (mode, says) in MODES.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        // The app checks these two itself.
        let app = TestApp::with(|b| b.custom_factor(odd()).custom_factor(FactorId::TOTP)).await;
        let mount = MfaLayer::required(app.mfa.clone());
        let mount = if says { mount.bearer_challenges() } else { mount };
        let router = both::<Odd>(guarded(), "odd").layer(mount);
        let mut alice = signed_up(&app, mode, ALICE).await;
        let missing = ask(&router, &alice, "code").await;
        let level = ask(&router, &alice, "level").await;
        let odd = ask(&router, &alice, "odd").await;
        alice.pass_code(ALICE).await;
        ask(&router, &alice, "code").await.is(200);
        app.clock.advance(Duration::from_secs(301));
        let expired = ask(&router, &alice, "code").await;
        if says && mode == Mode::Header {
            challenged(&missing, MISSING, EMAIL, Some(300));
            challenged(&level, LEVEL, "urn:tower-mfa:aal2", None);
            let own = "urn:tower-mfa:factor:own%20%22%D0%BA%D0%BB%D1%8E%D1%87%5C";
            challenged(&odd, MISSING, &format!("{own} urn:tower-mfa:factor:totp"), None);
            challenged(&expired, EXPIRED, EMAIL, Some(300));
        } else {
            for refused in [&missing, &level, &odd, &expired] {
                refused.is(403);
                assert_eq!((challenge(refused), &refused.body["status"]), (None, &json!(403)), "{mode:?}");
            }
        }
        // But for the status the body is the same.
        assert_eq!((&missing.body["next"], missing.body.get("expired")), (&json!(["otp-email"]), None));
        assert_eq!(
            (&expired.body["expired"], &expired.body["max_age"]),
            (&json!(["otp-email"]), &json!(300))
        );
        assert_eq!(expired.body["claimValidationErrors"][0]["id"], "st-mfa");
    }
}

#[tokio::test]
async fn the_layer_itself_challenges_at_once_and_after_asking() {
    for mode in MODES {
        let app = everyone().await;
        let mount = MfaLayer::required(app.mfa.clone()).bearer_challenges();
        let router: Router = Router::new().route("/", get(|_: SessionExtractor| async {})).layer(mount);
        let mut alice = signed_up(&app, mode, ALICE).await;
        let refused = send(&router, alice.request(Method::GET, "/", None)).await;
        match mode {
            Mode::Header => challenged(&refused, MISSING, EMAIL, None),
            Mode::Cookie => assert_eq!((challenge(&refused), refused.status.as_u16()), (None, 403)),
        }
        alice.pass_code(ALICE).await;
        send(&router, alice.request(Method::GET, "/", None)).await.is(200);
    }
    // The row is read first, and the new token comes along.
    let app = TestApp::new().await;
    let mount = MfaLayer::required(app.mfa.clone()).bearer_challenges();
    let router: Router = Router::new().route("/", get(|_: SessionExtractor| async {})).layer(mount);
    let alice = signed_up(&app, Mode::Header, ALICE).await;
    send(&router, alice.request(Method::GET, "/", None)).await.is(200);
    app.mfa.factors().opt_in(&app.user(ALICE).await, FactorId::OTP_EMAIL).await.unwrap();
    let refused = send(&router, alice.request(Method::GET, "/", None)).await;
    challenged(&refused, MISSING, EMAIL, None);
    assert!(token_headers(&refused).contains(&"st-access-token".to_owned()));
}

#[tokio::test]
async fn no_challenge_where_authenticating_would_not_help() {
    let app = TestApp::new().await;
    let mount = MfaLayer::required(app.mfa.clone()).bearer_challenges();
    let editor = || HasValue::new(Roles, vec!["editor".to_owned()]).unwrap();
    let code = || FactorsMet::new(FactorId::OTP_EMAIL);
    let claims = |validators: [Arc<dyn tower_mfa::ClaimValidator>; 2]| {
        get(|| async {}).route_layer(RequireClaims::new(validators))
    };
    let router = guarded()
        .route("/role", get(|| async {}).route_layer(RequireClaims::new([Arc::new(editor()) as _])))
        .route("/role-and-code", claims([Arc::new(editor()), Arc::new(code())]))
        .route("/code-and-role", claims([Arc::new(code()), Arc::new(editor())]))
        .layer(mount);
    let alice = signed_up(&app, Mode::Header, ALICE).await;
    let paths =
        ["/role", "/role-and-code", "/code-and-role", "/argument/never", "/layer/never", "/layer/level"];
    for path in paths {
        let refused = send(&router, alice.request(Method::GET, path, None)).await;
        assert_eq!((refused.status.as_u16(), challenge(&refused)), (403, None), "{path}");
    }
    // What a client needs a refresh for, or a sign-in, isn't told as a lack of factors.
    app.clock.advance(Duration::from_secs(3601));
    for (request, message, told) in [
        (bare("GET", "/role"), "unauthorised", NOBODY),
        (alice.request(Method::GET, "/role", None), "try refresh token", BAD),
        // Nonsense is a bad token, too, and so are several; another scheme is none (RFC 6750, section 3).
        (with(bare("GET", "/role"), &[("authorization", "Bearer x")]), "unauthorised", BAD),
        (twice(bare("GET", "/role")), "unauthorised", BAD),
        (with(bare("GET", "/role"), &[("authorization", "Basic YTpi")]), "unauthorised", NOBODY),
    ] {
        let refused = send(&router, request).await;
        assert_eq!((&refused.body["message"], challenge(&refused)), (&json!(message), Some(told)));
    }
}

fn twice(mut request: Request<Body>) -> Request<Body> {
    for token in ["Bearer x", "Bearer y"] {
        request.headers_mut().append("authorization", token.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_guard_in_an_optional_mount_tells_strangers_how_to_authenticate() {
    let app = TestApp::new().await;
    let optional = || MfaLayer::optional(app.mfa.clone());
    for (mount, told) in [(optional().bearer_challenges(), Some(NOBODY)), (optional(), None)] {
        let refused = send(&guarded().layer(mount), bare("GET", "/layer/code")).await;
        assert_eq!((refused.status.as_u16(), challenge(&refused)), (401, told));
    }
}

#[tokio::test]
async fn what_is_inside_a_mount_for_api_clients_does_the_same() {
    let app = TestApp::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let mount = || MfaLayer::required(app.mfa.clone());
    let inner = |layer: MfaLayer| guarded().route("/", get(|| async {})).layer(layer);
    let outside = inner(mount()).layer(mount().without_mfa().bearer_challenges());
    let inside = inner(mount().bearer_challenges()).layer(mount().without_mfa());
    let guards = guarded().layer(mount().without_mfa()).layer(mount().without_mfa().bearer_challenges());
    for mode in MODES {
        let app_mode = signed_up(&app, mode, &format!("{mode:?}@shop.example").to_lowercase()).await;
        for router in [&outside, &inside] {
            let refused = send(router, app_mode.request(Method::GET, "/", None)).await;
            assert_eq!(challenge(&refused).is_some(), mode == Mode::Header, "{mode:?}");
        }
        let refused = ask(&guards, &app_mode, "code").await;
        assert_eq!(challenge(&refused).is_some(), mode == Mode::Header, "{mode:?}");
        // A cookie beside a header token: the header decides.
        if mode == Mode::Header {
            let request = with(app_mode.request(Method::GET, "/", None), &[("cookie", "sAccessToken=a.b.c")]);
            challenged(&send(&outside, request).await, MISSING, EMAIL, None);
        }
    }
}
