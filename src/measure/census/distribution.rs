//! Mean, extremes and quantiles of a number, in bounded memory.

use std::collections::BTreeMap;

/// Bins per factor of e: a quantile is off by 1 % at most.
const BINS: f64 = 50.0;

/// How values that are not negative are spread. Values that are not finite are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    count: usize,
    sum: f64,
    least: f64,
    most: f64,
    zeros: usize,
    /// Values by the logarithm of their size.
    bins: BTreeMap<i32, usize>,
}

impl Distribution {
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        self.least = if self.count == 0 { value } else { self.least.min(value) };
        self.most = self.most.max(value);
        self.count += 1;
        self.sum += value;
        if value == 0.0 {
            self.zeros += 1;
        } else {
            *self.bins.entry((value.ln() * BINS).round() as i32).or_default() += 1;
        }
    }

    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.least = if self.count == 0 { other.least } else { self.least.min(other.least) };
        self.most = self.most.max(other.most);
        self.count += other.count;
        self.sum += other.sum;
        self.zeros += other.zeros;
        other.bins.iter().for_each(|(bin, count)| *self.bins.entry(*bin).or_default() += count);
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// 0 without values.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// The value below which a share `q` in [0, 1] of all values lies, to 1 %; 0 without values.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = ((q * self.count as f64).ceil() as usize).max(1);
        let mut below = self.zeros;
        if rank <= below {
            return 0.0;
        }
        for (bin, count) in &self.bins {
            below += count;
            if rank <= below {
                return (f64::from(*bin) / BINS).exp().clamp(self.least, self.most);
            }
        }
        self.most
    }
}

/// Only what a reader wants: the bins stay inside.
impl serde::Serialize for Distribution {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let quantiles = [0.1, 0.5, 0.9, 0.99].map(|q| self.quantile(q));
        let names = ["p10", "p50", "p90", "p99"];
        let all = [("mean", self.mean()), ("min", self.least), ("max", self.most)].into_iter().chain(names.into_iter().zip(quantiles));
        let mut map: BTreeMap<&str, serde_json::Value> = all.map(|(name, value)| (name, value.into())).collect();
        map.insert("count", self.count.into());
        serde::Serialize::serialize(&map, serializer)
    }
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.count == 0 {
            return f.write_str("none");
        }
        let digits = |value: f64| if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
        let [p10, p50, p90] = [0.1, 0.5, 0.9].map(|q| digits(self.quantile(q)));
        write!(f, "mean {}, p10 {p10}, p50 {p50}, p90 {p90}, max {}", digits(self.mean()), digits(self.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_values_to_one_percent() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i * i)).collect();
        let mut all = Distribution::default();
        values.iter().for_each(|value| all.add(*value));
        for q in [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 1.0] {
            let exact = values[((q * 1000.0_f64).ceil() as usize).max(1) - 1];
            assert!((all.quantile(q) - exact).abs() <= 0.0101 * exact, "{q}: {} and {exact}", all.quantile(q));
        }
        assert_eq!((all.count(), all.quantile(1.0)), (1000, 998_001.0));
        assert!((all.mean() - values.iter().sum::<f64>() / 1000.0).abs() < 1e-6);
    }

    #[test]
    fn merged_parts_are_the_whole() {
        let values = [0.0, 3.0, 0.25, 7.0, 1e9, 0.0, 2.0];
        let mut whole = Distribution::default();
        values.iter().for_each(|value| whole.add(*value));
        for cut in 0..=values.len() {
            let (mut a, mut b) = (Distribution::default(), Distribution::default());
            values[..cut].iter().for_each(|value| a.add(*value));
            values[cut..].iter().for_each(|value| b.add(*value));
            a.merge(&b);
            assert_eq!(a, whole, "{cut}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_left_out() {
        let mut empty = Distribution::default();
        [f64::NAN, f64::INFINITY, -1.0].into_iter().for_each(|value| empty.add(value));
        assert_eq!((empty.count(), empty.mean(), empty.quantile(0.5), empty.to_string().as_str()), (0, 0.0, 0.0, "none"));
    }
}
