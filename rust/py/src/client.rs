//! `WebSockets` of `framegate.client`.
//!
//! Two classes: [`ClientOpening`] is a WebSocket on its way, [`ClientSocket`] an open one. Both have a descriptor and calls that
//! never wait, for event loops, which are driven in Python (`framegate/client.py`); and calls that wait, for threads, which do so
//! without the interpreter lock and come back for signals. Nothing here holds a lock of Rust while it takes that of the
//! interpreter: messages become objects after they have left the socket.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use framegate_client::{
    BackOff, Background, CertificateFiles, ClientTls, Closed, Error, ErrorKind, Kind, Message,
    Opened, Password, Proxy, Settings, Shared, Stopped, Waiting, Way,
};
use pyo3::{
    buffer::PyBuffer,
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyDict, PyString},
};

use crate::{
    error::os_error,
    gil,
    os::{Number, number},
};

/// From this many bytes on, sending gives up the interpreter lock: masking and writing as many takes longer than that.
const DETACH_BYTES_MIN: usize = 32 * 1024;

// What `step` and `post` say, for `framegate/client.py`.
const HAS_MESSAGE: u32 = 1;
const IS_CLOSED: u32 = 2;
const IS_DONE: u32 = 4;
const WANTS_READ: u32 = 8;
const WANTS_WRITE: u32 = 16;
const IS_READY: u32 = 32;

/// A WebSocket that is being opened. Dropping it gives it up.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct ClientOpening(Waiting);

#[pymethods]
impl ClientOpening {
    #[new]
    #[pyo3(signature = (
        url, *, headers, subprotocols, user_agent, compression, ca_files, certificate, key, key_password, proxy,
        open_timeout, close_timeout, ping_interval, ping_timeout, message_bytes_max
    ))]
    #[expect(
        clippy::too_many_arguments,
        reason = "keywords, given by one function of the package"
    )]
    fn new(
        py: Python<'_>,
        url: String,
        headers: Vec<(String, String)>,
        subprotocols: Vec<String>,
        user_agent: Option<String>,
        compression: bool,
        ca_files: Vec<PathBuf>,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        key_password: Option<String>,
        proxy: &Bound<'_, PyAny>,
        open_timeout: Option<f64>,
        close_timeout: f64,
        ping_interval: Option<f64>,
        ping_timeout: Option<f64>,
        message_bytes_max: u64,
    ) -> PyResult<Self> {
        let proxy = proxy_of(proxy)?;
        let seconds = |name: &str, value: f64| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| argument(py, &format!("{name} is a number of seconds, not {value}")))
        };
        let perhaps =
            |name: &str, value: Option<f64>| value.map(|value| seconds(name, value)).transpose();
        if certificate.is_none() && key.is_some() {
            return Err(argument(py, "a key is given without its certificate"));
        }
        let settings = Settings {
            headers,
            subprotocols,
            user_agent,
            compression,
            tls: ClientTls {
                ca_files,
                certificate: certificate.map(|certificate| CertificateFiles {
                    key: key.unwrap_or_else(|| certificate.clone()),
                    certificate,
                }),
                password: key_password.map(Password::Text),
            },
            proxy,
            open_timeout: perhaps("open_timeout", open_timeout)?,
            close_timeout: seconds("close_timeout", close_timeout)?,
            ping_interval: perhaps("ping_interval", ping_interval)?,
            ping_timeout: perhaps("ping_timeout", ping_timeout)?,
            message_bytes_max,
            ..Settings::default()
        };
        let opening = Background::get().and_then(|background| background.connect(url, settings));
        opening.map(Self).map_err(os_error)
    }

    /// Readable when the opening is over.
    fn fileno(&self) -> Number {
        number(&self.0.as_fd())
    }
}

fn proxy_of(option: &Bound<'_, PyAny>) -> PyResult<Proxy> {
    Ok(match option.extract::<Option<String>>() {
        Ok(Some(url)) => Proxy::Url(url),
        Err(_) if option.is_truthy()? => Proxy::Environment,
        Ok(None) | Err(_) => Proxy::Off,
    })
}

/// A place to connect to: host, port, and the field for a user and password.
type Place = (String, u16, Option<String>);

/// Where the address of a WebSocket leads: whether in TLS, the place, the path with its query, and the proxy in between.
#[pyfunction]
pub(crate) fn client_way(
    py: Python<'_>,
    url: &str,
    proxy: &Bound<'_, PyAny>,
) -> PyResult<(bool, Place, String, Option<Place>)> {
    let way = Way::to(url, &proxy_of(proxy)?).map_err(|error| exception(py, &error))?;
    let place = (way.host, way.port, way.authorization);
    Ok((way.secure, place, way.path, way.proxy))
}

