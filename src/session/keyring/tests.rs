use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

/// Keys take long to make: all tests share a few.
pub(crate) fn pkcs8(which: usize) -> Vec<u8> {
    static MADE: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    let made = MADE.get_or_init(|| {
        (0..2)
            .map(|_| {
                let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
                let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                der.as_ref().to_vec()
            })
            .collect()
    });
    made[which].clone()
}

pub(crate) fn key(kid: &str, which: usize, times: KeyTimes) -> Arc<SigningKey> {
    Arc::new(SigningKey::import(kid, SigningAlg::Rs256, &pkcs8(which), times).unwrap())
}

fn hourly() -> Schedule {
    Schedule { rotation: HOUR, lead: Duration::from_secs(60), token_life: Duration::from_secs(600) }
}

#[test]
fn sec_j06_one_reload_in_five_seconds_whatever_comes() {
    let (gate, start) = (ReloadGate::default(), crate::base::time::monotonic());
    let mut reloads = 0;
    for n in 0..10_000_u64 {
        // 10 000 requests over 20 s; every reload finds nothing.
        let now = start + Duration::from_millis(2 * n);
        if gate.may_reload(&format!("k{n}"), now) {
            reloads += 1;
            gate.not_found(&format!("k{n}"), now);
        }
    }
    assert_eq!(reloads, 4);
    // An id that was not found causes none for a minute.
    let later = start + Duration::from_secs(30);
    gate.not_found("gone", later);
    assert!(!gate.may_reload("gone", later + Duration::from_secs(59)));
    assert!(gate.may_reload("gone", later + Duration::from_secs(60)));
    for n in 0..5_000 {
        gate.not_found(&format!("x{n}"), later);
    }
    assert_eq!(gate.gate.lock().unwrap().absent.len(), ReloadGate::ABSENT);
}

/// What the store's record would plan.
fn planned(keys: &[KeyTimes], now: Timestamp) -> Option<Timestamp> {
    plan(SigningAlg::Rs256, keys.iter().map(|times| (SigningAlg::Rs256, *times)), now, &hourly())
}

#[test]
fn sec_j07_the_plan_publishes_first_and_never_leaves_nobody_to_sign() {
    let schedule = hourly();
    let ring = |times: &[KeyTimes]| {
        Keyring::new(times.iter().enumerate().map(|(n, times)| key(&format!("k{n}"), 0, *times)))
    };
    let first = schedule.times(at(0), at(0));
    assert_eq!(planned(&[], at(5)), Some(at(5)));
    assert_eq!(planned(&[first], at(3479)), None);
    assert_eq!(planned(&[first], at(3480)), Some(at(3600)));
    // Late: the lead is kept, the old key bridges it.
    assert_eq!(planned(&[first], at(3590)), Some(at(3650)));
    let both = [first, schedule.times(at(3590), at(3650))];
    assert_eq!(ring(&both).signing(at(3649)).unwrap().kid(), "k0");
    assert_eq!(ring(&both).signing(at(3650)).unwrap().kid(), "k1");
    assert_eq!(planned(&both, at(3700)), None);
    // Nobody looked for long: a token must not outlive its key, so a new one signs at once.
    assert_eq!(planned(&[first], at(4199)), Some(at(4259)));
    assert!(ring(&[first]).signing(at(4200)).is_none());
    assert_eq!(planned(&[first], at(4200)), Some(at(4200)));
    assert_eq!(planned(&[first], at(86_400)), Some(at(86_400)));
    assert_eq!(ring(&[first]).max_age(at(0), &schedule), 3480);
    assert_eq!(ring(&[first]).max_age(at(3599), &schedule), 1);
    assert_eq!(ring(&[]).max_age(at(0), &schedule), 60);
    assert_eq!(ring(&[first]).jwks(at(4799))["keys"].as_array().unwrap().len(), 1);
    assert_eq!(ring(&[first]).jwks(at(4800)), json!({"keys": []}));
}

#[test]
fn sec_j02_secrets_and_public_keys_never_share_a_set() {
    let times = hourly().times(at(0), at(0));
    let all = [SigningAlg::Rs256, SigningAlg::EdDsa, SigningAlg::Es256, SigningAlg::Hs256];
    let keys = all.map(|alg| Arc::new(SigningKey::generate(alg.name().to_owned(), alg, times).unwrap()));
    for alg in all {
        let ring = Keyring::of(alg, keys.iter().cloned());
        let held: Vec<&str> = ring.keys.keys().map(String::as_str).collect();
        match alg {
            SigningAlg::Hs256 => assert_eq!(held, ["HS256"]),
            _ => assert_eq!(held, ["ES256", "EdDSA", "RS256"]),
        }
        assert_eq!(ring.signing(at(1)).unwrap().alg(), alg);
        let published = ring.jwks(at(1))["keys"].as_array().unwrap().len();
        assert_eq!(published, if alg == SigningAlg::Hs256 { 0 } else { 3 });
        assert_eq!(ring.without(&["HS256".to_owned(), "EdDSA".to_owned()]).keys.len(), held.len() - 1);
    }
}

#[test]
fn another_algorithm_is_published_first_unless_there_is_no_bridge() {
    let old = hourly().times(at(0), at(0));
    let switched = |to, keys: &[Slot], now| plan(to, keys.iter().copied(), now, &hourly());
    let rs = (SigningAlg::Rs256, old);
    assert_eq!(switched(SigningAlg::EdDsa, &[rs], at(100)), Some(at(160)));
    let ed = (SigningAlg::EdDsa, hourly().times(at(100), at(160)));
    // Each algorithm has its own plan, so two configurations at once don't chase each other.
    assert_eq!(switched(SigningAlg::EdDsa, &[rs, ed], at(200)), None);
    assert_eq!(switched(SigningAlg::Rs256, &[rs, ed], at(200)), None);
    let signs = |alg, now| signer(alg, [(rs, "rs"), (ed, "ed")], now);
    assert_eq!(signs(SigningAlg::EdDsa, at(159)), Some("rs"));
    assert_eq!(signs(SigningAlg::EdDsa, at(160)), Some("ed"));
    assert_eq!(signs(SigningAlg::Rs256, at(160)), Some("rs"));
    assert_eq!(signs(SigningAlg::Hs256, at(160)), None);
    // To a secret and back there is none: it signs at once.
    assert_eq!(switched(SigningAlg::Hs256, &[rs, ed], at(200)), Some(at(200)));
    let hs = (SigningAlg::Hs256, hourly().times(at(200), at(200)));
    assert_eq!(switched(SigningAlg::Hs256, &[rs, ed, hs], at(201)), None);
    assert_eq!(switched(SigningAlg::Es256, &[hs], at(201)), Some(at(201)));
}

#[test]
fn sec_j08_a_key_that_was_taken_out_is_gone_with_the_swap() {
    let keys = Keys::default();
    let times = hourly().times(at(0), at(0));
    let (one, two) = (key("k1", 0, times), key("k2", 1, times));
    assert!(keys.replace(Keyring::new([Arc::clone(&one), Arc::clone(&two)])));
    let held = keys.current();
    assert!(keys.replace(Keyring::new([Arc::clone(&two)])));
    assert!(keys.current().find("k1").is_none() && keys.current().find("k2").is_some());
    assert!(held.find("k1").is_some(), "a request sees one set from start to end");
    // The same set again is no change.
    let before = keys.current();
    assert!(!keys.replace(Keyring::new([two])));
    assert!(Arc::ptr_eq(&before, &keys.current()));
}
