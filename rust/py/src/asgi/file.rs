//! Files in responses: `http.response.pathsend` and `http.response.zerocopysend`.
//!
//! A file is opened, and its size looked at, inside `send()`: whatever is wrong with it is an exception there, while the
//! response can still become another one. Then its bytes are one [`Chunk`] of the response's queue among others:
//!
//! | | how the bytes go |
//! |---|---|
//! | up to [`SMALL_BYTES`] | read at once, and sent like data: no more than what the kernel reads ahead anyway |
//! | HTTP/1.1 without TLS | by `sendfile(2)`, through the connection's [`FileSender`] |
//! | elsewhere | read on a thread of the runtime, [`READ_BYTES`] at a time, as the connection asks for them |
//!
//! A file that becomes shorter while it is sent cuts the response, whose length is promised, with a line in the log; one
//! that grows is sent up to the size that it had.

use std::{
    fs::File,
    future::Future,
    io::{self, Seek, SeekFrom},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use framegate_http::sendfile::FileSender;
use pyo3::{
    exceptions::{PyOSError, PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::PyDict,
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::message;
use crate::error::os_error;
use crate::os::{self, FileExt};

/// Smaller pieces of files are read where they are sent.
const SMALL_BYTES: u64 = 64 * 1024;
/// Bytes of a file that wait in memory for one response.
const READ_BYTES: u64 = 256 * 1024;

/// A piece of a response's body, not yet taken by the connection.
pub(crate) enum Chunk {
    Data(Bytes),
    File(Box<FilePart>),
}

impl Chunk {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::File(part) => part.left,
        }
    }

    pub(crate) fn truncate(&mut self, bytes: u64) {
        match self {
            Self::Data(data) => data.truncate(usize::try_from(bytes).unwrap_or(usize::MAX)),
            Self::File(part) => part.left = part.left.min(bytes),
        }
    }
}

/// Bytes of a file that are still to be sent.
pub(crate) struct FilePart {
    file: Arc<File>,
    offset: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl FilePart {
    /// The next data of the body. Not to be called when nothing is left.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        sender: Option<&FileSender>,
    ) -> Poll<io::Result<Bytes>> {
        let data = match sender {
            Some(sender) => sender.piece(&self.file, self.offset, self.left),
            None => ready!(self.poll_read(cx))?,
        };
        self.offset += data.len() as u64;
        self.left -= data.len() as u64;
        Poll::Ready(Ok(data))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let (offset, bytes) = (self.offset, self.left.min(READ_BYTES));
        let file = &self.file;
        let reading = self.reading.get_or_insert_with(|| {
            let file = file.clone();
            spawn_blocking(move || read(&file, offset, bytes))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(match read {
            Ok(read) => read.map(Bytes::from),
            // The loop is closing.
            Err(_) => Err(io::ErrorKind::Interrupted.into()),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }
}

fn read(file: &File, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut data = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut data, offset).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file ended before the end of what was promised of it",
            )
        } else {
            error
        }
    })?;
    Ok(data)
}

/// Bytes of a file as a piece of a body.
fn chunk(file: File, offset: u64, bytes: u64) -> io::Result<Chunk> {
    Ok(if bytes == 0 {
        Chunk::Data(Bytes::new())
    } else if bytes <= SMALL_BYTES {
        Chunk::Data(read(&file, offset, bytes)?.into())
    } else {
        Chunk::File(Box::new(FilePart {
            file: Arc::new(file),
            offset,
            left: bytes,
            reading: None,
        }))
    })
}

/// The whole file of `http.response.pathsend`, or its first `promised` bytes: it may have grown since the application looked.
pub(crate) fn of_path(message: &Bound<'_, PyDict>, promised: Option<u64>) -> PyResult<Chunk> {
    let py = message.py();
    let path = message::required(message, intern!(py, "path"))?;
    let name: PathBuf = path
        .extract()
        .map_err(|_| PyTypeError::new_err(format!("path {path:?} is not the path of a file")))?;
    let failed = |error: io::Error| failed(&error, &path);
    let file = os::open_to_read(&name).map_err(failed)?;
    let size = regular_size(&file).map_err(failed)?;
    let bytes = promised.unwrap_or(size);
    if bytes > size {
        return Err(PyOSError::new_err(format!(
            "the file {path:?} has {size} bytes, and content-length promised {bytes}",
        )));
    }
    chunk(file, 0, bytes).map_err(failed)
}

/// The bytes of `http.response.zerocopysend`. The application may close its file at once.
pub(crate) fn of_file(message: &Bound<'_, PyDict>) -> PyResult<Chunk> {
    let py = message.py();
    let object = message::required(message, intern!(py, "file"))?;
    let offset = number(message, "offset")?;
    let count = number(message, "count")?;
    let fd: i32 = match object.extract() {
        Ok(fd) => fd,
        Err(_) => object
            .call_method0(intern!(py, "fileno"))
            .map_err(|_| {
                PyTypeError::new_err(format!(
                    "file {object:?} is neither a descriptor nor an object with one"
                ))
            })?
            .extract()?,
    };
    let mut file = os::duplicate_file(py, fd).map_err(os_error)?;
    if !os::is_readable(&file) {
        return Err(PyValueError::new_err(format!(
            "file {object:?} is not open for reading"
        )));
    }
    let size = regular_size(&file).map_err(|error| failed(&error, &object))?;
    // A file object may have read ahead: it knows where it is.
    let tell = object.getattr_opt(intern!(py, "tell"))?;
    let begin = match (offset, &tell) {
        (Some(offset), _) => offset,
        (None, Some(tell)) => tell.call0()?.extract()?,
        (None, None) => file.stream_position().map_err(os_error)?,
    };
    let rest = size.saturating_sub(begin);
    let bytes = count.unwrap_or(rest);
    if bytes > rest {
        return Err(PyValueError::new_err(format!(
            "{bytes} bytes from offset {begin} of a file of {size} bytes were to be sent",
        )));
    }
    if offset.is_none() {
        // As if it had been read: the next message without an offset goes on from there.
        let end = begin + bytes;
        if tell.is_some() {
            object.call_method1(intern!(py, "seek"), (end,))?;
        } else {
            file.seek(SeekFrom::Start(end)).map_err(os_error)?;
        }
    }
    chunk(file, begin, bytes).map_err(os_error)
}

/// A number of a message that may be left out.
fn number(message: &Bound<'_, PyDict>, key: &str) -> PyResult<Option<u64>> {
    let Some(value) = message.get_item(key)?.filter(|value| !value.is_none()) else {
        return Ok(None);
    };
    value
        .extract()
        .map(Some)
        .map_err(|_| PyValueError::new_err(format!("{key} {value:?} is not a number of bytes")))
}

/// The size of a file that has one.
fn regular_size(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(os::is_a_directory());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "only regular files can be sent",
        ));
    }
    Ok(metadata.len())
}

/// What went wrong with a file, with its name.
fn failed(error: &io::Error, path: &Bound<'_, PyAny>) -> PyErr {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => {
            let error = os_error(io::Error::from_raw_os_error(number));
            // Whatever goes wrong, there is still the error without the name.
            let _ = error.value(path.py()).setattr("filename", path);
            error
        }
        (None, io::ErrorKind::InvalidInput) => PyValueError::new_err(format!("{error}: {path:?}")),
        (None, _) => PyOSError::new_err(format!("{error}: {path:?}")),
    }
}
