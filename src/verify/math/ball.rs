//! Complex numbers of high precision with a bound on their error, from which equality and difference follow with certainty.
//!
//! A `Ball` is a midpoint and an exponent: the true value is within 2^err of it, in each of its parts. Every operation enlarges the bound by what
//! it adds; a ball that is no longer small compared to its value decides nothing.

use super::No;
use astro_float::{BigFloat, Consts, RoundingMode, Sign};
use dashu_int::UBig;
use dashu_ratio::RBig;
use std::cell::RefCell;

/// Bits of a midpoint.
const P: usize = 256;
/// The exponent that stands for "no error" and for the size of zero.
const NONE: i64 = -1_000_000_000;
/// Values and errors beyond 2^±LIMIT decide nothing.
const LIMIT: i64 = 100_000;
const RM: RoundingMode = RoundingMode::None;

thread_local! {
    static CONSTS: RefCell<Option<Consts>> = const { RefCell::new(None) };
}

/// Runs `f` with this thread's table of constants.
fn with<T>(f: impl FnOnce(&mut Consts) -> T) -> Result<T, No> {
    CONSTS.with(|cell| {
        let mut slot = cell.borrow_mut();
        if slot.is_none() {
            *slot = Some(Consts::new().map_err(|_| No::Fuel)?);
        }
        slot.as_mut().map(f).ok_or(No::Fuel)
    })
}

#[derive(Clone, Debug)]
pub(super) struct Ball {
    re: BigFloat,
    im: BigFloat,
    err: i64,
}

/// How two balls compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Same {
    /// They agree to at least 100 bits, or both are 0 to 150 bits.
    Yes,
    /// The true values differ.
    No,
    Unknown,
}

fn exponent(x: &BigFloat) -> i64 {
    if x.is_zero() { NONE } else { x.exponent().map_or(LIMIT * 2, i64::from) }
}

impl Ball {
    fn new(re: BigFloat, im: BigFloat, err: i64) -> Result<Self, No> {
        let ball = Self { re, im, err };
        if ball.re.is_nan() || ball.im.is_nan() || ball.re.is_inf() || ball.im.is_inf() {
            return Err(No::Undefined);
        }
        if ball.size() > LIMIT || err > LIMIT || (ball.size() != NONE && ball.size() < -LIMIT) {
            return Err(No::Fuel);
        }
        Ok(ball)
    }

    /// A result whose midpoint was rounded: its last bit is part of the error.
    fn rounded(re: BigFloat, im: BigFloat, err: i64) -> Result<Self, No> {
        let size = exponent(&re).max(exponent(&im));
        let last = if size == NONE { NONE } else { size - P as i64 + 4 };
        Self::new(re, im, if err == NONE { last } else { err.max(last) + 1 })
    }

    fn real(re: BigFloat, err: i64) -> Result<Self, No> {
        Self::rounded(re, BigFloat::new(P), err)
    }

    pub(super) fn integer(n: i64) -> Self {
        Self { re: BigFloat::from_i64(n, P), im: BigFloat::new(P), err: NONE }
    }

    pub(super) fn of_rational(value: &RBig) -> Result<Self, No> {
        let above = of_natural(
            &UBig::try_from(if *value < RBig::ZERO { -value.numerator() } else { value.numerator().clone() }).map_err(|_| No::Fuel)?,
        );
        let below = of_natural(value.denominator());
        let mut quotient = above.div(&below, P, RM);
        if *value < RBig::ZERO {
            quotient.inv_sign();
        }
        Self::real(quotient, NONE)
    }

    pub(super) fn pi() -> Result<Self, No> {
        Self::real(with(|c| c.pi(P, RM))?, NONE)
    }

    pub(super) fn e() -> Result<Self, No> {
        Self::real(with(|c| c.e(P, RM))?, NONE)
    }

    pub(super) fn i() -> Self {
        Self { re: BigFloat::new(P), im: BigFloat::from_i64(1, P), err: NONE }
    }

    /// An exponent that bounds both parts: they are below 2^size.
    pub(super) fn size(&self) -> i64 {
        exponent(&self.re).max(exponent(&self.im))
    }

