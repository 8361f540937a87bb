//! Test vectors: data that says what must come out, each case of each file, through the public API.
//!
//! The expected values were made by running another server. Where it does what we decided against, a case
//! carries a tag (`divergence`), and what is asserted is our result:
//!
//! | Tag | Ours |
//! |---|---|
//! | `stamp-unit` | stamps are whole seconds: `floor(ms / 1000)` |
//! | `stale-v` | `v` is judged anew before a factor is set up: the `resync` twin of the case holds |
//! | `unsatisfiable` | nothing comes next, at once (row P11), and it is said which factors are in the way |
//! | `stale-binding` | which number is the user's the store says, whatever a session's payload says |
//!
//! Differences without a tag: a negative stamp completes nothing (row P12, see [`requirement_lists`]). Who is
//! asked for the impossible is told so and not answered with 500 (row P11), and contacts are shown only as far
//! as they are needed until all requirements are met (row P18, see [`session::mfa_info`]). Who has a number gets no
//! code to another one (row O14, see [`codes::send_code`]). Of linking see [`linking::ours`].
//!
//! What waits for something that isn't there yet is listed in [`WAITING`], by file or area.
//!
//! The folder is `tests/vectors`, or the one that the environment variable `MFA_VECTORS` names.

use std::{
    collections::BTreeSet,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::atomic::Ordering,
};

use futures_util::FutureExt as _;
use serde_json::{Map, Value, json};
use tower_mfa::{
    ClaimValidator, FactorId, MfaBuilder, MfaPolicy, PolicyContext, Requirement, Requirements,
    claim::{FactorsMet, InvalidClaim, MfaClaim, MfaSatisfied},
    ident::{Payload, TenantId, Timestamp, UserId},
    policy::{
        AnyPolicy, CompletedFactors, Everyone, FirstFactors, FixedFacts, ForRole, NextSet, Nobody,
        PolicyError, TenantScoped, UserOrTenant, may_set_up,
    },
};

use crate::support::TestApp;

mod codes;
mod divergences;
mod linking;
mod session;

/// The files that run, each by the test of its name.
const RUNNING: [&str; 17] = [
    "allowed_to_setup",
    "completion_sequences",
    "contacts",
    "default_requirements",
    "divergences",
    "factors_set_up",
    "first_factors",
    "legacy_2fa",
    "linking_and_session",
    "mark_complete",
    "mfa_info",
    "missing_claim",
    "policies",
    "requirement_lists",
    "required_factors_storage",
    "send_code",
    "validators",
];
/// What waits, as `file` or `file/area`, how many cases that is, and for what.
const WAITING: [(&str, usize, &str); 2] =
    [("divergences/totp", 2, "Factors"), ("totp_endpoints", 27, "Factors")];

/// The time of every evaluation; no list of the vectors has an age.
const NOW: Timestamp = Timestamp::from_secs(1_702_877_939);
/// The claim's key.
const CLAIM: &str = "st-mfa";

/// All cases there are.
const CASES: usize = 666;

/// Nothing is left out unsaid: each file runs or waits, each area of the divergences too, and what waits is as
/// much as the list says.
#[test]
fn what_runs_and_what_waits_is_everything() {
    let tests = [
        include_str!("vectors.rs"),
        include_str!("vectors/codes.rs"),
        include_str!("vectors/session.rs"),
        include_str!("vectors/divergences.rs"),
        include_str!("vectors/linking.rs"),
    ]
    .concat();
    for file in RUNNING {
        let test = format!("fn {file}() {{");
        assert!(tests.contains(&test) && tests.contains(&format!("(\"{file}\"")), "{file} has no test");
    }
    let is_vectors = |path: &PathBuf| path.extension().is_some_and(|end| end == "json");
    let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).filter(is_vectors);
    let files: BTreeSet<String> =
        names.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let whole = |(name, ..): &(&str, usize, &str)| (!name.contains('/')).then(|| (*name).to_owned());
    let listed: Vec<String> =
        RUNNING.map(String::from).into_iter().chain(WAITING.iter().filter_map(whole)).collect();
    assert_eq!(listed.len(), RUNNING.len() + 1, "one file waits");
    assert_eq!(BTreeSet::from_iter(listed), files);

    let area = |case: &Value| case["area"].as_str().unwrap().to_owned();
    let areas: BTreeSet<String> = cases("divergences").iter().map(area).collect();
    let waiting = WAITING.iter().filter_map(|(name, ..)| name.strip_prefix("divergences/"));
    assert_eq!(areas, divergences::AREAS.into_iter().chain(waiting).map(String::from).collect());

    for (name, count, capability) in WAITING {
        let (file, area) = name.split_once('/').map_or((name, None), |(file, area)| (file, Some(area)));
        let waits = |case: &&Value| area.is_none_or(|area| case["area"] == area);
        assert_eq!(cases(file).iter().filter(waits).count(), count, "{name} waits for {capability}");
        assert_eq!(capability, "Factors", "{name}");
    }
    let all: usize = files.iter().map(|file| cases(file).len()).sum();
    let waiting: usize = WAITING.iter().map(|(_, count, _)| count).sum();
    assert_eq!((all, waiting), (CASES, 29));
}

