//! From an address to a WebSocket: refusals, proxies, TLS, time limits, and framegate's own server.
mod common;

use std::{
    io::Write,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use common::{Far, Peer, read_request, run, settings, switching};
use framegate_client::{
    CertificateFiles, Client, ClientTls, Error, ErrorKind, Message, Proxy, Settings,
};
use framegate_http::{
    Config, Server,
    service::{Entry, Request, Response, ResponseFuture, service_fn},
    tls::{ClientAuth, ClientCertificates, Tls, TlsOptions},
    websocket::{
        Failure, Kind,
        deflate::Settings as Deflate,
        extension::{accept, deflate_offers},
        handshake::Offer,
        message::{MessageBuffer, MessageSink},
        outbox::Outbox,
        session::{Closed, Handler, Session, Settings as SessionSettings},
    },
};
use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncWriteExt, ReadBuf, copy_bidirectional};

async fn refused(settings: &Settings, answer: &str) -> Error {
    let peer = Peer::new().await;
    let (error, ()) = tokio::join!(Client::connect(&peer.url, settings), async {
        let mut stream = peer.accept().await;
        let request = read_request(&mut stream).await;
        let answer = answer.replace("OPENING\r\n", &switching(&request, ""));
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    error.unwrap_err()
}

#[test]
fn refusals_say_what_the_server_said() {
    run(async {
        for (answer, status, body, words, passing) in [
            (
                "HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\nx-why: z\r\n\r\nno entry!more",
                403,
                "no entry!",
                "a token or a user",
                false,
            ),
            (
                "HTTP/1.1 302 Found\r\nlocation: ws://elsewhere/\r\ncontent-length: 0\r\n\r\n",
                302,
                "",
                "redirects are not followed: connect to ws://elsewhere/",
                false,
            ),
            (
                "HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
                503,
                "abcd",
                "503",
                true,
            ),
            (
                "HTTP/1.0 200 OK\r\n\r\nuntil the end",
                200,
                "until the end",
                "not that of a WebSocket",
                false,
            ),
            ("HTTP/1.1 429 Slowly\r\n\r\n", 429, "", "429", true),
        ] {
            let error = refused(&settings(), answer).await;
            assert_eq!(error.kind(), ErrorKind::Refused);
            let response = error.response().unwrap();
            assert_eq!(response.status, status);
            assert_eq!(response.body, body.as_bytes());
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.is_passing(), passing, "{status}");
        }
    });
}

#[test]
fn answers_that_are_none_are_refused() {
    run(async {
        for (answer, kind) in [
            ("SSH-2.0-OpenSSH\r\n", ErrorKind::Unreachable),
            ("", ErrorKind::Unreachable),
            ("HTTP/1.1 101 X\r\nupgr", ErrorKind::Unreachable),
            ("HTTP/1.1 101 X\r\n\r\n", ErrorKind::Protocol),
            (
                "HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                 sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                ErrorKind::Protocol,
            ),
        ] {
            let error = refused(&settings(), answer).await;
            assert_eq!(error.kind(), kind, "{error}");
        }
        let long = format!("HTTP/1.1 101 X\r\nx: {}", "y".repeat(1 << 17));
        let error = refused(&settings(), &long).await;
        assert!(error.to_string().contains("longer than"), "{error}");
    });
}

#[test]
fn nobody_there() {
    run(async {
        let peer = Peer::new().await;
        let url = peer.url.clone();
        drop(peer);
        let error = Client::connect(&url, &settings()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.is_passing());
        let error = Client::connect("ws://name.invalid/", &settings()).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unreachable);
    });
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    run(async {
        let peer = Peer::new().await;
        let settings = Settings {
            open_timeout: Some(Duration::from_millis(50)),
            ..settings()
        };
        let (error, _stream) = tokio::join!(Client::connect(&peer.url, &settings), peer.accept());
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("50ms"), "{error}");
    });
}

// --------------------------------------------------------------------------------------------
// Proxies

/// A proxy for one client: its request, after which it answers and passes bytes on to `port`.
async fn proxy(peer: &Peer, answer: &str, port: Option<u16>) -> common::Request {
    let mut stream = peer.accept().await;
    let request = read_request(&mut stream).await;
    stream.write_all(answer.as_bytes()).await.unwrap();
    if let Some(port) = port {
        let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .unwrap();
        tokio::task::spawn_local(async move {
            let _ = copy_bidirectional(&mut stream, &mut server).await;
        });
    }
    request
}

