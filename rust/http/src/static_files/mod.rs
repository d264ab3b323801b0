//! Static files: the files below a directory at the paths below a prefix, without the application.
//!
//! # Parts
//! [`path`] makes a name of a path, [`tree`] opens it, [`conditions`] and [`range`] say what of it is wanted, [`body`] sends it.
//! This file is what happens in between, in the order of RFC 9110, 13.2.1: method, path, file, form, conditions, range.
//!
//! # What is served
//! | | |
//! |---|---|
//! | a regular file | it, in the form that the client accepts: a neighbour `name.zst`, `name.br` or `name.gz` that is not older |
//! | a directory with an `index.html` | that, or at a path without a slash at its end 301 to the one with it |
//! | anything else | 404: directories without an index, pipes, devices, sockets, hidden names, ways out of the directory |
//! | a file that may not be read | 403 |
//! | another method than GET, HEAD and OPTIONS | 405 |
//!
//! # Validators
//! `ETag` is the time of the last change in nanoseconds and the size, so workers and machines with the same files have the same tags.
//! It is a weak one for two seconds after a change, in which another change could leave the same time ([`conditions`]).
//! Forms of one file have tags of their own.
//!
//! # What it costs
//! `openat2`, `statx`, a look whether the last byte is in memory, the head, `sendfile`, `close`. Open files are not kept: looking
//! whether a kept one is still the right one costs about what opening costs, which is a fiftieth of sending 100 KiB, and kept
//! ones would serve what was deleted. Files up to [`SMALL_BYTES`] leave together with their head.

mod body;
pub(crate) mod conditions;
pub(crate) mod path;
pub(crate) mod range;
#[cfg_attr(windows, path = "tree_windows.rs")]
mod tree;

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt::Write,
    fs::File,
    hash::{BuildHasher, RandomState},
    io,
    ops::Range,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{
        ACCEPT_ENCODING, ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
        CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION, RANGE, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use tokio::{task::spawn_blocking, time::Instant};

use crate::accept_encoding::{Accepted, Coding};
use crate::body::ResponseBody;
use crate::media_type;
use crate::os::{is_missing, modified_ns, read_now};
use crate::refusal::TEXT;
use crate::service::{ConnectionInfo, Handler, Request, Response, ResponseFuture, Service};

pub use body::Part;

use body::FileBody;
use conditions::{Validators, Verdict};
use path::{Name, Unusable};
use range::Wanted;
use tree::{Root, Tree};

/// Files up to this size leave with their head in one write: copying them costs less than another system call.
pub const SMALL_BYTES: u64 = 16 * 1024;
/// What a directory is asked for.
const INDEX: &[u8] = b"index.html";
/// A year, as RFC 9111 used to have as its longest.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// Troubles with files are told of once in this time.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// How the files of one directory are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Path in front of all names: it begins with a slash and does not end with one.
    pub prefix: String,
    /// The directory.
    pub directory: PathBuf,
    /// `Cache-Control`; `None`: no such field.
    pub cache_control: Option<HeaderValue>,
    /// Patterns of files that never change, because their name says what is in them. One with a slash is for the whole
    /// path, another one for the last segment; `*` is any bytes, `?` is one.
    pub immutable: Vec<String>,
    /// Neighbours `.zst`, `.br` and `.gz` are served in place of a file, to those that accept them.
    pub precompressed: bool,
    /// Fields of every response.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Takes words about files that could not be sent. Called while a connection is polled: must not block.
pub type ReportTo = Rc<dyn Fn(String)>;

/// Tells of trouble, now and then.
#[derive(Clone)]
struct Report {
    to: ReportTo,
    last: Rc<Cell<Option<Instant>>>,
}

impl Report {
    fn say(&self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if self
            .last
            .get()
            .is_none_or(|last| now - last >= REPORT_EVERY)
        {
            self.last.set(Some(now));
            (self.to)(text());
        }
    }

    /// A response was cut.
    fn cut(&self, error: &io::Error) {
        self.say(|| {
            format!("a static file could not be sent to its end, the response was cut: {error}")
        });
    }
}

/// Answers with files.
pub struct StaticFiles(Rc<Shared>);

struct Shared {
    settings: Settings,
    tree: Tree,
    report: Report,
}

impl StaticFiles {
    /// Serves files below `settings.directory`.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn new(settings: Settings, report: ReportTo) -> io::Result<Self> {
        Ok(Self(Rc::new(Shared {
            tree: Tree::open(settings.directory.clone())?,
            settings,
            report: Report {
                to: report,
                last: Rc::default(),
            },
        })))
    }
}

