//! Vectors about a session's user: the claim of a session that has none, what of the factors is set up, where
//! codes may go, and what `/mfa/info` answers. The rules are pure, so login methods and authenticator apps are
//! data, of whatever kind. What has no value to give a rule, a user who is gone, is asked over HTTP.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tower_mfa::{
    ClaimValidator as _, FactorId, MfaPolicy as _, PolicyContext, Requirements,
    account::{LoginKind, LoginMethod, User},
    claim::{MfaClaim, MfaSatisfied},
    factor::{Device, Enrolled, Factors, Overview},
    ident::{Email, LoginId, Phone, TenantId, Timestamp, UserId},
    policy::{FirstFactors, FixedFacts, State, UserOrTenant},
    store::{Batch, Commit, Key, Op, Row, Store as _, Version},
};

use super::{CLAIM, NOW, array, claim, each, factor, ids, in_seconds, list, offered, payload, verdict};
use crate::{
    requirements::own,
    support::{Answer, Browser, Mode, START, TestApp},
};

const ALICE: &str = "alice@shop.example";
const INFO: &str = "/auth/mfa/info";

#[test]
fn missing_claim() {
    each("missing_claim", |case| {
        let (input, expected) = (&case["input"], &case["expected"]);
        let validator = input["via"] == "validator";
        let path = if validator { "/api/me" } else { INFO };
        let gone = what_is_gone(input);
        if let Some(gone) = gone {
            return block_on(over(path, gone, expected));
        }
        let made_at = Timestamp::from_millis(input["sessionTimeCreatedMs"].as_i64().unwrap());
        let (user, tenant) =
            (user(&input["users"][0]), &input["tenants"][text(&input["session"]["tenantId"])]);
        let listed = |value: &Value| value.is_array().then(|| ids(value));
        let first = FirstFactors::new(
            &array(&input["recipes"]).flat_map(offered).collect::<Vec<_>>(),
            listed(&input["staticFirstFactors"]).as_deref(),
            listed(&tenant["firstFactors"]).as_deref(),
        );
        let before = payload(json!({}));
        assert!(MfaSatisfied::new().refetch(&before, NOW).is_some_and(|claim| claim.key() == CLAIM));
        assert_eq!(verdict(&MfaSatisfied::new(), &before)["isValid"], false);

        let login = login(&input["session"]["recipeUserId"]);
        let Some(mut claim) = MfaClaim::derive(&user, &login, &first, made_at) else {
            assert_eq!(expected["errorType"], "UNAUTHORISED");
            // Not allowed to start a session here, or somebody else's by now: over HTTP with our factors.
            let gone = if user.login(&login).is_some() { Gone::FirstFactor } else { Gone::Login };
            return block_on(over(path, gone, expected));
        };
        claim.evaluate(&list(&input["requirements"]), NOW);
        assert_eq!(claim.to_json(), expected["claimAfterSeconds"]);
        assert_eq!(claim.to_json(), in_seconds(case, &expected["claimAfter"]));
        let verdict = verdict(&MfaSatisfied::new(), &payload(json!({ CLAIM: claim.to_json() })));
        assert_eq!(verdict["isValid"], claim.v);
        if validator {
            assert_eq!(expected["ok"], claim.v);
            if !claim.v {
                let errors = json!([{ "id": CLAIM, "reason": verdict["reason"] }]);
                assert_eq!(errors, expected["claimValidationErrors"]);
            }
        }
        // The same over HTTP, where the session is one that we can make.
        let ours = claim.c.contains(&FactorId::PASSWORD) && input["staticFirstFactors"].is_null();
        if ours && *tenant == json!({}) {
            block_on(derived_over(path, list(&input["requirements"]), expected));
        }
    });
}

