//! The house's own rules, read off its source: floors, bans, lengths, exports, and what the README says.
//!
//! Each rule is a function of text that answers its breaches, so that a test beside it can show that it
//! bites. `src/docs/architecture.md` says what the rules are for.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

// ---------------------------------------------------------------------------------------- the rules' tables

/// The floors from the ground up, as paths in `src`. A file belongs to the longest path that begins its
/// own; it may import from its own place and from those before it, so there is no circle.
const FLOORS: [&[&str]; 17] = [
    &["base"],
    &["store"],
    &["model"],
    &["hooks"],
    &["policy"],
    &["claim"],
    // The session's parts, each about one thing: what a request brings, tokens, keys, the feed. None knows
    // the configuration as a whole; `session` itself (kit, keystore, verify) is told by it.
    &[
        "session/origin",
        "session/csrf",
        "session/cookies",
        "session/transport",
        "session/peer",
        "session/token",
        "session/claims",
        "session/seen",
        "session/signing",
        "session/keyring",
        "session/refresh",
        "session/feed",
    ],
    &["config"],
    &["session"],
    &["delivery"],
    &["factor"],
    &["flow"],
    &["engine"],
    &["builder"],
    &["layer"],
    &["guard", "extract"],
    &["api"],
];
/// Nobody below these imports them; they are floor 6.
const EDGE: [&str; 4] = ["layer", "guard", "extract", "api"];
/// Crates that speak of requests and responses.
const EDGE_CRATES: [&str; 7] =
    ["http", "http_body", "http_body_util", "axum_core", "tower", "tower_http", "pin_project_lite"];
/// Who below floor 6 names `http` all the same, and how: the one reader and writer of tokens, the one that
/// tells who sent a request, and the signature of the closure that the app hands in for that.
const HTTP_BELOW: [(&str, Option<&str>); 12] = [
    ("session/transport.rs", None),
    ("session/transport/write.rs", None),
    ("session/peer.rs", None),
    ("session/peer/proxies.rs", None),
    // The seam for requests of the crate's own, its client, and the provider that speaks through it.
    ("base/http_client.rs", None),
    ("base/http_client/reqwest.rs", None),
    ("delivery/sms.rs", None),
    // The keys of another issuer.
    ("session/jwks.rs", None),
    ("factor/third_party/talk.rs", None),
    ("factor/third_party/line.rs", None),
    ("factor/third_party/mod.rs", Some("fn may_ask(uri: &http::Uri, loopback: bool) -> bool")),
    ("builder.rs", Some("peer: impl Fn(&http::Extensions, &http::HeaderMap) -> Option<IpAddr>")),
];
const CLOCKS: [&str; 4] = ["SystemTime::now", "Instant::now", "UNIX_EPOCH.elapsed", "OffsetDateTime::now"];
const DICE: [&str; 5] = ["SystemRandom::new", "getrandom", "thread_rng", "rand::random", "rand::fill"];
/// What floors above the model may name of the store: keys and ranges are values. The builder is handed a
/// store and passes it on.
const STORE_VALUES: [&str; 2] = ["Key", "Scan"];
const STORE_HANDOVER: (&str, [&str; 2]) = ("builder.rs", ["AnyStore", "Store"]);
/// Where a check accepts a credential: right behind the comparison, nowhere else.
const ACCEPTING: [&str; 5] =
    ["factor/proof.rs", "flow/code.rs", "flow/external.rs", "flow/password.rs", "flow/third_party.rs"];
/// Types outside `model/` and `api/` that derive serde, with the reason.
const SERDE: [(&str, &str, &str); 2] = [
    ("claim/mod.rs", "Stamped", "the stored form of a claim is part of its public contract"),
    ("factor/third_party/place.rs", "More", "the library wants it of what a document has more"),
];
/// What panics, outside of tests: file, text, and why it can't.
const PANICS: [(&str, &str, &str); 6] = [
    ("policy/fixed.rs", "UserId::parse(user).expect(", "for tests of policies; `# Panics` says so"),
    ("policy/fixed.rs", "LoginId::parse(user.as_str()).expect(", "as above"),
    ("policy/fixed.rs", "SessionHandle::parse(", "a constant that parses"),
    ("policy/fixed.rs", "Role::parse(role).expect(", "for tests of policies; `# Panics` says so"),
    ("policy/fixed.rs", "Permission::parse(text).expect(", "as above"),
    ("policy/fixed.rs", "now_or_never().expect(", "as above"),
];
/// Whose keys are no tenant's, by the functions that make them, with the reason. All others begin with their tenant
/// (row N04).
const GLOBAL_KEYS: [(&str, &[&str]); 9] = [
    (
        "a user's, who may be in several tenants, or one of their login methods'",
        &[
            "user",
            "login_of",
            "password",
            "required",
            "metadata",
            "sessions_of",
            "agents",
            "roles_of",
            "tickets_of",
        ],
    ),
    (
        "a role allows the same in all tenants; who has it is a tenant's matter",
        &["permissions", "all_permissions"],
    ),
    ("the tenants themselves", &["tenant", "tenants"]),
    (
        "what tokens are measured against; a tenant's outlives it, so that its tokens stay dead (row N05)",
        &["app_epoch", "tenant_epoch", "user_epoch"],
    ),
    ("one feed, read by every node", &["change_heads", "change_head", "change_lane", "change"]),
    ("one issuer", &["keyset"]),
    (
        "a user's guesses (row O06), a mailbox's messages and an address's requests (row O27) are counted over all tenants; \
         a tenant's own counts have it in their subject",
        &["guesses", "limit", "limits"],
    ),
    ("the courier's, sealed; each names its tenant inside", &["queue", "queued"]),
    ("the trail is the app's, and outlives a tenant; each event names its own", &["audit", "audits"]),
];
/// Who makes keys elsewhere, above the store: a batch's receipt, and a name that is part of a key.
const KEYS_ELSEWHERE: [&str; 2] = ["model/tx.rs", "model/user/third_party.rs"];
const MOST_LINES: usize = 400;
/// Suites, not code.
const SUITES: [&str; 1] = ["store/conformance.rs"];
const ROOT_NAMES: [&str; 16] = [
    "ClaimValidator",
    "Clock",
    "Error",
    "FactorId",
    "Mfa",
    "MfaBuilder",
    "MfaLayer",
    "MfaPolicy",
    "PolicyContext",
    "RequireFactors",
    "Requirement",
    "Requirements",
    "Session",
    "SessionClaim",
    "SessionExtractor",
    "Store",
];
const ROOT_MODULES: [&str; 15] = [
    "_docs", "account", "api", "claim", "config", "delivery", "extract", "factor", "guard", "hooks", "ident",
    "layer", "policy", "session", "store",
];
/// Where the root's own names live, for code that says `crate::Error`.
const ROOT_HOMES: [(&str, &str); 5] =
    [("Error", "base"), ("FactorId", "base"), ("ident", "base"), ("Session", "session"), ("Mfa", "engine")];

