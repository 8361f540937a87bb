//! Providers of third-party sign-in, as data: of the app, and of a tenant, sealed.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Tx, keys, seal::Sealer};
use crate::base::{
    error::{Error, ErrorKind},
    ident::TenantId,
    secret::Secret,
};

/// Where people have an account already: Google, a company's own directory, anything that speaks OpenID Connect
/// or OAuth 2.
///
/// Who somebody is there is told by the provider's id and its id for the user, never by an e-mail address (row
/// L06); and a provider of a tenant's own is another one than the app's of the same id
/// ([`Tenants::set_providers`](crate::account::Tenants::set_providers)). An address counts as verified only if the provider says so by the literal `true`, unless
/// [`Provider::trust_email`] was called.
///
/// Redirects go to the app's websites (any path of theirs), to its API, or where [`Provider::redirect_uri`] says.
///
/// ```
/// use tower_mfa::{factor::{Provider, ProviderClient}, ident::Secret};
///
/// let secret = Secret::new("from the provider's dashboard".to_owned());
/// let google = Provider::google(ProviderClient::new("1234.apps.googleusercontent.com", secret.clone()));
/// let own = Provider::oidc("acme", "Acme", "https://id.acme.example", ProviderClient::new("shop", secret))
///     .scopes(["openid", "email", "groups"])
///     .force_pkce();
/// assert_eq!((google.id(), own.name()), ("google", "Acme"));
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[must_use]
pub struct Provider {
    pub(crate) id: String,
    /// The tenant whose own it is. Where it was read says so, not what was stored.
    #[serde(skip)]
    pub(crate) tenant: Option<TenantId>,
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) clients: Vec<ProviderClient>,
    pub(crate) scopes: Vec<String>,
    /// More parameters of the authorisation URL.
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) fields: Fields,
    pub(crate) secret_in_form: bool,
    pub(crate) pkce: bool,
    pub(crate) trusts_email: bool,
    pub(crate) needs_email: bool,
    pub(crate) takes_id_tokens: bool,
    pub(crate) redirects: Vec<String>,
    pub(crate) loopback: bool,
}

/// Where a provider is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// By OpenID Connect: its discovery document says where.
    Issuer(String),
    /// By OAuth 2 alone.
    Endpoints(OAuth2Endpoints),
}

/// The addresses of a provider that speaks OAuth 2 without OpenID Connect, and where it says who the user is. The
/// latter are JSON pointers (RFC 6901) into the answer of `user_info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OAuth2Endpoints {
    /// Where people are sent.
    pub authorise: String,
    /// Where a code is exchanged.
    pub token: String,
    /// Where it says, by JSON, who the user is.
    pub user_info: String,
    /// A list of the user's addresses, where `user_info` doesn't have them verified: its item with
    /// `"primary": true` is read as the member `primary_email`.
    pub emails: Option<String>,
    /// Whether it knows PKCE by S256.
    pub s256: bool,
}

impl OAuth2Endpoints {
    /// Where people are sent, where a code is exchanged, and where it says who the user is.
    pub fn new(authorise: impl Into<String>, token: impl Into<String>, user_info: impl Into<String>) -> Self {
        let (authorise, token, user_info) = (authorise.into(), token.into(), user_info.into());
        Self { authorise, token, user_info, emails: None, s256: false }
    }

    /// A list of the user's addresses: [`OAuth2Endpoints::emails`].
    pub fn with_emails(self, emails: impl Into<String>) -> Self {
        Self { emails: Some(emails.into()), ..self }
    }

    /// It knows PKCE by S256.
    pub fn with_s256(self) -> Self {
        Self { s256: true, ..self }
    }
}

/// Where a provider says who the user is: JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fields {
    pub(crate) subject: String,
    pub(crate) email: String,
    pub(crate) verified: Option<String>,
}

impl Default for Fields {
    /// OpenID Connect's standard claims.
    fn default() -> Self {
        Self {
            subject: "/sub".to_owned(),
            email: "/email".to_owned(),
            verified: Some("/email_verified".to_owned()),
        }
    }
}

