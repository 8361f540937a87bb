//! Each row by what the providers document: their discovery documents and their answers, shortened.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use openidconnect::url::Url;
use serde_json::{Value, json};

use super::*;
use crate::{
    base::{error::BoxError, http_client::HttpClient, secret::Secret, time::Timestamp},
    factor::third_party::{
        Profile, Talk, ThirdParty, profile,
        talk::{Returned, Trouble},
    },
};

const NOW: Timestamp = Timestamp::from_secs(1_702_877_939);
const ALICE: &str = "alice@shop.example";

fn client() -> ProviderClient {
    ProviderClient::new("shop", Secret::new("s3cret".to_owned()))
}

/// Answers by the beginning of an address, and remembers what was asked.
#[derive(Clone)]
struct Web {
    pages: Arc<Vec<(&'static str, Value)>>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Web {
    fn new(pages: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self { pages: Arc::new(pages.into_iter().collect()), asked: Arc::default() }
    }

    fn talk(&self) -> Talk {
        Talk::new(ThirdParty::new(self.clone()))
    }
}

impl HttpClient for Web {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, BoxError> {
        let (uri, header) = (request.uri().to_string(), request.headers().get("authorization"));
        let header = header.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let sent = format!("{header} {}", String::from_utf8_lossy(request.body()));
        self.asked.lock().unwrap().push((uri.clone(), sent));
        let found = self.pages.iter().find(|(page, _)| *page == uri);
        let (_, body) = found.ok_or_else(|| format!("nothing is at {uri}"))?;
        let answer = http::Response::builder().header("content-type", "application/json; charset=utf-8");
        Ok(answer.body(Bytes::from(body.to_string()))?)
    }
}

/// A discovery document, its keys beside it.
fn document(issuer: &str, authorise: &str, token: &str, keys: &str, more: Value) -> Value {
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": authorise,
        "token_endpoint": token,
        "jwks_uri": keys,
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    document
}

/// A provider by OpenID Connect, and what its document says.
struct Row {
    provider: Provider,
    document: &'static str,
    says: Value,
    keys: &'static str,
    authorise: &'static str,
    more: &'static [(&'static str, &'static str)],
    scope: &'static str,
    pkce: bool,
    /// Whether the secret goes into the form.
    form: bool,
    token: &'static str,
}

fn rows() -> Vec<Row> {
    let (google, apple) = ("https://accounts.google.com", "https://appleid.apple.com");
    let (gitlab, linkedin) = ("https://gitlab.com", "https://www.linkedin.com/oauth");
    let microsoft = "https://login.microsoftonline.com/8b6f4a1e-0000-4000-8000-000000000001/v2.0";
    let okta = "https://dev-1.okta.example/oauth2/default";
    vec![
        Row {
            provider: Provider::google(client()),
            document: "https://accounts.google.com/.well-known/openid-configuration",
            says: document(
                google,
                "https://accounts.google.com/o/oauth2/v2/auth",
                "https://oauth2.googleapis.com/token",
                "https://www.googleapis.com/oauth2/v3/certs",
                json!({
                    "userinfo_endpoint": "https://openidconnect.googleapis.com/v1/userinfo",
                    "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
                    "code_challenge_methods_supported": ["plain", "S256"],
                }),
            ),
            keys: "https://www.googleapis.com/oauth2/v3/certs",
            authorise: "https://accounts.google.com/o/oauth2/v2/auth",
            more: &[],
            scope: "openid email",
            pkce: true,
            form: false,
            token: "https://oauth2.googleapis.com/token",
        },
        Row {
            provider: Provider::apple(client()),
            document: "https://appleid.apple.com/.well-known/openid-configuration",
            says: document(
                apple,
                "https://appleid.apple.com/auth/authorize",
                "https://appleid.apple.com/auth/token",
                "https://appleid.apple.com/auth/keys",
                json!({
                    "response_modes_supported": ["query", "fragment", "form_post"],
                    "token_endpoint_auth_methods_supported": ["client_secret_post"],
                    "subject_types_supported": ["pairwise"],
                }),
            ),
            keys: "https://appleid.apple.com/auth/keys",
            authorise: "https://appleid.apple.com/auth/authorize",
            more: &[("response_mode", "form_post")],
            scope: "openid email name",
            pkce: false,
            form: true,
            token: "https://appleid.apple.com/auth/token",
        },
        Row {
            provider: Provider::gitlab(client()),
            document: "https://gitlab.com/.well-known/openid-configuration",
            says: document(
                gitlab,
                "https://gitlab.com/oauth/authorize",
                "https://gitlab.com/oauth/token",
                "https://gitlab.com/oauth/discovery/keys",
                json!({
                    "userinfo_endpoint": "https://gitlab.com/oauth/userinfo",
                    "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                    "code_challenge_methods_supported": ["plain", "S256"],
                }),
            ),
            keys: "https://gitlab.com/oauth/discovery/keys",
            authorise: "https://gitlab.com/oauth/authorize",
            more: &[],
            scope: "openid email",
            pkce: true,
            form: false,
            token: "https://gitlab.com/oauth/token",
        },
        Row {
            provider: Provider::microsoft("8b6f4a1e-0000-4000-8000-000000000001", client()),
            document: "https://login.microsoftonline.com/8b6f4a1e-0000-4000-8000-000000000001/v2.0/.well-known/openid-configuration",
            says: document(
                microsoft,
                "https://login.microsoftonline.com/8b6f4a1e-0000-4000-8000-000000000001/oauth2/v2.0/authorize",
                "https://login.microsoftonline.com/8b6f4a1e-0000-4000-8000-000000000001/oauth2/v2.0/token",
                "https://login.microsoftonline.com/8b6f4a1e-0000-4000-8000-000000000001/discovery/v2.0/keys",
                json!({
                    "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
                    "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
                    "subject_types_supported": ["pairwise"],
                }),
            ),
            keys: "https://login.microsoftonline.com/8b6f4a1e-0000-4000-8000-000000000001/discovery/v2.0/keys",
            authorise: "https://login.microsoftonline.com/8b6f4a1e-0000-4000-8000-000000000001/oauth2/v2.0/authorize",
            more: &[],
            scope: "openid email profile",
            pkce: false,
            form: false,
            token: "https://login.microsoftonline.com/8b6f4a1e-0000-4000-8000-000000000001/oauth2/v2.0/token",
        },
        Row {
            provider: Provider::linkedin(client()),
            document: "https://www.linkedin.com/oauth/.well-known/openid-configuration",
            says: document(
                linkedin,
                "https://www.linkedin.com/oauth/v2/authorization",
                "https://www.linkedin.com/oauth/v2/accessToken",
                "https://www.linkedin.com/oauth/openid/jwks",
                json!({
                    "userinfo_endpoint": "https://api.linkedin.com/v2/userinfo",
                    "subject_types_supported": ["pairwise"],
                }),
            ),
            keys: "https://www.linkedin.com/oauth/openid/jwks",
            authorise: "https://www.linkedin.com/oauth/v2/authorization",
            more: &[],
            scope: "openid profile email",
            pkce: false,
            form: true,
            token: "https://www.linkedin.com/oauth/v2/accessToken",
        },
        Row {
            provider: Provider::okta(okta, client()),
            document: "https://dev-1.okta.example/oauth2/default/.well-known/openid-configuration",
            says: document(
                okta,
                "https://dev-1.okta.example/oauth2/default/v1/authorize",
                "https://dev-1.okta.example/oauth2/default/v1/token",
                "https://dev-1.okta.example/oauth2/default/v1/keys",
                json!({
                    "userinfo_endpoint": "https://dev-1.okta.example/oauth2/default/v1/userinfo",
                    "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
                    "code_challenge_methods_supported": ["S256"],
                }),
            ),
            keys: "https://dev-1.okta.example/oauth2/default/v1/keys",
            authorise: "https://dev-1.okta.example/oauth2/default/v1/authorize",
            more: &[],
            scope: "openid email",
            pkce: true,
            form: false,
            token: "https://dev-1.okta.example/oauth2/default/v1/token",
        },
    ]
}

fn callback() -> Url {
    Url::parse("https://shop.example/auth/callback").unwrap()
}

fn code() -> Returned {
    let code = Secret::new("the-code".to_owned());
    let verifier = Some(Secret::new("v".repeat(43)));
    Returned::Code { code, redirect: callback(), verifier, issuer: None }
}

fn pairs(url: &Url) -> Vec<(String, String)> {
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

#[tokio::test]
async fn openid_connect_by_its_document() {
    for row in rows() {
        let web = Web::new([(row.document, row.says.clone()), (row.keys, json!({ "keys": [] }))]);
        let (talk, client) = (web.talk(), client());
        assert_eq!(row.provider.problems(), Vec::<String>::new());
        let begun = talk.begin(&row.provider, &client, &callback(), NOW).await.unwrap();
        let url = Url::parse(&begun.url).unwrap();
        assert_eq!(begun.url.split('?').next(), Some(row.authorise));
        let mut pairs = pairs(&url);
        let challenged = pairs.iter().any(|(name, _)| name == "code_challenge");
        pairs.retain(|(name, _)| !name.starts_with("code_challenge"));
        assert_eq!((challenged, begun.verifier.is_some()), (row.pkce, row.pkce), "{}", row.provider.id());
        let mut wanted = vec![
            ("response_type", "code"),
            ("client_id", "shop"),
            ("redirect_uri", "https://shop.example/auth/callback"),
            ("scope", row.scope),
        ];
        wanted.extend(row.more);
        let mut wanted: Vec<(String, String)> =
            wanted.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        pairs.sort();
        wanted.sort();
        assert_eq!(pairs, wanted);
        // Where the code goes, and how the secret does.
        let end = talk.end(&row.provider, &client, code(), NOW).await;
        assert_eq!(end, Err(Trouble::Down("it can't be reached")));
        let (uri, sent) = web.asked.lock().unwrap().last().unwrap().clone();
        assert_eq!(uri, row.token);
        let (header, form) = (sent.starts_with("Basic "), sent.contains("client_secret=s3cret"));
        assert_eq!((header, form), (!row.form, row.form), "{}: {sent}", row.provider.id());
        assert!(sent.contains("code=the-code") && sent.contains("grant_type=authorization_code"), "{sent}");
    }
}

#[test]
fn who_it_is_by_openid_connect() {
    let said = |value: Value| value.as_object().unwrap().clone();
    let found = |subject: &str, email: Option<&str>, verified| {
        let email = email.map(|email| crate::base::contact::Email::parse(email).unwrap());
        Some(Profile { subject: subject.to_owned(), email, verified })
    };
    for (provider, says, found) in [
        (
            Provider::google(client()),
            json!({ "iss": "https://accounts.google.com", "azp": "1234.apps", "aud": "1234.apps", "sub": "10769150350006150715113082367", "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "hd": "shop.example", "email": ALICE, "email_verified": true, "iat": 1353601026, "exp": 1353604926 }),
            found("10769150350006150715113082367", Some(ALICE), true),
        ),
        (
            Provider::apple(client()),
            json!({ "iss": "https://appleid.apple.com", "sub": "001234.0a1b2c.0123", "aud": "com.example.shop", "email": "x@privaterelay.appleid.example", "email_verified": true, "is_private_email": true, "real_user_status": 2, "nonce_supported": true }),
            found("001234.0a1b2c.0123", Some("x@privaterelay.appleid.example"), true),
        ),
        (
            // Apple documents a text as well: that isn't literally `true` (row L06).
            Provider::apple(client()),
            json!({ "sub": "001234.0a1b2c.0123", "email": ALICE, "email_verified": "true" }),
            found("001234.0a1b2c.0123", Some(ALICE), false),
        ),
        (
            Provider::gitlab(client()),
            json!({ "iss": "https://gitlab.com", "sub": "1324", "sub_legacy": "a1b2", "name": "Alice", "nickname": "alice", "email": ALICE, "email_verified": true, "groups_direct": [] }),
            found("1324", Some(ALICE), true),
        ),
        (
            Provider::microsoft("8b6f4a1e-0000-4000-8000-000000000001", client()),
            json!({ "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "oid": "1", "tid": "8b6f4a1e-0000-4000-8000-000000000001", "preferred_username": ALICE, "email": ALICE, "ver": "2.0" }),
            found("AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", Some(ALICE), false),
        ),
        (
            Provider::linkedin(client()),
            json!({ "sub": "782bbtaQ", "name": "Alice", "given_name": "Alice", "picture": "https://media.example/x", "locale": "en-US", "email": ALICE, "email_verified": true }),
            found("782bbtaQ", Some(ALICE), true),
        ),
        (
            Provider::okta("https://dev-1.okta.example", client()),
            json!({ "sub": "00uid4BxXw6I6TV4m0g3", "email": ALICE, "email_verified": true, "ver": 1 }),
            found("00uid4BxXw6I6TV4m0g3", Some(ALICE), true),
        ),
        (Provider::google(client()), json!({ "sub": "1" }), found("1", None, false)),
        (
            Provider::google(client()),
            json!({ "sub": "1", "email": "no address", "email_verified": true }),
            found("1", None, false),
        ),
        (Provider::google(client()), json!({ "sub": "", "email": ALICE }), None),
        (Provider::google(client()), json!({ "sub": "x".repeat(256) }), None),
        (Provider::google(client()), json!({ "sub": "a\nb" }), None),
        (Provider::google(client()), json!({ "sub": null }), None),
        (Provider::google(client()), json!({ "sub": -1 }), None),
        (Provider::google(client()), json!({ "email": ALICE, "email_verified": true }), None),
    ] {
        assert_eq!(profile::read(&provider, said(says.clone())), found, "{says}");
    }
}

#[tokio::test]
async fn oauth2_from_the_button_to_the_user() {
    let github_user = json!({ "login": "alice", "id": 583231, "node_id": "MDQ6VXNlcjU4MzIzMQ==", "name": "Alice", "email": "public@shop.example" });
    let emails = json!([
        { "email": "other@shop.example", "verified": true, "primary": false, "visibility": null },
        { "email": ALICE, "verified": true, "primary": true, "visibility": "private" },
    ]);
    let unverified = json!([{ "email": ALICE, "verified": false, "primary": true, "visibility": null }]);
    let (token, user, list) = (
        "https://github.com/login/oauth/access_token",
        "https://api.github.com/user",
        "https://api.github.com/user/emails",
    );
    let tokens = json!({ "access_token": "gho_1", "scope": "read:user,user:email", "token_type": "bearer" });
    let discord = json!({ "access_token": "d1", "token_type": "Bearer", "expires_in": 604800, "refresh_token": "r1", "scope": "identify email" });
    let facebook = json!({ "access_token": "f1", "token_type": "bearer", "expires_in": 5183944 });
    type Case = (Provider, &'static str, &'static str, Vec<(&'static str, Value)>, &'static str, bool);
    let cases: Vec<Case> = vec![
        (
            Provider::github(client()),
            "https://github.com/login/oauth/authorize",
            "read:user user:email",
            vec![(token, tokens.clone()), (user, github_user.clone()), (list, emails)],
            "583231",
            true,
        ),
        (
            Provider::github(client()),
            "https://github.com/login/oauth/authorize",
            "read:user user:email",
            vec![(token, tokens), (user, github_user), (list, unverified)],
            "583231",
            false,
        ),
        (
            Provider::discord(client()),
            "https://discord.com/oauth2/authorize",
            "identify email",
            vec![
                ("https://discord.com/api/oauth2/token", discord.clone()),
                (
                    "https://discord.com/api/users/@me",
                    json!({ "id": "80351110224678912", "username": "alice", "discriminator": "0", "verified": true, "email": ALICE }),
                ),
            ],
            "80351110224678912",
            true,
        ),
        (
            Provider::discord(client()),
            "https://discord.com/oauth2/authorize",
            "identify email",
            vec![
                ("https://discord.com/api/oauth2/token", discord),
                (
                    "https://discord.com/api/users/@me",
                    json!({ "id": "80351110224678912", "verified": false, "email": ALICE }),
                ),
            ],
            "80351110224678912",
            false,
        ),
        (
            Provider::facebook(client()),
            "https://www.facebook.com/v23.0/dialog/oauth",
            "email",
            vec![
                ("https://graph.facebook.com/v23.0/oauth/access_token", facebook),
                (
                    "https://graph.facebook.com/v23.0/me?fields=id,name,email",
                    json!({ "id": "10158000000000000", "name": "Alice", "email": ALICE }),
                ),
            ],
            "10158000000000000",
            false,
        ),
    ];
    for (provider, authorise, scope, pages, subject, verified) in cases {
        assert_eq!(provider.problems(), Vec::<String>::new());
        let (web, client) = (Web::new(pages), client());
        let talk = web.talk();
        let begun = talk.begin(&provider, &client, &callback(), NOW).await.unwrap();
        let url = Url::parse(&begun.url).unwrap();
        assert_eq!(begun.url.split('?').next(), Some(authorise));
        assert!(pairs(&url).contains(&("scope".to_owned(), scope.to_owned())), "{url}");
        assert_eq!(begun.verifier.is_some(), provider.id() == "github");
        let profile = talk.end(&provider, &client, code(), NOW).await.unwrap();
        let email = crate::base::contact::Email::parse(ALICE).unwrap();
        assert_eq!(profile, Profile { subject: subject.to_owned(), email: Some(email), verified });
        let asked = web.asked.lock().unwrap().clone();
        assert!(
            asked[0].1.contains("client_id=shop") && asked[0].1.contains("client_secret=s3cret"),
            "{asked:?}"
        );
        assert!(asked[1..].iter().all(|(_, sent)| sent.starts_with("Bearer ")), "{asked:?}");
    }
    // GitHub refuses by 200.
    let refusal = json!({ "error": "bad_verification_code", "error_description": "The code passed is incorrect or expired." });
    let end =
        Web::new([(token, refusal)]).talk().end(&Provider::github(client()), &client(), code(), NOW).await;
    assert_eq!(end, Err(Trouble::Refused("it refuses the code")));
}

/// Apple's secret is made for the request.
#[tokio::test]
async fn apple_gets_a_secret_that_was_signed_just_now() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let row = rows().swap_remove(1);
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let text = crate::base::hash::base64(pair.to_pkcs8v1().unwrap().as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    let client = ProviderClient::apple("com.example.shop", "TEAM123456", "KEY1234567", Secret::new(pem));
    let web = Web::new([(row.document, row.says), (row.keys, json!({ "keys": [] }))]);
    let provider = Provider::apple(client.clone());
    assert_eq!(provider.problems(), Vec::<String>::new());
    web.talk().end(&provider, &client, code(), NOW).await.unwrap_err();
    let (_, sent) = web.asked.lock().unwrap().last().unwrap().clone();
    let secret = sent.split("client_secret=").nth(1).unwrap().split('&').next().unwrap();
    assert_eq!(secret.split('.').count(), 3);
    assert!(sent.contains("client_id=com.example.shop") && !sent.contains("PRIVATE"), "{sent}");
}