/// A session without its claim gets it with the next request to `path`.
async fn derived_over(path: &str, list: Requirements, expected: &Value) {
    // What we have in the place of an authenticator app is a code by e-mail.
    let list = list.to_json().to_string().replace("totp", "otp-email");
    let app = TestApp::with(|b| b.policy(own(serde_json::from_str(&list).unwrap()))).await;
    let mut alice = app.browser(Mode::Cookie);
    alice.sign_up(ALICE).await.ok();
    without_claim(&app).await;
    // It is stamped with the session's making, whenever it is asked for.
    app.clock.advance(Duration::from_secs(100));
    let mut claim = expected["claimAfterSeconds"].clone();
    claim["c"]["emailpassword"] = json!(START);
    let answer = ask(&mut alice, path).await;
    assert_eq!(alice.claim(), claim);
    // What goes into the token goes into the row as well.
    let row = app.store.sessions().await.into_values().next().unwrap();
    assert_eq!(row.body["payload"][CLAIM], claim);
    match expected.get("httpStatus").and_then(Value::as_u64) {
        None => answer.is(200),
        Some(status) => answer.is(status as u16),
    };
    for (name, value) in expected["body"].as_object().into_iter().flatten() {
        assert_eq!(answer.body[name], *value);
    }
}

/// What a session needs and is not there.
#[derive(Clone, Copy)]
enum Gone {
    User,
    Tenant,
    Session,
    Login,
    FirstFactor,
}

fn what_is_gone(input: &Value) -> Option<Gone> {
    let tenant = text(&input["session"]["tenantId"]);
    match () {
        () if input["users"].get(0).is_none() => Some(Gone::User),
        () if input["sessionTimeCreatedMs"].is_null() => Some(Gone::Session),
        () if input["tenants"].get(tenant).is_none() => Some(Gone::Tenant),
        () => None,
    }
}

/// Something that a session needs is gone behind its back: the session is over.
async fn over(path: &str, gone: Gone, expected: &Value) {
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Cookie);
    alice.by_code(ALICE).await;
    let id = app.user(ALICE).await;
    let public = TenantId::PUBLIC;
    without_claim(&app).await;
    match gone {
        Gone::User => change(&app, Key::new(["user", id.as_str()]), |_| None).await,
        Gone::Tenant => change(&app, Key::new(["tenant", public.as_str()]), |_| None).await,
        Gone::Session => {
            let (key, _) = app.store.sessions().await.into_iter().next().unwrap();
            change(&app, key, |_| None).await;
        }
        Gone::Login => {
            let other = |mut user: Value| {
                user["logins"][0]["id"] = json!("another");
                Some(user)
            };
            change(&app, Key::new(["user", id.as_str()]), other).await;
        }
        Gone::FirstFactor => {
            app.mfa.tenants().set_first_factors(&public, Some(vec![FactorId::PASSWORD])).await.unwrap();
        }
    }
    let answer = ask(&mut alice, path).await;
    assert_eq!(u64::from(answer.status.as_u16()), expected["httpStatus"]);
    assert_eq!(answer.body["message"], "unauthorised");
}

async fn ask(alice: &mut Browser, path: &str) -> Answer {
    if path == INFO { alice.info().await } else { alice.get(path).await }
}

/// The one session loses its claim, as if it were from before the claim was there.
async fn without_claim(app: &TestApp) {
    let (key, _) = app.store.sessions().await.into_iter().next().unwrap();
    change(app, key, |mut row| {
        row["payload"].as_object_mut().unwrap().remove(CLAIM).expect("a claim");
        Some(row)
    })
    .await;
    // So that what the token says isn't believed.
    app.mfa.users().judge_anew(&app.user(ALICE).await).await.unwrap();
}

/// Another writer's hand in the store.
pub(super) async fn change(app: &TestApp, key: Key, change: impl FnOnce(Value) -> Option<Value>) {
    let row = app.store.get(std::slice::from_ref(&key)).await.unwrap().remove(0).expect("a record");
    let mut batch = Batch::new();
    batch.push(
        key,
        match change(row.body) {
            Some(body) => {
                Op::Upsert(Row { version: Version::random().unwrap(), expires_at: row.expires_at, body })
            }
            None => Op::Remove,
        },
    );
    assert_eq!(app.store.commit(batch).await.unwrap(), Commit::Applied);
}