impl Service for StaticFiles {
    fn open(&self, _connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        Rc::new(StaticHandler(self.0.clone()))
    }
}

/// What is looked for on the disk.
struct Search {
    root: Arc<Root>,
    name: Name,
    /// Forms that the client accepts and that there may be, the best first.
    codings: [Option<Coding>; 3],
}

/// What was found.
enum Found {
    File(Box<Content>),
    /// A directory with an index, asked for without a slash.
    Directory,
}

/// An open file.
struct Content {
    file: File,
    size: u64,
    modified_ns: i128,
    coding: Option<Coding>,
    /// Its media type gets smaller: there may be other forms.
    has_forms: bool,
    media_type: HeaderValue,
}

struct Opened {
    file: File,
    size: u64,
    modified_ns: i128,
    is_directory: bool,
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Search {
    /// Opens what a name is of: a regular file or a directory.
    fn open(&self, name: &[u8], now: bool) -> io::Result<Opened> {
        let file = self.root.file(name, now)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(not_found());
        }
        Ok(Opened {
            size: metadata.len(),
            modified_ns: modified_ns(&metadata),
            is_directory: metadata.is_dir(),
            file,
        })
    }

    fn index(&self) -> Vec<u8> {
        let mut name = self.name.bytes.clone();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(INDEX);
        name
    }

    /// Looks on the disk. With `now`, fails with `WouldBlock` when that may take it.
    fn run(&self, now: bool) -> io::Result<Found> {
        if self.name.is_directory {
            let name = self.index();
            return self.content(&name, now);
        }
        let opened = self.open(&self.name.bytes, now)?;
        if opened.is_directory {
            let index = self.open(&self.index(), now)?;
            return if index.is_directory {
                Err(not_found())
            } else {
                Ok(Found::Directory)
            };
        }
        self.choose(&self.name.bytes, opened, now)
    }

    fn content(&self, name: &[u8], now: bool) -> io::Result<Found> {
        let opened = self.open(name, now)?;
        if opened.is_directory {
            return Err(not_found());
        }
        self.choose(name, opened, now)
    }

    /// The form of a file that is to be sent.
    fn choose(&self, name: &[u8], plain: Opened, now: bool) -> io::Result<Found> {
        let content_type = media_type::of_name(name);
        let has_forms = media_type::is_compressible(content_type.as_bytes());
        let mut chosen = (plain, None);
        if has_forms {
            for coding in self.codings.into_iter().flatten() {
                let mut neighbour = name.to_vec();
                neighbour.extend_from_slice(extension(coding));
                match self.open(&neighbour, now) {
                    // One that is older than the file was made of another one.
                    Ok(found)
                        if !found.is_directory
                            && found.modified_ns.div_euclid(1_000_000_000)
                                >= chosen.0.modified_ns.div_euclid(1_000_000_000) =>
                    {
                        chosen = (found, Some(coding));
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                    // Whatever is wrong with it, there is the file itself.
                    _ => {}
                }
            }
        }
        let (opened, coding) = chosen;
        Ok(Found::File(Box::new(Content {
            file: opened.file,
            size: opened.size,
            modified_ns: opened.modified_ns,
            coding,
            has_forms,
            media_type: content_type,
        })))
    }
}

fn extension(coding: Coding) -> &'static [u8] {
    match coding {
        Coding::Zstd => b".zst",
        Coding::Brotli => b".br",
        Coding::Gzip => b".gz",
    }
}

/// Answers the requests of one connection.
struct StaticHandler(Rc<Shared>);

