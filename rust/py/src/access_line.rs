//! For tests: one line of the access log, of a record that is made up.

use std::{
    rc::Rc,
    time::{Duration, SystemTime},
};

use framegate_http::{
    access_log::Lines,
    edge::Client,
    record::RequestRecord,
    service::{Address, ConnectionInfo, Entry},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use pyo3::{
    exceptions::{PyKeyError, PyValueError},
    prelude::*,
    types::PyDict,
};

use crate::worker::log_format;

/// The line that the settings make of a record.
#[pyfunction]
#[pyo3(name = "_access_line")]
pub(crate) fn access_line(
    config: &Bound<'_, PyAny>,
    record: &Bound<'_, PyDict>,
    number: Option<u32>,
) -> PyResult<Vec<u8>> {
    let peer = match get::<String>(record, "peer")?.strip_prefix("unix:") {
        Some(path) => Address::Unix(Some(path.into())),
        None => Address::Inet(parse(&get::<String>(record, "peer")?)?),
    };
    let milliseconds = get(record, "started_ms")?;
    let record = RequestRecord {
        connection: Rc::new(ConnectionInfo {
            number: 1,
            peer: peer.clone(),
            local: peer,
            entry: Entry::Plain,
            is_proxied: false,
            tls: None,
        }),
        number: 1,
        client: Client::Peer,
        request_id: None,
        method: parse::<Method>(&get::<String>(record, "method")?)?,
        target: Uri::from_maybe_shared(get::<Vec<u8>>(record, "target")?).map_err(wrong)?,
        version: match &*get::<String>(record, "version")? {
            "1.0" => Version::HTTP_10,
            "2" => Version::HTTP_2,
            _ => Version::HTTP_11,
        },
        websocket: get(record, "websocket")?,
        status: get::<Option<u16>>(record, "status")?
            .map(StatusCode::from_u16)
            .transpose()
            .map_err(wrong)?,
        start_ns: 0,
        first_byte_ns: get(record, "first_byte_ns")?,
        end_ns: get(record, "duration_ns")?,
        started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds),
        body_bytes_in: get(record, "bytes_in")?,
        body_bytes_out: get(record, "bytes_out")?,
        aborted: get(record, "aborted")?,
        event_stream: false,
        request_fields: fields(record, "request_fields")?,
        response_fields: fields(record, "response_fields")?,
        span: None,
    };
    let mut line = Vec::new();
    Lines::new(log_format(config)?, number).write(&record, &mut line);
    Ok(line)
}

fn get<'py, T: FromPyObjectOwned<'py>>(record: &Bound<'py, PyDict>, name: &str) -> PyResult<T> {
    let value = record.get_item(name)?;
    value
        .ok_or_else(|| PyKeyError::new_err(name.to_owned()))?
        .extract()
        .map_err(Into::into)
}

fn fields(record: &Bound<'_, PyDict>, name: &str) -> PyResult<Vec<(HeaderName, HeaderValue)>> {
    get::<Vec<(String, Vec<u8>)>>(record, name)?
        .into_iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_bytes(&value).map_err(wrong)?;
            Ok((parse(&name)?, value))
        })
        .collect()
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> PyResult<T> {
    text.parse().map_err(wrong)
}

fn wrong(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
