//! Guards as a layer and as an argument: one rule, one answer, no store call.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Json, Router, body::Body, routing::get};
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tower::{Layer as _, service_fn};
use tower_mfa::{
    FactorId, MfaLayer, RequireFactors, Requirement, Session, SessionExtractor,
    claim::{Aal, AalMet, FactorsMet},
    extract::StepUpRejection,
    guard::{RequireClaims, StepUp, SteppedUp},
    policy::Everyone,
    session::SessionDenied,
    store::{Batch, Commit, Op, Row, Store as _, Version},
};

use super::MODES;
use crate::{
    spy::{ALICE, Log, bare, everyone, linking, problems, shop, signed_up},
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, send},
};

const AGE: Duration = Duration::from_secs(300);

/// A code by e-mail within five minutes.
struct FreshCode;

impl StepUp for FreshCode {
    fn rule() -> RequireFactors {
        RequireFactors::one_of([FactorId::OTP_EMAIL]).max_age(AGE)
    }
}

/// The factor that she signed in with, within five minutes.
struct FreshPassword;

impl StepUp for FreshPassword {
    fn rule() -> RequireFactors {
        RequireFactors::one_of([FactorId::PASSWORD]).max_age(AGE)
    }
}

/// The algebra: two of three, not over one channel, and not all of them stale.
struct Several;

impl StepUp for Several {
    fn rule() -> RequireFactors {
        let two = Requirement::k_of(2, [FactorId::PASSWORD, FactorId::OTP_EMAIL, FactorId::LINK_EMAIL]);
        RequireFactors::all_of([two.distinct_channels(), Requirement::from(FactorId::OTP_EMAIL).max_age(AGE)])
    }
}

/// What nobody can do.
struct Never;

impl StepUp for Never {
    fn rule() -> RequireFactors {
        RequireFactors::list(Requirement::from(FactorId::PASSWORD).phishing_resistant())
    }
}

struct Level;

impl StepUp for Level {
    fn rule() -> RequireFactors {
        RequireFactors::aal2()
    }
}

/// Only who holds the proof can call this.
fn pay<R: StepUp>(proof: &SteppedUp<R>) -> String {
    proof.user_id().to_string()
}

async fn argument<R: StepUp>(proof: SteppedUp<R>) -> String {
    pay(&proof)
}

/// Both forms of one rule, under the same name.
pub fn both<R: StepUp>(router: Router, name: &str) -> Router {
    let layered = get(|session: SessionExtractor| async move { session.user_id().to_string() });
    router
        .route(&format!("/layer/{name}"), layered.route_layer(RequireFactors::step_up::<R>()))
        .route(&format!("/argument/{name}"), get(argument::<R>))
}

pub fn guarded() -> Router {
    let router = both::<FreshCode>(Router::new(), "code");
    let router = both::<FreshPassword>(router, "password");
    let router = both::<Several>(router, "several");
    let router = both::<Never>(router, "never");
    both::<Level>(router, "level")
}

/// Asks the layer and the argument, which say the same.
pub async fn ask(router: &Router, browser: &Browser, name: &str) -> Answer {
    let layer = send(router, browser.request(Method::GET, &format!("/layer/{name}"), None)).await;
    let argument = send(router, browser.request(Method::GET, &format!("/argument/{name}"), None)).await;
    assert_eq!((layer.status, &layer.text), (argument.status, &argument.text), "{name}");
    assert_eq!(layer.headers, argument.headers, "{name}");
    argument
}

