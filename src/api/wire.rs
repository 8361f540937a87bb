//! Shapes that several routes share: bodies in, envelopes and users out (`spec/wire.md` §1.5, §9.1, §10).

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    base::distinct,
    model::user::{LoginKind, LoginMethod, User},
};

/// A malformed request: 400, and a fixed text that never repeats the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadInput(pub(super) &'static str);

/// A JSON object sent by a client.
pub(super) struct Body(pub(super) Map<String, Value>);

impl Body {
    /// A member that must be a string; `None` if it isn't there.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&str>, BadInput> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(BadInput("a member that must be a string is something else")),
        }
    }

    /// A string that must be there.
    pub(super) fn required(&self, name: &'static str, missing: &'static str) -> Result<&str, BadInput> {
        self.text(name)?.ok_or(BadInput(missing))
    }

    /// `shouldTryLinkingWithSessionUser`: absent is `false`.
    pub(super) fn try_linking(&self) -> Result<bool, BadInput> {
        match self.0.get("shouldTryLinkingWithSessionUser") {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(BadInput("shouldTryLinkingWithSessionUser must be a boolean")),
        }
    }

    /// The `formFields` array as (id, value), each id at most once. E-mail and password are strings; of another value
    /// that isn't one, its JSON is what was typed, and of `null` nothing.
    pub(super) fn form_fields(&self, allowed: &[&str]) -> Result<Vec<(&str, Cow<'_, str>)>, BadInput> {
        let Some(Value::Array(fields)) = self.0.get("formFields") else {
            return Err(BadInput("formFields must be an array"));
        };
        if fields.len() > allowed.len() {
            return Err(BadInput("there are too many form fields"));
        }
        let mut read: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(fields.len());
        for field in fields {
            let (Some(Value::String(id)), Some(value)) = (field.get("id"), field.get("value")) else {
                return Err(BadInput("a form field needs a string id and a value"));
            };
            let value = match value {
                Value::String(text) => Cow::Borrowed(text.as_str()),
                _ if ["email", "password"].contains(&id.as_str()) => {
                    return Err(BadInput("an e-mail address and a password are strings"));
                }
                Value::Null => Cow::Borrowed(""),
                other => Cow::Owned(other.to_string()),
            };
            if !allowed.contains(&id.as_str()) || read.iter().any(|(known, _)| known == id) {
                return Err(BadInput("a form field is unknown or sent twice"));
            }
            read.push((id, value));
        }
        Ok(read)
    }
}

/// What a form field is refused for.
#[derive(Debug, Serialize)]
pub(super) struct FieldError {
    pub(super) id: String,
    pub(super) error: String,
}

/// `{"status": …}` with nothing else.
pub(super) fn status(name: &'static str) -> Value {
    json!({ "status": name })
}

pub(super) fn field_errors(errors: &[FieldError]) -> Value {
    json!({ "status": "FIELD_ERROR", "formFields": errors })
}

/// A user in the shape of FDI 1.18 and later (§10).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireUser<'a> {
    id: &'a str,
    is_primary_user: bool,
    tenant_ids: Vec<&'a str>,
    time_joined: i64,
    emails: Vec<&'a str>,
    phone_numbers: Vec<&'a str>,
    third_party: Vec<WireThirdParty<'a>>,
    webauthn: WirePasskeys,
    login_methods: Vec<WireLogin<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireLogin<'a> {
    recipe_id: &'static str,
    recipe_user_id: &'a str,
    tenant_ids: Vec<&'a str>,
    time_joined: i64,
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    third_party: Option<WireThirdParty<'a>>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireThirdParty<'a> {
    id: &'a str,
    user_id: &'a str,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct WirePasskeys {
    credential_ids: Vec<String>,
}

impl<'a> From<&'a User> for WireUser<'a> {
    fn from(user: &'a User) -> Self {
        let logins: Vec<WireLogin<'a>> = user.logins.iter().map(WireLogin::from).collect();
        Self {
            id: user.id.as_str(),
            is_primary_user: user.primary,
            tenant_ids: distinct(logins.iter().flat_map(|login| login.tenant_ids.iter().copied())),
            time_joined: user.joined_at().as_millis(),
            emails: distinct(logins.iter().filter_map(|login| login.email)),
            phone_numbers: distinct(logins.iter().filter_map(|login| login.phone_number)),
            third_party: logins.iter().filter_map(|login| login.third_party).collect(),
            webauthn: WirePasskeys::default(),
            login_methods: logins,
        }
    }
}

impl<'a> From<&'a LoginMethod> for WireLogin<'a> {
    fn from(login: &'a LoginMethod) -> Self {
        Self {
            recipe_id: match login.kind {
                LoginKind::EmailPassword => "emailpassword",
                LoginKind::ThirdParty => "thirdparty",
                LoginKind::Passwordless => "passwordless",
                LoginKind::WebAuthn => "webauthn",
                LoginKind::External => "external",
            },
            recipe_user_id: login.id.as_str(),
            tenant_ids: login.tenants.iter().map(AsRef::as_ref).collect(),
            time_joined: login.joined_at.as_millis(),
            verified: login.verified,
            email: login.email.as_ref().map(|email| email.as_str()),
            phone_number: login.phone.as_ref().map(|phone| phone.as_str()),
            third_party: login
                .third_party
                .as_ref()
                .map(|id| WireThirdParty { id: &id.provider, user_id: &id.subject }),
        }
    }
}