/// An open WebSocket.
///
/// Args:
///     opening: Where it comes from.
///     `attended`: Whether an event loop drives it. Else it waits for the opening, and is looked after while nobody calls.
///
/// Raises:
///     `ClientError`: It could not be opened.
#[pyclass(frozen, subclass, module = "framegate._http")]
pub(crate) struct ClientSocket {
    shared: Arc<Shared>,
    subprotocol: Option<String>,
    headers: Vec<(String, String)>,
}

#[pymethods]
impl ClientSocket {
    #[new]
    #[pyo3(signature = (opening, *, attended))]
    fn new(py: Python<'_>, opening: &ClientOpening, attended: bool) -> PyResult<Self> {
        let opened = loop {
            let opened = if attended {
                opening.0.take()
            } else {
                gil::detached(py, || opening.0.wait())
            };
            match opened {
                Some(opened) => break opened.map_err(|error| exception(py, &error))?,
                None if attended => return Err(argument(py, "it is still being opened")),
                None => py.check_signals()?,
            }
        };
        let Opened {
            socket,
            subprotocol,
            headers,
        } = opened;
        let shared = if attended {
            Shared::attended(socket)
        } else {
            Shared::new(socket).map_err(os_error)?
        };
        let text = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect();
        Ok(Self {
            shared,
            subprotocol,
            headers: headers
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())))
                .collect(),
        })
    }

    /// The subprotocol that the server chose, or None.
    #[getter]
    fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The fields of the server's answer to the handshake, with names in small letters.
    #[getter]
    fn response_headers(&self) -> Vec<(String, String)> {
        self.headers.clone()
    }

    /// Whether messages may travel compressed.
    #[getter]
    fn is_compressed(&self) -> bool {
        self.shared.with(|socket| socket.is_compressed())
    }

    /// The close code once the WebSocket is closed, else None; 1005 when there was none, 1006 when the connection was lost.
    #[getter]
    fn close_code(&self) -> Option<u16> {
        self.closed().map(|closed| closed.code)
    }

    /// The reason that came with it.
    #[getter]
    fn close_reason(&self) -> Option<String> {
        self.closed().map(|closed| closed.reason)
    }

    // --- for threads ---

    /// Waits for the next message: str for text, bytes for binary ones.
    ///
    /// Args:
    ///     timeout: Seconds to wait at most; None waits for ever.
    ///
    /// Raises:
    ///     `ConnectionClosed`: The WebSocket is closed, and there is no message any more that came before.
    ///     `ClientTimeout`: None came in time; a later call may get it.
    #[pyo3(signature = (timeout=None))]
    fn recv<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(message) = self.shared.take() {
            return object(py, &message);
        }
        let patience = timeout.map(|seconds| {
            // What is over has passed, and NaN is no number of seconds.
            let seconds = if seconds < 0.0 { 0.0 } else { seconds };
            Duration::try_from_secs_f64(seconds).map_err(|_| {
                argument(
                    py,
                    &format!("timeout is a number of seconds, not {seconds}"),
                )
            })
        });
        // A time that no clock reaches is none.
        let until = patience
            .transpose()?
            .and_then(|time| Instant::now().checked_add(time));
        loop {
            match gil::detached(py, || self.shared.receive(until)) {
                Ok(message) => return object(py, &message),
                Err(stopped) => resume(py, &stopped)?,
            }
        }
    }

    /// Sends a message: str as text, bytes and everything that is like bytes as binary. Waits while much is unsent.
    ///
    /// Raises:
    ///     `ConnectionClosed`: The WebSocket is closed.
    fn send(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::payload(data, |kind, payload| {
            let sent = if payload.len() < DETACH_BYTES_MIN {
                // Without waiting: with the lock, which would cost more to give up.
                let unsent = self.shared.post(kind, payload);
                let unsent = unsent.map_err(|error| exception(py, &error))?;
                if unsent <= Shared::UNSENT_BYTES_MAX {
                    return Ok(());
                }
                Err(Stopped::Interrupted)
            } else {
                gil::detached(py, || self.shared.send(kind, payload))
            };
            let mut drained = sent;
            while let Err(stopped) = drained {
                resume(py, &stopped)?;
                drained = gil::detached(py, || self.shared.drain());
            }
            Ok(())
        })
    }

    /// Closes the WebSocket and waits until the server has as well, for the close timeout at most. Harmless when it is closed.
    ///
    /// Args:
    ///     code: 1000, 1001 or 3000 to 4999, and what else may be sent.
    ///     reason: At most 123 bytes in UTF-8.
    #[pyo3(signature = (code=1000, reason=""))]
    fn close(&self, py: Python<'_>, code: u16, reason: &str) -> PyResult<()> {
        self.begin_close(py, code, reason)?;
        loop {
            match gil::detached(py, || self.shared.wait_closed()) {
                Ok(_) => return Ok(()),
                Err(stopped) => resume(py, &stopped)?,
            }
        }
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    /// The next message; ends when the WebSocket was closed with 1000, 1001 or no code.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.recv(py, None) {
            Ok(message) => Ok(Some(message)),
            Err(_) if self.closed().is_some_and(|closed| is_ok(&closed)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    // --- for event loops ---

    /// What to wait on.
    fn fileno(&self) -> Number {
        number(&**self.shared.tcp())
    }

    /// A message that is there, or None.
    ///
    /// Raises:
    ///     `ConnectionClosed`: There is none, and none will come.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.shared.take() {
            Some(message) => object(py, &message).map(Some),
            None => match self.closed() {
                Some(closed) => Err(exception(py, &Error::of_closed(&closed))),
                None => Ok(None),
            },
        }
    }

    /// Queues a message and writes what there is room for, or leaves it for the next step while received messages wait; how many
    /// bytes are unsent.
    fn post(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        Self::payload(data, |kind, payload| {
            let posted = if payload.len() < DETACH_BYTES_MIN {
                self.shared.post_soon(kind, payload)
            } else {
                gil::detached(py, || self.shared.post_soon(kind, payload))
            };
            posted.map_err(|error| exception(py, &error))
        })
    }

    /// Does what can be done without waiting; what there is then, as bits.
    fn step(&self, py: Python<'_>) -> u32 {
        // What came may have to be inflated.
        gil::detached(py, || {
            self.shared.with(|socket| {
                socket.step();
                state(socket)
            })
        })
    }

    /// What there is, as bits.
    fn state(&self) -> u32 {
        self.shared.with(|socket| state(socket))
    }

    /// Seconds until `step` has to be called, or None.
    fn due(&self) -> Option<f64> {
        let deadline = self.shared.with(|socket| socket.deadline())?;
        Some(
            deadline
                .saturating_duration_since(Instant::now())
                .as_secs_f64(),
        )
    }

    /// Raises:
    ///     `ConnectionClosed`: The WebSocket is closed.
    fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        match self.closed() {
            Some(closed) => Err(exception(py, &Error::of_closed(&closed))),
            None => Ok(()),
        }
    }

    /// Unsent bytes.
    #[getter]
    fn unsent(&self) -> usize {
        self.shared.with(|socket| socket.unsent())
    }

    /// Begins to close.
    #[pyo3(signature = (code=1000, reason=""))]
    fn begin_close(&self, py: Python<'_>, code: u16, reason: &str) -> PyResult<()> {
        self.shared
            .with(|socket| socket.close(code, reason))
            .map_err(|error| exception(py, &error))
    }

    /// Cuts the connection.
    fn abort(&self) {
        self.shared.with(framegate_client::Socket::abort);
    }
}