/// Public functions that answer with what a session says, each of a session that was verified.
const SAYS: [&str; 10] = [
    "Session",
    "SessionExtractor",
    "Payload",
    "MfaClaim",
    "AccessClaims",
    "CompletedFactors",
    "VerifiedClaims",
    "Verified",
    "Opened",
    "Stamped",
];
const TELLERS: [(&str, &str); 13] = [
    // What a policy is told of the session that it judges.
    ("policy/mod.rs", "completed"),
    ("policy/mod.rs", "payload"),
    // The handle, which only the layer makes; where it is taken from; and what it says.
    ("session/mod.rs", "payload"),
    ("session/mod.rs", "completed_factors"),
    ("layer/verified.rs", "from_extensions"),
    // The session that it has just made.
    ("layer/sign_in.rs", "sign_in"),
    ("extract.rs", "into_inner"),
    // What an app wants to write.
    ("base/payload.rs", "new"),
    ("base/payload.rs", "from_json"),
    // Lists of factors to put into a policy's test, and a claim out of a payload at hand.
    ("policy/completed.rs", "new"),
    ("policy/completed.rs", "from_json"),
    ("claim/mfa.rs", "from_payload"),
    ("claim/mfa.rs", "derive"),
];
/// What a public name may not promise: claims of a token that nobody checked.
const UNCHECKED: [&str; 4] = ["unverified", "decode", "insecure_token", "without_verif"];
/// The one name under which such a thing could be had, if it were.
const DANGEROUS: &str = "dangerous_unverified_claims";

// ------------------------------------------------------------------------------------------ the rules

/// Imports that go up, or to a place that the table doesn't know.
fn climbing(file: &str, text: &str) -> Vec<String> {
    let here = rank(file.trim_end_matches(".rs"));
    let mut breaches = Vec::new();
    for path in crate_paths(file, &code(text)) {
        let home = ROOT_HOMES.iter().find(|(name, _)| path.split('/').next() == Some(name));
        let target = rank(home.map_or(path.as_str(), |(_, home)| home));
        match (here, target) {
            (Some(here), Some(target)) if target <= here => {}
            _ => breaches.push(format!("{file}: imports {path}")),
        }
    }
    breaches
}

fn rank(path: &str) -> Option<usize> {
    let places =
        FLOORS.iter().enumerate().flat_map(|(rank, floor)| floor.iter().map(move |place| (rank, place)));
    let holds =
        |place: &str| path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
    let best = places.filter(|(_, place)| holds(place)).max_by_key(|(_, place)| place.len());
    best.map(|(rank, _)| rank)
}

/// HTTP below the edge.
fn edge_crates(file: &str, text: &str) -> Vec<String> {
    if EDGE.iter().any(|edge| file == format!("{edge}.rs") || file.starts_with(&format!("{edge}/"))) {
        return Vec::new();
    }
    let mut code = code(text);
    for (place, signature) in HTTP_BELOW.iter().filter(|(place, _)| *place == file) {
        match signature {
            Some(signature) => code = code.replacen(signature, "", 1),
            None => code = code.replace("http::", "").replace("use http", ""),
        }
        assert!(text.contains("http::"), "{place} names http no more: take it off the list");
    }
    let named = EDGE_CRATES.iter().filter(|name| names_crate(&code, name));
    named.map(|name| format!("{file}: names {name}")).collect()
}

fn only_in(file: &str, text: &str, home: &str, banned: &[&str]) -> Vec<String> {
    let code = code(text);
    let found = banned.iter().filter(|what| file != home && code.contains(**what));
    found.map(|what| format!("{file}: {what} belongs in {home}")).collect()
}

