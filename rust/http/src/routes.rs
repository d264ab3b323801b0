//! The route table: which service answers which path.
//!
//! Native routes stand before the application, so a request to one of them never reaches Python. The table is small and fixed
//! when the server starts; it is searched in order, and a table without routes costs nothing.

use std::{cell::OnceCell, rc::Rc};

use crate::service::{ConnectionInfo, Handler, Request, ResponseFuture, Service};

/// Chooses a service by the path of the request.
pub struct Routes {
    routes: Vec<Route>,
    fallback: Rc<dyn Service>,
}

#[derive(Clone)]
struct Route {
    path: String,
    is_prefix: bool,
    service: Rc<dyn Service>,
}

impl Route {
    fn fits(&self, path: &str) -> bool {
        match path.strip_prefix(self.path.as_str()) {
            Some("") => true,
            // A prefix ends at a slash: `/live` is above `/live/a` and not above `/lively`.
            Some(rest) => self.is_prefix && (self.path.ends_with('/') || rest.starts_with('/')),
            None => false,
        }
    }
}

impl Routes {
    /// A table without routes: everything goes to `fallback`.
    pub fn new(fallback: Rc<dyn Service>) -> Self {
        Self {
            routes: Vec::new(),
            fallback,
        }
    }

    /// Requests whose path is exactly `path` go to `service`. Earlier routes win.
    #[must_use]
    pub fn exact(self, path: impl Into<String>, service: Rc<dyn Service>) -> Self {
        self.with(path.into(), false, service)
    }

    /// Requests whose path is `path` or lies below it go to `service`. Earlier routes win.
    #[must_use]
    pub fn prefix(self, path: impl Into<String>, service: Rc<dyn Service>) -> Self {
        self.with(path.into(), true, service)
    }

    fn with(mut self, path: String, is_prefix: bool, service: Rc<dyn Service>) -> Self {
        self.routes.push(Route {
            path,
            is_prefix,
            service,
        });
        self
    }
}

impl Service for Routes {
    fn open(&self, connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        let fallback = self.fallback.open(connection);
        if self.routes.is_empty() {
            return fallback;
        }
        let routes = self
            .routes
            .iter()
            .map(|route| (route.clone(), OnceCell::new()))
            .collect();
        Rc::new(RoutesHandler {
            connection: connection.clone(),
            routes,
            fallback,
        })
    }
}

struct RoutesHandler {
    connection: Rc<ConnectionInfo>,
    /// A service is opened by the first request of the connection that it answers.
    routes: Vec<(Route, OnceCell<Rc<dyn Handler>>)>,
    fallback: Rc<dyn Handler>,
}

impl Handler for RoutesHandler {
    fn call(&self, request: Request) -> ResponseFuture {
        let path = request.head.uri.path();
        for (route, handler) in &self.routes {
            if route.fits(path) {
                return handler
                    .get_or_init(|| route.service.open(&self.connection))
                    .call(request);
            }
        }
        self.fallback.call(request)
    }

    fn rest(&self) {
        let open = self.routes.iter().filter_map(|(_, handler)| handler.get());
        open.chain([&self.fallback])
            .for_each(|handler| handler.rest());
    }
}

/// A GET as services get it, and its connection, for tests.
#[cfg(test)]
pub(crate) fn test_request(target: &str) -> (Rc<ConnectionInfo>, Request) {
    use crate::body::Body;
    use crate::record::Record;
    use crate::service::{Address, Entry, Hints, Permit};

    let address = Address::Inet(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
    let info = Rc::new(ConnectionInfo {
        number: 1,
        peer: address.clone(),
        local: address,
        entry: Entry::Plain,
        is_proxied: false,
        tls: None,
    });
    let (head, ()) = http::Request::builder()
        .uri(target)
        .body(())
        .expect("a target")
        .into_parts();
    let request = Request {
        head,
        body: Body::empty(),
        hints: Hints::default(),
        has_upgrade_field: false,
        upgrade: None,
        arrival: None,
        record: Record::default(),
        permit: Permit::default(),
    };
    (info, request)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::{Routes, test_request};
    use crate::body::ResponseBody;
    use crate::service::{Response, ResponseFuture, Service, service_fn};

    fn named(name: &'static str) -> Rc<dyn Service> {
        service_fn(move |_| Response::new(ResponseBody::from(name)).into())
    }

    fn answer(service: &dyn Service, path: &str) -> String {
        let (info, request) = test_request(path);
        match service.open(&info).call(request) {
            ResponseFuture::Ready(Some(response)) => match response.into_body() {
                ResponseBody::Full(name) => String::from_utf8(name.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            },
            _ => panic!("the response is known at once"),
        }
    }

    #[test]
    fn first_fitting_route_answers() {
        let routes = Routes::new(named("app"))
            .exact("/health", named("health"))
            .prefix("/live", named("live"))
            .prefix("/static/", named("static"));
        for (path, name) in [
            ("/", "app"),
            ("/health", "health"),
            ("/health?x=1", "health"),
            ("/health/", "app"),
            ("/healthy", "app"),
            ("/live", "live"),
            ("/live/a/b", "live"),
            ("/lively", "app"),
            ("/static/a.js", "static"),
            ("/static", "app"),
        ] {
            assert_eq!(answer(&routes, path), name, "{path}");
        }
    }

    #[test]
    fn table_without_routes_is_its_fallback() {
        assert_eq!(answer(&Routes::new(named("app")), "/any"), "app");
    }
}
