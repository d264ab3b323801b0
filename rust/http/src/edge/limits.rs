//! Limits for all workers together, in memory that they share.
//!
//! ```text
//! words: seed (8) | row of worker 0 (8) | row of worker 1 (8) | ... | buckets of clients | buckets of keys
//! row: connections, requests, waiting
//! ```
//! **Counts** are kept per worker and only ever written by it: whoever wants one more adds it to its own row, then sums up all rows,
//! and takes it back when that is too much. So the bound is never exceeded, there is no common counter that a killed worker
//! could leave too high (its row is cleared by the supervisor), and two that come at the same moment may both be refused.
//!
//! **Requests** over their limit wait, in the order in which they came to their worker, each at most for a time. The first of each
//! worker looks again when a request of the same worker ends, and some hundred times a second for those of others; nobody
//! passes by while somebody waits. `WebSocket`s do not count: they are connections that stay.
//!
//! **Rates** are in [`buckets`](super::buckets). Clients are counted by address, of IPv6 by /64, keys by a hash with a random seed.

use std::{
    cell::{Cell, RefCell},
    fmt,
    net::{IpAddr, Ipv6Addr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER};
use sha1::{Digest, Sha1};
use tokio::sync::{Notify, Semaphore};

use super::buckets::{Bucket, Taken, WAYS};
use super::forwarded::Client;
use crate::log_text::push_number;
use crate::record::{Record, monotonic_ns};
use crate::refusal::TEXT;
use crate::service::{Address, Response};

const SEED_WORDS: usize = 8;
const ROW_WORDS: usize = 8;
/// How often the first that waits looks whether another worker has room.
const LOOK: Duration = Duration::from_millis(5);
const SECOND_NS: u64 = 1_000_000_000;
/// As whoever is refused comes back with a spread of its own.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Words that several processes may have.
pub trait SharedWords: Send + Sync {
    /// All of them, the same at each call.
    fn words(&self) -> &[AtomicU64];
}

impl SharedWords for Vec<AtomicU64> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

/// So many requests in a time, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests in the time.
    pub quota: u64,
    /// The time.
    pub window_seconds: u64,
    /// Requests at once.
    pub burst: u64,
}

impl Rate {
    fn bucket(self) -> Bucket {
        Bucket {
            token_ns: self.window_seconds * SECOND_NS / self.quota,
            tokens: self.burst,
        }
    }
}

/// What is limited.
#[derive(Clone)]
pub struct Limits {
    /// At least [`Limits::words`] words; zeros at first, but for the seed.
    pub memory: Arc<dyn SharedWords>,
    /// The row of this worker.
    pub row: usize,
    /// How many rows there are.
    pub rows: usize,
    /// A clock that all workers have in common, in nanoseconds, and that is never set.
    pub now_ns: fn() -> u64,
    /// Connections at a time.
    pub connections_max: Option<u64>,
    /// Requests at a time.
    pub requests_max: Option<u64>,
    /// Requests that wait for one of those to end.
    pub waiting_max: u64,
    /// How long they wait.
    pub wait: Duration,
    /// Requests of one client.
    pub client_rate: Option<Rate>,
    /// Requests with the same value in a field.
    pub key_rate: Option<(HeaderName, Rate)>,
    /// Clients, and keys, that are remembered.
    pub entries: usize,
    /// Paths that have no limits but that of connections.
    pub exempt_paths: Vec<String>,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

impl Limits {
    /// How many words so many rows and entries take.
    pub fn words(rows: usize, entries: usize) -> usize {
        SEED_WORDS + rows * ROW_WORDS + 2 * table_words(entries)
    }

    /// Requests of all workers that wait, from an area of so many rows; `None` if there is no area.
    pub fn waiting_requests(words: &[AtomicU64], rows: usize) -> Option<u64> {
        let rows = words.get(SEED_WORDS..SEED_WORDS + rows * ROW_WORDS)?;
        // Relaxed: a number to look at.
        let waiting = |row: &[AtomicU64]| row[Count::Waiting as usize].load(Ordering::Relaxed);
        Some(
            rows.chunks_exact(ROW_WORDS)
                .map(waiting)
                .fold(0, u64::wrapping_add),
        )
    }