/// Who but the model names a store, and who but `Db::transact` commits.
fn store_calls(file: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let mut breaches = Vec::new();
    if !file.starts_with("store/") && file != "model/mod.rs" && code.contains("store.commit(") {
        breaches.push(format!("{file}: commits"));
    }
    if file == "model/mod.rs" {
        for (what, times) in [("store.commit(", 1), ("self.commit(", 1), ("fn transact", 1)] {
            if code.matches(what).count() != times {
                breaches.push(format!("{file}: {what} must be there {times} time(s)"));
            }
        }
        let within = code.split("fn transact").nth(1).and_then(|rest| rest.split("\n    }\n").next());
        if !within.is_some_and(|body| body.contains("self.commit(")) {
            breaches.push(format!("{file}: commits outside of transact"));
        }
    }
    if file.starts_with("store/") || file.starts_with("model/") {
        return breaches;
    }
    for path in crate_paths(file, &code) {
        let Some(name) = path.strip_prefix("store/") else { continue };
        let name = name.rsplit('/').next().unwrap_or(name);
        let handed_over = file == STORE_HANDOVER.0 && STORE_HANDOVER.1.contains(&name);
        if !STORE_VALUES.contains(&name) && !handed_over {
            breaches.push(format!("{file}: names the store's {name}"));
        }
    }
    breaches
}

/// Who builds a proof, and who takes one apart.
fn proofs(file: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let mut breaches = Vec::new();
    let literal = code.match_indices("Proof {").any(|(at, _)| {
        let before = code[..at].trim_end();
        !["struct", "impl", "for", "->"].iter().any(|word| before.ends_with(word))
            && !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
    });
    if literal && file != "factor/proof.rs" {
        breaches.push(format!("{file}: builds or takes apart a Proof by its fields"));
    }
    let accepts = code.contains("::accepted(") || code.contains("proof::accepted");
    if accepts && !ACCEPTING.contains(&file) {
        breaches.push(format!("{file}: accepts a credential"));
    }
    let fields = ["at", "bound", "spend", "credential", "factor"];
    let opens = fields.iter().any(|field| {
        let access = format!("proof.{field}");
        let rest = |at: usize| code[at + access.len()..].chars().next();
        code.match_indices(&access).any(|(at, _)| rest(at).is_none_or(|c| !is_word(c) && c != '('))
    });
    if opens && !file.starts_with("flow/") && !file.starts_with("factor/") {
        breaches.push(format!("{file}: takes a Proof apart"));
    }
    breaches
}

/// Whose keys don't begin with the tenant that they are of: each function that makes one takes it by type.
fn unowned(text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let is_global = |name: &str| GLOBAL_KEYS.iter().any(|(_, names)| names.contains(&name));
    for rest in without_tests(text).split("pub(crate) fn ").skip(1) {
        let Some((name, rest)) = rest.split_once('(') else { continue };
        let Some((args, rest)) = rest.split_once(") -> Key {") else {
            breaches.push(format!("{name}: makes no key"));
            continue;
        };
        let body = rest.split("\n}\n").next().unwrap_or(rest);
        if is_global(name) {
            continue;
        }
        let typed = args.split(", ").filter_map(|arg| arg.split_once(": "));
        let mut tenants = typed.filter_map(|(arg, of)| match of {
            "&TenantId" => Some(format!("{arg}.as_str()")),
            "&SessionHandle" => Some(format!("{arg}.tenant().as_str()")),
            _ => None,
        });
        // `]` ends the one of all that it owns.
        let begins = |tenant: String| {
            body.contains(&format!("Key::new([\"t\", {tenant}, "))
                || body.contains(&format!("Key::new([\"t\", {tenant}]"))
        };
        if body.matches("Key::new(").count() != 1 || !tenants.any(begins) {
            breaches.push(format!("{name}: doesn't begin with a tenant, and isn't listed as nobody's"));
        }
    }
    breaches
}

/// Who makes keys beside the one page that has them all.
fn key_makers(file: &str, text: &str) -> Vec<String> {
    let home = file == "model/keys.rs" || file.starts_with("store/") || KEYS_ELSEWHERE.contains(&file);
    let code = code(text);
    let makes = code.match_indices("Key::new(").any(|(at, _)| {
        let before = &code[..at];
        !before.ends_with(is_word) && !before.ends_with("hmac::")
    });
    if makes && !home { vec![format!("{file}: makes a key")] } else { Vec::new() }
}

fn serde_derives(file: &str, text: &str) -> Vec<String> {
    if file.starts_with("model/") || file.starts_with("api/") {
        return Vec::new();
    }
    let code = code(text);
    let mut breaches = Vec::new();
    for (at, _) in code.match_indices("derive(") {
        let Some((list, rest)) = code[at..].split_once(')') else { continue };
        if !list.contains("Serialize") && !list.contains("Deserialize") {
            continue;
        }
        let mut words = rest.split_whitespace().skip_while(|word| !["struct", "enum"].contains(word));
        let name = words.nth(1).unwrap_or("?").trim_end_matches(|c: char| !is_word(c));
        let name = name.split('<').next().unwrap_or(name);
        if !SERDE.iter().any(|(place, kind, _)| (*place, *kind) == (file, name)) {
            breaches.push(format!("{file}: {name} derives serde"));
        }
    }
    breaches
}

fn panics(file: &str, text: &str) -> Vec<String> {
    if SUITES.contains(&file) || is_test_file(file) {
        return Vec::new();
    }
    let code = code(text);
    let banned = [".unwrap()", ".expect(", "panic!", "todo!", "unimplemented!", "unreachable!", "dbg!"];
    let listed = |line: &str| PANICS.iter().any(|(place, what, _)| *place == file && line.contains(what));
    let lines = code.lines().filter(|line| banned.iter().any(|what| line.contains(what)) && !listed(line));
    lines.map(|line| format!("{file}: {}", line.trim())).collect()
}

fn length(file: &str, text: &str) -> Vec<String> {
    if SUITES.contains(&file) || is_test_file(file) {
        return Vec::new();
    }
    let lines = without_tests(text).lines().count();
    if lines > MOST_LINES { vec![format!("{file}: {lines} lines without its tests")] } else { Vec::new() }
}

