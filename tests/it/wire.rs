//! The tables of the wire, row by row: which routes there are and what they want of a session, what their answers hold,
//! what older clients get.

use std::collections::BTreeSet;

use axum::{Router, body::Body};
use http::{HeaderName, Method, Request, header};
use serde_json::{Value, json};
use tower_mfa::{
    FactorId,
    api::ApiLayer,
    config::{Countries, Passwordless, SigningAlg},
    ident::{Email, Phone, TenantId},
};

use crate::{
    routes::{
        Wants::{IfLinking, Session},
        everything, routes,
    },
    spy::{ALICE, BOB, NUMBER, bare, from_header, linking, signed_up, with, without},
    support::{
        Answer, Browser, Mode, PASSWORD, TestApp, credentials,
        provider::{CALLBACK, begin, returned},
        send,
    },
};

const PUBLIC: TenantId = TenantId::PUBLIC;

/// Marks the application's own answer, whatever the path: the request was none of the crate's.
const OWN: HeaderName = HeaderName::from_static("x-own");

fn is_the_apps(answer: &Answer) -> bool {
    answer.headers.contains_key(OWN)
}

#[tokio::test]
async fn every_route_is_there_and_says_what_it_wants_of_a_session() {
    let app = everything().await;
    let router = Router::new().fallback(async || [(OWN, "1")]).layer(ApiLayer::new(app.mfa.clone()));
    // The address is taken, so whoever signs up by it is told the same each time.
    signed_up(&app, Mode::Header, ALICE).await;
    let stranger = app.browser(Mode::Header);
    for (method, route, wants, tenants, body) in routes() {
        let method: Method = method.parse().unwrap();
        let body = (!body.is_null()).then_some(body);
        let ask =
            |path: String, body: Option<Value>| send(&router, stranger.request(method.clone(), &path, body));
        let plain = ask(format!("/auth{route}"), body.clone()).await;
        assert!(!is_the_apps(&plain), "{route} is served");
        assert_eq!(plain.status == 401, wants == Session, "{route}: {}", plain.text);
        if wants == Session {
            assert_eq!(plain.body["message"], "unauthorised", "{route}");
        }
        if let Some(body) = body.clone().filter(|_| wants == IfLinking) {
            let flagged = ask(format!("/auth{route}"), linking(body)).await;
            assert_eq!(
                (flagged.status.as_u16(), &flagged.body["message"]),
                (401, &json!("unauthorised")),
                "{route}"
            );
        }
        // A tenant may stand before any route; the ones that are a tenant's look at it, unless what was sent is wrong
        // wherever it goes.
        let says = |answer: &Answer| {
            (answer.status.as_u16(), answer.body["status"].clone(), answer.body["message"].clone())
        };
        let there = ask(format!("/auth/public{route}"), body.clone()).await;
        assert_eq!(says(&there), says(&plain), "public{route}");
        let nowhere = ask(format!("/auth/nowhere{route}"), body.clone()).await;
        match tenants && plain.body["status"] == "OK" {
            true => assert_eq!(nowhere.status, 404, "{route}: {}", nowhere.text),
            false => assert!([404, says(&plain).0].contains(&says(&nowhere).0), "{route}: {}", nowhere.text),
        }
        let (path, query) = route.split_once('?').unwrap_or((route, ""));
        let slash = ask(format!("/auth{path}/?{query}"), body.clone()).await;
        assert_eq!(says(&slash), says(&plain), "{route}/");
        // Anything else about it is the application's.
        for other in
            [format!("/auth{path}/x"), format!("/auth{}", path.to_uppercase()), format!("/api{path}")]
        {
            assert!(is_the_apps(&ask(other.clone(), body.clone()).await), "{other}");
        }
        let known: BTreeSet<&str> =
            routes().iter().filter(|one| one.1.split('?').next() == Some(path)).map(|one| one.0).collect();
        for other in
            ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"].into_iter().filter(|one| !known.contains(one))
        {
            let answer =
                send(&router, stranger.request(other.parse().unwrap(), &format!("/auth{path}"), None)).await;
            assert!(is_the_apps(&answer), "{other} {path}: {} {}", answer.status, answer.text);
        }
    }
}

/// That it was answered like this, to the letter.
#[track_caller]
fn says(answer: &Answer, body: Value) {
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &body));
}

