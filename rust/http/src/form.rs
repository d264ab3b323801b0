//! Forms with files (`multipart/form-data`, RFC 7578) for readers that are given the body piece by piece.
//!
//! The parser is that of frame routes ([`crate::topics`]), which pulls: it runs here as a future that is polled after each piece and
//! waits where the pieces end. Nothing of a file is kept; memory is bounded by a piece and the head of a part.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE},
};

use crate::{
    ingest::{IngestError, Source},
    topics::{
        multipart::{Multipart, Type, parameters},
        problem_of,
    },
};

/// Bytes of one [`Event::Data`] at most: as much as a connection reads at once.
const DATA_BYTES_MAX: usize = 64 * 1024;

/// What a piece of the body brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A part begins.
    Part {
        /// Its name.
        name: String,
        /// The name of its file, if it is one. Where none was chosen browsers send an empty one.
        file: Option<String>,
        /// What it says it is.
        media_type: Option<String>,
    },
    /// Bytes of the part.
    Data(Bytes),
    /// The part is whole.
    End,
}

/// What goes between the future and who polls it.
#[derive(Default)]
struct Between {
    pieces: VecDeque<Bytes>,
    is_complete: bool,
    events: Vec<Event>,
}

#[derive(Clone, Default)]
struct Fed(Arc<Mutex<Between>>);

impl Fed {
    fn lock(&self) -> MutexGuard<'_, Between> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        self.lock().events.push(event);
    }
}

impl Source for Fed {
    fn remaining(&self) -> Option<u64> {
        None
    }

    async fn read(&mut self, into: &mut [u8]) -> Result<usize, IngestError> {
        poll_fn(|_| {
            let mut between = self.lock();
            let Some(piece) = between.pieces.front_mut() else {
                return if between.is_complete {
                    Poll::Ready(Ok(0))
                } else {
                    Poll::Pending
                };
            };
            let bytes = piece.len().min(into.len());
            piece.copy_to_slice(&mut into[..bytes]);
            if piece.is_empty() {
                between.pieces.pop_front();
            }
            Poll::Ready(Ok(bytes))
        })
        .await
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A form that is being read.
pub struct Form {
    fed: Fed,
    /// `None` once it has ended.
    reading: Option<Reading>,
}

impl Form {
    /// A form whose request has this `Content-Type`, with so many parts at most.
    ///
    /// # Errors
    /// It is no form with files, or its boundary is none; the text says what.
    pub fn new(content_type: &[u8], parts_max: usize) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(content_type)
            .map_err(|_| "the Content-Type is no value of a field".to_owned())?;
        headers.insert(CONTENT_TYPE, value);
        let kind = Type::of(&headers).map_err(|problem| problem.detail.clone())?;
        let Some(kind) = kind.filter(|kind| kind.is_form) else {
            return Err("the body has to be multipart/form-data".to_owned());
        };
        let fed = Fed::default();
        let reading = Box::pin(read(fed.clone(), kind, parts_max));
        Ok(Self {
            fed,
            reading: Some(reading),
        })
    }

    /// Takes the next piece of the body, an empty one at its end, and gives what it brought.
    ///
    /// # Errors
    /// The body is no form: what is wrong with it.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<Event>, String> {
        {
            let mut between = self.fed.lock();
            if piece.is_empty() {
                between.is_complete = true;
            } else if self.reading.is_some() {
                between.pieces.push_back(Bytes::copy_from_slice(piece));
            }
        }
        if let Some(reading) = &mut self.reading {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(read) = reading.as_mut().poll(&mut context) {
                self.reading = None;
                read?;
            }
        }
        Ok(std::mem::take(&mut self.fed.lock().events))
    }
}

async fn read(mut fed: Fed, kind: Type, parts_max: usize) -> Result<(), String> {
    let told = fed.clone();
    let mut parts = Multipart::new(&mut fed, &kind);
    let mut scratch = vec![0; DATA_BYTES_MAX];
    let mut count = 0;
    let text = |error: IngestError| problem_of(&error).detail.clone();
    // Every part was read to its end.
    while let Some(fields) = parts.next(0).await.map_err(text)? {
        count += 1;
        if count > parts_max {
            return Err(format!("a form has at most {parts_max} parts"));
        }
        told.tell(part(&fields)?);
        loop {
            let bytes = parts.part().read(&mut scratch).await.map_err(text)?;
            if bytes == 0 {
                break;
            }
            told.tell(Event::Data(Bytes::copy_from_slice(&scratch[..bytes])));
        }
        told.tell(Event::End);
    }
    Ok(())
}