/// The names and modules that `lib.rs` shows.
fn root_exports(lib: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut names, mut modules) = (BTreeSet::new(), BTreeSet::new());
    let code = code(lib);
    let mut depth = 0_i32;
    let mut statement = String::new();
    for c in code.chars() {
        // At the top a `{` belongs to the statement if that is a `use`.
        if c == '{' && !statement.trim_start().starts_with("pub use") {
            if depth == 0 {
                modules.extend(statement.rsplit_once("pub mod ").map(|(_, name)| name.trim().to_owned()));
            }
            depth += 1;
        } else if c == '}' && depth > 0 {
            depth -= 1;
            statement.clear();
        } else if depth == 0 && c == ';' {
            let line = statement.trim();
            if let Some((_, tree)) = line.split_once("pub use ") {
                let ends = leaves(tree.trim());
                names.extend(ends.iter().map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()));
            } else if let Some((_, name)) = line.split_once("pub mod ") {
                modules.insert(name.trim().to_owned());
            }
            statement.clear();
        } else if depth == 0 {
            statement.push(c);
            if c == ']' && statement.trim_start().starts_with("#") {
                statement.clear();
            }
        }
    }
    (names, modules)
}

/// The parts of an example between its marks, as the README shows them: one below the other.
fn marked(example: &str) -> Option<String> {
    let part = |from: &str| {
        let (_, from) = from.split_once('\n')?;
        let lines: Vec<&str> = from.split_once("// README end")?.0.lines().collect();
        let filled = lines.iter().filter(|line| !line.trim().is_empty());
        let indent = filled.map(|line| line.len() - line.trim_start().len()).min()?;
        let shown = lines.iter().map(|line| line.get(indent..).unwrap_or("").trim_end());
        Some(shown.collect::<Vec<_>>().join("\n").trim().to_owned())
    };
    let parts: Vec<String> = example.split("// README begin").skip(1).map(part).collect::<Option<_>>()?;
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

/// Ids in back quotes, as `o08`, that no test's name carries.
fn untested(docs: &str, tests: &str) -> Vec<String> {
    let is_id = |text: &&str| {
        text.len() == 3
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text[1..].parse::<u8>().is_ok()
    };
    let ids = docs.split('`').skip(1).step_by(2).filter(is_id);
    let names: Vec<&str> = tests.lines().filter(|line| line.contains("fn sec_")).collect();
    let tested = |id: &str| names.iter().any(|name| name.contains(&format!("_{id}_")));
    ids.filter(|id| !tested(id)).map(str::to_owned).collect()
}

fn machine_paths(file: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file isn't among the breaches.
    let places = ["home", "Users", "root", "work", "farm", "tmp/w"].map(|place| format!("/{place}/"));
    let mut breaches: Vec<String> = Vec::new();
    for place in &places {
        let at_start = |at: usize| {
            let before = text[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && !"_-./}>".contains(c))
        };
        if text.match_indices(place.as_str()).any(|(at, _)| at_start(at)) {
            breaches.push(format!("{file}: names a place of one machine, {place}"));
        }
    }
    if file.ends_with("lock") || file.ends_with("lock.json") || file.ends_with("npmrc") {
        for line in text.lines().filter(|line| line.contains("resolved") || line.contains("registry")) {
            let public = ["https://registry.npmjs.org/", "https://github.com/rust-lang/crates.io-index"];
            if line.contains("://") && !public.iter().any(|host| line.contains(host)) {
                breaches.push(format!("{file}: names a registry, {}", line.trim()));
            }
        }
    }
    breaches
}

/// Public functions, as their name and what they answer.
fn public_functions(text: &str) -> Vec<(String, String)> {
    let code = code(text);
    let mut found = Vec::new();
    for (at, word) in code.match_indices("fn ") {
        let qualifiers: Vec<&str> =
            code[..at].rsplit(['\n', ';', '}']).next().unwrap_or("").split_whitespace().collect();
        if qualifiers.first() != Some(&"pub") {
            continue;
        }
        let rest = &code[at + word.len()..];
        let signature = &rest[..rest.find([';', '{']).unwrap_or(rest.len())];
        let name = signature.split(['(', '<']).next().unwrap_or("").trim().to_owned();
        let of = code[..at].rsplit("\nimpl").next().and_then(|rest| rest.split('{').next()).unwrap_or("");
        let of = of.rsplit(" for ").next().unwrap_or("").trim().rsplit("> ").next().unwrap_or("");
        let answer = signature.rsplit_once("->").map_or("", |(_, answer)| answer);
        let answer = answer.replace("Self", of);
        found.push((name, answer.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    found
}

/// Public functions that hand out what a session says and aren't listed, and names that are no good.
fn tellers(file: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for (name, answer) in public_functions(text) {
        let says = answer.split(|c| !is_word(c)).any(|word| SAYS.contains(&word));
        if says && !TELLERS.contains(&(file, name.as_str())) {
            breaches.push(format!("{file}: {name} answers {answer}"));
        }
        if name != DANGEROUS && UNCHECKED.iter().any(|what| name.contains(what)) {
            breaches.push(format!("{file}: {name} promises what nobody checked"));
        }
    }
    breaches
}

/// Who makes claims: what opens a token, and what mints one.
fn claim_makers(file: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let makes = code.match_indices("AccessClaims {").any(|(at, _)| {
        let before = code[..at].trim_end();
        !["struct", "impl", "for", "->"].iter().any(|word| before.ends_with(word))
    });
    let shows = code.contains("pub struct AccessClaims") || code.contains("pub struct Opened");
    let here = ["session/claims.rs", "session/kit.rs"].contains(&file);
    let mut breaches = Vec::new();
    if makes && !here {
        breaches.push(format!("{file}: makes claims"));
    }
    if shows {
        breaches.push(format!("{file}: shows claims to everyone"));
    }
    breaches
}

/// Crates in what is built without any choice, that must not be there.
fn banned<'t>(tree: &'t str, names: &[&str]) -> Vec<&'t str> {
    tree.lines().filter(|line| line.split(' ').next().is_some_and(|name| names.contains(&name))).collect()
}

/// The crates of the default features, as cargo resolves them.
fn default_tree() -> String {
    let cargo = std::env::var("CARGO").expect("cargo runs the tests");
    let args = ["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none"];
    let output = std::process::Command::new(cargo).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

// --------------------------------------------------------------------------------------- reading source

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true if ["target", "node_modules", ".git"].contains(&name.as_str()) => {}
            true => walk(&path, found),
            false => found.push(path),
        }
    }
}