#[tokio::test]
async fn sec_p13_an_age_ends_to_the_millisecond_and_costs_no_store_call() {
    for mode in MODES {
        let app = TestApp::new().await;
        let router = guarded().layer(MfaLayer::required(app.mfa.clone()));
        let mut alice = signed_up(&app, mode, ALICE).await;
        let user = app.user(ALICE).await.to_string();
        let calls = app.store.calls();

        // Never done.
        let missing = ask(&router, &alice, "code").await;
        missing.is(403);
        assert_eq!((&missing.body["next"], missing.body.get("expired")), (&json!(["otp-email"]), None));
        assert_eq!(missing.body["max_age"], 300);
        assert_eq!(app.store.calls(), calls, "a refusal asks nobody");

        alice.pass_code(ALICE).await;
        let calls = app.store.calls();
        // The stamp is in whole seconds, the clock at one.
        for (step, passes) in
            [(0, true), (299_999, true), (1, true), (1, false), (3_000_000 - 300_001, false)]
        {
            app.clock.advance(Duration::from_millis(step));
            for name in ["code", "several"] {
                let answer = ask(&router, &alice, name).await;
                match passes {
                    true => assert_eq!((answer.status.as_u16(), &answer.text), (200, &user)),
                    // Done, too long ago: the same step, and said to be expired.
                    false => {
                        answer.is(403);
                        assert_eq!(answer.body["next"], json!(["otp-email"]), "{name}");
                        assert_eq!(answer.body["expired"], json!(["otp-email"]), "{name}");
                        assert_eq!(answer.body["max_age"], 300, "{name}");
                    }
                }
            }
            if step == 1 && !passes {
                assert_eq!(app.store.calls(), calls, "neither passing nor refusing asks anybody");
            }
        }
    }
}

#[tokio::test]
async fn sec_p13_the_first_factors_age_can_be_asked_for() {
    let app = TestApp::new().await;
    let router = guarded().layer(MfaLayer::required(app.mfa.clone()));
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    ask(&router, &alice, "password").await.is(200);
    app.clock.advance(AGE + Duration::from_millis(1));
    let late = ask(&router, &alice, "password").await;
    late.is(403);
    assert_eq!(
        (&late.body["next"], &late.body["expired"]),
        (&json!(["emailpassword"]), &json!(["emailpassword"]))
    );
    alice.post("/auth/signin", linking(credentials(ALICE, PASSWORD)).unwrap()).await.ok();
    ask(&router, &alice, "password").await.is(200);
}

#[tokio::test]
async fn refusals_hold_the_wires_body_and_the_members_beside_it_in_one_object() {
    let app = TestApp::new().await;
    let router = guarded().layer(MfaLayer::required(app.mfa.clone()));
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let refused = ask(&router, &alice, "code").await;
    assert_eq!(
        refused.body,
        json!({
            "message": "invalid claim",
            "claimValidationErrors": [{
                "id": "st-mfa",
                "reason": {
                    "message": "Factor validation failed: otp-email not completed",
                    "factorId": "otp-email",
                },
            }],
            "type": "urn:tower-mfa:invalid-claim",
            "title": "The session lacks what is asked here",
            "status": 403,
            "detail": "needed next: a code by e-mail, at most 5 minutes old",
            "next": ["otp-email"],
            "max_age": 300,
        })
    );
    assert_eq!(refused.headers["content-type"], "application/json");
    assert_eq!(refused.headers["cache-control"], "no-store");
    assert!(refused.cookies().is_empty() && !refused.headers.contains_key("www-authenticate"));
    // What nobody can do is said (row P11).
    let never = ask(&router, &alice, "never").await;
    assert_eq!((never.status.as_u16(), &never.body["next"]), (403, &json!([])));
}

#[tokio::test]
async fn sec_m01_m14_a_proof_without_the_layer_is_500_and_without_a_session_401() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let (log, _guard) = Log::start();
    for request in [bare("GET", "/argument/password"), alice.request(Method::GET, "/argument/password", None)]
    {
        let answer = send(&guarded(), request).await;
        answer.is(500);
        assert_eq!(answer.body["message"], "internal error");
    }
    log.has("ERROR", "MfaLayer");
    let optional = guarded().layer(MfaLayer::optional(app.mfa.clone()));
    for path in ["/argument/password", "/layer/password"] {
        let answer = send(&optional, bare("GET", path)).await;
        assert_eq!((answer.status.as_u16(), &answer.body["message"]), (401, &json!("unauthorised")));
    }
    ask(&optional, &alice, "password").await.is(200);
    // A handler that looks at the refusal says so, and sees why.
    async fn looks(proof: Result<SteppedUp<FreshCode>, StepUpRejection>) -> String {
        match proof {
            Ok(proof) => pay(&proof),
            Err(refused) => format!("{refused}: {}", refused.denied().is_some()),
        }
    }
    let bare_router: Router = Router::new().route("/", get(looks));
    let told = send(&bare_router, bare("GET", "/")).await.text;
    assert_eq!(told, "SteppedUp without MfaLayer around it: add .layer(MfaLayer::required(mfa)): false");
    let router = bare_router.clone().layer(MfaLayer::optional(app.mfa.clone()));
    assert_eq!(send(&router, bare("GET", "/")).await.text, "there is no session: true");
    let answer = send(&router, alice.request(Method::GET, "/", None)).await;
    assert_eq!(answer.text, "the session lacks what is asked here: true");
}