    pub(super) fn is_real(&self) -> bool {
        exponent(&self.im) <= self.err.max(NONE)
    }

    /// Whether the imaginary part is 0 with no error at all.
    fn exactly_real(&self) -> bool {
        self.im.is_zero()
    }

    pub(super) fn contains_zero(&self) -> bool {
        self.size() <= self.err + 1
    }

    pub(super) fn is_negative(&self) -> bool {
        self.re.is_negative() && !self.re.is_zero()
    }

    /// The nearest integer below (or above), where the ball is far enough from one to know.
    pub(super) fn floor(&self, up: bool) -> Result<Self, No> {
        if !self.exactly_real() || self.size() > 200 {
            return Err(No::Unsupported);
        }
        let low = if up { self.re.ceil() } else { self.re.floor() };
        let distance = self.re.sub(&low, P, RM);
        let other = BigFloat::from_i64(1, P).sub(&distance.abs(), P, RM);
        if exponent(&distance) <= self.err + 1 || exponent(&other) <= self.err + 1 {
            return Err(No::Unsupported);
        }
        Self::new(low, BigFloat::new(P), NONE)
    }

    pub(super) fn neg(&self) -> Self {
        Self { re: self.re.neg(), im: self.im.neg(), err: self.err }
    }

    pub(super) fn conj(&self) -> Self {
        Self { re: self.re.clone(), im: self.im.neg(), err: self.err }
    }

    pub(super) fn re(&self) -> Self {
        Self { re: self.re.clone(), im: BigFloat::new(P), err: self.err }
    }

    pub(super) fn im(&self) -> Self {
        Self { re: self.im.clone(), im: BigFloat::new(P), err: self.err }
    }

    pub(super) fn add(&self, other: &Self) -> Result<Self, No> {
        // Addition rounds at the size of the larger operand, which cancellation does not undo.
        let size = self.size().max(other.size());
        let last = if size == NONE { NONE } else { size - P as i64 + 4 };
        let err = self.err.max(other.err);
        let err = if err == NONE && (self.size() == NONE || other.size() == NONE) { NONE } else { err.max(last) + 1 };
        Self::new(self.re.add(&other.re, P, RM), self.im.add(&other.im, P, RM), err)
    }

    pub(super) fn sub(&self, other: &Self) -> Result<Self, No> {
        self.add(&other.neg())
    }

    pub(super) fn mul(&self, other: &Self) -> Result<Self, No> {
        let mut err = NONE;
        for (size, e) in [(self.size(), other.err), (other.size(), self.err), (self.err, other.err)] {
            if size > NONE && e > NONE {
                err = err.max(size + e + 2);
            }
        }
        if self.exactly_real() && other.exactly_real() {
            return Self::real(self.re.mul(&other.re, P, RM), err);
        }
        let last = self.size() + other.size() - P as i64 + 6;
        let part = |a: &BigFloat, b: &BigFloat| a.mul(b, P, RM);
        let re = part(&self.re, &other.re).sub(&part(&self.im, &other.im), P, RM);
        let im = part(&self.re, &other.im).add(&part(&self.im, &other.re), P, RM);
        Self::new(re, im, if self.size() == NONE || other.size() == NONE { err } else { err.max(last) + 1 })
    }

    pub(super) fn div(&self, other: &Self) -> Result<Self, No> {
        self.mul(&other.inverse()?)
    }

    fn inverse(&self) -> Result<Self, No> {
        if self.contains_zero() {
            return Err(No::Undefined);
        }
        // |1/(z+d) - 1/z| <= 2 |d| / |z|^2 for |d| <= |z|/2; |z| >= 2^(size-1).
        let err = if self.err == NONE { NONE } else { self.err - 2 * (self.size() - 1) + 2 };
        if self.err != NONE && self.err > self.size() - 3 {
            return Err(No::Fuel);
        }
        if self.exactly_real() {
            return Self::real(self.re.reciprocal(P, RM), err);
        }
        let norm = self.re.mul(&self.re, P, RM).add(&self.im.mul(&self.im, P, RM), P, RM);
        Self::rounded(self.re.div(&norm, P, RM), self.im.neg().div(&norm, P, RM), err)
    }

