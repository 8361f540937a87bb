//! Third parties: where somebody is sent to sign in, and what comes of their coming back, as first and as second
//! factor.

use std::time::Duration;

use openidconnect::url::Url;

use super::{Caller, Desk, Refusal, complete::Outcome, quota::Asked, recovery};
use crate::{
    base::{
        contact::Email,
        error::{ConfigError, Error, ErrorKind},
        ident::{FactorId, TenantId},
        time::Timestamp,
    },
    delivery::Notice,
    factor::{
        self, Bound, Credential, Provider,
        third_party::{
            self, Profile, Talk,
            profile::{AddressRefused, may_change},
            talk::{Begun, Returned, Trouble},
        },
    },
    model::{
        Tx,
        audit::{self, Audited, Event},
        keys,
        limit::Quota,
        provider::{self, TenantProviders},
        session,
        spend::Spend,
        tenant,
        ticket::{self, Kind},
        user::{self, NewLogin, Owner, ThirdPartyId, User},
    },
    session::origin::Origin,
};

/// Sign-ins from one address: each one is a few requests to a provider.
const FROM_PEER: Quota = Quota::new(100, Duration::from_secs(15 * 60));
/// And how often somebody there may ask where to go: not all who do come back.
const ASKS_FROM_PEER: Quota = Quota::new(300, Duration::from_secs(15 * 60));

/// Most providers of a tenant's own.
const MOST: usize = 50;

/// What a sign-in came to.
#[derive(Debug)]
pub(crate) enum ThirdPartySignIn {
    /// The provider is down, or refuses.
    Trouble(Trouble),
    /// The provider gives no address, and the app wants one.
    NoEmail,
    /// The address that the provider says the user has now can't be theirs.
    AddressRefused(AddressRefused),
    Completed(Outcome),
}

impl Desk {
    /// The providers that a tenant offers: its own, or those of the app.
    pub(crate) async fn providers(&self, tenant: &TenantId) -> Result<Vec<Provider>, Error> {
        let Some(talk) = &self.third_party else { return Ok(Vec::new()) };
        let sealer = &self.kit.sealer;
        match self.kit.db.get::<TenantProviders>(&keys::providers(tenant)).await? {
            Some(own) => {
                let list = own.open(sealer, tenant)?;
                if !own.is_newest(sealer) {
                    self.seal_anew(tenant).await?;
                }
                Ok(list)
            }
            None => Ok(talk.providers.to_vec()),
        }
    }

    /// Brings a tenant's own under the root key that seals now.
    async fn seal_anew(&self, tenant: &TenantId) -> Result<(), Error> {
        let sealer = &self.kit.sealer;
        let stage = |mut tx: Tx| async move {
            let Some(own) = tx.get::<TenantProviders>(&keys::providers(tenant)).await? else {
                return tx.abandon(());
            };
            let list = own.open(sealer, tenant)?;
            provider::set(&mut tx, sealer, tenant, Some(&list)).await?;
            tx.commit(())
        };
        self.kit.db.transact(tenant, stage).await
    }

    /// One of them.
    pub(crate) async fn provider(&self, tenant: &TenantId, id: &str) -> Result<Option<Provider>, Error> {
        Ok(self.providers(tenant).await?.into_iter().find(|provider| provider.id() == id))
    }

    /// Gives a tenant providers of its own.
    pub(crate) async fn set_providers(
        &self,
        tenant: &TenantId,
        providers: Option<Vec<Provider>>,
    ) -> Result<(), Error> {
        let list = providers.as_deref().unwrap_or_default();
        if self.third_party.is_none() {
            return Err(Error::invalid("the app speaks to no third parties"));
        }
        if list.len() > MOST {
            return Err(Error::invalid("a tenant has at most 50 providers of its own"));
        }
        ConfigError::all(third_party::problems(list))
            .map_err(|e| Error::with(ErrorKind::Invalid, "a provider can't be right", e))?;
        let (sealer, providers) = (&self.kit.sealer, providers.as_deref());
        let stage = |mut tx: Tx| async move {
            tenant::joinable(&mut tx, tenant).await?;
            provider::set(&mut tx, sealer, tenant, providers).await?;
            audit::stage(&mut tx, Event::new(Audited::TenantChanged, tenant))?;
            tx.commit(())
        };
        self.kit.db.transact(tenant, stage).await
    }