/// A factor that isn't installed, alone and beside one that is.
struct Missing;

impl StepUp for Missing {
    fn rule() -> RequireFactors {
        RequireFactors::one_of([FactorId::TOTP])
    }
}

struct Either;

impl StepUp for Either {
    fn rule() -> RequireFactors {
        RequireFactors::one_of([FactorId::TOTP, FactorId::OTP_EMAIL])
    }
}

#[tokio::test]
async fn sec_p11_a_guard_names_only_what_can_be_completed_and_the_log_says_what_cannot() {
    let (log, _guard) = Log::start();
    let app = TestApp::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let mount = || MfaLayer::required(app.mfa.clone()).without_mfa().bearer_challenges();
    let routes = both::<Either>(both::<Missing>(Router::new(), "missing"), "either");
    let claims = RequireClaims::new([Arc::new(FactorsMet::new(FactorId::TOTP))]);
    let routes = routes.route("/claims", get(|| async {}).route_layer(claims));
    let mounted = Router::new().route("/", get(|| async {}));
    let mounted = mounted.layer(mount().validate(FactorsMet::new(FactorId::TOTP)));
    assert_eq!(log.lines("ERROR", "a mount demands what nobody can complete").len(), 1);
    log.has("ERROR", "totp; totp isn't installed");
    let router = routes.layer(mount());
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    for half in [true, false] {
        let hopeless = [
            ask(&router, &alice, "missing").await,
            send(&router, alice.request(Method::GET, "/claims", None)).await,
            send(&mounted, alice.request(Method::GET, "/", None)).await,
        ];
        for refused in hopeless {
            // No challenge either: nothing that the client could do would help.
            refused.is(403);
            assert!(!refused.headers.contains_key("www-authenticate"));
            let reason = &refused.body["claimValidationErrors"][0]["reason"];
            assert_eq!(reason["factorId"], "totp");
            let said = reason["message"].as_str().unwrap();
            assert!(said.contains("can't be satisfied"), "{said}");
            let next = if half { json!(["otp-email"]) } else { json!([]) };
            assert_eq!(refused.body["next"], next);
        }
        if half {
            let refused = ask(&router, &alice, "either").await;
            refused.is(401);
            assert_eq!(refused.body["next"], json!(["otp-email"]));
            let reason = &refused.body["claimValidationErrors"][0]["reason"];
            assert_eq!(reason["oneOf"], json!(["otp-email"]));
            alice.pass_code(ALICE).await;
        } else {
            ask(&router, &alice, "either").await.is(200);
        }
    }
    // Once for each demand, however often and in whatever form it is made.
    let told = log.lines("ERROR", "a guard demands what nobody can complete");
    assert_eq!(told.len(), 2, "{told:?}");
    log.has("ERROR", "one of (totp, otp-email); totp isn't installed");
}

#[test]
fn sec_p10_a_global_validator_that_nobody_can_satisfy_is_told_at_the_start() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let said = |validator: FactorsMet| problems(shop(), |b| b.validator(validator));
    let odd = FactorId::parse("otp_email").unwrap();
    for (list, problem) in [
        (Requirement::from(FactorId::TOTP), Some("totp isn't installed")),
        (Requirement::one_of([FactorId::OTP_EMAIL, odd]), Some("otp_email isn't installed")),
        (
            Requirement::from(FactorId::OTP_EMAIL).phishing_resistant(),
            Some("otp-email, if it can't be phished"),
        ),
        (Requirement::from(FactorId::OTP_EMAIL), None),
    ] {
        let said = said(FactorsMet::new(list));
        assert_eq!(said.len(), usize::from(problem.is_some()), "{said:?}");
        assert!(said.iter().all(|said| said.contains(problem.unwrap())), "{said:?}");
    }
    let levels = problems(shop(), |b| b.validator(AalMet::two()));
    assert_eq!(levels.len(), 1, "{levels:?}");
    assert_eq!(problems(shop(), |b| b.custom_factor(FactorId::TOTP).validator(AalMet::two())), [""; 0]);
}

