//! The JSON routes of the limit: what `apps/native_app.py` answers, by serde and the crate `jsonschema`.

use std::sync::LazyLock;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use jsonschema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Reply, plain_status};

/// What msgspec and pydantic make of the class `Order` of the apps, but for titles and defaults.
static ORDER: LazyLock<Validator> = LazyLock::new(|| {
    let schema = json!({
        "type": "object",
        "properties": {
            "id": {"type": "integer", "minimum": 1},
            "customer": {"type": "string", "minLength": 1, "maxLength": 80},
            "email": {"type": "string", "maxLength": 120},
            "country": {"enum": ["DE", "FR", "GB", "US"]},
            "sku": {"type": "string", "maxLength": 40},
            "quantity": {"type": "integer", "minimum": 1, "maximum": 1000},
            "price": {"type": "number", "minimum": 0},
            "express": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 10},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": [
            "id", "customer", "email", "country", "sku", "quantity", "price", "express", "tags", "note",
        ],
    });
    jsonschema::validator_for(&schema).expect("the schema is a schema")
});

/// All fields are made, as they are for a handler in Python.
#[derive(Deserialize)]
#[expect(dead_code, reason = "the route looks at three of them")]
struct Order<'a> {
    id: u64,
    customer: &'a str,
    email: &'a str,
    country: &'a str,
    sku: &'a str,
    quantity: u32,
    price: f64,
    express: bool,
    tags: Vec<&'a str>,
    note: Option<&'a str>,
}

#[derive(Serialize)]
struct Receipt {
    id: u64,
    total: f64,
}

#[derive(Serialize)]
struct Count {
    count: usize,
}

/// Problem details (RFC 9457), with the members that framegate's have.
#[derive(Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    errors: Vec<Fault>,
}

#[derive(Serialize)]
struct Fault {
    r#in: &'static str,
    pointer: String,
    keyword: String,
    detail: String,
}

/// An answer of 200 that is this value.
pub(crate) fn reply(value: &impl Serialize) -> Reply {
    with_type("application/json", StatusCode::OK, value)
}

fn with_type(media_type: &'static str, status: StatusCode, value: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(value).expect("plain values always serialise");
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}

/// What is done with the value of a body.
pub(crate) type Route = fn(&Value) -> Reply;

/// Reads the body as JSON, whole, and answers what the route says.
pub(crate) async fn post(request: Request<Incoming>, route: Route) -> Reply {
    let Ok(body) = request.into_body().collect().await else {
        return plain_status(StatusCode::BAD_REQUEST);
    };
    match serde_json::from_slice(&body.to_bytes()) {
        Ok(value) => route(&value),
        Err(_) => plain_status(StatusCode::BAD_REQUEST),
    }
}

/// The same JSON, written anew.
pub(crate) fn echo(value: &Value) -> Reply {
    reply(value)
}

/// Ten fields, checked against a schema.
pub(crate) fn order(value: &Value) -> Reply {
    if !ORDER.is_valid(value) {
        return refuse(value);
    }
    match Order::deserialize(value) {
        Ok(order) => reply(&Receipt {
            id: order.id,
            total: f64::from(order.quantity) * order.price,
        }),
        Err(_) => plain_status(StatusCode::UNPROCESSABLE_ENTITY),
    }
}

/// How many items a document has.
pub(crate) fn document(value: &Value) -> Reply {
    match value.get("items").and_then(Value::as_array) {
        Some(items) => reply(&Count { count: items.len() }),
        None => plain_status(StatusCode::UNPROCESSABLE_ENTITY),
    }
}

/// All that is wrong with an order, without the values.
fn refuse(value: &Value) -> Reply {
    let faults = ORDER.iter_errors(value).map(|error| Fault {
        r#in: "body",
        pointer: format!("#{}", error.instance_path()),
        keyword: error.kind().keyword().to_owned(),
        detail: error.masked().to_string(),
    });
    let errors: Vec<_> = faults.collect();
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let problem = Problem {
        r#type: "about:blank",
        title: "Unprocessable Content",
        status: status.as_u16(),
        detail: format!("{} things are wrong with the request", errors.len()),
        errors,
    };
    with_type("application/problem+json", status, &problem)
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use serde_json::Value;

    use super::{document, echo, order};

    fn body(name: &str) -> Value {
        let path = format!("{}/../bodies/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn takes_the_bodies_of_the_questions() {
        assert_eq!(order(&body("order")).status(), StatusCode::OK);
        assert_eq!(
            order(&body("order_invalid")).status(),
            StatusCode::UNPROCESSABLE_ENTITY
        );
        assert_eq!(echo(&body("echo")).status(), StatusCode::OK);
        assert_eq!(document(&body("document")).status(), StatusCode::OK);
    }
}
