//! What is said between the app and a provider: where people are sent, a code for tokens, who somebody is.
//!
//! One that is slow holds up its own people: see [`seats`](super::seats).

use std::{borrow::Cow, fmt, sync::Arc};

use super::{
    Profile, Provider, ProviderClient, ThirdParty, apple,
    id_token::{Bad, verify},
    line::Line,
    place::{Documents, Metadata, Place},
    profile,
    seats::{Seat, Seats},
};
use crate::{
    base::{error::Error, hash, http_client::AnyHttpClient, json, random, secret::Secret, time::Timestamp},
    model::provider::{ClientKey, Place as Stored},
};
use http::{StatusCode, header};
use openidconnect::{
    AuthType, AuthenticationFlow, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, RequestTokenError, Scope, TokenResponse as _,
    core::{
        CoreClient, CoreErrorResponseType, CoreIdToken, CoreJsonWebKeySet, CoreResponseType,
        CoreTokenResponse,
    },
    url::{Url, form_urlencoded},
};
use serde_json::{Map, Value};

type Oauth =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet, EndpointNotSet>;

/// Speaks to providers.
pub(crate) struct Talk {
    http: AnyHttpClient,
    documents: Documents,
    seats: Seats,
    /// The app's own providers.
    pub(crate) providers: Arc<[Provider]>,
}

