//! JSON Schema 2020-12, checked on values as they were read.
//!
//! The crate `jsonschema` is generic over what holds the JSON: [`Read`] tells it how [`Value`] does, so that nothing is read or
//! built a second time. What it says about a value comes back as [`Fault`]s, in our words and without the value itself: what a
//! client sent has no business in logs.

use std::{borrow::Cow, fmt, slice};

use jsonschema::{
    Draft, JsonType, PatternOptions, Registry, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
    json::{Array, Json, JsonNumber, Node, NodeIdentity, Object as ObjectOf},
};
use serde_json::Value as Owned;

use crate::json::{Number, Object, Value};
use crate::parameter::Kind;
use crate::problem::{Fault, Place};

/// How many faults one answer names. More help nobody, and a stranger chooses how many there are.
pub const FAULTS_MAX: usize = 100;

/// A compiled schema.
pub struct Schema {
    validator: Validator<Read>,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").finish_non_exhaustive()
    }
}

/// A schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    message: String,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SchemaError {}

impl SchemaError {
    fn at(place: &str, error: &dyn fmt::Display) -> Self {
        Self {
            message: format!("{error} (at {place})"),
        }
    }
}

fn parse(text: &str, what: &str) -> Result<Owned, SchemaError> {
    serde_json::from_str(text).map_err(|error| SchemaError {
        message: format!("{what} is no JSON: {error}"),
    })
}

impl Schema {
    /// Compiles the text of a schema. Formats are asserted. References lead into the schema or to the metaschemas; nothing is
    /// fetched.
    ///
    /// # Errors
    /// The text is no JSON or no schema, or a reference leads nowhere.
    pub fn compile(text: &str) -> Result<Self, SchemaError> {
        Self::compile_among(text, &[])
    }

    /// The same; references may also lead to these documents, by their addresses.
    ///
    /// # Errors
    /// As [`Self::compile`], also of the documents.
    pub fn compile_among(text: &str, documents: &[(&str, &str)]) -> Result<Self, SchemaError> {
        let schema = parse(text, "the schema")?;
        let mut registry = Registry::new().draft(Draft::Draft202012);
        for (address, text) in documents {
            let document = parse(text, address)?;
            registry = registry
                .add(*address, document)
                .map_err(|error| SchemaError::at(address, &error))?;
        }
        let registry = registry
            .prepare()
            .map_err(|error| SchemaError::at("the documents", &error))?;
        let options = options().with_registry(&registry);
        let validator = options.build(&schema).map_err(|error| {
            let place = format!("{:?} of the schema", error.instance_path().as_str());
            SchemaError::at(&place, &error)
        })?;
        Ok(Self { validator })
    }

    /// True when nothing is wrong with the value.
    pub fn is_valid(&self, value: &Value<'_>) -> bool {
        self.validator.is_valid(value)
    }

    /// Everything that is wrong with the value, but not more than [`FAULTS_MAX`].
    ///
    /// # Errors
    /// The faults, at least one.
    pub fn check(&self, value: &Value<'_>) -> Result<(), Vec<Fault>> {
        // Most values are right, and to find that out takes a fraction of what collecting does.
        if self.is_valid(value) {
            return Ok(());
        }
        let mut faults = Vec::new();
        for error in self.validator.iter_errors(value).take(FAULTS_MAX) {
            explain(&error, &mut faults);
        }
        faults.truncate(FAULTS_MAX);
        debug_assert!(!faults.is_empty(), "what is not valid has a fault");
        Err(faults)
    }
}

type Options<'i> =
    jsonschema::ValidationOptions<'i, std::sync::Arc<dyn jsonschema::Retrieve>, Read>;