#[test]
fn requirement_lists() {
    each("requirement_lists", |case| {
        let list = list(&case["input"]["requirements"]);
        let as_written = case["input"]["completed"].as_object().unwrap();
        // Row P12: a negative stamp completes nothing. Read as zero it does, and the vector holds.
        let negative = |stamp: &Value| stamp.as_i64().is_some_and(|stamp| stamp < 0);
        let entry = |(id, stamp): (&String, &Value)| {
            (id.clone(), if negative(stamp) { json!(0) } else { stamp.clone() })
        };
        let completed: Map<_, _> = as_written.iter().map(entry).collect();
        let validator = FactorsMet::new(list.clone());

        let done = CompletedFactors::from_json(&completed.clone().into());
        let next = list.next_set(&done, NOW);
        let expected = &case["expected"];
        assert_eq!(json!(next.is_none()), expected["satisfied"]);
        assert_eq!(factors(&next), expected["next"]);
        assert_eq!(kind(&next), expected["nextKind"]);
        assert_eq!(
            verdict(&validator, &payload(json!({ CLAIM: { "c": completed, "v": false } }))),
            expected["validator"]
        );

        for (id, _) in as_written.iter().filter(|(_, stamp)| negative(stamp)) {
            let id = FactorId::parse(id).unwrap();
            assert!(
                !CompletedFactors::from_json(&as_written.clone().into()).contains(&id),
                "{id} is negative"
            );
        }
    });
}

/// What a user opted into, through the handle: what is answered, and whether anything was committed. The
/// list is a record of its own (row P16), so of `metadataAfter` the list counts.
#[tokio::test]
async fn required_factors_storage() {
    let cases = cases("required_factors_storage");
    assert!(!cases.is_empty());
    // The reference takes any text; here an app says which factors are its own (row P10).
    let own = ["a", "b", "not-a-factor"].map(|id| FactorId::parse(id).unwrap());
    let app = TestApp::with(|b| own.into_iter().fold(b, MfaBuilder::custom_factor)).await;
    let commits = || app.store.counts.commits.load(Ordering::SeqCst);
    for (n, case) in cases.iter().enumerate() {
        let user = UserId::parse(&format!("user-{n}")).unwrap();
        let factors = app.mfa.factors();
        let before = &case["input"]["metadata"]["_supertokens"]["requiredSecondaryFactors"];
        for id in before.as_array().into_iter().flatten() {
            factors.opt_in(&user, factor(id)).await.unwrap();
        }
        let mut last = Value::Null;
        for (step, expected) in array(&case["input"]["operations"]).zip(array(&case["expected"]["steps"])) {
            let seen = commits();
            let list = match step["op"].as_str().unwrap() {
                "add" => factors.opt_in(&user, factor(&step["factorId"])).await.unwrap(),
                "remove" => factors.opt_out(&user, factor(&step["factorId"])).await.unwrap(),
                _ => factors.required_for(&user).await.unwrap(),
            };
            last = list.iter().map(FactorId::as_str).collect();
            assert_eq!(json!(commits() > seen), expected["wrote"], "{}: {step}", case["name"]);
            assert_eq!(last, expected["required"], "{}: {step}", case["name"]);
        }
        let after = &case["expected"]["metadataAfter"]["_supertokens"]["requiredSecondaryFactors"];
        assert_eq!(last, if after.is_null() { json!([]) } else { after.clone() }, "{}", case["name"]);
    }
}

