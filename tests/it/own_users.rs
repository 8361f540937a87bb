//! An app that has its users already: they sign in at the app, and live in its table.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{Method, Request, header, request::Parts};
use http_body_util::Full;
use serde_json::json;
use tower::{Layer as _, service_fn};
use tower_mfa::{
    FactorId, Mfa, MfaBuilder, MfaLayer, MfaPolicy, PolicyContext, RequireFactors, Requirements, Session,
    SessionClaim, SessionExtractor,
    account::{AppUser, AppUsers, LoginKind},
    api::ApiLayer,
    claim::{ClaimContext, ClaimError},
    config::Secrets,
    factor::danger::assert_proof,
    ident::{BoxError, Email, Payload, Phone, TenantId, Timestamp, UserId},
    policy::{Compose as _, Everyone, FixedFacts, ForRole, OptIn, PolicyError},
    store::MemoryStore,
};

use crate::{
    spy::{ALICE, BOB, NUMBER, SITE, shop, token_headers, two_sites},
    support::{Browser, Mode, START, TestApp, send},
};

const PUBLIC: TenantId = TenantId::PUBLIC;

/// The app's table, which can break.
#[derive(Clone, Default)]
struct Table(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    users: BTreeMap<String, AppUser>,
    broken: Option<&'static str>,
    reads: usize,
}

impl Table {
    fn new() -> Self {
        let table = Self::default();
        table.put("1", AppUser::new().email(Email::parse(ALICE).unwrap()));
        table.put("2", AppUser::new().email(Email::parse(BOB).unwrap()));
        table
    }

    fn put(&self, id: &str, user: AppUser) {
        self.0.lock().unwrap().users.insert(id.to_owned(), user);
    }

    fn remove(&self, id: &str) {
        self.0.lock().unwrap().users.remove(id);
    }

    fn breaks(&self, how: Option<&'static str>) {
        self.0.lock().unwrap().broken = how;
    }
}

impl AppUsers for Table {
    async fn load(&self, user: &UserId) -> Result<Option<AppUser>, BoxError> {
        let (found, broken) = {
            let mut rows = self.0.lock().unwrap();
            rows.reads += 1;
            (rows.users.get(user.as_str()).cloned(), rows.broken)
        };
        match broken {
            None => Ok(found),
            Some("panic") => panic!("the table fell over"),
            Some(why) => Err(why.into()),
        }
    }
}

struct Plan;

impl SessionClaim for Plan {
    const KEY: &'static str = "plan";
    type Value = String;

    async fn fetch(&self, _: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        Ok(None)
    }
}

fn id(text: &str) -> UserId {
    UserId::parse(text).unwrap()
}

/// The app's own form: it is right whatever was typed, for whoever is named.
async fn log_in(
    State(mfa): State<Mfa>,
    Path((tenant, user)): Path<(String, String)>,
    parts: Parts,
) -> Response {
    let tenant = TenantId::parse(&tenant).unwrap();
    match mfa.sign_in(&parts, &id(&user), &tenant, FactorId::PASSWORD).await {
        Ok((session, tokens)) => {
            if parts.uri.query() == Some("plan") {
                session.set_claim(&Plan, "gold".to_owned()).await.unwrap();
            }
            let cookie =
                [(header::SET_COOKIE, "cart=3"), (header::SET_COOKIE, "sAccessToken=forged; Path=/")];
            match parts.uri.query() {
                Some("cookie") => (axum::response::AppendHeaders(cookie), tokens, "welcome").into_response(),
                _ => (tokens, "welcome").into_response(),
            }
        }
        Err(error) => {
            let kind = format!("{:?}", error.kind());
            let status = error.into_response().status();
            (status, kind).into_response()
        }
    }
}

/// The app's own way out; with a query, after something else that the client would be told.
async fn log_out(State(mfa): State<Mfa>, parts: Parts) -> Result<Response, tower_mfa::Error> {
    if parts.uri.query().is_none() {
        return Ok((mfa.sign_out(&parts).await?, "bye").into_response());
    }
    if let Some(session) = Session::from_extensions(&parts.extensions) {
        session.set_claim(&Plan, "gold".to_owned()).await?;
    }
    let cookies = [(header::SET_COOKIE, "cart=3"), (header::SET_COOKIE, "sAccessToken=forged; Path=/")];
    Ok((axum::response::AppendHeaders(cookies), mfa.sign_out(&parts).await?, "bye").into_response())
}

/// The password once more, for a step-up.
async fn again(State(mfa): State<Mfa>, session: SessionExtractor) -> Response {
    let now = Timestamp::from_secs(START);
    match mfa.complete(&session, assert_proof(FactorId::PASSWORD, &session, now)).await {
        Ok(()) => "again".into_response(),
        Err(error) => error.into_response(),
    }
}

