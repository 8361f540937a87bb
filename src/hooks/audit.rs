//! Tells the app's sink what was decided.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::sync::mpsc;

use crate::{
    base::error::BoxError,
    model::audit::{AuditEvent, Counts},
};

/// How long the sink may take for one event.
const PATIENCE: Duration = Duration::from_secs(5);

/// Hears of every security decision, after it was committed.
///
/// Each event is in the store's trail, written in the batch of its effect, before the sink hears of it
/// ([`Audited::AccessRefused`](super::Audited::AccessRefused) apart, which changes nothing and is told alone).
/// The sink is called one event after the other, in the order in which this process learned that they were
/// committed, and beside the requests: a sink that is slow, fails or panics holds up no sign-in and undoes
/// nothing.
///
/// *At most once*: 4096 events may wait; what finds no room, takes over 5 s or fails isn't told again, and is
/// counted ([`Counters::audit_dropped`](crate::account::Counters), `audit_failed`). A process that dies takes
/// along what waited; [`Mfa::shutdown`](crate::Mfa::shutdown) waits until all is told. Whoever needs every event
/// reads the trail: [`Mfa::audit_trail`](crate::Mfa::audit_trail), kept for 90 days. Each process tells what it
/// decided itself.
///
/// Without a sink of the app's, events go to `tracing` under the target `tower_mfa::audit`.
///
/// ```
/// use tower_mfa::{
///     hooks::{AuditEvent, AuditSink, Audited},
///     ident::BoxError,
/// };
///
/// struct Alarm;
///
/// impl AuditSink for Alarm {
///     async fn record(&self, event: &AuditEvent) -> Result<(), BoxError> {
///         if event.what == Audited::RefreshReuse {
///             eprintln!("a token was stolen from {:?}, {:?} later", event.user, event.age);
///         }
///         Ok(())
///     }
/// }
/// # fn build(builder: tower_mfa::MfaBuilder) -> tower_mfa::MfaBuilder {
/// builder.audit(Alarm)
/// # }
/// ```
pub trait AuditSink: Send + Sync + 'static {
    /// Takes one event.
    ///
    /// # Errors
    /// Counted; the event isn't told again.
    fn record(&self, event: &AuditEvent) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Writes events to `tracing`, under the target `tower_mfa::audit`: what is alarming as a warning, refreshes
/// and refusals for a claim for debugging, the rest as information. The default.
#[cfg(feature = "tracing")]
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSink;

#[cfg(feature = "tracing")]
impl AuditSink for TracingSink {
    async fn record(&self, event: &AuditEvent) -> Result<(), BoxError> {
        use super::Audited;
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: "tower_mfa::audit",
                    at = event.at.as_millis(),
                    what = ?event.what,
                    tenant = event.tenant.as_str(),
                    user = event.user.as_ref().map(|user| user.as_str()),
                    session = event.session.as_deref(),
                    factor = event.factor.as_ref().map(|factor| factor.as_str()),
                    cause = event.cause.map(tracing::field::debug),
                    country = event.country,
                    ip = event.ip.as_ref().map(tracing::field::display),
                    age = event.age.map(tracing::field::debug),
                )
            };
        }
        match event.what {
            what if what.is_alarming() => log!(warn),
            Audited::Refreshed | Audited::AccessRefused => log!(debug),
            _ => log!(info),
        }
        Ok(())
    }
}

/// The sink of an app without one.
#[cfg(not(feature = "tracing"))]
struct Nowhere;

#[cfg(not(feature = "tracing"))]
impl AuditSink for Nowhere {
    async fn record(&self, _: &AuditEvent) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Any sink.
#[derive(Clone)]
pub(crate) struct AnySink(Arc<dyn Erased>);

impl AnySink {
    pub(crate) fn new(sink: impl AuditSink) -> Self {
        Self(Arc::new(sink))
    }
}

impl Default for AnySink {
    fn default() -> Self {
        #[cfg(feature = "tracing")]
        return Self::new(TracingSink);
        #[cfg(not(feature = "tracing"))]
        Self::new(Nowhere)
    }
}

impl fmt::Debug for AnySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnySink").finish_non_exhaustive()
    }
}

/// Tells events until the last handle is gone.
pub(crate) async fn listen(sink: AnySink, counts: Arc<Counts>, mut events: mpsc::Receiver<AuditEvent>) {
    while let Some(event) = events.recv().await {
        let told = AssertUnwindSafe(async { sink.0.record_boxed(&event).await }).catch_unwind();
        if !matches!(tokio::time::timeout(PATIENCE, told).await, Ok(Ok(Ok(())))) {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            #[cfg(feature = "tracing")]
            tracing::error!(what = ?event.what, "the audit sink failed: the store's trail has the event");
        }
        counts.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;

/// The twin of [`AuditSink`] that can be `dyn`.
trait Erased: Send + Sync {
    fn record_boxed<'a>(&'a self, event: &'a AuditEvent) -> Boxed<'a>;
}

impl<S: AuditSink> Erased for S {
    fn record_boxed<'a>(&'a self, event: &'a AuditEvent) -> Boxed<'a> {
        Box::pin(self.record(event))
    }
}
