//! Which route a request belongs to.
//!
//! Paths of routes have a *shape*: static segments, parameters, and perhaps everything that is left. Patterns of one shape differ
//! by the kinds of their parameters (`/items/{id:int}`, `/items/{name}`), and by the methods that they answer. `matchit` finds the
//! best shape in a radix trie. It does not know kinds and methods, so that its answer may not be the one; then all shapes
//! are tried in the same order: static before parameter before everything that is left, segment by segment.
//!
//! | of two patterns that fit | goes first |
//! |---|---|
//! | of two shapes | the one that is more static, from the left |
//! | of one shape | the one whose first parameter that differs is of the narrower kind; any text is the widest |

use std::{
    borrow::Cow,
    cmp::Ordering,
    fmt::{self, Write},
};

use http::Method;

use crate::parameter::Kind;
use crate::pattern::{Pattern, Segment};
use crate::text::decode;

/// What happens to a path that would be a route's if it had a slash more or less at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrailingSlash {
    /// It is another path, of no route.
    #[default]
    Strict,
    /// The client is sent there (308: the method stays).
    Redirect,
}

/// Routes by path and method, each with a `T`.
pub struct Router<T> {
    /// The most specific first.
    shapes: Vec<Shape<T>>,
    /// Positions of shapes. Two shapes that `matchit` cannot have in one trie are in two.
    tries: Vec<matchit::Router<usize>>,
    trailing_slash: TrailingSlash,
}

struct Shape<T> {
    segments: Vec<Segment>,
    /// The narrowest first.
    alternatives: Vec<Alternative<T>>,
}

/// Routes whose parameters are of the same kinds.
struct Alternative<T> {
    kinds: Vec<Kind>,
    routes: Vec<Route<T>>,
}

struct Route<T> {
    method: Method,
    pattern: Pattern,
    target: T,
}

/// What a request is for.
#[derive(Debug, PartialEq)]
pub enum Found<'r, 'p, T> {
    /// A route.
    Route {
        /// What was added with it.
        target: &'r T,
        /// The pattern; its parameters are in the order of `values`.
        pattern: &'r Pattern,
        /// Decoded, and of the kinds of the pattern.
        values: Vec<Cow<'p, str>>,
    },
    /// Another path, to be put into `Location`; the query is the caller's.
    Redirect(String),
    /// The path is a route's, but the method is not: 405. The text is that of `Allow`.
    MethodNotAllowed(String),
    /// `OPTIONS`, which no route answers itself. The text is that of `Allow`.
    Options(String),
    /// No route: 404.
    Unknown,
}

/// A route cannot be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError(String);

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RouteError {}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self::new(TrailingSlash::default())
    }
}

impl<T> fmt::Debug for Router<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.routes().map(|(method, pattern, _)| (method, pattern));
        f.debug_map().entries(routes).finish()
    }
}

impl<T> Router<T> {
    /// No routes.
    pub fn new(trailing_slash: TrailingSlash) -> Self {
        Self {
            shapes: Vec::new(),
            tries: Vec::new(),
            trailing_slash,
        }
    }

