//! Where the other server does what we decided against: `recommended` is what must come out, `peer` is what
//! must not.

use serde_json::{Value, json};
use tower_mfa::{
    FactorId, Requirements,
    account::{LoginKind, LoginMethod, User},
    claim::MfaClaim,
    factor::{Enrolled, Factors},
    ident::{LoginId, Timestamp, UserId},
    policy::{CompletedFactors, Everyone, FirstFactors, State, check_reachable, may_set_up},
};

use super::{CLAIM, NOW, claim, codes, each_of, factor, factors, ids, list, session::block_on};

/// The areas that run here.
pub(super) const AREAS: [&str; 5] = ["evaluation", "migration", "setup", "info", "send-code"];

#[test]
fn divergences() {
    let here = |case: &Value| AREAS.iter().any(|area| case["area"] == *area);
    each_of("divergences", here, |case| {
        let ours = match case["area"].as_str().unwrap() {
            "evaluation" => evaluation(&case["input"]),
            "migration" => migration(&case["input"]),
            "setup" => set_up(&case["input"]),
            "info" => info(&case["input"]),
            "send-code" => block_on(codes::divergence(&case["input"])),
            other => panic!("no area {other}"),
        };
        assert_eq!(ours, case["recommended"]);
        assert_ne!(ours, case["peer"]);
    });
}

fn evaluation(input: &Value) -> Value {
    let Ok(list) = Requirements::from_json(&input["requirements"]) else {
        return json!({ "error": "invalid requirement" });
    };
    let next = list.next_set(&CompletedFactors::from_json(&input["completed"]), NOW);
    json!({ "satisfied": next.is_none(), "next": factors(&next) })
}

fn migration(input: &Value) -> Value {
    let id = LoginId::parse("u1").unwrap();
    let kind = match input["loginMethod"].as_str().unwrap() {
        "emailpassword" => LoginKind::EmailPassword,
        "webauthn" => LoginKind::WebAuthn,
        other => panic!("no login method {other}"),
    };
    let made_at = Timestamp::from_millis(input["sessionCreatedMs"].as_i64().unwrap());
    let user = User::new(UserId::parse("u1").unwrap(), vec![LoginMethod::new(id.clone(), kind, made_at)]);
    // Every one of them may start a session, as at the other server.
    let first = FirstFactors::new(&FactorId::BUILT_IN, None, None);
    let mut claim = MfaClaim::derive(&user, &id, &first, made_at).unwrap();
    if let Some(id) = input.get("completes") {
        claim.mark(factor(id), NOW);
    }
    claim.evaluate(&list(&input["requirements"]), NOW);
    json!({ "claimAfter": claim.to_json() })
}

fn set_up(input: &Value) -> Value {
    let list = list(&input["requirements"]);
    let mut claim = claim(&input["claim"]).unwrap();
    claim.evaluate(&list, NOW);
    let open = list.next_set(&claim.c, NOW).map(|next| next.factors).unwrap_or_default();
    match may_set_up(claim.v, &open, &ids(&input["factorsSetUp"]), &factor(&input["factorId"])) {
        Ok(()) => json!({ "allowed": true }),
        Err(refused) => json!({
            "allowed": false,
            "httpStatus": 403,
            "claimValidationErrors": [{ "id": CLAIM, "reason": refused.to_string() }],
        }),
    }
}

/// At the start, and, where the policy says nothing of itself, to the user (row P11).
fn info(input: &Value) -> Value {
    let (factors, list) = (Factors::new(ids(&input["enabled"])), list(&input["requirements"]));
    let start = check_reachable(&Everyone::new(list.clone()), &factors.usable(), &factors.usable(), None);
    let problem = start.expect_err("it can't be met").to_string();

    let id = LoginId::parse("u1").unwrap();
    let login = LoginMethod::new(id.clone(), LoginKind::EmailPassword, NOW);
    let user = User::new(UserId::parse("u1").unwrap(), vec![login]);
    let mut claim = MfaClaim::default();
    claim.mark(FactorId::PASSWORD, NOW);
    let overview = factors.overview(Enrolled::from(&user), &id, &claim, &list, NOW).unwrap();
    if !overview.explanation.is_impossible() {
        return json!({ "httpStatus": 200, "next": ids_of(&overview.next) });
    }
    assert!(overview.next.is_empty() && overview.allowed.is_empty());
    let parts = overview.explanation.items.iter().flat_map(|item| &item.parts);
    let stuck = parts.filter(|part| part.state == State::Impossible).flat_map(|part| part.factors.clone());
    let stuck: Vec<FactorId> = stuck.collect();
    assert!(stuck.iter().all(|factor| problem.contains(factor.as_str())), "{problem}");
    json!({ "error": "unsatisfiable requirement", "factorIds": ids_of(&stuck) })
}

fn ids_of(ids: &[FactorId]) -> Value {
    ids.iter().map(FactorId::as_str).collect()
}
