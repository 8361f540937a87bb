use super::{input::BadInput, *};

const KEY: [u8; 32] = [7; 32];

fn otp() -> Otp {
    Otp::new(OtpSettings::default(), Peppers::new("p1", Zeroizing::new(KEY)))
}

fn now() -> Timestamp {
    Timestamp::from_secs(1_700_000_000)
}

fn tenant(text: &str) -> TenantId {
    TenantId::parse(text).unwrap()
}

fn session(digit: char) -> SessionHandle {
    let text = "00000000-0000-4000-8000-00000000000";
    SessionHandle::parse(&format!("{text}{digit}")).unwrap()
}

fn first(form: Form) -> Begin {
    Begin {
        tenant: TenantId::PUBLIC,
        purpose: Purpose::FirstFactor,
        session: None,
        user: None,
        factor: FactorId::OTP_EMAIL,
        contact: Contact::parse("a@shop.example").unwrap(),
        form,
        generation: 0,
        decoy: false,
    }
}

fn second() -> Begin {
    Begin {
        purpose: Purpose::SecondFactor,
        session: Some(session('a')),
        user: Some(UserId::parse("alice").unwrap()),
        ..first(Form::Code)
    }
}

const FIRST: Origin<'_> = Origin {
    tenant: &TenantId::PUBLIC,
    purpose: Purpose::FirstFactor,
    session: None,
    user: None,
    generation: 0,
};

fn typed(text: &str) -> Presented {
    Presented::Code(CodeInput::parse(text, 6).unwrap())
}

fn clicked(text: &str) -> Presented {
    Presented::Link(LinkInput::parse(text).unwrap())
}

fn digits(fresh: &Fresh) -> &str {
    fresh.code.as_ref().unwrap().expose()
}

/// A code that isn't the right one.
fn other(text: &str) -> String {
    let number: u32 = text.parse().unwrap();
    format!("{:06}", (number + 1) % 1_000_000)
}

/// Charges and compares, as the flow above does.
fn guess(otp: &Otp, code: &mut Code, presented: &Presented, at: Timestamp) -> Result<Mac, Refused> {
    let attempt = otp.decide(code, &FIRST, presented, at);
    if attempt.is_charged() {
        code.charge();
    }
    let matched = match attempt {
        Attempt::Compare => otp.compare(code, presented),
        _ => None,
    };
    matched.ok_or_else(|| refuse(attempt, code, presented))
}

#[test]
fn wire_vector_of_the_flow_id() {
    let raw: Vec<u8> = (0..32).collect();
    let device = hash::base64url(&raw);
    assert_eq!(FlowId::of(&raw).as_str(), "Yw3NKWbEM2aRElRIu7JbT_QSpJxzLbLIq8G4WBvXEN0");
    let flow = locate("Yw3NKWbEM2aRElRIu7JbT_QSpJxzLbLIq8G4WBvXEN0", Some(&device)).unwrap();
    assert_eq!(flow, FlowId::of(&raw));
}

