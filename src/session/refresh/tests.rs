use super::*;
use crate::{base::ident::TenantId, model::session::SUPERSEDED};

const GRACE: Duration = Duration::from_secs(30);
const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn keys() -> RefreshKeys {
    RefreshKeys::derive(&[7; 32])
}

fn first() -> RefreshToken {
    let handle = SessionHandle::random(&TenantId::parse("shop").unwrap()).unwrap();
    RefreshToken::random(handle, UserId::parse("Zoë, 1").unwrap(), &keys()).unwrap()
}

fn line(current: &RefreshToken) -> Lineage {
    Lineage {
        current: current.hash2(),
        previous: None,
        superseded: Vec::new(),
        salt: salt().unwrap(),
        half_until: None,
        expires_at: START + YEAR,
        absolute_until: START + YEAR,
    }
}

fn judge(lineage: &Lineage, token: &RefreshToken, now: Timestamp) -> Refresh {
    decide(lineage, false, &token.hash2(), now, GRACE)
}

fn rotate(lineage: &Lineage, token: &RefreshToken, now: Timestamp) -> (Lineage, RefreshToken) {
    let next = child(&keys(), &lineage.salt, token);
    (rotated(lineage, &next, now, START + YEAR), next)
}

fn elevate(lineage: &Lineage, token: &RefreshToken, now: Timestamp) -> (Lineage, RefreshToken) {
    let next = elevated(&keys(), &lineage.salt, token.handle(), token.user(), &token.hash1());
    (raised(lineage, &next, now, GRACE), next)
}

fn after(secs: u64) -> Timestamp {
    START + Duration::from_secs(secs)
}

#[test]
fn sec_r01_shape() {
    let token = first();
    let text = token.text();
    assert!(
        text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~')),
        "{text}"
    );
    let again = RefreshToken::parse(text, &keys()).unwrap();
    assert_eq!((again.handle(), again.user()), (token.handle(), token.user()));
    assert_eq!(again.hash1(), hash::sha256_hex(text.as_bytes()));
    assert_eq!(again.hash2(), hash::sha256_hex(again.hash1().as_bytes()));
    let debug = format!("{token:?} {:?} {:?}", keys(), line(&token));
    assert!(!debug.contains(text) && !debug.contains(&token.hash2()) && !debug.contains(&line(&token).salt));
    let long =
        RefreshToken::random(token.handle().clone(), UserId::parse(&"u".repeat(128)).unwrap(), &keys());
    assert!(RefreshToken::parse(long.unwrap().text(), &keys()).is_some());
}

#[test]
fn sec_r12_only_what_we_made_is_a_token() {
    let token = first();
    let text = token.text().to_owned();
    let parts: Vec<&str> = text.split('.').collect();
    let other = hash::base64url(&[0; 32]);
    let with = |at: usize, part: &str| {
        let mut parts = parts.clone();
        parts[at] = part;
        parts.join(".")
    };
    for bad in [
        String::new(),
        "x".repeat(1 << 20),
        text[..text.len() - 1].to_owned(),
        format!("{text}A"),
        format!("{text}."),
        format!("{text}.x"),
        format!("{text}="),
        text.to_uppercase(),
        with(0, "2"),
        with(1, first().handle().as_str()),
        with(2, &hash::base64url(b"mallory")),
        with(2, ""),
        with(3, &other),
        with(3, ""),
        with(4, &other),
        with(4, ""),
        "eyJhbGciOiJSUzI1NiJ9.e30.AA".to_owned(),
    ] {
        assert!(RefreshToken::parse(&bad, &keys()).is_none(), "{bad}");
    }
    assert!(RefreshToken::parse(&text, &RefreshKeys::derive(&[8; 32])).is_none());
}

#[test]
fn sec_r12_every_changed_letter_is_noticed() {
    let text = first().text().to_owned();
    for at in 0..text.len() {
        for letter in ["A", "b", "0", "-", "."] {
            let mut edited = text.clone();
            edited.replace_range(at..=at, letter);
            assert!(edited == text || RefreshToken::parse(&edited, &keys()).is_none(), "{at} {letter}");
        }
    }
}

