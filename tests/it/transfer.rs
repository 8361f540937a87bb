//! Rows C09 and C15: what is taken back, and which way tokens travel.

use http::Method;
use tower_mfa::config::{SameSite, TransferMethods};

use crate::{
    spy::{ALICE, BOB, Jar, SetCookie, bare, posted, shop, signed_up, two_sites, with, without},
    support::{Browser, Mode, PASSWORD, TestApp, credentials},
};

const REFRESH: &str = "/auth/session/refresh";

#[tokio::test]
async fn sec_c09_after_sign_out_the_browser_holds_nothing() {
    for (app, base) in [
        (TestApp::new().await, "/auth"),
        (TestApp::with(|b| b.cookie_domain(".shop.test")).await, "/auth"),
        (TestApp::with(|b| b.host_prefix()).await, "/auth"),
        (TestApp::with(|b| b.same_site(SameSite::Strict)).await, "/auth"),
        (TestApp::of(two_sites(), |b| b).await, "/auth"),
        (TestApp::of(shop().base_path("/api/v1").unwrap(), |b| b).await, "/api/v1"),
    ] {
        let mut jar = Jar::default();
        let mut alice = app.browser(Mode::Cookie);
        for path in ["signup", "signin"] {
            let answer = alice.post(&format!("{base}/{path}"), credentials(ALICE, PASSWORD)).await;
            answer.is(200);
            jar.keep(&answer);
            assert_eq!(jar.len(), 2);
            let refreshed = alice.call(Method::POST, &format!("{base}/session/refresh"), None).await;
            jar.keep(&refreshed);
            assert_eq!(jar.len(), 2, "a refresh replaces, it doesn't add");
            let answer = alice.call(Method::POST, &format!("{base}/signout"), None).await;
            answer.is(200);
            assert_eq!(answer.headers["front-token"], "remove");
            jar.keep(&answer);
            assert_eq!(jar.len(), 0, "{jar:?}");
        }
    }
    // Theft and an unknown session clear by both methods; sign-out does where both came along.
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let answer = alice.sign_out().await;
    assert_eq!(answer.headers["st-access-token"], "");
    assert_eq!(answer.headers["st-refresh-token"], "");
    assert!(alice.access.is_none() && alice.refresh.is_none() && answer.cookies().is_empty());
    let (mut alice, bob) = (signed_in(&app, Mode::Header).await, signed_up(&app, Mode::Cookie, BOB).await);
    alice.jar = bob.jar.clone();
    let both = [alice.sign_out().await, app.browser(Mode::Header).refresh().await];
    for answer in both {
        assert_eq!(answer.headers["st-access-token"], "");
        assert_eq!(SetCookie::of(&answer).iter().filter(|cookie| cookie.clears()).count(), 2);
        assert_eq!(answer.headers["front-token"], "remove");
    }
}

async fn signed_in(app: &TestApp, mode: Mode) -> Browser {
    let mut browser = app.browser(mode);
    browser.sign_in(ALICE).await.ok();
    browser
}

#[tokio::test]
async fn sec_c15_the_server_says_which_methods_there_are() {
    use TransferMethods::{Any, Cookie, Header};
    let with_methods = |methods| TestApp::with(move |b| b.transfer(methods));
    let (any, cookie, header) =
        (with_methods(Any).await, with_methods(Cookie).await, with_methods(Header).await);
    let mut n = 0;
    // (server, the client's wish, what it gets)
    for (methods, wish, cookies) in [
        (Cookie, Some("header"), true),
        (Cookie, None, true),
        (Cookie, Some("cookie"), true),
        (Header, Some("cookie"), false),
        (Header, None, false),
        (Any, None, false),
        (Any, Some("nonsense"), false),
        (Any, Some("header"), false),
        (Any, Some("cookie"), true),
    ] {
        let app = match methods {
            Cookie => &cookie,
            Header => &header,
            _ => &any,
        };
        let asked = app.browser(Mode::Cookie);
        n += 1;
        let body = credentials(&format!("user-{n}@shop.example"), PASSWORD);
        let request = posted(&asked, "/auth/signup", Some(body));
        let request = match wish {
            Some(wish) => with(request, &[("st-auth-mode", wish)]),
            None => without(request, &["st-auth-mode"]),
        };
        let answer = app.send(request).await;
        answer.is(200);
        assert_eq!(answer.cookies().len(), if cookies { 2 } else { 0 }, "{methods:?} {wish:?}");
        assert_eq!(answer.headers.contains_key("st-refresh-token"), !cookies, "{methods:?} {wish:?}");
        // What comes by a method that the server doesn't take is not there.
        let mut holder = app.browser(Mode::Cookie);
        holder.keep(&answer);
        let (access, refresh) = match cookies {
            true => (holder.jar["sAccessToken"].clone(), holder.jar["sRefreshToken"].clone()),
            false => (holder.access.clone().unwrap(), holder.refresh.clone().unwrap()),
        };
        let by_cookie = format!("sAccessToken={access}; sRefreshToken={refresh}");
        let by_header = |token: &str| format!("Bearer {token}");
        let takes = |by: &str| methods == Any || (methods == Cookie) == (by == "cookie");
        for (by, request) in [
            ("cookie", with(bare("GET", "/api/me"), &[("cookie", &by_cookie)])),
            ("header", with(bare("GET", "/api/me"), &[("authorization", &by_header(&access))])),
        ] {
            app.send(request).await.is(if takes(by) { 200 } else { 401 });
        }
        for (by, request) in [
            ("cookie", with(bare("POST", REFRESH), &[("cookie", &by_cookie), ("rid", "x")])),
            ("header", with(bare("POST", REFRESH), &[("authorization", &by_header(&refresh))])),
        ] {
            app.send(request).await.is(if takes(by) { 200 } else { 401 });
        }
    }
}

#[tokio::test]
async fn sec_c15_a_sign_in_without_a_wish_clears_the_cookie_that_came_along() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let mut jar = Jar::default();
    jar.keep(&alice.refresh().await);
    assert_eq!(jar.len(), 2);
    // A form of another page would send no header of ours; here it has the proof and no wish.
    let request = posted(&alice, "/auth/signin", Some(credentials(ALICE, PASSWORD)));
    let answer = app.send(without(request, &["st-auth-mode"])).await;
    answer.is(200);
    assert!(answer.headers.contains_key("st-access-token"));
    jar.keep(&answer);
    assert_eq!(jar.len(), 0, "{jar:?}");
    assert_ne!(answer.headers["front-token"], "remove");
    // A refresh keeps the method, whatever the client says.
    let mut bob = signed_up(&app, Mode::Cookie, BOB).await;
    bob.mode = Mode::Header;
    let refreshed = bob.refresh().await;
    assert!(refreshed.cookies().len() == 2 && !refreshed.headers.contains_key("st-access-token"));
    let flow = bob.ask_code(BOB, true).await.ok();
    let after = bob.enter(&flow, &app.code(BOB).await, true).await;
    assert!(!after.headers.contains_key("st-access-token") && after.cookies().len() == 2);
}