    /// Whether people may be sent back there: to a page of the app's websites, to its API, or to what the provider
    /// was set to.
    pub(crate) fn may_return(&self, provider: &Provider, uri: &str) -> Option<Url> {
        let app = &self.kit.config.app;
        let url = Url::parse(uri).ok().filter(|url| url.username().is_empty() && url.password().is_none())?;
        let ours = Origin::parse(&url.origin().ascii_serialization())
            .is_ok_and(|origin| app.websites.contains(&origin) || app.api == origin);
        (ours || provider.redirects.iter().any(|known| known == uri)).then_some(url)
    }

    /// Where to send somebody.
    pub(crate) async fn begin_third_party(
        &self,
        caller: &Caller,
        provider: &Provider,
        kind: Option<&str>,
        redirect: &Url,
    ) -> Result<Result<Begun, Trouble>, Refusal> {
        let (talk, now) = (self.talk()?, self.kit.db.now());
        let client = provider.client(kind).ok_or(NO_CLIENT)?;
        self.take_third_party(caller, "third-party-asks-from", ASKS_FROM_PEER).await?;
        Ok(talk.begin(provider, client, redirect, now).await.inspect_err(|trouble| told(provider, trouble)))
    }

    /// Signs in, or up, or gives the session's user another login method.
    pub(crate) async fn sign_in_with_third_party(
        &self,
        caller: &Caller,
        provider: &Provider,
        kind: Option<&str>,
        returned: Returned,
    ) -> Result<ThirdPartySignIn, Refusal> {
        let factor = FactorId::THIRD_PARTY;
        self.admit_token(caller).await?;
        if caller.session.is_none() {
            self.admit_first(caller, &factor).await?;
        }
        let client = provider.client(kind).ok_or(NO_CLIENT)?;
        self.take_third_party(caller, "third-party-from", FROM_PEER).await?;
        let now = self.kit.db.now();
        let profile = match self.talk()?.end(provider, client, returned, now).await {
            Ok(profile) => profile,
            Err(trouble) => {
                told(provider, &trouble);
                return Ok(ThirdPartySignIn::Trouble(trouble));
            }
        };
        if profile.email.is_none() && provider.needs_email {
            return Ok(ThirdPartySignIn::NoEmail);
        }
        let id = ThirdPartyId {
            provider: provider.id.clone(),
            subject: profile.subject.clone(),
            tenant: provider.tenant.clone(),
        };
        let new = NewLogin::third_party(id, profile.email.clone(), profile.verified);
        if let Some(owner) = self.kit.db.get::<Owner>(&new.key(&caller.tenant)).await?
            && let Some(refused) = self.follow_address(caller, &owner, provider, &profile).await?
        {
            let event = Event::new(Audited::DestinationRefused, &caller.tenant).user(&owner.user);
            audit::note(&self.kit.db, event.factor(&factor).peer(caller.request.peer)).await?;
            return Ok(ThirdPartySignIn::AddressRefused(refused));
        }
        let session = caller.session.as_ref().map(|session| session.claims());
        let bound = Bound {
            tenant: caller.tenant.clone(),
            session: session.map(|claims| (claims.handle.clone(), claims.user.clone())),
        };
        let at: Timestamp = self.kit.db.now();
        let proof = factor::accepted(factor, at, bound, Spend::Nothing, Credential::Named(new));
        let outcome = match &caller.session {
            Some(session) => self.complete(caller, session, proof).await?,
            None => self.sign_in(caller, proof).await?,
        };
        Ok(ThirdPartySignIn::Completed(outcome))
    }