fn options<'i>() -> Options<'i> {
    jsonschema::options_for::<Read>()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(true)
        // What Python's libraries mean by the types of the same names.
        .with_format("python-date-time", |text: &str| {
            Kind::DateTime.parse(text).is_ok()
        })
        .with_format("python-time", |text: &str| Kind::Time.parse(text).is_ok())
        .with_format("decimal", |text: &str| Kind::Decimal.parse(text).is_ok())
        // Linear in the text, whatever the pattern; what it has no words for (look-around, back-references) is refused when the
        // schema is compiled, not when a stranger finds the text that takes it a minute.
        .with_pattern_options(PatternOptions::regex())
        .offline()
}

/// Says in our words what is wrong, at which place.
fn explain(error: &ValidationError<'_>, faults: &mut Vec<Fault>) {
    let pointer = error.instance_path().as_str();
    let keyword = error.kind().keyword().to_owned();
    let mut push = |pointer: String, detail: String| {
        faults.push(Fault {
            place: Place::Body(pointer),
            keyword: Some(keyword.clone()),
            detail,
        });
    };
    let below = |name: &str| {
        let mut pointer = pointer.to_owned();
        pointer.push('/');
        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        pointer
    };
    match error.kind() {
        // At the member, not at the object: that is where a form shows it.
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            push(below(name), "is required".to_owned());
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            for name in unexpected {
                push(below(name), "is not known here".to_owned());
            }
        }
        kind => push(pointer.to_owned(), describe(kind)),
    }
}

fn describe(kind: &ValidationErrorKind) -> String {
    use ValidationErrorKind as Kind;
    match kind {
        Kind::Type { kind } => match kind {
            TypeKind::Single(one) => format!("must be {}", article(*one)),
            TypeKind::Multiple(several) => {
                let words: Vec<_> = several.iter().map(article).collect();
                format!("must be {}", words.join(" or "))
            }
        },
        Kind::Constant { expected_value } => format!("must be {expected_value}"),
        Kind::Enum { options } => format!("must be one of {options}"),
        Kind::Format { format } => format!("must be of the format {format:?}"),
        Kind::Pattern { pattern } => format!("must match the pattern {pattern:?}"),
        Kind::Minimum { limit } => format!("must be {limit} or more"),
        Kind::Maximum { limit } => format!("must be {limit} or less"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("must have {} or more", count(*limit, "character")),
        Kind::MaxLength { limit } => format!("must have {} or fewer", count(*limit, "character")),
        Kind::MinItems { limit } => format!("must have {} or more", count(*limit, "item")),
        Kind::MaxItems { limit } => format!("must have {} or fewer", count(*limit, "item")),
        Kind::MinProperties { limit } => format!("must have {} or more", count(*limit, "member")),
        Kind::MaxProperties { limit } => format!("must have {} or fewer", count(*limit, "member")),
        Kind::AdditionalItems { limit } => {
            format!("must have {} or fewer", count(*limit as u64, "item"))
        }
        Kind::UnevaluatedItems { .. } => "has items that are not known here".to_owned(),
        Kind::UniqueItems => "must not have an item twice".to_owned(),
        Kind::Contains => "has too few or too many items of the kind that is wanted".to_owned(),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => {
            "is none of the things that it may be".to_owned()
        }
        Kind::OneOfMultipleValid { .. } => {
            "is more than one of the things that it may be".to_owned()
        }
        Kind::Not { .. } => "is what it must not be".to_owned(),
        Kind::FalseSchema => "must not be here".to_owned(),
        Kind::PropertyNames { error } => {
            format!("has a member whose name {}", describe(error.kind()))
        }
        Kind::ContentEncoding { content_encoding } => {
            format!("must be encoded as {content_encoding}")
        }
        Kind::ContentMediaType { content_media_type } => {
            format!("must be of the type {content_media_type}")
        }
        other => format!("does not satisfy {:?}", other.keyword()),
    }
}

fn count(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

fn article(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "a list",
        JsonType::Object => "an object",
    }
}

/// JSON as [`crate::json::read`] gives it.
pub struct Read;

impl Json for Read {
    type Node<'a> = &'a Value<'a>;
    type PreparedKey = String;
    type StringBuffer = ();

    /// A look-up compares lengths first; a pass over the members would look up each of them.
    const KEYS_PER_LOOKUP: usize = 0;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), string: &str, then: impl FnOnce(Self::Node<'_>) -> T) -> T {
        then(&Value::String(Cow::Borrowed(string)))
    }
}