    /// |z|
    pub(super) fn abs(&self) -> Result<Self, No> {
        if self.exactly_real() {
            return Ok(Self { re: self.re.abs(), im: BigFloat::new(P), err: self.err });
        }
        let norm = self.re.mul(&self.re, P, RM).add(&self.im.mul(&self.im, P, RM), P, RM);
        Self::real(norm.sqrt(P, RM), if self.err == NONE { NONE } else { self.err + 1 })
    }

    pub(super) fn exp(&self) -> Result<Self, No> {
        if self.size() > 16 || self.err > -20 {
            return Err(No::Fuel);
        }
        let scale = with(|c| self.re.exp(P, RM, c))?;
        let err = |size: i64| if self.err == NONE { NONE } else { self.err + size + 2 };
        if self.exactly_real() {
            let size = exponent(&scale);
            return Self::real(scale, err(size));
        }
        let (sin, cos) = with(|c| (self.im.sin(P, RM, c), self.im.cos(P, RM, c)))?;
        let size = exponent(&scale);
        let ball = Self::rounded(scale.mul(&cos, P, RM), scale.mul(&sin, P, RM), err(size))?;
        Ok(Self { err: ball.err.max(size - P as i64 + 8), ..ball })
    }

    /// The principal value; the cut is the negative real axis, which belongs to the upper side.
    pub(super) fn ln(&self) -> Result<Self, No> {
        if self.contains_zero() {
            return Err(No::Undefined);
        }
        let err = if self.err == NONE { NONE } else { self.err - self.size() + 3 };
        if err > -20 {
            return Err(No::Fuel);
        }
        if self.is_real() {
            let log = with(|c| self.re.abs().ln(P, RM, c))?;
            let im = if self.is_negative() { with(|c| c.pi(P, RM))? } else { BigFloat::new(P) };
            let floor = -(P as i64) + 8;
            let ball = Self::rounded(log, im, err)?;
            let err = if self.exactly_real() || err == NONE { ball.err } else { ball.err.max(floor) };
            return Ok(Self { err, ..ball });
        }
        let modulus = self.abs()?;
        let log = with(|c| modulus.re.ln(P, RM, c))?;
        let angle = self.angle()?;
        let ball = Self::rounded(log, angle, err)?;
        Ok(Self { err: ball.err.max(-(P as i64) + 8), ..ball })
    }

    /// The argument in (-π, π].
    fn angle(&self) -> Result<BigFloat, No> {
        let pi = with(|c| c.pi(P, RM))?;
        let half = pi.div(&BigFloat::from_i64(2, P), P, RM);
        let (x, y) = (&self.re, &self.im);
        if exponent(x) < exponent(y) {
            // Near the imaginary axis: ±π/2 minus the small angle.
            let small = with(|c| x.div(y, P, RM).atan(P, RM, c))?;
            let base = if y.is_negative() { half.neg() } else { half };
            return Ok(base.sub(&small, P, RM));
        }
        let small = with(|c| y.div(x, P, RM).atan(P, RM, c))?;
        Ok(match (x.is_negative(), y.is_negative()) {
            (false, _) => small,
            (true, false) => small.add(&pi, P, RM),
            (true, true) => small.sub(&pi, P, RM),
        })
    }

    pub(super) fn arg(&self) -> Result<Self, No> {
        if self.contains_zero() {
            return Err(No::Undefined);
        }
        self.ln().map(|ln| ln.im())
    }

    pub(super) fn sqrt(&self) -> Result<Self, No> {
        if self.size() == NONE && self.err == NONE {
            return Ok(Self::integer(0));
        }
        if self.contains_zero() {
            // sqrt of something within 2^err of 0 is within 2^(err/2) of 0.
            return Self::new(BigFloat::new(P), BigFloat::new(P), self.err / 2 + 1);
        }
        let err = if self.err == NONE { NONE } else { self.err - self.size() / 2 + 2 };
        if self.is_real() {
            let root = self.re.abs().sqrt(P, RM);
            return if self.is_negative() { Self::rounded(BigFloat::new(P), root, err) } else { Self::real(root, err) };
        }
        let half = Self::of_rational(&RBig::from_parts(1.into(), 2u8.into()))?;
        self.ln()?.mul(&half)?.exp()
    }

