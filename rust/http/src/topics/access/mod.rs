//! Who may do what with which topic.
//!
//! # How it is decided
//! For each request anew, for a WebSocket with its handshake: a connection belongs to nobody, proxies share one among many people.
//!
//! | the request | may do |
//! |---|---|
//! | shows a token that is known | what the token may, and what anybody may |
//! | shows one that is not known, or two | nothing: 401, also for what anybody may, so that mistakes show |
//! | shows none, made on this machine ([`local`]) | everything, unless that is switched off |
//! | shows none, from elsewhere | what anybody may |
//! | shows none, a page of another origin has sent it | nothing |
//!
//! What is not allowed is 401 when a token would help, which is when there are any and none was shown, else 403. A [`Judge`] decides
//! in place of all of this, if there is one: the application itself.
//!
//! The table is a function of the request's head and its connection. What it is decided by is shared by all threads and can be
//! replaced while the server runs ([`Guard`]).

mod credentials;
mod guard;
pub mod local;
mod pattern;

use std::sync::Arc;

use http::request::Parts;

pub use credentials::{Digest, SUBPROTOCOL, chosen_subprotocol};
pub use guard::{Guard, Judge, JudgeFuture, Question, Unjudged, Visit};
pub use local::Stranger;
pub use pattern::{NotAPattern, Pattern};

use super::problem::{Code, Problem};
use crate::edge::Arrival;
use crate::service::ConnectionInfo;

/// What somebody wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// To see that it exists, and what its frames are.
    List,
    /// To get its frames.
    Read,
    /// To put frames into it.
    Publish,
    /// To ask its responders.
    Call,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::List, Self::Read, Self::Publish, Self::Call];

    /// As configurations and answers name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Call => "call",
        }
    }
}

/// What somebody may do, with which topics.
#[derive(Clone, Debug, Default)]
pub struct Rights([Vec<Pattern>; 4]);

impl Rights {
    /// `permission` is allowed with the topics of `pattern`, too.
    #[must_use]
    pub fn with(mut self, permission: Permission, pattern: Pattern) -> Self {
        self.0[permission as usize].push(pattern);
        self
    }

    fn have(&self, permission: Permission, topic: &str) -> bool {
        self.of(permission)
            .iter()
            .any(|pattern| pattern.fits(topic))
    }

    fn of(&self, permission: Permission) -> &[Pattern] {
        &self.0[permission as usize]
    }
}

/// A token that is known.
#[derive(Clone, Debug)]
pub struct Token {
    /// For people and for logs.
    pub name: String,
    /// Of the token itself.
    pub digest: Digest,
    /// What whoever shows it may do.
    pub rights: Rights,
}

/// All that is known of who may do what.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Those that are known.
    pub tokens: Vec<Token>,
    /// What may be done without one.
    pub anybody: Rights,
    /// Requests that were made on this machine may do everything.
    pub trusts_local: bool,
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The token that is shown is none, or there are two.
    BadToken,
    /// A token would help.
    NoToken(Permission),
    /// The one that is shown does not allow it.
    TokenForbids(Permission),
    /// Nothing allows it, and there are no tokens. The reason why the request does not count as one of this machine, if that
    /// would help.
    Forbidden(Permission, Option<Stranger>),
    /// The application has said no.
    Judged(Permission),
    /// The application has failed to say.
    NotJudged,
    /// The application has not said it in time.
    JudgedLate,
}

impl Denial {
    /// 401, 403, or 500 and 503 when it is the server's fault.
    fn code(self) -> Code {
        match self {
            Self::BadToken | Self::NoToken(_) => Code::Unauthorized,
            Self::TokenForbids(_) | Self::Forbidden(..) | Self::Judged(_) => Code::Forbidden,
            Self::NotJudged => Code::Internal,
            Self::JudgedLate => Code::Unavailable,
        }
    }

    /// `WWW-Authenticate` (RFC 6750, 3): which 401 must have.
    fn challenge(self) -> Option<&'static str> {
        match self {
            Self::NoToken(_) => Some("Bearer realm=\"framegate\""),
            Self::BadToken => Some("Bearer realm=\"framegate\", error=\"invalid_token\""),
            Self::TokenForbids(_) => {
                Some("Bearer realm=\"framegate\", error=\"insufficient_scope\"")
            }
            Self::Forbidden(..) | Self::Judged(_) | Self::NotJudged | Self::JudgedLate => None,
        }
    }

    /// For people: what is wrong, and what to do.
    fn detail(self) -> String {
        match self {
            Self::BadToken => {
                "the bearer token is not known here, or there is more than one".into()
            }
            Self::NoToken(permission) => {
                let permission = permission.name();
                format!("to {permission} needs a bearer token that allows it")
            }
            Self::TokenForbids(permission) => {
                let permission = permission.name();
                format!("this bearer token does not allow to {permission} here")
            }
            Self::Forbidden(permission, None) => {
                format!("nobody is allowed to {} here", permission.name())
            }
            Self::Forbidden(permission, Some(stranger)) => format!(
                "to {} is allowed to clients on this machine only, and {}; others need tokens (--topics-token-file)",
                permission.name(),
                stranger.reason()
            ),
            Self::Judged(permission) => {
                format!(
                    "the application does not allow to {} here",
                    permission.name()
                )
            }
            Self::NotJudged => "the application failed to say whether this is allowed".into(),
            Self::JudgedLate => {
                "the application did not say in time whether this is allowed".into()
            }
        }
    }
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        let problem = Self::new(denial.code(), denial.detail());
        match denial.challenge() {
            Some(challenge) => problem.challenging(challenge),
            None => problem,
        }
    }
}