    /// Whether requests have limits.
    pub(super) fn has_requests(&self) -> bool {
        self.requests_max.is_some() || self.client_rate.is_some() || self.key_rate.is_some()
    }

    fn row(&self, row: usize) -> &[AtomicU64] {
        let at = SEED_WORDS + row * ROW_WORDS;
        &self.memory.words()[at..at + ROW_WORDS]
    }

    fn sum(&self, count: Count) -> u64 {
        // SeqCst, as in `take`: of two that add and then sum up, at least one sees the other.
        (0..self.rows)
            .map(|row| self.row(row)[count as usize].load(Ordering::SeqCst))
            .fold(0, u64::wrapping_add)
    }

    /// One more, if there are fewer than `most` of all workers.
    fn take(self: &Rc<Self>, count: Count, most: u64, freed: Option<&Rc<Queue>>) -> Option<Held> {
        // SeqCst: pairs with the loads in `sum` of the other workers, and is before our own.
        self.row(self.row)[count as usize].fetch_add(1, Ordering::SeqCst);
        let mut held = Held {
            limits: self.clone(),
            count,
            freed: None,
        };
        if self.sum(count) > most {
            return None;
        }
        held.freed = freed.cloned();
        Some(held)
    }

    /// A place among those that wait, if there is one.
    pub(super) fn enter_queue(self: &Rc<Self>) -> Option<Held> {
        self.take(Count::Waiting, self.waiting_max, None)
    }

    /// A connection, if there may be one more.
    pub(crate) fn connection(self: &Rc<Self>) -> Result<Option<Held>, TooMany> {
        match self.connections_max {
            None => Ok(None),
            Some(most) => match self.take(Count::Connections, most, None) {
                Some(held) => Ok(Some(held)),
                None => Err(TooMany),
            },
        }
    }

    fn table(&self, index: usize) -> &[AtomicU64] {
        let words = table_words(self.entries);
        let at = SEED_WORDS + self.rows * ROW_WORDS + index * words;
        &self.memory.words()[at..at + words]
    }

    /// A hash that nobody can foretell.
    fn hash(&self, parts: &[&[u8]]) -> u64 {
        let mut hash = Sha1::new();
        for word in &self.memory.words()[..SEED_WORDS] {
            // Relaxed: written before any worker was started.
            hash.update(word.load(Ordering::Relaxed).to_ne_bytes());
        }
        for part in parts {
            hash.update((part.len() as u64).to_ne_bytes());
            hash.update(part);
        }
        u64::from_ne_bytes(hash.finalize()[..8].try_into().expect("twenty bytes"))
    }

    /// The hash of whoever has an address.
    fn hash_of(&self, address: IpAddr) -> u64 {
        match client_network(address) {
            IpAddr::V4(address) => self.hash(&[&address.octets()]),
            IpAddr::V6(address) => self.hash(&[&address.octets()]),
        }
    }
}

/// A peer, for the rate of clients. Its hash is made once for all requests of its connection.
pub(super) struct PeerKey {
    peer: Address,
    hash: Cell<Option<u64>>,
}

impl PeerKey {
    pub(super) fn new(peer: Address) -> Self {
        Self {
            peer,
            hash: Cell::new(None),
        }
    }