/// What went wrong at a provider. The words are for operators, and fixed: what a provider sends isn't repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It can't be reached, or answers what can't be used.
    Down(&'static str),
    /// It refuses the code, or what it signed doesn't hold.
    Refused(&'static str),
    /// The browser's page left out what it was given.
    Lacking(&'static str),
}

impl Trouble {
    pub(super) const fn down(why: &'static str) -> Self {
        Self::Down(why)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Down(why) | Self::Refused(why) | Self::Lacking(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for Trouble {}

/// Where somebody is sent.
pub(crate) struct Begun {
    /// Without `state`: that is the browser's to add (`spec/wire.md` §9.2).
    pub(crate) url: String,
    pub(crate) verifier: Option<String>,
}

/// What came back from a provider, as the browser hands it over.
pub(crate) enum Returned {
    Code {
        code: Secret<String>,
        redirect: Url,
        verifier: Option<Secret<String>>,
        /// Who answered, by RFC 9207.
        issuer: Option<String>,
    },
    IdToken(Secret<String>),
}

impl Talk {
    pub(crate) fn new(settings: ThirdParty) -> Self {
        let (documents, seats) = (Documents::new(), Seats::default());
        Self { http: settings.http, documents, seats, providers: settings.providers.into() }
    }

    /// Where to send somebody who wants to sign in.
    pub(crate) async fn begin(
        &self,
        provider: &Provider,
        client: &ProviderClient,
        redirect: &Url,
        now: Timestamp,
    ) -> Result<Begun, Trouble> {
        let _seat = self.seat(provider)?;
        let place = self.place(provider, now, false).await?;
        let oauth = oauth(provider, &place, client, None)?;
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let (state, nonce) = (|| CsrfToken::new(String::new()), || Nonce::new(String::new()));
        let redirect = RedirectUrl::from_url(redirect.clone());
        let scopes = provider.scopes.iter().cloned().map(Scope::new);
        let mut request =
            oauth.authorize_url(flow, state, nonce).set_redirect_uri(Cow::Owned(redirect)).add_scopes(scopes);
        for (name, value) in &provider.parameters {
            request = request.add_extra_param(name.as_str(), value.as_str());
        }
        let mut verifier = None;
        if uses_pkce(provider, &place, client) {
            let bytes: [u8; 32] = random::bytes().map_err(|_| Trouble::down("there is no randomness"))?;
            let text = hash::base64url(&bytes);
            let made = PkceCodeVerifier::new(text.clone());
            request = request.set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&made));
            verifier = Some(text);
        }
        let (mut url, ..) = request.url();
        // The library always adds both; neither is the server's here.
        let kept: Vec<(String, String)> =
            url.query_pairs().filter(|(name, _)| name != "state" && name != "nonce").map(owned).collect();
        url.query_pairs_mut().clear().extend_pairs(kept);
        Ok(Begun { url: url.into(), verifier })
    }

    /// Who came back.
    pub(crate) async fn end(
        &self,
        provider: &Provider,
        client: &ProviderClient,
        returned: Returned,
        now: Timestamp,
    ) -> Result<Profile, Trouble> {
        let _seat = self.seat(provider)?;
        let said = match returned {
            Returned::Code { code, redirect, verifier, issuer } => {
                let place = self.place(provider, now, false).await?;
                let signer = place.signer.as_ref().map(|signer| signer.issuer.as_str());
                if issuer.as_deref().is_some_and(|issuer| signer.is_some_and(|known| known != issuer)) {
                    return Err(Trouble::Refused("another provider answered"));
                }
                if issuer.is_none() && place.says_who_answers {
                    return Err(Trouble::Refused("it isn't said which provider answered"));
                }
                if verifier.is_none() && uses_pkce(provider, &place, client) {
                    return Err(Trouble::Lacking("redirectURIInfo must have the pkceCodeVerifier"));
                }
                let tokens = self.exchange(provider, &place, client, &code, redirect, verifier, now).await?;
                self.ask_who(provider, &place, client, &tokens, now).await?
            }
            Returned::IdToken(text) => {
                let token: CoreIdToken =
                    text.expose().parse().map_err(|_| Trouble::Refused("it is no id_token"))?;
                self.verified(provider, client, &token, now).await?
            }
        };
        profile::read(provider, said).ok_or(Trouble::Down("it doesn't say who the user is"))
    }

    fn seat(&self, provider: &Provider) -> Result<Seat<'_>, Trouble> {
        self.seats.take(provider).ok_or(Trouble::down("too many wait for it"))
    }

    /// What a provider says of the user of these tokens.
    async fn ask_who(
        &self,
        provider: &Provider,
        place: &Place,
        client: &ProviderClient,
        tokens: &CoreTokenResponse,
        now: Timestamp,
    ) -> Result<Map<String, Value>, Trouble> {
        let access = tokens.access_token().secret();
        if place.signer.is_none() {
            let url = place.user_info.as_deref().ok_or(Trouble::Down("it has no user info"))?;
            let mut said = object(self.fetch(provider, url, access).await?)?;
            if let Some(url) = &place.emails {
                let list = self.fetch(provider, url, access).await?;
                let primary = |item: &&Value| item["primary"] == Value::Bool(true);
                let found = list.as_array().and_then(|list| list.iter().find(primary));
                said.insert("primary_email".to_owned(), found.cloned().unwrap_or_default());
            }
            return Ok(said);
        }
        let token = tokens.id_token().ok_or(Trouble::Refused("there is no id_token"))?;
        let mut said = self.verified(provider, client, token, now).await?;
        let whole = Value::Object(said.clone());
        if let (Some(url), None) = (&place.user_info, whole.pointer(&provider.fields.email)) {
            let more = object(self.fetch(provider, url, access).await?)?;
            // Of the same user, or it may not be used (Core, section 5.3.2).
            if more.get("sub").is_none() || more.get("sub") != said.get("sub") {
                return Err(Trouble::Refused("the user info is another user's"));
            }
            // What was signed stands.
            said = more.into_iter().chain(said).collect();
        }
        Ok(said)
    }

    /// What an `id_token` says, once it holds: signature, issuer, audience, times. A key that isn't known yet
    /// may be a new one.
    async fn verified(
        &self,
        provider: &Provider,
        client: &ProviderClient,
        token: &CoreIdToken,
        now: Timestamp,
    ) -> Result<Map<String, Value>, Trouble> {
        for lacking in [false, true] {
            let place = self.place(provider, now, lacking).await?;
            let signer = place.signer.as_ref().ok_or(Trouble::Refused("it signs no id_token"))?;
            match verify(signer, provider, client, token, now) {
                Ok(said) => return Ok(said),
                Err(Bad::Key) => {}
                Err(Bad::Token(why)) => return Err(Trouble::Refused(why)),
            }
        }
        Err(Trouble::Refused("an id_token was signed by a key that nobody knows"))
    }

    #[allow(clippy::too_many_arguments, reason = "what one exchange is made of")]
    async fn exchange(
        &self,
        provider: &Provider,
        place: &Place,
        client: &ProviderClient,
        code: &Secret<String>,
        redirect: Url,
        verifier: Option<Secret<String>>,
        now: Timestamp,
    ) -> Result<CoreTokenResponse, Trouble> {
        let secret = secret(client, now).map_err(|_| Trouble::down("the client's secret can't be made"))?;
        let oauth = oauth(provider, place, client, secret.as_ref())?;
        let mut request = oauth
            .exchange_code(AuthorizationCode::new(code.expose().clone()))
            .set_redirect_uri(Cow::Owned(RedirectUrl::from_url(redirect)));
        if let Some(verifier) = &verifier {
            request = request.set_pkce_verifier(PkceCodeVerifier::new(verifier.expose().clone()));
        }
        let line = self.line(provider);
        request.request_async(&line).await.map_err(|error| match error {
            RequestTokenError::ServerResponse(said) => refusal(said.error()),
            RequestTokenError::Request(trouble) => trouble,
            // GitHub refuses by 200.
            RequestTokenError::Parse(_, body) => match json::parse_object(&body) {
                Ok(said) if said.contains_key("error") => Trouble::Refused("it refuses the code"),
                _ => Trouble::Down("its tokens can't be read"),
            },
            RequestTokenError::Other(_) => Trouble::Down("its tokens can't be read"),
        })
    }

    /// Where a provider is asked.
    async fn place(&self, provider: &Provider, now: Timestamp, lacking: bool) -> Result<Arc<Place>, Trouble> {
        let issuer = match &provider.place {
            Stored::Issuer(issuer) => issuer,
            Stored::Endpoints(ends) => return Place::fixed(ends).map(Arc::new),
        };
        let read = || async {
            let url = IssuerUrl::new(issuer.clone()).map_err(|_| Trouble::down("its issuer is no URL"))?;
            let line = self.line(provider);
            let said = Metadata::discover_async(url, &line).await;
            let said = said.map_err(|_| Trouble::down("its document can't be read"))?;
            Place::discovered(&said, |url| provider.allows(url))
        };
        self.documents.get((issuer.clone(), provider.loopback), now, lacking, read).await
    }

    async fn fetch(&self, provider: &Provider, url: &str, access: &str) -> Result<Value, Trouble> {
        let request = http::Request::get(url)
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {access}"))
            .body(Vec::new())
            .map_err(|_| Trouble::down("its access token can't be sent"))?;
        let answer = self.line(provider).ask(request).await?;
        match answer.status() {
            StatusCode::OK => {
                json::parse(answer.body()).map_err(|_| Trouble::down("its user info is no JSON"))
            }
            status if status.is_client_error() => Err(Trouble::Refused("it gives no user info")),
            _ => Err(Trouble::Down("its user info fails")),
        }
    }

    fn line(&self, provider: &Provider) -> Line {
        Line { http: self.http.clone(), loopback: provider.loopback }
    }
}

impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Talk").field("providers", &self.providers).finish_non_exhaustive()
    }
}