/// What a request may do; it lives as long as the request, or the WebSocket that it opened.
#[derive(Clone, Debug)]
pub struct Visitor {
    access: Arc<Access>,
    who: Who,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Everything is allowed.
    Local,
    /// The token of this place.
    Token(usize),
    Anybody(Stranger),
    /// Without a token, and a page of another origin.
    OtherSite,
}

impl Access {
    /// Finds out who sends a request.
    ///
    /// # Errors
    /// [`Denial::BadToken`].
    pub fn visitor(
        self: &Arc<Self>,
        head: &Parts,
        connection: &ConnectionInfo,
        arrival: Option<&Arrival>,
    ) -> Result<Visitor, Denial> {
        let who = match credentials::shown(&head.headers) {
            Err(credentials::Malformed) => return Err(Denial::BadToken),
            Ok(Some(shown)) => {
                let mut found = None;
                // Through all of them, whichever it is.
                for (place, token) in self.tokens.iter().enumerate() {
                    if token.digest.is(&shown) {
                        found = Some(place);
                    }
                }
                Who::Token(found.ok_or(Denial::BadToken)?)
            }
            Ok(None) => match local::check_local(head, connection, arrival) {
                Ok(()) if self.trusts_local => Who::Local,
                Ok(()) => Who::Anybody(Stranger::Address),
                Err(Stranger::OtherSite) => Who::OtherSite,
                Err(stranger) => match local::check_same_origin(head, connection, arrival) {
                    Ok(()) => Who::Anybody(stranger),
                    Err(_) => Who::OtherSite,
                },
            },
        };
        Ok(Visitor {
            access: self.clone(),
            who,
        })
    }
}

impl Visitor {
    /// May this be done with the topic?
    ///
    /// # Errors
    /// It may not.
    pub fn may(&self, permission: Permission, topic: &str) -> Result<(), Denial> {
        if self.has(|rights| rights.have(permission, topic)) {
            return Ok(());
        }
        Err(self.denial(permission))
    }

    /// May this be done with any topic at all? With which ones says [`Self::may`].
    ///
    /// # Errors
    /// There can be none.
    pub fn may_with_any(&self, permission: Permission) -> Result<(), Denial> {
        if self.has(|rights| !rights.of(permission).is_empty()) {
            return Ok(());
        }
        Err(self.denial(permission))
    }

    /// The name of the token that was shown.
    pub fn token(&self) -> Option<&str> {
        match self.who {
            Who::Token(place) => Some(&self.access.tokens[place].name),
            _ => None,
        }
    }

    /// It was made on this machine, and that counts.
    pub fn is_local(&self) -> bool {
        self.who == Who::Local
    }

    fn has(&self, allows: impl Fn(&Rights) -> bool) -> bool {
        let access = &self.access;
        match self.who {
            Who::Local => true,
            Who::Token(place) => allows(&access.tokens[place].rights) || allows(&access.anybody),
            Who::Anybody(_) => allows(&access.anybody),
            Who::OtherSite => false,
        }
    }