async fn who(session: SessionExtractor) -> String {
    format!("{} in {}", session.user_id(), session.tenant_id())
}

fn routes(mfa: &Mfa) -> Router {
    let logout = || Router::new().route("/logout", post(log_out)).with_state(mfa.clone());
    let login = || Router::new().route("/{tenant}/{user}", get(log_in).post(log_in)).with_state(mfa.clone());
    let close = RequireFactors::one_of([FactorId::PASSWORD]).max_age(std::time::Duration::from_secs(300));
    Router::new()
        .route("/who", get(who))
        .route("/close", post(who).route_layer(close))
        .layer(MfaLayer::required(mfa.clone()))
        .nest("/login", login())
        .nest("/in/login", login().layer(MfaLayer::optional(mfa.clone()).without_mfa()))
        .nest(
            "/twice/login",
            login()
                .layer(MfaLayer::optional(mfa.clone()))
                .layer(MfaLayer::optional(mfa.clone()).without_mfa()),
        )
        .merge(
            Router::new()
                .route("/again", post(again))
                .layer(MfaLayer::required(mfa.clone()).without_mfa())
                .with_state(mfa.clone()),
        )
        .merge(logout())
        .nest("/inside", logout().layer(MfaLayer::required(mfa.clone())))
        .nest(
            "/inside/twice",
            logout()
                .layer(MfaLayer::required(mfa.clone()))
                .layer(MfaLayer::optional(mfa.clone()).without_mfa()),
        )
        .layer(ApiLayer::new(mfa.clone()))
}