impl Handler for StaticHandler {
    fn call(&self, request: Request) -> ResponseFuture {
        let shared = &self.0;
        let head = &request.head;
        match head.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => {
                let mut response = shared.response(StatusCode::NO_CONTENT);
                response.headers_mut().insert(ALLOW, METHODS);
                return response.into();
            }
            _ => {
                let mut response = shared.words(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "files are for GET and HEAD\n",
                );
                response.headers_mut().insert(ALLOW, METHODS);
                return response.into();
            }
        }
        let path = head.uri.path();
        let below = path
            .strip_prefix(shared.settings.prefix.as_str())
            .unwrap_or(path);
        let name = match path::name_of(below) {
            Ok(name) => name,
            Err(Unusable::Hidden) => return shared.failed(&not_found()).into(),
            Err(Unusable::Malformed) => {
                return shared
                    .words(StatusCode::BAD_REQUEST, "the path is malformed\n")
                    .into();
            }
        };
        let accepted =
            if shared.settings.precompressed && head.headers.contains_key(ACCEPT_ENCODING) {
                Accepted::of(&head.headers)
            } else {
                Accepted::default()
            };
        let mut codings = [None; 3];
        for (place, coding) in codings.iter_mut().zip(accepted.codings()) {
            *place = Some(coding);
        }
        let mut search = Search {
            root: shared.tree.root(),
            name,
            codings,
        };
        match shared.look(&mut search, true) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let shared = shared.clone();
                ResponseFuture::later(async move {
                    let found = shared.look_later(search).await;
                    shared.answer(&request, accepted, found)
                })
            }
            found => shared.answer(&request, accepted, found).into(),
        }
    }
}

impl Shared {
    /// Looks on the disk, also in a directory that has taken the place of the one that was opened.
    fn look(&self, search: &mut Search, now: bool) -> io::Result<Found> {
        match search.run(now) {
            Err(error) if is_missing(&error) && self.tree.renew() => {
                search.root = self.tree.root();
                search.run(now)
            }
            found => found,
        }
    }

    async fn look_later(&self, mut search: Search) -> io::Result<Found> {
        loop {
            let looking = spawn_blocking(move || (search.run(false), search));
            // Of a pool that is closing there is no result.
            let (found, searched) = looking.await.map_err(io::Error::other)?;
            match found {
                Err(error) if is_missing(&error) && self.tree.renew() => {
                    search = searched;
                    search.root = self.tree.root();
                }
                found => return found,
            }
        }
    }

    /// A response without a body.
    fn response(&self, status: StatusCode) -> Response {
        let mut response = Response::new(ResponseBody::Empty);
        *response.status_mut() = status;
        for (name, value) in &self.settings.headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        response
    }

