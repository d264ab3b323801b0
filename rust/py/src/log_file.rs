//! Where the access log is written to: standard output, standard error, a descriptor of Python's, or a file.
//!
//! Several workers write to the same place, so a line must not fall apart. A file is opened for appending: the kernel puts each write
//! behind the last one. Anything else may be a pipe, which takes at most `PIPE_BUF` bytes in one piece: what is written there are
//! pieces of that size that end with a line. (A single line that is longer may be mixed with others'.)
//!
//! A disk that is full ends a write in the middle of a line. The next one begins with a line feed, so that only that line is torn.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

use crate::os;

const PIECE_BYTES: usize = os::PIPE_BUF;

/// The end of a log.
pub(crate) struct LogFile {
    file: File,
    /// Of one that was opened here, and can be opened again.
    path: Option<PathBuf>,
    /// Takes any number of bytes in one piece.
    is_file: bool,
    /// The last line that was written is not whole.
    is_torn: bool,
}

impl LogFile {
    /// What somebody else has opened.
    pub(crate) fn inherited(file: File) -> Self {
        Self::new(file, None)
    }

    /// A file that is appended to, and made if it is missing.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = append(&path)?;
        Ok(Self::new(file, Some(path)))
    }

    fn new(file: File, path: Option<PathBuf>) -> Self {
        let is_file = file.metadata().is_ok_and(|about| about.is_file());
        Self {
            file,
            path,
            is_file,
            is_torn: false,
        }
    }

    /// Opens the file anew: whoever rotates logs has moved the old one. One that cannot be opened leaves everything as it is.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file = append(path)?;
            self.is_torn = false;
        }
        Ok(())
    }

    /// Writes whole lines; gives how many of them were lost.
    pub(crate) fn write(&mut self, lines: &[u8]) -> u64 {
        let mut rest = lines;
        if self.is_torn {
            if self.write_all(b"\n") == 0 {
                return count_lines(rest);
            }
            self.is_torn = false;
        }
        while !rest.is_empty() {
            let piece = if self.is_file {
                rest
            } else {
                &rest[..piece_bytes(rest)]
            };
            let written = self.write_all(piece);
            if written < piece.len() {
                self.is_torn = written > 0 && piece[written - 1] != b'\n';
                return count_lines(&rest[written..]);
            }
            rest = &rest[piece.len()..];
        }
        0
    }

    /// `Write::write_all` for a descriptor that may be non-blocking: standard output is shared, others may have made it so. Gives
    /// how many bytes were written before the first error.
    fn write_all(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    os::wait_writable(&self.file);
                }
                Err(_) => break,
            }
        }
        written
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.split(|&byte| byte == b'\n').count() as u64 - 1
}

/// Up to the last line that ends within a piece, or one line that is longer.
fn piece_bytes(lines: &[u8]) -> usize {
    let within = &lines[..lines.len().min(PIECE_BYTES)];
    if within.len() == lines.len() {
        return within.len();
    }
    let end = |bytes: &[u8]| bytes.iter().position(|&byte| byte == b'\n');
    match within.iter().rposition(|&byte| byte == b'\n') {
        Some(last) => last + 1,
        None => end(lines).map_or(lines.len(), |first| first + 1),
    }
}
