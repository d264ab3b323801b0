//! As much protobuf as the messages of a recording need: writing fields, reading fields, and descriptors.
//!
//! A message is a sequence of (number, wire type, value). Proto3 leaves out fields that are zero or empty, and readers
//! skip numbers that they do not know; both are relied on.

/// Appends fields to a message.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

impl Writer<'_> {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire: u64) {
        self.varint(u64::from(field) << 3 | wire);
    }

    pub(super) fn uint(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.tag(field, VARINT);
            self.varint(value);
        }
    }

    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        if value != 0 {
            self.tag(field, FIXED32);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Written even if it is zero: zero is a time like any other.
    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.tag(field, LENGTH);
            self.varint(value.len() as u64);
            self.0.extend_from_slice(value);
        }
    }

    pub(super) fn packed(&mut self, field: u32, values: &[u64]) {
        let mut inner = Vec::with_capacity(values.len() * 2);
        for &value in values {
            Writer(&mut inner).varint(value);
        }
        self.bytes(field, &inner);
    }

    /// A message inside of this one; `tail` is its last field, if it has one that should not be copied twice.
    pub(super) fn message(
        &mut self,
        field: u32,
        tail: Option<(u32, &[u8])>,
        fill: impl FnOnce(&mut Writer<'_>),
    ) {
        let mut inner = Vec::with_capacity(64);
        fill(&mut Writer(&mut inner));
        let data = tail.map_or(&[][..], |(number, data)| {
            if !data.is_empty() {
                let mut writer = Writer(&mut inner);
                writer.tag(number, LENGTH);
                writer.varint(data.len() as u64);
            }
            data
        });
        self.tag(field, LENGTH);
        self.varint((inner.len() + data.len()) as u64);
        self.0.extend_from_slice(&inner);
        self.0.extend_from_slice(data);
    }
}

/// The value of a field.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Number(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn uint(self) -> u64 {
        match self {
            Self::Number(value) | Self::Fixed64(value) => value,
            Self::Fixed32(value) => value.into(),
            Self::Bytes(_) => 0,
        }
    }

    pub(super) fn double(self) -> f64 {
        match self {
            Self::Fixed64(bits) => f64::from_bits(bits),
            _ => f64::NAN,
        }
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.bytes()).map_err(|_| Damaged)
    }
}

/// A message ends in the middle of a field, or says what cannot be.
#[derive(Debug)]
pub(super) struct Damaged;

/// Reads the fields of a message, in the order in which they come.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Damaged)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damaged)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Damaged> {
        let count = usize::try_from(count).map_err(|_| Damaged)?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.take(N as u64)?.try_into().map_err(|_| Damaged)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Damaged> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Damaged)?;
        let value = match tag & 7 {
            VARINT => Value::Number(self.varint()?),
            FIXED64 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            FIXED32 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            LENGTH => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            _ => return Err(Damaged),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Numbers of a packed (or, by an old writer, a single) repeated field.
pub(super) fn unpack(value: Value<'_>) -> Result<Vec<u64>, Damaged> {
    let Value::Bytes(bytes) = value else {
        return Ok(vec![value.uint()]);
    };
    let mut fields = Fields(bytes);
    let mut values = Vec::new();
    while !fields.0.is_empty() {
        values.push(fields.varint()?);
    }
    Ok(values)
}

// ---- descriptors: a file that says what its messages are can be read without our sources

/// Type of a field, with descriptor.proto's numbers.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Double = 1,
    Int64 = 3,
    Uint64 = 4,
    Int32 = 5,
    Fixed32 = 7,
    String = 9,
    Message = 11,
    Bytes = 12,
}

/// One field of a message type: number, name, type, and the message type if it is one.
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) message: &'static str,
    pub(super) repeated: bool,
}

/// A `.proto` file: path, package, imports, message types.
pub(super) struct File<'a> {
    pub(super) path: &'a str,
    pub(super) package: &'a str,
    pub(super) imports: &'a [&'a str],
    pub(super) messages: &'a [(&'a str, &'a [Field])],
}

/// A `google.protobuf.FileDescriptorSet`; every file comes after those that it imports.
pub(super) fn descriptor_set(files: &[&File<'_>]) -> Vec<u8> {
    let mut set = Vec::new();
    for file in files {
        Writer(&mut set).message(1, None, |out| {
            out.bytes(1, file.path.as_bytes());
            out.bytes(2, file.package.as_bytes());
            for import in file.imports {
                out.bytes(3, import.as_bytes());
            }
            for (name, fields) in file.messages {
                out.message(4, None, |out| {
                    out.bytes(1, name.as_bytes());
                    for field in *fields {
                        out.message(2, None, |out| {
                            out.bytes(1, field.name.as_bytes());
                            out.uint(3, field.number.into());
                            out.uint(4, if field.repeated { 3 } else { 1 });
                            out.uint(5, field.kind as u64);
                            out.bytes(6, field.message.as_bytes());
                        });
                    }
                });
            }
            out.bytes(12, b"proto3");
        });
    }
    set
}