/// The members of an answer beside its status.
#[track_caller]
fn holds(answer: &Answer, status: &str, members: &[&str]) {
    assert_eq!((answer.status.as_u16(), &answer.body["status"]), (200, &json!(status)), "{}", answer.text);
    let members = members.iter().chain(&["status"]);
    let held: BTreeSet<&str> = answer.body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(held, members.copied().collect(), "{}", answer.text);
    assert!(!has_null(&answer.body), "what has no value is left out: {}", answer.text);
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(members) => members.values().any(has_null),
        _ => false,
    }
}

fn token(link: &str) -> String {
    link.split(['?', '&']).find_map(|part| part.strip_prefix("token=")).unwrap().to_owned()
}

async fn third_party(browser: &mut Browser, flag: bool) -> Answer {
    let begun = begin(browser).await;
    holds(&begun, "OK", &["urlWithQueryParams"]);
    let body = returned(&begun.ok(), json!({ "code": "x" }));
    browser.post("/auth/signinup", if flag { linking(body).unwrap() } else { body }).await
}

#[tokio::test]
async fn answers_hold_the_members_of_their_row_and_no_others() {
    let app = everything().await;
    let mut alice = app.browser(Mode::Cookie);
    // 9.1
    let up = alice.sign_up(ALICE).await;
    holds(&up, "OK", &["user"]);
    let wrong = |list: &[(&str, &str)]| {
        let fields = list.iter().map(|(id, error)| json!({ "id": id, "error": error }));
        json!({ "status": "FIELD_ERROR", "formFields": fields.collect::<Value>() })
    };
    let taken = "This e-mail address is taken. Sign in instead.";
    says(&alice.sign_up(ALICE).await, wrong(&[("email", taken)]));
    let both = wrong(&[("email", "Email is invalid"), ("password", "Field is not optional")]);
    let mut visitor = app.browser(Mode::Cookie);
    for path in ["/auth/signin", "/auth/signup"] {
        says(&visitor.post(path, credentials("x", "")).await, both.clone());
    }
    let refused = visitor.post("/auth/signin", credentials(ALICE, "wrong 1")).await;
    says(&refused, json!({ "status": "WRONG_CREDENTIALS_ERROR" }));
    holds(&alice.sign_in(ALICE).await, "OK", &["user"]);
    for path in ["emailpassword/email", "passwordless/email", "signup/email"] {
        let exists = alice.get(&format!("/auth/{path}/exists?email=x@y.example")).await;
        says(&exists, json!({ "status": "OK", "exists": false }));
    }
    for path in ["passwordless/phonenumber", "signup/phonenumber"] {
        let exists = alice.get(&format!("/auth/{path}/exists?phoneNumber=%2B36301111142")).await;
        says(&exists, json!({ "status": "OK", "exists": false }));
    }
    // 9.3
    let email = |email: &str| json!({ "formFields": [{ "id": "email", "value": email }] });
    let ok = json!({ "status": "OK" });
    says(&alice.get("/auth/user/email/verify").await, json!({ "status": "OK", "isVerified": false }));
    let seen = app.sent_to(ALICE);
    says(&alice.post("/auth/user/email/verify/token", json!({})).await, ok.clone());
    let link = app.notice_after(ALICE, seen).await.link().unwrap().expose().clone();
    assert!(
        link.starts_with("https://shop.test/auth/verify-email?token=") && link.ends_with("&tenantId=public")
    );
    let opened = json!({ "method": "token", "token": token(&link) });
    says(&alice.post("/auth/user/email/verify", opened.clone()).await, ok.clone());
    assert_eq!(alice.payload("st-ev")["v"], true, "the answer carries it");
    let late = alice.post("/auth/user/email/verify", opened).await;
    says(&late, json!({ "status": "EMAIL_VERIFICATION_INVALID_TOKEN_ERROR" }));
    let already = alice.post("/auth/user/email/verify/token", json!({})).await;
    says(&already, json!({ "status": "EMAIL_ALREADY_VERIFIED_ERROR" }));
    says(&alice.get("/auth/user/email/verify").await, json!({ "status": "OK", "isVerified": true }));
    // 11
    let refreshed = alice.refresh().await;
    assert_eq!((refreshed.status.as_u16(), refreshed.text.as_str()), (200, "{}"));
    assert!(refreshed.headers.contains_key("front-token") && refreshed.cookies().len() == 2);
    let out = alice.sign_out().await;
    says(&out, ok.clone());
    assert_eq!(out.headers["front-token"], "remove");
    alice.sign_out().await.is(401);
    // 9.1, the reset
    for address in [ALICE, "nobody@shop.example"] {
        says(&alice.post("/auth/user/password/reset/token", email(address)).await, ok.clone());
    }
    for (address, error) in [("x", "Email is invalid"), ("", "Field is not optional")] {
        let asked = alice.post("/auth/user/password/reset/token", email(address)).await;
        says(&asked, wrong(&[("email", error)]));
    }
    let mallory = "mallory@shop.example";
    signed_up(&app, Mode::Header, mallory).await;
    let number = Phone::parse(NUMBER).unwrap();
    app.mfa.users().add_phone(&app.user(mallory).await, &PUBLIC, &number).await.unwrap();
    let text = "A new password can't be set by this address. Please contact support. (ERR_CODE_001)";
    let refused = json!({ "status": "PASSWORD_RESET_NOT_ALLOWED", "reason": text });
    says(&alice.post("/auth/user/password/reset/token", email(mallory)).await, refused);
    let link = app.notice_after(ALICE, seen + 1).await.link().unwrap().expose().clone();
    assert!(
        link.starts_with("https://shop.test/auth/reset-password?token=")
            && link.ends_with("&tenantId=public")
    );
    let reset = |password: &str| {
        let fields = json!([{ "id": "password", "value": password }]);
        json!({ "formFields": fields, "method": "token", "token": token(&link) })
    };
    let weak = alice.post("/auth/user/password/reset", reset("weak")).await;
    let short = "Password must have at least 8 characters";
    says(&weak, wrong(&[("password", short)]));
    for body in [ok.clone(), json!({ "status": "RESET_PASSWORD_INVALID_TOKEN_ERROR" })] {
        let done = alice.post("/auth/user/password/reset", reset("another horse 1")).await;
        says(&done, body);
        assert!(!done.headers.contains_key("front-token"), "no session");
    }
    // 9.2
    let signed = third_party(&mut app.browser(Mode::Cookie), false).await;
    holds(&signed, "OK", &["user", "createdNewRecipeUser"]);
    assert_eq!(signed.body["createdNewRecipeUser"], true);
    // 9.4
    let offered = alice.get("/auth/loginmethods").await;
    let enabled = json!({ "enabled": true });
    says(
        &offered,
        json!({
            "status": "OK",
            "emailPassword": enabled,
            "thirdParty": { "enabled": true, "providers": [{ "id": "loopback", "name": "Loopback" }] },
            "passwordless": enabled,
            "webauthn": { "enabled": false },
            "firstFactors": offered.body["firstFactors"],
        }),
    );
    let mut listed: Vec<&str> =
        offered.body["firstFactors"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    listed.sort_unstable();
    assert_eq!(listed, ["emailpassword", "otp-email", "otp-phone", "thirdparty"]);
    // 7
    let mut bob = app.browser(Mode::Header);
    let asked = bob.ask_code(BOB, false).await;
    holds(&asked, "OK", &["deviceId", "preAuthSessionId", "flowType"]);
    let flow = asked.ok();
    assert_eq!(flow["flowType"], "USER_INPUT_CODE");
    says(&bob.ask_again(&flow, false).await, ok);
    let code = app.code_after(BOB, 1).await;
    let wrong = bob.enter(&flow, &crate::support::wrong(&code), false).await;
    let counts = ["failedCodeInputAttemptCount", "maximumCodeInputAttempts"];
    holds(&wrong, "INCORRECT_USER_INPUT_CODE_ERROR", &counts);
    let done = bob.enter(&flow, &code, false).await;
    holds(&done, "OK", &["user", "createdNewRecipeUser"]);
    assert_eq!(done.body["createdNewRecipeUser"], true);
    says(&bob.enter(&flow, &code, false).await, json!({ "status": "RESTART_FLOW_ERROR" }));
    let unread = bob.ask_code("not an address", false).await;
    holds(&unread, "GENERAL_ERROR", &["message"]);
    assert!(unread.body["message"].is_string());
}

#[tokio::test]
async fn a_tenant_narrows_what_its_sign_in_page_offers() {
    let app = everything().await;
    let north = TenantId::parse("north").unwrap();
    let first = vec![FactorId::THIRD_PARTY, FactorId::OTP_EMAIL];
    app.mfa.tenants().create(&north, Some(first)).await.unwrap();
    app.mfa.tenants().create(&TenantId::parse("shut").unwrap(), Some(Vec::new())).await.unwrap();
    let mut visitor = app.browser(Mode::Cookie);
    let north = visitor.get("/auth/north/loginmethods").await.ok();
    assert_eq!(north["firstFactors"], json!(["thirdparty", "otp-email"]));
    for (method, there) in [("emailPassword", false), ("thirdParty", true), ("passwordless", true)] {
        assert_eq!(north[method]["enabled"], there, "{method}");
    }
    let shut = visitor.get("/auth/shut/loginmethods").await.ok();
    assert_eq!(
        (&shut["firstFactors"], &shut["thirdParty"]),
        (&json!([]), &json!({ "enabled": false, "providers": [] }))
    );
}

/// Section 10: the user, whole, for each way to sign in.
#[tokio::test]
async fn a_user_is_shown_in_one_shape() {
    let app = everything().await;
    let shape = |user: &Value, logins: Value| {
        let login = &user["loginMethods"][0];
        let (id, at) = (&login["recipeUserId"], &login["timeJoined"]);
        assert!(at.is_i64() && id.is_string());
        let mut logins = logins;
        for (n, one) in logins.as_array_mut().unwrap().iter_mut().enumerate() {
            one["recipeUserId"] = user["loginMethods"][n]["recipeUserId"].clone();
            one["timeJoined"] = at.clone();
            one["tenantIds"] = json!(["public"]);
        }
        let all = |name: &str| -> Value {
            logins.as_array().unwrap().iter().filter_map(|one| one.get(name)).cloned().collect()
        };
        let emails: BTreeSet<String> =
            all("email").as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect();
        let wanted = json!({
            "id": id,
            "isPrimaryUser": user["isPrimaryUser"],
            "tenantIds": ["public"],
            "timeJoined": at,
            "emails": emails,
            "phoneNumbers": all("phoneNumber"),
            "thirdParty": all("thirdParty"),
            "webauthn": { "credentialIds": [] },
            "loginMethods": logins,
        });
        assert_eq!(*user, wanted);
        assert!(user["isPrimaryUser"].is_boolean());
    };
    let password = json!({ "recipeId": "emailpassword", "email": ALICE, "verified": false });
    let mut alice = app.browser(Mode::Cookie);
    let signed = alice.sign_up(ALICE).await.ok();
    shape(&signed["user"], json!([password]));
    shape(&app.browser(Mode::Header).sign_in(ALICE).await.ok()["user"], json!([password]));
    let code = |contact: &str| {
        let member = if contact.contains('@') { "email" } else { "phoneNumber" };
        json!({ "recipeId": "passwordless", (member): contact, "verified": true })
    };
    for contact in [BOB, NUMBER] {
        let mut client = app.browser(Mode::Header);
        let flow = client.ask_code(contact, false).await.ok();
        let done = client.enter(&flow, &app.code(contact).await, false).await.ok();
        shape(&done["user"], json!([code(contact)]));
    }
    let carol = json!({ "recipeId": "thirdparty", "email": "carol@shop.example", "verified": true,
        "thirdParty": { "id": "loopback", "userId": "carol" } });
    let signed = third_party(&mut app.browser(Mode::Cookie), false).await.ok();
    shape(&signed["user"], json!([carol]));
    // Two of one user.
    let mut both = password;
    both["verified"] = json!(true);
    let flow = alice.ask_code(ALICE, true).await.ok();
    let linked = alice.enter(&flow, &app.code(ALICE).await, true).await.ok();
    assert_eq!(linked["user"]["isPrimaryUser"], true);
    both["verified"] = linked["user"]["loginMethods"][0]["verified"].clone();
    shape(&linked["user"], json!([both, code(ALICE)]));
}

#[tokio::test]
async fn where_the_keys_are_is_told_as_openid_providers_tell_it() {
    for (alg, names) in [
        (SigningAlg::Rs256, json!(["RS256"])),
        (SigningAlg::EdDsa, json!(["EdDSA"])),
        (SigningAlg::Hs256, json!([])),
    ] {
        let app = TestApp::with(|b| b.signing(alg)).await;
        let told = app.send(bare("GET", "/auth/.well-known/openid-configuration")).await;
        told.is(200);
        assert_eq!(told.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(
            told.body,
            json!({
                "issuer": "https://api.shop.test/auth",
                "jwks_uri": "https://api.shop.test/auth/jwt/jwks.json",
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": names,
                "response_types_supported": [],
            })
        );
        // The keys are where it says.
        let path = told.body["jwks_uri"].as_str().unwrap().strip_prefix("https://api.shop.test").unwrap();
        let keys = app.send(bare("GET", path)).await;
        assert_eq!(keys.body["keys"].as_array().unwrap().is_empty(), names == json!([]), "{}", keys.text);
    }
}

/// Section 1.3: whatever version a client says it speaks, it gets today's answers; the flag that isn't sent is `false`.
#[tokio::test]
async fn any_version_gets_the_answers_of_the_newest() {
    let app = everything().await;
    signed_up(&app, Mode::Header, ALICE).await;
    for version in [
        "1.16",
        "1.17",
        "1.18,1.19",
        "2.0",
        "3.0",
        "3.1",
        "3.1,4.0,4.1,4.2",
        "4.2,1.17",
        "99.9",
        "",
        "x,,1",
        "1.17.1",
    ] {
        let mut client = app.browser(Mode::Header);
        let mut body = credentials(ALICE, PASSWORD);
        body.as_object_mut().unwrap().remove("shouldTryLinkingWithSessionUser");
        let request = client.request(Method::POST, "/auth/signin", Some(body));
        let answer = app.send(with(request, &[("fdi-version", version)])).await;
        holds(&answer, "OK", &["user"]);
        assert_eq!(answer.body["user"]["loginMethods"][0]["recipeId"], "emailpassword", "{version}");
        client.keep(&answer);
        // Within a session and without the flag it is a first factor: the session that was there is left behind.
        let request = client.request(Method::POST, "/auth/signinup/code", Some(json!({ "email": BOB })));
        let seen = app.sent_to(BOB);
        let flow = app.send(with(request, &[("fdi-version", version)])).await.ok();
        let code = app.code_after(BOB, seen).await;
        let guess = json!({
            "deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"], "userInputCode": code,
        });
        let before = client.access_token().cloned();
        let request = client.request(Method::POST, "/auth/signinup/code/consume", Some(guess));
        let answer = app.send(with(request, &[("fdi-version", version)])).await;
        holds(&answer, "OK", &["user", "createdNewRecipeUser"]);
        client.keep(&answer);
        assert_eq!(answer.body["user"]["emails"], json!([BOB]), "{version}");
        assert_ne!(client.access_token().cloned(), before, "{version}");
    }
    // None at all.
    let request =
        app.browser(Mode::Header).request(Method::POST, "/auth/signin", Some(credentials(ALICE, PASSWORD)));
    holds(&app.send(without(request, &["fdi-version"])).await, "OK", &["user"]);
}

/// What an SDK that knows the combined recipes sends: their name as `rid`, an older version.
fn older(browser: &Browser, rid: &str, method: Method, path: &str, body: Option<Value>) -> Request<Body> {
    with(browser.request(method, path, body), &[("rid", rid), ("fdi-version", "1.17,1.18,1.19")])
}

/// `thirdpartyemailpassword` and `thirdpartypasswordless` are the recipes that they combine.
#[tokio::test]
async fn the_older_combined_names_are_the_same_routes() {
    let app = everything().await;
    let (tpep, tpp) = ("thirdpartyemailpassword", "thirdpartypasswordless");
    let mut client = app.browser(Mode::Cookie);
    let query = format!("thirdPartyId=loopback&redirectURIOnProviderDashboard={CALLBACK}");
    let begin = format!("/auth/authorisationurl?{query}");
    // By password.
    let up = app
        .send(older(&client, tpep, Method::POST, "/auth/signup", Some(credentials(ALICE, PASSWORD))))
        .await;
    holds(&up, "OK", &["user"]);
    let signed = app
        .send(older(&client, tpep, Method::POST, "/auth/signin", Some(credentials(ALICE, PASSWORD))))
        .await;
    client.keep(&signed);
    assert_eq!(signed.ok()["user"]["loginMethods"][0]["recipeId"], "emailpassword");
    assert!(client.claim()["c"]["emailpassword"].is_i64(), "{}", client.claim());
    app.send(older(&client, tpep, Method::GET, "/api/me", None)).await.is(200);
    let refreshed = app.send(older(&client, tpep, Method::POST, "/auth/session/refresh", None)).await;
    refreshed.is(200);
    client.keep(&refreshed);
    let address = json!({ "formFields": [{ "id": "email", "value": ALICE }] });
    app.send(older(&client, tpep, Method::POST, "/auth/user/password/reset/token", Some(address))).await.ok();
    app.notice_after(ALICE, 0).await.link().unwrap();
    // By a third party, which either has.
    for (rid, created) in [(tpep, true), (tpp, false)] {
        let mut carol = app.browser(Mode::Cookie);
        let begun = app.send(older(&carol, rid, Method::GET, &begin, None)).await.ok();
        let body = returned(&begun, json!({ "code": "x" }));
        let signed = app.send(older(&carol, rid, Method::POST, "/auth/signinup", Some(body))).await;
        carol.keep(&signed);
        let signed = signed.ok();
        assert_eq!(signed["createdNewRecipeUser"], created, "{rid}");
        assert_eq!(signed["user"]["loginMethods"][0]["recipeId"], "thirdparty");
        assert!(carol.claim()["c"]["thirdparty"].is_i64());
    }
    // By a code.
    let mut bob = app.browser(Mode::Cookie);
    let code = "/auth/signinup/code";
    let flow = app.send(older(&bob, tpp, Method::POST, code, Some(json!({ "email": BOB })))).await.ok();
    let ids = json!({ "deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"] });
    app.send(older(&bob, tpp, Method::POST, "/auth/signinup/code/resend", Some(ids.clone()))).await.ok();
    let mut guess = ids;
    guess["userInputCode"] = json!(app.code_after(BOB, 1).await);
    let signed = app.send(older(&bob, tpp, Method::POST, "/auth/signinup/code/consume", Some(guess))).await;
    bob.keep(&signed);
    assert_eq!(signed.ok()["user"]["loginMethods"][0]["recipeId"], "passwordless");
    assert!(bob.claim()["c"]["otp-email"].is_i64());
    // What their pages are drawn from.
    for rid in [tpep, tpp] {
        let offered = app.send(older(&bob, rid, Method::GET, "/auth/loginmethods", None)).await.ok();
        for part in ["emailPassword", "thirdParty", "passwordless"] {
            assert_eq!(offered[part]["enabled"], true, "{rid} {part}");
        }
    }
}