/// What errors are told that a value is: they are put into our words without it.
static UNTOLD: Owned = Owned::Null;

impl<'a> Node<'a, Read> for &'a Value<'a> {
    type Object = &'a Object<'a>;
    type Array = &'a [Value<'a>];
    type Number = Number<'a>;

    fn as_object(&self) -> Option<&'a Object<'a>> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<&'a [Value<'a>]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Value::String(text) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<Number<'a>> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Owned) -> bool {
        equal(self, expected)
    }

    /// Only errors ask, once `equals_value` and `is_unique` do not.
    fn to_value(&self) -> Cow<'a, Owned> {
        Cow::Borrowed(&UNTOLD)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Value>(self) as usize))
    }
}

/// Equality with a value of the schema.
fn equal(value: &Value<'_>, expected: &Owned) -> bool {
    match (value, expected) {
        (Value::Null, Owned::Null) => true,
        (Value::Bool(left), Owned::Bool(right)) => left == right,
        (Value::Number(left), Owned::Number(right)) => {
            let text = right.as_str();
            let is_integer = !text.contains(['.', 'e', 'E']);
            Number::parse(text, is_integer).is_some_and(|right| *left == right)
        }
        (Value::String(left), Owned::String(right)) => left == right,
        (Value::Array(left), Owned::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Owned::Object(right)) => {
            left.len() == right.len()
                && right
                    .iter()
                    .all(|(name, right)| left.get(name).is_some_and(|left| equal(left, right)))
        }
        _ => false,
    }
}

impl<'a> ObjectOf<'a, Read> for &'a Object<'a> {
    type Node = &'a Value<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        Object::len(self)
    }

    fn get(&self, key: &String) -> Option<&'a Value<'a>> {
        Object::get(self, key)
    }

    fn members(&self) -> Members<'a> {
        Members(Object::members(self).iter())
    }
}

/// Names and values of one object.
pub struct Members<'a>(slice::Iter<'a, (Cow<'a, str>, Value<'a>)>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (&**name, value))
    }
}

impl<'a> Array<'a, Read> for &'a [Value<'a>] {
    type Node = &'a Value<'a>;
    type ElementsIter = slice::Iter<'a, Value<'a>>;

    fn len(&self) -> usize {
        <[Value<'_>]>::len(self)
    }

    fn elements(&self) -> slice::Iter<'a, Value<'a>> {
        self.iter()
    }

    /// By sorting: a stranger chooses the items, and no choice of them makes this slow.
    fn is_unique(&self) -> bool {
        let mut items: Vec<&Value<'_>> = self.iter().collect();
        items.sort_unstable_by(|left, right| left.arbitrary_cmp(right));
        items
            .windows(2)
            .all(|pair| pair[0].arbitrary_cmp(pair[1]).is_ne())
    }
}

impl JsonNumber for Number<'_> {
    fn as_u64(&self) -> Option<u64> {
        Number::as_u64(self)
    }

    fn as_i64(&self) -> Option<i64> {
        Number::as_i64(self)
    }

    fn as_f64(&self) -> Option<f64> {
        Some(self.to_f64()).filter(|float| float.is_finite())
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.text())
    }

    fn to_number(&self) -> Cow<'_, serde_json::Number> {
        Cow::Owned(self.text().parse().expect("the reader knows the grammar"))
    }

    fn is_integer(&self) -> bool {
        // `1.0` and `1e2` are integers (validation, section 6.1.1).
        self.is_whole()
    }

    fn is_written_as_integer(&self) -> bool {
        Number::is_written_as_integer(self)
    }
}

#[cfg(test)]
mod tests {
    use super::{FAULTS_MAX, Schema};
    use crate::json::{Limits, read};
    use crate::problem::{Fault, Place};