    fn hash(&self, limits: &Limits) -> u64 {
        let hash = self.hash.get().unwrap_or_else(|| match &self.peer {
            Address::Inet(address) => limits.hash_of(address.ip()),
            // Nobody knows who is behind a Unix socket: they are one.
            Address::Unix(_) => limits.hash(&[]),
        });
        self.hash.set(Some(hash));
        hash
    }
}

/// The rates of a worker, and what its responses say of them.
pub(super) struct Rates {
    limits: Rc<Limits>,
    /// What the common clock is ahead of the one of records.
    ahead_ns: u64,
    /// Of a request that only the client's rate was asked for, only the key's, or both.
    policies: [HeaderValue; 3],
    /// Where values are written.
    text: RefCell<Vec<u8>>,
}

impl Rates {
    /// The rates of these limits, if there are any.
    pub(super) fn of(limits: &Rc<Limits>) -> Option<Self> {
        let key = limits.key_rate.as_ref().map(|(_, rate)| *rate);
        if limits.client_rate.is_none() && key.is_none() {
            return None;
        }
        let policy = |name: &str, rate: Option<Rate>| {
            rate.map(|rate| format!("\"{name}\";q={};w={}", rate.quota, rate.window_seconds))
        };
        let (client, key) = (policy("client", limits.client_rate), policy("key", key));
        let value = |parts: &[&Option<String>]| {
            let parts: Vec<&str> = parts.iter().filter_map(|part| part.as_deref()).collect();
            HeaderValue::try_from(parts.join(", ")).expect("plain text")
        };
        Some(Self {
            limits: limits.clone(),
            ahead_ns: (limits.now_ns)().saturating_sub(monotonic_ns()),
            policies: [value(&[&client]), value(&[&key]), value(&[&client, &key])],
            text: RefCell::default(),
        })
    }

    /// The time on the common clock; that of a request's record saves a look at it.
    pub(super) fn time_ns(&self, record: &Record) -> u64 {
        match record.start_ns() {
            Some(start_ns) => start_ns + self.ahead_ns,
            None => (self.limits.now_ns)(),
        }
    }

    /// Asks them for a request that came at `now_ns` of the common clock.
    pub(super) fn ask(
        &self,
        headers: &HeaderMap,
        peer: &PeerKey,
        client: Client,
        now_ns: u64,
    ) -> Option<RateFields> {
        let limits = &*self.limits;
        let mut text = self.text.borrow_mut();
        text.clear();
        let mut retry_seconds = None;
        let mut say = |text: &mut Vec<u8>, name: &str, taken: Taken| {
            let seconds = |ns: u64| ns.div_ceil(SECOND_NS);
            for (before, number) in [(name, taken.left), (";t=", seconds(taken.full_ns))] {
                text.extend_from_slice(before.as_bytes());
                push_number(number, text);
            }
            if !taken.is_allowed {
                retry_seconds = Some(seconds(taken.wait_ns).max(1));
            }
            taken.is_allowed
        };
        let mut is_allowed = true;
        if let Some(rate) = limits.client_rate {
            let hash = match client {
                Client::At(address) => limits.hash_of(address.ip()),
                Client::Peer | Client::Unknown => peer.hash(limits),
            };
            let taken = rate.bucket().take(limits.table(0), hash, now_ns);
            is_allowed = say(&mut text, "\"client\";r=", taken);
        }
        let has_asked = !text.is_empty();
        let mut policy = 0;
        if let Some((name, rate)) = &limits.key_rate
            && is_allowed
            && headers.contains_key(name)
        {
            let values: Vec<&[u8]> = headers
                .get_all(name)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            let taken = rate
                .bucket()
                .take(limits.table(1), limits.hash(&values), now_ns);
            policy = if has_asked { 2 } else { 1 };
            let name = if has_asked {
                ", \"key\";r="
            } else {
                "\"key\";r="
            };
            say(&mut text, name, taken);
        }
        if text.is_empty() {
            return None;
        }
        Some(RateFields {
            limit: HeaderValue::from_bytes(&text).expect("plain text and digits"),
            policy: self.policies[policy].clone(),
            retry_seconds,
        })
    }
}

fn table_words(entries: usize) -> usize {
    entries.next_multiple_of(WAYS).max(WAYS)
}

/// What a client of IPv6 usually has for itself (RFC 6177, RFC 7934): it can choose among 2^64 addresses.
fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[derive(Clone, Copy)]
enum Count {
    Connections = 0,
    Requests = 1,
    Waiting = 2,
}

/// There are as many as there may be.
pub(crate) struct TooMany;

/// One of what is counted, until it is dropped.
pub(crate) struct Held {
    limits: Rc<Limits>,
    count: Count,
    /// Who waits for it.
    freed: Option<Rc<Queue>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // SeqCst: pairs with the loads in `sum`.
        self.limits.row(self.limits.row)[self.count as usize].fetch_sub(1, Ordering::SeqCst);
        if let Some(queue) = &self.freed {
            queue.freed.notify_one();
        }
    }
}

