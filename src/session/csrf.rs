//! The anti-CSRF decisions (rows X01 to X08): pure, over what a request says beside its credentials.

use super::{
    cookies::TransferMethod,
    origin::Origin,
    transport::{FetchSite, Hints},
};
use crate::base::hash;

/// How a request that a cookie authenticates proves that our own pages sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AntiCsrf {
    /// No check.
    None,
    /// The header `rid` is there: a page of another origin can't add it without a preflight.
    #[default]
    CustomHeader,
    /// A random token in the access token comes back in the header `anti-csrf`.
    Token,
}

/// Whether this request needs the proof: its cookie authenticates it, and its method may change
/// something or the route asks for it anyway (`force`). `via` is the credential that was *used*, not the
/// headers that exist (row X04). Unknown methods count as unsafe (row X01).
pub(crate) fn needed(mode: AntiCsrf, via: TransferMethod, method: &str, force: bool) -> bool {
    mode != AntiCsrf::None && via == TransferMethod::Cookie && (force || is_unsafe(method))
}

/// Everything but the methods that RFC 9110 calls safe. Methods are case-sensitive.
pub(crate) fn is_unsafe(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// Whether the part of the proof that needs no opened token is there: asked before the signature is
/// checked. A failure is `TRY_REFRESH` (row X02).
pub(crate) fn header_proven(mode: AntiCsrf, hints: &Hints<'_>) -> bool {
    mode != AntiCsrf::CustomHeader || hints.rid
}

/// Whether the request sent back the token bound to the session (row X03). `bound` comes from a
/// verified token; a session that has none can't prove anything.
pub(crate) fn token_proven(mode: AntiCsrf, hints: &Hints<'_>, bound: Option<&str>) -> bool {
    mode != AntiCsrf::Token
        || matches!((hints.anti_csrf, bound),
            (Some(sent), Some(bound)) if !bound.is_empty() && hash::same(sent.as_bytes(), bound.as_bytes()))
}

/// Both parts of the proof at once, where the token is opened already.
pub(crate) fn proven(mode: AntiCsrf, hints: &Hints<'_>, bound: Option<&str>) -> bool {
    header_proven(mode, hints) && token_proven(mode, hints, bound)
}

/// The proof at the refresh route, where server-side callers can't add `rid`: any of the things a
/// page of a foreign origin can't send (`rid`, a JSON content type, an allowed `Origin`). A failure is
/// `UNAUTHORISED`, without rotation (row R13); whether it clears says [`may_clear`].
pub(crate) fn refresh_proven(
    mode: AntiCsrf,
    via: TransferMethod,
    hints: &Hints<'_>,
    allowed: &[Origin],
    bound: Option<&str>,
) -> bool {
    if via == TransferMethod::Header {
        return true;
    }
    match mode {
        AntiCsrf::None => true,
        AntiCsrf::CustomHeader => unforgeable(hints, allowed),
        AntiCsrf::Token => token_proven(mode, hints, bound),
    }
}

/// Whether a refresh without any token of ours may be answered by clearing: there is none to prove
/// anything with, so either nothing says that another site sent it, or something says that it didn't.
pub(crate) fn is_ours(hints: &Hints<'_>, allowed: &[Origin]) -> bool {
    may_clear(hints, allowed) || unforgeable(hints, allowed)
}

/// Whether anything came along that a page of a foreign origin can't send.
fn unforgeable(hints: &Hints<'_>, allowed: &[Origin]) -> bool {
    hints.rid || hints.json || hints.origin.is_some_and(|origin| listed(origin, allowed))
}

/// Whether an unsafe request to an auth endpoint comes from where it may (rows X06, X07), session or
/// not. `same_site`: cookies are in play and every allowed origin is on the API's own site, so that a
/// cross-site request can't be one of ours. A failure is `BAD_INPUT`.
pub(crate) fn origin_allowed(hints: &Hints<'_>, allowed: &[Origin], same_site: bool) -> bool {
    let cross_site = hints.fetch_site == Some(FetchSite::CrossSite);
    hints.origin.is_none_or(|origin| listed(origin, allowed)) && !(same_site && cross_site)
}

/// Whether a refresh without the proof may clear the tokens: only if it can't be another site's doing,
/// or any page could sign people out (row X08).
pub(crate) fn may_clear(hints: &Hints<'_>, allowed: &[Origin]) -> bool {
    let near = matches!(hints.fetch_site, None | Some(FetchSite::SameOrigin | FetchSite::SameSite));
    near && hints.origin.is_none_or(|origin| listed(origin, allowed))
}

/// Exact scheme, host and port; `null` is in no list.
fn listed(origin: &str, allowed: &[Origin]) -> bool {
    allowed.iter().any(|allowed| allowed.as_str() == origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints<'a>() -> Hints<'a> {
        Hints::default()
    }

    fn allowed() -> Vec<Origin> {
        vec![Origin::parse("https://app.example.com").unwrap()]
    }

    #[test]
    fn sec_x01_every_method_but_the_safe_ones() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(!needed(AntiCsrf::CustomHeader, TransferMethod::Cookie, method, false), "{method}");
            assert!(needed(AntiCsrf::CustomHeader, TransferMethod::Cookie, method, true), "{method}");
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "FOO", "get", ""] {
            assert!(needed(AntiCsrf::CustomHeader, TransferMethod::Cookie, method, false), "{method}");
            assert!(!needed(AntiCsrf::None, TransferMethod::Cookie, method, true), "{method}");
        }
    }

    #[test]
    fn sec_x02_any_rid_will_do() {
        assert!(!header_proven(AntiCsrf::CustomHeader, &hints()));
        assert!(header_proven(AntiCsrf::CustomHeader, &Hints { rid: true, ..hints() }));
        assert!(header_proven(AntiCsrf::Token, &hints()));
    }

    #[test]
    fn sec_x03_the_token_must_be_the_bound_one() {
        let sent = |text| Hints { anti_csrf: text, ..hints() };
        for (text, bound, proven) in [
            (Some("abc"), Some("abc"), true),
            (Some("abd"), Some("abc"), false),
            (Some("ab"), Some("abc"), false),
            (Some(""), Some(""), false),
            (None, Some("abc"), false),
            (Some("abc"), None, false),
            (None, None, false),
        ] {
            assert_eq!(token_proven(AntiCsrf::Token, &sent(text), bound), proven, "{text:?} {bound:?}");
        }
    }

    #[test]
    fn sec_x04_only_the_credential_used_exempts() {
        assert!(needed(AntiCsrf::Token, TransferMethod::Cookie, "POST", false));
        assert!(!needed(AntiCsrf::Token, TransferMethod::Header, "POST", true));
    }

    #[test]
    fn sec_x06_origins_match_exactly() {
        let from = |origin| Hints { origin: Some(origin), ..hints() };
        assert!(origin_allowed(&hints(), &allowed(), true));
        assert!(origin_allowed(&from("https://app.example.com"), &allowed(), true));
        for bad in [
            "null",
            "",
            "http://app.example.com",
            "https://app.example.com:444",
            "https://app.example.com:443",
            "https://app.example.com.evil.com",
            "https://evil.com/https://app.example.com",
            "https://APP.example.com",
            "HTTPS://app.example.com",
            "https://app.example.com/",
            "https://example.com",
        ] {
            assert!(!origin_allowed(&from(bad), &allowed(), true), "{bad}");
            assert!(!origin_allowed(&from(bad), &[], false), "{bad}");
        }
    }

    #[test]
    fn sec_x07_cross_site_is_refused_where_no_page_of_ours_is() {
        let site = |fetch_site| Hints { fetch_site: Some(fetch_site), ..hints() };
        assert!(!origin_allowed(&site(FetchSite::CrossSite), &allowed(), true));
        assert!(origin_allowed(&site(FetchSite::CrossSite), &allowed(), false));
        for near in [FetchSite::SameOrigin, FetchSite::SameSite, FetchSite::None] {
            assert!(origin_allowed(&site(near), &allowed(), true), "{near:?}");
        }
    }

    #[test]
    fn sec_x08_another_site_clears_nothing() {
        for (fetch_site, origin, clear) in [
            (None, None, true),
            (Some(FetchSite::SameOrigin), Some("https://app.example.com"), true),
            (Some(FetchSite::SameSite), None, true),
            (Some(FetchSite::CrossSite), None, false),
            (Some(FetchSite::CrossSite), Some("https://app.example.com"), false),
            (Some(FetchSite::None), None, false),
            (None, Some("https://evil.com"), false),
            (None, Some("null"), false),
        ] {
            let request = Hints { fetch_site, origin, ..hints() };
            assert_eq!(may_clear(&request, &allowed()), clear, "{fetch_site:?} {origin:?}");
        }
    }

    #[test]
    fn sec_r13_refresh_needs_what_a_foreign_page_cannot_send() {
        let proven =
            |mode, via, request: &Hints<'_>| refresh_proven(mode, via, request, &allowed(), Some("t"));
        let custom = |request: &Hints<'_>| proven(AntiCsrf::CustomHeader, TransferMethod::Cookie, request);
        assert!(!custom(&hints()));
        assert!(custom(&Hints { rid: true, ..hints() }));
        assert!(custom(&Hints { json: true, ..hints() }));
        assert!(custom(&Hints { origin: Some("https://app.example.com"), ..hints() }));
        assert!(!custom(&Hints { origin: Some("https://evil.com"), ..hints() }));
        let token = |request: &Hints<'_>| proven(AntiCsrf::Token, TransferMethod::Cookie, request);
        assert!(!token(&Hints { rid: true, json: true, ..hints() }));
        assert!(token(&Hints { anti_csrf: Some("t"), ..hints() }));
        assert!(proven(AntiCsrf::Token, TransferMethod::Header, &hints()));
        assert!(proven(AntiCsrf::None, TransferMethod::Cookie, &hints()));
    }
}
