//! Files below a directory, and nothing else.
//!
//! The kernel looks names up (`openat2(2)`, `RESOLVE_BENEATH`): whatever a name or a symbolic link says, nothing outside of the
//! directory is opened, also when somebody renames directories at that moment. Links that stay inside work; absolute ones do
//! not. Where there is no `openat2` (before Linux 5.6, forbidden by a sandbox, or on macOS) names are walked segment by
//! segment and no symbolic link is followed at all.
//!
//! # Nobody waits for a disk
//! On the thread of the connections a name is looked up with `RESOLVE_CACHED`, which fails rather than waits; then a thread of the
//! pool does it again. The same goes for the bytes ([`super::body`]).
//!
//! # The directory
//! It is opened once. A directory that was replaced by another one of the same name (by a build, or a link that points elsewhere now)
//! is noticed when something is not found, and opened anew. Files are opened for each request: what is on the disk is
//! what is served, a file that was replaced is replaced, and a deleted one does not fill the disk.

use std::{
    cell::RefCell,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{CWD, Mode, OFlags, fstat, openat},
    io::Errno,
};

use crate::os::{DIRECTORY, device, open_beneath};

/// How often a name is looked up again when the kernel could not be sure because of renames.
const TRIES: usize = 4;

/// Never blocks on a pipe, and never becomes a terminal.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// How names are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    /// `openat2`, first without waiting.
    Cached,
    /// `openat2` of a kernel that cannot be asked not to wait.
    Beneath,
    /// Segment by segment.
    Walk,
}

/// An open directory.
pub(super) struct Root {
    directory: OwnedFd,
    lookup: Lookup,
    /// Device and number.
    identity: (u64, u64),
}

impl Root {
    fn open(path: &Path) -> io::Result<Arc<Self>> {
        let directory = openat(CWD, path, DIRECTORY, Mode::empty())?;
        let status = fstat(&directory)?;
        let probe = |cached| open_beneath(&directory, b".", DIRECTORY, cached);
        let lookup = match probe(true) {
            Ok(_) | Err(Errno::AGAIN) => Lookup::Cached,
            Err(_) if probe(false).is_ok() => Lookup::Beneath,
            Err(_) => Lookup::Walk,
        };
        Ok(Arc::new(Self {
            directory,
            lookup,
            identity: (device(&status), status.st_ino),
        }))
    }

    /// Opens what has that name. With `now`, fails with `WouldBlock` when that may take the disk.
    pub(super) fn file(&self, name: &[u8], now: bool) -> io::Result<File> {
        let name = if name.is_empty() { b"." } else { name };
        match self.lookup {
            Lookup::Cached if now => {}
            _ if now => return Err(io::ErrorKind::WouldBlock.into()),
            Lookup::Cached | Lookup::Beneath => {}
            Lookup::Walk => return self.walk(name),
        }
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match open_beneath(&self.directory, name, READ, now) {
                Ok(file) => return Ok(file.into()),
                Err(Errno::AGAIN) if !now && tries > 0 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn walk(&self, name: &[u8]) -> io::Result<File> {
        let mut above: Option<OwnedFd> = None;
        let mut segments = name.split(|&byte| byte == b'/').peekable();
        while let Some(segment) = segments.next() {
            let at = above.as_ref().map_or(self.directory.as_fd(), AsFd::as_fd);
            let flags = if segments.peek().is_some() {
                DIRECTORY
            } else {
                READ
            };
            let opened = openat(at, segment, flags | OFlags::NOFOLLOW, Mode::empty())?;
            above = Some(opened);
        }
        above
            .map(File::from)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The directory that a path names.
pub(super) struct Tree {
    path: PathBuf,
    root: RefCell<Arc<Root>>,
}

impl Tree {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let root = RefCell::new(Root::open(&path)?);
        Ok(Self { path, root })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn root(&self) -> Arc<Root> {
        self.root.borrow().clone()
    }

    /// True when the path names another directory than before, which is the root from now on.
    pub(super) fn renew(&self) -> bool {
        let known = self.root.borrow().identity;
        let Ok(metadata) = self.path.metadata() else {
            return false;
        };
        if (metadata.dev(), metadata.ino()) == known {
            return false;
        }
        match Root::open(&self.path) {
            Ok(root) => {
                self.root.replace(root);
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs, io,
        os::unix::fs::symlink,
        path::PathBuf,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
    };

    use super::{Lookup, Root, Tree};

    /// A directory that is removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("framegate-tree-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn with(root: &Arc<Root>, lookup: Lookup) -> Root {
        Root {
            directory: root.directory.try_clone().unwrap(),
            lookup,
            identity: root.identity,
        }
    }

    fn content(root: &Root, name: &str) -> io::Result<String> {
        io::read_to_string(root.file(name.as_bytes(), false)?)
    }

    #[test]
    fn nothing_outside_is_opened() {
        let scratch = Scratch::new();
        let inside = scratch.0.join("inside");
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::write(scratch.0.join("secret"), "secret").unwrap();
        fs::write(inside.join("a/b/c"), "c").unwrap();
        symlink("../secret", inside.join("up")).unwrap();
        symlink(scratch.0.join("secret"), inside.join("absolute")).unwrap();
        symlink("a/b/c", inside.join("link")).unwrap();
        symlink("..", inside.join("parent")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        let root = Root::open(&inside).unwrap();
        for lookup in [Lookup::Cached, Lookup::Beneath, Lookup::Walk] {
            let root = with(&root, lookup);
            assert_eq!(content(&root, "a/b/c").unwrap(), "c");
            for name in [
                "up",
                "absolute",
                "parent/secret",
                "magic/etc/passwd",
                "../secret",
                "a/../../secret",
                "/etc/passwd",
                "missing",
                "a/b/c/d",
            ] {
                // A walk is never asked for dots: names have none.
                if lookup == Lookup::Walk && (name.contains("..") || name.starts_with('/')) {
                    continue;
                }
                assert!(content(&root, name).is_err(), "{lookup:?} {name}");
            }
            assert_eq!(content(&root, "link").is_ok(), lookup != Lookup::Walk);
        }
    }

    #[test]
    fn what_was_just_opened_is_opened_without_waiting() {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("a"), "a").unwrap();
        let root = Root::open(&scratch.0).unwrap();
        root.file(b"a", false).unwrap();
        match root.file(b"a", true) {
            Ok(_) => {}
            // A file system that never knows at once.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        let walking = with(&root, Lookup::Walk);
        assert_eq!(
            walking.file(b"a", true).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn directory_that_was_replaced_is_opened_anew() {
        let scratch = Scratch::new();
        let path = scratch.0.join("dist");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("old"), "old").unwrap();
        let tree = Tree::open(path.clone()).unwrap();
        assert!(!tree.renew());
        fs::rename(&path, scratch.0.join("before")).unwrap();
        assert!(!tree.renew(), "there is none");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("new"), "new").unwrap();
        assert!(content(&tree.root(), "new").is_err());
        assert!(tree.renew());
        assert_eq!(content(&tree.root(), "new").unwrap(), "new");
    }

    #[test]
    fn only_directories_are_roots() {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("file"), "").unwrap();
        assert!(Tree::open(scratch.0.join("file")).is_err());
        assert!(Tree::open(scratch.0.join("missing")).is_err());
    }
}