    fn words(&self, status: StatusCode, text: &'static str) -> Response {
        let mut response = self.response(status);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, TEXT);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        *response.body_mut() = text.into();
        response
    }

    fn failed(&self, error: &io::Error) -> Response {
        use io::ErrorKind::{PermissionDenied, WouldBlock};
        if is_missing(error) {
            return self.words(StatusCode::NOT_FOUND, "there is no such file\n");
        }
        if error.kind() == PermissionDenied {
            self.tell(error);
            return self.words(StatusCode::FORBIDDEN, "the file may not be read\n");
        }
        // Renames that the kernel saw all the time; no descriptors left; a broken disk.
        if error.kind() != WouldBlock {
            self.tell(error);
        }
        self.words(
            StatusCode::SERVICE_UNAVAILABLE,
            "the file cannot be read now\n",
        )
    }

    fn tell(&self, error: &io::Error) {
        self.report.say(|| {
            let directory = self.tree.path().display();
            format!("a static file below {directory} could not be opened: {error}")
        });
    }

    fn answer(&self, request: &Request, accepted: Accepted, found: io::Result<Found>) -> Response {
        match found {
            Err(error) => self.failed(&error),
            Ok(Found::Directory) => self.redirect(&request.head.uri),
            Ok(Found::File(content)) if content.coding.is_none() && accepted.refuses_identity() => {
                let mut response = self.words(
                    StatusCode::NOT_ACCEPTABLE,
                    "the file is not there in a coding that the request accepts\n",
                );
                response.headers_mut().insert(VARY, VARY_BY_CODING);
                response
            }
            Ok(Found::File(content)) => self.send(request, *content),
        }
    }

    /// To the same path with a slash at its end, where names inside the index lead to the right place.
    fn redirect(&self, uri: &Uri) -> Response {
        let mut target = format!("{}/", uri.path());
        if let Some(query) = uri.query() {
            let _ = write!(target, "?{query}");
        }
        match HeaderValue::try_from(target) {
            Err(_) => self.failed(&not_found()),
            Ok(target) => {
                let mut response = self.words(
                    StatusCode::MOVED_PERMANENTLY,
                    "the directory is at the path with a slash at its end\n",
                );
                response.headers_mut().insert(LOCATION, target);
                response
            }
        }
    }

    fn send(&self, request: &Request, content: Content) -> Response {
        let asked = &request.head.headers;
        let suffix = match content.coding {
            None => "",
            Some(Coding::Zstd) => "-zstd",
            Some(Coding::Brotli) => "-br",
            Some(Coding::Gzip) => "-gzip",
        };
        let file = Validators::new(content.size, content.modified_ns, suffix, SystemTime::now());
        let mut response = self.response(StatusCode::OK);
        let headers = response.headers_mut();
        headers.insert(ETAG, file.etag());
        let path = request.head.uri.path();
        if self.is_immutable(path) {
            headers.insert(CACHE_CONTROL, IMMUTABLE);
        } else if let Some(value) = &self.settings.cache_control {
            headers.insert(CACHE_CONTROL, value.clone());
        }
        if content.has_forms && self.settings.precompressed {
            headers.append(VARY, VARY_BY_CODING);
        }
        match conditions::judge(asked, &file) {
            Verdict::Send => {}
            Verdict::NotModified => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return response;
            }
            Verdict::Failed => {
                return self.words(
                    StatusCode::PRECONDITION_FAILED,
                    "the file is not as the request expects it\n",
                );
            }
        }
        if let Some(modified) = file.last_modified() {
            headers.insert(LAST_MODIFIED, modified);
        }
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(coding) = content.coding {
            headers.insert(CONTENT_ENCODING, coding.value());
        }
        let is_head = request.head.method == Method::HEAD;
        let wanted = wanted_bytes(&request.head.method, asked, &file, content.size);
        let parts = match wanted {
            Wanted::Whole => {
                headers.insert(CONTENT_TYPE, content.media_type.clone());
                VecDeque::from([Part::File(0..content.size)])
            }
            Wanted::Nothing => {
                let mut response = self.words(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "the file has no such bytes\n",
                );
                let value = format!("bytes */{}", content.size);
                insert_text(response.headers_mut(), CONTENT_RANGE, value);
                return response;
            }
            Wanted::Parts(ranges) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                describe(
                    response.headers_mut(),
                    ranges,
                    &content.media_type,
                    content.size,
                )
            }
        };
        let bytes: u64 = parts.iter().map(Part::len).sum();
        response.headers_mut().insert(CONTENT_LENGTH, bytes.into());
        if is_head || bytes == 0 {
            return response;
        }
        *response.body_mut() = self.body(request, content.file, parts, bytes);
        response
    }

    fn body(
        &self,
        request: &Request,
        file: File,
        parts: VecDeque<Part>,
        bytes: u64,
    ) -> ResponseBody {
        if bytes <= SMALL_BYTES
            && let Some(Part::File(range)) = parts.front()
            && parts.len() == 1
        {
            let mut data = vec![0; bytes as usize];
            // Anything else, and it goes the long way.
            if read_now(&file, range.start, &mut data).is_ok_and(|read| read == data.len()) {
                return Bytes::from(data).into();
            }
        }
        let sender = if bytes > SMALL_BYTES {
            request.hints.file_sender()
        } else {
            None
        };
        ResponseBody::Stream(Box::pin(FileBody::new(
            file,
            parts,
            sender,
            self.report.clone(),
        )))
    }

    fn is_immutable(&self, path: &str) -> bool {
        let last = path.rsplit('/').next().unwrap_or(path);
        self.settings.immutable.iter().any(|pattern| {
            let text = if pattern.contains('/') { path } else { last };
            path::is_like(text.as_bytes(), pattern.as_bytes())
        })
    }
}

