//! `103` over HTTP/2: in order, ahead of the response, and no more of them than the client reads.
use crate::common;

use std::{cell::Cell, rc::Rc, time::Duration};

use common::{Event, SetOnDrop, TestServer, ok, quick, run, until};
use framegate_http::{Config, Timeouts, service::ResponseFuture};
use http::HeaderMap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::sleep,
};

/// Larger than a header compressor's table: none is sent as an index.
const LINK_BYTES: usize = 5000;
/// More than the kernel buffers between two sockets of one machine.
const HINTS: usize = 4000;

fn link(number: usize) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let value = format!("{number}{}", "x".repeat(LINK_BYTES));
    fields.insert("link", value.parse().unwrap());
    fields
}

/// A server whose handler sends hints as fast as it may, how many it has sent, and the event that it is over.
fn hinting(config: Config) -> (TestServer, Rc<Cell<usize>>, Event) {
    let (sent, over) = (Rc::<Cell<usize>>::default(), Event::default());
    let told = (sent.clone(), over.clone());
    let server = TestServer::with(config, move |request| {
        let (sent, over) = told.clone();
        ResponseFuture::later(async move {
            let _over = SetOnDrop(over);
            for number in 0..HINTS {
                request.hints.send(link(number)).await;
                sent.set(number + 1);
            }
            ok("final")
        })
    });
    (server, sent, over)
}

/// A connection with one request on it, whose answer nobody reads yet.
async fn ask(server: &TestServer) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut client = socket.connect(server.address).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // GET http://t/, in HPACK.
    bytes.extend(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01t");
    client.write_all(&bytes).await.unwrap();
    client
}

/// Waits until a number has stopped growing.
async fn settled(number: &Cell<usize>) -> usize {
    loop {
        let before = number.get();
        sleep(Duration::from_millis(100)).await;
        if before > 0 && number.get() == before {
            return before;
        }
    }
}

#[test]
fn hints_over_http2_wait_for_a_client_that_does_not_read() {
    run(async {
        let (server, sent, over) = hinting(Config {
            timeouts: quick(),
            ..Config::default()
        });
        let mut client = ask(&server).await;
        let held_up_at = settled(&sent).await;
        assert!(held_up_at < HINTS / 2, "{held_up_at} were sent");
        // As the client reads, all of them come.
        let mut buffer = vec![0; 1 << 20];
        while !over.is_set() {
            tokio::select! {
                read = client.read(&mut buffer) => assert!(read.unwrap() > 0),
                () = over.wait() => {}
            }
        }
        assert_eq!(sent.get(), HINTS);
    });
}

#[test]
fn handler_whose_hints_nobody_reads_is_ended() {
    run(async {
        let (server, sent, over) = hinting(Config {
            timeouts: Timeouts {
                write: Duration::from_millis(150),
                ..quick()
            },
            ..Config::default()
        });
        let _client = ask(&server).await;
        over.wait().await;
        assert!(sent.get() < HINTS / 2);
        server.connections_become(0).await;
    });
}

#[test]
fn hint_that_waits_while_its_stream_is_reset_is_over() {
    run(async {
        let over = Event::default();
        let told = over.clone();
        let server = TestServer::new(move |request| {
            let (hints, over) = (request.hints.clone(), told.clone());
            // Not the handler itself, which is dropped with its stream.
            tokio::task::spawn_local(async move {
                for number in 0..HINTS {
                    hints.send(link(number)).await;
                }
                over.set();
            });
            ResponseFuture::later(std::future::pending())
        });
        let mut client = ask(&server).await;
        until(|| server.connections.busy() == 1).await;
        sleep(Duration::from_millis(100)).await;
        assert!(!over.is_set());
        // RST_STREAM; the connection stays.
        client
            .write_all(b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08")
            .await
            .unwrap();
        let mut rest = vec![0; 1 << 20];
        while !over.is_set() {
            tokio::select! {
                read = client.read(&mut rest) => assert!(read.unwrap() > 0),
                () = over.wait() => {}
            }
        }
    });
}
