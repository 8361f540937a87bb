//! Third parties: the providers of an app, how each is set, and what of a setting can't be right. What a provider
//! is as data lives in the model; [`known`] has the well-known ones, [`talk`] asks them, [`profile`] reads who
//! somebody is.

use std::collections::BTreeSet;

use openidconnect::url::Url;

pub(crate) use self::{profile::Profile, talk::Talk};
pub use crate::model::provider::{OAuth2Endpoints, Provider, ProviderClient};
use crate::{
    base::http_client::{AnyHttpClient, HttpClient, is_safe},
    model::provider::{ClientKey, Fields, Place},
};

mod apple;
mod id_token;
mod known;
mod line;
mod place;
pub(crate) mod profile;
mod seats;
pub(crate) mod talk;

/// The providers of an app, and the client that speaks to them.
///
/// What the client owes is said at [`HttpClient`]; `config::Reqwest` (feature `http-client`) is one.
///
/// ```
/// # #[cfg(all(feature = "http-client", feature = "api", feature = "axum"))]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, routing::get};
/// use tower_mfa::{
///     FactorId, Mfa, MfaLayer, SessionExtractor,
///     api::ApiLayer,
///     config::{AppInfo, Reqwest, Secrets},
///     delivery::Outbox,
///     factor::{Provider, ProviderClient, ThirdParty},
///     ident::Secret,
///     policy::Everyone,
///     store::MemoryStore,
/// };
///
/// async fn orders(session: SessionExtractor) -> String {
///     format!("no orders yet, {}", session.user_id().as_str())
/// }
///
/// // From Google's console, where `https://shop.example/auth/callback/google` is registered as well.
/// let client = ProviderClient::new("1234.apps.googleusercontent.com", Secret::new("s3cret".to_owned()));
/// let shop = AppInfo::new("Shop", "https://api.shop.example", "https://shop.example")?;
/// let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new())
///     .third_party(ThirdParty::new(Reqwest::new()?).provider(Provider::google(client)))
///     .first_factors([FactorId::THIRD_PARTY])
///     .policy(Everyone::new(FactorId::OTP_EMAIL))
///     .delivery(Outbox::printing())
///     .build()?;
/// let app: Router = Router::new()
///     .route("/orders", get(orders))
///     .layer(MfaLayer::required(mfa.clone()))
///     .layer(ApiLayer::new(mfa.clone()))
///     .layer(mfa.cors());
/// # Ok(())
/// # }
/// # #[cfg(not(all(feature = "http-client", feature = "api", feature = "axum")))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ThirdParty {
    pub(crate) http: AnyHttpClient,
    pub(crate) providers: Vec<Provider>,
}

impl ThirdParty {
    /// None yet: they are added by [`ThirdParty::provider`], or for a tenant by
    /// [`Tenants::set_providers`](crate::account::Tenants::set_providers).
    pub fn new(client: impl HttpClient) -> Self {
        Self { http: AnyHttpClient::new(client), providers: Vec::new() }
    }

    /// Adds one, in the order in which they are offered. What can't be right with it is told by `build()`.
    pub fn provider(mut self, provider: Provider) -> Self {
        self.providers.push(Provider { tenant: None, ..provider });
        self
    }
}

impl Provider {
    /// Any provider that speaks OpenID Connect: its discovery document says everything else. The issuer is an
    /// `https` URL without query, exactly as that document has it.
    pub fn oidc(
        id: impl Into<String>,
        name: impl Into<String>,
        issuer: impl Into<String>,
        client: ProviderClient,
    ) -> Self {
        Self::at(Place::Issuer(issuer.into()), id, name, client).scopes(["openid", "email"])
    }

    /// A provider that speaks OAuth 2 alone. Until [`Provider::fields`] says otherwise, its answer is read as
    /// OpenID Connect has it: `sub`, `email`, `email_verified`.
    ///
    /// ```
    /// use tower_mfa::{factor::{OAuth2Endpoints, Provider, ProviderClient}, ident::Secret};
    /// # let from_the_environment = || "s3cret".to_owned();
    /// let client = ProviderClient::new("shop", Secret::new(from_the_environment()));
    /// let endpoints = OAuth2Endpoints::new(
    ///     "https://id.example/authorize",
    ///     "https://id.example/token",
    ///     "https://id.example/me",
    /// );
    /// let provider = Provider::oauth2("example", "Example", endpoints, client)
    ///     .scopes(["email"])
    ///     .fields("/id", "/contact/email", Some("/contact/verified"));
    /// assert_eq!(provider.id(), "example");
    /// ```
    pub fn oauth2(
        id: impl Into<String>,
        name: impl Into<String>,
        endpoints: OAuth2Endpoints,
        client: ProviderClient,
    ) -> Self {
        Self::at(Place::Endpoints(endpoints), id, name, client)
    }

    fn at(place: Place, id: impl Into<String>, name: impl Into<String>, client: ProviderClient) -> Self {
        Self {
            id: id.into(),
            tenant: None,
            name: name.into(),
            place,
            clients: vec![client],
            scopes: Vec::new(),
            parameters: Vec::new(),
            fields: Fields::default(),
            secret_in_form: false,
            pkce: false,
            trusts_email: false,
            needs_email: true,
            takes_id_tokens: false,
            redirects: Vec::new(),
            loopback: false,
        }
    }