/// Every file of `src` but `lib.rs`, by its path there.
fn sources() -> Vec<(String, String)> {
    let (src, mut found) = (root().join("src"), Vec::new());
    walk(&src, &mut found);
    let rust = found.iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let named = rust.map(|path| {
        let name = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
        (name, fs::read_to_string(path).unwrap())
    });
    let files: Vec<_> = named.filter(|(name, _)| name != "lib.rs").collect();
    assert!(files.len() > 60, "only {} files were found", files.len());
    files
}

/// Applies a rule to every file but those that are tests as a whole, as those inside a file are left out.
fn every(rule: impl Fn(&str, &str) -> Vec<String>) {
    let files = sources();
    let files = files.iter().filter(|(file, _)| !is_test_file(file));
    let breaches: Vec<String> = files.flat_map(|(file, text)| rule(file, text)).collect();
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

fn is_test_file(file: &str) -> bool {
    file.ends_with("/tests.rs")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text up to its tests; they come last in a file.
fn without_tests(text: &str) -> &str {
    let begins = |at: usize| {
        let after = text[at..].lines().nth(1).unwrap_or("");
        after.starts_with("mod ") || after.starts_with("pub(crate) mod ")
    };
    let at = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(|at| begins(*at));
    at.map_or(text, |at| &text[..at])
}

/// The text without tests, comments, and what strings say.
fn code(text: &str) -> String {
    let chars: Vec<char> = without_tests(text).chars().collect();
    let (mut out, mut at) = (String::new(), 0);
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while at < chars.len() {
        let after_word = out.chars().next_back().is_some_and(is_word);
        if starts(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            while at < chars.len() && !starts(at, "*/") {
                at += 1;
            }
            at += 2;
        } else if !after_word && (starts(at, "r\"") || starts(at, "r#")) && raw_string(&chars, at).is_some() {
            at = raw_string(&chars, at).unwrap();
            out.push_str("\"\"");
        } else if chars[at] == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
            out.push_str("\"\"");
        } else if chars[at] == '\'' && (chars.get(at + 2) == Some(&'\'') || chars.get(at + 1) == Some(&'\\'))
        {
            at += if chars.get(at + 1) == Some(&'\\') { 3 } else { 2 };
            while at < chars.len() && chars[at] != '\'' {
                at += 1;
            }
            at += 1;
            out.push_str("' '");
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Where a raw string that begins here ends.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |i: &usize| chars[*i] == '"' && (1..=hashes).all(|h| chars.get(i + h) == Some(&'#'));
    (open + 1..chars.len()).find(closes).map(|end| end + 1 + hashes)
}

/// Every path into the crate that code names, `super` ones included, as `store/key/Key`.
fn crate_paths(file: &str, code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, word) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        let before = &code[..at];
        if before.ends_with("::") || before.ends_with(is_word) || before.ends_with('$') {
            continue;
        }
        let mut rest = &code[at + word.len()..];
        let mut prefix = String::new();
        if word == "super::" {
            let mut module: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
            if module.last() == Some(&"mod") {
                module.pop();
            }
            module.pop();
            while let Some(higher) = rest.strip_prefix("super::") {
                module.pop();
                rest = higher;
            }
            // A path inside an inline module of the file may stop short of leaving it.
            if module.is_empty() {
                continue;
            }
            prefix = module.join("/") + "/";
        }
        let end = tree_end(rest);
        paths.extend(leaves(&rest[..end]).into_iter().map(|leaf| format!("{prefix}{leaf}")));
    }
    paths
}

/// How far a `use` tree, or a path in an expression, goes.
fn tree_end(text: &str) -> usize {
    let mut depth = 0_i32;
    for (at, c) in text.char_indices() {
        match c {
            '{' if depth > 0 || text[..at].ends_with("::") || at == 0 => depth += 1,
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ if depth > 0 || is_word(c) || c == ':' => {}
            _ => return at,
        }
    }
    text.len()
}

/// `a::{b, c::{self, d}}` as `a/b`, `a/c`, `a/c/d`.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree).trim().trim_end_matches("::self");
        return if path.is_empty() { Vec::new() } else { vec![path.replace("::", "/")] };
    };
    let head = head.trim().replace("::", "/");
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut from, mut parts) = (0_i32, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[from..]);
    let ends = parts.into_iter().flat_map(leaves);
    ends.map(|end| format!("{head}{end}").trim_end_matches("/self").to_owned()).collect()
}

