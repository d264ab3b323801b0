//! TLS with rustls's own client on the other side: what needs neither Python nor OpenSSL to be shown.

use crate::common;

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use framegate_http::{
    Config, Limits, Server, Timeouts,
    service::{ConnectionInfo, Entry, Handler, Request, ResponseFuture, Service, service_fn},
    tls::{CertificateFiles, Tls, TlsEvent, TlsOptions},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::spawn_blocking,
};

use common::{hello, ok, quick, run, spawn};

/// A self-signed certificate in a directory of its own.
struct Files {
    directory: PathBuf,
    pair: CertificateFiles,
}

impl Files {
    fn new(names: &[&str]) -> (Self, CertificateDer<'static>) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("framegate-tls-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let pair = CertificateFiles {
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        };
        let files = Self { directory, pair };
        let der = files.write(names);
        (files, der)
    }

    fn write(&self, names: &[&str]) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let replace = |path: &Path, text: String| {
            let fresh = path.with_extension("new");
            std::fs::write(&fresh, text).unwrap();
            std::fs::rename(fresh, path).unwrap();
        };
        replace(&self.pair.key, key.serialize_pem());
        replace(&self.pair.certificate, certificate.pem());
        certificate.der().clone()
    }

    fn load(&self) -> Tls {
        Tls::load(TlsOptions {
            pairs: vec![self.pair.clone()],
            alpn: vec![b"http/1.1".to_vec()],
            ..TlsOptions::default()
        })
        .unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

struct TestTls {
    server: Server,
    address: SocketAddr,
    events: Rc<RefCell<Vec<TlsEvent>>>,
}

impl TestTls {
    fn start(
        files: &Files,
        config: Config,
        answer: impl Fn(Request) -> ResponseFuture + 'static,
    ) -> Self {
        let events = Rc::new(RefCell::new(Vec::new()));
        let told = events.clone();
        let server = Server::new(service_fn(answer), Rc::new(config), spawn).with_tls(
            files.load(),
            8443,
            Rc::new(move |event| told.borrow_mut().push(event)),
        );
        let address = listen(&server, Entry::Tls);
        Self {
            server,
            address,
            events,
        }
    }

    /// Waits for events other than those of clients that do not like us.
    async fn next_events(&self) -> Vec<TlsEvent> {
        let matters = |event: &TlsEvent| !matches!(event, TlsEvent::HandshakeFailed(_));
        common::until(|| self.events.borrow().iter().any(matters)).await;
        let mut events = self.events.take();
        events.retain(matters);
        events
    }
}

fn listen(server: &Server, entry: Entry) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    server.listen_as(entry, listener).unwrap();
    address
}

type Client = StreamOwned<ClientConnection, TcpStream>;

/// Connects on a thread of its own, which is not the server's.
fn connect(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<Client> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap())
        .unwrap();
    let mut client = StreamOwned::new(tls, TcpStream::connect(address)?);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(client)
}

async fn get(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let trusted = trusted.clone();
    spawn_blocking(move || {
        let mut client = connect(address, &trusted)?;
        client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut response = String::new();
        client.read_to_string(&mut response)?;
        Ok(response)
    })
    .await
    .unwrap()
}

#[test]
fn request_and_response_end_with_close_notify() {
    run(async {
        let (files, certificate) = Files::new(&["localhost"]);
        let tls = TestTls::start(&files, Config::default(), hello);
        // `read_to_string` fails when the end comes without one.
        let response = get(tls.address, &certificate).await.unwrap();
        assert!(response.ends_with("\r\n\r\nhello"), "{response}");
        assert_eq!(*tls.events.borrow(), []);
    });
}

/// Notes what a service is told of its connections.
struct Noting(RefCell<Vec<Rc<ConnectionInfo>>>, Rc<dyn Service>);

impl Service for Noting {
    fn open(&self, info: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        self.0.borrow_mut().push(info.clone());
        self.1.open(info)
    }
}

#[test]
fn session_is_told_to_the_service() {
    run(async {
        let (files, certificate) = Files::new(&["localhost"]);
        let service = Rc::new(Noting(RefCell::default(), service_fn(hello)));
        let server = Server::new(service.clone(), Rc::new(Config::default()), spawn).with_tls(
            files.load(),
            443,
            Rc::new(|_| {}),
        );
        let address = listen(&server, Entry::Tls);
        get(address, &certificate).await.unwrap();
        let seen = service.0.take();
        let session = seen[0].tls.as_ref().unwrap();
        assert_eq!(session.version(), 0x0304);
        assert_eq!(session.server_name(), Some("localhost"));
        assert_eq!(session.client_name(), None);
        assert_eq!(session.client_chain().count(), 0);
        let shown = std::fs::read_to_string(&files.pair.certificate).unwrap();
        assert_eq!(session.server_certificate(), shown.replace('\r', ""));
    });
}

fn quick_handshakes(handshake: Duration, max: usize) -> Config {
    Config {
        limits: Limits {
            handshakes_max: max,
            ..Limits::default()
        },
        timeouts: Timeouts {
            handshake,
            ..quick()
        },
        ..Config::default()
    }
}