    /// z^w = exp(w ln z); an integer power by multiplication keeps real numbers real.
    pub(super) fn pow(&self, exponent: &Self) -> Result<Self, No> {
        if self.contains_zero() {
            if self.size() == NONE && self.err == NONE && exponent.is_real() && !exponent.is_negative() && !exponent.contains_zero() {
                return Ok(Self::integer(0));
            }
            return Err(No::Undefined);
        }
        self.ln()?.mul(exponent)?.exp()
    }

    /// An integer power by squaring.
    pub(super) fn powi(&self, n: i64) -> Result<Self, No> {
        if n < 0 {
            return self.powi(-n)?.inverse();
        }
        if n == 0 {
            return if self.contains_zero() { Err(No::Undefined) } else { Ok(Self::integer(1)) };
        }
        let (mut result, mut square, mut n) = (Self::integer(1), self.clone(), n);
        loop {
            if n & 1 == 1 {
                result = result.mul(&square)?;
            }
            n >>= 1;
            if n == 0 {
                return Ok(result);
            }
            square = square.mul(&square)?;
        }
    }

    /// sin z and cos z.
    pub(super) fn sin_cos(&self) -> Result<(Self, Self), No> {
        if self.size() > 200 || self.err > -20 {
            return Err(No::Fuel);
        }
        if self.exactly_real() {
            let (sin, cos) = with(|c| (self.re.sin(P, RM, c), self.re.cos(P, RM, c)))?;
            let err = if self.err == NONE { NONE } else { self.err + 1 };
            return Ok((Self::real(sin, err)?, Self::real(cos, err)?));
        }
        let iz = self.mul(&Self::i())?;
        let (up, down) = (iz.exp()?, iz.neg().exp()?);
        let two = Self::integer(2);
        let sin = up.sub(&down)?.div(&two.mul(&Self::i())?)?;
        let cos = up.add(&down)?.div(&two)?;
        Ok((sin, cos))
    }

    pub(super) fn atan(&self) -> Result<Self, No> {
        if self.exactly_real() {
            let atan = with(|c| self.re.atan(P, RM, c))?;
            return Self::real(atan, if self.err == NONE { NONE } else { self.err + 1 });
        }
        // atan z = (i/2) (ln(1 - iz) - ln(1 + iz))
        let one = Self::integer(1);
        let iz = self.mul(&Self::i())?;
        let logs = one.sub(&iz)?.ln()?.sub(&one.add(&iz)?.ln()?)?;
        logs.mul(&Self::i())?.div(&Self::integer(2))
    }

    pub(super) fn asin(&self) -> Result<Self, No> {
        let one = Self::integer(1);
        let rest = one.sub(&self.mul(self)?)?;
        if self.exactly_real() && rest.contains_zero() {
            let half = Self::pi()?.div(&Self::integer(2))?;
            let half = if self.is_negative() { half.neg() } else { half };
            let slack = if rest.err == NONE { half.err } else { half.err.max(rest.err / 2 + 2) };
            return Ok(Self { err: slack, ..half });
        }
        if self.exactly_real() && !rest.is_negative() {
            return self.div(&rest.sqrt()?)?.atan();
        }
        // asin z = -i ln(iz + sqrt(1 - z^2))
        let iz = self.mul(&Self::i())?;
        Ok(iz.add(&rest.sqrt()?)?.ln()?.mul(&Self::i())?.neg())
    }

    pub(super) fn acos(&self) -> Result<Self, No> {
        Self::pi()?.div(&Self::integer(2))?.sub(&self.asin()?)
    }

    /// Whether two values are the same, as far as their errors tell.
    pub(super) fn same(&self, other: &Self) -> Same {
        let Ok(difference) = self.sub(other) else { return Same::Unknown };
        if !difference.contains_zero() {
            return Same::No;
        }
        let size = self.size().max(other.size());
        if difference.err <= size - 100 || difference.err <= -150 { Same::Yes } else { Same::Unknown }
    }