#[test]
fn what_names_no_flow() {
    let raw: Vec<u8> = (0..32).collect();
    let (device, flow) = (hash::base64url(&raw), FlowId::of(&raw));
    let strange = hash::base64url(&[9; 32]);
    for (pre_auth, device) in [
        ("", Some("")),
        ("", Some(device.as_str())),
        (flow.as_str(), Some("")),
        (flow.as_str(), Some(strange.as_str())),
        (flow.as_str(), Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")),
        (flow.as_str(), Some("AAEC")),
        (strange.as_str(), Some(device.as_str())),
        ("Yw3NKWbEM2aRElRIu7JbT_QSpJxzLbLIq8G4WBvXEN0=", None),
        ("Yw3NKWbEM2aRElRIu7JbT_QSpJxzLbLIq8G4WBvXEN1", None),
        ("Yw3N", None),
        ("../../x", None),
    ] {
        assert_eq!(locate(pre_auth, device), None, "{pre_auth} {device:?}");
    }
    assert_eq!(locate(strange.as_str(), None).unwrap().as_str(), strange);
}

#[test]
fn sec_o01_ids_are_long_random_and_url_safe() {
    let otp = otp();
    let (one, two) =
        (otp.begin(first(Form::Both), now()).unwrap(), otp.begin(first(Form::Both), now()).unwrap());
    for text in [one.device.expose(), one.code.id.as_str(), one.fresh.link.as_ref().unwrap().expose()] {
        assert_eq!(hash::from_base64url(text).unwrap().len(), 32);
    }
    assert_eq!(locate(one.code.id.as_str(), Some(one.device.expose())), Some(one.code.id.clone()));
    assert_eq!(locate(one.code.id.as_str(), Some(two.device.expose())), None);
    assert_eq!(digits(&one.fresh).len(), 6);
    let forms = [(Form::Code, true, false), (Form::Link, false, true), (Form::Both, true, true)];
    for (form, code, link) in forms {
        let fresh = otp.begin(first(form), now()).unwrap().fresh;
        assert_eq!((fresh.code.is_some(), fresh.link.is_some()), (code, link), "{form:?}");
    }
}

#[test]
fn sec_o02_the_record_gives_no_code() {
    let otp = otp();
    let begun = otp.begin(first(Form::Both), now()).unwrap();
    let stored = serde_json::to_string(&begun.code).unwrap();
    let (code, link) = (digits(&begun.fresh), begun.fresh.link.as_ref().unwrap().expose());
    for secret in [code, link, begun.device.expose()] {
        assert!(!stored.contains(secret) && !format!("{begun:?} {otp:?}").contains(secret));
    }
    // Without the pepper, all codes tried one by one find nothing; a wrong pepper is no better.
    let mac_of = |key: &[u8; 32], text: &str| mac(key, CODE, &begun.code.id, text);
    let stored = begun.code.issues[0].code.as_ref().unwrap();
    assert_eq!(mac_of(&KEY, code), *stored);
    assert!((0..1_000_000).all(|n| mac_of(&[0; 32], &format!("{n:06}")) != *stored));
    assert_ne!(mac_of(&[0; 32], code), *stored);
    // The same code in another flow has another MAC, and a code is no link.
    assert_ne!(mac(&KEY, CODE, &FlowId::of(b"other"), code), *stored);
    assert_ne!(mac(&KEY, LINK, &begun.code.id, code), *stored);
}

#[test]
fn sec_o03_an_old_pepper_checks_and_an_unknown_one_restarts() {
    let begun = otp().begin(first(Form::Code), now()).unwrap();
    let right = typed(digits(&begun.fresh));
    let rotated = Otp::new(
        OtpSettings::default(),
        Peppers::new("p2", Zeroizing::new([8; 32])).with_old("p1", Zeroizing::new(KEY)),
    );
    guess(&rotated, &mut begun.code.clone(), &right, now()).unwrap();
    let mut both = begun.code.clone();
    let newer = rotated.resend(&mut both, now()).unwrap();
    assert_eq!(both.issues.iter().map(|issue| issue.pepper.as_str()).collect::<Vec<_>>(), ["p1", "p2"]);
    guess(&rotated, &mut both.clone(), &right, now()).unwrap();
    guess(&rotated, &mut both.clone(), &typed(digits(&newer)), now()).unwrap();
    let lost = Otp::new(OtpSettings::default(), Peppers::new("p2", Zeroizing::new([8; 32])));
    assert_eq!(lost.decide(&begun.code, &FIRST, &right, now()), Attempt::Restart { charge: false });
    assert_eq!(lost.comparisons(), 0);
    // What the known pepper made still counts.
    guess(&lost, &mut both, &typed(digits(&newer)), now()).unwrap();
}

#[test]
fn sec_o04_the_fifth_wrong_code_ends_the_flow() {
    let otp = otp();
    let Begun { mut code, fresh, .. } = otp.begin(first(Form::Code), now()).unwrap();
    let wrong = typed(&other(digits(&fresh)));
    for failed in 1..=4 {
        let refused = guess(&otp, &mut code, &wrong, now()).unwrap_err();
        assert_eq!(refused, Refused::Incorrect { failed, max: 5 });
    }
    assert_eq!(guess(&otp, &mut code, &wrong, now()).unwrap_err(), Refused::Restart);
    // From here on nothing is compared, not even the right one, and the row stays as it is.
    let kept = code.clone();
    let right = typed(digits(&fresh));
    assert_eq!(guess(&otp, &mut code, &right, now()).unwrap_err(), Refused::Restart);
    assert_eq!((code, otp.comparisons()), (kept, 5));
}

#[test]
fn sec_o09_resending_gives_no_new_guesses_and_no_new_time() {
    let otp = otp();
    let Begun { mut code, fresh, .. } = otp.begin(first(Form::Code), now()).unwrap();
    let wrong = typed("x");
    let _ = guess(&otp, &mut code, &wrong, now());
    let (attempts, expires_at) = (code.attempts, code.expires_at);
    let mut messages = vec![fresh];
    for n in 1..=5 {
        let at = now() + Duration::from_secs(n * 60);
        assert!(may_resend(&code, &FIRST, otp.settings(), at));
        let fresh = otp.resend(&mut code, at).unwrap();
        assert_eq!(fresh.valid_for, Duration::from_secs(600 - n * 60));
        messages.push(fresh);
    }
    assert!(!may_resend(&code, &FIRST, otp.settings(), now()));
    assert_eq!((code.attempts, code.expires_at, code.issues.len()), (attempts, expires_at, 2));
    let live: Vec<bool> =
        messages.iter().map(|fresh| otp.compare(&code, &typed(digits(fresh))).is_some()).collect();
    // Two codes out of a million may be equal; then an old one is a live one.
    let newest = [digits(&messages[4]), digits(&messages[5])];
    let want: Vec<bool> = messages.iter().map(|fresh| newest.contains(&digits(fresh))).collect();
    assert_eq!(live, want);
}

#[test]
fn resends_end_with_the_flow() {
    let otp = otp();
    let code = otp.begin(second(), now()).unwrap().code;
    let (user, handle, stranger) = (UserId::parse("alice").unwrap(), session('a'), session('b'));
    let good = Origin { purpose: Purpose::SecondFactor, session: Some(&handle), user: Some(&user), ..FIRST };
    let ask = |code: &Code, origin: &Origin<'_>, secs: u64| {
        may_resend(code, origin, otp.settings(), now() + Duration::from_secs(secs))
    };
    assert!(ask(&code, &good, 599));
    assert!(!ask(&code, &good, 600));
    assert!(!ask(&code, &FIRST, 0));
    assert!(!ask(&code, &Origin { session: Some(&stranger), ..good }, 0));
    assert!(!ask(&code, &Origin { tenant: &tenant("other"), ..good }, 0));
    assert!(!ask(&code, &Origin { generation: 1, ..good }, 0));
    assert!(!ask(&Code { state: State::Consumed, ..code.clone() }, &good, 0));
    assert!(!ask(&Code { attempts: 5, ..code }, &good, 0));
}

