//! What must not get into logs.

use http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};

/// What precedes a token among the subprotocols that a page offers; see [`crate::topics::access`].
pub(crate) const BEARER_SUBPROTOCOL: &str = "framegate.bearer.";

const MASK: &str = "***";

/// The value of a field without what is secret in it; `None` when nothing is.
pub(crate) fn masked(name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
    let text = if name == AUTHORIZATION || name == PROXY_AUTHORIZATION {
        let text = String::from_utf8_lossy(value.as_bytes());
        match text.trim_ascii().split_once(' ') {
            Some((scheme, _)) => format!("{scheme} {MASK}"),
            None => MASK.to_owned(),
        }
    } else if name == SEC_WEBSOCKET_PROTOCOL {
        let text = String::from_utf8_lossy(value.as_bytes());
        if !text.contains(BEARER_SUBPROTOCOL) {
            return None;
        }
        let names: Vec<_> = text
            .split(',')
            .map(|name| {
                let name = name.trim_ascii();
                match name.strip_prefix(BEARER_SUBPROTOCOL) {
                    Some(_) => format!("{BEARER_SUBPROTOCOL}{MASK}"),
                    None => name.to_owned(),
                }
            })
            .collect();
        names.join(", ")
    } else {
        return None;
    };
    Some(HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(MASK)))
}

#[cfg(test)]
mod tests {
    use http::{
        HeaderValue,
        header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
    };

    use super::masked;

    #[test]
    fn secrets_are_masked_and_the_rest_is_kept() {
        let protocol = SEC_WEBSOCKET_PROTOCOL;
        for (name, value, expected) in [
            (AUTHORIZATION, "Bearer s3cret", Some("Bearer ***")),
            (
                AUTHORIZATION,
                "Digest username=a, response=b",
                Some("Digest ***"),
            ),
            (AUTHORIZATION, "s3cret", Some("***")),
            (PROXY_AUTHORIZATION, "Basic YTpi", Some("Basic ***")),
            (
                protocol.clone(),
                "framegate.v1,framegate.bearer.czNjcmV0",
                Some("framegate.v1, framegate.bearer.***"),
            ),
            (protocol, "chat, v2", None),
            (COOKIE, "a=b", None),
        ] {
            let found = masked(&name, &HeaderValue::from_static(value));
            assert_eq!(
                found.as_ref().map(|value| value.to_str().unwrap()),
                expected,
                "{name}: {value}"
            );
        }
    }
}