    /// The order of two real values; `None` where they are too close to tell or not real.
    pub(super) fn order(&self, other: &Self) -> Option<std::cmp::Ordering> {
        if !self.is_real() || !other.is_real() {
            return None;
        }
        let difference = self.sub(other).ok()?;
        match self.same(other) {
            Same::Yes => Some(std::cmp::Ordering::Equal),
            Same::No if difference.is_negative() => Some(std::cmp::Ordering::Less),
            Same::No => Some(std::cmp::Ordering::Greater),
            Same::Unknown => None,
        }
    }
}

/// A natural number, rounded to the bits of a midpoint.
fn of_natural(n: &UBig) -> BigFloat {
    let bytes = n.to_le_bytes();
    let mut words: Vec<u64> = bytes
        .chunks(8)
        .map(|chunk| {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        })
        .collect();
    while words.last() == Some(&0) {
        words.pop();
    }
    let Some(top) = words.last() else { return BigFloat::new(P) };
    // The mantissa has its highest bit set: 0.1… · 2^bits.
    let shift = top.leading_zeros();
    let bits = words.len() as i64 * 64 - i64::from(shift);
    if shift > 0 {
        let mut carry = 0;
        for word in &mut words {
            let next = *word >> (64 - shift);
            *word = (*word << shift) | carry;
            carry = next;
        }
    }
    let mut float = BigFloat::from_words(&words, Sign::Pos, bits.clamp(-1_000_000, 1_000_000) as i32);
    let _ = float.set_precision(P.max(64), RoundingMode::ToEven);
    float
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rational(a: i64, b: u64) -> Ball {
        Ball::of_rational(&RBig::from_parts(a.into(), b.into())).expect("small")
    }

    #[test]
    fn identities_hold_and_near_misses_are_told_apart() {
        let one = Ball::integer(1);
        let (sin, cos) = rational(1, 3).sin_cos().expect("defined");
        let sum = sin.mul(&sin).and_then(|a| a.add(&cos.mul(&cos)?)).expect("defined");
        assert_eq!(sum.same(&one), Same::Yes);
        assert_eq!(Ball::integer(2).sqrt().and_then(|r| r.mul(&r)).expect("defined").same(&Ball::integer(2)), Same::Yes);
        // e^(iπ) = -1
        let turn = Ball::pi().and_then(|pi| pi.mul(&Ball::i())).and_then(|z| z.exp()).expect("defined");
        assert_eq!(turn.same(&Ball::integer(-1)), Same::Yes);
        let tiny = Ball::integer(10).powi(-60).expect("defined");
        assert_eq!(one.add(&tiny).expect("defined").same(&one), Same::No);
        assert_eq!(tiny.same(&Ball::integer(0)), Same::No);
        assert_eq!(Ball::integer(-8).ln().and_then(|l| l.mul(&rational(1, 3))?.exp()).expect("defined").same(&Ball::integer(-2)), Same::No);
    }

    #[test]
    fn big_integers_become_the_nearest_float() {
        let n: UBig = "123456789012345678901234567890".parse().expect("digits");
        let back = Ball::of_rational(&RBig::from(n)).expect("fits");
        let by_parts = Ball::integer(1_234_567_890).mul(&Ball::integer(10).powi(20).expect("small")).expect("small");
        let rest = Ball::integer(1_234_567_890)
            .mul(&Ball::integer(10).powi(10).expect("small"))
            .and_then(|r| r.add(&Ball::integer(1_234_567_890)));
        assert_eq!(back.same(&by_parts.add(&rest.expect("small")).expect("small")), Same::Yes);
    }

    #[test]
    fn what_is_undefined_says_so() {
        assert!(matches!(Ball::integer(1).div(&Ball::integer(0)), Err(No::Undefined)));
        assert!(matches!(Ball::integer(0).ln(), Err(No::Undefined)));
        let (sin, _) = Ball::pi().and_then(|pi| pi.sin_cos()).expect("defined");
        assert!(sin.contains_zero() && matches!(Ball::integer(1).div(&sin), Err(No::Undefined)));
    }
}
