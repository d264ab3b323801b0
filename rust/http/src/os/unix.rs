//! What Linux and macOS have both.

use std::{
    ffi::OsStr,
    fs::Metadata,
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::PathBuf,
};

use rustix::io::Errno;

use super::RawFd;

pub(crate) use std::os::unix::{
    fs::FileExt,
    net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
};
pub(crate) use tokio::net::{UnixListener, UnixStream, unix::SocketAddr as UnixAddress};

/// The number of no socket.
pub(crate) const NO_SOCKET: RawFd = -1;

/// When the content of a file was changed, in nanoseconds since 1970.
pub(crate) fn modified_ns(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

/// What identifies the present state of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Of the content, and of the inode: `touch` can set back only the first.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    pub(crate) fn of(about: &Metadata) -> Self {
        Self {
            device: about.dev(),
            inode: about.ino(),
            bytes: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        }
    }
}

/// The path that a peer has written as bytes.
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Nothing is there, or nothing that is served: a way out of the directory, a link to nowhere, a socket.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound)
        || matches!(
            Errno::from_io_error(error),
            Some(
                Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::LOOP
                    | Errno::XDEV
                    | Errno::NAMETOOLONG
                    | Errno::NXIO
                    | Errno::NODEV
                    | Errno::INVAL
            )
        )
}