/// The app's registration with a provider: a client id, and what proves it. As JSON it holds no secret, and read back from
/// there it has none: it is made by one of the functions here.
#[derive(Clone, Serialize, Deserialize)]
pub struct ProviderClient {
    pub(crate) id: String,
    pub(crate) kind: Option<String>,
    /// Not among what anybody can serialise: [`set`] seals it beside.
    #[serde(skip)]
    pub(crate) key: ClientKey,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) enum ClientKey {
    /// A public client: PKCE stands in for a secret.
    #[default]
    None,
    Secret(#[serde(with = "exposed")] Secret<String>),
    /// A secret that is signed anew for each request.
    Apple {
        team: String,
        key_id: String,
        #[serde(with = "exposed")]
        pem: Secret<String>,
    },
}

impl ProviderClient {
    /// A client with a secret.
    pub fn new(id: impl Into<String>, secret: Secret<String>) -> Self {
        Self { id: id.into(), kind: None, key: ClientKey::Secret(secret) }
    }

    /// A client without a secret.
    pub fn public(id: impl Into<String>) -> Self {
        Self { id: id.into(), kind: None, key: ClientKey::None }
    }

    /// A client of Apple's: the services id, the team's id, and the private key with its id, as the downloaded
    /// file `AuthKey_….p8` has it. Each request gets a secret of its own, signed by the key (ES256).
    pub fn apple(
        id: impl Into<String>,
        team: impl Into<String>,
        key_id: impl Into<String>,
        pem: Secret<String>,
    ) -> Self {
        let key = ClientKey::Apple { team: team.into(), key_id: key_id.into(), pem };
        Self { id: id.into(), kind: None, key }
    }

    /// What requests for this client name as `clientType`, where a provider has several: `web`, `ios`.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }
}

impl Provider {
    /// Its id: in the SDKs' requests, and in users' records.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client that a request means: that of its kind, or without one the first.
    pub(crate) fn client(&self, kind: Option<&str>) -> Option<&ProviderClient> {
        match kind {
            Some(_) => self.clients.iter().find(|client| client.kind.as_deref() == kind),
            None => self.clients.first(),
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("id", &self.id).field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Debug for ProviderClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderClient").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A tenant's own providers. Client ids and secrets are for nobody who reads the store.
#[derive(Serialize, Deserialize)]
pub(crate) struct TenantProviders {
    sealed: String,
}

impl TenantProviders {
    pub(crate) fn is_newest(&self, sealer: &Sealer) -> bool {
        sealer.is_newest(&self.sealed)
    }

    pub(crate) fn open(&self, sealer: &Sealer, tenant: &TenantId) -> Result<Vec<Provider>, Error> {
        let plain = sealer.open(&keys::providers(tenant), &self.sealed)?;
        let (mut list, keys): (Vec<Provider>, Vec<Vec<ClientKey>>) = serde_json::from_slice(&plain)
            .map_err(|e| Error::with(ErrorKind::Unavailable, "a tenant's providers can't be read", e))?;
        for (provider, keys) in list.iter_mut().zip(keys) {
            provider.tenant = Some(tenant.clone());
            provider.clients.iter_mut().zip(keys).for_each(|(client, key)| client.key = key);
        }
        Ok(list)
    }
}

/// Stages a tenant's own providers; `None`: it has those of the app.
pub(crate) async fn set(
    tx: &mut Tx,
    sealer: &Sealer,
    tenant: &TenantId,
    providers: Option<&[Provider]>,
) -> Result<(), Error> {
    let key = keys::providers(tenant);
    let Some(providers) = providers else { return tx.delete(key).await };
    let keys_of = |provider: &Provider| -> Vec<ClientKey> {
        provider.clients.iter().map(|client| client.key.clone()).collect()
    };
    let client_keys: Vec<Vec<ClientKey>> = providers.iter().map(keys_of).collect();
    let plain = serde_json::to_vec(&(providers, client_keys)).map(Zeroizing::new);
    let plain = plain.map_err(|_| Error::internal("providers can't be written"))?;
    let sealed = sealer.seal(&key, &plain)?;
    tx.put(key, &TenantProviders { sealed }, None).await
}

/// A secret in the clear, inside of what is sealed as a whole.
mod exposed {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::base::secret::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Secret<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret<String>, D::Error> {
        String::deserialize(from).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_serialised_with_a_provider() {
        let secret = || Secret::new("hunter22".to_owned());
        let clients =
            [ProviderClient::new("web", secret()), ProviderClient::apple("ios", "team", "key", secret())];
        for client in clients {
            let text = serde_json::to_string(&Provider::google(client)).unwrap();
            assert!(text.contains("clients") && !text.contains("hunter22"), "{text}");
        }
    }
}
