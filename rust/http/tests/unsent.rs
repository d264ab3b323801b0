//! What the kernel keeps of a connection that the server has closed.
use crate::common;

use std::time::Duration;

use bytes::Bytes;
use common::{TestServer, ok, quick, run, until};
use framegate_http::{Config, Timeouts};
use tokio::io::AsyncWriteExt;

/// Sockets between two ports of this machine, in any state.
fn sockets_between(server: u16, client: u16) -> usize {
    let pair = (format!(":{server:04X}"), format!(":{client:04X}"));
    std::fs::read_to_string("/proc/net/tcp")
        .unwrap()
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(local, remote)| local.ends_with(&pair.0) && remote.ends_with(&pair.1))
        .count()
}

#[test]
fn kernel_forgets_what_nobody_takes_after_the_close() {
    run(async {
        let config = Config {
            timeouts: Timeouts {
                write: Duration::from_millis(300),
                linger: Duration::from_millis(10),
                ..quick()
            },
            ..Config::default()
        };
        let server = TestServer::with(config, |_| ok(Bytes::from(vec![0; 200_000])).into());
        // So small a buffer that most of the answer stays on the server's side, where the kernel takes all of it at once.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = socket.connect(server.address).await.unwrap();
        let port = client.local_addr().unwrap().port();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        server.connections_become(1).await;
        server.connections_become(0).await;
        assert_eq!(sockets_between(server.address.port(), port), 1);
        until(|| sockets_between(server.address.port(), port) == 0).await;
    });
}
