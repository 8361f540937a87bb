//! SMS over HTTP: a stand-in that checks what Twilio documents, a service that checks our signature, and hosts that
//! mean no good.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::hmac;
use axum::{Router, body::Body, extract::Request, response::Response, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_mfa::{
    config::Reqwest,
    delivery::{
        Courier, Delivery as _, DeliveryError, Envelope, HttpSms, Message, Notice, SmsSender,
        SmsTransport as _, TwilioStatus,
    },
    hooks::Audited,
    ident::{Contact, Phone, Secret, TenantId, Timestamp},
};

use crate::{
    spy::{ALICE, everyone},
    support::{Mode, TestApp},
};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const PHONE: &str = "+36301111142";

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn envelope() -> Envelope {
    let now = Timestamp::from_secs(1_700_000_000);
    let id = "0123456789abcdef0123456789abcdef";
    Envelope::new(id, TenantId::PUBLIC, now, now + Duration::from_secs(600))
}

/// Serves on loopback; its address.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

fn answer(status: u16, body: Value) -> Response {
    let body = Body::from(body.to_string());
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn decoded(form: &str) -> BTreeMap<String, String> {
    let text = |part: &str| {
        let (mut out, mut bytes) = (Vec::new(), part.bytes());
        while let Some(b) = bytes.next() {
            out.push(match b {
                b'%' => {
                    let pair = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap()
                }
                b'+' => b' ',
                b => b,
            });
        }
        String::from_utf8(out).unwrap()
    };
    let mut read = BTreeMap::new();
    for pair in form.split('&') {
        let (name, value) = pair.split_once('=').unwrap();
        assert!(read.insert(text(name), text(value)).is_none(), "{name} twice");
    }
    read
}

type Got = Arc<Mutex<Vec<BTreeMap<String, String>>>>;

/// Twilio's Messages resource, as its documentation has it: the path, basic authentication, a form with `To`, `Body`, and
/// one of `From` and `MessagingServiceSid`; 201 with the message, or an error with its code.
async fn twilio() -> (String, Got) {
    let got = Got::default();
    let seen = Arc::clone(&got);
    let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
    let handler = post(async move |request: Request| {
        let (head, body) = request.into_parts();
        let basic = format!("Basic {}", STANDARD.encode(format!("{ACCOUNT}:t0ken")));
        if head.headers.get("authorization").is_none_or(|value| value.as_bytes() != basic.as_bytes()) {
            return answer(401, json!({ "code": 20003, "message": "Authenticate", "status": 401 }));
        }
        assert_eq!(head.headers["content-type"], "application/x-www-form-urlencoded");
        let body = body.collect().await.unwrap().to_bytes();
        let form = decoded(std::str::from_utf8(&body).unwrap());
        let known = ["To", "From", "MessagingServiceSid", "Body", "ValidityPeriod", "StatusCallback"];
        assert!(form.keys().all(|name| known.contains(&name.as_str())), "{form:?}");
        let from = [form.contains_key("From"), form.contains_key("MessagingServiceSid")];
        assert_eq!(from.iter().filter(|there| **there).count(), 1);
        let valid: u32 = form["ValidityPeriod"].parse().unwrap();
        assert!((1..=36_000).contains(&valid));
        let to = form["To"].clone();
        assert!(Phone::parse(&to).is_ok(), "E.164: {to}");
        seen.lock().unwrap().push(form);
        // Numbers whose end says what is to happen.
        match &to[to.len() - 3..] {
            "400" => answer(400, json!({ "code": 21211, "message": format!("invalid {to}"), "status": 400 })),
            "429" => answer(429, json!({ "code": 20429, "message": "Too Many Requests", "status": 429 })),
            "500" => answer(503, json!({ "code": 20503, "message": "Service unavailable", "status": 503 })),
            "200" => answer(200, json!({})),
            _ => answer(
                201,
                json!({ "sid": "SM00000000000000000000000000000001", "status": "queued", "error_code": null }),
            ),
        }
    });
    (serve(Router::new().route(&path, handler)).await, got)
}

fn to_twilio(base: &str, token: &str, from: SmsSender) -> HttpSms {
    let sms = HttpSms::twilio(Reqwest::new().unwrap(), ACCOUNT, secret(token), from).unwrap();
    sms.dangerous_loopback(base).unwrap()
}

async fn send(sms: &HttpSms, to: &str) -> Result<(), DeliveryError> {
    sms.send(
        &envelope(),
        &Phone::parse(to).unwrap(),
        &Message::new("", "123456 & more=é\n\n@shop.example #123456"),
    )
    .await
}

#[tokio::test]
async fn twilio_gets_what_it_documents_and_its_answers_are_read() {
    let (base, got) = twilio().await;
    let sms = to_twilio(&base, "t0ken", SmsSender::number("+15005550006"));
    send(&sms, PHONE).await.unwrap();
    let service =
        to_twilio(&base, "t0ken", SmsSender::service("MG01")).status_callback("https://shop.example/sms?x=1");
    send(&service, PHONE).await.unwrap();
    let forms = got.lock().unwrap().clone();
    assert_eq!(forms[0]["Body"], "123456 & more=é\n\n@shop.example #123456");
    assert_eq!((forms[0]["To"].as_str(), forms[0]["From"].as_str()), (PHONE, "+15005550006"));
    assert_eq!(forms[0]["ValidityPeriod"], "600");
    assert_eq!(forms[1]["MessagingServiceSid"], "MG01");
    assert_eq!(forms[1]["StatusCallback"], "https://shop.example/sms?x=1");
    for (to, permanent, reason) in [
        ("+36301111400", true, "sms: http 400, code 21211"),
        ("+36301111429", false, "sms: http 429, code 20429"),
        ("+36301111500", false, "sms: http 503, code 20503"),
        // Twilio answers 201: whatever this is, it isn't Twilio.
        ("+36301111200", false, "sms: http 200"),
    ] {
        let error = send(&sms, to).await.unwrap_err();
        assert_eq!((error.is_permanent(), error.reason()), (permanent, Some(reason)), "{to}");
        assert!(!format!("{error:?}").contains(to), "the provider's words name the number");
    }
    let error = send(&to_twilio(&base, "wrong", SmsSender::number("+1")), PHONE).await.unwrap_err();
    assert_eq!((error.is_permanent(), error.reason()), (false, Some("sms: http 401, code 20003")));
    assert!(
        HttpSms::twilio(Reqwest::new().unwrap(), "AC/../x", secret("t"), SmsSender::number("+1")).is_err()
    );
    assert!(!format!("{sms:?}").contains("t0ken"));
}

#[tokio::test]
async fn sec_v03_a_webhook_is_signed_and_named_the_same_at_each_try() {
    const KEY: &str = "a secret of thirty-two bytes and more";
    let (got, seen): (Arc<Mutex<Vec<String>>>, _) = (Arc::default(), Arc::<Mutex<Vec<String>>>::default());
    let kept = Arc::clone(&got);
    let fails = Arc::clone(&seen);
    let handler = post(async move |request: Request| {
        let (head, body) = request.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let header = |name: &str| head.headers[name].to_str().unwrap().to_owned();
        let id = header("webhook-id");
        assert_eq!(header("idempotency-key"), id);
        let signature = header("webhook-signature");
        let signature = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
        let signed = format!("{id}.{}.{body}", header("webhook-timestamp"));
        let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
        hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&body["id"], &body["to"], &body["tenant"]),
            (&json!(id), &json!(PHONE), &json!("public"))
        );
        kept.lock().unwrap().push(id.clone());
        let mut fails = fails.lock().unwrap();
        fails.push(id);
        answer(if fails.len() == 1 { 500 } else { 204 }, json!({}))
    });
    let base = serve(Router::new().route("/sms", handler)).await;
    let sms = HttpSms::webhook(Reqwest::new().unwrap(), &format!("{base}/sms"), secret(KEY)).unwrap();
    let courier = Courier::sms_only(sms);
    let notice = Notice::NewDevice { to: Contact::parse(PHONE).unwrap() };
    let error = courier.deliver(&envelope(), &notice).await.unwrap_err();
    assert!(!error.is_permanent());
    courier.deliver(&envelope(), &notice).await.unwrap();
    let ids = got.lock().unwrap().clone();
    assert_eq!(ids, [envelope().id, envelope().id]);
    assert!(HttpSms::webhook(Reqwest::new().unwrap(), &format!("{base}/sms"), secret("short")).is_err());
}

