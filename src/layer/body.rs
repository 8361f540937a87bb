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

use super::refuse::Answer;

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
        // The answer that it is of, already in a box: so a body is no larger than the inner one.
        Ours { answer: Option<Box<Answer>> },
        Inner { #[pin] body: B },
    }
}

impl<B> MfaBody<B> {
    pub(crate) fn ours(answer: Box<Answer>) -> Self {
        Self { kind: Kind::Ours { answer: Some(answer).filter(|answer| !answer.body.is_empty()) } }
    }

    pub(crate) fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }
}

/// Empty: what layers around this one, such as CORS, answer with.
impl<B> Default for MfaBody<B> {
    fn default() -> Self {
        Self { kind: Kind::Ours { answer: None } }
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
            KindProj::Ours { answer } => {
                Poll::Ready(answer.take().map(|answer| Ok(Frame::data(answer.body))))
            }
            KindProj::Inner { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Ours { answer } => answer.is_none(),
            Kind::Inner { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Ours { answer } => {
                SizeHint::with_exact(answer.as_ref().map_or(0, |answer| answer.body.len() as u64))
            }
            Kind::Inner { body } => body.size_hint(),
        }
    }
}