    /// Takes over the address that the provider says its user has now, or its being verified, if they are allowed
    /// to have it. Another address is what it is by any other way (row S09): the former one hears of it, links are void,
    /// and no session goes on but the one that this is done in. The first time that it is verified it takes away what a
    /// first proof does (row L02). A tenant's own provider has no say about somebody who is in other tenants, too.
    ///
    /// It holds whatever becomes of the sign-in: who came back is who they are at the provider.
    async fn follow_address(
        &self,
        caller: &Caller,
        owner: &Owner,
        provider: &Provider,
        profile: &Profile,
    ) -> Result<Option<AddressRefused>, Refusal> {
        let opened = caller.session.as_ref().map(|session| session.opened());
        let opened = opened.as_ref();
        let stage = |mut tx: Tx| async move {
            let (Some(mut user), Some(email)) = (user::active(&mut tx, &owner.user).await?, &profile.email)
            else {
                return tx.abandon(Ok(Vec::new()));
            };
            let foreign = |own: &TenantId| user.logins.iter().flat_map(|it| &it.tenants).any(|it| it != own);
            if provider.tenant.as_ref().is_some_and(foreign) {
                return tx.abandon(Ok(Vec::new()));
            }
            let Some(login) = user.login(&owner.login) else { return tx.abandon(Ok(Vec::new())) };
            let same = login.email.as_ref() == Some(email);
            if same && (login.verified || !profile.verified) {
                return tx.abandon(Ok(Vec::new()));
            }
            let first = profile.verified && !user.is_proved(login);
            let (tenants, verified) = (login.tenants.clone(), profile.verified);
            let (mut other_primary, mut anybody) = (false, false);
            for tenant in &tenants {
                let holders = holders(&mut tx, tenant, &user, email).await?;
                (other_primary, anybody) = (other_primary || holders.0, anybody || holders.1);
            }
            if !same && let Err(refused) = may_change(user.primary, verified, other_primary, anybody) {
                return tx.abandon(Err(refused));
            }
            let before = user.to_user();
            match same {
                true => drop(user::prove(&mut tx, &mut user, &owner.login).await?),
                false => user::set_email(&mut tx, &mut user, &owner.login, email, verified).await?,
            }
            let mut held = match opened.filter(|opened| opened.claims.user == user.id) {
                Some(opened) => self.held_by(&mut tx, opened).await?.map(|row| (opened, row)),
                None => None,
            };
            let keep = held.as_mut().map(|(opened, row)| (&opened.claims.handle, row));
            let tenant = &caller.tenant;
            let changes = match (first, same) {
                (true, _) => self.stage_first_proof(&mut tx, tenant, &mut user, &owner.login, keep).await?,
                (false, false) => recovery::end_others(&mut tx, &user.id, keep).await?,
                (false, true) => Vec::new(),
            };
            if let Some((opened, row)) = held.filter(|_| !changes.is_empty()) {
                session::put(&mut tx, &opened.claims.handle, &row).await?;
            }
            if !same {
                ticket::void(&mut tx, &user.id, &Kind::ALL).await?;
                self.courier.tell(&mut tx, tenant, &before, |to| Notice::EmailChanged { to })?;
            }
            let event = Event::new(Audited::EmailChanged, tenant).user(&user.id);
            audit::stage(&mut tx, event.factor(&FactorId::THIRD_PARTY).peer(caller.request.peer))?;
            tx.commit(Ok(changes))
        };
        let followed = self.kit.db.transact(&owner.user, stage).await?;
        Ok(match followed {
            Ok(changes) => {
                self.kit.learn(&changes);
                self.courier.wake();
                None
            }
            Err(refused) => Some(refused),
        })
    }

    fn talk(&self) -> Result<&Talk, Refusal> {
        self.third_party.as_ref().ok_or(Refusal::BadInput("there is no such provider"))
    }

    async fn take_third_party(&self, caller: &Caller, what: &str, quota: Quota) -> Result<(), Refusal> {
        let Some(peer) = super::peer_key(&caller.request).filter(|_| self.kit.config.limits) else {
            return Ok(());
        };
        let key = keys::limit(what, &peer);
        let asked: [Asked; 1] = [(key.clone(), vec![quota])];
        self.take_all(key.as_str(), &asked).await
    }
}

const NO_CLIENT: Refusal = Refusal::BadInput("the provider has no client of that type");

/// Whether another primary user, and whether anybody else, has an address in a tenant.
async fn holders(tx: &mut Tx, tenant: &TenantId, user: &User, email: &Email) -> Result<(bool, bool), Error> {
    let name = NewLogin::passwordless(&email.clone().into());
    let primary = user::primary_of(tx, tenant, &name).await?.is_some_and(|other| other != user.id);
    let holders = user::holders(tx, tenant, &email.clone().into()).await?;
    Ok((primary, primary || holders.iter().any(|other| other.id != user.id)))
}

/// Operators hear what was wrong; the user only that it was.
fn told(provider: &Provider, trouble: &Trouble) {
    #[cfg(feature = "tracing")]
    tracing::warn!(provider = provider.id(), %trouble, "a sign-in at a provider failed");
    #[cfg(not(feature = "tracing"))]
    let _ = (provider, trouble);
}