/// The requests of this worker that wait.
pub(crate) struct Queue {
    /// Whoever has it is the first. Fair: the others come in their order.
    first: Semaphore,
    freed: Notify,
}

impl Queue {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            first: Semaphore::new(1),
            freed: Notify::new(),
        })
    }

    /// A place for a request, at once.
    pub(super) fn place(self: &Rc<Self>, limits: &Rc<Limits>, most: u64) -> Option<Held> {
        if limits.sum(Count::Waiting) > 0 {
            return None;
        }
        limits.take(Count::Requests, most, Some(self))
    }

    /// A place for a request that waits. `None` when its time is over.
    pub(super) async fn wait(self: &Rc<Self>, limits: &Rc<Limits>, most: u64) -> Option<Held> {
        let place = async {
            let _first = self.first.acquire().await.ok()?;
            loop {
                if let Some(place) = limits.take(Count::Requests, most, Some(self)) {
                    return Some(place);
                }
                let _another_worker = tokio::time::timeout(LOOK, self.freed.notified()).await;
            }
        };
        tokio::time::timeout(limits.wait, place).await.ok()?
    }
}

/// The answer to a request that there is no room for.
pub(super) fn overloaded() -> Response {
    let mut response = Response::new("the server has as many requests as it takes\n".into());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, TEXT);
    headers.insert(RETRY_AFTER, RETRY_SECONDS);
    response
}

const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).
pub(super) struct RateFields {
    limit: HeaderValue,
    policy: HeaderValue,
    /// Refused; one may come again after so many seconds.
    retry_seconds: Option<u64>,
}

