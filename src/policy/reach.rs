//! Can what a policy demands be met at all? Checked before the first request, where that can be known.

use std::{fmt, time::Duration};

use super::{
    MfaPolicy, algebra::Scope, completed::CompletedFactors, explain::brief, list::Requirements,
    requirement::Requirement,
};
use crate::base::{distinct, ident::FactorId, time::Timestamp};

/// What a policy may demand, as far as it can say without a user.
///
/// ```
/// use tower_mfa::{FactorId, policy::{Declared, Everyone, MfaPolicy as _, OptIn}};
/// assert_eq!(Everyone::new(FactorId::TOTP).declares(None), Declared::only(FactorId::TOTP));
/// assert!(!OptIn.declares(None).is_whole(), "what users opt into is known when they do");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Declared {
    lists: Vec<Requirements>,
    whole: bool,
    opt_ins: OptIns,
}

/// What becomes of what users opt into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum OptIns {
    #[default]
    NotSaid,
    Heard,
    /// A rule for a role stands alone: somebody without the role who opts in isn't asked.
    Unheard,
}

impl Declared {
    /// Nothing is known: the policy may demand anything.
    pub fn unknown() -> Self {
        Self { lists: Vec::new(), whole: false, opt_ins: OptIns::NotSaid }
    }

    /// It demands nothing.
    pub fn nothing() -> Self {
        Self { whole: true, ..Self::unknown() }
    }

    /// It demands this of some or all, and nothing else.
    pub fn only(list: impl Into<Requirements>) -> Self {
        Self { lists: vec![list.into()], ..Self::nothing() }
    }

    /// It demands this of some or all, and may demand more that isn't known yet.
    pub fn at_least(list: impl Into<Requirements>) -> Self {
        Self { lists: vec![list.into()], ..Self::unknown() }
    }

    /// What is demanded where either of two policies is enough. A policy that hears opt-ins doesn't make up
    /// for one that doesn't: who opted in and isn't asked by that one isn't asked at all.
    pub fn or(self, other: Self) -> Self {
        let opt_ins = match (self.opt_ins, other.opt_ins) {
            (OptIns::Unheard, _) | (_, OptIns::Unheard) => OptIns::Unheard,
            (OptIns::Heard, OptIns::Heard) => OptIns::Heard,
            _ => OptIns::NotSaid,
        };
        Self { opt_ins, ..self.and(other) }
    }

    /// What two policies may demand between them, where both must be met.
    pub fn and(mut self, other: Self) -> Self {
        self.lists = distinct(self.lists.into_iter().chain(other.lists));
        self.whole &= other.whole;
        self.opt_ins = match (self.opt_ins, other.opt_ins) {
            (OptIns::Heard, _) | (_, OptIns::Heard) => OptIns::Heard,
            (OptIns::NotSaid, other) => other,
            (unheard, _) => unheard,
        };
        self
    }

    /// The same, changed.
    pub(crate) fn map(mut self, change: impl FnMut(Requirements) -> Requirements) -> Self {
        self.lists = self.lists.into_iter().map(change).collect();
        self
    }

    pub(crate) fn hearing_opt_ins(mut self) -> Self {
        self.opt_ins = OptIns::Heard;
        self
    }

    pub(crate) fn not_hearing_opt_ins(mut self) -> Self {
        self.opt_ins = OptIns::Unheard;
        self
    }

    /// The lists that are known.
    pub fn lists(&self) -> &[Requirements] {
        &self.lists
    }

    /// Whether that is all it may demand.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// What is worth a line in the log at the start, though it isn't wrong.
    pub(crate) fn warnings(&self) -> Vec<&'static str> {
        let is_empty = |item: &Requirement| Requirements::from(item.clone()).demands_nothing();
        let mixes = |list: &Requirements| !list.demands_nothing() && list.items().iter().any(is_empty);
        let mut warnings = Vec::new();
        if self.lists.iter().any(mixes) {
            warnings.push("a list of the policy has an empty group among others: it demands nothing");
        }
        if self.opt_ins == OptIns::Unheard {
            warnings.push(
                "the policy is for a role alone, so that what users opt into isn't asked: add .and(OptIn), \
                 or .and(UserOrTenant::new())",
            );
        }
        warnings
    }
}

