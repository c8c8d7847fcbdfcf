//! Plain values of Python as they come out of the sandbox, and when two of them are the same.
//!
//! A program's values are read as data here, outside: no method of theirs is ever asked. Two notions of sameness: that of JSON, where types must
//! match, and that of Python's `==` between plain values, for tests that are written with it.

use crate::sandbox::text;
use serde_json::Value as Json;
use serde_json::value::RawValue;

/// A value of a built-in type, or the name of another one, which is the same as nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i128),
    /// Beyond 128 bits, in hexadecimal.
    Big(String),
    Float(f64),
    Complex(f64, f64),
    /// UTF-8, in which lone surrogates may stand.
    Text(Vec<u8>),
    Bytes(String),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Set(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Range(Vec<u8>),
    Other,
}

/// What counts as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Same {
    /// The values that JSON has, type by type: 1, 1.0 and true are three values. A tuple is a list, since JSON cannot say more.
    Json,
    /// Python's `==`: numbers by value across types, tuples and lists differ.
    Python,
}

impl Value {
    /// Reads what `driver.py` writes. Text that a program has forged is `Other` or some plain value: it can say nothing else.
    pub(super) fn read(json: &Json) -> Self {
        match json {
            Json::Null => Self::None,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => n.as_i64().map_or(Self::Other, |n| Self::Int(n.into())),
            Json::String(text) => unhex(text).map_or(Self::Other, Self::Text),
            Json::Array(items) => Self::tagged(items).unwrap_or(Self::Other),
            Json::Object(_) => Self::Other,
        }
    }

    fn tagged(items: &[Json]) -> Option<Self> {
        let (tag, rest) = items.split_first()?;
        let text = |i: usize| rest.get(i)?.as_str();
        let all = || rest.iter().map(Self::read).collect::<Vec<_>>();
        Some(match tag.as_str()? {
            "i" => integer(text(0)?)?,
            "f" => Self::Float(float(text(0)?)?),
            "c" => Self::Complex(float(text(0)?)?, float(text(1)?)?),
            "b" => Self::Bytes(text(0)?.to_owned()),
            "l" => Self::List(all()),
            "t" => Self::Tuple(all()),
            "s" => Self::Set(all()),
            "d" if rest.len() % 2 == 0 => {
                Self::Dict(rest.chunks_exact(2).map(|pair| (Self::read(&pair[0]), Self::read(&pair[1]))).collect())
            }
            "r" => Self::Range(unhex(text(0)?)?),
            _ => return None,
        })
    }

    /// What a JSON text stands for. Numbers keep their type and all of their digits: 2 is an integer and 2.0 is none.
    pub(super) fn of_json(text: &str) -> Result<Self, String> {
        let value = match Shape::of(text)? {
            Shape::Null => Self::None,
            Shape::Bool(b) => Self::Bool(b),
            Shape::Number(n) if n.contains(['.', 'e', 'E']) => Self::Float(n.parse().map_err(|_| format!("{n} is no number"))?),
            Shape::Number(n) => n.parse().map_or_else(|_| Self::Big(hex(n)), Self::Int),
            Shape::Text(text) => Self::Text(text.into_bytes()),
            Shape::List(items) => Self::List(items.iter().map(|item| Self::of_json(item.get())).collect::<Result<_, _>>()?),
            Shape::Object(fields) => {
                let field = |(k, v): (String, &RawValue)| Ok::<_, String>((Self::Text(k.into_bytes()), Self::of_json(v.get())?));
                Self::Dict(fields.into_iter().map(field).collect::<Result<_, _>>()?)
            }
        };
        Ok(value)
    }