/// Waits until the server closes, reading what it says.
async fn closed(peer: &mut tokio::net::TcpStream) {
    let mut bytes = Vec::new();
    let _ = peer.read_to_end(&mut bytes).await;
}

#[test]
fn handshake_that_takes_too_long_is_ended() {
    run(async {
        let (files, certificate) = Files::new(&["localhost"]);
        let config = quick_handshakes(Duration::from_millis(100), 10);
        let tls = TestTls::start(&files, config, hello);
        for sent in [&b""[..], b"\x16\x03\x01\x02\x00"] {
            let mut peer = tokio::net::TcpStream::connect(tls.address).await.unwrap();
            peer.write_all(sent).await.unwrap();
            closed(&mut peer).await;
        }
        // The time of the handshake is not that of the connection.
        assert!(
            get(tls.address, &certificate)
                .await
                .unwrap()
                .ends_with("hello")
        );
    });
}

#[test]
fn handshakes_that_stand_still_make_room_when_others_wait() {
    run(async {
        let (files, certificate) = Files::new(&["localhost"]);
        let config = quick_handshakes(Duration::from_secs(1000), 2);
        let tls = TestTls::start(&files, config, hello);
        let mut idle = Vec::new();
        for _ in 0..2 {
            idle.push(tokio::net::TcpStream::connect(tls.address).await.unwrap());
        }
        assert!(
            get(tls.address, &certificate)
                .await
                .unwrap()
                .ends_with("hello")
        );
        for peer in &mut idle {
            closed(peer).await;
        }
    });
}

#[test]
fn reload_is_reported_and_bad_files_change_nothing() {
    run(async {
        let (files, first) = Files::new(&["localhost"]);
        let tls = TestTls::start(&files, Config::default(), hello);
        assert!(get(tls.address, &first).await.is_ok());
        let second = files.write(&["localhost"]);
        tls.server.reload_tls();
        let events = tls.next_events().await;
        assert!(
            matches!(&events[..], [TlsEvent::Reloaded(text)] if text.starts_with("localhost")),
            "{events:?}"
        );
        assert!(get(tls.address, &second).await.is_ok());
        assert!(get(tls.address, &first).await.is_err());

        std::fs::write(&files.pair.key, "nonsense").unwrap();
        tls.server.reload_tls();
        let events = tls.next_events().await;
        assert!(
            matches!(&events[..], [TlsEvent::ReloadFailed(error)] if error.problem().contains("server.key")),
            "{events:?}"
        );
        assert!(get(tls.address, &second).await.is_ok());
    });
}

/// Status and `Location` of a request in the clear.
async fn redirected(address: SocketAddr, request: &str) -> (u16, Option<String>) {
    let mut peer = tokio::net::TcpStream::connect(address).await.unwrap();
    peer.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    peer.read_to_string(&mut response).await.unwrap();
    let status = response.split(' ').nth(1).unwrap().parse().unwrap();
    let location = response
        .lines()
        .find_map(|line| line.strip_prefix("location: "));
    (status, location.map(str::to_owned))
}

#[test]
fn plain_requests_are_redirected_to_names_of_our_certificates() {
    run(async {
        let (files, _) = Files::new(&["example.org", "*.wild.test", "127.0.0.1", "::1"]);
        let tls = TestTls::start(&files, Config::default(), |request| {
            assert_eq!(request.head.uri.path(), "/.well-known/acme-challenge/token");
            ok("token").into()
        });
        let address = listen(&tls.server, Entry::Redirect);
        let cases = [
            ("/a?b=c", "example.org", "https://example.org:8443/a?b=c"),
            ("/", "example.org:80", "https://example.org:8443/"),
            (
                "//evil.test/",
                "any.wild.test",
                "https://any.wild.test:8443//evil.test/",
            ),
            ("/", "127.0.0.1:8080", "https://127.0.0.1:8443/"),
            ("/", "[::1]:8080", "https://[::1]:8443/"),
            (
                "http://example.org/x",
                "example.org",
                "https://example.org:8443/x",
            ),
        ];
        for (target, host, location) in cases {
            for method in ["GET", "POST"] {
                let request = format!(
                    "{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
                );
                let found = redirected(address, &request).await;
                assert_eq!(found, (308, Some(location.to_owned())), "{target} {host}");
            }
        }
        for host in [
            "evil.test",
            "example.org.evil.test",
            "127.0.0.2",
            "a.b.wild.test",
        ] {
            let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            assert_eq!(redirected(address, &request).await, (421, None), "{host}");
        }
        assert_eq!(
            redirected(address, "GET / HTTP/1.0\r\n\r\n").await,
            (421, None)
        );
        let request = "GET /.well-known/acme-challenge/token HTTP/1.1\r\nhost: other.test\r\n\
                       connection: close\r\n\r\n";
        assert_eq!(redirected(address, request).await, (200, None));
    });
}