#[test]
fn completion_sequences() {
    each("completion_sequences", |case| {
        let list = list(&case["input"]["requirements"]);
        let mut claim = MfaClaim::default();
        claim.evaluate(&list, NOW);
        let expected = &case["expected"];
        assert_eq!(json!(claim.v), expected["before"]["v"]);
        assert_eq!(factors(&list.next_set(&claim.c, NOW)), expected["before"]["next"]);
        let steps: Vec<Value> = array(&case["input"]["completions"])
            .map(|completion| {
                let at = Timestamp::from_secs(completion["at"].as_i64().unwrap());
                claim.mark(factor(&completion["factorId"]), at);
                claim.evaluate(&list, at);
                let next = list.next_set(&claim.c, at);
                json!({
                    "complete": completion["factorId"],
                    "at": completion["at"],
                    "v": claim.v,
                    "next": factors(&next),
                    "nextKind": kind(&next),
                })
            })
            .collect();
        assert_eq!(json!(steps), expected["steps"]);
        assert_eq!(claim.c.to_json(), expected["finalCompleted"]);
    });
}

#[test]
fn validators() {
    each("validators", |case| {
        let input = &case["input"];
        let id = input["id"].as_str();
        let validator: Box<dyn ClaimValidator> = match input["validator"].as_str().unwrap() {
            "hasCompletedMFARequirementsForAuth" => {
                let it = MfaSatisfied::new();
                Box::new(if let Some(id) = id { it.id(id) } else { it })
            }
            "hasCompletedRequirementList" => {
                let it = FactorsMet::new(list(&input["requirements"]));
                Box::new(if let Some(id) = id { it.id(id) } else { it })
            }
            other => panic!("no validator {other}"),
        };
        // The vectors' payload is the whole token; ours has no members that only the crate writes.
        let mut members = input["payload"].clone();
        members.as_object_mut().unwrap().remove("sub");
        let payload = payload(members);
        let expected = &case["expected"];
        assert_eq!(validator.id(), expected["id"].as_str().unwrap());
        let wanted = validator.refetch(&payload, NOW);
        assert_eq!(json!(wanted.is_some()), expected["shouldRefetch"]);
        assert!(wanted.is_none_or(|claim| claim.key() == CLAIM));
        match expected.get("throws") {
            // Without the claim the other server breaks off; we refuse, once more after the fetch.
            Some(_) => assert_eq!(validator.validate(&payload, NOW).unwrap_err().id, expected["id"]),
            None => assert_eq!(verdict(&*validator, &payload), expected["result"]),
        }
    });
}

#[test]
fn default_requirements() {
    each("default_requirements", asked);
}

#[test]
fn policies() {
    each("policies", asked);
}

/// A policy is asked and the claim evaluated by its answer.
fn asked(case: &Value) {
    let input = &case["input"];
    let mut members = input["accessTokenPayload"].as_object().cloned().unwrap_or_default();
    members.insert(CLAIM.to_owned(), input["claim"].clone());
    let payload = payload(members.into());
    let mut claim = MfaClaim::from_payload(&payload).expect("a claim");
    let tenant = input["tenantId"].as_str().unwrap();
    let facts = FixedFacts::new("u1")
        .tenant(TenantId::parse(tenant).unwrap())
        .roles(array(&input["roles"][tenant]["u1"]).map(|role| role.as_str().unwrap()))
        .set_up(ids(&input["factorsSetUp"]))
        .required_for_user(ids(&input["requiredForUser"]))
        .required_for_tenant(ids(&input["requiredForTenant"]))
        .completed(claim.c.clone())
        .payload(payload)
        .at(NOW);
    let context = PolicyContext::fixed(facts.clone());
    let policy = named(input["policy"].as_str().unwrap());
    let list = policy.requirements(&context).now_or_never().expect("nothing to wait for").unwrap();
    let written = claim.evaluate(&list, NOW);

    let expected = &case["expected"];
    assert_eq!(list.to_json(), expected["requirements"]);
    assert_eq!(json!(claim.v), expected["v"]);
    assert_eq!(factors(&list.next_set(&claim.c, NOW)), expected["next"]);
    assert_eq!(claim.to_json(), expected["claimAfter"]);
    assert_eq!(json!(written), expected["claimWritten"]);
    // The vectors' policies load the user only for the id by which they look up the roles. Ours know the
    // id and read the roles: that is the same read.
    let same_read = |name: &Value| match name.as_str().unwrap() {
        "user" => "roles",
        "factorsSetUpForUser" => "factors_set_up",
        "requiredSecondaryFactorsForUser" => "required_for_user",
        "requiredSecondaryFactorsForTenant" => "required_for_tenant",
        other => panic!("no input {other}"),
    };
    let reads: BTreeSet<_> = facts.reads().into_iter().collect();
    assert_eq!(reads, array(&expected["inputsRead"]).map(same_read).collect());
}

