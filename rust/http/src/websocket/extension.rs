//! The negotiation of permessage-deflate (RFC 7692, sections 5 and 7.1); no other extension is spoken.
//!
//! A client offers as many sets of parameters as it likes, the one it likes best first. The first one that fits is
//! accepted. An offer that names something unknown, or says something twice or in a wrong way, does not fit; that is no
//! reason to refuse the WebSocket, which works as well without compression.

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_EXTENSIONS};

use super::deflate::{
    Agreement, CONTEXT_WINDOW_BITS, Compressor, ContextPermit, Mode, Settings, WINDOW_BITS_MAX,
    WINDOW_BITS_MIN,
};

/// Offers that are looked at. Browsers send one, libraries up to three; each costs a few bytes while a WebSocket is open.
const OFFERS_MAX: usize = 16;

/// One offer of permessage-deflate that can be accepted.
#[expect(
    clippy::option_option,
    reason = "a parameter is not named, or named without a value, or with one"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeflateOffer {
    /// The largest window that we may use, if the client says so.
    server_window_bits: Option<u8>,
    /// Our messages shall not refer to earlier ones.
    server_no_takeover: bool,
    /// The client's messages will not refer to earlier ones, if we say so as well.
    client_no_takeover: bool,
    /// `client_max_window_bits` is named, perhaps with a value.
    client_window_bits: Option<Option<u8>>,
}

/// What an offer led to.
pub struct Accepted {
    /// For the session.
    pub agreement: Agreement,
    /// For the outbox.
    pub compressor: Compressor,
    /// The value of `sec-websocket-extensions` in the response.
    pub header: HeaderValue,
}

/// The offers of a request that can be accepted, in its order.
pub fn deflate_offers(headers: &HeaderMap) -> Box<[DeflateOffer]> {
    let mut offers = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        // A value that is not visible ASCII is no list.
        let Ok(value) = value.to_str() else { continue };
        for element in split(value, b',') {
            if offers.len() < OFFERS_MAX
                && let Some(offer) = DeflateOffer::parse(element)
                // A window of 8 bits is more than zlib can do, in the sense of less.
                && offer.server_window_bits.is_none_or(|bits| bits >= WINDOW_BITS_MIN)
            {
                offers.push(offer);
            }
        }
    }
    offers.into_boxed_slice()
}

/// Accepts the first of `offers`. `None` when there is none, or when compression is off.
pub fn accept(offers: &[DeflateOffer], settings: &Settings) -> Option<Accepted> {
    let offer = offers.first()?;
    let mut agreement = match settings.mode {
        Mode::Off => return None,
        Mode::Shared => offer.without_context(),
        Mode::Context => offer.with_context(),
    };
    let mut permit = None;
    if agreement.keeps_context() {
        permit = ContextPermit::acquire(settings.contexts_max);
        if permit.is_none() {
            agreement = offer.without_context();
        }
    }
    Some(Accepted {
        agreement,
        compressor: Compressor::new(agreement, settings.bytes_min, permit),
        header: offer.answer(agreement),
    })
}

/// What our own clients offer: any window, and messages that refer to earlier ones. A client has few connections, so the
/// memory that this takes does not count.
pub const CLIENT_OFFER: HeaderValue =
    HeaderValue::from_static("permessage-deflate; client_max_window_bits");

/// What a server answered to [`CLIENT_OFFER`], seen from the client; `None` when it wants no compression.
///
/// # Errors
/// The answer is none to that offer: the WebSocket has to be given up (RFC 7692, section 5.1).
pub fn client_agreement(headers: &HeaderMap) -> Result<Option<Agreement>, &'static str> {
    let mut agreed = None;
    for value in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        let value = value.to_str().map_err(|_| "is not visible ASCII")?;
        for element in split(value, b',').filter(|element| !element.is_empty()) {
            let answer = DeflateOffer::parse(element)
                .ok_or("names an extension or a parameter that was not offered")?;
            // Section 7.1.2.2: in an answer it has a value.
            let own_window_bits = match answer.client_window_bits {
                None => WINDOW_BITS_MAX,
                Some(Some(bits)) => bits,
                Some(None) => return Err("has client_max_window_bits without a value"),
            };
            let agreement = Agreement {
                own_window_bits,
                own_takeover: !answer.client_no_takeover,
                peer_takeover: !answer.server_no_takeover,
            };
            if agreed.replace(agreement).is_some() {
                return Err("accepts permessage-deflate twice");
            }
        }
    }
    Ok(agreed)
}

