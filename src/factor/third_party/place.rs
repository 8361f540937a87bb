//! Where providers are asked, and their keys: by what their discovery documents say, kept for an hour, read by one
//! at a time.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openidconnect::{
    AdditionalProviderMetadata, AuthUrl, IssuerUrl, ProviderMetadata, TokenUrl,
    core::{
        CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
        CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm,
        CoreJwsSigningAlgorithm as Alg, CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
    },
};
use quick_cache::sync::Cache;

use super::{OAuth2Endpoints, talk::Trouble};
use crate::base::time::Timestamp;

/// How long a document is good, and how old it may be while its provider is down.
const FRESH: Duration = Duration::from_secs(3600);
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// How soon a document is read again for a key that it didn't have.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a provider that was down isn't asked again.
const REST: Duration = Duration::from_secs(5);
/// How many are kept: those of tenants are as many as tenants like.
const KEPT: usize = 1000;
/// Signatures that are checked by a public key: nobody can pass such a key off as a shared secret.
const ASYMMETRIC: [Alg; 9] = [
    Alg::RsaSsaPkcs1V15Sha256,
    Alg::RsaSsaPkcs1V15Sha384,
    Alg::RsaSsaPkcs1V15Sha512,
    Alg::RsaSsaPssSha256,
    Alg::RsaSsaPssSha384,
    Alg::RsaSsaPssSha512,
    Alg::EcdsaP256Sha256,
    Alg::EcdsaP384Sha384,
    Alg::EdDsa,
];

pub(super) type Metadata = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// What of a discovery document the library has no field for (RFC 8414, section 2, unless said otherwise).
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub(super) struct More {
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    /// RFC 9207, section 3.
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for More {}

/// Where a provider is asked, checked. What its document says and nothing else: others who have the same issuer have
/// the same place, whatever they set.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) authorise: AuthUrl,
    pub(super) token: TokenUrl,
    pub(super) user_info: Option<String>,
    pub(super) emails: Option<String>,
    pub(super) s256: bool,
    /// Whether it always says who answers when somebody comes back.
    pub(super) says_who_answers: bool,
    /// Whether it takes a client's secret in a header; that is so where nothing says otherwise.
    pub(super) secret_in_header: bool,
    /// By whom and with which keys it signs, if it speaks OpenID Connect.
    pub(super) signer: Option<Signer>,
}

#[derive(Debug)]
pub(super) struct Signer {
    pub(super) issuer: IssuerUrl,
    pub(super) keys: CoreJsonWebKeySet,
    pub(super) algs: Vec<Alg>,
}

impl Place {
    pub(super) fn fixed(ends: &OAuth2Endpoints) -> Result<Self, Trouble> {
        Ok(Self {
            authorise: AuthUrl::new(ends.authorise.clone()).map_err(|_| Trouble::down("no address"))?,
            token: TokenUrl::new(ends.token.clone()).map_err(|_| Trouble::down("no address"))?,
            user_info: Some(ends.user_info.clone()),
            emails: ends.emails.clone(),
            s256: ends.s256,
            says_who_answers: false,
            secret_in_header: true,
            signer: None,
        })
    }

    /// What a discovery document says, as far as it may be followed: to addresses that are `allowed`.
    pub(super) fn discovered(said: &Metadata, allowed: impl Fn(&str) -> bool) -> Result<Self, Trouble> {
        let token = said.token_endpoint().ok_or(Trouble::down("its document has no token endpoint"))?;
        let user_info = said.userinfo_endpoint().map(|url| url.as_str().to_owned());
        let asked = [said.authorization_endpoint().as_str(), token.as_str(), said.jwks_uri().as_str()];
        if !asked.into_iter().chain(user_info.as_deref()).all(allowed) {
            return Err(Trouble::down("its document names an address that may not be asked"));
        }
        let more = said.additional_metadata();
        let mut algs = said.id_token_signing_alg_values_supported().clone();
        algs.retain(|alg| ASYMMETRIC.contains(alg));
        // Without a list it is the header (Discovery, section 3).
        let ways = said.token_endpoint_auth_methods_supported();
        let header = |ways: &Vec<_>| ways.contains(&CoreClientAuthMethod::ClientSecretBasic);
        Ok(Self {
            authorise: said.authorization_endpoint().clone(),
            token: token.clone(),
            user_info,
            emails: None,
            s256: more.code_challenge_methods_supported.iter().any(|m| m == "S256"),
            says_who_answers: more.authorization_response_iss_parameter_supported,
            secret_in_header: ways.is_none_or(header),
            signer: Some(Signer { issuer: said.issuer().clone(), keys: said.jwks().clone(), algs }),
        })
    }
}

/// The documents that were read, by issuer.
pub(super) struct Documents(Cache<(String, bool), Arc<Document>>);

/// One of them, and whose turn it is to read it.
#[derive(Default)]
struct Document {
    kept: Mutex<Kept>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Kept {
    found: Option<(Arc<Place>, Timestamp)>,
    failed: Option<(Trouble, Timestamp)>,
}

impl Kept {
    /// What needs no reading: what was found less than `good` ago, or what there is of a provider that rests.
    fn at_once(&self, now: Timestamp, good: Duration) -> Option<Result<Arc<Place>, Trouble>> {
        let since = |at: &Timestamp| now.since(*at);
        match (&self.found, &self.failed) {
            (Some((place, at)), _) if since(at) < good => Some(Ok(Arc::clone(place))),
            (_, Some((trouble, at))) if since(at) < REST => Some(self.old(now).ok_or(*trouble)),
            _ => None,
        }
    }

    /// What may be used while there is nothing better.
    fn old(&self, now: Timestamp) -> Option<Arc<Place>> {
        let (place, at) = self.found.as_ref()?;
        (now.since(*at) < OLDEST).then(|| Arc::clone(place))
    }
}

impl Document {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Documents {
    pub(super) fn new() -> Self {
        Self(Cache::new(KEPT))
    }

    /// What is kept, or what `read` finds. While one reads, others have what is kept; where that is nothing that can be
    /// used, they wait for what comes of it. `lacking`: what is kept lacks a key, and is read again if that may help.
    pub(super) async fn get<F>(
        &self,
        key: (String, bool),
        now: Timestamp,
        lacking: bool,
        read: impl FnOnce() -> F,
    ) -> Result<Arc<Place>, Trouble>
    where
        F: Future<Output = Result<Place, Trouble>>,
    {
        let document = self.0.get_or_insert_with(&key, || Ok::<_, Trouble>(Arc::default()))?;
        let good = if lacking { AGAIN } else { FRESH };
        let kept = document.kept().clone();
        if let Some(answer) = kept.at_once(now, good) {
            return answer;
        }
        let _turn = match (document.turn.try_lock(), kept.old(now)) {
            (Ok(turn), _) => turn,
            (Err(_), Some(old)) if !lacking => return Ok(old),
            (Err(_), _) => document.turn.lock().await,
        };
        // Somebody else may have read it since.
        let kept = document.kept().clone();
        if let Some(answer) = kept.at_once(now, good) {
            return answer;
        }
        match read().await {
            Ok(place) => {
                let place = Arc::new(place);
                *document.kept() = Kept { found: Some((Arc::clone(&place), now)), failed: None };
                Ok(place)
            }
            Err(trouble) => {
                document.kept().failed = Some((trouble, now));
                kept.old(now).ok_or(trouble)
            }
        }
    }
}