/// What of a file a request asks for.
fn wanted_bytes(method: &Method, asked: &HeaderMap, file: &Validators, size: u64) -> Wanted {
    // `Range` is for GET alone.
    if *method != Method::GET || !asked.contains_key(RANGE) {
        return Wanted::Whole;
    }
    let mut values = asked.get_all(RANGE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if conditions::range_counts(asked, file) => {
            range::wanted(value.as_bytes(), size)
        }
        _ => Wanted::Whole,
    }
}

/// What a request gets of a file that something else sends.
#[derive(Debug)]
pub struct Selection {
    /// 200, 206, 304, 412 or 416.
    pub status: StatusCode,
    /// `ETag`, `Last-Modified`, `Accept-Ranges`, `Content-Range`: those that go with the status; with 206 `Content-Type` too.
    pub headers: HeaderMap,
    /// What the body is.
    pub parts: VecDeque<Part>,
}

/// Judges conditions and ranges of a GET or HEAD for a file of that type, size and time (nanoseconds since 1970).
pub fn select(
    method: &Method,
    asked: &HeaderMap,
    media_type: &HeaderValue,
    size: u64,
    modified_ns: i128,
) -> Selection {
    let file = Validators::new(size, modified_ns, "", SystemTime::now());
    let mut selection = Selection {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        parts: VecDeque::new(),
    };
    let headers = &mut selection.headers;
    headers.insert(ETAG, file.etag());
    let verdict = conditions::judge(asked, &file);
    if verdict != Verdict::Send {
        selection.status = match verdict {
            Verdict::NotModified => StatusCode::NOT_MODIFIED,
            _ => StatusCode::PRECONDITION_FAILED,
        };
        return selection;
    }
    if let Some(modified) = file.last_modified() {
        headers.insert(LAST_MODIFIED, modified);
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    match wanted_bytes(method, asked, &file, size) {
        Wanted::Nothing => {
            selection.status = StatusCode::RANGE_NOT_SATISFIABLE;
            insert_text(headers, CONTENT_RANGE, format!("bytes */{size}"));
        }
        Wanted::Parts(ranges) => {
            selection.status = StatusCode::PARTIAL_CONTENT;
            selection.parts = describe(headers, ranges, media_type, size);
        }
        Wanted::Whole => selection.parts.push_back(Part::File(0..size)),
    }
    selection
}

const VARY_BY_CODING: HeaderValue = HeaderValue::from_static("accept-encoding");

fn insert_text(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// The fields of a response with parts of a file, and its body: the one part, or several with a head each
/// (RFC 9110, 14.6).
fn describe(
    headers: &mut HeaderMap,
    ranges: Vec<Range<u64>>,
    media_type: &HeaderValue,
    size: u64,
) -> VecDeque<Part> {
    let place = |range: &Range<u64>| format!("bytes {}-{}/{size}", range.start, range.end - 1);
    if let [range] = &ranges[..] {
        headers.insert(CONTENT_TYPE, media_type.clone());
        insert_text(headers, CONTENT_RANGE, place(range));
        return VecDeque::from([Part::File(range.clone())]);
    }
    // Nobody who wrote the file could know it.
    let boundary = format!(
        "{:016x}{:016x}",
        RandomState::new().hash_one(0),
        RandomState::new().hash_one(1)
    );
    insert_text(
        headers,
        CONTENT_TYPE,
        format!("multipart/byteranges; boundary={boundary}"),
    );
    let mut parts = VecDeque::with_capacity(2 * ranges.len() + 1);
    for range in ranges {
        let mut head = Vec::with_capacity(160);
        if !parts.is_empty() {
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(format!("--{boundary}\r\ncontent-type: ").as_bytes());
        head.extend_from_slice(media_type.as_bytes());
        head.extend_from_slice(format!("\r\ncontent-range: {}\r\n\r\n", place(&range)).as_bytes());
        parts.push_back(Part::Bytes(head.into()));
        parts.push_back(Part::File(range));
    }
    parts.push_back(Part::Bytes(format!("\r\n--{boundary}--\r\n").into()));
    parts
}