impl DeflateOffer {
    /// Reads an element of the field: the name of an extension and its parameters.
    fn parse(element: &str) -> Option<Self> {
        let mut parts = split(element, b';');
        if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
            return None;
        }
        let mut offer = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (trim(name), Some(unquoted(trim(value))?)),
                None => (part, None),
            };
            match (name.to_ascii_lowercase().as_str(), value) {
                ("server_no_context_takeover", None) if !offer.server_no_takeover => {
                    offer.server_no_takeover = true;
                }
                ("client_no_context_takeover", None) if !offer.client_no_takeover => {
                    offer.client_no_takeover = true;
                }
                ("server_max_window_bits", Some(value)) if offer.server_window_bits.is_none() => {
                    offer.server_window_bits = Some(window_bits(value)?);
                }
                ("client_max_window_bits", value) if offer.client_window_bits.is_none() => {
                    // Whatever it is, the window that we inflate with is as large.
                    let bits = match value {
                        Some(value) => Some(window_bits(value)?),
                        None => None,
                    };
                    offer.client_window_bits = Some(bits);
                }
                _ => return None,
            }
        }
        Some(offer)
    }

    /// Every message stands alone.
    fn without_context(self) -> Agreement {
        Agreement {
            own_window_bits: self.server_window_bits.unwrap_or(WINDOW_BITS_MAX),
            own_takeover: false,
            peer_takeover: false,
        }
    }

    /// Messages refer to earlier ones, unless the client does not want that.
    fn with_context(self) -> Agreement {
        let offered = self.server_window_bits.unwrap_or(WINDOW_BITS_MAX);
        Agreement {
            own_window_bits: if self.server_no_takeover {
                offered
            } else {
                offered.min(CONTEXT_WINDOW_BITS)
            },
            own_takeover: !self.server_no_takeover,
            peer_takeover: !self.client_no_takeover,
        }
    }

    /// The field that tells the client. `client_max_window_bits` is never named: a smaller window would make the client's
    /// messages larger and save us nothing.
    fn answer(self, agreement: Agreement) -> HeaderValue {
        let mut value = String::from("permessage-deflate");
        if !agreement.own_takeover {
            value.push_str("; server_no_context_takeover");
        }
        if !agreement.peer_takeover {
            value.push_str("; client_no_context_takeover");
        }
        let bits = agreement.own_window_bits;
        if self.server_window_bits.is_some() || bits < WINDOW_BITS_MAX {
            value.push_str("; server_max_window_bits=");
            value.push_str(&bits.to_string());
        }
        HeaderValue::from_str(&value).expect("parameters are visible ASCII")
    }
}

/// RFC 7692, section 7.1.2: 8 to 15, decimal, without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    match value {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

/// The parts of a list, trimmed, also empty ones; a separator inside a quoted string does not count (RFC 9110, section 5.6.4).
fn split(list: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    list.split(move |c: char| {
        if escaped {
            escaped = false;
            return false;
        }
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => escaped = true,
            _ => {}
        }
        !quoted && c == char::from(separator)
    })
    .map(trim)
}

fn trim(part: &str) -> &str {
    part.trim_matches([' ', '\t'])
}