/// Whether code names a crate: as the first word of a path.
fn names_crate(code: &str, name: &str) -> bool {
    let opens = code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = &code[..at];
        !before.ends_with(is_word) && !before.ends_with("::") && !before.ends_with('.')
    });
    opens || code.contains(&format!("use {name};"))
}

// -------------------------------------------------------------------------------------------- the tests

#[test]
fn imports_go_down() {
    every(climbing);
    let planted = "use crate::{base::{error::Error, time}, flow::Desk};\nfn f() { crate::engine::x() }";
    let found = climbing("model/user.rs", planted);
    assert_eq!(found, ["model/user.rs: imports flow/Desk", "model/user.rs: imports engine/x"]);
    assert!(climbing("policy/mod.rs", "use crate::claim::MfaClaim;").len() == 1);
    assert!(climbing("claim/mod.rs", "use crate::policy::Lazy;").is_empty());
    assert!(climbing("session/cookies.rs", "use super::kit::Kit;").len() == 1);
    assert!(climbing("session/token.rs", "use crate::config::Config;").len() == 1);
    assert!(
        climbing("delivery/mod.rs", "use super::super::factor::Proof;").is_empty(),
        "root is not resolved"
    );
    assert!(climbing("session/kit.rs", "use crate::config::Config;").is_empty());
    assert!(climbing("base/x.rs", "use crate::nowhere::X;").len() == 1);
    assert!(climbing("base/x.rs", "use crate::Session;").len() == 1);
    assert!(climbing("base/x.rs", "// crate::flow\n/// crate::flow\nlet x = \"crate::flow\";").is_empty());
}

#[test]
fn only_the_edge_speaks_http() {
    every(edge_crates);
    assert_eq!(edge_crates("flow/x.rs", "use http::HeaderMap;"), ["flow/x.rs: names http"]);
    assert_eq!(edge_crates("session/x.rs", "fn f(x: http_body::Frame<()>) {}").len(), 1);
    assert_eq!(edge_crates("engine.rs", "use tower::{Layer, Service};").len(), 1);
    assert!(edge_crates("layer/x.rs", "use tower::Layer;").is_empty());
    assert!(edge_crates("base/x.rs", "let x = \"http::x\"; a.http::<X>(); crate::http::y();").is_empty());
}

#[test]
fn one_clock_and_one_dice() {
    every(|file, text| only_in(file, text, "base/time.rs", &CLOCKS));
    every(|file, text| only_in(file, text, "base/random.rs", &DICE));
    assert_eq!(only_in("flow/x.rs", "let t = Instant::now();", "base/time.rs", &CLOCKS).len(), 1);
    assert_eq!(only_in("flow/x.rs", "SystemRandom::new()", "base/random.rs", &DICE).len(), 1);
    let in_tests = "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { Instant::now(); } }";
    assert!(only_in("flow/x.rs", in_tests, "base/time.rs", &CLOCKS).is_empty());
}

#[test]
fn only_the_model_touches_the_store() {
    every(store_calls);
    assert_eq!(store_calls("flow/x.rs", "use crate::store::{Key, Batch};").len(), 1);
    assert_eq!(store_calls("engine.rs", "use crate::store::AnyStore;").len(), 1);
    assert!(store_calls("builder.rs", "use crate::store::AnyStore;").is_empty());
    assert_eq!(store_calls("model/user.rs", "self.store.commit(batch)").len(), 1);
    let elsewhere = "fn transact() {\n    }\nfn other() { self.commit(b); store.commit(b) }";
    assert_eq!(store_calls("model/mod.rs", elsewhere).len(), 1);
}

#[test]
fn sec_n04_what_a_tenant_owns_begins_with_it() {
    assert_eq!(unowned(&read("src/model/keys.rs")), Vec::<String>::new());
    every(key_makers);
    let made = |args: &str, parts: &str| {
        let made = format!("pub(crate) fn coupon({args}) -> Key {{\n    Key::new([{parts}])\n}}\n");
        unowned(&made).len()
    };
    assert_eq!(made("tenant: &TenantId", "\"t\", tenant.as_str()"), 0);
    assert_eq!(made("tenant: &TenantId, id: &str", "\"t\", tenant.as_str(), \"coupon\", id"), 0);
    assert_eq!(made("handle: &SessionHandle", "\"t\", handle.tenant().as_str(), \"coupon\""), 0);
    // Of no tenant, behind something else, not by type, of another one than it says.
    assert_eq!(made("id: &str", "\"coupon\", id"), 1);
    assert_eq!(made("tenant: &TenantId", "\"coupon\", tenant.as_str()"), 1);
    assert_eq!(made("tenant: &str", "\"t\", tenant, \"coupon\""), 1);
    assert_eq!(made("tenant: &TenantId", "\"t\", TenantId::PUBLIC.as_str(), \"coupon\""), 1);
    assert_eq!(unowned("pub(crate) fn coupon(id: &str) -> Option<Key> {\n}\n").len(), 1);
    assert!(
        unowned("pub(crate) fn user(id: &UserId) -> Key {\n    Key::new([\"user\", id.as_str()])\n}\n")
            .is_empty()
    );
    for name in GLOBAL_KEYS.iter().flat_map(|(_, names)| *names) {
        let there = read("src/model/keys.rs").contains(&format!("pub(crate) fn {name}("));
        assert!(there, "{name} is gone: take it off the list");
    }
    assert_eq!(key_makers("flow/x.rs", "let k = Key::new([\"coupon\"]);"), ["flow/x.rs: makes a key"]);
    assert!(key_makers("flow/x.rs", "hmac::Key::new(a); LessSafeKey::new(b)").is_empty());
}