    /// Whether `self`, which a program gave, is the `expected` value.
    pub(super) fn is(&self, expected: &Self, same: Same) -> bool {
        use Value::*;
        let all = |a: &[Self], b: &[Self]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is(b, same));
        match (self, expected) {
            (None, None) => true,
            (Bool(a), Bool(b)) => a == b,
            (Text(a), Text(b)) | (Range(a), Range(b)) => a == b,
            (Bytes(a), Bytes(b)) => a == b,
            (List(a), List(b)) => all(a, b),
            (Tuple(a), Tuple(b)) => all(a, b),
            (Tuple(a), List(b)) => same == Same::Json && all(a, b),
            (Set(a), Set(b)) => a.len() == b.len() && matched(a, b, |a, b| a.is(b, same)),
            (Dict(a), Dict(b)) => {
                let key = |a: &Self, b: &Self| a.is(b, same) || same == Same::Json && a.is_key(b);
                a.len() == b.len() && matched(a, b, |(ka, va), (kb, vb)| key(ka, kb) && va.is(vb, same))
            }
            _ => match same {
                Same::Json => self.number().is_some() && self == expected,
                Same::Python => self.number().zip(expected.number()).is_some_and(|(a, b)| a.equals(&b)),
            },
        }
    }

    /// JSON writes every key as a text, so the integer 1 is the key "1".
    fn is_key(&self, text: &Self) -> bool {
        match (self, text) {
            (Self::Int(n), Self::Text(text)) => n.to_string().as_bytes() == text,
            _ => false,
        }
    }

    /// Whether nothing in it is beyond plain values.
    pub(super) fn is_plain(&self) -> bool {
        match self {
            Self::Other => false,
            Self::List(items) | Self::Tuple(items) | Self::Set(items) => items.iter().all(Self::is_plain),
            Self::Dict(items) => items.iter().all(|(k, v)| k.is_plain() && v.is_plain()),
            _ => true,
        }
    }

    /// Its value as a float where it is a real number.
    pub(super) fn real(&self) -> Option<f64> {
        match self {
            Self::Bool(b) => Some(f64::from(u8::from(*b))),
            Self::Int(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            _ => Option::None,
        }
    }

    /// Python's truth value; what is not plain is true, as objects are that say nothing else.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::None => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Big(_) => true,
            Self::Float(x) => *x != 0.0,
            Self::Complex(a, b) => *a != 0.0 || *b != 0.0,
            Self::Text(t) => !t.is_empty(),
            Self::Bytes(t) => !t.is_empty(),
            Self::List(items) | Self::Tuple(items) | Self::Set(items) => !items.is_empty(),
            Self::Dict(items) => !items.is_empty(),
            Self::Range(_) | Self::Other => true,
        }
    }

    fn number(&self) -> Option<Number<'_>> {
        Some(match self {
            Self::Bool(b) => Number::Int(i128::from(*b)),
            Self::Int(n) => Number::Int(*n),
            Self::Big(hex) => Number::Big(hex),
            Self::Float(x) => Number::Float(*x, 0.0),
            Self::Complex(a, b) => Number::Float(*a, *b),
            _ => return None,
        })
    }
}

enum Number<'a> {
    Int(i128),
    Big(&'a str),
    Float(f64, f64),
}

impl Number<'_> {
    /// Exactly, as Python compares an integer with a float.
    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Big(a), Self::Big(b)) => a == b,
            (Self::Float(a, c), Self::Float(b, d)) => a == b && c == d,
            (Self::Int(n), Self::Float(x, y)) | (Self::Float(x, y), Self::Int(n)) => {
                // Within these bounds the cast is exact, and above 2^53 every float is an integer.
                *y == 0.0 && x.fract() == 0.0 && x.abs() < 1e38 && *x as i128 == *n
            }
            _ => false,
        }
    }
}

/// Whether the items of two lists of one length can be paired, each with one that is the same.
fn matched<T>(a: &[T], b: &[T], is: impl Fn(&T, &T) -> bool) -> bool {
    let mut free: Vec<&T> = b.iter().collect();
    a.iter().all(|item| match free.iter().position(|other| is(item, other)) {
        Some(at) => {
            // Containers that were built alike have one order, so the first is nearly always the one.
            free.remove(at);
            true
        }
        None => false,
    })
}

/// A JSON value as a Python literal.
pub(super) fn literal(json: &str) -> Result<String, String> {
    Ok(match Shape::of(json)? {
        Shape::Null => "None".to_owned(),
        Shape::Bool(true) => "True".to_owned(),
        Shape::Bool(false) => "False".to_owned(),
        // Written alike in both languages.
        Shape::Number(n) => n.to_owned(),
        Shape::Text(string) => text(&string),
        Shape::List(items) => {
            let items: Result<String, String> = items.iter().map(|item| Ok(literal(item.get())? + ",")).collect();
            format!("[{}]", items?)
        }
        Shape::Object(fields) => {
            let field = |(k, v): (String, &RawValue)| Ok::<_, String>(format!("{}:{},", text(&k), literal(v.get())?));
            format!("{{{}}}", fields.into_iter().map(field).collect::<Result<String, _>>()?)
        }
    })
}