/// A value, freed from quotes. What follows must be a token all the same (RFC 6455, section 9.1), so one with a backslash
/// in it is none that we know.
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(values: &[&str]) -> Box<[DeflateOffer]> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                SEC_WEBSOCKET_EXTENSIONS,
                HeaderValue::from_str(value).unwrap(),
            );
        }
        deflate_offers(&headers)
    }

    fn answer(value: &str, mode: Mode) -> Option<String> {
        let settings = Settings {
            mode,
            ..Settings::default()
        };
        let accepted = accept(&offers(&[value]), &settings)?;
        Some(accepted.header.to_str().unwrap().to_owned())
    }

    const ALONE: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn what_browsers_offer_is_accepted_in_each_mode() {
        let offer = "permessage-deflate; client_max_window_bits";
        assert_eq!(answer(offer, Mode::Shared).as_deref(), Some(ALONE));
        assert_eq!(
            answer(offer, Mode::Context).as_deref(),
            Some("permessage-deflate; server_max_window_bits=12")
        );
        assert_eq!(answer(offer, Mode::Off), None);
        assert_eq!(answer("", Mode::Shared), None);
    }

    #[test]
    fn every_parameter_is_answered() {
        for (offer, context) in [
            ("permessage-deflate", "; server_max_window_bits=12"),
            (
                "permessage-deflate; server_no_context_takeover",
                "; server_no_context_takeover",
            ),
            (
                "permessage-deflate;client_no_context_takeover",
                "; client_no_context_takeover; server_max_window_bits=12",
            ),
            (
                "permessage-deflate; server_max_window_bits=15",
                "; server_max_window_bits=12",
            ),
            (
                "permessage-deflate; server_max_window_bits=\"10\"",
                "; server_max_window_bits=10",
            ),
            (
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
                "; server_no_context_takeover; server_max_window_bits=15",
            ),
            (
                "Permessage-Deflate ; CLIENT_MAX_WINDOW_BITS = 8",
                "; server_max_window_bits=12",
            ),
        ] {
            let expected = format!("permessage-deflate{context}");
            assert_eq!(answer(offer, Mode::Context), Some(expected), "{offer}");
        }
        for bits in 9..=15 {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            let expected = format!("{ALONE}; server_max_window_bits={bits}");
            assert_eq!(answer(&offer, Mode::Shared), Some(expected));
        }
    }

    #[test]
    fn the_first_offer_that_fits_is_taken() {
        let all = offers(&[
            "permessage-bzip2, permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=11, permessage-deflate",
        ]);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].server_window_bits, Some(11));
        assert_eq!(all[1], DeflateOffer::default());
    }

    #[test]
    fn offers_that_do_not_fit_are_passed_over() {
        for parameters in [
            "server_max_window_bits=8",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=09",
            "server_max_window_bits=+9",
            "server_max_window_bits=",
            "server_max_window_bits=\"10",
            "server_max_window_bits",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=\"\"",
            "client_max_window_bits; client_max_window_bits",
            "server_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover=true",
            "client_no_context_takeover; client_no_context_takeover",
            "unknown",
            "unknown=1",
            "",
        ] {
            let offer = format!("permessage-deflate; {parameters}");
            assert_eq!(answer(&offer, Mode::Shared), None, "{offer}");
            // The next one is not spoilt by it.
            let both = format!("{offer}, permessage-deflate");
            let closed = parameters.matches('"').count() % 2 == 0;
            assert_eq!(answer(&both, Mode::Shared).is_some(), closed, "{both}");
        }
    }

    #[test]
    fn separators_in_quotes_do_not_separate() {
        assert_eq!(
            answer(
                "other; a=\"permessage-deflate, permessage-deflate\"",
                Mode::Shared
            ),
            None
        );
        let quoted = "other; a=\"\\\",;\", permessage-deflate";
        assert_eq!(answer(quoted, Mode::Shared).as_deref(), Some(ALONE));
    }

    #[test]
    fn of_very_many_offers_only_some_are_kept() {
        let many = vec!["permessage-deflate"; 1000].join(",");
        assert_eq!(offers(&[&many]).len(), OFFERS_MAX);
    }

    #[test]
    fn a_client_takes_what_answers_its_offer_and_nothing_else() {
        let agreed = |answer: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(
                SEC_WEBSOCKET_EXTENSIONS,
                HeaderValue::from_str(answer).unwrap(),
            );
            client_agreement(&headers)
        };
        let agreement = |own_window_bits, own_takeover, peer_takeover| Agreement {
            own_window_bits,
            own_takeover,
            peer_takeover,
        };
        assert_eq!(client_agreement(&HeaderMap::new()), Ok(None));
        for (answer, expected) in [
            ("permessage-deflate", agreement(15, true, true)),
            (ALONE, agreement(15, false, false)),
            (
                "permessage-deflate; client_max_window_bits=8; server_max_window_bits=8",
                agreement(8, true, true),
            ),
            (
                "permessage-deflate; client_max_window_bits=\"10\"; server_no_context_takeover",
                agreement(10, true, false),
            ),
        ] {
            assert_eq!(agreed(answer), Ok(Some(expected)), "{answer}");
        }
        for answer in [
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; unknown",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-bzip2",
            "permessage-deflate, permessage-deflate",
        ] {
            assert!(agreed(answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn contexts_are_capped_and_given_back() {
        let settings = Settings {
            mode: Mode::Context,
            contexts_max: 2,
            ..Settings::default()
        };
        let all = offers(&["permessage-deflate"]);
        let first = accept(&all, &settings).unwrap();
        let second = accept(&all, &settings).unwrap();
        let third = accept(&all, &settings).unwrap();
        let kept = [&first, &second, &third].map(|accepted| accepted.agreement.keeps_context());
        assert_eq!(kept, [true, true, false]);
        assert_eq!(third.header, ALONE);
        drop(first);
        assert!(accept(&all, &settings).unwrap().agreement.keeps_context());
        // Who takes nothing over needs no permit.
        let none =
            offers(&["permessage-deflate; server_no_context_takeover; client_no_context_takeover"]);
        let alone = [accept(&none, &settings), accept(&none, &settings)];
        assert!(accept(&all, &settings).unwrap().agreement.keeps_context());
        drop((alone, second));
    }
}
