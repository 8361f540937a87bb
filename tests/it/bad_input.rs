//! Malformed requests over every route: the answer that the wire and the security rows name, nothing
//! half written, no panic, no token touched.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use tower_mfa::{FactorId, ident::TenantId, policy::Everyone};

use crate::{
    spy::{ALICE, ROUTES, every_route},
    support::{Mode, PASSWORD, TestApp, credentials},
};

fn request(method: &str, path: &str, kind: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let mut request =
        Request::builder().method(method).uri(path).header("rid", "x").header("st-auth-mode", "cookie");
    if let Some(kind) = kind {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_400_on_every_route() {
    let app = every_route().await;
    let before = app.store.counts.commits.load(std::sync::atomic::Ordering::SeqCst);
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    for (method, route) in ROUTES.into_iter().filter(|(method, _)| *method != "GET") {
        for body in [
            "{",
            "[]",
            "null",
            "1",
            "\"x\"",
            "{\"a\":1,\"a\":2}",
            "{}{}",
            "\u{feff}{}",
            &format!("{{\"a\":{deep}}}"),
        ] {
            let answer = app
                .send(request(method, &format!("/auth{route}"), Some("application/json"), body.to_owned()))
                .await;
            answer.is(400);
            assert!(answer.body["message"].is_string() && answer.cookies().is_empty(), "{route} {body}");
        }
    }
    assert_eq!(
        app.store.counts.commits.load(std::sync::atomic::Ordering::SeqCst),
        before,
        "nothing was written"
    );
}

#[tokio::test]
async fn sec_x05_other_content_types_are_415_and_sec_m10_large_bodies_413() {
    let app = every_route().await;
    for (method, route) in ROUTES.into_iter().filter(|(method, _)| *method != "GET") {
        let path = format!("/auth{route}");
        for kind in
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx")]
        {
            app.send(request(method, &path, kind, "{}")).await.is(415);
        }
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(17 * 1024));
        app.send(request(method, &path, Some("application/json"), large)).await.is(413);
    }
}

#[tokio::test]
async fn sec_n02_tenants_that_are_not_there_are_404() {
    let app = TestApp::new().await;
    let tenants = ["nowhere", "PUBLIC", "a.b", "%70ublic", "a%2fb", &"x".repeat(70)];
    for tenant in tenants {
        for (method, route, body) in [
            ("POST", "/signin", credentials(ALICE, PASSWORD)),
            ("POST", "/signup", credentials(ALICE, PASSWORD)),
            ("POST", "/signinup/code", json!({"email": ALICE})),
            ("GET", "/loginmethods", Value::Null),
            ("GET", "/emailpassword/email/exists?email=a@b.cd", Value::Null),
        ] {
            let (kind, body) = match method {
                "GET" => (None, String::new()),
                _ => (Some("application/json"), body.to_string()),
            };
            let answer = app.send(request(method, &format!("/auth/{tenant}{route}"), kind, body)).await;
            answer.is(404);
            assert_eq!(answer.body, json!({"message": "there is no such tenant"}), "{tenant}{route}");
        }
    }
    assert_eq!(app.mfa.counters().password_hashes, 0);
}

#[tokio::test]
async fn sec_x06_foreign_origins_are_400_on_every_route_that_changes_something() {
    let app = every_route().await;
    let foreign = [
        "https://evil.test",
        "https://shop.test.evil.test",
        "https://shop.test:444",
        "http://shop.test",
        "HTTPS://SHOP.TEST",
        "null",
    ];
    for (method, route) in ROUTES.into_iter().filter(|(method, _)| *method != "GET") {
        for origin in foreign {
            let mut asked = request(method, &format!("/auth{route}"), Some("application/json"), "{}");
            asked.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
            let answer = app.send(asked).await;
            answer.is(400);
            assert!(answer.cookies().is_empty() && !answer.headers.contains_key("front-token"));
        }
    }
    let mut asked =
        request("POST", "/auth/signup", Some("application/json"), credentials(ALICE, PASSWORD).to_string());
    asked.headers_mut().insert(header::ORIGIN, "https://shop.test".parse().unwrap());
    app.send(asked).await.ok();
}

#[tokio::test]
async fn missing_and_ill_typed_members() {
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Cookie);
    let field = |id: &str, value: Value| json!({"id": id, "value": value});
    let fields = |fields: Vec<Value>| json!({ "formFields": fields });
    let (mail, pass) = (field("email", json!(ALICE)), field("password", json!(PASSWORD)));
    let malformed: Vec<(&str, Value)> = vec![
        ("/signin", json!({})),
        ("/signin", json!({"formFields": {}})),
        ("/signin", json!({"formFields": ["x"]})),
        ("/signin", fields(vec![field("email", json!(1)), pass.clone()])),
        ("/signin", fields(vec![json!({"id": "email"}), pass.clone()])),
        ("/signin", fields(vec![mail.clone(), mail.clone()])),
        ("/signin", fields(vec![mail.clone(), pass.clone(), field("x", json!("y"))])),
        ("/signup", fields(vec![mail.clone(), field("nickname", json!("a"))])),
        ("/signup", json!({"formFields": [mail, pass], "shouldTryLinkingWithSessionUser": "yes"})),
        ("/signup", credentials(ALICE, &"x1".repeat(600))),
        ("/signinup/code", json!({})),
        ("/signinup/code", json!({"email": [ALICE]})),
        ("/signinup/code", json!({"email": {"a": 1}})),
        ("/signinup/code", json!({"email": ALICE, "phoneNumber": "+4915112345678"})),
        ("/signinup/code", json!({"phoneNumber": "+4915112345678"})),
        ("/signinup/code/resend", json!({})),
        ("/signinup/code/resend", json!({"deviceId": 1, "preAuthSessionId": "x"})),
        ("/signinup/code/consume", json!({})),
        ("/signinup/code/consume", json!({"preAuthSessionId": "x"})),
        ("/signinup/code/consume", json!({"preAuthSessionId": "x", "deviceId": "x"})),
        (
            "/signinup/code/consume",
            json!({"preAuthSessionId": "x", "deviceId": "x", "userInputCode": 123456}),
        ),
        ("/signinup/code/consume", json!({"preAuthSessionId": "x", "deviceId": "x", "userInputCode": ["1"]})),
        (
            "/signinup/code/consume",
            json!({"preAuthSessionId": "x", "deviceId": "x", "userInputCode": "1".repeat(65)}),
        ),
        (
            "/signinup/code/consume",
            json!({"preAuthSessionId": "x", "deviceId": "x", "userInputCode": "1", "linkCode": "y"}),
        ),
    ];
    for (route, body) in malformed {
        let answer = alice.post(&format!("/auth{route}"), body.clone()).await;
        answer.is(400);
        assert!(!answer.text.contains(ALICE), "{route} {body}");
    }
    // What a person can mend is 200, with the field.
    for (email, password, expected) in [
        ("", PASSWORD, json!([{"id": "email", "error": "Field is not optional"}])),
        ("x@", PASSWORD, json!([{"id": "email", "error": "Email is invalid"}])),
        (ALICE, "", json!([{"id": "password", "error": "Field is not optional"}])),
    ] {
        let answer = alice.post("/auth/signup", credentials(email, password)).await;
        answer.status("FIELD_ERROR");
        assert_eq!(answer.body["formFields"], expected);
    }
    for weak in ["short1", "nodigitshere", "12345678"] {
        let answer = alice.post("/auth/signup", credentials(ALICE, weak)).await;
        answer.status("FIELD_ERROR");
        assert_eq!(answer.body["formFields"][0]["id"], "password", "{weak}");
    }
    alice.post("/auth/signinup/code", json!({"email": "not an address"})).await.status("GENERAL_ERROR");
    let unknown = json!({"preAuthSessionId": "x", "deviceId": "y", "userInputCode": "123456"});
    alice.post("/auth/signinup/code/consume", unknown).await.status("RESTART_FLOW_ERROR");
    alice.get("/auth/emailpassword/email/exists").await.is(400);
}

