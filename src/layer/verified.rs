//! What the layer found, as it goes with the request and comes back with the answer.

use std::sync::Arc;

use http::Extensions;

use crate::session::{Kit, Session, cookies::TransferMethod};

/// What the layer leaves in a request's extensions: that it ran, for which handle, and what it found.
/// Private, so that nothing else can put one there, and overwritten by each layer (row M07).
#[derive(Clone)]
pub(crate) struct Verified {
    /// The session, or whose it would be.
    pub(super) found: Result<Session, Arc<Kit>>,
    /// What this request asked the store already, so that an inner mount needn't.
    pub(super) row_read: bool,
    pub(super) feed_tried: bool,
    /// Whether a mount of the same handle around this one writes the tokens.
    pub(super) nested: bool,
    /// Whether this mount, or one around it, is for API clients.
    pub(super) challenges: bool,
}

/// What goes into an answer's head beside what the handler said.
pub(super) enum Told {
    /// Nothing: the outermost mount of a handle writes alone (row M15).
    Nothing,
    /// What the session has to tell.
    Session(Session),
    /// That there might have been one.
    NoSession(Arc<Kit>),
}

impl Verified {
    /// What a mount of the same handle found; another handle's finding is never trusted (rows M07, M15).
    #[inline]
    pub(super) fn of_outer<'r>(kit: &Arc<Kit>, extensions: &'r Extensions) -> Option<&'r Self> {
        let outer = extensions.get::<Self>()?;
        Arc::ptr_eq(outer.found.as_ref().map_or_else(|kit| kit, Session::kit), kit).then_some(outer)
    }

    #[inline]
    pub(crate) fn session(&self) -> Option<&Session> {
        self.found.as_ref().ok()
    }

    /// Whether a refusal is told by a challenge: to a header token or nobody, on a mount for API clients.
    pub(crate) fn challenged(&self) -> bool {
        let by_header = |session: &Session| session.opened().method == TransferMethod::Header;
        self.challenges && self.session().is_none_or(by_header)
    }

    /// What this mount tells the client beside the handler's answer.
    #[inline]
    pub(super) fn told(&self) -> Told {
        match &self.found {
            _ if self.nested => Told::Nothing,
            Ok(session) => Told::Session(session.clone()),
            Err(kit) => Told::NoSession(Arc::clone(kit)),
        }
    }
}

impl Session {
    /// The session that [`MfaLayer`](crate::MfaLayer) verified for a request: what services without axum
    /// read. `None` without a session, and also where no layer ran.
    pub fn from_extensions(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Verified>().and_then(Verified::session).cloned()
    }
}