#[test]
fn sec_r03_s02_d_successors_are_derived_and_apart() {
    let (token, salt) = (first(), salt().unwrap());
    let next = child(&keys(), &salt, &token);
    assert_eq!(next.text(), child(&keys(), &salt, &token).text());
    assert!(RefreshToken::parse(next.text(), &keys()).is_some());
    let up = |keys: &RefreshKeys, salt: &str, hash1: &str| {
        elevated(keys, salt, token.handle(), token.user(), hash1).text().to_owned()
    };
    let raised = up(&keys(), &salt, &token.hash1());
    assert_eq!(raised, up(&keys(), &salt, &token.hash1()));
    let others = [
        token.text().to_owned(),
        next.text().to_owned(),
        child(&keys(), "other salt", &token).text().to_owned(),
        child(&RefreshKeys::derive(&[8; 32]), &salt, &token).text().to_owned(),
        up(&keys(), "other salt", &token.hash1()),
        up(&RefreshKeys::derive(&[8; 32]), &salt, &token.hash1()),
        up(&keys(), &salt, &token.hash2()),
        up(&keys(), &salt, token.text()),
    ];
    for (n, other) in others.iter().enumerate() {
        assert_ne!(*other, raised, "{n}");
        assert!(others[n + 1..].iter().all(|more| more != other), "{n}");
    }
}

#[test]
fn sec_x03_the_anti_csrf_token_goes_with_the_refresh_token() {
    let token = first();
    let csrf = token.anti_csrf(&keys());
    assert_eq!((csrf.len(), &csrf), (22, &token.clone().anti_csrf(&keys())));
    assert_ne!(csrf, child(&keys(), "s", &token).anti_csrf(&keys()));
    assert_ne!(csrf, token.anti_csrf(&RefreshKeys::derive(&[8; 32])));
}

#[test]
fn re_delivery_finds_the_key_that_made_the_successor() {
    let (token, new) = (first(), RefreshKeys::derive(&[8; 32]));
    let (lineage, next) = rotate(&line(&token), &token, START);
    let both = [new, keys()];
    let found = redeliver(&both, &lineage, |keys| child(keys, &lineage.salt, &token)).unwrap();
    assert_eq!(found.text(), next.text());
    assert!(redeliver(&both[..1], &lineage, |keys| child(keys, &lineage.salt, &token)).is_none());
}

#[test]
fn sec_r02_r03_r06_r07_the_line() {
    let p0 = first();
    let l0 = line(&p0);
    assert_eq!(judge(&l0, &p0, START), Refresh::Rotate);
    let (l1, p1) = rotate(&l0, &p0, START);
    assert_eq!(judge(&l1, &p0, START + GRACE), Refresh::Replay);
    assert_eq!(judge(&l1, &p0, START - GRACE), Refresh::Replay);
    assert_eq!(judge(&l1, &p0, START + GRACE + Duration::from_millis(1)), Refresh::Theft(Reuse::Recent));
    assert_eq!(judge(&l1, &p1, START), Refresh::Rotate);
    // Once the successor was used, the window of its parent is shut.
    let (l2, p2) = rotate(&l1, &p1, after(1));
    assert_eq!(judge(&l2, &p0, after(2)), Refresh::Theft(Reuse::Older));
    assert_eq!(judge(&l2, &p1, after(2)), Refresh::Replay);
    assert_eq!(judge(&l2, &p2, after(2)), Refresh::Rotate);
    assert_eq!(decide(&l2, false, &p1.hash2(), after(2), Duration::ZERO), Refresh::Theft(Reuse::Recent));
    assert_eq!(decide(&l2, false, &p1.hash2(), after(1), Duration::ZERO), Refresh::Replay);
}

