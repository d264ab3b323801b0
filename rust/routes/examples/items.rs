//! Routes and validation in Rust alone: `cargo run -p framegate-routes --example items -- 127.0.0.1:8000`
//!
//! ```text
//! curl http://127.0.0.1:8000/items/7
//! curl -d '{"name": "lamp", "price": 12.5}' http://127.0.0.1:8000/items
//! curl -d '{"price": -1}' http://127.0.0.1:8000/items        # 422, with everything that is wrong
//! ```

use std::{error::Error, net::TcpListener, rc::Rc};

use bytes::Bytes;
use framegate_http::{
    Config, Server,
    body::ResponseBody,
    service::{Request, Response, ResponseFuture, Service, service_fn},
};
use framegate_routes::{
    Fault, Found, Problem, Router, Schema, TrailingSlash, json, pattern::Pattern, problem, text,
};
use http::{HeaderValue, Method, StatusCode, header};

const ITEM: &str = r#"{
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 40},
        "price": {"type": "number", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 10}
    },
    "required": ["name", "price"],
    "additionalProperties": false
}"#;

#[derive(Clone, Copy)]
enum Route {
    Read,
    Create,
}

struct Shop {
    router: Router<Route>,
    item: Schema,
}

impl Shop {
    fn new() -> Result<Self, Box<dyn Error>> {
        let mut router = Router::new(TrailingSlash::Redirect);
        router.add(Method::GET, Pattern::parse("/items/{id:int}")?, Route::Read)?;
        router.add(Method::POST, Pattern::parse("/items")?, Route::Create)?;
        Ok(Self {
            router,
            item: Schema::compile(ITEM)?,
        })
    }

    fn answer(self: &Rc<Self>, mut request: Request) -> ResponseFuture {
        let Some(path) = text::canonical_path(request.head.uri.path()) else {
            return refused(&Problem::new(StatusCode::NOT_FOUND)).into();
        };
        match self.router.find(&request.head.method, &path) {
            Found::Route {
                target: Route::Read,
                values,
                ..
            } => {
                let mut body = br#"{"id":"#.to_vec();
                body.extend_from_slice(values[0].as_bytes());
                body.push(b'}');
                told(StatusCode::OK, "application/json", body).into()
            }
            Found::Route {
                target: Route::Create,
                ..
            } => {
                let shop = self.clone();
                ResponseFuture::later(async move {
                    let mut body = Vec::new();
                    while let Some(piece) = request.body.data().await {
                        match piece {
                            Ok(piece) => body.extend_from_slice(&piece),
                            Err(_) => return refused(&Problem::new(StatusCode::BAD_REQUEST)),
                        }
                    }
                    match shop.check(&body) {
                        Ok(()) => told(StatusCode::CREATED, "application/json", body),
                        Err(problem) => refused(&problem),
                    }
                })
            }
            Found::Redirect(place) => {
                let mut response = told(StatusCode::PERMANENT_REDIRECT, "text/plain", Vec::new());
                set(&mut response, header::LOCATION, place);
                response.into()
            }
            Found::MethodNotAllowed(allow) => {
                let mut response = refused(&Problem::new(StatusCode::METHOD_NOT_ALLOWED));
                set(&mut response, header::ALLOW, allow);
                response.into()
            }
            Found::Options(allow) => {
                let mut response = Response::new(ResponseBody::Empty);
                *response.status_mut() = StatusCode::NO_CONTENT;
                set(&mut response, header::ALLOW, allow);
                response.into()
            }
            Found::Unknown => refused(&Problem::new(StatusCode::NOT_FOUND)).into(),
        }
    }

    fn check(&self, body: &[u8]) -> Result<(), Problem> {
        let value = json::read(body, json::Limits::default())
            .map_err(|error| Problem::of_faults(vec![Fault::from(error)]))?;
        self.item.check(&value).map_err(Problem::of_faults)
    }
}

fn set(response: &mut Response, name: header::HeaderName, value: String) {
    let value = HeaderValue::try_from(value).expect("made of a canonical path, or of methods");
    response.headers_mut().insert(name, value);
}

fn told(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(ResponseBody::from(Bytes::from(body)));
    *response.status_mut() = status;
    let value = HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

fn refused(problem: &Problem) -> Response {
    told(problem.status, problem::MEDIA_TYPE, problem.to_json())
}

/// What answers; the tests serve it too.
pub(crate) fn service() -> Result<Rc<dyn Service>, Box<dyn Error>> {
    let shop = Rc::new(Shop::new()?);
    Ok(service_fn(move |request| shop.answer(request)))
}

#[allow(dead_code, reason = "the tests have a main of their own")]
fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8000"))?;
    println!("http://{}/items/7", listener.local_addr()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let server = Server::new(service()?, Rc::new(Config::default()), |task| {
            tokio::task::spawn_local(task);
        });
        server.listen(listener)?;
        std::future::pending().await
    })
}