#[test]
fn only_factors_build_proofs() {
    every(proofs);
    assert_eq!(proofs("flow/x.rs", "let p = Proof { factor, at };").len(), 1);
    assert_eq!(proofs("engine.rs", "let p = factor::accepted(a, b);").len(), 1);
    assert_eq!(proofs("api/x.rs", "let s = proof.spend;").len(), 1);
    assert!(proofs("api/x.rs", "let s = proof.factor(); proof.attempt;").is_empty());
    assert!(proofs("flow/second.rs", "let s = proof.spend;").is_empty());
}

#[test]
fn serde_is_derived_where_things_are_stored_or_sent() {
    every(serde_derives);
    let planted = "#[derive(Clone, Serialize)]\npub(crate) struct Thing<T> { a: T }";
    assert_eq!(serde_derives("flow/x.rs", planted), ["flow/x.rs: Thing derives serde"]);
    assert!(serde_derives("model/x.rs", planted).is_empty());
    for (file, name, _) in SERDE {
        assert!(read(&format!("src/{file}")).contains(name), "{name} isn't in {file}: take it off the list");
    }
}

#[test]
fn nothing_panics() {
    every(panics);
    assert_eq!(panics("flow/x.rs", "let x = y.unwrap();\nlet z = y.unwrap_or(1); // .unwrap()").len(), 1);
    let unfinished = format!("y.expect(\"x\"); \n {}!()", "todo");
    assert_eq!(panics("flow/x.rs", &unfinished).len(), 2);
    assert!(panics("flow/x.rs", "let x = \"panic!\";\n#[cfg(test)]\nmod tests { panic!() }").is_empty());
    for (file, what, _) in PANICS {
        assert!(read(&format!("src/{file}")).contains(what), "{file}: {what} is gone: take it off the list");
    }
}

#[test]
fn files_are_short() {
    every(length);
    assert_eq!(length("flow/x.rs", &"fn f() {}\n".repeat(401)).len(), 1);
    assert!(length("flow/x.rs", &("fn f() {}\n".repeat(400) + "#[cfg(test)]\nmod tests {\n}\n")).is_empty());
}

#[test]
fn the_root_shows_the_paved_path() {
    let (names, modules) = root_exports(&read("src/lib.rs"));
    assert_eq!(names, ROOT_NAMES.map(str::to_owned).into());
    assert_eq!(modules, ROOT_MODULES.map(str::to_owned).into());
    let planted = "#[cfg(x)]\npub mod a;\nmod b;\npub mod c { pub use crate::x::Y; }\npub use d::{E, f::{G as H, I}};\n";
    let (names, modules) = root_exports(planted);
    assert_eq!(names, ["E", "G", "I"].map(str::to_owned).into());
    assert_eq!(modules, ["a", "c"].map(str::to_owned).into());
}

#[test]
fn the_readme_is_the_crate_docs_and_shows_what_compiles() {
    let opening = "#![doc = include_str!(\"../README.md\")]";
    assert!(read("src/lib.rs").lines().any(|line| line == opening), "lib.rs opens with the README");
    let program = marked(&read("examples/quickstart.rs")).expect("examples/quickstart.rs has the marks");
    let readme = read("README.md");
    let hidden = |line: &&str| !(line.starts_with("# ") || *line == "#");
    let shown = |block: &str| block.lines().skip(1).filter(hidden).collect::<Vec<_>>().join("\n");
    let blocks: Vec<String> = readme.split("```").skip(1).step_by(2).map(shown).collect();
    assert!(blocks.iter().any(|block| block.trim() == program), "the README doesn't show\n{program}");
    let planted = "x\n    // README begin\n    let a = 1;\n\n        b(a);\n    // README end\ny";
    assert_eq!(marked(planted).as_deref(), Some("let a = 1;\n\n    b(a);"));
    let two = format!("// README begin\nuse b;\n// README end\n{planted}");
    assert_eq!(marked(&two).as_deref(), Some("use b;\n\nlet a = 1;\n\n    b(a);"));
    assert_eq!(marked("no marks"), None);
}

/// The tests that the README's table of recipes names, in its last column, and that aren't there.
fn unshown(readme: &str, is_there: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let table = readme.split("\n## ").find(|section| section.starts_with("Recipes")).unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.flat_map(|row| {
        let tests: Vec<&str> =
            row.rsplit('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2).collect();
        let missing = |name: &&str| name.split_once("::").is_none_or(|(file, test)| !is_there(file, test));
        match tests.is_empty() {
            true => vec![row.to_owned()],
            false => tests.into_iter().filter(missing).map(str::to_owned).collect(),
        }
    })
    .collect()
}

#[test]
fn every_recipe_of_the_readme_has_a_test_over_http() {
    let is_there = |file: &str, test: &str| {
        let path = root().join(format!("tests/it/{file}.rs"));
        fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("async fn {test}()")))
    };
    let readme = read("README.md");
    assert!(readme.contains("\n| MultiFactorAuth |"), "the table is there");
    assert_eq!(unshown(&readme, is_there), Vec::<String>::new());
    let planted =
        "x\n## Recipes\n| recipe | by |\n|---|---|\n| A | `a::b`, `a::c` |\n| B | none |\n## Y\n| C | `d` |";
    assert_eq!(unshown(planted, |_, test| test == "b"), ["a::c", "| B | none |"]);
}

/// Examples of a page that don't assert both that something is asked or possible, and that something isn't.
fn one_sided(page: &str) -> Vec<String> {
    let examples = page.split("```").skip(1).step_by(2);
    let half = |text: &&str| {
        let says = text.matches("assert!(").count();
        let says_no = text.matches("assert!(!").count();
        says == says_no || says_no == 0
    };
    examples.filter(half).map(ToOwned::to_owned).collect()
}