#[test]
fn sec_r11_r14_ends_come_before_everything() {
    let p0 = first();
    let (lineage, p1) = rotate(&line(&p0), &p0, START);
    let half = Lineage { half_until: Some(after(900)), ..lineage.clone() };
    let short = Lineage { expires_at: after(50), absolute_until: after(60), ..lineage.clone() };
    for token in [&p0, &p1, &first()] {
        let at = |lineage, dead, now| decide(lineage, dead, &token.hash2(), now, GRACE);
        assert_eq!(at(&lineage, true, START), Refresh::Ended(End::Dead));
        assert_eq!(at(&half, false, after(900)), Refresh::Ended(End::Half));
        assert_ne!(at(&half, false, after(899)), Refresh::Ended(End::Half));
        assert_eq!(at(&short, false, after(50)), Refresh::Ended(End::Expired));
        assert_eq!(at(&short, false, after(60)), Refresh::Ended(End::Absolute));
    }
    // The absolute end caps the sliding one, and no refresh moves it or the half one.
    let capped = Lineage { absolute_until: after(100), half_until: Some(after(90)), ..lineage };
    let next = rotated(&capped, &p1, START, after(500));
    assert_eq!(
        (next.expires_at, next.absolute_until, next.half_until),
        (after(100), after(100), Some(after(90)))
    );
    assert_eq!(next.ends_at(), after(90));
}

/// 400 days of a refresh an hour, with the lives of the defaults: the end that was set at the start stays.
#[test]
fn sec_r11_no_refresh_moves_the_absolute_end() {
    const HOUR: Duration = Duration::from_secs(3600);
    let (keys, mut token, mut now) = ([keys()], first(), START);
    let mut lineage = Lineage { expires_at: START + 2400 * HOUR, ..line(&token) };
    let mut refreshed = 0;
    for _ in 0..400 * 24 {
        now = now + HOUR;
        match judge(&lineage, &token, now) {
            Refresh::Rotate => {
                (token, lineage) = super::rotate(&lineage, &keys, &token, now, now + 2400 * HOUR).unwrap();
                assert!(lineage.ends_at() <= START + YEAR);
                refreshed += 1;
            }
            over => assert_eq!((over, now >= START + YEAR), (Refresh::Ended(End::Absolute), true)),
        }
    }
    assert_eq!((refreshed, lineage.absolute_until), (365 * 24 - 1, START + YEAR));
}

#[test]
fn sec_s02_b_what_an_elevation_leaves_behind() {
    let p0 = first();
    let (l1, e1) = elevate(&line(&p0), &p0, START);
    // (a): no re-delivery; (b): 409, then the end, theft once the new one was used.
    assert_eq!(judge(&l1, &p0, START + GRACE), Refresh::Superseded);
    let late = START + GRACE + Duration::from_millis(1);
    assert_eq!(judge(&l1, &p0, late), Refresh::Ended(End::PreElevation));
    assert_eq!(judge(&l1, &e1, late), Refresh::Rotate);
    let (l2, e2) = rotate(&l1, &e1, after(5));
    assert_eq!(judge(&l2, &p0, after(6)), Refresh::Theft(Reuse::Older));
    assert_eq!(judge(&l2, &e1, after(6)), Refresh::Replay);
    assert_eq!(judge(&l2, &e2, after(6)), Refresh::Rotate);
    // A token before the current, in its window at the elevation; and one that was not.
    let (l1, p1) = rotate(&line(&p0), &p0, START);
    let (in_window, _) = elevate(&l1, &p1, after(10));
    assert_eq!(judge(&in_window, &p0, after(30)), Refresh::Superseded);
    assert_eq!(judge(&in_window, &p0, after(31)), Refresh::Ended(End::PreElevation));
    assert_eq!(judge(&in_window, &p1, after(40)), Refresh::Superseded);
    let (after_window, _) = elevate(&l1, &p1, after(31));
    assert_eq!(judge(&after_window, &p0, after(32)), Refresh::Theft(Reuse::Older));
    // Two elevations in a row: both earlier tokens wait for the newest.
    let (l2, e2) = elevate(&in_window, &elevate(&l1, &p1, after(10)).1, after(12));
    for (token, now) in [(&p0, 30), (&p1, 40)] {
        assert_eq!(judge(&l2, token, after(now)), Refresh::Superseded);
    }
    assert_eq!(judge(&l2, &e2, after(500)), Refresh::Rotate);
}