#[tokio::test]
async fn sec_v11_redirects_endless_bodies_and_plain_http_lead_nowhere() {
    const KEY: &str = "a secret of thirty-two bytes and more";
    let inner: Arc<Mutex<u32>> = Arc::default();
    let (came, sent) = (Arc::clone(&inner), Arc::<Mutex<u64>>::default());
    let counted = Arc::clone(&sent);
    let router = Router::new()
        .route("/metadata", post(async move || *came.lock().unwrap() += 1))
        .route(
            "/redirect/{status}",
            post(async |axum::extract::Path(status): axum::extract::Path<u16>| {
                Response::builder()
                    .status(status)
                    .header("location", "/metadata")
                    .body(Body::empty())
                    .unwrap()
            }),
        )
        .route(
            "/endless",
            post(async move || {
                // A gigabyte, a piece at a time; what was taken is counted.
                let pieces = futures_util::stream::iter(0..16_384).map(move |_: u32| {
                    *counted.lock().unwrap() += 65_536;
                    Ok::<_, std::convert::Infallible>(bytes::Bytes::from(vec![b'x'; 65_536]))
                });
                Body::from_stream(pieces)
            }),
        );
    use futures_util::StreamExt as _;
    let base = serve(router).await;
    let to = |path: &str| {
        HttpSms::webhook(Reqwest::new().unwrap(), &format!("{base}{path}"), secret(KEY)).unwrap()
    };
    for status in [301, 302, 303, 307, 308] {
        let error = send(&to(&format!("/redirect/{status}")), PHONE).await.unwrap_err();
        assert_eq!(error.reason(), Some(format!("sms: http {status}").as_str()));
        assert!(!error.is_permanent());
    }
    assert_eq!(*inner.lock().unwrap(), 0, "nobody went there");
    let error = send(&to("/endless"), PHONE).await.unwrap_err();
    assert_eq!(error.reason(), Some("sms: no answer"));
    assert!(*sent.lock().unwrap() < 64 * 1024 * 1024, "{} bytes were taken", sent.lock().unwrap());
    for url in ["http://sms.shop.example/", "http://10.0.0.1/", "ftp://127.0.0.1/", "sms"] {
        assert!(HttpSms::webhook(Reqwest::new().unwrap(), url, secret(KEY)).is_err(), "{url}");
    }
    let sms =
        HttpSms::twilio(Reqwest::new().unwrap(), ACCOUNT, secret("t"), SmsSender::number("+1")).unwrap();
    sms.dangerous_loopback("http://api.twilio.example").unwrap_err();
}