/// RFC 7578, section 4.2.
fn part(fields: &HeaderMap) -> Result<Event, String> {
    let wrong = |what: &str| format!("the multipart body is refused: {what}");
    let mut all = fields.get_all(CONTENT_DISPOSITION).iter();
    let (Some(disposition), None) = (all.next(), all.next()) else {
        return Err(wrong("a part needs one Content-Disposition"));
    };
    let found = parameters(disposition.as_bytes())
        .ok_or_else(|| wrong("a Content-Disposition is written wrongly"))?;
    let one = |wanted: &[u8]| {
        let mut values = found.iter().filter(|(name, _)| name == wanted);
        let value = values.next().map(|(_, value)| value.clone());
        // Two of them mean one thing here and another elsewhere.
        if values.next().is_some() {
            return Err(wrong("a parameter of a Content-Disposition is there twice"));
        }
        value
            .map(String::from_utf8)
            .transpose()
            .map_err(|_| wrong("a name in a Content-Disposition is not UTF-8"))
    };
    let name = one(b"name")?.ok_or_else(|| wrong("a part has no name"))?;
    let media_type = fields.get(CONTENT_TYPE);
    Ok(Event::Part {
        name,
        file: one(b"filename")?,
        media_type: media_type
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::{Event, Form};

    const TYPE: &[u8] = b"multipart/form-data; boundary=x";
    const BODY: &[u8] = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\xff\r\n-\r\n\
        --x\r\nContent-Disposition: form-data; name=f; filename=\"a \\\"b.bin\"\r\nContent-Type: image/png\r\n\r\n\r\n\
        --x--\r\n";

    /// The parts of a body that comes in pieces of so many bytes.
    fn read(body: &[u8], piece: usize, parts_max: usize) -> Result<Vec<(Event, Vec<u8>)>, String> {
        let mut form = Form::new(TYPE, parts_max)?;
        let mut parts: Vec<(Event, Vec<u8>)> = Vec::new();
        let mut open = false;
        for piece in body.chunks(piece).chain([&b""[..]]) {
            for event in form.feed(piece)? {
                match event {
                    Event::Data(data) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                    Event::End => open = false,
                    part @ Event::Part { .. } => {
                        assert!(!open);
                        open = true;
                        parts.push((part, Vec::new()));
                    }
                }
            }
        }
        assert!(!open);
        Ok(parts)
    }

    #[test]
    fn parts_are_the_same_in_pieces_of_every_size() {
        let wanted = vec![
            (
                Event::Part {
                    name: "a".into(),
                    file: None,
                    media_type: None,
                },
                b"b\xff\r\n-".to_vec(),
            ),
            (
                Event::Part {
                    name: "f".into(),
                    file: Some("a \"b.bin".into()),
                    media_type: Some("image/png".into()),
                },
                Vec::new(),
            ),
        ];
        for piece in 1..=BODY.len() {
            assert_eq!(read(BODY, piece, 2).unwrap(), wanted, "pieces of {piece}");
        }
    }

    #[test]
    fn a_form_has_so_many_parts_and_no_more() {
        assert_eq!(read(BODY, 10, 2).unwrap().len(), 2);
        assert_eq!(read(BODY, 10, 1).unwrap_err(), "a form has at most 1 parts");
    }

    #[test]
    fn a_form_that_ends_early_or_has_no_names_is_refused() {
        for cut in 1..BODY.len() - 2 {
            assert!(read(&BODY[..cut], 7, 9).is_err(), "cut at {cut}");
        }
        let nameless = b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--";
        assert!(read(nameless, 9, 9).unwrap_err().contains("no name"));
        let twice = b"--x\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\n\r\n--x--";
        assert!(read(twice, 9, 9).unwrap_err().contains("twice"));
        assert!(Form::new(b"multipart/mixed; boundary=x", 1).is_err());
        assert!(Form::new(b"multipart/form-data", 1).is_err());
        assert!(Form::new(b"text/plain", 1).is_err());
    }

    #[test]
    fn memory_is_bounded_by_the_pieces() {
        let mut form = Form::new(TYPE, 1).unwrap();
        form.feed(b"--x\r\nContent-Disposition: form-data; name=f; filename=a\r\n\r\n")
            .unwrap();
        let piece = vec![7; 100_000];
        let mut bytes = 0;
        for round in 1..=50 {
            let events = form.feed(&piece).unwrap();
            bytes += events
                .iter()
                .map(|event| match event {
                    Event::Data(data) => data.len(),
                    _ => 0,
                })
                .sum::<usize>();
            // All but what may be the beginning of a delimiter.
            assert!(bytes + 8 > round * piece.len());
            assert!(form.fed.lock().pieces.is_empty());
        }
    }
}