#[test]
fn every_example_of_the_guide_says_a_yes_and_a_no() {
    let page = read("src/docs/policies.md");
    assert!(page.matches("```").count() > 15);
    assert_eq!(one_sided(&page), Vec::<String>::new());
    assert_eq!(one_sided("a\n```\nassert!(a);\n```\nb\n```\nassert!(!a);\nassert!(b);\n```").len(), 1);
}

#[test]
fn every_attack_in_the_docs_has_its_test() {
    let mut text = String::new();
    for dir in ["src", "tests"] {
        let mut found = Vec::new();
        walk(&root().join(dir), &mut found);
        let rust = found.iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
        rust.for_each(|path| text.push_str(&fs::read_to_string(path).unwrap()));
    }
    assert_eq!(untested(&read("src/docs/attacks.md"), &text), Vec::<String>::new());
    assert_eq!(untested("`a01` to `b02`, `x`, `MfaLayer`", "fn sec_a01_x() {}"), ["b02"]);
}

#[test]
fn no_file_knows_a_machine() {
    let mut files = Vec::new();
    walk(&root(), &mut files);
    let mut breaches = Vec::new();
    for path in files {
        // What isn't text is no place for a path to be read.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        breaches.extend(machine_paths(&name, &text));
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
    let planted = format!("see /{}/me/x", "home");
    assert_eq!(machine_paths("a.md", &planted).len(), 1);
    assert!(machine_paths("a.md", &format!("https://shop.test/{}/x", "home")).is_empty());
    let planted = "\"resolved\": \"http://mirror.local/x.tgz\"";
    assert_eq!(machine_paths("package-lock.json", planted).len(), 1);
    assert!(
        machine_paths("Cargo.lock", "source = \"registry+https://github.com/rust-lang/crates.io-index\"")
            .is_empty()
    );
}

#[test]
fn sec_j27_private_keys_are_used_by_aws_lc_alone() {
    let tree = default_tree();
    assert!(!banned(&tree, &["aws-lc-rs"]).is_empty(), "{tree}");
    assert_eq!(banned(&tree, &["rsa", "ring", "openssl", "p256", "ed25519-dalek"]), Vec::<&str>::new());
    assert_eq!(banned("a v1\nrsa v0.9.8\nrsa-x v1", &["rsa"]), ["rsa v0.9.8"]);
    let deny = read("deny.toml");
    let bans = deny.split("[bans]").nth(1).and_then(|rest| rest.split("\n[").next()).expect("a list of bans");
    // But for one user, who has public keys alone.
    let wrapped = "{ name = \"rsa\", wrappers = [\"openidconnect\"] }";
    assert!(bans.contains(wrapped), "deny.toml bans rsa");
    // Nothing else of the crate signs: the one file names the library.
    every(|file, text| only_in(file, text, "session/signing.rs", &["KeyPair", "jsonwebtoken"]));
}

#[test]
fn sec_j10_nothing_unpacks() {
    let tree = default_tree();
    let unpackers = ["flate2", "miniz_oxide", "zlib-rs", "brotli", "zstd", "async-compression", "lz4_flex"];
    assert_eq!(banned(&tree, &unpackers), Vec::<&str>::new());
}

#[test]
fn sec_j21_only_a_checked_token_makes_claims() {
    every(claim_makers);
    assert_eq!(claim_makers("api/x.rs", "let c = AccessClaims { user };"), ["api/x.rs: makes claims"]);
    assert_eq!(claim_makers("session/token.rs", "pub struct AccessClaims { }").len(), 1);
    let token = code(&read("src/session/token.rs"));
    let opening = token.split("fn verify(").nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap();
    let (before, after) = opening.split_once(".verify(").expect("a signature is checked");
    // What is read before is the header, for the key's id and its algorithm.
    assert!(!before.contains("payload") && after.contains("payload"), "{before}");
    let session = code(&read("src/session/mod.rs"));
    let fields =
        session.split("pub struct Session {").nth(1).and_then(|rest| rest.split('}').next()).unwrap();
    assert!(!fields.contains("pub"), "{fields}");
}

#[test]
fn sec_j29_no_public_function_tells_what_an_unverified_token_says() {
    every(tellers);
    let planted = "impl X {\n    pub fn peek(token: &str) -> Option<Payload> {}\n    pub(crate) fn own() -> Payload {}\n}";
    assert_eq!(tellers("session/x.rs", planted), ["session/x.rs: peek answers Option<Payload>"]);
    assert_eq!(tellers("x.rs", "pub fn decode_token(token: &str) -> String {").len(), 1);
    assert!(
        tellers("x.rs", "pub async fn dangerous_unverified_claims(token: &str) -> Unverified;").is_empty()
    );
    for (file, name) in TELLERS {
        let there = public_functions(&read(&format!("src/{file}"))).iter().any(|(known, _)| known == name);
        assert!(there, "{file}: {name} is gone: take it off the list");
    }
}

#[test]
fn source_is_read_right() {
    assert_eq!(leaves("a::{b, c::{self, d as e}}"), ["a/b", "a/c", "a/c/d"]);
    assert_eq!(
        code("a \"//\\\"x\" b // c\n'\"' r#\"\"x\"# 'a /* x */ d").trim(),
        "a \"\" b \n' ' \"\" 'a  d"
    );
    assert_eq!(
        crate_paths("flow/code.rs", "use super::{Desk, link::X}; crate::a::b(c)"),
        ["a/b", "flow/Desk", "flow/link/X"]
    );
}
