//! The response body: ours or the inner service's, so that a refusal can say something without asking the
//! app's body type for anything.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A body of the crate's own, or the inner service's.
    pub struct MfaBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Ours { bytes: Option<Bytes> },
        Inner { #[pin] body: B },
    }
}

impl<B> MfaBody<B> {
    pub(crate) fn ours(bytes: Bytes) -> Self {
        Self { kind: Kind::Ours { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()) } }
    }

    pub(crate) fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }
}

/// Empty: what layers around this one, such as CORS, answer with.
impl<B> Default for MfaBody<B> {
    fn default() -> Self {
        Self::ours(Bytes::new())
    }
}

impl<B> fmt::Debug for MfaBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MfaBody").finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes>> Body for MfaBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Ours { bytes } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            KindProj::Inner { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Ours { bytes } => bytes.is_none(),
            Kind::Inner { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Ours { bytes } => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Inner { body } => body.size_hint(),
        }
    }
}