#[test]
fn factors_set_up() {
    each("factors_set_up", |case| {
        let input = &case["input"];
        let (factors, user, devices) =
            (factors(&input["recipes"]), user(&input["user"]), devices(&input["totpDevices"]));
        let set_up = factors.set_up(Enrolled { user: &user, devices: &devices });
        assert_eq!(texts(&set_up), case["expected"]["factors"]);
        assert_eq!(texts(&factors.available()), case["expected"]["available"]);
    });
}

#[test]
fn contacts() {
    each("contacts", |case| {
        let (input, expected) = (&case["input"], &case["expected"]);
        let login = login(&input["sessionRecipeUserId"]);
        let contacts = factors(&input["recipes"]).contacts(&user(&input["user"]), &login);
        assert_eq!(contacts.is_none(), expected["unknownSessionLoginMethod"]);
        match contacts {
            None => assert!(expected["emails"].is_null() && expected["phoneNumbers"].is_null()),
            Some(contacts) => {
                assert_eq!(listed(&contacts.emails, Email::as_str), expected["emails"]);
                assert_eq!(listed(&contacts.phones, Phone::as_str), expected["phoneNumbers"]);
            }
        }
    });
}

#[test]
fn mfa_info() {
    each("mfa_info", |case| {
        let (input, expected) = (&case["input"], &case["expected"]);
        let status = expected["httpStatus"].as_u64().unwrap();
        if input["user"].is_null() {
            return block_on(over(INFO, Gone::User, expected));
        }
        if input["session"]["tenantId"] != "public" {
            return block_on(over(INFO, Gone::Tenant, expected));
        }
        let (factors, user, devices) =
            (factors(&input["recipes"]), user(&input["user"]), devices(&input["totpDevices"]));
        let login = login(&input["session"]["recipeUserId"]);
        let list = match input["requirements"].is_null() {
            false => list(&input["requirements"]),
            true => by_default(input),
        };
        let first =
            FirstFactors::new(&array(&input["recipes"]).flat_map(offered).collect::<Vec<_>>(), None, None);
        let made_at = Timestamp::from_millis(1_702_870_000_123);
        let derived = || MfaClaim::derive(&user, &login, &first, made_at).expect("a first factor");
        let mut claim = claim(&input["claim"]).unwrap_or_else(derived);
        let enrolled = Enrolled { user: &user, devices: &devices };
        if status == 401 {
            assert!(factors.overview(enrolled, &login, &claim, &list, NOW).is_none());
            return block_on(over(INFO, Gone::Login, expected));
        }
        claim.evaluate(&list, NOW);
        assert_eq!(claim.to_json(), in_seconds(case, &expected["claimAfter"]));
        let overview =
            factors.overview(enrolled, &login, &claim, &list, NOW).expect("the user's own session");
        let impossible = status == 500 || case["divergence"] == "unsatisfiable";
        if impossible {
            return nobody_can(&overview, &list, &factors);
        }
        let body = &expected["body"];
        assert_eq!(
            json!({
                "next": texts(&overview.next),
                "alreadySetup": texts(&overview.set_up),
                "allowedToSetup": texts(&overview.allowed),
            }),
            body["factors"]
        );
        let contacts = factors.contacts(&user, &login).unwrap();
        assert_eq!(listed(&contacts.emails, Email::as_str), body["emails"]);
        assert_eq!(listed(&contacts.phones, Phone::as_str), body["phoneNumbers"]);
        let own = user.login(&login).unwrap();
        let (email, phone) = (own.email.as_ref().map(Email::as_str), own.phone.as_ref().map(Phone::as_str));
        assert_eq!(map(&overview.emails), shown(body, &body["emails"], claim.v, email));
        assert_eq!(map(&overview.phones), shown(body, &body["phoneNumbers"], claim.v, phone));
    });
}

/// Row P11: no step is named, not even one that leads on as far as that goes, and it is said which factors
/// are in the way.
fn nobody_can(overview: &Overview, list: &Requirements, factors: &Factors) {
    assert!(overview.next.is_empty() && overview.allowed.is_empty() && overview.explanation.is_impossible());
    let [item] = &overview.explanation.items[..] else { panic!("one item") };
    assert_eq!(item.state, State::Impossible);
    let stuck: Vec<FactorId> = match item.parts.is_empty() {
        true => item.factors.clone(),
        false => {
            let parts = item.parts.iter().filter(|part| part.state == State::Impossible);
            parts.flat_map(|part| part.factors.clone()).collect()
        }
    };
    let usable = factors.usable();
    let unusable: Vec<FactorId> =
        list.factors().into_iter().filter(|factor| !usable.contains(factor)).cloned().collect();
    assert_eq!(stuck, unusable);
}