/// The library's client: one request's.
fn oauth(
    provider: &Provider,
    place: &Place,
    client: &ProviderClient,
    secret: Option<&Secret<String>>,
) -> Result<Oauth, Trouble> {
    let in_header = place.secret_in_header && !provider.secret_in_form;
    // What it verifies is verified in `verify`.
    let issuer = IssuerUrl::new(place.authorise.to_string()).map_err(|_| Trouble::down("no address"))?;
    let id = ClientId::new(client.id.clone());
    let mut oauth = CoreClient::new(id, issuer, CoreJsonWebKeySet::new(Vec::new()))
        .disable_openid_scope()
        .set_auth_uri(place.authorise.clone())
        .set_token_uri(place.token.clone())
        .set_auth_type(if in_header { AuthType::BasicAuth } else { AuthType::RequestBody });
    if let Some(secret) = secret {
        oauth = oauth.set_client_secret(ClientSecret::new(secret.expose().clone()));
    }
    Ok(oauth)
}

/// Whether a code is bound to whoever began: then it is never exchanged without their verifier.
fn uses_pkce(provider: &Provider, place: &Place, client: &ProviderClient) -> bool {
    provider.pkce || place.s256 || matches!(client.key, ClientKey::None)
}

/// What proves to a provider that it is the app that asks.
fn secret(client: &ProviderClient, now: Timestamp) -> Result<Option<Secret<String>>, Error> {
    match &client.key {
        ClientKey::None => Ok(None),
        ClientKey::Secret(secret) => Ok(Some(secret.clone())),
        ClientKey::Apple { team, key_id, pem } => apple::secret(&client.id, team, key_id, pem, now).map(Some),
    }
}

fn refusal(said: &CoreErrorResponseType) -> Trouble {
    match said {
        CoreErrorResponseType::InvalidClient | CoreErrorResponseType::UnauthorizedClient => {
            Trouble::Down("it doesn't know the app: id and secret may be wrong")
        }
        _ => Trouble::Refused("it refuses the code"),
    }
}

fn object(value: Value) -> Result<Map<String, Value>, Trouble> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(Trouble::down("its user info is no object")),
    }
}

fn owned((name, value): (Cow<'_, str>, Cow<'_, str>)) -> (String, String) {
    (name.into_owned(), value.into_owned())
}

/// The members of a form or a query, decoded.
pub(crate) fn form(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).map(owned).collect()
}
