//! Units of measurement: which words are units, what they measure, and how they convert.
//!
//! A unit that is not in the table (apples, students) has no dimension, and conflicts with nothing.

use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

/// What a unit measures, as powers of base units, and its size in these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Sorted by name; exponents are not 0.
    pub dimension: Vec<(&'static str, i32)>,
    pub factor: RBig,
}

/// Name, base unit, numerator and denominator of its size.
const TABLE: &[(&str, &str, i64, u64)] = &[
    ("m", "length", 1, 1),
    ("meter", "length", 1, 1),
    ("metre", "length", 1, 1),
    ("cm", "length", 1, 100),
    ("centimeter", "length", 1, 100),
    ("centimetre", "length", 1, 100),
    ("mm", "length", 1, 1000),
    ("millimeter", "length", 1, 1000),
    ("millimetre", "length", 1, 1000),
    ("dm", "length", 1, 10),
    ("km", "length", 1000, 1),
    ("kilometer", "length", 1000, 1),
    ("kilometre", "length", 1000, 1),
    ("in", "length", 254, 10_000),
    ("inch", "length", 254, 10_000),
    ("inches", "length", 254, 10_000),
    ("ft", "length", 3048, 10_000),
    ("foot", "length", 3048, 10_000),
    ("feet", "length", 3048, 10_000),
    ("yard", "length", 9144, 10_000),
    ("yd", "length", 9144, 10_000),
    ("mile", "length", 1_609_344, 1000),
    ("mi", "length", 1_609_344, 1000),
    ("米", "length", 1, 1),
    ("厘米", "length", 1, 100),
    ("千米", "length", 1000, 1),
    ("公里", "length", 1000, 1),
    ("gm", "mass", 1, 1),
    ("nmi", "length", 1852, 1),
    ("unit", "unit", 1, 1),
    ("revolution", "revolution", 1, 1),
    ("kb", "byte", 1000, 1),
    ("mb", "byte", 1_000_000, 1),
    ("gb", "byte", 1_000_000_000, 1),
    ("tb", "byte", 1_000_000_000_000, 1),
    ("g", "mass", 1, 1),
    ("gram", "mass", 1, 1),
    ("kg", "mass", 1000, 1),
    ("kilogram", "mass", 1000, 1),
    ("mg", "mass", 1, 1000),
    ("milligram", "mass", 1, 1000),
    ("ton", "ton", 1, 1),
    ("tonne", "mass", 1_000_000, 1),
    ("lb", "mass", 45_359_237, 100_000),
    ("lbs", "mass", 45_359_237, 100_000),
    ("pound", "mass", 45_359_237, 100_000),
    ("ounce", "mass", 45_359_237, 1_600_000),
    ("oz", "mass", 45_359_237, 1_600_000),
    ("克", "mass", 1, 1),
    ("千克", "mass", 1000, 1),
    ("公斤", "mass", 1000, 1),
    ("s", "time", 1, 1),
    ("sec", "time", 1, 1),
    ("second", "time", 1, 1),
    ("min", "time", 60, 1),
    ("minute", "time", 60, 1),
    ("mins", "time", 60, 1),
    ("h", "time", 3600, 1),
    ("hr", "time", 3600, 1),
    ("hrs", "time", 3600, 1),
    ("hour", "time", 3600, 1),
    ("day", "time", 86_400, 1),
    ("week", "time", 604_800, 1),
    ("month", "month", 1, 1),
    ("year", "month", 12, 1),
    ("秒", "time", 1, 1),
    ("分钟", "time", 60, 1),
    ("小时", "time", 3600, 1),
    ("天", "time", 86_400, 1),
    ("l", "volume", 1, 1),
    ("liter", "volume", 1, 1),
    ("litre", "volume", 1, 1),
    ("ml", "volume", 1, 1000),
    ("milliliter", "volume", 1, 1000),
    ("gallon", "gallon", 1, 1),
    ("quart", "gallon", 1, 4),
    ("pint", "gallon", 1, 8),
    ("cup", "gallon", 1, 16),
    ("dollar", "dollar", 1, 1),
    ("usd", "dollar", 1, 1),
    ("cent", "dollar", 1, 100),
    ("euro", "euro", 1, 1),
    ("eur", "euro", 1, 1),
    ("pound-sterling", "pound-sterling", 1, 1),
    ("gbp", "pound-sterling", 1, 1),
    ("yuan", "yuan", 1, 1),
    ("rmb", "yuan", 1, 1),
    ("元", "yuan", 1, 1),
    ("rupee", "rupee", 1, 1),
    ("rs", "rupee", 1, 1),
    ("radian", "radian", 1, 1),
    ("rad", "radian", 1, 1),
    ("newton", "newton", 1, 1),
    ("joule", "joule", 1, 1),
    ("watt", "watt", 1, 1),
    ("volt", "volt", 1, 1),
    ("hertz", "hertz", 1, 1),
    ("ampere", "ampere", 1, 1),
    ("pa", "pascal", 1, 1),
    ("yen", "yen", 1, 1),
    ("hectare", "area-hectare", 1, 1),
    ("acre", "area-acre", 1, 1),
    ("decade", "month", 120, 1),
    ("century", "month", 1200, 1),
    ("dime", "dollar", 10, 100),
    ("nickel", "dollar", 5, 100),
    ("penny", "dollar", 1, 100),
    ("pennies", "dollar", 1, 100),
    ("celsius", "celsius", 1, 1),
    ("fahrenheit", "fahrenheit", 1, 1),
];