#[tokio::test]
async fn sec_v09_a_callback_is_believed_if_it_is_signed_and_says_a_status_alone() {
    let app = TestApp::new().await;
    let (mfa, url) = (app.mfa.clone(), "https://shop.test/sms-status");
    let callback = post(async move |request: Request| {
        let (head, body) = request.into_parts();
        let form = body.collect().await.unwrap().to_bytes();
        let params: Vec<_> = decoded(std::str::from_utf8(&form).unwrap()).into_iter().collect();
        let signature =
            head.headers.get("x-twilio-signature").and_then(|value| value.to_str().ok()).unwrap_or("");
        match TwilioStatus::verify(&secret("t0ken"), url, &params, signature) {
            Some(status) => {
                mfa.sms_status(&status).await.unwrap();
                StatusCode::NO_CONTENT
            }
            None => StatusCode::FORBIDDEN,
        }
    });
    let router = Router::new().route("/sms-status", callback);
    let ask = async |form: &str, signature: Option<String>| {
        let mut request = http::Request::post("/sms-status");
        if let Some(signature) = signature {
            request = request.header("x-twilio-signature", signature);
        }
        crate::support::send(&router, request.body(Body::from(form.to_owned())).unwrap()).await.status
    };
    let sign = |form: &str| {
        let text = decoded(form).into_iter().fold(url.to_owned(), |all, (name, value)| all + &name + &value);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"t0ken");
        STANDARD.encode(hmac::sign(&key, text.as_bytes()))
    };
    let failed = async |app: &TestApp| {
        app.mfa
            .audit_trail(Timestamp::EPOCH)
            .await
            .unwrap()
            .iter()
            .filter(|event| event.what == Audited::DeliveryFailed)
            .count()
    };
    let form = "MessageSid=SM1&MessageStatus=undelivered&ErrorCode=30003";
    assert_eq!(ask(form, None).await, StatusCode::FORBIDDEN);
    assert_eq!(ask(form, Some(sign("MessageSid=SM1&MessageStatus=sent"))).await, StatusCode::FORBIDDEN);
    assert_eq!(failed(&app).await, 0);
    // Whatever else a signed one says, it is a status.
    let batches = app.store.written(0).len();
    let delivered = "MessageSid=SM1&MessageStatus=delivered&code=123456&user=alice";
    assert_eq!(ask(delivered, Some(sign(delivered))).await, StatusCode::NO_CONTENT);
    assert_eq!(
        app.store
            .written(batches)
            .into_iter()
            .flatten()
            .filter(|key| !key.as_str().starts_with("op/"))
            .count(),
        0
    );
    assert_eq!(ask(form, Some(sign(form))).await, StatusCode::NO_CONTENT);
    assert_eq!(failed(&app).await, 1);
}