/// The policies that the vectors name, as an app would write them.
fn named(name: &str) -> AnyPolicy {
    let email_or_phone = Requirement::one_of([FactorId::OTP_EMAIL, FactorId::OTP_PHONE]);
    let cheap = Requirement::one_of([FactorId::TOTP, FactorId::OTP_EMAIL]);
    match name {
        "default" => AnyPolicy::new(UserOrTenant::new()),
        "admin-only" => AnyPolicy::new(ForRole::new("admin", FactorId::OTP_EMAIL)),
        "admin-and-tenant" => AnyPolicy::new(ForRole::new("admin", FactorId::OTP_EMAIL).where_tenant_asks()),
        "opt-in-and-tenant" => AnyPolicy::new(TenantScoped::new(OptedInto(FactorId::OTP_EMAIL))),
        "everyone-totp" => AnyPolicy::new(Everyone::new(FactorId::TOTP)),
        "everyone-email-or-phone" => AnyPolicy::new(Everyone::new(email_or_phone)),
        "nobody" => AnyPolicy::new(Nobody),
        "tenant-all" => AnyPolicy::new(TenantAll),
        "user-all" => AnyPolicy::new(UserAll),
        "only-set-up" => AnyPolicy::new(OnlySetUp),
        "paid-plan" => AnyPolicy::new(PaidPlan),
        "social-is-enough" => AnyPolicy::new(SocialIsEnough),
        "internal-tenant" => AnyPolicy::new(InternalTenant),
        "cheap-then-phone" => {
            AnyPolicy::new(Everyone::new(Requirements::from_iter([cheap, FactorId::OTP_PHONE.into()])))
        }
        other => panic!("no policy {other}"),
    }
}

type Answer = Result<Requirements, PolicyError>;

struct OptedInto(FactorId);
impl MfaPolicy for OptedInto {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Answer {
        Ok(given(ctx.required_for_user().await?.contains(&self.0), self.0.clone()))
    }
}

struct TenantAll;
impl MfaPolicy for TenantAll {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Answer {
        Ok(Requirement::all_of(ctx.required_for_tenant().await?.to_vec()).into())
    }
}

struct UserAll;
impl MfaPolicy for UserAll {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Answer {
        Ok(Requirement::all_of(ctx.required_for_user().await?.to_vec()).into())
    }
}

struct OnlySetUp;
impl MfaPolicy for OnlySetUp {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Answer {
        let set_up = ctx.factors_set_up().await?;
        let wanted = [ctx.required_for_user().await?, ctx.required_for_tenant().await?].concat();
        Ok(Requirement::one_of(wanted.into_iter().filter(|factor| set_up.contains(factor))).into())
    }
}

struct PaidPlan;
impl MfaPolicy for PaidPlan {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Answer {
        Ok(given(ctx.payload().member("plan") == Some(&json!("paid")), FactorId::OTP_EMAIL))
    }
}

struct SocialIsEnough;
impl MfaPolicy for SocialIsEnough {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Answer {
        Ok(given(!ctx.completed().contains(&FactorId::THIRD_PARTY), FactorId::OTP_EMAIL))
    }
}

struct InternalTenant;
impl MfaPolicy for InternalTenant {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Answer {
        let strong = Requirement::one_of([FactorId::WEBAUTHN, FactorId::TOTP]);
        Ok(given(ctx.tenant().as_str() == "internal", strong))
    }
}

fn given(condition: bool, demand: impl Into<Requirements>) -> Requirements {
    if condition { demand.into() } else { Requirements::none() }
}