#[tokio::test]
async fn foreign_and_broken_tokens() {
    let (app, other) = (TestApp::new().await, TestApp::new().await);
    let mut stranger = other.browser(Mode::Header);
    stranger.sign_up(ALICE).await.ok();
    let foreign = stranger.access.clone().unwrap();
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let own = alice.access.clone().unwrap();
    let mut tampered = own.clone();
    let spot = own.len() - 4..own.len() - 3;
    tampered.replace_range(spot.clone(), if &own[spot] == "A" { "B" } else { "A" });
    for token in [foreign, tampered, format!("{own}A")] {
        for (method, path) in
            [(Method::GET, "/api/me"), (Method::PUT, "/auth/mfa/info"), (Method::POST, "/auth/signout")]
        {
            let mut broken = app.browser(Mode::Header);
            broken.access = Some(token.clone());
            let answer = broken.call(method, path, None).await;
            answer.is(401);
            assert_eq!(answer.body["message"], "try refresh token", "{path}");
            assert!(answer.cookies().is_empty() && !answer.headers.contains_key("front-token"));
        }
    }
    let mut none = app.browser(Mode::Header);
    none.access = Some("not-a-token".to_owned());
    assert_eq!(none.get("/api/me").await.body["message"], "unauthorised");
    alice.get("/api/me").await.is(200);
}