/// Units that take prefixes, with the name of what they measure.
const PREFIXED: [(&str, &str); 10] = [
    ("m", "length"),
    ("g", "mass"),
    ("s", "time"),
    ("L", "volume"),
    ("W", "watt"),
    ("V", "volt"),
    ("A", "ampere"),
    ("N", "newton"),
    ("J", "joule"),
    ("Hz", "hertz"),
];

/// Prefixes and the power of ten each of them stands for.
const PREFIXES: [(char, i64); 8] = [('p', -12), ('n', -9), ('µ', -6), ('m', -3), ('c', -2), ('d', -1), ('k', 3), ('M', 6)];

/// A symbol with a prefix, written with the capitals that it needs: `kW`, `MW`, `nm`.
fn prefixed(word: &str) -> Option<(&'static str, RBig)> {
    let mut chars = word.chars();
    let (_, exponent) = PREFIXES.iter().find(|(c, _)| Some(*c) == chars.clone().next())?;
    chars.next();
    let (_, base) = PREFIXED.iter().find(|(symbol, _)| *symbol == chars.as_str())?;
    Some((base, super::number::power_of_ten(*exponent)?))
}

/// Whether a word is a symbol with a prefix, so that its capitals matter.
pub(super) fn has_prefix(word: &str) -> bool {
    prefixed(word).is_some()
}

/// Whether a word of two or three letters is a unit even where it stands directly behind a number: `5cm`, not `2rs`.
pub(super) fn is_symbol(word: &str) -> bool {
    matches!(
        word,
        "cm" | "mm"
            | "km"
            | "dm"
            | "kg"
            | "mg"
            | "ml"
            | "mL"
            | "ft"
            | "lb"
            | "lbs"
            | "hrs"
            | "min"
            | "mins"
            | "sec"
            | "mph"
            | "kmh"
            | "kph"
            | "oz"
            | "元"
            | "米"
            | "厘米"
            | "千米"
            | "公里"
            | "小时"
            | "分钟"
    )
}

fn lookup(word: &str) -> Option<(&'static str, RBig)> {
    if let Some(found) = prefixed(word) {
        return Some(found);
    }
    let find = |word: &str| {
        TABLE.iter().find(|(name, ..)| *name == word).map(|(_, base, a, b)| (*base, RBig::from_parts(IBig::from(*a), UBig::from(*b))))
    };
    // A plural loses its s; `s` and `rs` are units themselves.
    find(word)
        .or_else(|| find(word.strip_suffix('s').filter(|w| w.len() > 1)?))
        .or_else(|| find(word.strip_suffix("es").filter(|w| w.len() > 2)?))
}