    /// Adds a route. `GET` answers `HEAD` too, unless another route does.
    ///
    /// # Errors
    /// Another route answers the method at the same path.
    pub fn add(&mut self, method: Method, pattern: Pattern, target: T) -> Result<(), RouteError> {
        let position = match self
            .shapes
            .binary_search_by(|shape| specificity(&shape.segments, pattern.segments()))
        {
            Ok(position) => position,
            Err(position) => {
                let shape = Shape {
                    segments: pattern.segments().to_vec(),
                    alternatives: Vec::new(),
                };
                self.shapes.insert(position, shape);
                self.rebuild();
                position
            }
        };
        let kinds: Vec<_> = pattern
            .parameters()
            .iter()
            .map(|parameter| parameter.kind.clone())
            .collect();
        let alternatives = &mut self.shapes[position].alternatives;
        let known = alternatives.iter().position(|other| other.kinds == kinds);
        let position = known.unwrap_or_else(|| {
            let ranks = |kinds: &[Kind]| kinds.iter().map(width).collect::<Vec<_>>();
            let position =
                alternatives.partition_point(|other| ranks(&other.kinds) <= ranks(&kinds));
            let alternative = Alternative {
                kinds,
                routes: Vec::new(),
            };
            alternatives.insert(position, alternative);
            position
        });
        let routes = &mut alternatives[position].routes;
        if let Some(other) = routes.iter().find(|route| route.method == method) {
            return Err(RouteError(format!(
                "{method} {} is a route already: {}",
                pattern.text(),
                other.pattern.text()
            )));
        }
        routes.push(Route {
            method,
            pattern,
            target,
        });
        Ok(())
    }

    /// Positions of shapes changed.
    fn rebuild(&mut self) {
        self.tries.clear();
        for (position, shape) in self.shapes.iter().enumerate() {
            let text = shape.trie_text();
            let taken = self
                .tries
                .iter_mut()
                .any(|trie| trie.insert(text.clone(), position).is_ok());
            if !taken {
                let mut trie = matchit::Router::new();
                trie.insert(text, position)
                    .expect("a trie that is empty takes any shape");
                self.tries.push(trie);
            }
        }
    }

    /// All routes, the most specific first.
    pub fn routes(&self) -> impl Iterator<Item = (&Method, &Pattern, &T)> {
        self.shapes
            .iter()
            .flat_map(|shape| &shape.alternatives)
            .flat_map(|alternative| &alternative.routes)
            .map(|route| (&route.method, &route.pattern, &route.target))
    }

    /// Finds out what a request is for. `path` is as [`crate::text::canonical_path`] writes it.
    pub fn find<'p>(&self, method: &Method, path: &'p str) -> Found<'_, 'p, T> {
        if let Some(found) = self.best(method, path) {
            return found;
        }
        match self.try_all(method, path) {
            Found::Unknown if self.trailing_slash == TrailingSlash::Redirect => self
                .other_slash(path)
                .map_or(Found::Unknown, Found::Redirect),
            found => found,
        }
    }

    /// By the tries.
    fn best<'p>(&self, method: &Method, path: &'p str) -> Option<Found<'_, 'p, T>> {
        let position = self
            .tries
            .iter()
            .filter_map(|trie| trie.at(path).ok())
            .map(|found| *found.value)
            .min()?;
        self.shapes[position].find(method, path)
    }

    /// By all shapes; also what may be answered instead of a route.
    fn try_all<'p>(&self, method: &Method, path: &'p str) -> Found<'_, 'p, T> {
        let mut methods = Vec::new();
        for shape in &self.shapes {
            if let Some(found) = shape.find(method, path) {
                return found;
            }
            methods.extend(shape.methods(path));
        }
        if methods.is_empty() {
            return Found::Unknown;
        }
        let allow = allow(methods);
        if method == Method::OPTIONS {
            Found::Options(allow)
        } else {
            Found::MethodNotAllowed(allow)
        }
    }

    fn other_slash(&self, path: &str) -> Option<String> {
        let other = match path.strip_suffix('/') {
            Some(shorter) => shorter.to_owned(),
            None => format!("{path}/"),
        };
        // `//host/` would be another host's (RFC 3986, section 4.2).
        if other.is_empty() || other.starts_with("//") {
            return None;
        }
        let is_route = self
            .shapes
            .iter()
            .any(|shape| shape.methods(&other).next().is_some());
        is_route.then_some(other)
    }
}