impl ClientSocket {
    fn closed(&self) -> Option<Closed> {
        self.shared.with(|socket| socket.closed().cloned())
    }

    fn payload<R>(
        data: &Bound<'_, PyAny>,
        send: impl FnOnce(Kind, &[u8]) -> PyResult<R>,
    ) -> PyResult<R> {
        if let Ok(text) = data.cast::<PyString>() {
            return send(Kind::Text, text.to_str()?.as_bytes());
        }
        if let Ok(bytes) = data.cast::<PyBytes>() {
            return send(Kind::Binary, bytes.as_bytes());
        }
        // A copy: others may write to it while it is masked.
        let copy = bytes_like(data)?;
        send(Kind::Binary, &copy)
    }
}

/// The bytes of an array or of another object that is like bytes.
fn bytes_like(data: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let py = data.py();
    if let Ok(buffer) = PyBuffer::<u8>::get(data) {
        return buffer.to_vec(py);
    }
    // Elements of another kind, and several dimensions.
    let view = py
        .import("builtins")?
        .getattr("memoryview")?
        .call1((data,))
        .map_err(|_| {
            let name = data.get_type().name();
            let name = name.map_or_else(|_| "object".to_owned(), |name| name.to_string());
            PyTypeError::new_err(format!("a message is str or like bytes, not {name}"))
        })?;
    let bytes = view.call_method0("tobytes")?;
    Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec())
}

fn state(socket: &framegate_client::Socket) -> u32 {
    let interest = socket.interest();
    let mut state = 0;
    for (bit, is_set) in [
        (HAS_MESSAGE, socket.has_message()),
        (IS_CLOSED, socket.closed().is_some()),
        (IS_DONE, socket.is_done()),
        (WANTS_READ, interest.read),
        (WANTS_WRITE, interest.write),
        (IS_READY, socket.is_ready()),
    ] {
        if is_set {
            state |= bit;
        }
    }
    state
}

