//! Vectors about one attempt to prove something, within a session or without: whether it joins the session's user, what
//! becomes of the session, and which conflict is told. Over HTTP; who is there before, another writer puts into the
//! store.
//!
//! What we decided otherwise is listed by case in [`OURS`].

use serde_json::{Value, json};
use tower_mfa::{
    FactorId,
    config::{Countries, FactorChanges, Passwordless},
    ident::{Email, Phone, TenantId, UserId},
    policy::{Link, LinkContext, LinkPolicy, PolicyError},
    store::{Batch, Commit, Key, Op, Row, Store as _, Version},
};

use super::{
    CLAIM, array, cases, each, ids,
    session::{block_on, change},
};
use crate::{
    requirements::own,
    spy::handle,
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials},
};

const PUBLIC: TenantId = TenantId::PUBLIC;
const SET_UP: &str = "Completed factors in the session does not satisfy the MFA requirements for auth";
const NOT_NEXT: &str = "Not allowed to setup factor that is not in the next set of unsatisfied factors";

/// What comes out in the place of what the vector says.
enum Ours {
    /// 403 for `st-mfa`, with this reason.
    Refused(&'static str),
    /// As the vector says, but for the claim.
    Claim(Value),
    /// The session's user has the new login method, too.
    Linked,
    /// A session of its own, as without the flag.
    FirstFactor,
}

/// The cases that we decided otherwise, and why.
fn ours(case: &str) -> Option<Ours> {
    let with_code = json!({ "c": { "emailpassword": 1_702_877_939, "otp-email": 1_702_877_939 }, "v": true });
    Some(match case {
        // Row O14: who has a number gets no other one, whatever was completed.
        "mallory when nothing is required for alice although she has a phone: allowed to add" => {
            Ours::Refused(SET_UP)
        }
        // The tag `stale-v`: `v` is judged anew first.
        "mallory with a stale v true: allowed on this path" => Ours::Refused(SET_UP),
        // Row P20: half a session completes what is asked for now, and nothing else.
        "completion of a linked factor that is not required" => Ours::Refused(NOT_NEXT),
        // A rule is always there: second factors are linked unless the app says otherwise (`spec/wire.md` §6.5).
        "linking not configured, client insists: error" => Ours::Linked,
        "linking not configured, client silent, mfa on: error" => Ours::FirstFactor,
        // Whether anything is required or not, what was completed is written down.
        "linking not configured, client silent, mfa off: first factor" => {
            Ours::Claim(json!({ "c": { "otp-email": 1_702_877_939 }, "v": true }))
        }
        "mfa off, linking on: any method may be linked" => Ours::Claim(with_code),
        _ => return None,
    })
}

/// The application's answers.
struct Answers(Value);

impl LinkPolicy for Answers {
    async fn decide(&self, ctx: &LinkContext<'_>) -> Result<Link, PolicyError> {
        let what = match (ctx.session_user, ctx.joins) {
            (Some(_), None) => "makeSessionUserPrimary",
            (Some(user), Some(joins)) if user.id == joins.id => "linkToSessionUser",
            _ => "otherwise",
        };
        Ok(match self.0[what].as_str().unwrap() {
            "always" => Link::Yes,
            "if-verified" => Link::IfVerified,
            "no" => Link::No,
            other => panic!("no answer {other}"),
        })
    }
}

#[test]
fn linking_and_session() {
    each("linking_and_session", |case| block_on(attempt(case)));
    let decided = cases("linking_and_session").iter().filter(|case| ours(name(case)).is_some()).count();
    assert_eq!(decided, 7, "each of ours is a case");
}

fn name(case: &Value) -> &str {
    case["name"].as_str().unwrap()
}

async fn attempt(case: &Value) {
    let (input, expected) = (&case["input"], &case["expected"]);
    let app = app(input).await;
    let mut client = app.browser(Mode::Header);
    let me = match &input["sessionUser"] {
        Value::Null => None,
        user => Some(session_user(&app, &mut client, user).await),
    };
    let mut others = Vec::new();
    for other in array(&input["otherUsers"]) {
        others.push(other_user(&app, other).await);
    }
    app.store.check_users().await;
    if let Some(me) = &me {
        session_claim(&app, me, input.get("claim")).await;
    }
    let before = me.as_ref().map(|_| handle(&client));
    let answer = authenticate(&app, &mut client, input).await;
    app.store.check_users().await;
    if let Some(me) = &me {
        let primary = app.mfa.users().load(me).await.unwrap().unwrap().primary;
        let linked = matches!(ours(name(case)), Some(Ours::Linked));
        assert_eq!(json!(primary || linked), expected["sessionUserIsPrimary"]);
    }
    let mut claim = expected.get("claimAfter").map(in_seconds);
    match ours(name(case)) {
        Some(Ours::Refused(reason)) => {
            answer.is(403);
            assert_eq!(answer.body["claimValidationErrors"], json!([{ "id": CLAIM, "reason": reason }]));
            return assert_eq!(Some(handle(&client)), before);
        }
        Some(Ours::Linked) => {
            assert_eq!(expected["error"]["httpStatus"], 500);
            let body = answer.ok();
            assert_eq!(body["user"]["id"], me.unwrap().as_str());
            assert_eq!(body["user"]["loginMethods"].as_array().unwrap().len(), 2);
            return assert_eq!(Some(handle(&client)), before);
        }
        Some(Ours::FirstFactor) => {
            assert_eq!(expected["error"]["httpStatus"], 500);
            assert_ne!(answer.ok()["user"]["id"], me.unwrap().as_str());
            return assert_ne!(Some(handle(&client)), before);
        }
        Some(Ours::Claim(ours)) => claim = Some(ours),
        None => {}
    }
    if let Some(error) = expected.get("error") {
        answer.is(error["httpStatus"].as_u64().unwrap() as u16);
        if let Some(errors) = error.get("claimValidationErrors") {
            assert_eq!(answer.body["claimValidationErrors"], *errors);
        }
        return goes_on(&mut client, before).await;
    }
    if let Some((status, code)) = refusal(input, expected) {
        answer.status(status);
        assert!(
            answer.body["reason"].as_str().unwrap().ends_with(&format!("(ERR_CODE_{code})")),
            "{code} {}",
            answer.text
        );
        return goes_on(&mut client, before).await;
    }
    let (body, link) = (answer.ok(), &expected["link"]);
    let user = body["user"]["id"].as_str().unwrap().to_owned();
    let known = match link["userId"].as_str().unwrap() {
        "session-user" => me.clone(),
        "new-user" => None,
        other => Some(others[other.strip_prefix("other-").unwrap().parse::<usize>().unwrap()].clone()),
    };
    match known {
        Some(known) => assert_eq!(user, known.as_str()),
        None => assert!(me.iter().chain(&others).all(|known| user != known.as_str())),
    }
    assert_eq!(body["user"]["isPrimaryUser"], link["isPrimaryUser"]);
    assert_eq!(json!(body["user"]["loginMethods"].as_array().unwrap().len()), link["loginMethods"]);
    let is = match (&before, handle(&client)) {
        (None, _) => "created",
        (Some(before), after) if *before == after => "kept",
        _ => "replaced",
    };
    assert_eq!(json!(is), expected["session"]);
    assert_eq!(Some(client.claim()), claim);
}

/// The expected claim: the tag `stamp-unit` is about the one stamp that was derived, in milliseconds.
fn in_seconds(claim: &Value) -> Value {
    let mut claim = claim.clone();
    for stamp in claim["c"].as_object_mut().into_iter().flat_map(|stamps| stamps.values_mut()) {
        let at = stamp.as_i64().unwrap();
        *stamp = json!(if at > 100_000_000_000 { at / 1000 } else { at });
    }
    claim
}

/// A refusal leaves the session what it was.
async fn goes_on(client: &mut Browser, before: Option<String>) {
    if let Some(before) = before {
        client.get("/api/half").await.is(200);
        assert_eq!(handle(client), before);
    }
}

/// Status and support code of a refusal (`spec/wire.md` §13).
fn refusal(input: &Value, expected: &Value) -> Option<(&'static str, &'static str)> {
    let password = input["authenticating"]["method"] == "emailpassword";
    let status = if password { "SIGN_UP_NOT_ALLOWED" } else { "SIGN_IN_UP_NOT_ALLOWED" };
    let step = if expected["preAuth"]["status"] == "OK" { &expected["link"] } else { &expected["preAuth"] };
    let (of_password, of_code) = match (step["status"].as_str().unwrap(), step["reason"].as_str()) {
        ("OK", _) => return None,
        ("SIGN_UP_NOT_ALLOWED", _) => ("007", "002"),
        (_, Some("EMAIL_VERIFICATION_REQUIRED")) => ("013", "never"),
        (_, Some("RECIPE_USER_ID_ALREADY_LINKED_WITH_ANOTHER_PRIMARY_USER_ID_ERROR")) => ("014", "017"),
        (_, Some("ACCOUNT_INFO_ALREADY_ASSOCIATED_WITH_ANOTHER_PRIMARY_USER_ID_ERROR")) => ("015", "018"),
        (_, Some("SESSION_USER_ACCOUNT_INFO_ALREADY_ASSOCIATED_WITH_ANOTHER_PRIMARY_USER_ID_ERROR")) => {
            ("016", "019")
        }
        other => panic!("no refusal {other:?}"),
    };
    Some((status, if password { of_password } else { of_code }))
}

async fn app(input: &Value) -> TestApp {
    // What we have in the place of an authenticator app is a code to a number.
    let list = input["requirements"].to_string().replace("totp", "otp-phone");
    let list = serde_json::from_str(&list).unwrap();
    let first = input["firstFactors"].is_array().then(|| ids(&input["firstFactors"]));
    TestApp::with(|b| {
        let b = b
            .passwordless(Passwordless::email_or_phone(Countries::all()))
            .policy(own(list))
            // As the other server has it: no fresh proof is asked for.
            .factor_changes(FactorChanges::Compat);
        let b = if input["linking"].is_null() { b } else { b.linking(Answers(input["linking"].clone())) };
        match first {
            Some(first) => b.first_factors(first),
            None => b,
        }
    })
    .await
}

/// Somebody with a password, signed in by it.
async fn session_user(app: &TestApp, client: &mut Browser, user: &Value) -> UserId {
    let address = user["email"].as_str().unwrap();
    client.sign_up(address).await.ok();
    let id = app.user(address).await;
    let users = app.mfa.users();
    if let Some(email) = user["linkedFactor"]["email"].as_str() {
        users.add_email(&id, &PUBLIC, &Email::parse(email).unwrap()).await.unwrap();
    }
    if let Some(phone) = user["linkedFactor"]["phoneNumber"].as_str() {
        users.add_phone(&id, &PUBLIC, &Phone::parse(phone).unwrap()).await.unwrap();
    }
    if !user["linkedFactor"].is_null() {
        client.sign_in(address).await.ok();
    }
    settle(app, &id, user, address).await;
    id
}

/// Somebody with one login method.
async fn other_user(app: &TestApp, other: &Value) -> UserId {
    let address = other["email"].as_str().unwrap();
    let method = other["method"].as_str().unwrap();
    let id = if method == "emailpassword" {
        let answer = app.browser(Mode::Header).sign_up(address).await.ok();
        UserId::parse(answer["user"]["id"].as_str().unwrap()).unwrap()
    } else {
        app.mfa.users().create(&PUBLIC, &Email::parse(address).unwrap()).await.unwrap().id
    };
    if method == "thirdparty" {
        change(app, Key::new(["user", id.as_str()]), |mut user| {
            let login = &mut user["logins"][0];
            login["kind"] = json!("thirdparty");
            login["third_party"] = json!({ "provider": "google", "subject": "1" });
            Some(user)
        })
        .await;
        let name = Key::new(["t", "public", "login", "passwordless-email", address]);
        let row = app.store.get(std::slice::from_ref(&name)).await.unwrap().remove(0).unwrap();
        change(app, name, |_| None).await;
        let subject = Key::new(["google", "1"]);
        write(app, Key::new(["t", "public", "login", "thirdparty", subject.as_str()]), row.body).await;
    }
    settle(app, &id, other, address).await;
    id
}

/// Whether their first login method is verified, and whether they are primary.
async fn settle(app: &TestApp, id: &UserId, is: &Value, address: &str) {
    change(app, Key::new(["user", id.as_str()]), |mut user| {
        user["logins"][0]["verified"] = is["verified"].clone();
        user["primary"] = json!(is["primary"] == true || user["primary"] == true);
        assert_eq!(user["primary"], is["primary"]);
        Some(user)
    })
    .await;
    if is["primary"] == true {
        write(app, Key::new(["t", "public", "primary", "email", address]), json!({ "user": id.as_str() }))
            .await;
    }
}

async fn write(app: &TestApp, key: Key, body: Value) {
    let mut batch = Batch::new();
    let row = Row { version: Version::random().unwrap(), expires_at: None, body };
    batch.push(key, Op::Upsert(row));
    assert_eq!(app.store.commit(batch).await.unwrap(), Commit::Applied);
}

/// The claim of the session, or none: then the session is from when the vectors say.
async fn session_claim(app: &TestApp, me: &UserId, claim: Option<&Value>) {
    let mine = |row: &Row| row.body["user"] == me.as_str();
    let (key, _) = app.store.sessions().await.into_iter().find(|(_, row)| mine(row)).unwrap();
    change(app, key, |mut row| {
        match claim {
            Some(claim) => row["payload"][CLAIM] = claim.clone(),
            None => {
                row["payload"].as_object_mut().unwrap().remove(CLAIM).expect("a claim");
                row["created_at"] = json!(1_702_870_000_123_i64);
            }
        }
        Some(row)
    })
    .await;
}

/// The attempt. Of a code that was sent the answer is that to the code, else that to asking for one.
async fn authenticate(app: &TestApp, client: &mut Browser, input: &Value) -> Answer {
    let (with, flag) = (&input["authenticating"], &input["shouldTryLinking"]);
    let post = async |client: &mut Browser, path: &str, mut body: Value| {
        body["shouldTryLinkingWithSessionUser"] = flag.clone();
        client.post(path, body).await
    };
    let factor = FactorId::parse(with["factorId"].as_str().unwrap()).unwrap();
    if factor == FactorId::PASSWORD {
        let address = with["email"].as_str().unwrap();
        let named = array(&input["otherUsers"])
            .any(|other| other["method"] == with["method"] && other["email"] == with["email"]);
        let path = if named { "/auth/signin" } else { "/auth/signup" };
        return post(client, path, credentials(address, PASSWORD)).await;
    }
    let (kind, to) = match with["email"].as_str() {
        Some(email) => ("email", email),
        None => ("phoneNumber", with["phoneNumber"].as_str().unwrap()),
    };
    let seen = app.sent_to(to);
    let begun = post(client, "/auth/signinup/code", json!({ (kind): to })).await;
    if begun.body["status"] != "OK" {
        return begun;
    }
    let (flow, code) = (begun.ok(), app.code_after(to, seen).await);
    let entered = json!({
        "deviceId": flow["deviceId"],
        "preAuthSessionId": flow["preAuthSessionId"],
        "userInputCode": code,
    });
    post(client, "/auth/signinup/code/consume", entered).await
}