impl<T> Shape<T> {
    /// The shape as `matchit` writes it.
    fn trie_text(&self) -> String {
        const ROOM: &str = "a string takes everything";
        let mut text = String::new();
        for (position, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Static(segment) => {
                    text.push('/');
                    text.push_str(segment);
                }
                // Names of parameters are the patterns' own; in a trie they have to be the same.
                Segment::Parameter => write!(text, "/{{p{position}}}").expect(ROOM),
                Segment::Rest => write!(text, "/{{*p{position}}}").expect(ROOM),
            }
        }
        text
    }

    fn find<'p>(&self, method: &Method, path: &'p str) -> Option<Found<'_, 'p, T>> {
        let values = self.values(path)?;
        let fits = |alternative: &&Alternative<T>| alternative.fits(&values);
        let mut fitting = self.alternatives.iter().filter(fits);
        let route = fitting.find_map(|alternative| alternative.route(method))?;
        Some(Found::Route {
            target: &route.target,
            pattern: &route.pattern,
            values,
        })
    }

    /// What is answered at a path.
    fn methods(&self, path: &str) -> impl Iterator<Item = Method> {
        let values = self.values(path);
        self.alternatives
            .iter()
            .filter(move |alternative| {
                values
                    .as_ref()
                    .is_some_and(|values| alternative.fits(values))
            })
            .flat_map(|alternative| &alternative.routes)
            .map(|route| route.method.clone())
    }

    /// The texts of the parameters, when the path has this shape and all of them are text.
    fn values<'p>(&self, path: &'p str) -> Option<Vec<Cow<'p, str>>> {
        let mut values = Vec::new();
        let mut rest = path.strip_prefix('/');
        for segment in &self.segments {
            let text = rest?;
            if *segment == Segment::Rest {
                if text.is_empty() {
                    return None;
                }
                values.push(decode(text, false)?);
                rest = None;
                continue;
            }
            let (piece, more) = match text.split_once('/') {
                Some((piece, more)) => (piece, Some(more)),
                None => (text, None),
            };
            rest = more;
            match segment {
                Segment::Static(known) if known == piece => {}
                Segment::Parameter if !piece.is_empty() => values.push(decode(piece, false)?),
                _ => return None,
            }
        }
        rest.is_none().then_some(values)
    }
}

impl<T> Alternative<T> {
    fn fits(&self, values: &[Cow<'_, str>]) -> bool {
        let mut pairs = self.kinds.iter().zip(values);
        pairs.all(|(kind, value)| kind.parse(value).is_ok())
    }

    fn route(&self, method: &Method) -> Option<&Route<T>> {
        let of = |wanted: &Method| self.routes.iter().find(|route| route.method == *wanted);
        of(method).or_else(|| (*method == Method::HEAD).then(|| of(&Method::GET))?)
    }
}

/// The more specific is the smaller.
fn specificity(left: &[Segment], right: &[Segment]) -> Ordering {
    let rank = |segment: &Segment| match segment {
        Segment::Static(_) => 0,
        Segment::Parameter => 1,
        Segment::Rest => 2,
    };
    let mut pairs = left.iter().zip(right);
    pairs
        .find_map(|(left, right)| {
            let order = rank(left)
                .cmp(&rank(right))
                .then_with(|| match (left, right) {
                    (Segment::Static(left), Segment::Static(right)) => left.cmp(right),
                    _ => Ordering::Equal,
                });
            Some(order).filter(|order| order.is_ne())
        })
        .unwrap_or_else(|| left.len().cmp(&right.len()))
}

/// How many texts are of the kind, roughly.
fn width(kind: &Kind) -> u8 {
    match kind {
        Kind::Uuid => 0,
        Kind::Date => 1,
        Kind::Time => 2,
        Kind::DateTime => 3,
        Kind::Bool => 4,
        Kind::Int => 5,
        Kind::Float => 6,
        Kind::Decimal => 7,
        Kind::Choice(_) => 8,
        Kind::Str => 9,
    }
}

/// The field `Allow` (RFC 9110, section 10.2.1): what the routes answer, and what is answered for them.
fn allow(mut methods: Vec<Method>) -> String {
    if methods.contains(&Method::GET) {
        methods.push(Method::HEAD);
    }
    methods.push(Method::OPTIONS);
    methods.sort_unstable_by(|left, right| left.as_str().cmp(right.as_str()));
    methods.dedup();
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Found, Router, TrailingSlash};
    use crate::fuzz::Random;
    use crate::pattern::Pattern;