#[test]
fn sec_o10_expiry_to_the_millisecond() {
    let otp = otp();
    let Begun { code, fresh, .. } = otp.begin(first(Form::Both), now()).unwrap();
    let (right, wrong) = (typed(digits(&fresh)), typed(&other(digits(&fresh))));
    let link = clicked(fresh.link.as_ref().unwrap().expose());
    let last = now() + Duration::from_millis(599_999);
    let over = now() + Duration::from_secs(600);
    guess(&otp, &mut code.clone(), &right, last).unwrap();
    guess(&otp, &mut code.clone(), &link, last).unwrap();
    let compared = otp.comparisons();
    let mut charged = code.clone();
    for (failed, presented) in (1..).zip([&right, &wrong, &right, &typed("")]) {
        let refused = guess(&otp, &mut charged, presented, over).unwrap_err();
        assert_eq!(refused, Refused::Expired { failed, max: 5 });
    }
    assert_eq!(guess(&otp, &mut charged, &right, over).unwrap_err(), Refused::Restart);
    assert_eq!(guess(&otp, &mut code.clone(), &link, over).unwrap_err(), Refused::Restart);
    assert_eq!((charged.attempts, otp.comparisons()), (5, compared));
}

#[test]
fn sec_o11_purpose() {
    let (otp, user) = (otp(), UserId::parse("alice").unwrap());
    let right = typed("123456");
    for (begin, made) in [(first(Form::Code), Purpose::FirstFactor), (second(), Purpose::SecondFactor)] {
        let bound = begin.session.clone();
        let code = otp.begin(begin, now()).unwrap().code;
        for at in [Purpose::FirstFactor, Purpose::SecondFactor] {
            let origin = Origin { purpose: at, session: bound.as_ref(), user: Some(&user), ..FIRST };
            let want = if at == made { Attempt::Compare } else { Attempt::Restart { charge: true } };
            assert_eq!(otp.decide(&code, &origin, &right, now()), want, "{made:?} at {at:?}");
        }
    }
    assert!(!Attempt::Restart { charge: true }.takes_budget());
}