/// The outermost layer of a JSON text; `serde_json::Value` would round long numbers.
enum Shape<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(String),
    List(Vec<&'a RawValue>),
    Object(Vec<(String, &'a RawValue)>),
}

impl<'a> Shape<'a> {
    fn of(text: &'a str) -> Result<Self, String> {
        let text = text.trim();
        let bad = |error: serde_json::Error| format!("not JSON: {error}");
        Ok(match text.as_bytes().first() {
            Some(b'[') => Self::List(serde_json::from_str(text).map_err(bad)?),
            Some(b'{') => Self::Object(serde_json::from_str::<Fields>(text).map_err(bad)?.0),
            Some(b'"') => Self::Text(serde_json::from_str(text).map_err(bad)?),
            Some(b'n') => serde_json::from_str(text).map(|()| Self::Null).map_err(bad)?,
            Some(b't' | b'f') => Self::Bool(serde_json::from_str(text).map_err(bad)?),
            _ => Self::Number(serde_json::from_str::<&RawValue>(text).map_err(bad)?.get()),
        })
    }
}

/// The fields of an object in their order, each key once.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> serde::de::Visitor<'de> for Visitor<'a> {
            type Value = Fields<'a>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Fields<'a>, A::Error> {
                let mut fields: Vec<(String, &'a RawValue)> = Vec::new();
                while let Some(field) = map.next_entry::<String, &'a RawValue>()? {
                    fields.retain(|(key, _)| *key != field.0);
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Visitor(std::marker::PhantomData))
    }
}

/// A decimal integer in Python's hexadecimal form.
fn hex(decimal: &str) -> String {
    let (sign, digits) = decimal.strip_prefix('-').map_or(("", decimal), |rest| ("-", rest));
    let mut limbs: Vec<u32> = Vec::new(); // the lowest first
    for digit in digits.bytes() {
        let mut carry = u64::from(digit - b'0');
        for limb in &mut limbs {
            carry += u64::from(*limb) * 10;
            (*limb, carry) = (carry as u32, carry >> 32);
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    }
    let all: String = limbs.iter().rev().map(|limb| format!("{limb:08x}")).collect();
    format!("{sign}0x{}", all.trim_start_matches('0'))
}

fn integer(hex: &str) -> Option<Value> {
    let (sign, digits) = hex.strip_prefix('-').map_or(("", hex), |rest| ("-", rest));
    let digits = digits.strip_prefix("0x").filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let small = i128::from_str_radix(&format!("{sign}{digits}"), 16);
    Some(small.map_or_else(|_| Value::Big(hex.to_owned()), Value::Int))
}

fn float(text: &str) -> Option<f64> {
    // Python's spellings are among Rust's.
    text.parse().ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix('x').filter(|digits| digits.is_ascii() && digits.len() % 2 == 0)?;
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        Value::read(&serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn types_count_in_json_and_values_in_python() {
        let check = |got: &str, expected: &str, json: bool, python: bool| {
            let (a, b) = (value(got), value(expected));
            assert_eq!((a.is(&b, Same::Json), a.is(&b, Same::Python)), (json, python), "{got} {expected}");
        };
        check("1", "1", true, true);
        check("1", r#"["f","1.0"]"#, false, true);
        check("true", "1", false, true);
        check("true", "true", true, true);
        check("null", "false", false, false);
        check(r#""x31""#, "1", false, false);
        check(r#"["t",1,2]"#, r#"["l",1,2]"#, true, false);
        check(r#"["l",1,2]"#, r#"["t",1,2]"#, false, false);
        check(r#"["s",1,2]"#, r#"["s",2,1]"#, true, true);
        check(r#"["s",1,2]"#, r#"["l",1,2]"#, false, false);
        check(r#"["d","x61",1,"x62",2]"#, r#"["d","x62",2,"x61",1]"#, true, true);
        check(r#"["d",1,2]"#, r#"["d","x31",2]"#, true, false);
        check(r#"["i","0x10000000000000000000000000000000000"]"#, r#"["i","0x10000000000000000000000000000000000"]"#, true, true);
        check(r#"["i","0x20000000000000"]"#, r#"["f","9007199254740992.0"]"#, false, true);
        check(r#"["i","0x20000000000001"]"#, r#"["f","9007199254740992.0"]"#, false, false);
        check(r#"["f","nan"]"#, r#"["f","nan"]"#, false, false);
        check(r#"["c","1.0","0.0"]"#, "1", false, true);
        check(r#"["o","x41"]"#, r#"["o","x41"]"#, false, false);
        check(r#"["r","x31"]"#, r#"["r","x31"]"#, true, true);
    }

    #[test]
    fn what_no_driver_writes_is_nothing() {
        for text in ["{}", "[]", "[1]", r#"["q",1]"#, r#"["i","12"]"#, r#"["d",1]"#, r#""61""#, "1.5", r#"["f",1]"#, r#""x\u00e9\u00e9""#] {
            assert_eq!(value(text), Value::Other, "{text}");
        }
    }

    #[test]
    fn json_keeps_the_types_and_digits_of_its_numbers() {
        let one = |text: &str| Value::of_json(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(one("2"), Value::Int(2));
        assert_eq!(one(" 2.0 "), Value::Float(2.0));
        assert_eq!(one("-1e2"), Value::Float(-100.0));
        assert_eq!(one(&format!("-1{}", "0".repeat(40))), Value::Big("-0x1d6329f1c35ca4bfabb9f5610000000000".into()));
        assert_eq!(one("1000000000000000000000000000000"), Value::Int(10i128.pow(30)));
        assert_eq!(
            one(r#"{"1": null, "1": [true]}"#),
            Value::Dict(vec![(Value::Text(b"1".to_vec()), Value::List(vec![Value::Bool(true)]))])
        );
        for bad in ["", "nul", "[1", "01", "{1: 2}", "NaN", "[1] 2", "\"a"] {
            assert!(Value::of_json(bad).is_err() && literal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_becomes_python_literals() {
        let check = |json: &str, expect: &str| assert_eq!(literal(json).as_deref(), Ok(expect), "{json}");
        check(r#"[null, true, -3, 2.50, "a\"\\\n\u00e9\u4e00"]"#, "[None,True,-3,2.50,\"a\\\"\\\\\\n\\xe9\\u4e00\",]");
        check(r#"{"k": [1], "": {}}"#, "{\"k\":[1,],\"\":{},}");
        check("123456789012345678901234567890", "123456789012345678901234567890");
    }
}
