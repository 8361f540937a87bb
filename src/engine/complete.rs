//! A factor of the app's own was passed.

use std::sync::Arc;

use super::Mfa;
use crate::{
    base::error::{Error, ErrorKind},
    factor::Proof,
    flow::{Caller, Desk, Refusal, complete::Outcome},
    hooks::Form,
    policy::RequestFacts,
    session::{Session, SessionDenied},
};

pub(super) async fn complete(mfa: &Mfa, session: &Session, proof: Proof) -> Result<(), Error> {
    if !mfa.desk.kit.usable.contains(proof.factor()) {
        return Err(Error::invalid("this factor can't be completed here"));
    }
    let (desk, caller) = caller(mfa, session)?;
    let (kit, held) = (Arc::clone(&desk.kit), session.clone());
    let work = async move { desk.complete(&caller, &held, proof).await.map_err(refused) };
    match kit.run(work).await? {
        Outcome::Done(done) => {
            session.replace(done.opened, done.tokens.into());
            Ok(())
        }
        Outcome::Lost | Outcome::Taken | Outcome::NotLinked(_) => {
            Err(Error::invalid("the proof is another session's"))
        }
    }
}

/// Who asks, by a session that an app's handler holds.
pub(super) fn caller(mfa: &Mfa, session: &Session) -> Result<(Arc<Desk>, Caller), Error> {
    let desk = Arc::clone(&mfa.desk);
    if !Arc::ptr_eq(session.kit(), &desk.kit) {
        return Err(Error::invalid("the session is another handle's"));
    }
    session.still_writable()?;
    let caller = Caller {
        tenant: session.tenant_id(),
        session: Some(session.clone()),
        left_behind: Vec::new(),
        vouched: true,
        method: session.opened().method,
        clear_other: false,
        expire_older: false,
        request: RequestFacts::default(),
        form: Form::default(),
    };
    Ok((desk, caller))
}

pub(super) fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Failed(error) => error,
        Refusal::Denied(SessionDenied::TryRefresh) => {
            Error::new(ErrorKind::StaleToken, "the access token is of an earlier refresh token")
        }
        Refusal::Denied(SessionDenied::InvalidClaims(_)) | Refusal::BadInput(_) | Refusal::NotLinked(_) => {
            Error::invalid("this factor isn't asked for now")
        }
        Refusal::Denied(_) | Refusal::NoTenant => Error::new(ErrorKind::SessionEnded, "the session is over"),
        Refusal::TooMany(_) => Error::unavailable("too many attempts"),
    }
}