    fn router(routes: &[(Method, &'static str)]) -> Router<&'static str> {
        let mut router = Router::new(TrailingSlash::Redirect);
        for (method, path) in routes {
            let pattern = Pattern::parse(path).unwrap();
            router.add(method.clone(), pattern, *path).unwrap();
        }
        router
    }

    #[track_caller]
    fn is_route(router: &Router<&str>, method: &Method, path: &str, wanted: &str, texts: &[&str]) {
        match router.find(method, path) {
            Found::Route { target, values, .. } => {
                assert_eq!(
                    (*target, &values[..]),
                    (
                        wanted,
                        &texts.iter().map(|text| (*text).into()).collect::<Vec<_>>()[..]
                    ),
                    "{path}"
                );
            }
            found => panic!("{path} is {found:?}"),
        }
    }

    const GET: Method = Method::GET;

    #[test]
    fn the_most_specific_route_answers() {
        let router = router(&[
            (GET, "/"),
            (GET, "/items/{name}"),
            (GET, "/items/{id:int}"),
            (GET, "/items/{id:uuid}"),
            (GET, "/items/new"),
            (GET, "/items/{rest:path}"),
            (GET, "/{a}/new/x"),
            (GET, "/files/"),
        ]);
        let get = |path, wanted, texts: &[&str]| is_route(&router, &GET, path, wanted, texts);
        get("/", "/", &[]);
        get("/items/7", "/items/{id:int}", &["7"]);
        get("/items/7a", "/items/{name}", &["7a"]);
        get("/items/new", "/items/new", &[]);
        get("/items/a%2Fb", "/items/{name}", &["a/b"]);
        get("/items/a/b", "/items/{rest:path}", &["a/b"]);
        get("/items/new/x", "/items/{rest:path}", &["new/x"]);
        get("/other/new/x", "/{a}/new/x", &["other"]);
        let uuid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        get(&format!("/items/{uuid}"), "/items/{id:uuid}", &[uuid]);
        assert_eq!(router.find(&GET, "/other"), Found::Unknown);
        assert_eq!(router.find(&GET, "/items"), Found::Unknown);
        assert_eq!(router.find(&GET, "/items/"), Found::Unknown);
        assert_eq!(
            router.find(&GET, "/items//x"),
            router.find(&GET, "/items//x")
        );
        // Text that is no UTF-8 names nothing.
        assert_eq!(router.find(&GET, "/items/%FF"), Found::Unknown);
    }

    #[test]
    fn kinds_that_do_not_fit_leave_the_path_to_others() {
        let router = router(&[
            (GET, "/a/{id:int}"),
            (GET, "/{x}/{y}"),
            (Method::POST, "/a/b"),
        ]);
        is_route(&router, &GET, "/a/1", "/a/{id:int}", &["1"]);
        is_route(&router, &GET, "/a/b", "/{x}/{y}", &["a", "b"]);
        is_route(&router, &Method::POST, "/a/b", "/a/b", &[]);
    }

    #[test]
    fn methods_that_no_route_has_are_told() {
        let router = router(&[
            (GET, "/a/{x}"),
            (Method::PUT, "/a/{y}"),
            (Method::DELETE, "/a/{y:int}"),
            (Method::HEAD, "/b"),
            (GET, "/b"),
            (Method::OPTIONS, "/c"),
        ]);
        is_route(&router, &Method::HEAD, "/a/1", "/a/{x}", &["1"]);
        is_route(&router, &Method::OPTIONS, "/c", "/c", &[]);
        let refused = |method, path| match router.find(&method, path) {
            Found::MethodNotAllowed(allow) => allow,
            found => panic!("{found:?}"),
        };
        assert_eq!(refused(Method::POST, "/a/x"), "GET, HEAD, OPTIONS, PUT");
        assert_eq!(
            refused(Method::POST, "/a/1"),
            "DELETE, GET, HEAD, OPTIONS, PUT"
        );
        assert_eq!(refused(Method::DELETE, "/a/x"), "GET, HEAD, OPTIONS, PUT");
        assert_eq!(refused(GET, "/c"), "OPTIONS");
        assert_eq!(
            router.find(&Method::OPTIONS, "/b"),
            Found::Options("GET, HEAD, OPTIONS".into())
        );
        assert_eq!(router.find(&Method::OPTIONS, "/d"), Found::Unknown);
    }

    #[test]
    fn slashes_at_the_end_lead_to_the_route_and_nowhere_else() {
        let mut router = router(&[
            (GET, "/a"),
            (GET, "/b/"),
            (GET, "/{x}/c"),
            (GET, "/{rest:path}"),
        ]);
        let to = |router: &Router<_>, path: &str| match router.find(&GET, path) {
            Found::Redirect(other) => Some(other),
            _ => None,
        };
        // Everything is a path of the last route.
        assert_eq!(to(&router, "/a/"), None);
        router = self::router(&[
            (GET, "/a"),
            (GET, "/b/"),
            (GET, "/{x}/c"),
            (GET, "/"),
            (GET, "//e/f"),
        ]);
        assert_eq!(to(&router, "/a/").as_deref(), Some("/a"));
        assert_eq!(to(&router, "/b").as_deref(), Some("/b/"));
        assert_eq!(to(&router, "/x/c/").as_deref(), Some("/x/c"));
        assert_eq!(to(&router, "/x"), None);
        // Another host would be asked.
        assert_eq!(to(&router, "//e/f/"), None);
        router.trailing_slash = TrailingSlash::Strict;
        assert_eq!(router.find(&GET, "/a/"), Found::Unknown);
    }

    #[test]
    fn one_route_per_method_and_path() {
        let mut router = router(&[(GET, "/a/{x}"), (GET, "/a/{x:int}")]);
        let again = Pattern::parse("/a/{y}").unwrap();
        let said = router.add(GET, again.clone(), "").unwrap_err().to_string();
        assert_eq!(said, "GET /a/{y} is a route already: /a/{x}");
        router.add(Method::POST, again, "").unwrap();
    }

    /// The tries and the plain search are of one mind, whatever the routes are.
    #[test]
    fn tries_find_what_a_search_of_all_finds() {
        let mut random = Random::new(11);
        let pieces = ["a", "b", "ab", "{x}", "{y}", "", "{z:int}", "1"];
        for _ in 0..2000 {
            let mut router = Router::default();
            for number in 0..=random.below(8) {
                let mut path = String::new();
                let mut names = Vec::new();
                for _ in 0..=random.below(3) {
                    let piece = pieces[random.below(pieces.len())];
                    path.push('/');
                    path.push_str(if names.contains(&piece) { "b" } else { piece });
                    names.push(piece);
                }
                if random.below(4) == 0 {
                    path.push_str("/{rest:path}");
                }
                // Two of one path are refused; the first stays.
                let _ = router.add(GET, Pattern::parse(&path).unwrap(), number);
            }
            for _ in 0..40 {
                let mut path = String::new();
                for _ in 0..=random.below(4) {
                    path.push('/');
                    path.push_str(["a", "b", "ab", "1", "", "c"][random.below(6)]);
                }
                let all = router.try_all(&GET, &path);
                if let Some(best) = router.best(&GET, &path) {
                    assert_eq!(best, all, "{path} of {router:?}");
                }
                assert_eq!(router.find(&GET, &path), all);
            }
        }
    }
}