/// Whether a word is a unit of the table.
pub(super) fn known(word: &str) -> bool {
    // A single capital is a letter: `5 M` are no metres.
    let capital = word.len() == 1 && word.bytes().all(|b| b.is_ascii_uppercase());
    matches!(word, "mph" | "kmh" | "kph") || prefixed(word).is_some() || (!capital && lookup(&word.to_lowercase()).is_some())
}

/// The unit that a phrase names: `square feet`, `cm^2`, `km/h`, `miles per hour`; `None` if any part of it is not in the table.
pub(super) fn read(phrase: &str) -> Option<Unit> {
    let mut phrase = phrase.replace(" per ", "/").replace("nautical mile", "nmi");
    for (short, long) in [("mph", "mile/hour"), ("kmh", "km/hour"), ("kph", "km/hour")] {
        if phrase == short {
            phrase = long.to_owned();
        }
    }
    let mut unit = Unit { dimension: Vec::new(), factor: RBig::ONE };
    for (i, side) in phrase.split('/').enumerate() {
        let sign = if i == 0 { 1 } else { -1 };
        let mut power = 1;
        for word in side.split_whitespace() {
            match word {
                "square" | "sq" => power = 2,
                "cubic" | "cu" => power = 3,
                "平方" => power = 2,
                "squared" => unit.raise_last(2)?,
                "cubed" => unit.raise_last(3)?,
                word => {
                    let (name, exponent) = word.split_once('^').map_or(Some((word, 1)), |(name, e)| Some((name, e.parse().ok()?)))?;
                    let (base, factor) = lookup(name)?;
                    unit.multiply(base, &factor, sign * power * exponent)?;
                    power = 1;
                }
            }
        }
    }
    (!unit.dimension.is_empty()).then_some(unit)
}

impl Unit {
    fn multiply(&mut self, base: &'static str, factor: &RBig, exponent: i32) -> Option<()> {
        // A litre is a cubic decimetre.
        let (base, factor, exponent) = if base == "volume" {
            let cube = factor / RBig::from(1000);
            if exponent.abs() != 1 {
                return None;
            }
            self.scale(&cube, exponent)?;
            ("length", RBig::ONE, 3 * exponent)
        } else {
            (base, factor.clone(), exponent)
        };
        self.scale(&factor, exponent)?;
        match self.dimension.iter_mut().find(|(name, _)| *name == base) {
            Some((_, e)) => *e += exponent,
            None => self.dimension.push((base, exponent)),
        }
        self.dimension.retain(|(_, e)| *e != 0);
        self.dimension.sort_unstable();
        Some(())
    }

    fn scale(&mut self, factor: &RBig, exponent: i32) -> Option<()> {
        if exponent.abs() > 6 {
            return None;
        }
        for _ in 0..exponent.abs() {
            if exponent > 0 {
                self.factor *= factor;
            } else {
                self.factor /= factor;
            }
        }
        Some(())
    }

    fn raise_last(&mut self, power: i32) -> Option<()> {
        if self.dimension.len() != 1 {
            return None;
        }
        let factor = self.factor.clone();
        for _ in 1..power {
            self.factor *= &factor;
        }
        self.dimension[0].1 *= power;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_one_dimension_convert() {
        let ratio = |a: &str, b: &str| {
            let (a, b) = (read(a)?, read(b)?);
            (a.dimension == b.dimension).then(|| (a.factor / b.factor).to_string())
        };
        assert_eq!(ratio("m", "cm"), Some("100".into()));
        assert_eq!(ratio("square feet", "inches^2"), Some("144".into()));
        assert_eq!(ratio("km/h", "m/s"), Some("5/18".into()));
        assert_eq!(ratio("liters", "cm^3"), Some("1000".into()));
        assert_eq!(ratio("dollars", "cents"), Some("100".into()));
        assert_eq!(ratio("years", "months"), Some("12".into()));
        assert_eq!(ratio("cm", "cm^2"), None);
        assert_eq!(ratio("hours", "miles"), None);
        assert_eq!(read("apples"), None);
        assert_eq!(read("green apples per hour"), None);
    }
}