#[tokio::test]
async fn sec_p19_a_factor_that_may_not_start_a_session() {
    let app =
        TestApp::with(|b| b.first_factors([FactorId::PASSWORD]).policy(Everyone::new(FactorId::OTP_EMAIL)))
            .await;
    let mut nobody = app.browser(Mode::Cookie);
    let refused = nobody.ask_code(ALICE, false).await;
    refused.is(401);
    assert!(refused.cookies().is_empty() && !refused.headers.contains_key("front-token"));
    let mut alice = app.browser(Mode::Cookie);
    alice.sign_up(ALICE).await.ok();
    alice.ask_code(ALICE, false).await.is(400);
    // A tenant's empty list lets nobody in, before anything is hashed.
    let closed = TenantId::parse("closed").unwrap();
    app.mfa.tenants().create(&closed, Some(Vec::new())).await.unwrap();
    let hashes = app.mfa.counters().password_hashes;
    let mut nobody = app.browser(Mode::Cookie);
    nobody.tenant = Some("closed".to_owned());
    nobody.sign_in(ALICE).await.is(401);
    nobody.sign_up("bob@shop.example").await.is(401);
    assert_eq!(app.mfa.counters().password_hashes, hashes);
}

#[tokio::test]
async fn sec_w04_one_hash_whoever_it_is() {
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Cookie);
    alice.sign_up(ALICE).await.ok();
    let flow = alice.ask_code("code@shop.example", false).await.ok();
    let code = app.code("code@shop.example").await;
    alice.enter(&flow, &code, false).await.ok();
    let mut answers = Vec::new();
    for who in [ALICE, "nobody@shop.example", "code@shop.example", "x@stfakeemail.supertokens.com"] {
        let before = app.mfa.counters().password_hashes;
        let answer = app.browser(Mode::Cookie).post("/auth/signin", credentials(who, "wrong pass 1")).await;
        assert_eq!(app.mfa.counters().password_hashes, before + 1, "{who}");
        answers.push((answer.status, answer.body));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].1, json!({"status": "WRONG_CREDENTIALS_ERROR"}));
}

#[tokio::test]
async fn paths_that_are_not_ours_reach_the_app() {
    let app = TestApp::new().await;
    for (method, path) in
        [("GET", "/auth/signin"), ("POST", "/auth/other"), ("DELETE", "/auth/signout"), ("GET", "/")]
    {
        // The app's own mount answers, which covers its fallback too (row M03).
        assert_eq!(app.send(request(method, path, None, "")).await.body["message"], "unauthorised", "{path}");
    }
}