/// Row F07's refusal in a session that lacks nothing else.
#[tokio::test]
async fn sec_f07_who_must_prove_a_factor_again_is_told_which() {
    for mode in MODES {
        let app = TestApp::new().await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        app.clock.advance(AGE + Duration::from_secs(1));
        let enrol = linking(json!({ "email": ALICE })).unwrap();
        let refused = alice.post("/auth/signinup/code", enrol.clone()).await;
        refused.is(403);
        let errors = &refused.body["claimValidationErrors"];
        assert_eq!(errors, &json!([{ "id": "st-mfa", "reason": "step_up_required" }]));
        assert_eq!(refused.body["next"], json!(["emailpassword"]));
        assert_eq!(refused.body["expired"], json!(["emailpassword"]));
        assert_eq!(refused.body["max_age"], 300);
        // And that helps.
        alice.post("/auth/signin", linking(credentials(ALICE, PASSWORD)).unwrap()).await.ok();
        alice.post("/auth/signinup/code", enrol).await.ok();
    }
}

#[tokio::test]
async fn a_half_signed_in_session_is_told_the_policys_next_step_by_every_guard() {
    let app = everyone().await;
    let router = guarded().layer(MfaLayer::required(app.mfa.clone()).without_mfa());
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    app.clock.advance(AGE + Duration::from_secs(1));
    let next = alice.info().await.ok()["factors"]["next"].clone();
    assert_eq!(next, json!(["otp-email"]));
    for name in ["code", "password", "several", "level"] {
        let refused = ask(&router, &alice, name).await;
        refused.is(403);
        assert_eq!(refused.body["next"], next, "{name}");
    }
    assert_eq!(alice.get("/api/me").await.body["next"], next);
    // The reason stays the guard's own.
    let refused = ask(&router, &alice, "password").await;
    assert_eq!(refused.body["claimValidationErrors"][0]["reason"]["factorId"], "emailpassword");
    // Once that is done, a guard names what it wants.
    alice.pass_code(ALICE).await;
    assert_eq!(ask(&router, &alice, "password").await.body["next"], json!(["emailpassword"]));
    ask(&router, &alice, "code").await.is(200);

    // Where the policy asks for the impossible, nothing helps, whatever a guard wants (row P11).
    let never = Requirement::from(FactorId::PASSWORD).excluding_first_factor();
    let app = TestApp::with(|b| b.policy(crate::requirements::own(json!([never.to_json()])))).await;
    let router = guarded().layer(MfaLayer::required(app.mfa.clone()).without_mfa());
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    assert_eq!(alice.info().await.ok()["factors"]["next"], json!([]));
    assert_eq!(ask(&router, &alice, "code").await.body["next"], json!([]));
}

#[tokio::test]
async fn services_without_axum_ask_for_the_proof_themselves() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let service =
        MfaLayer::required(app.mfa.clone()).layer(service_fn(|request: Request<Body>| async move {
            let session = Session::from_extensions(request.extensions()).unwrap();
            let text = match SteppedUp::<FreshCode>::of(&session) {
                Ok(proof) => pay(&proof),
                Err(SessionDenied::InvalidClaims(lacks)) => {
                    format!("{:?}", lacks[0].next.as_ref().unwrap().factors)
                }
                Err(_) => "?".to_owned(),
            };
            Ok::<_, Infallible>(Response::new(Body::from(text)))
        }));
    assert_eq!(send(&service, alice.request(Method::GET, "/", None)).await.text, r#"["otp-email"]"#);
    alice.pass_code(ALICE).await;
    let proven = send(&service, alice.request(Method::GET, "/", None)).await.text;
    assert_eq!(proven, app.user(ALICE).await.to_string());
}

#[tokio::test]
async fn sec_p09_a_guard_that_demands_nothing_is_warned_about() {
    let (log, _guard) = Log::start();
    let nothing = RequireFactors::one_of(<[FactorId; 0]>::default());
    let _service = nothing.layer(Router::<()>::new());
    log.has("WARN", "demands nothing");
    let _service = RequireFactors::aal2().layer(Router::<()>::new());
    assert!(log.lines("WARN", "demands nothing").len() <= 1);
}