#[test]
fn sec_s02_c_d_completions() {
    let p0 = first();
    let l0 = line(&p0);
    assert_eq!(elevation(&l0, &p0.hash1(), START), Elevation::Elevate);
    let (l1, e1) = elevate(&l0, &p0, START);
    assert_eq!(elevation(&l1, &p0.hash1(), START + GRACE), Elevation::Shared);
    let again =
        redeliver([&keys()], &l1, |keys| elevated(keys, &l1.salt, p0.handle(), p0.user(), &p0.hash1()));
    assert_eq!(again.unwrap().text(), e1.text());
    assert_eq!(elevation(&l1, &p0.hash1(), after(31)), Elevation::Stale);
    assert_eq!(elevation(&l1, &e1.hash1(), after(31)), Elevation::Elevate);
    let (l2, e2) = elevate(&l1, &e1, after(1));
    assert_eq!(elevation(&l2, &p0.hash1(), after(2)), Elevation::Stale);
    assert_eq!(elevation(&l2, &e1.hash1(), after(2)), Elevation::Shared);
    // A rotation ends it: whoever holds an older access token refreshes first.
    let (l3, _) = rotate(&l2, &e2, after(3));
    for token in [&p0, &e1, &e2] {
        assert_eq!(elevation(&l3, &token.hash1(), after(4)), Elevation::Stale);
    }
    assert_eq!(elevation(&l0, &first().hash1(), START), Elevation::Stale);
}

#[test]
fn sec_r20_access_tokens_of_a_dead_branch() {
    let p0 = first();
    let (l1, p1) = rotate(&line(&p0), &p0, START);
    let (l2, p2) = elevate(&l1, &p1, after(1));
    for token in [&p0, &p1, &p2] {
        assert!(on_line(&l2, &token.hash1()));
    }
    let (l3, p3) = rotate(&l2, &p2, after(2));
    assert!(on_line(&l3, &p3.hash1()) && on_line(&l3, &p2.hash1()));
    assert!(!on_line(&l3, &p1.hash1()) && !on_line(&l3, &first().hash1()));
}

#[test]
fn sec_c04_several_values() {
    let (mine, other) = (first(), first());
    let (lineage, next) = rotate(&line(&mine), &mine, START);
    let all = [RefreshKeys::derive(&[8; 32]), keys()];
    let read = |values: &[&str]| offered(values, &all);
    assert!(matches!(read(&[]), Offered::Nothing));
    assert!(matches!(read(&["garbage", ""]), Offered::Nothing));
    assert!(matches!(read(&[mine.text(), other.text()]), Offered::Several));
    for values in [["garbage", mine.text(), next.text()], [next.text(), mine.text(), "garbage"]] {
        let Offered::Session(tokens) = read(&values) else { panic!("one session") };
        assert_eq!(tokens.len(), 2);
        // Long after the window the older one beside the live one is a leftover.
        let (token, refresh) = decide_any(&lineage, false, &tokens, after(5000), GRACE).unwrap();
        assert_eq!((token.text(), refresh), (next.text(), Refresh::Rotate));
    }
    let Offered::Session(alone) = read(&[mine.text(), mine.text()]) else { panic!("one session") };
    let (_, refresh) = decide_any(&lineage, false, &alone, after(5000), GRACE).unwrap();
    assert_eq!(refresh, Refresh::Theft(Reuse::Recent));
}

#[test]
fn superseded_tokens_are_bounded() {
    let p0 = first();
    let (mut lineage, mut token) = (line(&p0), p0.clone());
    for n in 0..20 {
        (lineage, token) = elevate(&lineage, &token, after(n));
    }
    assert_eq!(lineage.superseded.len(), SUPERSEDED);
    assert_eq!(judge(&lineage, &token, after(21)), Refresh::Rotate);
    assert_eq!(judge(&lineage, &p0, after(21)), Refresh::Theft(Reuse::Older));
}