fn is_ok(closed: &Closed) -> bool {
    closed.clean && matches!(closed.code, 1000 | 1001 | 1005)
}

/// A message as Python has it.
fn object<'py>(py: Python<'py>, message: &Message) -> PyResult<Bound<'py, PyAny>> {
    match message.kind {
        Kind::Binary => Ok(PyBytes::new(py, &message.payload).into_any()),
        Kind::Text => {
            let text = std::str::from_utf8(&message.payload)?;
            Ok(PyString::new(py, text).into_any())
        }
    }
}

/// Goes on after a signal; everything else that ends a wait is an exception.
fn resume(py: Python<'_>, stopped: &Stopped) -> PyResult<()> {
    match stopped {
        Stopped::Interrupted => py.check_signals(),
        Stopped::Timeout => Err(raise(
            py,
            "ClientTimeout",
            "no message came in time",
            "",
            "",
            &[],
        )),
        Stopped::Error(error) => Err(exception(py, error)),
    }
}

fn argument(py: Python<'_>, problem: &str) -> PyErr {
    raise(py, "ClientArgumentError", problem, "", "", &[])
}

/// The exception for an error of the client.
fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error.kind() {
        ErrorKind::Argument => "ClientArgumentError",
        ErrorKind::Proxy => "ProxyFailed",
        ErrorKind::Tls => "TlsFailed",
        ErrorKind::Timeout => "ClientTimeout",
        ErrorKind::Refused => "HandshakeRefused",
        ErrorKind::Protocol => "HandshakeInvalid",
        ErrorKind::Closed => match error.closed() {
            Some(closed) if is_ok(closed) => "ConnectionClosedOK",
            _ => "ConnectionClosedError",
        },
        _ => "ServerUnreachable",
    };
    match attributes(py, error) {
        Ok(attributes) => raise(
            py,
            class,
            error.problem(),
            error.cause().unwrap_or_default(),
            error.remedy().unwrap_or_default(),
            &attributes,
        ),
        Err(error) => error,
    }
}

/// What an exception knows beside its text.
fn attributes<'py>(
    py: Python<'py>,
    error: &Error,
) -> PyResult<Vec<(&'static str, Bound<'py, PyAny>)>> {
    let mut found = vec![(
        "is_passing",
        error.is_passing().into_pyobject(py)?.to_owned().into_any(),
    )];
    if let Some(response) = error.response() {
        let headers: Vec<_> = response
            .headers
            .iter()
            .map(|(name, value)| {
                let value = value.as_bytes().iter().map(|&byte| char::from(byte));
                (name.as_str(), value.collect::<String>())
            })
            .collect();
        found.push((
            "status",
            response.status.as_u16().into_pyobject(py)?.into_any(),
        ));
        found.push(("headers", headers.into_pyobject(py)?.into_any()));
        found.push(("body", PyBytes::new(py, &response.body).into_any()));
    }
    if let Some(closed) = error.closed() {
        found.push(("close_code", closed.code.into_pyobject(py)?.into_any()));
        found.push(("close_reason", PyString::new(py, &closed.reason).into_any()));
        found.push((
            "by_server",
            closed.by_peer.into_pyobject(py)?.to_owned().into_any(),
        ));
    }
    Ok(found)
}

fn raise(
    py: Python<'_>,
    class: &str,
    problem: &str,
    cause: &str,
    fix: &str,
    attributes: &[(&str, Bound<'_, PyAny>)],
) -> PyErr {
    let make = || {
        let keywords = PyDict::new(py);
        keywords.set_item("cause", cause)?;
        keywords.set_item("fix", fix)?;
        let exception = py
            .import("framegate.errors")?
            .getattr(class)?
            .call((problem,), Some(&keywords))?;
        for (name, value) in attributes {
            exception.setattr(*name, value)?;
        }
        Ok(exception)
    };
    match make() {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// Pauses between attempts in seconds: each up to twice as long as the one before, drawn at random, without an end.
///
/// Args:
///     first: The longest that the first one may be.
///     last: The longest of all.
#[pyclass(module = "framegate._http")]
pub(crate) struct ClientBackOff(BackOff);

#[pymethods]
impl ClientBackOff {
    #[new]
    fn new(py: Python<'_>, first: f64, last: f64) -> PyResult<Self> {
        let seconds = |value: f64| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| argument(py, &format!("a pause is a number of seconds, not {value}")))
        };
        Ok(Self(BackOff::new(seconds(first)?, seconds(last)?)))
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self) -> Option<f64> {
        self.0.next().map(|pause| pause.as_secs_f64())
    }

    /// The next pause is of the first kind again.
    fn reset(&mut self) {
        self.0.reset();
    }
}
