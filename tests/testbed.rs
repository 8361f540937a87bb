//! The testbed as programs see it: a process, its environment and HTTP, nothing else.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Barrier,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use self::client::{Answer, Client, credentials, wrong};

#[path = "support/client.rs"]
mod client;

const EMAIL: &str = "alice@shop.example";
const NUMBER: &str = "+36301111142";

#[test]
fn a_session_from_sign_up_to_its_end() {
    let server = Server::start(&[("MFA_REQUIREMENTS", r#"["otp-email"]"#), ("TEST_HOOKS", "1")]);
    let mut alice = Client::of(&server);
    assert_eq!(alice.get("/health").status, 200);
    assert_eq!(alice.get("/api/public").body, json!({ "userId": null }));
    assert_eq!(alice.get("/api/me").status, 401);

    alice.sign_up(EMAIL);
    let refused = alice.get("/api/me");
    assert_eq!((refused.status, &refused.body["claimValidationErrors"][0]["id"]), (403, &json!("st-mfa")));
    let half = alice.get("/api/half");
    assert_eq!((half.status, &half.body["claim"]["v"]), (200, &json!(false)));
    assert_eq!(alice.get("/api/public").body["userId"], half.body["userId"]);

    assert_eq!(alice.get(&format!("/test/otp?contact={EMAIL}")).status, 404);
    alice.pass_code(EMAIL);
    let me = alice.get("/api/me");
    assert_eq!(
        (me.status, &me.body["tenantId"], &me.body["claim"]["v"]),
        (200, &json!("public"), &json!(true))
    );

    let totp = alice.get("/api/totp-only");
    assert_eq!(
        (totp.status, &totp.body["claimValidationErrors"][0]["reason"]["factorId"]),
        (403, &json!("totp"))
    );
    let admin = alice.get("/api/admin");
    assert_eq!((admin.status, &admin.body["claimValidationErrors"][0]["id"]), (403, &json!("st-role")));
    let roles = format!("/test/users/{EMAIL}/roles");
    alice.put(&roles, json!({ "tenantId": "public", "roles": ["admin"] })).ok();
    assert_eq!(alice.get("/api/admin").status, 200);
    alice.put(&roles, json!({ "tenantId": "public", "roles": [] })).ok();
    assert_eq!(alice.get("/api/admin").status, 403);

    alice.post("/test/clock", json!({ "advance": 3601 })).ok();
    let expired = alice.get("/api/me");
    assert_eq!((expired.status, &expired.body["message"]), (401, &json!("try refresh token")));
    assert_eq!(alice.refresh().status, 200);
    assert_eq!(alice.get("/api/me").status, 200);

    let shown = alice.get(&format!("/test/users/{EMAIL}")).ok();
    let handle = shown["sessions"][0]["sessionHandle"].clone();
    alice.post("/test/sessions/revoke", json!({ "sessionHandle": handle })).ok();
    assert_eq!(alice.get("/api/me").status, 401);
    assert_eq!(alice.refresh().status, 401);
    assert_eq!(alice.post("/test/sessions/revoke", json!({ "sessionHandle": handle })).status, 404);
}

/// What is in the last link to an address.
fn mailed(client: &mut Client, email: &str, page: &str) -> String {
    let sent = client.get(&format!("/test/otp?contact={email}")).ok();
    assert_eq!(sent["userInputCode"], Value::Null);
    let link = sent["linkUrl"].as_str().unwrap().to_owned();
    let begins = format!("http://localhost:3000/auth/{page}?token=");
    let rest = link.strip_prefix(&begins).unwrap_or_else(|| panic!("{link}"));
    rest.strip_suffix("&tenantId=public").unwrap().to_owned()
}

#[test]
fn an_address_is_verified_and_a_password_reset_by_the_links_that_the_hooks_show() {
    let server = Server::start(&[("EMAIL_VERIFICATION", "required"), ("TEST_HOOKS", "1")]);
    let mut alice = Client::of(&server);
    alice.sign_up(EMAIL);
    let refused = alice.get("/api/me");
    assert_eq!((refused.status, &refused.body["claimValidationErrors"][0]["id"]), (403, &json!("st-ev")));
    assert_eq!(alice.get("/api/half").status, 200);
    alice.post("/auth/user/email/verify/token", json!({})).ok();
    let token = mailed(&mut alice, EMAIL, "verify-email");
    alice.post("/auth/user/email/verify", json!({ "method": "token", "token": token })).ok();
    assert_eq!(alice.get("/api/me").status, 200);
    alice.post("/test/clock", json!({ "advance": 31 })).ok();
    let ask = json!({ "formFields": [{ "id": "email", "value": EMAIL }] });
    alice.post("/auth/user/password/reset/token", ask).ok();
    let token = mailed(&mut alice, EMAIL, "reset-password");
    let fields = json!([{ "id": "password", "value": "another horse 2" }]);
    let body = json!({ "method": "token", "token": token, "formFields": fields });
    alice.post("/auth/user/password/reset", body).ok();
    assert_eq!(alice.get("/api/me").status, 401);
    let mut body = credentials(EMAIL);
    body["formFields"][1]["value"] = json!("another horse 2");
    alice.post("/auth/signin", body).ok();
    assert_eq!(alice.get("/api/me").status, 200);
}

/// Row W01: what a thousand sign-ins at once cost in memory is bounded by the permits, not by how many there are.
#[cfg(target_os = "linux")]
#[test]
fn sec_w01_a_thousand_sign_ins_at_once_stay_within_their_memory() {
    let server = Server::start(&[("LIMITS", "off"), ("TEST_HOOKS", "1")]);
    let peak = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    };
    let mut alice = Client::of(&server);
    let hashed = |client: &mut Client| client.get("/test/counters").ok()["passwordHashes"].as_u64().unwrap();
    let (before, hashes) = (peak(), hashed(&mut alice));
    let start = Barrier::new(1000);
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let sign_in = |n: usize| {
            let (mut client, start) = (Client::of(&server), &start);
            let work = move || {
                // Open before all begin: the system resets some of a thousand that knock in one moment.
                let stream = TcpStream::connect(client.address).unwrap();
                start.wait();
                let body = credentials(&format!("nobody{n}@shop.example"));
                client.call_on(stream, "POST", "/auth/signin", Some(body)).unwrap().status
            };
            std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, work).unwrap()
        };
        let all: Vec<_> = (0..1000).map(sign_in).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let told = |status: u16| answers.iter().filter(|answer| **answer == status).count() as u64;
    let permits = std::thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(told(200) + told(503), 1000);
    assert!(told(200) >= permits && told(503) > 0, "{} {}", told(200), told(503));
    assert_eq!(hashed(&mut alice) - hashes, told(200), "whoever is sent away costs no hash");
    let (grown, most) = (peak() - before, (permits * 19 + 64) * 1024);
    assert!(grown <= most, "{grown} kB, at most {most}");
}

#[test]
fn sec_p13_fresh_is_a_second_factor_within_the_time() {
    let (by_mail, hooks) = (("PASSWORDLESS", "EMAIL,USER_INPUT_CODE"), ("TEST_HOOKS", "1"));
    for (variables, age, seconds) in [
        (&[hooks][..], 300, json!(["otp-email", "otp-phone"])),
        (&[hooks, by_mail, ("FRESH_SECONDS", "60")], 60, json!(["otp-email"])),
    ] {
        let server = Server::start(variables);
        let mut alice = Client::of(&server);
        assert_eq!(alice.get("/api/fresh").status, 401);
        alice.sign_up(EMAIL);
        // The password is fresh, but it is what she signed in with.
        let refused = alice.get("/api/fresh");
        assert_eq!((refused.status, &refused.body["next"]), (403, &seconds));
        assert_eq!((&refused.body["max_age"], refused.body.get("expired")), (&json!(age), None));
        alice.pass_code(EMAIL);
        assert_eq!(alice.get("/api/fresh").status, 200);
        alice.post("/test/clock", json!({ "advance": age + 1 })).ok();
        let late = alice.get("/api/fresh");
        assert_eq!((late.status, &late.body["expired"]), (403, &json!(["otp-email"])));
        assert_eq!(late.body["claimValidationErrors"][0]["id"], "st-mfa");
        assert_eq!(alice.get("/api/me").status, 200);
    }
}

/// What each value of `PASSWORDLESS` makes: the factors, and what a message to each kind of contact holds.
const PASSWORDLESS: [(&str, &[&str]); 9] = [
    ("EMAIL,USER_INPUT_CODE", &["otp-email"]),
    ("EMAIL,MAGIC_LINK", &["link-email"]),
    ("EMAIL,USER_INPUT_CODE_AND_MAGIC_LINK", &["otp-email", "link-email"]),
    ("PHONE,USER_INPUT_CODE", &["otp-phone"]),
    ("PHONE,MAGIC_LINK", &["link-phone"]),
    ("PHONE,USER_INPUT_CODE_AND_MAGIC_LINK", &["otp-phone", "link-phone"]),
    ("EMAIL_OR_PHONE,USER_INPUT_CODE", &["otp-email", "otp-phone"]),
    ("EMAIL_OR_PHONE,MAGIC_LINK", &["link-email", "link-phone"]),
    (
        "EMAIL_OR_PHONE,USER_INPUT_CODE_AND_MAGIC_LINK",
        &["otp-email", "otp-phone", "link-email", "link-phone"],
    ),
];

#[test]
fn each_contact_and_each_flow_signs_in() {
    std::thread::scope(|scope| {
        for (value, factors) in PASSWORDLESS {
            scope.spawn(move || signs_in_by(value, factors));
        }
    });
}

/// Signs in by each factor that a value makes, and by nothing else.
fn signs_in_by(value: &str, factors: &[&str]) {
    let first = factors.join(",");
    let server = Server::start(&[
        ("PASSWORDLESS", value),
        ("FIRST_FACTORS", &first),
        ("LIMITS", "off"),
        ("TEST_HOOKS", "1"),
    ]);
    let mut client = Client::of(&server);
    let methods = client.get("/auth/loginmethods").body;
    assert_eq!(methods["firstFactors"], json!(factors), "{value}: {methods}");
    for (kind, name, typed, contact) in
        [("email", "email", "Alice@Shop.example", EMAIL), ("phone", "phoneNumber", "+36 30 111 1142", NUMBER)]
    {
        let [code, link] = ["otp", "link"].map(|what| factors.contains(&&*format!("{what}-{kind}")));
        let mut ask = || client.post("/auth/signinup/code", json!({ name: typed }));
        if !code && !link {
            assert_eq!(ask().status, 400, "{value} {kind}");
            continue;
        }
        let flow_type = match (code, link) {
            (true, true) => "USER_INPUT_CODE_AND_MAGIC_LINK",
            (true, false) => "USER_INPUT_CODE",
            _ => "MAGIC_LINK",
        };
        let asked = ask().ok();
        assert_eq!(
            (&asked["status"], &asked["flowType"]),
            (&json!("OK"), &json!(flow_type)),
            "{value} {kind}"
        );
        for (by, served) in [("otp", code), ("link", link)] {
            if !served {
                continue;
            }
            let (mut creator, mut user) = (Client::of(&server), Client::of(&server));
            let flow = creator.post("/auth/signinup/code", json!({ name: typed })).ok();
            let again = json!({ "deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"] });
            assert_eq!(creator.post("/auth/signinup/code/resend", again).ok()["status"], "OK", "{value}");
            let sent = creator.sent_to(contact);
            assert_eq!(
                (sent["userInputCode"].is_string(), sent["linkUrl"].is_string()),
                (code, link),
                "{value}"
            );
            let enter = match by {
                "otp" => json!({
                    "deviceId": flow["deviceId"],
                    "preAuthSessionId": flow["preAuthSessionId"],
                    "userInputCode": sent["userInputCode"],
                }),
                _ => spending(&sent),
            };
            assert_eq!(
                user.post("/auth/signinup/code/consume", enter).ok()["status"],
                "OK",
                "{value} {by}-{kind}"
            );
            let claim = user.get("/api/me").ok()["claim"].clone();
            let completed: Vec<&String> = claim["c"].as_object().unwrap().keys().collect();
            assert_eq!(completed, [&format!("{by}-{kind}")], "{value}");
        }
    }
}