/// Row V10: the queue of one tenant is full, another's isn't; nobody without a session can tell.
#[tokio::test]
async fn sec_v10_a_full_queue_is_told_to_session_users_alone() {
    struct Stuck;
    impl tower_mfa::delivery::Delivery for Stuck {
        async fn deliver(&self, _: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
            match notice.to().as_str() {
                ALICE => Ok(()),
                _ => std::future::pending().await,
            }
        }
    }
    let app = TestApp::with(|builder| builder.delivery(Stuck)).await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let first = app.browser(Mode::Header).ask_code("first@shop.example", false).await;
    let mut asked = 1;
    while app.mfa.counters().notices_waiting < 10_000 {
        let batch = (0..50).map(|n| {
            let mut browser = app.browser(Mode::Header);
            let email = format!("n{}@shop.example", asked + n);
            tokio::spawn(async move { browser.ask_code(&email, false).await.ok() })
        });
        for task in batch.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        asked += 50;
    }
    let queued = |app: &TestApp| {
        app.store
            .written(0)
            .into_iter()
            .flatten()
            .filter(|key| key.as_str().starts_with("queue/"))
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    let before = queued(&app);
    let last = app.browser(Mode::Header).ask_code("last@shop.example", false).await;
    assert_eq!(
        (first.status, &first.body["status"], &first.body["flowType"]),
        (last.status, &last.body["status"], &last.body["flowType"])
    );
    let names = |answer: &crate::support::Answer| answer.headers.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&first), names(&last));
    let told = alice.ask_code(ALICE, true).await;
    told.status("GENERAL_ERROR");
    assert!(told.headers.contains_key("retry-after"));
    assert_eq!(queued(&app), before, "nothing was added");
    assert!(before <= 10_050, "{before}");
    // The flow is one for show: no code opens it, and none was sent.
    let guess = app.browser(Mode::Header).enter(&last.ok(), "000000", false).await;
    guess.status("INCORRECT_USER_INPUT_CODE_ERROR");
    let other: TenantId = "other".parse().unwrap();
    app.mfa.tenants().create(&other, None).await.unwrap();
    let mut elsewhere = app.browser(Mode::Header);
    elsewhere.tenant = Some("other".to_owned());
    elsewhere.ask_code("there@shop.example", false).await.ok();
    assert_eq!(queued(&app), before + 1);
}

/// Mail of the account's own: a factor that comes, one that goes, a browser that is new.
#[tokio::test]
async fn a_user_hears_of_factors_and_of_new_devices() {
    let app = everyone().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.pass_code(ALICE).await;
    let user = app.user(ALICE).await;
    let second = tower_mfa::ident::Email::parse("second@shop.example").unwrap();
    let with = app.mfa.users().add_email(&user, &TenantId::PUBLIC, &second).await.unwrap();
    let added = with.logins.iter().find(|login| login.email.as_ref() == Some(&second)).unwrap();
    app.mfa.users().remove_login(&user, &added.id).await.unwrap();
    for agent in ["Chrome/120.0 (Linux)", "Chrome/121.0 (Linux)", "Firefox/1 (Windows)"] {
        let body = crate::support::credentials(ALICE, crate::support::PASSWORD);
        let mut request = app.browser(Mode::Header).request(http::Method::POST, "/auth/signin", Some(body));
        request.headers_mut().insert("user-agent", agent.parse().unwrap());
        app.send(request).await.ok();
    }
    app.mfa.shutdown().await;
    let node = app.restarted().await;
    let told = |kind: &str| -> Vec<String> {
        let sent = app.outbox.messages().into_iter().chain(node.outbox.messages());
        sent.filter(|sent| format!("{:?}", sent.notice).starts_with(kind))
            .map(|sent| sent.notice.to().as_str().to_owned())
            .collect()
    };
    for _ in 0..5000 {
        if told("NewDevice").len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Whoever adds an address isn't the one who is told.
    assert_eq!(told("FactorAdded"), [ALICE]);
    let mut removed = told("FactorRemoved");
    removed.sort();
    assert_eq!(removed, [ALICE, "second@shop.example"]);
    // Chrome is new after a client without a name, its update isn't; Firefox is.
    assert_eq!(told("NewDevice"), [ALICE, ALICE]);
}