#[test]
fn a_proxy_opens_the_way() {
    run(async {
        let (peer, server) = (Peer::new().await, Peer::new().await);
        let settings = Settings {
            proxy: Proxy::Url(format!("http://me:secret@127.0.0.1:{}", peer.port)),
            ..settings()
        };
        let url = format!("ws://example.invalid:{}/", server.port);
        let (client, request, mut far) = tokio::join!(
            Client::connect(&url, &settings),
            proxy(&peer, "HTTP/1.1 200 OK\r\n\r\n", Some(server.port)),
            async {
                let mut stream = server.accept().await;
                let request = read_request(&mut stream).await;
                assert!(!request.fields.contains_key("proxy-authorization"));
                let answer = switching(&request, "");
                stream.write_all(answer.as_bytes()).await.unwrap();
                Far { stream }
            }
        );
        let place = format!("example.invalid:{}", server.port);
        assert_eq!(request.line, format!("CONNECT {place} HTTP/1.1"));
        assert_eq!(request.fields["host"], place);
        assert_eq!(request.fields["proxy-authorization"], "Basic bWU6c2VjcmV0");
        let mut client = client.unwrap();
        client.send(&Message::text("x")).await.unwrap();
        assert_eq!(far.read().await.unwrap().1, b"x");
    });
}

#[test]
fn proxies_that_refuse_are_named() {
    run(async {
        for (answer, words, passing) in [
            ("HTTP/1.1 407 Who\r\n\r\n", "user:password@host:port", false),
            ("HTTP/1.1 502 Bad\r\n\r\n", "502", true),
            ("nonsense", "not HTTP/1.1", true),
        ] {
            let peer = Peer::new().await;
            let settings = Settings {
                proxy: Proxy::Url(format!("127.0.0.1:{}", peer.port)),
                ..settings()
            };
            let (error, _request) = tokio::join!(
                Client::connect("ws://example.invalid/", &settings),
                proxy(&peer, answer, None)
            );
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Proxy);
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.is_passing(), passing, "{error}");
        }
    });
}

// --------------------------------------------------------------------------------------------
// Our own server, and TLS

/// Sends back what comes.
struct Echo {
    outbox: Rc<Outbox>,
    kind: Kind,
    buffer: MessageBuffer,
}

impl MessageSink for Echo {
    fn begin(&mut self, kind: Kind, _: u64) -> Result<(), Failure> {
        self.kind = kind;
        Ok(())
    }

    fn space(&mut self, want: usize) -> ReadBuf<'_> {
        self.buffer.space(want)
    }

    fn filled(&mut self, count: usize) {
        self.buffer.filled(count);
    }

    fn end(&mut self) -> Result<(), Failure> {
        let message = self.buffer.take();
        match self.kind {
            Kind::Text => self.outbox.text(std::str::from_utf8(&message).unwrap()),
            Kind::Binary => self.outbox.binary(&message),
        };
        Ok(())
    }
}

impl Handler for Echo {
    fn wants_message(&self) -> bool {
        true
    }

    fn turn(&mut self) {}

    fn closed(&mut self, _: Closed) {}
}

fn serve_echo(request: Request) -> ResponseFuture {
    let Some(Ok(offer)) = Offer::of(&request.head) else {
        return Response::new("no WebSocket".into()).into();
    };
    let accepted = accept(&deflate_offers(&request.head.headers), &Deflate::default());
    let mut headers = HeaderMap::new();
    headers.insert("x-of-the-server", "1".parse().unwrap());
    let chosen = offer.subprotocols().last().cloned();
    let mut response = offer.accept(chosen.as_deref(), headers).unwrap();
    let outbox = Outbox::new();
    let mut settings = SessionSettings::default();
    if let Some(accepted) = accepted {
        settings.deflate = Some(accepted.agreement);
        outbox.compress_with(accepted.compressor);
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_EXTENSIONS, accepted.header);
    }
    request.upgrade.unwrap().accept(move |upgraded| {
        let echo = Echo {
            outbox: outbox.clone(),
            kind: Kind::Text,
            buffer: MessageBuffer::default(),
        };
        Box::pin(Session::new(
            upgraded.stream,
            &upgraded.leftover,
            settings,
            outbox,
            echo,
        ))
    });
    response.map(|()| "".into()).into()
}