#[test]
fn sec_o22_o23_a_link_is_spent_by_a_post_and_signs_in_whoever_sends_it() {
    let variables = [
        ("PASSWORDLESS", "EMAIL_OR_PHONE,MAGIC_LINK"),
        ("FIRST_FACTORS", "emailpassword,link-email,link-phone"),
        ("WEBSITE_ORIGIN", "http://localhost:4000"),
        ("LIMITS", "off"),
        ("TEST_HOOKS", "1"),
    ];
    let server = Server::start(&variables);
    for (name, contact) in [("email", EMAIL), ("phoneNumber", NUMBER)] {
        let [mut creator, mut consumer, mut late] = [(); 3].map(|()| Client::of(&server));
        creator.ask_code(contact, false).ok();
        let sent = creator.sent_to(contact);
        let link = sent["linkUrl"].as_str().unwrap();
        let spend = spending(&sent);
        assert!(link.starts_with("http://localhost:4000/auth/verify?preAuthSessionId="), "{link}");
        assert!(link.contains("&tenantId=public#"), "{link}");

        // Reading anything spends nothing: the page, should it be asked of the API, and the route itself.
        let page = link.strip_prefix("http://localhost:4000").unwrap();
        let (page, code) = page.split_once('#').unwrap();
        for path in [
            page.to_owned(),
            format!("{page}&linkCode={code}"),
            format!("/auth/signinup/code/consume?linkCode={code}&{}", page.split_once('?').unwrap().1),
        ] {
            assert_eq!(creator.get(&path).status, 404, "{path}");
        }
        // With a piece of another flow, neither.
        creator.ask_code(contact, false).ok();
        let other = spending(&creator.sent_to(contact));
        let mixed = json!({ "preAuthSessionId": other["preAuthSessionId"], "linkCode": spend["linkCode"] });
        let answer = consumer.post("/auth/signinup/code/consume", mixed).ok();
        assert_eq!(answer["status"], "RESTART_FLOW_ERROR");
        // Nor for a session that says it wants a second factor: a link is none.
        late.sign_up(&format!("bob-{name}@shop.example"));
        let mut second = spend.clone();
        second["shouldTryLinkingWithSessionUser"] = json!(true);
        let answer = late.post("/auth/signinup/code/consume", second).ok();
        assert_eq!(answer["status"], "RESTART_FLOW_ERROR");

        let done = consumer.post("/auth/signinup/code/consume", spend.clone()).ok();
        assert_eq!((&done["status"], &done["createdNewRecipeUser"]), (&json!("OK"), &json!(true)), "{name}");
        assert_eq!(consumer.get("/api/me").ok()["userId"], done["user"]["id"]);
        // Whoever asked for it has no session from it, whatever they try.
        assert_eq!((creator.access.as_deref(), creator.refresh.as_deref()), (None, None));
        assert_eq!((creator.get("/api/half").status, creator.refresh().status), (401, 401));
        let again = creator.post("/auth/signinup/code/consume", spend).ok();
        assert_eq!((&again["status"], creator.get("/api/half").status), (&json!("RESTART_FLOW_ERROR"), 401));
    }
}