/// An app whose users are in a table, with its own way to sign in.
async fn app_with(table: &Table, change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> TestApp {
    let table = table.clone();
    let app = TestApp::with(|b| change(b.own_users(table).policy(Everyone::new(FactorId::OTP_EMAIL)))).await;
    let router = routes(&app.mfa);
    let outbox = app.outbox.clone();
    app.serving(router, outbox)
}

async fn app() -> (Table, TestApp) {
    let table = Table::new();
    let app = app_with(&table, |b| b).await;
    (table, app)
}

async fn post_to(browser: &mut Browser, path: &str) -> crate::support::Answer {
    browser.call(Method::POST, path, None).await
}

#[tokio::test]
async fn a_user_of_the_apps_own_completes_a_code_sent_where_the_app_says() {
    for mode in [Mode::Cookie, Mode::Header] {
        for path in ["/login/public/1", "/in/login/public/1", "/twice/login/public/1"] {
            let (_, app) = app().await;
            let mut alice = app.browser(mode);
            assert_eq!(post_to(&mut alice, path).await.is(200).text, "welcome", "{path}");
            let refused = alice.get("/who").await;
            assert_eq!(
                (refused.status.as_u16(), &refused.body["next"]),
                (403, &json!(["otp-email"])),
                "{path}"
            );
            let info = alice.info().await.ok();
            assert_eq!(info["factors"]["alreadySetup"], json!(["otp-email"]));
            // The app said it, and nobody typed it into this session.
            let shown = info["emails"]["otp-email"][0].as_str().unwrap().to_owned();
            assert!(shown.contains('*'), "{shown}");
            alice.ask_code("mallory@shop.example", true).await.is(403);
            let flow = alice.ask_code(&shown, true).await.ok();
            let code = app.code(ALICE).await;
            let done = alice.enter(&flow, &code, true).await.ok();
            assert_eq!(alice.get("/who").await.text, "1 in public");
            // Nothing of the app's table was stored, nor shown.
            assert_eq!((&done["createdNewRecipeUser"], &done["user"]["emails"]), (&json!(false), &json!([])));
            let methods = done["user"]["loginMethods"].as_array().unwrap();
            assert_eq!((methods.len(), &methods[0]["recipeId"]), (1, &json!("external")));
            let stored = app.mfa.users().load(&id("1")).await.unwrap().unwrap();
            assert_eq!((stored.logins.len(), stored.logins[0].kind), (1, LoginKind::External));
            assert_eq!(stored.logins[0].email, None);
            alice.refresh().await.is(200);
            assert_eq!(alice.get("/who").await.text, "1 in public");
        }
    }
}

#[tokio::test]
async fn codes_follow_the_apps_table() {
    let (table, app) = app().await;
    let mut alice = app.browser(Mode::Header);
    post_to(&mut alice, "/login/public/1").await;
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = app.code(ALICE).await;
    // She moved: what went to the old address is worth nothing, and the new one takes its place.
    table.put("1", AppUser::new().email(Email::parse("new@shop.example").unwrap()));
    alice.enter(&flow, &code, true).await.is(403);
    alice.ask_code(ALICE, true).await.is(403);
    alice.pass_code("new@shop.example").await;
    assert_eq!(alice.get("/who").await.text, "1 in public");
    // Who has no address in the table enrols one, as everybody else does.
    table.put("3", AppUser::new());
    let mut carol = app.browser(Mode::Header);
    post_to(&mut carol, "/login/public/3").await;
    assert_eq!(carol.pass_code("carol@shop.example").await["createdNewRecipeUser"], json!(true));
    assert_eq!(carol.get("/who").await.text, "3 in public");
}

#[tokio::test]
async fn the_apps_number_gets_the_sms() {
    let table = Table::new();
    table.put("1", AppUser::new().phone(Phone::parse(NUMBER).unwrap()));
    let by_phone = |b: MfaBuilder| {
        let countries = tower_mfa::config::Countries::only(["HU"]).unwrap();
        b.passwordless(tower_mfa::config::Passwordless::phone(countries))
            .policy(Everyone::new(FactorId::OTP_PHONE))
    };
    let app = app_with(&table, by_phone).await;
    let mut alice = app.browser(Mode::Header);
    post_to(&mut alice, "/login/public/1").await;
    alice.ask_code("+36302222242", true).await.is(403);
    alice.pass_code(NUMBER).await;
    assert_eq!(alice.get("/who").await.text, "1 in public");
}

#[tokio::test]
async fn sec_s01_a_session_that_came_along_ends_and_nothing_of_it_goes_on() {
    for mode in [Mode::Cookie, Mode::Header] {
        for path in ["/login/public", "/in/login/public"] {
            // Somebody else signs in with it, or the same user once more.
            for user in ["2", "1"] {
                let (_, app) = app().await;
                let mut alice = app.browser(mode);
                post_to(&mut alice, &format!("{path}/1")).await.is(200);
                alice.pass_code(ALICE).await;
                let (mut before, planted) = (alice.clone(), alice.payload("sessionHandle"));
                post_to(&mut alice, &format!("{path}/{user}")).await.is(200);
                assert_ne!(alice.payload("sessionHandle"), planted);
                assert_eq!(alice.get("/who").await.status, 403, "{path} {user}: the factor went along");
                assert_eq!(alice.payload("sub"), json!(user));
                let list = app.mfa.sessions().list(&id("1")).await.unwrap();
                assert!(list.iter().all(|one| planted != json!(one.handle.as_str())), "{path} {user}");
                before.refresh().await.is(401);
            }
        }
    }
}

/// What a plain form sends: it can add no header.
async fn by_form(app: &TestApp, browser: &mut Browser, path: &str) -> crate::support::Answer {
    let mut request = browser.request(Method::POST, path, None);
    for header in ["rid", "st-auth-mode", "anti-csrf"] {
        request.headers_mut().remove(header);
    }
    request.headers_mut().insert("origin", SITE.parse().unwrap());
    let answer = app.send(request).await;
    browser.keep(&answer);
    answer
}

#[tokio::test]
async fn sec_s01_a_plain_form_ends_what_came_along_as_well() {
    for late in [false, true] {
        let (_, app) = app().await;
        let mut alice = app.browser(Mode::Cookie);
        post_to(&mut alice, "/login/public/1").await.is(200);
        alice.pass_code(ALICE).await;
        let mut before = alice.clone();
        if late {
            app.clock.advance(std::time::Duration::from_secs(3601));
        }
        by_form(&app, &mut alice, "/login/public/1").await.is(200);
        assert_eq!(alice.get("/who").await.status, 403, "late: {late}");
        assert_eq!(app.mfa.sessions().list(&id("1")).await.unwrap().len(), 1, "late: {late}");
        before.refresh().await.is(401);
    }
}

#[tokio::test]
async fn sec_s12_c09_a_plain_form_signs_out_and_the_client_holds_nothing() {
    for mode in [Mode::Cookie, Mode::Header] {
        for late in [false, true] {
            let (_, app) = app().await;
            let mut alice = app.browser(mode);
            post_to(&mut alice, "/login/public/1").await.is(200);
            alice.pass_code(ALICE).await;
            let mut before = alice.clone();
            if late {
                app.clock.advance(std::time::Duration::from_secs(3601));
            }
            assert_eq!(by_form(&app, &mut alice, "/logout").await.text, "bye");
            assert!(alice.access_token().is_none());
            assert!(app.mfa.sessions().list(&id("1")).await.unwrap().is_empty(), "late: {late}");
            before.refresh().await.is(401);
            // Once more there is nothing to end, and nothing to tell.
            let again = by_form(&app, &mut alice, "/logout").await;
            assert_eq!((again.status.as_u16(), again.cookies().len()), (200, 0));
        }
    }
}

/// The ids are the app's: what is asked of somebody may be said before they are here.
#[tokio::test]
async fn what_was_said_of_a_user_ahead_counts_at_the_first_sign_in() {
    let table = Table::new();
    table.put("3", AppUser::new());
    let asks = ForRole::new("admin", FactorId::OTP_EMAIL).and(OptIn);
    let app = app_with(&table, |b| b.policy(asks)).await;
    app.mfa.roles().grant(&id("1"), &PUBLIC, "admin").await.unwrap();
    app.mfa.factors().opt_in(&id("2"), FactorId::OTP_EMAIL).await.unwrap();
    for (user, status) in [("1", 403), ("2", 403), ("3", 200)] {
        let mut browser = app.browser(Mode::Cookie);
        post_to(&mut browser, &format!("/login/public/{user}")).await.is(200);
        browser.get("/who").await.is(status);
    }
}

/// Around a handler that signs out a mount changes nothing: the row goes, and the client is told so once. If the store
/// fails it is told nothing, and keeps what it has.
#[tokio::test]
async fn sec_s12_c09_c12_signing_out_inside_a_mount() {
    for mode in [Mode::Cookie, Mode::Header] {
        for path in ["/logout", "/inside/logout", "/inside/logout?plan", "/inside/twice/logout?plan"] {
            let (_, app) = app().await;
            let mut alice = app.browser(mode);
            post_to(&mut alice, "/login/public/1").await.is(200);
            alice.pass_code(ALICE).await;
            let mut before = alice.clone();
            let fail = |everything: u64, commits: u64| {
                app.store.fail_next(everything);
                app.store.fail_commits(commits);
            };
            for (everything, commits) in [(u64::MAX, 0), (0, u64::MAX)] {
                fail(everything, commits);
                let failed = post_to(&mut alice, path).await;
                fail(0, 0);
                assert_eq!(failed.status, 503, "{mode:?} {path} {}", failed.text);
                assert_eq!(token_headers(&failed), [""; 0], "{mode:?} {path}");
                assert_eq!(alice.access_token(), before.access_token());
                assert_eq!(app.store.sessions().await.len(), 1, "{mode:?} {path}");
                assert_eq!(alice.get("/who").await.text, "1 in public");
            }
            let answer = post_to(&mut alice, path).await;
            assert_eq!((answer.status.as_u16(), &*answer.text), (200, "bye"), "{mode:?} {path}");
            assert!(app.store.sessions().await.is_empty(), "{mode:?} {path}");
            assert!(app.mfa.sessions().list(&id("1")).await.unwrap().is_empty());
            let said = |name: &str| -> Vec<&str> {
                answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
            };
            assert_eq!((said("front-token"), said("cache-control")), (vec!["remove"], vec!["no-store"]));
            let cookies = answer.cookies();
            let named = |name: &str| cookies.iter().filter(|cookie| cookie.starts_with(name)).count();
            let cleared = |cookie: &&&str| cookie.contains("=; ") && cookie.contains("Max-Age=0");
            let gone = cookies.iter().filter(cleared).count();
            let tokens = (named("sAccessToken="), named("sRefreshToken="), gone);
            let fields = [said("st-access-token"), said("st-refresh-token")];
            match mode {
                Mode::Cookie => {
                    assert_eq!((tokens, fields), ((1, 1, 2), [vec![], vec![]]), "{path} {cookies:?}");
                }
                Mode::Header => {
                    assert_eq!((tokens, fields), ((0, 0, 0), [vec![""], vec![""]]), "{path} {cookies:?}");
                }
            }
            assert_eq!(named("cart="), usize::from(path.ends_with("plan")), "{path}");
            assert!((alice.access_token(), alice.refresh_token()) == (None, None), "{mode:?} {path}");
            before.get("/who").await.is(401);
            before.refresh().await.is(401);
        }
    }
}

/// Where one browser holds several cookies by one name nobody can say which of them it would go on with (row C04).
#[tokio::test]
async fn sec_s01_s12_c04_no_session_of_several_cookies_goes_on() {
    for (path, left) in [("/logout", 0), ("/login/public/1", 1)] {
        for turned in [false, true] {
            let table = Table::new();
            let moved = |b: MfaBuilder| b.own_users(table).cookie_domain("shop.test").older_cookie_domain("");
            let app = TestApp::with(moved).await;
            let (router, outbox) = (routes(&app.mfa), app.outbox.clone());
            let app = app.serving(router, outbox);
            let (mut alice, mut bob) = (app.browser(Mode::Cookie), app.browser(Mode::Cookie));
            post_to(&mut alice, "/login/public/1").await.is(200);
            post_to(&mut bob, "/login/public/2").await.is(200);
            let mut tokens = [alice.access_token().unwrap(), bob.access_token().unwrap(), "garbage"];
            if turned {
                tokens.reverse();
            }
            let jar = tokens.map(|token| format!("sAccessToken={token}")).join("; ");
            let request = Request::post(path).header("origin", SITE).header("cookie", jar);
            let answer = app.send(request.body(Body::empty()).unwrap()).await;
            answer.is(200);
            assert_eq!(app.store.sessions().await.len(), left, "{path}, turned: {turned}");
            alice.refresh().await.is(401);
            bob.refresh().await.is(401);
            // What the older domain holds would get in the way of whatever comes next.
            let cookies = answer.cookies();
            let cleared = cookies
                .iter()
                .copied()
                .filter(|cookie| cookie.contains("=; ") && cookie.contains("Max-Age=0"));
            let (here, older): (Vec<&str>, Vec<&str>) =
                cleared.partition(|cookie| cookie.contains("Domain=shop.test"));
            assert_eq!((here.len(), older.len()), (if left == 0 { 2 } else { 0 }, 2), "{cookies:?}");
            assert_eq!(cookies.len(), 4, "{cookies:?}");
        }
    }
}

#[tokio::test]
async fn sec_x07_where_the_api_is_on_another_site_the_origin_is_the_proof() {
    let app = TestApp::of(two_sites(), |b| b.own_users(Table::new())).await;
    let (router, outbox) = (routes(&app.mfa), app.outbox.clone());
    let app = app.serving(router, outbox);
    let mut alice = app.browser(Mode::Cookie);
    post_to(&mut alice, "/login/public/1").await.is(200);
    for (origin, status) in [(None, 403), (Some("https://evil.test"), 403), (Some(SITE), 200)] {
        for path in ["/login/public/2", "/logout"] {
            let mut request = alice.request(Method::POST, path, None);
            for header in ["rid", "st-auth-mode"] {
                request.headers_mut().remove(header);
            }
            request.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
            if let Some(origin) = origin {
                request.headers_mut().insert("origin", origin.parse().unwrap());
            }
            app.send(request).await.is(status);
        }
        let signed_in = app.mfa.sessions().list(&id("1")).await.unwrap().len();
        assert_eq!(signed_in, usize::from(status != 200), "{origin:?}");
    }
}

#[tokio::test]
async fn who_is_disabled_is_refused_and_comes_to_no_tenant() {
    let (_, app) = app().await;
    let north = TenantId::parse("north").unwrap();
    app.mfa.tenants().create(&north, None).await.unwrap();
    post_to(&mut app.browser(Mode::Header), "/login/public/1").await.is(200);
    app.mfa.users().disable(&id("1")).await.unwrap();
    for tenant in ["public", "north"] {
        let mut alice = app.browser(Mode::Header);
        let refused = post_to(&mut alice, &format!("/login/{tenant}/1")).await;
        assert_eq!((refused.status.as_u16(), &*refused.text), (403, "Refused"), "{tenant}");
        assert_eq!(token_headers(&refused), [""; 0]);
    }
    let stored = app.mfa.users().load(&id("1")).await.unwrap().unwrap();
    assert_eq!(stored.logins[0].tenants, [PUBLIC]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_first_sign_ins_at_once_make_one_account() {
    let (table, secrets, store) = (Table::new(), Secrets::random().unwrap(), MemoryStore::new());
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let table = table.clone();
        let node = TestApp::on(shop(), secrets.clone(), store.clone(), |b| b.own_users(table)).await;
        let router = routes(&node.mfa);
        let outbox = node.outbox.clone();
        nodes.push(node.serving(router, outbox));
    }
    for user in ["1", "2", "7"] {
        table.put(user, AppUser::new());
        let clients = (0..12).map(|n| {
            let (mut client, path) = (nodes[n % 3].browser(Mode::Header), format!("/login/public/{user}"));
            tokio::spawn(async move { client.call(Method::POST, &path, None).await.status.as_u16() })
        });
        for client in clients.collect::<Vec<_>>() {
            assert_eq!(client.await.unwrap(), 200);
        }
        let stored = nodes[0].mfa.users().load(&id(user)).await.unwrap().unwrap();
        assert_eq!(stored.logins.len(), 1);
        assert_eq!(nodes[1].mfa.sessions().list(&id(user)).await.unwrap().len(), 12);
        let made = nodes[2].mfa.audit_trail(Timestamp::EPOCH).await.unwrap();
        let made = made.iter().filter(|event| event.user.as_ref() == Some(&id(user)));
        let made = made.filter(|event| event.what == tower_mfa::hooks::Audited::UserCreated).count();
        assert_eq!(made, 1, "{user}");
    }
}

#[tokio::test]
async fn no_route_of_the_crates_lets_anybody_in() {
    let (_, app) = app().await;
    let mut mallory = app.browser(Mode::Header);
    mallory.sign_up("mallory@shop.example").await.is(401);
    mallory.sign_in("mallory@shop.example").await.is(401);
    mallory.ask_code("mallory@shop.example", false).await.is(401);
    let methods = mallory.get("/auth/loginmethods").await.ok();
    assert_eq!(methods["firstFactors"], json!([]));
    for method in ["emailPassword", "passwordless"] {
        assert_eq!(methods[method]["enabled"], json!(false), "{method}");
    }
    // What the app vouches for is no form of the crate's, and isn't offered as one.
    let badge = FactorId::parse("badge").unwrap();
    let vouched = vec![FactorId::PASSWORD, badge, FactorId::OTP_EMAIL];
    let own = app_with(&Table::new(), |b| b.custom_factor(vouched[1].clone()).first_factors(vouched)).await;
    let mut stranger = own.browser(Mode::Header);
    let methods = stranger.get("/auth/loginmethods").await.ok();
    assert_eq!(methods["firstFactors"], json!(["badge"]));
    for method in ["emailPassword", "passwordless"] {
        assert_eq!(methods[method]["enabled"], json!(false), "{method}");
    }
    stranger.sign_in(ALICE).await.is(401);
    post_to(&mut stranger, "/login/public/1").await.is(200);
    // Nor does a session get a password of the crate's beside the app's.
    let mut alice = app.browser(Mode::Header);
    post_to(&mut alice, "/login/public/1").await.is(200);
    let fields = crate::support::credentials(ALICE, crate::support::PASSWORD);
    let mut body = fields;
    body["shouldTryLinkingWithSessionUser"] = json!(true);
    alice.post("/auth/signup", body).await.is(403);
    assert_eq!(app.mfa.users().load(&id("1")).await.unwrap().unwrap().logins.len(), 1);
}

#[tokio::test]
async fn a_table_that_fails_lets_nobody_in() {
    let (table, app) = app().await;
    let mut alice = app.browser(Mode::Header);
    post_to(&mut alice, "/login/public/1").await.is(200);
    alice.pass_code(ALICE).await;
    for (how, status) in [("down", 503), ("panic", 500)] {
        table.breaks(Some(how));
        let mut bob = app.browser(Mode::Header);
        assert_eq!(post_to(&mut bob, "/login/public/2").await.status, status, "{how}");
        assert_eq!(bob.access, None);
        assert!(app.mfa.sessions().list(&id("2")).await.unwrap().is_empty());
        assert_eq!(alice.info().await.status, status, "{how}");
        app.mfa.users().judge_anew(&id("1")).await.unwrap();
        let policy_reads_nothing = alice.clone().get("/who").await.status;
        assert_eq!(policy_reads_nothing, 200, "what isn't read can't fail");
        table.breaks(None);
    }
    // Somebody who is in the table no more is nobody.
    table.remove("1");
    alice.info().await.is(401);
    let unknown = post_to(&mut app.browser(Mode::Header), "/login/public/9").await;
    assert_eq!((unknown.status.as_u16(), unknown.text.as_str()), (401, "SessionEnded"));
    assert!(app.mfa.users().load(&id("9")).await.unwrap().is_none());
}

/// Asks for a code where the app says that it is risky.
struct Risky;

impl MfaPolicy for Risky {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let risky = |user: &AppUser| user.attributes.member("risk") == Some(&json!("high"));
        let asks = ctx.app_user().await?.is_some_and(risky);
        Ok(if asks { FactorId::OTP_EMAIL.into() } else { Requirements::none() })
    }
}

#[tokio::test]
async fn policies_read_what_the_app_knows() {
    let table = Table::new();
    let app = app_with(&table, |b| b.policy(Risky)).await;
    let mut alice = app.browser(Mode::Header);
    post_to(&mut alice, "/login/public/1").await.is(200);
    assert_eq!(alice.get("/who").await.status, 200);
    let risk = Payload::from_json(json!({ "risk": "high" })).unwrap();
    let risky = AppUser::new().email(Email::parse(ALICE).unwrap()).attributes(risk);
    table.put("1", risky.clone());
    app.mfa.users().judge_anew(&id("1")).await.unwrap();
    alice.get("/who").await.is(403);
    table.breaks(Some("down"));
    app.mfa.users().judge_anew(&id("1")).await.unwrap();
    alice.get("/who").await.is(503);
    table.breaks(None);
    alice.pass_code(ALICE).await;
    alice.get("/who").await.is(200);
    assert!(!alice.front.as_ref().unwrap().to_string().contains("risk"), "in no token");
    let facts = FixedFacts::new("1").app_user(risky);
    assert_eq!(facts.ask(&Risky).unwrap(), FactorId::OTP_EMAIL.into());
    assert_eq!(facts.reads(), ["app_user"]);
    assert!(FixedFacts::new("1").ask(&Risky).unwrap().demands_nothing());
}

#[tokio::test]
async fn it_counts_in_every_tenant_that_the_app_names() {
    let (_, app) = app().await;
    let north = TenantId::parse("north").unwrap();
    let mut alice = app.browser(Mode::Header);
    let unknown = post_to(&mut alice, "/login/north/1").await;
    assert_eq!(unknown.text, "NotFound");
    app.mfa.tenants().create(&north, None).await.unwrap();
    for tenant in ["public", "north", "north", "public"] {
        post_to(&mut alice, &format!("/login/{tenant}/1")).await.is(200);
        alice.pass_code(ALICE).await;
        assert_eq!(alice.get("/who").await.text, format!("1 in {tenant}"));
    }
    assert_eq!(
        app.mfa.users().load(&id("1")).await.unwrap().unwrap().logins[0].tenants,
        [PUBLIC, north.clone()]
    );
    // A tenant's list of first factors is kept.
    app.mfa.tenants().set_first_factors(&north, Some(vec![FactorId::THIRD_PARTY])).await.unwrap();
    assert_eq!(post_to(&mut app.browser(Mode::Header), "/login/north/1").await.text, "Invalid");
    post_to(&mut alice, "/login/public/1").await.is(200);
}

#[tokio::test]
async fn an_account_that_was_deleted_begins_anew() {
    let (_, app) = app().await;
    let mut alice = app.browser(Mode::Header);
    post_to(&mut alice, "/login/public/1").await.is(200);
    alice.pass_code(ALICE).await;
    app.mfa.users().delete(&id("1")).await.unwrap();
    let mut again = app.browser(Mode::Header);
    post_to(&mut again, "/login/public/1").await.is(200);
    again.pass_code(ALICE).await;
    assert_eq!(again.get("/who").await.text, "1 in public");
    alice.get("/who").await.is(401);
    alice.refresh().await.is(401);
}

#[tokio::test]
async fn a_password_given_again_is_a_step_up() {
    let (_, app) = app().await;
    let mut alice = app.browser(Mode::Header);
    post_to(&mut alice, "/login/public/1").await.is(200);
    alice.pass_code(ALICE).await;
    post_to(&mut alice, "/close").await.is(200);
    app.clock.advance(std::time::Duration::from_secs(400));
    let refused = post_to(&mut alice, "/close").await;
    assert_eq!((refused.status.as_u16(), &refused.body["next"]), (403, &json!(["emailpassword"])));
    // The proof is as old as the app says: `again` proves it by the start's clock.
    post_to(&mut alice, "/again").await.is(200);
    post_to(&mut alice, "/close").await.is(403);
}

#[tokio::test]
async fn what_is_written_before_the_answer_goes_with_the_tokens() {
    for mode in [Mode::Cookie, Mode::Header] {
        let (_, app) = app().await;
        let mut alice = app.browser(mode);
        post_to(&mut alice, "/in/login/public/1?plan").await.is(200);
        assert_eq!(alice.payload("plan")["v"], json!("gold"));
        // The refresh token came along, and is the one that the session has.
        alice.refresh().await.is(200);
        assert_eq!(alice.payload("plan")["v"], json!("gold"));
    }
}

#[tokio::test]
async fn sec_c12_what_a_sign_in_sets_is_not_a_handlers_own_cookie() {
    let (_, app) = app().await;
    for path in ["/login/public/1", "/in/login/public/1?cookie", "/twice/login/public/1?cookie"] {
        let mut alice = app.browser(Mode::Cookie);
        let answer = post_to(&mut alice, path).await;
        answer.is(200);
        let named = |name: &str| answer.cookies().iter().filter(|cookie| cookie.starts_with(name)).count();
        assert_eq!(
            (named("sAccessToken="), named("sRefreshToken=")),
            (1, 1),
            "{path} {:?}",
            answer.cookies()
        );
        assert!(!answer.cookies().iter().any(|cookie| cookie.contains("forged")), "{path}");
        assert_eq!(named("cart="), usize::from(path.ends_with("cookie")), "{path}");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers.get_all("front-token").iter().count(), 1);
        assert_eq!(alice.get("/who").await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn browsers_get_cookies_and_others_headers_unless_they_ask() {
    let (_, app) = app().await;
    for (name, value, cookies) in [
        ("origin", SITE, true),
        ("sec-fetch-site", "same-origin", true),
        ("user-agent", "curl", false),
        ("st-auth-mode", "cookie", true),
        ("st-auth-mode", "header", false),
    ] {
        let request = Request::post("/login/public/1").header(name, value).body(Body::empty()).unwrap();
        let answer = app.send(request).await;
        answer.is(200);
        assert_eq!(!answer.cookies().is_empty(), cookies, "{name} {value}");
        assert_eq!(!answer.headers.contains_key("st-access-token"), cookies, "{name} {value}");
    }
}

#[tokio::test]
async fn sec_x07_another_site_signs_nobody_in() {
    let (_, app) = app().await;
    for (name, value) in
        [("origin", "https://evil.test"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        let request = Request::post("/login/public/1").header(name, value).body(Body::empty()).unwrap();
        let answer = app.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (403, "Refused"), "{name} {value}");
        let request = Request::post("/logout").header(name, value).body(Body::empty()).unwrap();
        app.send(request).await.is(403);
    }
    assert!(app.mfa.users().load(&id("1")).await.unwrap().is_none());
    // A way back from a provider is a link: the app's own `state` is what guards it.
    let request = Request::get("/login/public/1").header("sec-fetch-site", "cross-site").body(Body::empty());
    app.send(request.unwrap()).await.is(200);
}

#[tokio::test]
async fn without_axum_the_tokens_are_written_into_the_response() {
    let (_, app) = app().await;
    let mfa = app.mfa.clone();
    let inner = service_fn(move |request: Request<Body>| {
        let mfa = mfa.clone();
        async move {
            let (parts, _) = request.into_parts();
            let (_, tokens) = mfa.sign_in(&parts, &id("1"), &PUBLIC, FactorId::PASSWORD).await.unwrap();
            let mut response = http::Response::new(Full::<Bytes>::default());
            tokens.write(&mut response);
            Ok::<_, Infallible>(response)
        }
    });
    let request = || Request::post("/").header("origin", SITE).body(Body::empty()).unwrap();
    for cookies in [
        send(&inner, request()).await.cookies().len(),
        send(&MfaLayer::optional(app.mfa.clone()).layer(inner.clone()), request()).await.cookies().len(),
    ] {
        assert_eq!(cookies, 2);
    }
}

#[tokio::test]
async fn the_trait_isnt_needed_to_sign_somebody_in() {
    let app = TestApp::new().await;
    let router = routes(&app.mfa);
    let outbox = app.outbox.clone();
    let app = app.serving(router, outbox);
    let mut alice = app.browser(Mode::Header);
    post_to(&mut alice, "/login/public/1").await.is(200);
    assert_eq!(alice.get("/who").await.text, "1 in public");
    // A user of the crate's own may be checked by the app as well.
    app.browser(Mode::Header).by_code(BOB).await;
    let bob = app.user(BOB).await;
    post_to(&mut alice, &format!("/login/public/{bob}")).await.is(200);
    assert_eq!(alice.get("/who").await.text, format!("{bob} in public"));
    let stored = app.mfa.users().load(&bob).await.unwrap().unwrap();
    assert_eq!((stored.logins.len(), stored.logins[0].kind), (1, LoginKind::Passwordless));
    let north = TenantId::parse("north").unwrap();
    app.mfa.tenants().create(&north, None).await.unwrap();
    assert_eq!(post_to(&mut alice, &format!("/login/north/{bob}")).await.text, "Invalid");
}

#[tokio::test]
async fn security_notices_go_to_the_apps_address() {
    let (_, app) = app().await;
    for agent in ["Firefox", "Chromium"] {
        let mut request = app.browser(Mode::Header).request(Method::POST, "/login/public/1", None);
        request.headers_mut().insert(header::USER_AGENT, agent.parse().unwrap());
        app.send(request).await.is(200);
    }
    for _ in 0..2000 {
        let told = app.outbox.messages().into_iter().any(|sent| {
            matches!(&sent.notice, tower_mfa::delivery::Notice::NewDevice { to } if to.as_str() == ALICE)
        });
        if told {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("nobody was told of a new device");
}