    fn denial(&self, permission: Permission) -> Denial {
        match self.who {
            Who::Token(_) => Denial::TokenForbids(permission),
            _ if !self.access.tokens.is_empty() => Denial::NoToken(permission),
            Who::Anybody(stranger) if self.access.trusts_local => {
                Denial::Forbidden(permission, Some(stranger))
            }
            Who::OtherSite => Denial::Forbidden(permission, Some(Stranger::OtherSite)),
            Who::Anybody(_) | Who::Local => Denial::Forbidden(permission, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, sync::Arc};

    use http::{
        HeaderName, HeaderValue,
        header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE},
        request::Parts,
    };

    use super::{
        Access, Code, Denial, Digest, Permission, Problem, Rights, Stranger, Token, Visitor,
    };
    use crate::routes::test_request;
    use crate::service::{Address, ConnectionInfo};

    fn rights(entries: &[(Permission, &str)]) -> Rights {
        entries
            .iter()
            .fold(Rights::default(), |rights, (permission, pattern)| {
                rights.with(*permission, pattern.parse().unwrap())
            })
    }

    fn token(name: &str, entries: &[(Permission, &str)]) -> Token {
        Token {
            name: name.to_owned(),
            digest: Digest::of(format!("secret-of-{name}").as_bytes()),
            rights: rights(entries),
        }
    }

    const LOCAL: (HeaderName, &str) = (HOST, "localhost");

    struct Asked {
        connection: Rc<ConnectionInfo>,
        head: Parts,
    }

    fn asked(is_near: bool, fields: &[(HeaderName, &str)]) -> Asked {
        let (connection, request) = test_request("/topics/a");
        let mut connection = (*connection).clone();
        if !is_near {
            connection.peer = Address::Inet("192.0.2.7:4711".parse().unwrap());
        }
        let mut head = request.head;
        for (name, value) in fields {
            head.headers
                .append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        Asked {
            connection: Rc::new(connection),
            head,
        }
    }

    fn visitor(access: &Arc<Access>, asked: &Asked) -> Result<Visitor, Denial> {
        access.visitor(&asked.head, &asked.connection, None)
    }

    fn may(
        access: &Arc<Access>,
        asked: &Asked,
        permission: Permission,
        topic: &str,
    ) -> Result<(), Denial> {
        visitor(access, asked)?.may(permission, topic)
    }

    #[test]
    fn nobody_may_do_anything_unless_something_allows_it() {
        let access = Arc::new(Access::default());
        for near in [true, false] {
            let asked = asked(near, &[LOCAL]);
            for permission in Permission::ALL {
                let denial = Denial::Forbidden(permission, None);
                assert_eq!(may(&access, &asked, permission, "a"), Err(denial));
                assert_eq!(
                    visitor(&access, &asked).unwrap().may_with_any(permission),
                    Err(denial)
                );
            }
        }
    }

    #[test]
    fn this_machine_may_do_everything_if_it_is_trusted() {
        let access = Arc::new(Access {
            trusts_local: true,
            ..Access::default()
        });
        for permission in Permission::ALL {
            assert_eq!(
                may(&access, &asked(true, &[LOCAL]), permission, "a/b"),
                Ok(())
            );
            for (near, fields, stranger) in [
                (false, &[LOCAL][..], Stranger::Address),
                (true, &[(HOST, "evil.example")], Stranger::Host),
                (
                    true,
                    &[LOCAL, (ORIGIN, "http://evil.example")],
                    Stranger::OtherSite,
                ),
                // Whoever came by another name may be a page that DNS leads here.
                (
                    true,
                    &[(HOST, "evil.example"), (ORIGIN, "http://evil.example")],
                    Stranger::Host,
                ),
            ] {
                assert_eq!(
                    may(&access, &asked(near, fields), permission, "a/b"),
                    Err(Denial::Forbidden(permission, Some(stranger))),
                    "{fields:?}"
                );
            }
        }
    }

    #[test]
    fn token_allows_what_it_says_and_what_anybody_may() {
        let access = Arc::new(Access {
            tokens: vec![
                token(
                    "viewer",
                    &[(Permission::Read, "camera/**"), (Permission::List, "**")],
                ),
                token("camera", &[(Permission::Publish, "camera/front")]),
            ],
            anybody: rights(&[(Permission::Read, "public/*")]),
            trusts_local: false,
        });
        let shows = |name: &str| {
            asked(
                false,
                &[(AUTHORIZATION, &format!("Bearer secret-of-{name}"))],
            )
        };
        let (viewer, camera, nobody) = (shows("viewer"), shows("camera"), asked(false, &[]));
        let forbids = |permission| Err(Denial::TokenForbids(permission));
        let no_token = |permission| Err(Denial::NoToken(permission));
        for (who, permission, topic, expected) in [
            (&viewer, Permission::Read, "camera/front", Ok(())),
            (&viewer, Permission::Read, "camera/front/depth", Ok(())),
            (
                &viewer,
                Permission::Read,
                "radar",
                forbids(Permission::Read),
            ),
            (
                &viewer,
                Permission::Publish,
                "camera/front",
                forbids(Permission::Publish),
            ),
            (&viewer, Permission::List, "radar", Ok(())),
            (&viewer, Permission::Read, "public/a", Ok(())),
            (&camera, Permission::Publish, "camera/front", Ok(())),
            (
                &camera,
                Permission::Publish,
                "camera/back",
                forbids(Permission::Publish),
            ),
            (
                &camera,
                Permission::Read,
                "camera/front",
                forbids(Permission::Read),
            ),
            (
                &camera,
                Permission::Call,
                "camera/front",
                forbids(Permission::Call),
            ),
            (&nobody, Permission::Read, "public/a", Ok(())),
            (
                &nobody,
                Permission::Read,
                "camera/front",
                no_token(Permission::Read),
            ),
            (
                &nobody,
                Permission::Publish,
                "public/a",
                no_token(Permission::Publish),
            ),
        ] {
            assert_eq!(
                may(&access, who, permission, topic),
                expected,
                "{permission:?} {topic}"
            );
        }
        assert_eq!(visitor(&access, &viewer).unwrap().token(), Some("viewer"));
        assert_eq!(visitor(&access, &nobody).unwrap().token(), None);
        let list = |who| {
            visitor(&access, who)
                .unwrap()
                .may_with_any(Permission::List)
        };
        assert_eq!(list(&viewer), Ok(()));
        assert_eq!(list(&camera), forbids(Permission::List));
        assert_eq!(list(&nobody), no_token(Permission::List));
    }

    #[test]
    fn wrong_token_is_refused_even_for_what_needs_none() {
        let access = Arc::new(Access {
            tokens: vec![token("viewer", &[])],
            anybody: rights(&[(Permission::Read, "**")]),
            trusts_local: true,
        });
        for fields in [
            &[LOCAL, (AUTHORIZATION, "Bearer secret-of-viewer2")][..],
            &[LOCAL, (AUTHORIZATION, "Bearer secret-of-viewe")],
            &[LOCAL, (AUTHORIZATION, "Bearer")],
            &[
                LOCAL,
                (AUTHORIZATION, "Bearer secret-of-viewer"),
                (AUTHORIZATION, "Bearer secret-of-viewer"),
            ],
        ] {
            assert_eq!(
                visitor(&access, &asked(true, fields)).err(),
                Some(Denial::BadToken),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn shown_token_counts_in_place_of_the_machine() {
        let access = Arc::new(Access {
            tokens: vec![token("viewer", &[(Permission::Read, "a")])],
            trusts_local: true,
            ..Access::default()
        });
        let shows = asked(true, &[LOCAL, (AUTHORIZATION, "Bearer secret-of-viewer")]);
        assert_eq!(may(&access, &shows, Permission::Read, "a"), Ok(()));
        assert_eq!(
            may(&access, &shows, Permission::Publish, "a"),
            Err(Denial::TokenForbids(Permission::Publish))
        );
        let visitor = visitor(&access, &asked(true, &[LOCAL])).unwrap();
        assert!(visitor.is_local());
    }

    #[test]
    fn page_of_another_origin_needs_a_token_also_for_what_anybody_may() {
        let access = Arc::new(Access {
            tokens: vec![token("viewer", &[(Permission::Publish, "a")])],
            anybody: rights(&[(Permission::Publish, "a")]),
            trusts_local: true,
        });
        let elsewhere = (HOST, "frames.example");
        let page = (ORIGIN, "http://evil.example");
        for (near, host) in [(true, LOCAL), (false, elsewhere.clone())] {
            let asked = asked(near, &[host, page.clone()]);
            assert_eq!(
                may(&access, &asked, Permission::Publish, "a"),
                Err(Denial::NoToken(Permission::Publish))
            );
        }
        let own = asked(
            false,
            &[elsewhere.clone(), (ORIGIN, "http://frames.example")],
        );
        assert_eq!(may(&access, &own, Permission::Publish, "a"), Ok(()));
        // No page has a token unless somebody gave it one.
        let shows = asked(
            false,
            &[elsewhere, page, (AUTHORIZATION, "Bearer secret-of-viewer")],
        );
        assert_eq!(may(&access, &shows, Permission::Publish, "a"), Ok(()));
    }

    #[test]
    fn each_denial_has_its_status_and_401_its_challenge() {
        let permission = Permission::Read;
        for (denial, code, challenge) in [
            (Denial::BadToken, Code::Unauthorized, Some("invalid_token")),
            (
                Denial::NoToken(permission),
                Code::Unauthorized,
                Some("realm"),
            ),
            (
                Denial::TokenForbids(permission),
                Code::Forbidden,
                Some("insufficient_scope"),
            ),
            (Denial::Forbidden(permission, None), Code::Forbidden, None),
            (Denial::Judged(permission), Code::Forbidden, None),
            (Denial::NotJudged, Code::Internal, None),
            (Denial::JudgedLate, Code::Unavailable, None),
        ] {
            let problem = Problem::from(denial);
            assert_eq!(problem.code, code);
            assert!(!problem.detail.is_empty());
            let response = problem.to_response();
            let shown = response.headers().get(WWW_AUTHENTICATE);
            assert_eq!(shown.is_some(), challenge.is_some(), "{denial:?}");
            if let (Some(shown), Some(word)) = (shown, challenge) {
                assert!(shown.to_str().unwrap().contains(word), "{denial:?}");
            }
        }
    }
}