    /// Goes by another id: for two of one kind. Users are known by it, so it never changes again.
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Has another name for people.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Another issuer, for a provider by OpenID Connect: a GitLab of one's own. Of the others it changes nothing.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        if let Place::Issuer(known) = &mut self.place {
            *known = issuer.into();
        }
        self
    }

    /// The scopes that are asked for, in the place of the usual ones.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// One more parameter of the authorisation URL: `prompt`, `hd`.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// Where the provider says who the user is: JSON pointers to its id for the user, to the address and to
    /// whether it is verified. The id may be a number.
    pub fn fields(
        mut self,
        subject: impl Into<String>,
        email: impl Into<String>,
        verified: Option<&str>,
    ) -> Self {
        let verified = verified.map(str::to_owned);
        self.fields = Fields { subject: subject.into(), email: email.into(), verified };
        self
    }

    /// One more client of the app's, of another [`ProviderClient::kind`].
    pub fn also_client(mut self, client: ProviderClient) -> Self {
        self.clients.push(client);
        self
    }

    /// One more place to come back to, exactly: a native app's `com.example.shop:/callback`.
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.redirects.push(uri.into());
        self
    }

    /// Sends the client's secret in the form, not in a header, where the provider wants that without saying so.
    pub fn secret_in_form(mut self) -> Self {
        self.secret_in_form = true;
        self
    }

    /// Uses PKCE in any case. Without this it is used if the provider is known to have it by S256, or if the
    /// client has no secret.
    pub fn force_pkce(mut self) -> Self {
        self.pkce = true;
        self
    }

    /// Counts every address that the provider gives as verified, whatever it says of it. Whoever calls this
    /// answers for it: somebody who can enter an address there without proving it can have accounts here that
    /// are joined by address (row L06).
    pub fn trust_email(mut self) -> Self {
        self.trusts_email = true;
        self
    }

    /// Lets in those of whom it gives no address.
    pub fn without_email(mut self) -> Self {
        self.needs_email = false;
        self
    }

    /// Also takes an `id_token` that a native app got by itself: signed by the provider, for the client that the
    /// request names, not expired. If it says to whom it was issued (`azp`), that must be one of the provider's
    /// clients here: for Google's Android tokens add the Android client by [`Provider::also_client`]. Off, because no
    /// redirect and no code bind it to this sign-in. An access token from a client is never taken: nothing says for
    /// whom it was issued (row L14).
    pub fn accept_id_tokens(mut self) -> Self {
        self.takes_id_tokens = true;
        self
    }

    /// Lets addresses be plain `http` to the loopback address, for a provider on the same machine in tests. Not
    /// for anything that others can reach.
    pub fn insecure_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// Whether an address may be asked.
    pub(crate) fn allows(&self, address: &str) -> bool {
        address.parse().is_ok_and(|uri| may_ask(&uri, self.loopback))
    }

    /// One sentence for each thing that can't be right.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        let id = &self.id;
        if !(1..=64).contains(&id.len()) || !id.bytes().all(word) {
            problems.push(format!("the provider id {id:?} must be 1 to 64 of a-z, 0-9, '-', '_' and '.'"));
        }
        let mut ask = |fits: bool, problem: &str| {
            if !fits {
                problems.push(format!("the provider {id}: {problem}"));
            }
        };
        ask(!self.name.trim().is_empty(), "it needs a name for people");
        let fixed: Vec<&str> = match &self.place {
            Place::Issuer(issuer) => {
                ask(!issuer.contains(['?', '#']), "an issuer has no query");
                vec![issuer]
            }
            Place::Endpoints(ends) => [&ends.authorise, &ends.token, &ends.user_info]
                .into_iter()
                .chain(&ends.emails)
                .map(String::as_str)
                .collect(),
        };
        ask(fixed.iter().all(|url| self.allows(url)), "its addresses must be https URLs");
        let pointer = |text: &String| text.starts_with('/');
        let fields = [&self.fields.subject, &self.fields.email].into_iter().chain(&self.fields.verified);
        ask(fields.into_iter().all(pointer), "where it says who a user is must be JSON pointers: /like/this");
        ask(self.redirects.iter().all(|uri| Url::parse(uri).is_ok()), "a redirect URI must be absolute");
        let kinds: BTreeSet<_> = self.clients.iter().map(|client| &client.kind).collect();
        ask(kinds.len() == self.clients.len(), "each of its clients needs a kind of its own");
        for client in &self.clients {
            ask(!client.id.is_empty(), "a client id is empty");
            match &client.key {
                ClientKey::Secret(secret) => ask(!secret.expose().is_empty(), "a client secret is empty"),
                ClientKey::Apple { pem, .. } => {
                    ask(apple::key(pem).is_some(), "Apple's key must be a private key on P-256 in PEM (.p8)");
                }
                ClientKey::None => {}
            }
        }
        problems
    }
}

/// By https; or to this machine, by its address or as `localhost`, if that was chosen.
fn may_ask(uri: &http::Uri, loopback: bool) -> bool {
    is_safe(uri, loopback) || line::by_address(uri).is_some_and(|uri| is_safe(&uri, loopback))
}

/// What can't be right of a list of providers.
pub(crate) fn problems(providers: &[Provider]) -> Vec<String> {
    let ids: BTreeSet<&str> = providers.iter().map(Provider::id).collect();
    let twice = (ids.len() < providers.len()).then(|| "two providers have one id".to_owned());
    providers.iter().flat_map(Provider::problems).chain(twice).collect()
}
