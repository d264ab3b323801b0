//! Files below a directory, and nothing else. Compiled for Windows, and not run there.
//!
//! There is no `openat2` and no safe `openat`. So names are walked segment by segment, and each directory on the way stays open until
//! the file is: no symbolic link and no junction is followed, and what is open here can be neither renamed nor removed meanwhile (it is not
//! shared for that), so what was looked at is what the next segment lies in. Who replaces directories of a tree that is served may
//! find them busy for the moment of a request.
//!
//! Paths are verbatim (`\\?\`): Windows takes them as they are, knows no devices (`con`) in them, and drops no dots at the end of names.
//! What it would still read into a name is refused ([`is_plain`]).
//!
//! # Nobody waits for a disk
//! Nothing tells whether a name is in memory, so a thread of the pool looks it up always.
//!
//! # The directory
//! It is looked up for each request, so one that takes its place is noticed at once.

use std::{
    fs::{File, OpenOptions},
    io,
    os::windows::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

const FILE_ATTRIBUTE_REPARSE_POINT: u32 = 0x400;
/// Opens directories, too.
const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
/// A link is opened, and not what it leads to.
const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
const FILE_SHARE_READ: u32 = 1;
const FILE_SHARE_WRITE: u32 = 2;

/// A directory below which names are looked up.
pub(super) struct Root(PathBuf);

impl Root {
    /// Opens what has that name. With `now`, fails with `WouldBlock`: it may take the disk.
    pub(super) fn file(&self, name: &[u8], now: bool) -> io::Result<File> {
        if now {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let name = std::str::from_utf8(name).map_err(|_| io::ErrorKind::NotFound)?;
        // Links to the directory itself are followed: who set it up meant them.
        let mut path = self.0.canonicalize()?;
        let mut opened = open(&path, true)?;
        // Held to the end.
        let mut above = Vec::new();
        let mut segments = name
            .split('/')
            .filter(|segment| !segment.is_empty())
            .peekable();
        while let Some(segment) = segments.next() {
            if !is_plain(segment) {
                return Err(io::ErrorKind::NotFound.into());
            }
            path.push(segment);
            let below = open(&path, segments.peek().is_some())?;
            above.push(std::mem::replace(&mut opened, below));
        }
        Ok(opened)
    }
}

/// Opens a file or a directory that is no link. `is_above`: it must be a directory, and stays where it is while it is open.
fn open(path: &Path, is_above: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT);
    if is_above {
        options.share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE);
    }
    let opened = options.open(path)?;
    let metadata = opened.metadata()?;
    // Of all kinds: links, junctions, and files that are elsewhere (in a cloud), whose bytes would not be theirs.
    if metadata.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0
        || is_above && !metadata.is_dir()
    {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(opened)
}

/// Whether a segment is the one name of one file: no stream of a file (`a:b`), no pattern, no way up, and none of the short names that
/// Windows makes up (`GIT~1`), which lead to hidden files, too.
fn is_plain(segment: &str) -> bool {
    let begins_number = |after: &str| after.starts_with(|next: char| next.is_ascii_digit());
    segment != "."
        && segment != ".."
        && !segment.contains(|letter: char| letter.is_control() || r#"\:*?"<>|"#.contains(letter))
        && !segment.split('~').skip(1).any(begins_number)
}

/// The directory that a path names.
pub(super) struct Tree {
    path: PathBuf,
    root: Arc<Root>,
}

impl Tree {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        open(&path.canonicalize()?, true)?;
        let root = Arc::new(Root(path.clone()));
        Ok(Self { path, root })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn root(&self) -> Arc<Root> {
        self.root.clone()
    }

    /// True when the path names another directory than before: never, because each look begins with the path.
    #[expect(clippy::unused_self, reason = "as on other systems")]
    pub(super) fn renew(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use super::{Tree, is_plain};

    #[test]
    fn only_plain_names_are_opened() {
        for plain in ["a", "a.b", "a~", "~a", "con", "a b"] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in [
            ".", "..", "a:b", "a\\b", "a*", "a\"", "GIT~1", "~1", "a\u{1}",
        ] {
            assert!(!is_plain(other), "{other}");
        }
    }

    #[test]
    fn files_and_directories_below_are_opened() {
        let name = format!("framegate-tree-{}", std::process::id());
        let scratch = std::env::temp_dir().join(name);
        fs::create_dir_all(scratch.join("inside/a")).unwrap();
        fs::write(scratch.join("secret"), "secret").unwrap();
        fs::write(scratch.join("inside/a/b"), "b").unwrap();
        let tree = Tree::open(scratch.join("inside")).unwrap();
        let root = tree.root();
        let blocks = root.file(b"a/b", true).unwrap_err();
        assert_eq!(blocks.kind(), io::ErrorKind::WouldBlock);
        let file = root.file(b"a/b", false).unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "b");
        assert!(root.file(b"", false).unwrap().metadata().unwrap().is_dir());
        for name in [
            "../secret",
            "a/../../secret",
            "a/b/c",
            "missing",
            "a/b::$DATA",
        ] {
            assert!(root.file(name.as_bytes(), false).is_err(), "{name}");
        }
        assert!(Tree::open(scratch.join("secret")).is_err());
        fs::remove_dir_all(scratch).unwrap();
    }
}
