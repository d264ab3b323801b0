//! Bearer tokens: where a request carries one, and how it is compared.
//!
//! A token stands in `Authorization: Bearer <token>` (RFC 6750, 2.1). A page that opens a WebSocket cannot set that field, so there it
//! is offered as a subprotocol, `framegate.bearer.<token in base64url>`, beside the one that is spoken, [`SUBPROTOCOL`]; the server
//! answers with that one and never repeats the token. In a query it is not looked for: targets are logged, kept in histories and sent
//! on as `Referer`.
//!
//! Only digests of the known tokens are kept. A token that is shown is hashed as well, and compared with all of them in a time that
//! depends on none of their bytes: neither how much is right shows nor how long they are.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use http::{
    HeaderMap,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};

use crate::secrets::BEARER_SUBPROTOCOL;

/// What is spoken over a WebSocket of a topic.
pub const SUBPROTOCOL: &str = "framegate.v1";

const SCHEME: &[u8] = b"bearer ";

/// With or without padding, which many encoders write and which is no part of a subprotocol's name.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The digest of a token.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The SHA-256 of a token's bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Computes it.
    pub fn of(token: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(bytes)
    }

    /// The same token? Takes the same time for any other.
    pub(super) fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest(***)")
    }
}

/// A request shows several tokens, or one that is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The token that a request shows.
pub(super) fn shown(headers: &HeaderMap) -> Result<Option<Digest>, Malformed> {
    let mut found = None;
    let mut several = false;
    let mut take = |token: &[u8]| several |= found.replace(Digest::of(token)).is_some();
    for value in headers.get_all(AUTHORIZATION) {
        if let Some(token) = bearer(value.as_bytes()) {
            if token.is_empty() {
                return Err(Malformed);
            }
            take(token);
        }
    }
    for name in subprotocols(headers) {
        if let Some(encoded) = name.strip_prefix(BEARER_SUBPROTOCOL) {
            match BASE64URL.decode(encoded) {
                Ok(token) if !token.is_empty() => take(&token),
                _ => return Err(Malformed),
            }
        }
    }
    if several { Err(Malformed) } else { Ok(found) }
}

/// The token in a value of `Authorization`; `None` for another scheme, which may be somebody else's business.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    if value.eq_ignore_ascii_case(SCHEME.trim_ascii()) {
        return Some(b"");
    }
    let scheme = value.get(..SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| value[SCHEME.len()..].trim_ascii())
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim_matches([' ', '\t']))
}

/// What to answer to the subprotocols that a client offers: never the one with the token.
pub fn chosen_subprotocol(offered: &[String]) -> Option<&'static str> {
    offered
        .iter()
        .any(|name| name == SUBPROTOCOL)
        .then_some(SUBPROTOCOL)
}

#[cfg(test)]
mod tests {
    use http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
    };

    use super::{Digest, Malformed, chosen_subprotocol, shown};

    fn show(fields: &[(HeaderName, &'static str)]) -> Result<Option<Digest>, Malformed> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        shown(&headers)
    }

    #[test]
    fn token_is_found_where_it_may_stand() {
        let protocol = SEC_WEBSOCKET_PROTOCOL;
        for fields in [
            &[(AUTHORIZATION, "Bearer s3cret-token")][..],
            &[(AUTHORIZATION, "bearer   s3cret-token  ")],
            &[(AUTHORIZATION, "BEARER s3cret-token")],
            &[
                (AUTHORIZATION, "Basic YTpi"),
                (AUTHORIZATION, "Bearer s3cret-token"),
            ],
            &[(protocol.clone(), "framegate.bearer.czNjcmV0LXRva2Vu")],
            &[(
                protocol.clone(),
                "framegate.v1, framegate.bearer.czNjcmV0LXRva2Vu",
            )],
            &[
                (protocol.clone(), "framegate.v1"),
                (protocol.clone(), "framegate.bearer.czNjcmV0LXRva2Vu"),
            ],
        ] {
            let found = show(fields).unwrap().expect("a token");
            assert!(found.is(&Digest::of(b"s3cret-token")), "{fields:?}");
            assert!(!found.is(&Digest::of(b"s3cret-token2")), "{fields:?}");
        }
        // Bytes that base64url writes in another way than base64.
        let found = show(&[(protocol, "framegate.bearer.__79")])
            .unwrap()
            .expect("a token");
        assert!(found.is(&Digest::of(&[0xff, 0xfe, 0xfd])));
    }

    #[test]
    fn others_have_no_token() {
        for fields in [
            &[][..],
            &[(AUTHORIZATION, "Basic YTpi")],
            &[(AUTHORIZATION, "Bearerx y")],
            &[(AUTHORIZATION, "")],
            &[(SEC_WEBSOCKET_PROTOCOL, "chat, framegate.v1")],
            &[(COOKIE, "Bearer s3cret-token")],
            &[(PROXY_AUTHORIZATION, "Bearer s3cret-token")],
        ] {
            assert!(show(fields).unwrap().is_none(), "{fields:?}");
        }
    }

    #[test]
    fn two_tokens_or_half_a_one_are_malformed() {
        let protocol = SEC_WEBSOCKET_PROTOCOL;
        for fields in [
            &[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer b")][..],
            &[
                (AUTHORIZATION, "Bearer a"),
                (protocol.clone(), "framegate.bearer.YQ"),
            ],
            &[(protocol.clone(), "framegate.bearer.YQ, framegate.bearer.Yg")],
            &[(protocol.clone(), "framegate.bearer.")],
            &[(protocol.clone(), "framegate.bearer.a+b/")],
            &[(protocol, "framegate.bearer.!")],
            &[(AUTHORIZATION, "Bearer")],
            &[(AUTHORIZATION, "Bearer ")],
        ] {
            assert_eq!(show(fields).err(), Some(Malformed), "{fields:?}");
        }
    }

    #[test]
    fn subprotocol_with_the_token_is_never_chosen() {
        let offered = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        for (names, chosen) in [
            (&["framegate.v1"][..], Some("framegate.v1")),
            (
                &["framegate.bearer.YQ", "framegate.v1"],
                Some("framegate.v1"),
            ),
            (&["framegate.bearer.YQ"], None),
            (&["chat"], None),
            (&[], None),
        ] {
            assert_eq!(chosen_subprotocol(&offered(names)), chosen, "{names:?}");
        }
    }

    #[test]
    fn digest_does_not_show_itself() {
        assert_eq!(format!("{:?}", Digest::of(b"a")), "Digest(***)");
    }
}