/// The shortest age that leaves time for a request after the completion: times are kept in whole seconds, so that
/// an age of one may be over a millisecond later.
const SHORTEST: Duration = Duration::from_secs(2);

/// How much of a policy was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// All it may demand: no user of it ends in a state out of which nothing leads.
    Whole,
    /// What it declared. It may demand other things, too; a user who can't meet those is told so (row P11).
    Partly,
}

/// A policy demands what can't be met, one sentence a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    problems: Vec<String>,
}

impl Unreachable {
    /// The problems, each a sentence that says what to change.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("; "))
    }
}

impl std::error::Error for Unreachable {}

/// Checks that whatever a policy says it may demand can be met.
///
/// `usable` are the factors that can be completed in a session, `first` those that may start one, `tenant`
/// what a tenant asks for. It is what `build()` does, with `None` for the tenant, and what
/// [`Tenants::require`](crate::account::Tenants::require) does with the tenant's new rule.
///
/// # Errors
/// What can't be met: a factor that isn't usable (row P10), an age below two seconds (completions are stamped in
/// whole seconds), a list that nobody can meet, and one that a user who signs in with a certain factor can't.
///
/// ```
/// use tower_mfa::{FactorId, Requirement, policy::{Everyone, Reach, check_reachable}};
/// let factors = [FactorId::PASSWORD, FactorId::OTP_EMAIL];
/// let check = |policy| check_reachable(&policy, &factors, &factors, None);
/// assert_eq!(check(Everyone::new(FactorId::OTP_EMAIL)), Ok(Reach::Whole));
/// assert!(check(Everyone::new(FactorId::WEBAUTHN)).is_err());
/// // Whoever signs in by e-mail has nothing left.
/// let second = Requirement::from(FactorId::OTP_EMAIL).excluding_first_factor();
/// assert!(check(Everyone::new(second)).is_err());
/// ```
pub fn check_reachable(
    policy: &impl MfaPolicy,
    usable: &[FactorId],
    first: &[FactorId],
    tenant: Option<&[FactorId]>,
) -> Result<Reach, Unreachable> {
    let declared = policy.declares(tenant);
    let problems = distinct(declared.lists.iter().flat_map(|list| list_problems(list, usable, first)));
    match problems.is_empty() {
        true if declared.whole => Ok(Reach::Whole),
        true => Ok(Reach::Partly),
        false => Err(Unreachable { problems }),
    }
}