/// An echo of framegate's own; its port.
fn echo_server(tls: Option<TlsOptions>) -> (Server, u16) {
    let spawn = |task| drop(tokio::task::spawn_local(task));
    let mut server = Server::new(service_fn(serve_echo), Rc::new(Config::default()), spawn);
    let entry = if let Some(options) = tls {
        server = server.with_tls(Tls::load(options).unwrap(), 443, Rc::new(|_| {}));
        Entry::Tls
    } else {
        Entry::Plain
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    server.listen_as(entry, listener).unwrap();
    (server, port)
}

async fn exchange(client: &mut Client) {
    for length in [0, 1, 1000, 65_536, 3_000_000] {
        let noise: Vec<u8> = (0..length)
            .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for message in [
            Message::binary(noise),
            Message::text("ä".repeat(length as usize / 2)),
        ] {
            let sent = client.send(&message);
            sent.await.unwrap();
            assert!(client.receive().await.unwrap() == Some(message), "{length}");
        }
    }
    client.close(1000, "").await.unwrap();
    assert!(client.closed().unwrap().clean);
}

#[test]
fn our_own_server_answers() {
    run(async {
        let (_server, port) = echo_server(None);
        let settings = Settings {
            subprotocols: vec!["a".to_owned(), "b".to_owned()],
            ..settings()
        };
        for compression in [true, false] {
            let settings = Settings {
                compression,
                ..settings.clone()
            };
            let mut client = Client::connect(&format!("ws://127.0.0.1:{port}/"), &settings)
                .await
                .unwrap();
            assert_eq!(client.subprotocol(), Some("b"));
            assert_eq!(client.headers()["x-of-the-server"], "1");
            exchange(&mut client).await;
        }
    });
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    path
}

fn authority(directory: &Path) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    Authority {
        file: write(directory, "ca.pem", &certificate.pem()),
        issuer: Issuer::new(params, key),
    }
}

impl Authority {
    fn certify(&self, directory: &Path, name: &str) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let text = certificate.pem() + &key.serialize_pem();
        let path = write(directory, &format!("{name}.pem"), &text);
        CertificateFiles {
            certificate: path.clone(),
            key: path,
        }
    }
}

fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("client-{name}"));
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn tls_with_an_authority_from_a_file() {
    run(async {
        let directory = directory("tls");
        let authority = authority(&directory);
        let (_server, port) = echo_server(Some(TlsOptions {
            pairs: vec![authority.certify(&directory, "localhost")],
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            ..TlsOptions::default()
        }));
        let trusting = Settings {
            tls: ClientTls {
                ca_files: vec![authority.file.clone()],
                ..ClientTls::default()
            },
            ..settings()
        };
        let url = format!("wss://localhost:{port}/");
        let mut client = Client::connect(&url, &trusting).await.unwrap();
        exchange(&mut client).await;

        // Another name than that of the certificate.
        let by_address = format!("wss://127.0.0.1:{port}/");
        let error = Client::connect(&by_address, &trusting).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert!(
            error.to_string().contains("by a name that is in its"),
            "{error}"
        );
        // Not in the clear.
        let plain = format!("ws://localhost:{port}/");
        let error = Client::connect(&plain, &trusting).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        // The file is none.
        let missing = Settings {
            tls: ClientTls {
                ca_files: vec![directory.join("missing.pem")],
                ..ClientTls::default()
            },
            ..settings()
        };
        let error = Client::connect(&url, &missing).await.unwrap_err();
        assert!(
            error.to_string().contains("missing.pem cannot be read"),
            "{error}"
        );
        assert!(!error.is_passing());
    });
}

#[test]
fn an_unknown_authority_is_not_trusted() {
    run(async {
        let one = authority(&directory("one"));
        let other = authority(&directory("other"));
        let (_server, port) = echo_server(Some(TlsOptions {
            pairs: vec![one.certify(&directory("one"), "localhost")],
            ..TlsOptions::default()
        }));
        let settings = Settings {
            tls: ClientTls {
                ca_files: vec![other.file],
                ..ClientTls::default()
            },
            ..settings()
        };
        let url = format!("wss://localhost:{port}/");
        let error = Client::connect(&url, &settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert!(error.to_string().contains("ca_file"), "{error}");
    });
}

#[test]
fn client_certificates_are_shown_where_they_are_asked_for() {
    run(async {
        let directory = directory("mutual");
        let authority = authority(&directory);
        let (_server, port) = echo_server(Some(TlsOptions {
            pairs: vec![authority.certify(&directory, "localhost")],
            client_auth: ClientAuth {
                certificates: ClientCertificates::Required,
                ca_files: vec![authority.file.clone()],
                ..ClientAuth::default()
            },
            ..TlsOptions::default()
        }));
        let mut settings = Settings {
            tls: ClientTls {
                ca_files: vec![authority.file.clone()],
                ..ClientTls::default()
            },
            ..settings()
        };
        let url = format!("wss://localhost:{port}/");
        let error = Client::connect(&url, &settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        settings.tls.certificate = Some(authority.certify(&directory, "me"));
        let mut client = Client::connect(&url, &settings).await.unwrap();
        exchange(&mut client).await;
    });
}