/// What the default policy demands of the case's user.
fn by_default(input: &Value) -> Requirements {
    use futures_util::FutureExt as _;
    let facts = FixedFacts::new("u1")
        .required_for_user(ids(&input["requiredForUser"]))
        .required_for_tenant(ids(&input["tenant"]["requiredSecondaryFactors"]));
    let context = PolicyContext::fixed(facts);
    UserOrTenant::new().requirements(&context).now_or_never().expect("nothing to wait for").unwrap()
}

/// Row P18, and decision 15 of the house: until the requirements are met only contacts of what is next are
/// shown, and those that the person didn't type in masked.
fn shown(body: &Value, contacts: &Value, met: bool, typed: Option<&str>) -> Value {
    if met {
        return contacts.clone();
    }
    let (next, has) = (ids(&body["factors"]["next"]), ids(&body["factors"]["alreadySetup"]));
    let enrolling = !next.iter().any(|factor| has.contains(factor));
    let masked = |contact: &Value| {
        let contact = text(contact);
        json!(match typed == Some(contact) {
            true => contact.to_owned(),
            false => tower_mfa::ident::Contact::parse(contact).unwrap().masked(),
        })
    };
    let listed = |(id, listed): (&String, &Value)| {
        let factor = factor(&json!(id));
        let wanted = next.contains(&factor) && (enrolling || has.contains(&factor));
        (id.clone(), array(listed).filter(|_| wanted).map(masked).collect::<Value>())
    };
    contacts.as_object().unwrap().iter().map(listed).collect::<Map<_, _>>().into()
}

fn factors(recipes: &Value) -> Factors {
    let ids = |recipe: &Value| match recipe["id"] == "totp" {
        true => vec![FactorId::TOTP],
        false => offered(recipe),
    };
    Factors::new(array(recipes).flat_map(ids))
}

fn user(value: &Value) -> User {
    let logins = array(&value["loginMethods"]).map(|method| {
        let kind = match text(&method["recipeId"]) {
            "emailpassword" => LoginKind::EmailPassword,
            "thirdparty" => LoginKind::ThirdParty,
            "passwordless" => LoginKind::Passwordless,
            "webauthn" => LoginKind::WebAuthn,
            other => panic!("no login method {other}"),
        };
        let joined_at = Timestamp::from_millis(method["timeJoined"].as_i64().unwrap());
        let mut login = LoginMethod::new(login(&method["recipeUserId"]), kind, joined_at);
        login.tenants = array(&method["tenantIds"]).map(|id| TenantId::parse(text(id)).unwrap()).collect();
        login.verified = method["verified"].as_bool().unwrap();
        login.email = method["email"].as_str().map(|email| Email::parse(email).unwrap());
        login.phone = method["phoneNumber"].as_str().map(|phone| Phone::parse(phone).unwrap());
        login
    });
    User::new(UserId::parse(text(&value["id"])).unwrap(), logins.collect())
}

fn login(value: &Value) -> LoginId {
    LoginId::parse(text(value)).unwrap()
}

fn devices(value: &Value) -> Vec<Device> {
    array(value).map(|device| Device::new(text(&device["name"]), device["verified"] == true)).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn texts(ids: &[FactorId]) -> Value {
    ids.iter().map(FactorId::as_str).collect()
}

fn listed<T>(contacts: &[(FactorId, Vec<T>)], text: fn(&T) -> &str) -> Value {
    let entry = |(id, listed): &(FactorId, Vec<T>)| (id.to_string(), listed.iter().map(text).collect());
    contacts.iter().map(entry).collect::<Map<_, _>>().into()
}

fn map(contacts: &[(FactorId, Vec<String>)]) -> Value {
    listed(contacts, String::as_str)
}

pub(super) fn block_on<T>(asked: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(asked)
}