#[test]
fn a_phone_is_the_second_factor() {
    let server =
        Server::start(&[("MFA_REQUIREMENTS", r#"["otp-phone"]"#), ("LIMITS", "off"), ("TEST_HOOKS", "1")]);
    let mut alice = Client::of(&server);
    alice.sign_up(EMAIL);
    let info = alice.put("/auth/mfa/info", json!({})).ok();
    assert_eq!(info["factors"]["next"], json!(["otp-phone"]));
    assert_eq!(info["phoneNumbers"]["otp-phone"], json!([]));
    assert_eq!(alice.second_by_sms("+36 (30) 111-1142"), "OK");
    assert_eq!(alice.get("/api/me").status, 200);

    // From now on it is her number, and shows in part.
    alice.post("/auth/signin", credentials(EMAIL)).ok();
    let info = alice.put("/auth/mfa/info", json!({})).ok();
    assert_eq!(info["phoneNumbers"]["otp-phone"], json!(["+***42"]));
    assert_eq!(alice.ask_code("+36202222222", true).status, 403);
    assert_eq!(alice.get("/test/otp?contact=+36202222222").status, 404, "nothing is sent there");
    assert_eq!(alice.second_by_sms("+***42"), "OK");
    assert_eq!(alice.get("/api/me").status, 200);
}

#[test]
fn numbers_of_every_country() {
    let server = Server::start(&[("FIRST_FACTORS", "otp-phone"), ("LIMITS", "off"), ("TEST_HOOKS", "1")]);
    let mut client = Client::of(&server);
    for number in [
        "+12015550123",
        "+2348021234567",
        "+358412345678",
        "+447400123456",
        "+4915123456789",
        "+5511961234567",
        "+64211234567",
        "+819012345678",
        "+8613123456789",
        "+918123456789",
        "+971501234567",
    ] {
        let asked = client.ask_code(number, false).ok();
        assert_eq!(asked["status"], "OK", "{number}: {asked}");
        assert!(client.sent_to(number)["userInputCode"].is_string(), "{number}");
    }
    let landline = client.ask_code("+3612345678", false).ok();
    assert_eq!(landline["status"], "GENERAL_ERROR");
}

#[test]
fn hooks_set_up_tenants_and_users() {
    let server = Server::start(&[("FIRST_FACTORS", "emailpassword,otp-email"), ("TEST_HOOKS", "1")]);
    let mut alice = Client::of(&server);
    alice
        .put(
            "/test/tenants/acme",
            json!({ "firstFactors": ["emailpassword"], "requiredSecondaryFactors": ["otp-email"] }),
        )
        .ok();
    let methods = alice.get("/auth/acme/loginmethods").body;
    assert_eq!(methods["firstFactors"], json!(["emailpassword"]), "{methods}");
    let ours = alice.get("/auth/loginmethods").body;
    assert_eq!(ours["firstFactors"], json!(["emailpassword", "otp-email"]), "{ours}");

    let wire = alice.sign_up(EMAIL);
    assert_eq!(alice.get("/api/me").status, 200);
    let factors = format!("/test/users/{EMAIL}/required-factors");
    let required = alice.put(&factors, json!({ "add": ["otp-email", "totp"], "remove": ["totp"] })).ok();
    assert_eq!(required, json!({ "required": ["otp-email"] }));
    assert_eq!(alice.get("/api/me").status, 403, "a demand bites at once");
    let shown = alice.get(&format!("/test/users/{}", wire["user"]["id"].as_str().unwrap())).ok();
    assert_eq!(shown["user"], wire["user"], "as the API writes it");
    assert_eq!((&shown["requiredFactors"], &shown["roles"]), (&json!(["otp-email"]), &json!({})));
    assert_eq!(shown["sessions"].as_array().unwrap().len(), 1);

    alice.put(&format!("/test/users/{EMAIL}/tenants"), json!({ "add": ["acme"] })).ok();
    let answer = alice.post("/auth/acme/signin", credentials(EMAIL));
    assert_eq!(answer.body["status"], "OK", "{}", answer.body);
    assert_eq!(alice.get("/api/half").body["tenantId"], "acme");
    assert_eq!(alice.get("/api/me").status, 403);

    for (path, body) in [
        ("/test/users/nobody@shop.example/roles", json!({ "roles": [] })),
        ("/test/users/alice@shop.example/roles", json!({ "tenantId": "none", "roles": [] })),
        ("/test/users/alice@shop.example/tenants", json!({ "add": ["none"] })),
    ] {
        assert_eq!(alice.put(path, body).status, 404, "{path}");
    }
    assert_eq!(alice.put("/test/tenants/Not%20One", json!({})).status, 400);
    assert_eq!(alice.post("/test/clock", json!({ "advance": -1 })).status, 400);
    assert_eq!(alice.post("/test/sessions/revoke", json!({ "user": "nobody" })).status, 404);
    alice.post("/test/sessions/revoke", json!({ "user": EMAIL })).ok();
    assert_eq!(alice.get("/api/half").status, 401);
}

#[test]
fn failures_are_told_apart_and_counted() {
    let server = Server::start(&[("TEST_HOOKS", "1")]);
    let mut alice = Client::of(&server);
    alice.sign_up(EMAIL);
    let before = alice.get("/test/counters").ok();

    alice.post("/test/fail", json!({ "store": 1000 })).ok();
    assert_eq!(alice.post("/auth/signin", credentials(EMAIL)).status, 503);
    assert_eq!(alice.get("/api/admin").status, 503);
    alice.post("/test/fail", json!({ "store": 0, "policy": 1 })).ok();
    assert_eq!(alice.post("/auth/signin", credentials(EMAIL)).status, 503);
    assert_eq!(alice.post("/auth/signin", credentials(EMAIL)).body["status"], "OK");

    alice.pass_code(EMAIL);
    let after = alice.get("/test/counters").ok();
    for counter in ["storeGets", "storeScans", "storeCommits", "passwordHashes", "codeComparisons", "sent"] {
        assert!(after[counter].as_u64() > before[counter].as_u64(), "{counter}: {before} {after}");
    }
    assert_eq!((&after["sent"], &after["codeComparisons"]), (&json!(1), &json!(1)));
}

#[test]
fn what_cant_be_served_ends_the_start() {
    let wrong = [
        ("PORT", "eighty"),
        ("WEBSITE_ORIGIN", "localhost:3000"),
        ("WEBSITE_ORIGIN", "https://shop.example"),
        ("API_ORIGIN", ""),
        ("SECRET", ""),
        ("STORE", "postgres://localhost/x"),
        ("STORE", "redis://localhost"),
        ("STORE", "sqlite:"),
        ("STORE", "sqlite:/there/is/no/such/folder/x.db"),
        ("ACCESS_TOKEN_TTL", "0"),
        ("OTP_TTL", "901"),
        ("HALF_SESSION_TTL", "-1"),
        ("MAX_WRONG_CODES", "0"),
        ("LIMITS", "maybe"),
        ("FIRST_FACTORS", "emailpassword,totp"),
        ("FIRST_FACTORS", ""),
        ("FIRST_FACTORS", "emailpassword,link-email"),
        ("PASSWORDLESS", ""),
        ("PASSWORDLESS", "PHONE"),
        ("PASSWORDLESS", "MAGIC_LINK,EMAIL"),
        ("PASSWORDLESS", "EMAIL, MAGIC_LINK"),
        ("PASSWORDLESS", "FAX,USER_INPUT_CODE"),
        ("MFA_POLICY", "sometimes"),
        ("MFA_REQUIREMENTS", "totp"),
        ("MFA_REQUIREMENTS", r#"[{"anyOf":["totp"]}]"#),
        ("EMAIL_VERIFICATION", "maybe"),
        ("PROVIDERS", "google"),
        ("PROVIDERS", r#"[{"id":"x","issuer":"https://id.example","clientId":"x"}]"#),
        ("PROVIDERS", r#"[{"id":"x","issuer":"http://id.example","clientId":"x","clientSecret":"y"}]"#),
        ("FIRST_FACTORS", "thirdparty"),
        ("STEP_UP_FOR_FACTOR_CHANGES", "1"),
        ("FRESH_SECONDS", "0"),
        ("FRESH_SECONDS", "soon"),
    ];
    let started: Vec<Child> = wrong.iter().map(|variable| spawn(&[("PORT", "0"), *variable])).collect();
    for ((name, value), child) in wrong.iter().zip(started) {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {said}");
        assert!(said.contains(name), "{name}={value}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn providers_are_offered() {
    let list = r#"[{"id":"loopback","issuer":"http://localhost:1","clientId":"testbed","clientSecret":"x"}]"#;
    let server = Server::start(&[("PROVIDERS", list), ("FIRST_FACTORS", "emailpassword,thirdparty")]);
    let mut client = Client::of(&server);
    let offered = client.get("/auth/loginmethods");
    assert_eq!(offered.body["thirdParty"]["providers"], json!([{ "id": "loopback", "name": "loopback" }]));
    assert_eq!(offered.body["firstFactors"], json!(["emailpassword", "thirdparty"]));
    // Nobody is there, and that is what is said.
    let query =
        "thirdPartyId=loopback&redirectURIOnProviderDashboard=http://localhost:3000/auth/callback/loopback";
    let begun = client.get(&format!("/auth/authorisationurl?{query}"));
    assert_eq!((begun.status, &begun.body["status"]), (200, &json!("GENERAL_ERROR")));
}

#[test]
fn only_1_serves_the_hooks() {
    for variables in [&[][..], &[("TEST_HOOKS", "true")], &[("TEST_HOOKS", "0")]] {
        let server = Server::start(variables);
        let mut client = Client::of(&server);
        for path in ["/test/counters", "/test/otp?contact=alice@shop.example"] {
            assert_eq!(client.get(path).status, 404);
        }
        assert_eq!(client.post("/test/clock", json!({ "advance": 1 })).status, 404);
    }
}

#[test]
fn two_processes_share_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("testbed.db").display());
    let origin = ("API_ORIGIN", "http://localhost:3001");
    let variables = [("STORE", &*store), origin, ("MFA_POLICY", "admin-only"), ("TEST_HOOKS", "1")];
    let (one, two) = (Server::start(&variables), Server::start(&variables));
    let mut alice = Client::of(&one);
    alice.sign_up(EMAIL);
    assert_eq!(alice.get("/api/me").status, 200);
    let mut there = alice.at(&two);
    assert_eq!(there.get("/api/me").status, 200);
    assert_eq!(there.get("/api/admin").status, 403);

    there
        .put(&format!("/test/users/{EMAIL}/roles"), json!({ "tenantId": "public", "roles": ["admin"] }))
        .ok();
    assert_eq!(there.get("/api/me").status, 403);
    within_two_seconds(|| alice.get("/api/me").status == 403);

    // Each sends what it made, whoever looks through the queue meanwhile.
    alice.pass_code(EMAIL);
    assert_eq!(alice.get("/api/admin").status, 200);
    let mut there = alice.at(&two);
    within_two_seconds(|| there.get("/api/admin").status == 200);
    assert_eq!(there.get(&format!("/test/otp?contact={EMAIL}")).status, 404);

    // Another one's session isn't concerned: each process judges it by what it has in memory.
    let mut bob = Client::of(&one);
    bob.sign_up("bob@shop.example");
    let handle = |client: &mut Client| {
        client.get("/test/users/bob@shop.example").ok()["sessions"][0]["sessionHandle"].clone()
    };
    there.post("/test/sessions/revoke", json!({ "user": EMAIL })).ok();
    assert_eq!(there.get("/api/half").status, 401);
    within_two_seconds(|| alice.get("/api/half").status == 401);
    assert_eq!(alice.refresh().status, 401);
    for server in [&one, &two] {
        let mut bob = bob.at(server);
        assert_eq!(bob.get("/api/me").status, 200);
        let calls = [0, 1].map(|_| bob.store_calls_of(200));
        // A process looks after its keys every 30 s: one of two windows may have that one read in it.
        assert!(calls.contains(&0) && calls[0] + calls[1] <= 1, "{calls:?}");
    }
    let session = handle(&mut bob);
    there.post("/test/sessions/revoke", json!({ "sessionHandle": session })).ok();
    within_two_seconds(|| bob.get("/api/me").status == 401);
}

#[test]
fn messages_are_found_where_they_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("testbed.db").display());
    let variables =
        [("STORE", &*store), ("FIRST_FACTORS", "otp-email"), ("LIMITS", "off"), ("TEST_HOOKS", "1")];
    let servers = [Server::start(&variables), Server::start(&variables)];
    std::thread::scope(|scope| {
        for (n, server) in servers.iter().enumerate() {
            scope.spawn(move || {
                for user in 0..15 {
                    let (email, mut client) = (format!("user{user}-{n}@shop.example"), Client::of(server));
                    let asked = client.ask_code(&email, false).ok();
                    assert_eq!(asked["status"], "OK");
                    let sent = client.get(&format!("/test/otp?contact={email}")).ok();
                    assert_eq!(sent["count"], 1);
                }
            });
        }
    });
}

/// Three processes on one file, for people who sign in by a code. With their folder.
fn three() -> (tempfile::TempDir, [Server; 3]) {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("testbed.db").display());
    let variables =
        [("STORE", &*store), ("FIRST_FACTORS", "otp-email"), ("LIMITS", "off"), ("TEST_HOOKS", "1")];
    let servers = [(); 3].map(|()| Server::start(&variables));
    (folder, servers)
}

/// Enters codes all at once, each at the next of the processes.
fn enter_at_once(servers: &[Server], flow: &Value, codes: &[String]) -> Vec<Answer> {
    at_once(servers, codes, |mut client, code| client.enter(flow, code, false))
}

/// Does something with each of these, all at once, each at the next of the processes.
fn at_once<T: Sync>(
    servers: &[Server],
    these: &[T],
    act: impl Fn(Client, &T) -> Answer + Sync,
) -> Vec<Answer> {
    let (barrier, act) = (&Barrier::new(these.len()), &act);
    std::thread::scope(|scope| {
        let begin = |(this, server): (_, &Server)| {
            let client = Client::of(server);
            scope.spawn(move || {
                barrier.wait();
                act(client, this)
            })
        };
        let all: Vec<_> = these.iter().zip(servers.iter().cycle()).map(begin).collect();
        all.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

fn comparisons(servers: &[Server]) -> u64 {
    let count = |server| Client::of(server).get("/test/counters").ok()["codeComparisons"].as_u64().unwrap();
    servers.iter().map(count).sum()
}

fn are(answers: &[Answer], status: &str) -> usize {
    answers.iter().filter(|answer| answer.body["status"] == status).count()
}

#[test]
fn sec_o04_of_64_guesses_at_three_processes_five_are_compared() {
    let (_folder, servers) = three();
    for round in 0..3 {
        let (email, mut client) = (format!("user{round}@shop.example"), Client::of(&servers[round]));
        let flow = client.ask_code(&email, false).ok();
        let (code, before) = (client.code(&email), comparisons(&servers));
        let guesses: Vec<String> = (0..64).map(|n| wrong(&code, n)).collect();
        let answers = enter_at_once(&servers, &flow, &guesses);
        // Whoever finds the others in the way too often is told to come again, uncompared: 503.
        let told = are(&answers, "INCORRECT_USER_INPUT_CODE_ERROR") + are(&answers, "RESTART_FLOW_ERROR");
        let busy = answers.iter().filter(|answer| answer.status == 503).count();
        assert_eq!(told + busy, 64, "{answers:?}");
        assert_eq!(comparisons(&servers) - before, 5, "round {round}");
        for server in &servers {
            let late = Client::of(server).enter(&flow, &code, false).ok();
            assert_eq!(late["status"], "RESTART_FLOW_ERROR", "the right code comes too late");
        }
        assert_eq!(comparisons(&servers) - before, 5, "round {round}");
    }
}

#[test]
fn sec_o08_of_64_right_answers_at_three_processes_one_wins() {
    let (_folder, servers) = three();
    for round in 0..3 {
        let (email, mut client) = (format!("user{round}@shop.example"), Client::of(&servers[round]));
        let flow = client.ask_code(&email, false).ok();
        let (code, before) = (client.code(&email), comparisons(&servers));
        let answers = enter_at_once(&servers, &flow, &vec![code; 64]);
        assert_eq!(are(&answers, "OK"), 1, "round {round}: {answers:?}");
        let busy = answers.iter().filter(|answer| answer.status == 503).count();
        assert_eq!(are(&answers, "RESTART_FLOW_ERROR") + busy, 63, "{answers:?}");
        assert!(comparisons(&servers) - before <= 5, "round {round}");
        let shown = client.get(&format!("/test/users/{email}")).ok();
        assert_eq!(shown["sessions"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn sec_o05_o09_sending_again_while_others_guess_gives_no_guess_back() {
    let (_folder, servers) = three();
    for round in 0..3 {
        let (email, mut client) = (format!("user{round}@shop.example"), Client::of(&servers[round]));
        let flow = client.ask_code(&email, false).ok();
        let (code, before) = (client.code(&email), comparisons(&servers));
        // Two guesses for each new message.
        let again = json!({ "deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"] });
        let steps: Vec<u32> = (0..48).collect();
        let answers = at_once(&servers, &steps, |mut client, n| match n % 3 {
            0 => client.post("/auth/signinup/code/resend", again.clone()),
            _ => client.enter(&flow, &wrong(&code, *n), false),
        });
        assert!(answers.iter().all(|answer| [200, 503].contains(&answer.status)), "{answers:?}");
        // As many more as are needed to use it up, in turn: no message made it new.
        for n in 100..105 {
            client.enter(&flow, &wrong(&code, n), false).ok();
        }
        assert_eq!(comparisons(&servers) - before, 5, "round {round}");
        assert_eq!(client.enter(&flow, &code, false).ok()["status"], "RESTART_FLOW_ERROR");
    }
}

#[test]
fn sec_z03_the_server_has_no_failpoint() {
    // A name in text: `fp:` and a word with a dot behind it.
    let holds = |bytes: &[u8]| {
        let word = |rest: &[u8]| rest.iter().take_while(|b| b.is_ascii_lowercase() || **b == b'_').count();
        let named = |at: usize| {
            let rest = &bytes[at + 3..];
            let word = word(rest);
            word > 2 && rest.get(word) == Some(&b'.')
        };
        let places = bytes.windows(3).enumerate().filter(|(_, text)| *text == b"fp:");
        places.map(|(at, _)| at).find(|at| named(*at))
    };
    assert_eq!(holds(b"..fp:otp.consume.before_mark"), Some(2));
    assert_eq!(holds(b"fp: or fp:x, or otp.consume"), None);
    let binary = std::fs::read(binary()).unwrap();
    assert_eq!(holds(&binary), None);
}

#[test]
fn sigterm_finishes_what_was_accepted() {
    let mut server = Server::start(&[]);
    let body = credentials(EMAIL).to_string();
    let (head, rest) = body.split_at(10);
    let mut stream = TcpStream::connect(server.address).unwrap();
    write!(
        stream,
        "POST /auth/signup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nrid: x\r\n\
         st-auth-mode: header\r\nContent-Length: {}\r\n\r\n{head}",
        body.len()
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(300));
    assert!(TcpStream::connect(server.address).is_err(), "nothing new is accepted");
    stream.write_all(rest.as_bytes()).unwrap();
    let answer = Answer::read(stream).unwrap();
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("OK")));
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

fn within_two_seconds(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(2), "it takes too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A testbed, ended with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(variables: &[(&str, &str)]) -> Self {
        let variables: Vec<_> = [("PORT", "0")].into_iter().chain(variables.iter().copied()).collect();
        let mut child = spawn(&variables);
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").map(|address| address.parse().unwrap());
        Self { address: address.unwrap_or_else(|| panic!("the testbed did not start")), child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    here.parent().unwrap().parent().unwrap().join("examples/testbed")
}

fn spawn(variables: &[(&str, &str)]) -> Child {
    let binary = binary();
    assert!(is_current(&binary), "first: cargo build --features full --example testbed");
    Command::new(binary)
        .env_clear()
        .env("RUST_LOG", "off")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Whether the binary is there and newer than what it was built from: `--test testbed` alone doesn't build it.
fn is_current(binary: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let (Some(built), Ok(sources)) = (changed(binary), std::fs::read_to_string(binary.with_extension("d")))
    else {
        return false;
    };
    let sources = sources.split_once(": ").map_or("", |(_, list)| list);
    sources.split_whitespace().all(|source| changed(Path::new(source)).is_none_or(|at| at <= built))
}

impl Client {
    fn of(server: &Server) -> Self {
        Self::to(server.address)
    }

    /// The same, towards another process.
    fn at(&self, server: &Server) -> Self {
        Self { address: server.address, ..self.clone() }
    }

    /// Reads and writes that the process's store saw while so many requests were answered.
    fn store_calls_of(&mut self, requests: usize) -> u64 {
        let before = self.store_calls();
        for _ in 0..requests {
            assert_eq!(self.get("/api/me").status, 200);
        }
        self.store_calls() - before
    }

    fn store_calls(&mut self) -> u64 {
        let counters = self.get("/test/counters").ok();
        counters["storeGets"].as_u64().unwrap() + counters["storeCommits"].as_u64().unwrap()
    }

    /// The code that was sent last to an address.
    fn code(&mut self, email: &str) -> String {
        let sent = self.get(&format!("/test/otp?contact={email}")).ok();
        assert_eq!((&sent["count"], &sent["linkUrl"]), (&json!(1), &Value::Null));
        sent["userInputCode"].as_str().unwrap().to_owned()
    }

    /// What was sent there last.
    fn sent_to(&mut self, contact: &str) -> Value {
        self.get(&format!("/test/otp?contact={contact}")).ok()
    }

    /// Asks for a code by SMS as second factor, and sends it back.
    fn second_by_sms(&mut self, number: &str) -> Value {
        let flow = self.ask_code(number, true).ok();
        assert_eq!((&flow["status"], &flow["flowType"]), (&json!("OK"), &json!("USER_INPUT_CODE")));
        let code = self.sent_to(NUMBER)["userInputCode"].as_str().unwrap().to_owned();
        self.enter(&flow, &code, true).ok()["status"].clone()
    }

    /// Passes a code by e-mail as second factor.
    fn pass_code(&mut self, email: &str) {
        let flow = self.ask_code(email, true).ok();
        let code = self.code(email);
        assert_eq!(self.enter(&flow, &code, true).ok()["status"], "OK");
    }
}

/// What the page of a link sends.
fn spending(sent: &Value) -> Value {
    let link = sent["linkUrl"].as_str().unwrap();
    let (page, code) = link.split_once('#').unwrap();
    let query = page.split_once('?').unwrap().1;
    let flow = query.split('&').find_map(|pair| pair.strip_prefix("preAuthSessionId=")).unwrap();
    json!({ "preAuthSessionId": flow, "linkCode": code })
}
