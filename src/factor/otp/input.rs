//! What callers send: ids and codes, read once.

use zeroize::Zeroizing;

use crate::{
    base::{error::Error, hash, random, secret::Secret},
    model::code::FlowId,
};

/// The device's half of a flow: 256 random bits that only the caller keeps. Its hash names the flow.
#[derive(Clone, Debug)]
pub(crate) struct DeviceId(Secret<String>);

impl DeviceId {
    pub(super) fn random() -> Result<(Self, FlowId), Error> {
        let raw = Zeroizing::new(random::bytes::<32>()?);
        Ok((Self(Secret::new(hash::base64url(&*raw))), FlowId::of(&*raw)))
    }

    /// The text form: base64url, 43 characters.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// The flow that a caller means, by what it sent: `None` if that can't name any, which is a flow to
/// restart. A device id, if there is one, must be the flow's own.
pub(crate) fn locate(pre_auth_session: &str, device: Option<&str>) -> Option<FlowId> {
    let flow = FlowId::parse(pre_auth_session).ok()?;
    if let Some(device) = device {
        let raw = Zeroizing::new(hash::from_base64url(device)?);
        if raw.len() != 32 || !hash::same(FlowId::of(&raw).as_str().as_bytes(), flow.as_str().as_bytes()) {
            return None;
        }
    }
    Some(flow)
}

/// A code as it was typed (row O19).
///
/// Anything that isn't exactly so many ASCII digits is a wrong code: charged, never compared.
#[derive(Clone, Debug)]
pub(crate) struct CodeInput(pub(super) Option<Secret<String>>);

/// A link's code as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct LinkInput(Option<Secret<String>>);

/// The text is longer than anything that could be a code: `BAD_INPUT`, and nothing is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadInput;

impl CodeInput {
    /// # Errors
    /// If the text is longer than 64 bytes.
    pub(crate) fn parse(text: &str, digits: u32) -> Result<Self, BadInput> {
        let text = bounded(text)?.trim_matches(' ');
        let shaped = !text.is_empty()
            && u32::try_from(text.len()) == Ok(digits)
            && text.bytes().all(|b| b.is_ascii_digit());
        Ok(Self(shaped.then(|| Secret::new(text.to_owned()))))
    }
}

impl LinkInput {
    /// # Errors
    /// If the text is longer than 64 bytes.
    pub(crate) fn parse(text: &str) -> Result<Self, BadInput> {
        let text = bounded(text)?;
        let shaped = hash::from_base64url(text).is_some_and(|raw| raw.len() == 32);
        Ok(Self(shaped.then(|| Secret::new(text.to_owned()))))
    }
}

fn bounded(text: &str) -> Result<&str, BadInput> {
    if text.len() > 64 { Err(BadInput) } else { Ok(text) }
}

/// What is held against a flow.
#[derive(Clone, Debug)]
pub(crate) enum Presented {
    Code(CodeInput),
    Link(LinkInput),
}

impl Presented {
    pub(crate) fn is_link(&self) -> bool {
        matches!(self, Self::Link(_))
    }

    pub(super) fn text(&self) -> Option<&Secret<String>> {
        match self {
            Self::Code(CodeInput(text)) | Self::Link(LinkInput(text)) => text.as_ref(),
        }
    }
}