#[test]
fn allowed_to_setup() {
    let all = cases("allowed_to_setup");
    each("allowed_to_setup", |case| {
        let input = &case["input"];
        let list = list(&input["requirements"]);
        let mut claim = claim(&input["claim"]).unwrap_or_else(derived);
        let stored = claim.v;
        claim.evaluate(&list, NOW);
        let open = list.next_set(&claim.c, NOW).map(|next| next.factors).unwrap_or_default();
        let answer = may_set_up(claim.v, &open, &ids(&input["factorsSetUp"]), &factor(&input["factorId"]));

        // Stale `v`: what the case with the same input expects that comes through the other entry.
        let twin = |other: &&Value| {
            let mut same = input.clone();
            same["entry"] = json!("resync");
            other["input"] == same
        };
        let stale = case["divergence"] == "stale-v";
        let expected = &if stale { all.iter().find(twin).expect("a resync twin") } else { case }["expected"];
        assert_eq!(json!(answer.is_ok()), expected["allowed"]);
        if let Err(refused) = answer {
            // The one place where a reason is a bare string.
            let invalid = InvalidClaim::new(CLAIM, json!(refused.to_string()));
            let errors = json!([{ "id": invalid.id, "reason": invalid.reason }]);
            assert_eq!(errors, expected["claimValidationErrors"]);
            assert_eq!(
                json!({ "message": "invalid claim", "claimValidationErrors": errors }),
                expected["body"]
            );
            assert_eq!(expected["httpStatus"], 403);
        }

        let after = in_seconds(case, &expected["claimAfter"]);
        assert_eq!(claim.c.to_json(), after["c"]);
        if input["entry"] == "direct" && !input["claim"].is_null() && !stale && stored != claim.v {
            // Trusting the claim leaves a stale `false`; ours is right at once, with the same answer.
            assert_eq!((claim.v, &after["v"]), (true, &json!(false)));
        } else {
            assert_eq!(json!(claim.v), after["v"]);
        }
    });
}

#[test]
fn mark_complete() {
    each("mark_complete", |case| {
        let input = &case["input"];
        let list = list(&input["requirements"]);
        let now = Timestamp::from_millis(input["nowMs"].as_i64().unwrap());
        let before = claim(&input["claim"]);
        let fresh = input["sessionJustCreated"].as_bool().unwrap();
        // A session from before, without a claim, has its first factor derived before one is added.
        let derives = before.is_none() && !fresh;
        let mut after = before.clone().unwrap_or_else(|| if fresh { MfaClaim::default() } else { derived() });
        after.mark(factor(&input["factorId"]), now);
        after.evaluate(&list, now);

        let expected = &case["expected"];
        assert_eq!(after.to_json(), in_seconds(case, &expected["claimAfter"]));
        assert_eq!(json!(before.as_ref() != Some(&after)), expected["claimWritten"]);
        assert_eq!(json!(derives), expected["sessionInfoRead"]);
        // The claim is one member; another stays as it is, and what was written is read again.
        let payload = payload(json!({ "other": { "v": 1 }, CLAIM: after.to_json() }));
        assert_eq!(payload.member("other"), Some(&expected["otherClaimsKept"]));
        assert_eq!(MfaClaim::from_payload(&payload).map(|read| read.to_json()), Some(after.to_json()));
    });
}

#[test]
fn first_factors() {
    each("first_factors", |case| {
        let input = &case["input"];
        let enabled: Vec<FactorId> = array(&input["recipes"]).flat_map(offered).collect();
        let listed = |value: &Value| value.is_array().then(|| ids(value));
        let mfa = input["mfaEnabled"].as_bool().unwrap_or(true);
        let app = listed(&input["staticFirstFactors"]).filter(|_| mfa);
        let tenant = listed(&input["tenantFirstFactors"]);
        let first = FirstFactors::new(&enabled, app.as_deref(), tenant.as_deref());

        let texts = |ids: &[FactorId]| json!(ids.iter().map(FactorId::as_str).collect::<Vec<_>>());
        assert_eq!(texts(first.listed()), case["expected"]["firstFactors"]);
        let candidates = FactorId::BUILT_IN.into_iter().chain(ids(&input["extraIds"]));
        let valid: Vec<FactorId> = candidates.filter(|id| first.accepts(id)).collect();
        assert_eq!(texts(&valid), case["expected"]["valid"]);
    });
}

