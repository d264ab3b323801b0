//! Whether the messages of a WebSocket are compressed: the server's settings, the client's offers, and the application, which
//! can decline.

use framegate_http::websocket::{
    deflate::Agreement,
    extension::{self, DeflateOffer},
};
use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};

use super::State;

/// Does the application decline compression? It says so by `sec-websocket-extensions` without a value among the headers of
/// `websocket.accept`: "no extensions". That passes through every framework whose `accept` takes headers. The field is
/// taken out; one with a value stays, and is refused like every field that is the server's.
pub(super) fn is_declined(headers: &mut HeaderMap) -> bool {
    let mut values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().peekable();
    let declined = values.peek().is_some() && values.all(|value| value.as_bytes().is_empty());
    if declined {
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    }
    declined
}

impl State {
    /// Accepts what the client offers, in the headers of the response and for the messages to come.
    pub(super) fn agree_on_compression(
        &self,
        offers: &[DeflateOffer],
        headers: &mut HeaderMap,
    ) -> Option<Agreement> {
        let accepted = extension::accept(offers, &self.application.settings.deflate)?;
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, accepted.header);
        self.outbox.compress_with(accepted.compressor);
        Some(accepted.agreement)
    }
}
