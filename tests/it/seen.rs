//! Row S15: a verified token is kept, and that shows nowhere but in the time it takes.

use std::time::Duration;

use http::Method;
use tower_mfa::{FactorId, MfaBuilder, policy::Everyone};

use crate::{
    spy::ALICE,
    support::{Mode, TestApp},
};

/// Everything that may change what a token is worth, between requests that carry it.
async fn trace(mode: Mode, change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> Vec<(&'static str, u16)> {
    let app = TestApp::with(|builder| change(builder.policy(Everyone::new(FactorId::OTP_EMAIL)))).await;
    let mut alice = app.browser(mode);
    let mut trace = Vec::new();
    alice.sign_up(ALICE).await.ok();
    for _ in 0..2 {
        trace.push(("half, guarded", alice.get("/api/me").await.status.as_u16()));
        trace.push(("half", alice.get("/api/half").await.status.as_u16()));
    }
    let half = alice.clone();
    alice.pass_code(ALICE).await;
    for _ in 0..2 {
        trace.push(("whole", alice.get("/api/me").await.status.as_u16()));
        trace.push(("the half one again", half.clone().get("/api/me").await.status.as_u16()));
    }
    let mut forged = alice.clone();
    let token = alice.access_token().unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let spoilt = format!("{signed}.{other}{}", &signature[1..]);
    match mode {
        Mode::Header => forged.access = Some(spoilt),
        Mode::Cookie => drop(forged.jar.insert("sAccessToken".to_owned(), spoilt)),
    }
    for _ in 0..2 {
        trace.push(("forged", forged.get("/api/me").await.status.as_u16()));
    }
    if mode == Mode::Cookie {
        let mut request = alice.request(Method::POST, "/api/me", None);
        request.headers_mut().remove("rid");
        trace.push(("without the proof", app.send(request).await.status.as_u16()));
    }
    let kid = app.mfa.keys().list().await.unwrap().remove(0).kid;
    app.mfa.keys().revoke(&kid).await.unwrap();
    trace.push(("its key was revoked", alice.get("/api/me").await.status.as_u16()));
    alice.refresh().await.is(200);
    trace.push(("refreshed", alice.get("/api/me").await.status.as_u16()));
    app.clock.advance(Duration::from_secs(3400));
    trace.push(("before its end", alice.get("/api/me").await.status.as_u16()));
    app.clock.advance(Duration::from_secs(200));
    trace.push(("at its end", alice.get("/api/me").await.status.as_u16()));
    alice.refresh().await.is(200);
    trace.push(("refreshed again", alice.get("/api/me").await.status.as_u16()));
    let user = app.user(ALICE).await;
    app.mfa.sessions().revoke_user(&user).await.unwrap();
    for _ in 0..2 {
        trace.push(("revoked", alice.get("/api/me").await.status.as_u16()));
    }
    trace
}

#[tokio::test]
async fn sec_s15_a_kept_token_is_worth_what_a_fresh_one_is() {
    for mode in [Mode::Cookie, Mode::Header] {
        let kept = trace(mode, |builder| builder).await;
        let checked = trace(mode, MfaBuilder::without_token_cache).await;
        assert_eq!(kept, checked);
        let of = |what: &str| kept.iter().filter(|(step, _)| *step == what).map(|(_, status)| *status).max();
        for (what, status) in [
            ("half, guarded", 403),
            ("half", 200),
            ("whole", 200),
            // Enrolling raises the user's number: what was minted before is over.
            ("the half one again", 401),
            ("forged", 401),
            ("its key was revoked", 401),
            ("refreshed", 200),
            ("before its end", 200),
            ("at its end", 401),
            ("revoked", 401),
        ] {
            assert_eq!(of(what), Some(status), "{what}: {kept:?}");
        }
    }
}