/// What a handler reads of the level.
async fn level(session: SessionExtractor) -> Json<Value> {
    Json(
        json!({ "aal": session.aal().map(|level| level.to_string()), "acr": session.acr(), "amr": session.amr() }),
    )
}

/// Another writer's hand: the one session completed these factors, so many seconds ago, in this order.
async fn completed(app: &TestApp, alice: &mut Browser, factors: &[(&str, i64)]) {
    let (key, row) = app.store.sessions().await.into_iter().next().unwrap();
    let mut body = row.body.clone();
    let now = crate::support::START;
    let stamps = factors.iter().map(|(factor, ago)| ((*factor).to_owned(), json!(now - ago)));
    body["payload"]["st-mfa"]["c"] = Value::Object(stamps.collect());
    let row = Row { version: Version::random().unwrap(), expires_at: row.expires_at, body };
    let mut batch = Batch::new();
    batch.push(key, Op::Upsert(row));
    assert_eq!(app.store.commit(batch).await.unwrap(), Commit::Applied);
    app.mfa.users().judge_anew(&app.user(ALICE).await).await.unwrap();
    alice.get("/api/half").await.is(200);
}

#[tokio::test]
async fn sec_o37_levels_are_worked_out_of_the_factors_and_e_mail_counts_for_none() {
    let app = TestApp::new().await;
    let router = guarded().route("/level", get(level)).layer(MfaLayer::required(app.mfa.clone()));
    let strict: Router = Router::new()
        .route("/", get(|| async {}))
        .layer(MfaLayer::required(app.mfa.clone()).validate(AalMet::two().max_age(AGE)));
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    alice.pass_code(ALICE).await;
    let calls = app.store.calls();
    let read = send(&router, alice.request(Method::GET, "/level", None)).await;
    assert_eq!(read.body, json!({ "aal": "AAL1", "acr": "urn:tower-mfa:aal1", "amr": ["pwd"] }));
    let refused = ask(&router, &alice, "level").await;
    refused.is(403);
    // Nobody can reach that level here, and nobody is told to.
    assert_eq!(refused.body["next"], json!([]));
    assert_eq!(app.store.calls(), calls);

    for (factors, aal, amr, passes, fresh) in [
        (&[("otp-email", 9)][..], None, json!([]), false, false),
        (&[("otp-email", 9), ("totp", 1)], Some(Aal::One), json!(["otp"]), false, false),
        (&[("emailpassword", 9), ("otp-email", 5)], Some(Aal::One), json!(["pwd"]), false, false),
        (&[("emailpassword", 9), ("totp", 1)], Some(Aal::Two), json!(["pwd", "otp", "mfa"]), true, true),
        (&[("emailpassword", 301), ("totp", 1)], Some(Aal::Two), json!(["pwd", "otp", "mfa"]), true, false),
        (&[("otp-email", 9), ("webauthn", 1)], Some(Aal::One), json!(["pop", "user"]), false, false),
        (&[("webauthn", 9)], Some(Aal::Two), json!(["pop", "user", "mfa"]), true, true),
        (&[("emailpassword", 9), ("otp-phone", 1)], Some(Aal::Two), json!(["pwd", "sms", "mfa"]), true, true),
    ] {
        completed(&app, &mut alice, factors).await;
        let calls = app.store.calls();
        let read = send(&router, alice.request(Method::GET, "/level", None)).await;
        let expected = json!({
            "aal": aal.map(|level| level.to_string()), "acr": aal.map(|level| level.acr()), "amr": amr,
        });
        assert_eq!(read.body, expected, "{factors:?}");
        assert_eq!(ask(&router, &alice, "level").await.status == 200, passes, "{factors:?}");
        let mounted = send(&strict, alice.request(Method::GET, "/", None)).await;
        assert_eq!(mounted.status == 200, fresh, "{factors:?} {}", mounted.text);
        assert_eq!(app.store.calls(), calls, "{factors:?}");
    }
}

#[tokio::test]
async fn a_level_and_a_policy_are_two_things() {
    let app = TestApp::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let router = guarded().layer(MfaLayer::required(app.mfa.clone()));
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    alice.pass_code(ALICE).await;
    // Fully signed in by the app's policy, and not at that level.
    alice.get("/api/me").await.is(200);
    ask(&router, &alice, "level").await.is(403);
}
