//! One TOML value read into a type, or a fault in the words of whoever wrote it: at which key, what is wanted there, what was found.
//!
//! It knows neither which keys there are nor what their values mean; that is `table.rs` and above.

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use toml::Value;

/// Why a value is not what its key wants.
#[derive(Debug)]
pub(super) struct Fault {
    /// From the key that was read down to the place, such as `.min` or `[2]`.
    pub below: String,
    /// What stands at the place, shortened; `None` where nothing does.
    pub found: Option<String>,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// `a whole number`, `text in quotes`, …
    Wanted(String),
    OneOf(&'static [&'static str]),
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    MissingKey(&'static str),
    /// A sentence of the type's own.
    Other(String),
}

/// Reads a value into a type.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    T::deserialize(At(value))
}

/// A value as it is written, at most 60 characters of it.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string().replace('\n', " ");
    if text.chars().count() > 60 { text.chars().take(60).chain(['…']).collect() } else { text }
}

impl Fault {
    fn new(what: What) -> Self {
        Self { below: String::new(), found: None, what }
    }

    fn under(mut self, place: &str) -> Self {
        self.below.insert_str(0, place);
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: std::fmt::Display>(text: T) -> Self {
        Self::new(What::Other(text.to_string()))
    }

    fn invalid_type(_: Unexpected, wanted: &dyn Expected) -> Self {
        Self::new(What::Wanted(in_words(&wanted.to_string(), false)))
    }

    fn invalid_value(_: Unexpected, wanted: &dyn Expected) -> Self {
        Self::new(What::Wanted(in_words(&wanted.to_string(), true)))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::OneOf(known))
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(What::MissingKey(key))
    }
}

/// What a type calls itself, as a person would; `range` asks for the numbers that it can hold.
fn in_words(wanted: &str, range: bool) -> String {
    let whole = |most: u64| if range { format!("a whole number from 0 to {most}") } else { "a whole number".into() };
    match wanted {
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        "u64" | "usize" if range => "a whole number, 0 or more".into(),
        "u64" | "usize" | "i64" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a string" | "path string" => "text in quotes".into(),
        name if name.starts_with("enum ") => "text in quotes".into(),
        name if name.starts_with("struct ") || name == "a map" => "a table".into(),
        other => other.into(),
    }
}

/// A value at its place.
struct At(Value);

impl At {
    /// Calls `read`, and notes what stood here where that fails and nothing deeper is to blame.
    fn with<T>(self, read: impl FnOnce(Value) -> Result<T, Fault>) -> Result<T, Fault> {
        let text = shown(&self.0);
        read(self.0).map_err(|mut fault| {
            fault.found.get_or_insert(text);
            fault
        })
    }
}

impl<'de> Deserializer<'de> for At {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.with(|value| match value {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(n) => visitor.visit_i64(n),
            Value::Float(x) => visitor.visit_f64(x),
            Value::Boolean(b) => visitor.visit_bool(b),
            Value::Datetime(when) => visitor.visit_string(when.to_string()),
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), n: 0 }),
            Value::Table(table) => visitor.visit_map(Pairs { pairs: table.into_iter(), open: None }),
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.with(|value| match value {
            Value::String(name) => visitor.visit_enum(name.into_deserializer()),
            _ => Err(Fault::new(What::Wanted("text in quotes".into()))),
        })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

impl IntoDeserializer<'_, Fault> for At {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Items {
    items: std::vec::IntoIter<Value>,
    n: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let place = format!("[{}]", self.n);
        self.n += 1;
        seed.deserialize(At(item)).map(Some).map_err(|fault| fault.under(&place))
    }
}

struct Pairs {
    pairs: toml::map::IntoIter<String, Value>,
    /// The key that was handed out and whose value is next.
    open: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Pairs {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((key, value)) = self.pairs.next() else { return Ok(None) };
        let name = seed.deserialize(key.clone().into_deserializer())?;
        self.open = Some((key, value));
        Ok(Some(name))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, value) = self.open.take().ok_or_else(|| de::Error::custom("a value is asked for before its key"))?;
        seed.deserialize(At(value)).map_err(|fault| fault.under(&format!(".{key}")))
    }
}
