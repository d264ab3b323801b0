//! HTTP/2 by prior knowledge, spoken by the client of the `h2` crate.
mod common;

use bytes::Bytes;
use common::{TestServer, hello, ok, run};
use http::Request;
use tokio::net::TcpStream;

/// A client's side of a connection.
async fn connect(server: &TestServer) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    client
}

async fn text(response: http::Response<h2::RecvStream>) -> String {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    String::from_utf8(text).unwrap()
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://t{path}")).body(()).unwrap()
}

#[test]
fn request_is_answered_over_each_protocol() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = connect(&server).await;
        let (response, _) = client.send_request(get("/"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], "5");
        assert!(response.headers().contains_key("date"));
        assert_eq!(text(response).await, "hello");
        assert_eq!(server.connect().await.get("/").await.text(), "hello");
    });
}

#[test]
fn body_is_echoed() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            let mut bytes = 0;
            while let Some(data) = request.body.data().await {
                bytes += data.unwrap().len();
            }
            ok(Bytes::from(bytes.to_string()))
        });
        let mut client = connect(&server).await;
        let request = Request::post("http://t/").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data(vec![0; 300_000].into(), true).unwrap();
        assert_eq!(text(response.await.unwrap()).await, "300000");
    });
}