#[test]
fn sec_o12_session_three_by_three() {
    let (otp, a, b) = (otp(), session('a'), session('b'));
    let user = UserId::parse("alice").unwrap();
    let sessions = [None, Some(&a), Some(&b)];
    for made in sessions {
        let begin = Begin { session: made.cloned(), user: Some(user.clone()), ..second() };
        let code = otp.begin(begin, now()).unwrap().code;
        for used in sessions {
            let origin = Origin { purpose: Purpose::SecondFactor, session: used, user: Some(&user), ..FIRST };
            let want = if made == used { Attempt::Compare } else { Attempt::Restart { charge: false } };
            assert_eq!(otp.decide(&code, &origin, &typed("123456"), now()), want, "{made:?} {used:?}");
        }
    }
}

#[test]
fn sec_o15_another_users_code() {
    let (otp, handle) = (otp(), session('a'));
    let code = otp.begin(second(), now()).unwrap().code;
    let mallory = UserId::parse("mallory").unwrap();
    for user in [None, Some(&mallory)] {
        let origin = Origin { purpose: Purpose::SecondFactor, session: Some(&handle), user, ..FIRST };
        let want = Attempt::Restart { charge: false };
        assert_eq!(otp.decide(&code, &origin, &typed("123456"), now()), want, "{user:?}");
    }
}

#[test]
fn sec_o13_tenant() {
    let otp = otp();
    let code = otp.begin(first(Form::Code), now()).unwrap().code;
    let shop = tenant("shop");
    let origin = Origin { tenant: &shop, ..FIRST };
    assert_eq!(otp.decide(&code, &origin, &typed("123456"), now()), Attempt::Restart { charge: false });
}

#[test]
fn sec_o19_code_values() {
    for (text, want) in [
        ("123456", Ok(Some("123456"))),
        ("000000", Ok(Some("000000"))),
        ("  123456 ", Ok(Some("123456"))),
        ("", Ok(None)),
        (" ", Ok(None)),
        ("12345", Ok(None)),
        ("1234567", Ok(None)),
        ("123 456", Ok(None)),
        ("123456\n", Ok(None)),
        ("\t123456", Ok(None)),
        ("\u{A0}123456", Ok(None)),
        ("12345a", Ok(None)),
        ("-12345", Ok(None)),
        ("+12345", Ok(None)),
        ("１２３４５６", Ok(None)),
        ("١٢٣٤٥٦", Ok(None)),
        ("123456\0", Ok(None)),
        (&"1".repeat(64), Ok(None)),
        (&"1".repeat(65), Err(BadInput)),
        (&" ".repeat(64), Ok(None)),
        (&" ".repeat(65), Err(BadInput)),
        (&"1".repeat(1 << 20), Err(BadInput)),
    ] {
        let read = CodeInput::parse(text, 6).map(|input| input.0.map(|text| text.expose().clone()));
        assert_eq!(read.as_ref().map(|text| text.as_deref()), want.as_ref().map(|text| *text), "{text:.70}");
    }
    // Charged like any wrong code, never compared, answered like one.
    let otp = otp();
    let mut code = otp.begin(first(Form::Code), now()).unwrap().code;
    assert!(Attempt::Malformed.is_charged() && Attempt::Malformed.takes_budget());
    for (failed, text) in (1..).zip(["", "12345", "abcdef"]) {
        let refused = guess(&otp, &mut code, &typed(text), now()).unwrap_err();
        assert_eq!(refused, Refused::Incorrect { failed, max: 5 });
    }
    assert_eq!(otp.comparisons(), 0);
}