/// One older path was two recipes': the name says whose, the combined ones among them.
#[tokio::test]
async fn sec_o25_the_older_path_asks_the_recipe_that_is_named() {
    let app = TestApp::with(|b| {
        from_header(b).reveal_accounts(true).passwordless(Passwordless::email_or_phone(Countries::all()))
    })
    .await;
    let users = app.mfa.users();
    let by_code = users.create(&PUBLIC, &Email::parse(BOB).unwrap()).await.unwrap();
    users.add_phone(&by_code.id, &PUBLIC, &Phone::parse(NUMBER).unwrap()).await.unwrap();
    signed_up(&app, Mode::Header, ALICE).await;
    let client = app.browser(Mode::Header);
    for (rid, has_password) in [
        ("emailpassword", true),
        ("thirdpartyemailpassword", true),
        ("passwordless", false),
        ("thirdpartypasswordless", false),
        ("anti-csrf", true),
        ("session", true),
        ("thirdparty", true),
        ("x", true),
    ] {
        for (email, password) in [(ALICE, true), (BOB, false)] {
            let path = format!("/auth/signup/email/exists?email={email}");
            let answer = app.send(older(&client, rid, Method::GET, &path, None)).await;
            assert_eq!(
                answer.body,
                json!({ "status": "OK", "exists": password == has_password }),
                "{rid} {email}"
            );
        }
        // Where the path says it, the name says nothing.
        for (path, email, there) in
            [("emailpassword", ALICE, true), ("emailpassword", BOB, false), ("passwordless", BOB, true)]
        {
            let path = format!("/auth/{path}/email/exists?email={email}");
            let answer = app.send(older(&client, rid, Method::GET, &path, None)).await;
            assert_eq!(answer.body["exists"], there, "{rid} {path}");
        }
        let path = "/auth/signup/phonenumber/exists?phoneNumber=%2B36301111142";
        assert_eq!(app.send(older(&client, rid, Method::GET, path, None)).await.body["exists"], true);
    }
}