/// The first factors that a login method offers.
fn offered(recipe: &Value) -> Vec<FactorId> {
    match recipe["id"].as_str().unwrap() {
        "emailpassword" => vec![FactorId::PASSWORD],
        "thirdparty" => vec![FactorId::THIRD_PARTY],
        "webauthn" => vec![FactorId::WEBAUTHN],
        "totp" => Vec::new(),
        "passwordless" => {
            let contact = recipe["contactMethod"].as_str().unwrap();
            let flow = recipe["flowType"].as_str().unwrap();
            let (code, link) = (flow.contains("USER_INPUT_CODE"), flow.contains("MAGIC_LINK"));
            let (email, phone) = (contact.contains("EMAIL"), contact.contains("PHONE"));
            [
                (code && email, FactorId::OTP_EMAIL),
                (code && phone, FactorId::OTP_PHONE),
                (link && email, FactorId::LINK_EMAIL),
                (link && phone, FactorId::LINK_PHONE),
            ]
            .into_iter()
            .filter_map(|(on, id)| on.then_some(id))
            .collect()
        }
        other => panic!("no login method {other}"),
    }
}

/// Runs every case of a file and then names all that failed.
fn each(file: &str, run: impl Fn(&Value)) {
    each_of(file, |_| true, run);
}

/// Those cases of a file that are `wanted`.
fn each_of(file: &str, wanted: impl Fn(&Value) -> bool, run: impl Fn(&Value)) {
    let cases: Vec<Value> = cases(file).into_iter().filter(|case| wanted(case)).collect();
    let mut failed = Vec::new();
    let mut ran = 0;
    for case in &cases {
        let name = case["name"].as_str().expect("a case has a name");
        let decided = ["stamp-unit", "stale-v", "unsatisfiable", "stale-binding"].map(Value::from);
        let known = case.get("divergence").is_none_or(|tag| decided.contains(tag));
        if !known || catch_unwind(AssertUnwindSafe(|| run(case))).is_err() {
            failed.push(name);
        }
        ran += 1;
    }
    assert!(failed.is_empty(), "{file}: {} of {ran} cases failed: {failed:#?}", failed.len());
    assert_eq!(ran, cases.len(), "{file}: every case runs");
    assert!(ran > 0, "{file}: no cases");
}

fn folder() -> PathBuf {
    let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    env::var_os("MFA_VECTORS").map_or_else(here, PathBuf::from)
}

fn cases(file: &str) -> Vec<Value> {
    let path = folder().join(file).with_extension("json");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let vectors: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    vectors["cases"].as_array().expect("cases").clone()
}

/// The expected claim, in the unit that we decided on.
fn in_seconds(case: &Value, claim: &Value) -> Value {
    let mut claim = claim.clone();
    if case["divergence"] == "stamp-unit" {
        for stamp in claim["c"].as_object_mut().unwrap().values_mut() {
            *stamp = json!(stamp.as_i64().unwrap() / 1000);
        }
    }
    claim
}

/// The claim of the vectors' session without one: made with a password, at that time.
fn derived() -> MfaClaim {
    let mut claim = MfaClaim::default();
    claim.mark(FactorId::PASSWORD, Timestamp::from_millis(1_702_870_000_123));
    claim
}

fn claim(value: &Value) -> Option<MfaClaim> {
    (!value.is_null()).then(|| MfaClaim::from_payload(&payload(json!({ CLAIM: value }))).expect("a claim"))
}

fn payload(members: Value) -> Payload {
    Payload::from_json(members).expect("a payload")
}

fn list(value: &Value) -> Requirements {
    Requirements::from_json(value).expect("a requirement list")
}

fn factor(value: &Value) -> FactorId {
    FactorId::parse(value.as_str().expect("a text")).expect("a factor id")
}

fn ids(value: &Value) -> Vec<FactorId> {
    array(value).map(factor).collect()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn factors(next: &Option<NextSet<'_>>) -> Value {
    next.iter().flat_map(|next| &next.factors).map(FactorId::as_str).collect()
}

fn kind(next: &Option<NextSet<'_>>) -> Value {
    match next.as_ref().map(|next| next.requirement) {
        None => Value::Null,
        Some(Requirement::Factor(_)) => json!("string"),
        Some(Requirement::OneOf(_)) => json!("oneOf"),
        Some(Requirement::AllOf(_)) => json!("allOfInAnyOrder"),
        Some(other) => panic!("an item of no known kind: {other:?}"),
    }
}

fn verdict(validator: &dyn ClaimValidator, payload: &Payload) -> Value {
    match validator.validate(payload, NOW) {
        Ok(()) => json!({ "isValid": true }),
        Err(invalid) => {
            assert_eq!(invalid.id, validator.id());
            json!({ "isValid": false, "reason": invalid.reason })
        }
    }
}