fn list_problems(list: &Requirements, usable: &[FactorId], first: &[FactorId]) -> Vec<String> {
    let unknown = list.factors().into_iter().filter(|factor| !usable.contains(factor));
    let mut problems: Vec<String> = unknown
        .map(|factor| match factor.is_built_in() {
            true => format!("a policy demands the factor {factor}, which isn't installed"),
            false => format!(
                "a policy demands the factor {factor}, which nobody knows: add .custom_factor(..) if it is \
                 yours"
            ),
        })
        .collect();
    if !problems.is_empty() {
        return problems;
    }
    let list = &list.clone().among(usable.iter().cloned());
    let mut short = false;
    list.leaves(&mut |_, age| short |= age.is_some_and(|age| age < SHORTEST));
    if short {
        problems.push("a policy demands an age below two seconds, which nobody can keep".to_owned());
    }
    let impossible = |done: &CompletedFactors| -> Option<String> {
        let scope: Scope<'_> = list.scope(done, Timestamp::EPOCH);
        let item = list.items().iter().find(|item| item.ways(&scope).is_empty())?;
        Some(brief(item))
    };
    if let Some(item) = impossible(&CompletedFactors::new()) {
        problems.push(format!("a policy demands what nobody can meet: {item}"));
        return problems;
    }
    for factor in first {
        let done = CompletedFactors::from_iter([(factor.clone(), Timestamp::EPOCH)]);
        if let Some(item) = impossible(&done) {
            problems
                .push(format!("a policy demands what nobody can meet who signs in with {factor}: {item}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt as _;
    use proptest::{prelude::*, test_runner::TestRunner};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        base::ident::TenantId,
        policy::{
            AnyPolicy, Compose as _, Everyone, FixedFacts, ForRole, Nobody, OptIn, PolicyContext,
            PolicyError, TenantScoped, UserOrTenant, algebra::tests, may_set_up,
        },
    };

    fn ids(text: &str) -> Vec<FactorId> {
        text.split_whitespace().map(|id| FactorId::parse(id).unwrap()).collect()
    }

    fn everyone(items: Value) -> Everyone {
        Everyone::new(Requirements::from_json(&items).unwrap())
    }

    #[test]
    fn sec_p10_what_nobody_can_meet_is_an_error_at_the_start() {
        let (usable, first) = (ids("emailpassword otp-email totp own"), ids("emailpassword otp-email"));
        for (items, problem) in [
            (json!([]), None),
            (json!(["otp-email", {"oneOf": ["totp", "own"]}]), None),
            (json!(["webauthn"]), Some("webauthn, which isn't installed")),
            // One of several is a typo: nobody is stuck, but nobody meant it either.
            (json!([{"oneOf": ["otp-email", "otp_email"]}]), Some("otp_email, which nobody knows")),
            (
                json!([{"kOf": {"k": 3, "of": ["totp", "own"]}}]),
                Some("nobody can meet: any 3 of (totp, own)"),
            ),
            (json!(["totp", {"kOf": {"k": 1, "of": []}}]), Some("nobody can meet: any 1 of ()")),
            (
                json!([{"phishingResistant": {"oneOf": ["totp", "own"]}}]),
                Some("nobody can meet: one of (totp"),
            ),
            (json!([{"excludingFirstFactor": {"oneOf": ["totp", "otp-email"]}}]), None),
            (json!([{"excludingFirstFactor": "otp-email"}]), Some("who signs in with otp-email: otp-email")),
            (
                json!([{"excludingFirstFactor": {"kOf": {"k": 2, "of": ["emailpassword", "otp-email"]}}}]),
                Some("who signs in with emailpassword: any 2 of"),
            ),
            (json!([{"maxAge": {"seconds": 0, "of": "totp"}}]), Some("an age below two seconds")),
            (json!([{"maxAge": {"seconds": 1, "of": "totp"}}]), Some("an age below two seconds")),
            (json!([{"maxAge": {"seconds": 2, "of": "totp"}}]), None),
        ] {
            let checked = check_reachable(&everyone(items.clone()), &usable, &first, None);
            match problem {
                None => assert_eq!(checked, Ok(Reach::Whole), "{items}"),
                Some(text) => {
                    let said = checked.unwrap_err().to_string();
                    assert!(said.contains(text), "{items}: {said}");
                }
            }
        }
        let channels =
            everyone(json!([{"distinctChannels": {"allOfInAnyOrder": ["otp-email", "link-email"]}}]));
        check_reachable(&channels, &ids("otp-email link-email"), &[], None).unwrap_err();
        let aged = Everyone::new(Requirements::from(FactorId::TOTP).max_age(Duration::from_millis(1999)));
        check_reachable(&aged, &usable, &first, None).unwrap_err();
    }

    /// At whatever moment of its second a factor is completed, what is accepted leaves a second for the next request.
    #[test]
    fn the_shortest_age_leaves_a_second() {
        let passes = |age: Duration, at: u64, later: Duration| {
            let at = Timestamp::from_secs(1_702_877_939) + Duration::from_millis(at);
            let mut done = CompletedFactors::new();
            done.insert(FactorId::TOTP, at);
            Requirements::from(FactorId::TOTP).max_age(age).next(&done, at + later).is_none()
        };
        let second = Duration::from_secs(1);
        assert!((0..1000).all(|at| passes(SHORTEST, at, second)));
        assert!(!passes(second, 999, Duration::from_millis(2)));
    }

    #[test]
    fn what_policies_say_of_themselves() {
        let (usable, first) = (ids("emailpassword otp-email"), ids("emailpassword otp-email"));
        let second = Requirement::one_of(ids("emailpassword otp-email")).excluding_first_factor();
        let scoped = || ForRole::new("admin", second.clone()).where_tenant_asks();
        fn at(policy: &impl MfaPolicy, tenant: Option<&str>) -> (usize, bool) {
            let declared = policy.declares(tenant.map(ids).as_deref());
            (declared.lists().len(), declared.is_whole())
        }
        assert_eq!(at(&Nobody, None), (0, true));
        assert_eq!(at(&ForRole::new("admin", FactorId::TOTP), None), (1, true));
        assert_eq!(at(&OptIn, None), (0, false));
        assert_eq!(at(&UserOrTenant::new(), None), (0, false));
        assert_eq!(at(&UserOrTenant::new(), Some("totp")), (1, false));
        assert_eq!(at(&TenantScoped::new(OptIn), Some("totp")), (0, false));
        assert_eq!(at(&scoped(), None), (1, true));
        // A tenant's rule is judged by what the policy makes of it.
        let check = |tenant: &str| check_reachable(&scoped(), &usable, &first, Some(&ids(tenant)));
        assert_eq!(check("emailpassword otp-email"), Ok(Reach::Whole));
        assert!(check("otp-email").unwrap_err().to_string().contains("who signs in with otp-email"));
        let default = |tenant| check_reachable(&UserOrTenant::new(), &usable, &first, Some(&ids(tenant)));
        assert_eq!(default("otp-email"), Ok(Reach::Partly));
        default("totp otp-email").unwrap_err();
    }

    #[test]
    fn a_role_rule_that_drops_opt_ins_is_told_at_the_start() {
        let role = || ForRole::new("admin", FactorId::TOTP);
        assert_eq!(role().declares(None).warnings().len(), 1);
        assert_eq!(role().where_tenant_asks().declares(None).warnings().len(), 1);
        assert_eq!(role().and(Nobody).declares(None).warnings().len(), 1);
        assert_eq!(role().and(OptIn).declares(None).warnings(), [""; 0]);
        // Who isn't an admin is asked by neither.
        assert_eq!(role().or(OptIn).declares(None).warnings().len(), 1);
        assert_eq!(OptIn.or(role()).declares(None).warnings().len(), 1);
        assert_eq!(OptIn.or(UserOrTenant::new()).and(role()).declares(None).warnings(), [""; 0]);
        assert_eq!(UserOrTenant::new().and(role()).declares(None).warnings(), [""; 0]);
        let mixed = everyone(json!(["totp", {"oneOf": []}]));
        assert_eq!(mixed.declares(None).warnings().len(), 1, "row P09");
        assert_eq!(everyone(json!([{"oneOf": []}])).declares(None).warnings(), [""; 0]);
    }

    /// Random policies, put together from those that can say what they demand.
    fn policy() -> impl Strategy<Value = AnyPolicy> {
        async fn admin(ctx: &PolicyContext<'_>) -> Result<bool, PolicyError> {
            Ok(ctx.roles().await?.iter().any(|role| role.as_str() == "admin"))
        }
        let list = (prop::collection::vec(tests::requirement(), 0..3), any::<bool>())
            .prop_map(|(items, aged)| {
                let list = Requirements::from_iter(items);
                if aged { list.max_age(Duration::from_secs(60)) } else { list }
            })
            .boxed();
        let leaf = prop_oneof![
            1 => Just(AnyPolicy::new(Nobody)),
            4 => list.clone().prop_map(|list| AnyPolicy::new(Everyone::new(list))),
            2 => list.clone().prop_map(|list| AnyPolicy::new(ForRole::new("admin", list))),
            2 => list.prop_map(|list| AnyPolicy::new(TenantScoped::new(Everyone::new(list)))),
        ];
        leaf.prop_recursive(2, 4, 2, |inner| {
            let two = (inner.clone(), inner.clone());
            prop_oneof![
                two.clone().prop_map(|(one, other)| AnyPolicy::new(one.and(other))),
                two.clone().prop_map(|(one, other)| AnyPolicy::new(one.or(other))),
                two.prop_map(|(one, other)| AnyPolicy::new(one.strictest(other))),
                inner.clone().prop_map(|policy| AnyPolicy::new(policy.when(admin))),
                inner.clone().prop_map(|policy| AnyPolicy::new(policy.every_request())),
                inner.prop_map(|policy| AnyPolicy::new(policy.for_tenant(TenantId::PUBLIC))),
            ]
        })
    }

    type Texts = Vec<&'static str>;
    /// What can be completed, what the tenant asks for, what was completed, what is set up, whether the user is
    /// an admin, what the session began with, and what is chosen of each next step.
    type Case = (Texts, Texts, Texts, Texts, bool, prop::sample::Index, Vec<prop::sample::Index>);

    /// Under a policy that is accepted as a whole no state is a dead end: whoever the user is, whatever they
    /// have set up, and whatever was completed however long ago, what comes next can be done, and any choice
    /// of it leads to the end.
    #[test]
    fn what_is_accepted_has_no_dead_end() {
        let some = |least: usize| prop::sample::subsequence(&tests::FACTORS[..], least..=8);
        let choices = prop::collection::vec(any::<prop::sample::Index>(), 8);
        let (accepted, demanding) = (Cell::new(0), Cell::new(0));
        let state =
            (some(4), some(0), some(0), some(0), any::<bool>(), any::<prop::sample::Index>(), choices);
        let config = ProptestConfig { cases: 8192, ..ProptestConfig::default() };
        let walk = |(policy, state)| {
            let (usable, tenant, completed, set_up, admin, start, choices): Case = state;
            let policy: AnyPolicy = policy;
            let now = Timestamp::from_secs(1_702_877_939);
            let [usable, tenant, completed, mut set_up] =
                [usable, tenant, completed, set_up].map(|texts| ids(&texts.join(" ")));
            if check_reachable(&policy, &usable, &usable, Some(&tenant)) != Ok(Reach::Whole) {
                return Ok(());
            }
            accepted.set(accepted.get() + 1);
            set_up.retain(|factor| usable.contains(factor) && factor.is_built_in());
            // A session starts with a factor; then any of the others, new or long ago.
            let mut done = CompletedFactors::new();
            done.insert(start.get(&usable).clone(), now - Duration::from_secs(100));
            for (n, factor) in completed.into_iter().filter(|factor| usable.contains(factor)).enumerate() {
                done.insert(factor, now - Duration::from_secs(if n % 2 == 0 { 0 } else { 90 }));
            }
            for (n, choice) in choices.iter().enumerate() {
                let facts = FixedFacts::new("alice")
                    .roles(["admin"].into_iter().filter(|_| admin))
                    .required_for_tenant(tenant.clone())
                    .completed(done.clone())
                    .at(now);
                let context = PolicyContext::fixed(facts);
                let list = policy.requirements(&context).now_or_never().unwrap().unwrap();
                let list = list.among(usable.iter().cloned()).for_user_with(&set_up);
                let (Some(open), Some(next)) = (list.next_set(&done, now), list.next_step(&done, now)) else {
                    return Ok(());
                };
                demanding.set(demanding.get() + usize::from(n == 0));
                prop_assert!(!next.is_impossible(), "{:?} is stuck after {:?}", list, done);
                let factor = choice.get(&next.factors).clone();
                // It can be proved, or made and then proved (row F01), or it is the app's own.
                let can = set_up.contains(&factor)
                    || !factor.is_built_in()
                    || may_set_up(false, &open.factors, &set_up, &factor).is_ok();
                prop_assert!(can && usable.contains(&factor), "{} is out of reach in {:?}", factor, list);
                done.insert(factor.clone(), now);
                if factor.is_built_in() {
                    set_up.push(factor);
                }
            }
            let list = policy.declares(Some(&tenant));
            prop_assert!(false, "{:?} never ends", list);
            Ok(())
        };
        TestRunner::new(config).run(&(policy(), state), walk).unwrap();
        assert!(accepted.get() > 500 && demanding.get() > 200, "{} {}", accepted.get(), demanding.get());
    }
}