#[test]
fn sec_o19_empty_never_matches() {
    let otp = otp();
    let mut code = otp.begin(first(Form::Code), now()).unwrap().code;
    code.issues[0].code = Some(mac(&KEY, CODE, &code.id, ""));
    assert_eq!(otp.compare(&code, &typed("")), None);
    code.issues[0].code = Some(Mac(String::new()));
    assert_eq!(otp.compare(&code, &typed("123456")), None);
}

#[test]
fn sec_o20_all_live_codes_are_compared_every_time() {
    let otp = otp();
    let Begun { mut code, fresh, .. } = otp.begin(first(Form::Both), now()).unwrap();
    let newer = otp.resend(&mut code, now()).unwrap();
    let wrong = typed("x");
    for (presented, seen) in [
        (typed(digits(&fresh)), 2),
        (typed(digits(&newer)), 2),
        (typed("000000"), 2),
        (clicked(fresh.link.as_ref().unwrap().expose()), 2),
        (clicked(newer.link.as_ref().unwrap().expose()), 2),
        (wrong, 0),
    ] {
        assert_eq!(otp.against_all(&code, &presented).1, seen, "{presented:?}");
    }
}

#[test]
fn sec_o08_what_matched_is_spent_once() {
    let otp = otp();
    let Begun { mut code, fresh, .. } = otp.begin(first(Form::Both), now()).unwrap();
    let by_link = guess(&otp, &mut code, &clicked(fresh.link.as_ref().unwrap().expose()), now()).unwrap();
    let by_code = guess(&otp, &mut code, &typed(digits(&fresh)), now()).unwrap();
    assert!(code.consume(&by_code, 0));
    assert!(!code.consume(&by_code, 0) && !code.consume(&by_link, 0));
    let again = guess(&otp, &mut code, &typed(digits(&fresh)), now()).unwrap_err();
    assert_eq!(again, Refused::Restart);
}

#[test]
fn sec_o23_links() {
    let otp = otp();
    let Begun { mut code, fresh, .. } = otp.begin(first(Form::Link), now()).unwrap();
    let link = fresh.link.as_ref().unwrap().expose();
    // A wrong link is charged and ends in a restart; a code is none, nor is a link of another flow.
    let strange = otp.begin(first(Form::Link), now()).unwrap().fresh.link.unwrap();
    for text in [strange.expose().as_str(), "", "123456"] {
        assert_eq!(guess(&otp, &mut code, &clicked(text), now()).unwrap_err(), Refused::Restart);
    }
    assert_eq!(code.attempts, 3);
    guess(&otp, &mut code, &clicked(link), now()).unwrap();
    LinkInput::parse(&"x".repeat(65)).unwrap_err();
    assert_eq!(code.completes(true), FactorId::LINK_EMAIL);
    assert_eq!(code.completes(false), FactorId::OTP_EMAIL);
}

#[test]
fn sec_o24_a_decoy_answers_like_any_flow() {
    let otp = otp();
    let begin = Begin { decoy: true, ..first(Form::Code) };
    let Begun { mut code, fresh, .. } = otp.begin(begin, now()).unwrap();
    let right = typed(digits(&fresh));
    for failed in 1..=4 {
        let refused = guess(&otp, &mut code, &right, now()).unwrap_err();
        assert_eq!(refused, Refused::Incorrect { failed, max: 5 });
    }
    assert_eq!(guess(&otp, &mut code, &right, now()).unwrap_err(), Refused::Restart);
    assert_eq!(otp.comparisons(), 5);
}

#[test]
fn settings_that_cannot_be_served() {
    let good = OtpSettings::default();
    assert!(good.problems().is_empty());
    for bad in [
        OtpSettings { digits: 5, ..good },
        OtpSettings { digits: 11, ..good },
        OtpSettings { lifetime: Duration::from_secs(901), ..good },
        OtpSettings { lifetime: Duration::ZERO, ..good },
        OtpSettings { max_attempts: 0, ..good },
        OtpSettings { max_attempts: 11, ..good },
        OtpSettings { max_resends: 6, ..good },
    ] {
        assert_eq!(bad.problems().len(), 1, "{bad:?}");
    }
}
