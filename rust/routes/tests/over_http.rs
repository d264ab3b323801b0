//! The example on a real socket: routing, validation and problem details without Python.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    thread,
    time::Duration,
};

use framegate_http::{Config, Server};
use serde_json::{Value, json};

#[path = "../examples/items.rs"]
mod items;

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// The thread ends with the process: nothing of it outlives the tests.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let spawn = |task| drop(tokio::task::spawn_local(task));
            let server = Server::new(items::service().unwrap(), Rc::new(Config::default()), spawn);
            server.listen(listener).unwrap();
            std::future::pending::<()>().await;
        });
    };
    thread::Builder::new()
        .name("server".into())
        .spawn(run)
        .unwrap();
    address
}

fn ask(address: SocketAddr, method: &str, target: &str, body: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    // A watchdog: only a bug lets it bark.
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        body: all[end + 4..].to_vec(),
        head,
    }
}

#[test]
fn routes_and_methods_over_a_socket() {
    let address = serve();
    let reply = ask(address, "GET", "/items/7", "");
    assert_eq!((reply.status, reply.json()), (200, json!({"id": 7})));
    let reply = ask(address, "HEAD", "/items/7", "");
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    let reply = ask(address, "GET", "/items/seven", "");
    assert_eq!(
        (reply.status, &reply.json()["title"]),
        (404, &json!("Not Found"))
    );
    assert_eq!(
        reply.field("content-type"),
        Some("application/problem+json")
    );
    let reply = ask(address, "DELETE", "/items/7", "");
    assert_eq!(
        (reply.status, reply.field("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    let reply = ask(address, "OPTIONS", "/items", "");
    assert_eq!(
        (reply.status, reply.field("allow")),
        (204, Some("OPTIONS, POST"))
    );
    let reply = ask(address, "GET", "/items/7/", "");
    assert_eq!(
        (reply.status, reply.field("location")),
        (308, Some("/items/7"))
    );
}

#[test]
fn bodies_are_validated_over_a_socket() {
    let address = serve();
    let lamp = r#"{"name": "lamp", "price": 12.5}"#;
    let reply = ask(address, "POST", "/items", lamp);
    assert_eq!((reply.status, &reply.body[..]), (201, lamp.as_bytes()));
    let reply = ask(
        address,
        "POST",
        "/items",
        r#"{"price": -1, "tags": ["a", 1]}"#,
    );
    assert_eq!(reply.status, 422);
    let told = reply.json();
    let errors = told["errors"].as_array().unwrap();
    let mut pointers: Vec<_> = errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["#/name", "#/price", "#/tags/1"]);
    let reply = ask(
        address,
        "POST",
        "/items",
        "{\"name\": \"a\", \"name\": \"b\"}",
    );
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.json()["errors"],
        json!([{"in": "body", "offset": 14, "line": 1, "column": 15,
                "detail": "the object has the name \"name\" twice"}])
    );
}