impl RateFields {
    /// The answer to a request that is refused.
    pub(super) fn refusal(&self) -> Option<Response> {
        let seconds = self.retry_seconds?;
        let mut response = Response::new("too many requests\n".into());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, TEXT);
        headers.insert(RETRY_AFTER, seconds.into());
        Some(response)
    }

    pub(super) fn add_to(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, self.limit);
        headers.insert(POLICY, self.policy);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, SocketAddr},
        rc::Rc,
        sync::{Arc, atomic::AtomicU64},
        time::Duration,
    };

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Client, Count, Limits, PeerKey, Queue, Rate, Rates, SharedWords, client_network};
    use crate::service::Address;

    fn workers(count: usize) -> Vec<Rc<Limits>> {
        let words: Vec<_> = (0..Limits::words(count, 64))
            .map(|_| AtomicU64::new(0))
            .collect();
        let memory: Arc<dyn SharedWords> = Arc::new(words);
        (0..count)
            .map(|row| {
                Rc::new(Limits {
                    memory: memory.clone(),
                    row,
                    rows: count,
                    now_ns: || 5_000_000_000,
                    connections_max: Some(3),
                    requests_max: Some(2),
                    waiting_max: 1,
                    wait: Duration::from_secs(1),
                    client_rate: Some(Rate {
                        quota: 2,
                        window_seconds: 60,
                        burst: 2,
                    }),
                    key_rate: Some((
                        HeaderName::from_static("x-key"),
                        Rate {
                            quota: 1,
                            window_seconds: 60,
                            burst: 1,
                        },
                    )),
                    entries: 64,
                    exempt_paths: Vec::new(),
                })
            })
            .collect()
    }

    #[test]
    fn workers_count_together() {
        let workers = workers(2);
        let mut held: Vec<_> = [0, 1, 0]
            .map(|worker: usize| workers[worker].connection().ok().flatten())
            .into();
        assert!(held.iter().all(Option::is_some));
        assert!(workers[0].connection().is_err());
        assert!(workers[1].connection().is_err());
        held.pop();
        assert!(workers[1].connection().is_ok());
        drop(held);
        assert_eq!(workers[0].sum(Count::Connections), 0);
    }

    #[test]
    fn rows_of_the_dead_give_back_what_they_held() {
        let workers = workers(2);
        let held: Vec<_> = (0..3)
            .map(|_| workers[0].connection().ok().flatten())
            .collect();
        assert!(workers[1].connection().is_err());
        std::mem::forget(held);
        for word in workers[1].row(0) {
            word.store(0, std::sync::atomic::Ordering::Relaxed);
        }
        assert!(workers[1].connection().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_in_their_order_and_for_a_time() {
        let workers = workers(2);
        let (one, other) = (Queue::new(), Queue::new());
        let first = one.place(&workers[0], 2).unwrap();
        let second = other.place(&workers[1], 2).unwrap();
        assert!(one.place(&workers[0], 2).is_none());
        let waiting = workers[0].enter_queue().unwrap();
        assert!(
            workers[1].enter_queue().is_none(),
            "the queue is full, whoever asks"
        );
        // Another worker makes room.
        drop(second);
        assert!(other.place(&workers[1], 2).is_none(), "nobody passes by");
        let third = one.wait(&workers[0], 2).await.unwrap();
        drop(waiting);
        assert!(one.wait(&workers[0], 2).await.is_none(), "its time is over");
        drop((first, third));
        assert!(other.place(&workers[1], 2).is_some());
    }

    #[test]
    fn rates_are_those_of_clients_and_of_keys() {
        let workers = workers(2);
        let peer = |text: &str| Address::Inet(text.parse::<SocketAddr>().unwrap());
        let none = HeaderMap::new();
        let rates: Vec<_> = workers.iter().map(Rates::of).map(Option::unwrap).collect();
        let ask = |worker: usize, headers: &HeaderMap, address: &str| {
            let peer = PeerKey::new(peer(address));
            rates[worker]
                .ask(headers, &peer, Client::Peer, 5_000_000_000)
                .unwrap()
        };
        let first = ask(0, &none, "192.0.2.7:1");
        assert_eq!(first.limit, "\"client\";r=1;t=30");
        assert_eq!(first.policy, "\"client\";q=2;w=60");
        assert!(ask(1, &none, "192.0.2.7:2").refusal().is_none());
        let refused = ask(0, &none, "192.0.2.7:3").refusal().unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (429, &HeaderValue::from_static("30"))
        );
        assert!(ask(0, &none, "192.0.2.8:1").refusal().is_none());
        let mut keyed = HeaderMap::new();
        keyed.insert("x-key", HeaderValue::from_static("secret"));
        let said = ask(0, &keyed, "192.0.2.9:1");
        assert_eq!(said.policy, "\"client\";q=2;w=60, \"key\";q=1;w=60");
        assert!(said.refusal().is_none());
        assert!(
            ask(1, &keyed, "192.0.2.10:1").refusal().is_some(),
            "the same key from elsewhere"
        );
        keyed.insert("x-key", HeaderValue::from_static("another"));
        assert!(ask(1, &keyed, "192.0.2.11:1").refusal().is_none());
        for (number, refused) in [(1, false), (2, false), (3, true)] {
            let address = format!("[2001:db8:1:2::{number}]:1");
            assert_eq!(
                ask(0, &none, &address).refusal().is_some(),
                refused,
                "a /64 is one client"
            );
        }
    }

    #[test]
    fn clients_of_ipv6_are_counted_by_their_network() {
        let network = |text: &str| client_network(text.parse::<IpAddr>().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("10.1.2.3"), "10.1.2.3");
        assert_eq!(network("::ffff:10.1.2.3"), "10.1.2.3");
    }
}