    fn faults(schema: &str, text: &str) -> Vec<(String, String, String)> {
        let schema = Schema::compile(schema).unwrap();
        let value = read(text.as_bytes(), Limits::default()).unwrap();
        let faults = schema.check(&value).err().unwrap_or_default();
        let told = |fault: Fault| match fault.place {
            Place::Body(pointer) => (pointer, fault.keyword.unwrap(), fault.detail),
            place => panic!("{place:?}"),
        };
        faults.into_iter().map(told).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_told_where_it_is() {
        let schema = r#"{
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "age": {"type": "integer", "minimum": 0},
                "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": true},
                "when": {"format": "date"}
            },
            "required": ["name", "a/b"],
            "additionalProperties": false
        }"#;
        let text = r#"{"age": -1, "tags": ["a", "c", "a"], "when": "today", "~": 0}"#;
        let mut told = faults(schema, text);
        told.sort();
        let fault = |pointer: &str, keyword: &str, detail: &str| {
            (pointer.to_owned(), keyword.to_owned(), detail.to_owned())
        };
        let mut wanted = [
            fault("/name", "required", "is required"),
            fault("/a~1b", "required", "is required"),
            fault("/age", "minimum", "must be 0 or more"),
            fault("/tags/1", "enum", r#"must be one of ["a","b"]"#),
            fault("/tags", "uniqueItems", "must not have an item twice"),
            fault("/when", "format", r#"must be of the format "date""#),
            fault("/~0", "additionalProperties", "is not known here"),
        ];
        wanted.sort();
        assert_eq!(told, wanted);
    }

    #[test]
    fn nothing_that_was_sent_is_repeated() {
        for (schema, text) in [
            (r#"{"type": "integer"}"#, r#""secret""#),
            (r#"{"enum": [1]}"#, r#""secret""#),
            (r#"{"format": "uuid"}"#, r#""secret""#),
            (r#"{"not": {"type": "string"}}"#, r#""secret""#),
            (r#"{"oneOf": [{"type": "null"}]}"#, r#""secret""#),
            (r#"{"uniqueItems": true}"#, r#"["secret", "secret"]"#),
            (r#"{"unevaluatedItems": false}"#, r#"["secret"]"#),
            (r#"{"contains": {"type": "null"}}"#, r#"["secret"]"#),
        ] {
            let told = faults(schema, text);
            assert!(!told.is_empty());
            assert!(!format!("{told:?}").contains("secret"), "{told:?}");
        }
    }

    #[test]
    fn faults_have_a_limit() {
        let items = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        let schema = r#"{"items": {"type": "string"}}"#;
        assert_eq!(faults(schema, &items(FAULTS_MAX)).len(), FAULTS_MAX);
        assert_eq!(faults(schema, &items(FAULTS_MAX + 1)).len(), FAULTS_MAX);
    }

    #[test]
    fn integers_beyond_floats_are_compared_exactly() {
        let schema = r#"{"type": "integer", "maximum": 9007199254740993}"#;
        assert_eq!(faults(schema, "9007199254740993"), []);
        assert_eq!(faults(schema, "9007199254740994").len(), 1);
        assert_eq!(faults(schema, "-123456789012345678901234567890"), []);
        let schema = r#"{"const": 123456789012345678901234567890}"#;
        assert_eq!(faults(schema, "123456789012345678901234567890"), []);
        assert_eq!(faults(schema, "123456789012345678901234567891").len(), 1);
    }

    #[test]
    fn what_is_no_schema_says_why() {
        for (text, why) in [
            ("{", "no JSON"),
            (r#"{"type": "text"}"#, "/type"),
            (r##"{"$ref": "#/$defs/a"}"##, "a"),
            (r#"{"$ref": "https://example.com/s"}"#, "example.com"),
            (r#"{"pattern": "(?=a)"}"#, "pattern"),
        ] {
            let said = Schema::compile(text).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }
}
