//! What the routes ask: the table of tokens, which may be replaced while the server runs, or a judge.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
};

use http::{HeaderMap, Method, Uri, Version, request::Parts};

use super::{Access, Denial, Permission, Visitor, local};
use crate::edge::{Arrival, Client};
use crate::service::{Address, ConnectionInfo};

/// Who decides; shared by all threads that serve topics.
pub enum Guard {
    /// A table, which may be replaced.
    Table(RwLock<Arc<Access>>),
    /// Somebody else.
    Judge(Arc<dyn Judge>),
}

/// Decides in place of the table, for each permission and topic anew.
pub trait Judge: Send + Sync + 'static {
    /// Is it allowed?
    fn judge(&self, question: Question) -> JudgeFuture;
}

/// What a judge answers. Dropped when the client goes away first.
pub type JudgeFuture = Pin<Box<dyn Future<Output = Result<bool, Unjudged>>>>;

/// Why there is no judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unjudged {
    /// The judge has failed.
    Failed,
    /// It did not come in time.
    Late,
}

/// What a judge is asked: the request, and what it is for.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is wanted.
    pub permission: Permission,
    /// Of which topic; `None`: may it be asked of any at all?
    pub topic: Option<String>,
    /// Method of the request.
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    /// Version of HTTP.
    pub version: Version,
    /// All fields.
    pub headers: HeaderMap,
    /// The other end; what trusted proxies say about it is in `client`.
    pub peer: Address,
    /// Whom proxies name.
    pub client: Client,
    /// Our end.
    pub local: Address,
    /// The client has spoken TLS.
    pub is_secure: bool,
    /// It was made on this machine, and not by a page of another origin ([`local::check_local`]).
    pub is_local: bool,
}

/// One request, or the WebSocket that it opened, in front of its guard.
pub struct Visit(Kind);

enum Kind {
    Known(Visitor),
    Asking(Arc<dyn Judge>, Box<Question>),
}

impl Guard {
    /// A table.
    pub fn table(access: Access) -> Self {
        Self::Table(RwLock::new(Arc::new(access)))
    }

    /// Another table, for requests from now on. A judge stays.
    pub fn replace(&self, access: Access) {
        if let Self::Table(table) = self {
            *table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
        }
    }

    /// A request comes.
    ///
    /// # Errors
    /// [`Denial::BadToken`].
    pub fn visit(
        &self,
        head: &Parts,
        connection: &ConnectionInfo,
        arrival: Option<&Arrival>,
    ) -> Result<Visit, Denial> {
        match self {
            Self::Table(table) => {
                let access = table.read().unwrap_or_else(PoisonError::into_inner).clone();
                let visitor = access.visitor(head, connection, arrival)?;
                Ok(Visit(Kind::Known(visitor)))
            }
            Self::Judge(judge) => {
                let origin = arrival.map(|arrival| &arrival.origin);
                let question = Question {
                    permission: Permission::List,
                    topic: None,
                    method: head.method.clone(),
                    target: head.uri.clone(),
                    version: head.version,
                    headers: head.headers.clone(),
                    peer: connection.peer.clone(),
                    client: origin.map_or(Client::Peer, |origin| origin.client),
                    local: connection.local.clone(),
                    is_secure: origin
                        .and_then(|origin| origin.is_secure)
                        .unwrap_or(connection.tls.is_some()),
                    is_local: local::check_local(head, connection, arrival).is_ok(),
                };
                Ok(Visit(Kind::Asking(judge.clone(), Box::new(question))))
            }
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => table.fmt(f),
            Self::Judge(_) => f.write_str("Judge"),
        }
    }
}

impl Visit {
    /// May this be done with the topic? With any at all, if it is `None`.
    ///
    /// # Errors
    /// It may not.
    ///
    /// # Cancel safety
    /// Dropping it drops the question.
    pub async fn may(&self, permission: Permission, topic: Option<&str>) -> Result<(), Denial> {
        match (&self.0, topic) {
            (Kind::Known(visitor), Some(topic)) => visitor.may(permission, topic),
            (Kind::Known(visitor), None) => visitor.may_with_any(permission),
            (Kind::Asking(judge, question), _) => {
                let question = Question {
                    permission,
                    topic: topic.map(str::to_owned),
                    ..(**question).clone()
                };
                match judge.judge(question).await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(Denial::Judged(permission)),
                    Err(Unjudged::Failed) => Err(Denial::NotJudged),
                    Err(Unjudged::Late) => Err(Denial::JudgedLate),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{HeaderValue, header::HOST};

    use super::{Guard, Judge, JudgeFuture, Question, Unjudged};
    use crate::routes::test_request;
    use crate::topics::access::{Access, Denial, Permission, Rights};

    #[tokio::test]
    async fn table_is_replaced_for_the_next_request() {
        let (connection, request) = test_request("/topics/a");
        let guard = Guard::table(Access::default());
        let visit = || guard.visit(&request.head, &connection, None).unwrap();
        let before = visit();
        assert!(before.may(Permission::Read, Some("a")).await.is_err());
        guard.replace(Access {
            anybody: Rights::default().with(Permission::Read, "a".parse().unwrap()),
            ..Access::default()
        });
        assert!(before.may(Permission::Read, Some("a")).await.is_err());
        assert_eq!(visit().may(Permission::Read, Some("a")).await, Ok(()));
        assert_eq!(visit().may(Permission::Read, None).await, Ok(()));
        assert!(visit().may(Permission::List, None).await.is_err());
    }

    #[derive(Default)]
    struct Notes(Mutex<Vec<Question>>);

    impl Judge for Notes {
        fn judge(&self, question: Question) -> JudgeFuture {
            let answer = match question.topic.as_deref() {
                Some("yes") => Ok(true),
                Some("no") | None => Ok(false),
                Some("late") => Err(Unjudged::Late),
                Some(_) => Err(Unjudged::Failed),
            };
            self.0.lock().unwrap().push(question);
            Box::pin(async move { answer })
        }
    }

    #[tokio::test]
    async fn judge_is_asked_for_each_permission_and_topic() {
        let (connection, mut request) = test_request("/topics/yes?view=latest");
        let headers = &mut request.head.headers;
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        let notes = Arc::new(Notes::default());
        let guard = Guard::Judge(notes.clone());
        let visit = guard.visit(&request.head, &connection, None).unwrap();
        let read = Permission::Read;
        assert_eq!(visit.may(read, Some("yes")).await, Ok(()));
        assert_eq!(visit.may(read, Some("no")).await, Err(Denial::Judged(read)));
        assert_eq!(visit.may(read, Some("?")).await, Err(Denial::NotJudged));
        assert_eq!(visit.may(read, Some("late")).await, Err(Denial::JudgedLate));
        let list = Permission::List;
        assert_eq!(visit.may(list, None).await, Err(Denial::Judged(list)));
        let asked = notes.0.lock().unwrap();
        assert_eq!(asked.len(), 5);
        assert_eq!(asked[0].permission, read);
        assert_eq!(asked[0].target.path(), "/topics/yes");
        assert!(asked[0].is_local);
        assert_eq!(asked[4].topic, None);
    }
}
