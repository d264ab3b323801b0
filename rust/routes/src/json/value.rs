//! Values, and the equality that JSON Schema means.

use std::{borrow::Cow, cmp::Ordering};

use super::number::Number;

/// Objects with more members than this have an index.
pub(super) const SEARCHED_MAX: usize = 16;

/// One value of JSON. Equality is that of JSON Schema: the order of members means nothing, and numbers are equal as numbers.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number, as it was written.
    Number(Number<'a>),
    /// A string; a piece of the text when it has no escapes.
    String(Cow<'a, str>),
    /// A list.
    Array(Vec<Value<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// Members in the order of the text; each name is there once.
#[derive(Clone, Debug, Default)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Value<'a>)>,
    /// Positions of the members in the order of their names; empty for few members.
    sorted: Box<[u32]>,
}

impl<'a> Object<'a> {
    /// # Errors
    /// The position of a member whose name an earlier one has.
    pub(super) fn new(members: Vec<(Cow<'a, str>, Value<'a>)>) -> Result<Self, usize> {
        let mut sorted = Vec::new();
        if members.len() > SEARCHED_MAX {
            // By sorting, which takes the same time for whatever names a stranger chooses; a table of hashes would not.
            sorted.extend(0..members.len() as u32);
            sorted
                .sort_by(|left, right| members[*left as usize].0.cmp(&members[*right as usize].0));
            let twice = sorted
                .windows(2)
                .filter(|pair| members[pair[0] as usize].0 == members[pair[1] as usize].0)
                .map(|pair| pair[1])
                .min();
            if let Some(position) = twice {
                return Err(position as usize);
            }
        } else {
            for (position, (name, _)) in members.iter().enumerate() {
                if members[..position].iter().any(|(other, _)| other == name) {
                    return Err(position);
                }
            }
        }
        Ok(Self {
            members,
            sorted: sorted.into(),
        })
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// `{}`
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        if self.sorted.is_empty() {
            let found = self.members.iter().find(|(other, _)| other == name);
            return found.map(|(_, value)| value);
        }
        let found = self
            .sorted
            .binary_search_by(|position| (*self.members[*position as usize].0).cmp(name));
        let position = self.sorted[found.ok()?];
        Some(&self.members[position as usize].1)
    }

    /// Names and values, in the order of the text.
    pub fn members(&self) -> &[(Cow<'a, str>, Value<'a>)] {
        &self.members
    }

    /// In the order of names.
    fn in_order(&self) -> Vec<u32> {
        if !self.sorted.is_empty() {
            return self.sorted.to_vec();
        }
        let mut positions: Vec<_> = (0..self.members.len() as u32).collect();
        positions.sort_by_key(|position| &self.members[*position as usize].0);
        positions
    }

    fn arbitrary_cmp(&self, other: &Object<'_>) -> Ordering {
        self.len().cmp(&other.len()).then_with(|| {
            let pairs = self.in_order().into_iter().zip(other.in_order());
            for (left, right) in pairs {
                let (left, right) = (&self.members[left as usize], &other.members[right as usize]);
                let order = (*left.0)
                    .cmp(&*right.0)
                    .then_with(|| left.1.arbitrary_cmp(&right.1));
                if order.is_ne() {
                    return order;
                }
            }
            Ordering::Equal
        })
    }
}

impl Value<'_> {
    /// The word of JSON Schema for what it is.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::String(_) => 3,
            Self::Array(_) => 4,
            Self::Object(_) => 5,
        }
    }

    /// An order in which equal values are equal; otherwise it means nothing. For finding what is there twice.
    pub(crate) fn arbitrary_cmp(&self, other: &Value<'_>) -> Ordering {
        match (self, other) {
            (Self::Bool(left), Value::Bool(right)) => left.cmp(right),
            (Self::Number(left), Value::Number(right)) => left.arbitrary_cmp(right),
            (Self::String(left), Value::String(right)) => (**left).cmp(&**right),
            (Self::Array(left), Value::Array(right)) => {
                left.len().cmp(&right.len()).then_with(|| {
                    let pairs = left.iter().zip(right);
                    pairs
                        .map(|(left, right)| left.arbitrary_cmp(right))
                        .find(|order| order.is_ne())
                        .unwrap_or(Ordering::Equal)
                })
            }
            (Self::Object(left), Value::Object(right)) => left.arbitrary_cmp(right),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialEq<Value<'_>> for Value<'_> {
    fn eq(&self, other: &Value<'_>) -> bool {
        self.arbitrary_cmp(other).is_eq()
    }
}
