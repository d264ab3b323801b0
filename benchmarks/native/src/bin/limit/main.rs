//! The limit: what one thread of bare hyper does with the questions that the servers are asked.
//!
//! tokio's current-thread runtime, hyper's HTTP/1.1 with its defaults, no Python. `/` is the hello of 13 bytes,
//! `/items/{id}?q=` and the routes of `json.rs` are JSON, `/ws` an echo that answers all frames of one read with one write, which no
//! server that calls a handler per message can do better than. It is a limit for this design, not for all:
//! a C server with its own parser may be a few percent faster.

mod json;

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::LazyLock;

use base64::Engine as _;
use bytes::Bytes;
use framegate_bench_native::arguments::Arguments;
use framegate_bench_native::wsframe;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

type Reply = Response<Full<Bytes>>;

/// What the `FastAPI` route answers, for the same question.
#[derive(Serialize)]
struct Item<'a> {
    item_id: u64,
    q: Option<&'a str>,
}

/// The hello of the JSON routes.
#[derive(Serialize)]
struct Greeting {
    message: &'static str,
}

fn hello() -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(b"Hello, world!")));
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    reply
}

/// 1 MiB that is there once.
fn large() -> Reply {
    static LARGE: LazyLock<Bytes> =
        LazyLock::new(|| (0..1 << 20).map(|index| index as u8).collect());
    let mut reply = Response::new(Full::new(LARGE.clone()));
    reply.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    reply
}

/// Takes a body piece by piece.
async fn upload(request: Request<Incoming>) -> Reply {
    let mut body = request.into_body();
    while let Some(piece) = body.frame().await {
        if piece.is_err() {
            return plain_status(StatusCode::BAD_REQUEST);
        }
    }
    hello()
}

fn plain_status(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

fn item(id: &str, query: Option<&str>) -> Reply {
    let Ok(item_id) = id.parse() else {
        return plain_status(StatusCode::UNPROCESSABLE_ENTITY);
    };
    let q = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("q=")));
    json::reply(&Item { item_id, q })
}

fn websocket(mut request: Request<Incoming>) -> Reply {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return plain_status(StatusCode::UPGRADE_REQUIRED);
    };
    let mut digest = Sha1::new();
    digest.update(key.as_bytes());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = base64::engine::general_purpose::STANDARD.encode(digest.finalize());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            // The peer going away is how every echo ends.
            let _ = echo(upgraded).await;
        }
    });
    let mut reply = plain_status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(
        SEC_WEBSOCKET_ACCEPT,
        HeaderValue::from_str(&accept).expect("base64 is a valid header value"),
    );
    reply
}

async fn echo(upgraded: Upgraded) -> std::io::Result<()> {
    let parts = upgraded
        .downcast::<TokioIo<TcpStream>>()
        .expect("every connection here is a TcpStream");
    let mut stream = parts.io.into_inner();
    let mut input = parts.read_buf.to_vec();
    let mut output = Vec::new();
    loop {
        let mut done = 0;
        while let Some(frame) = wsframe::parse(&input[done..]) {
            let payload = &input[done + frame.start..done + frame.end];
            let opcode = match frame.opcode {
                wsframe::PING => wsframe::PONG,
                other => other,
            };
            let start = output.len();
            wsframe::append_head(&mut output, opcode, payload.len(), None);
            // Unmasked by the one copy that there is.
            wsframe::append_masked(&mut output, payload, frame.mask.unwrap_or_default());
            if frame.opcode == wsframe::CLOSE {
                return stream.write_all(&output[start..]).await;
            }
            done += frame.end;
        }
        input.drain(..done);
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
        input.reserve(16 * 1024);
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

/// One request; only those with a body wait for anything.
async fn answer(request: Request<Incoming>) -> Result<Reply, Infallible> {
    let path = request.uri().path();
    Ok(match path {
        "/" => hello(),
        "/hello-json" => json::reply(&Greeting {
            message: "Hello, world!",
        }),
        "/echo" => json::post(request, json::echo).await,
        "/orders" => json::post(request, json::order).await,
        "/documents" => json::post(request, json::document).await,
        "/large" => large(),
        "/upload" => upload(request).await,
        "/ws" => websocket(request),
        _ => match path.strip_prefix("/items/") {
            Some(id) => item(id, request.uri().query()),
            None => plain_status(StatusCode::NOT_FOUND),
        },
    })
}

async fn serve(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .with_upgrades(),
        );
    }
}

fn main() -> ExitCode {
    let run = || -> Result<(), String> {
        let mut arguments = Arguments::parse(std::env::args().skip(1))?;
        let port = arguments.take("port", 0)?;
        arguments.finish()?;
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .and_then(|runtime| runtime.block_on(serve(port)))
            .map_err(|error| format!("port {port}: {error}"))
    };
    if let Err(message) = run() {
        eprintln!("limit: {message}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
