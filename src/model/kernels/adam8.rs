//! AdamW with both moments in 8 bits: blocks of 256 numbers, each a code times the block's largest magnitude.
//!
//! Source: Dettmers et al., "8-bit optimizers via block-wise quantization" (ICLR 2022), whose dynamic map this has: seven decades, each with twice as many steps as
//! the one below it. Two things differ. The square root of the second moment is stored, which halves its range in decades, and its code is never 0 unless the moment is: a
//! first moment over a second one that was rounded away would be a leap. And codes are rounded up or down at random in proportion to the distance, so that changes
//! far below a step (a second moment moves by a thousandth) are right on average in place of lost; the draw belongs to step and place.

use super::AdamW;
use crate::key::Key;
use rayon::prelude::*;
use std::sync::LazyLock;

/// Numbers that share a scale.
pub const BLOCK: usize = 256;
/// Blocks that one task takes.
const BLOCKS_PER_TASK: usize = 64;

/// Magnitudes of the codes in rising order; code 0 is 0.
struct Map {
    values: [f32; 256],
    codes: usize,
    /// By the upper bits of a number: the code of the largest magnitude that is at most the smallest number with these bits.
    start: Vec<u8>,
}

/// Upper bits of the numbers from 2^-31 to 1.
const SHIFT: u32 = 17;
const LOWEST: u32 = (127 - 31) << (23 - SHIFT);
const HIGHEST: u32 = 127 << (23 - SHIFT);

impl Map {
    /// 0, seven decades up to 1 (10^-6 to 10^0, decade i with `steps << i` midpoints of even parts of (0.1, 1)), and 1, the last of `codes`.
    fn new(steps: usize, codes: usize) -> Self {
        let mut values = vec![0f32];
        for i in 0..7 {
            let n = steps << i;
            let decade = 10f64.powi(i - 6);
            values.extend((0..n).map(|k| (decade * (0.1 + 0.9 * (k as f64 + 0.5) / n as f64)) as f32));
        }
        values.truncate(codes - 1);
        values.push(1.0);
        let below = |x: f32| values.iter().rposition(|v| *v <= x).unwrap_or(0) as u8;
        let start = (LOWEST..=HIGHEST).map(|bits| below(f32::from_bits(bits << SHIFT))).collect();
        let mut all = [1f32; 256];
        all[..values.len()].copy_from_slice(&values);
        Self { values: all, codes, start }
    }

    /// The code of `x` in [0, 1], rounded up where `draw`, uniform in [0, 1), is below its share of the way to the next.
    fn encode(&self, x: f32, draw: f32) -> u8 {
        let bits = x.to_bits() >> SHIFT;
        let mut code = if bits <= LOWEST { 0 } else { self.start[(bits.min(HIGHEST) - LOWEST) as usize] as usize };
        while code + 1 < self.codes && self.values[code + 1] <= x {
            code += 1;
        }
        if code + 1 == self.codes {
            return code as u8;
        }
        let (low, high) = (self.values[code], self.values[code + 1]);
        (code + usize::from(x - low > draw * (high - low))) as u8
    }
}

/// With a sign: codes 0 to 127 are positive, 128 + c is -c.
static SIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(1, 128));
static UNSIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(2, 256));

/// The moments of one parameter, as codes and scales.
pub struct Moments<'a> {
    pub m: &'a mut [u8],
    /// Of the square root of the second moment.
    pub r: &'a mut [u8],
    /// Largest magnitude of each block of `m` and of `r`.
    pub m_scale: &'a mut [f32],
    pub r_scale: &'a mut [f32],
}

fn first(code: u8, scale: f32) -> f32 {
    let magnitude = SIGNED.values[usize::from(code & 127)] * scale;
    if code & 128 == 0 { magnitude } else { -magnitude }
}

impl AdamW {
    /// `step` on moments in 8 bits; `key` is that of the parameter at this step.
    pub fn step_8bit(&self, w: &mut [f32], moments: Moments, g: &[f32], key: Key) {
        let task = BLOCK * BLOCKS_PER_TASK;
        let Moments { m, r, m_scale, r_scale } = moments;
        let numbers = w.par_chunks_mut(task).zip(m.par_chunks_mut(task)).zip(r.par_chunks_mut(task)).zip(g.par_chunks(task));
        let scales = m_scale.par_chunks_mut(BLOCKS_PER_TASK).zip(r_scale.par_chunks_mut(BLOCKS_PER_TASK));
        numbers.zip(scales).enumerate().for_each(|(i, ((((w, m), r), g), (m_scale, r_scale)))| {
            let blocks = w.chunks_mut(BLOCK).zip(m.chunks_mut(BLOCK)).zip(r.chunks_mut(BLOCK)).zip(g.chunks(BLOCK));
            for (j, ((((w, m), r), g), (m_scale, r_scale))) in blocks.zip(m_scale.iter_mut().zip(r_scale)).enumerate() {
                self.block(w, (m, m_scale), (r, r_scale), g, key, (i * BLOCKS_PER_TASK + j) as u32);
            }
        });
    }

    fn block(
        &self,
        w: &mut [f32],
        (m, m_scale): (&mut [u8], &mut f32),
        (r, r_scale): (&mut [u8], &mut f32),
        g: &[f32],
        key: Key,
        place: u32,
    ) {
        let (b1, b2) = self.betas;
        let (mut new_m, mut new_r) = ([0f32; BLOCK], [0f32; BLOCK]);
        for i in 0..w.len() {
            let g = g[i] * self.scale;
            let old = UNSIGNED.values[usize::from(r[i])] * *r_scale;
            new_m[i] = b1 * first(m[i], *m_scale) + (1.0 - b1) * g;
            new_r[i] = (b2 * (old * old) + (1.0 - b2) * (g * g)).sqrt();
            w[i] = w[i] * self.decay - self.rate * new_m[i] / (new_r[i] / self.root + self.eps);
        }
        *m_scale = new_m.iter().fold(0f32, |top, x| top.max(x.abs()));
        *r_scale = new_r.iter().fold(0f32, |top, x| top.max(*x));
        let inverse = |scale: f32| if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let (m_inverse, r_inverse) = (inverse(*m_scale), inverse(*r_scale));
        for (quarter, first) in (0..w.len()).step_by(64).enumerate() {
            let words = key.blocks(place, quarter as u32 * 16);
            for (i, word) in (first..w.len().min(first + 64)).zip(words) {
                let draw = |bits: u32| bits as f32 * (1.0 / 65_536.0);
                let code = SIGNED.encode((new_m[i].abs() * m_inverse).min(1.0), draw(word >> 16));
                m[i] = if new_m[i] < 0.0 { code | 128 } else { code };
                let code = UNSIGNED.encode((new_r[i] * r_inverse).min(1.0), draw(word & 0xFFFF));
                r[i] = if new_r[i] > 0.0 { code.max(1) } else { code };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_rise_and_cover_seven_decades() {
        for (map, codes) in [(&*SIGNED, 128), (&*UNSIGNED, 256)] {
            assert_eq!(map.codes, codes);
            assert!(map.values[..map.codes].windows(2).all(|w| w[0] < w[1]));
            assert!(map.values[1] < 1e-6 && map.values[map.codes - 1] == 1.0);
        }
    }

    #[test]
    fn rounding_is_to_a_neighbour_and_right_on_average() {
        let mut stream = Key::new(1, "numbers").stream();
        for map in [&*SIGNED, &*UNSIGNED] {
            for _ in 0..2000 {
                let x = 10f64.powf(-8.0 * stream.unit()) as f32;
                let below = map.values[..map.codes].iter().rposition(|v| *v <= x).unwrap();
                let (low, high) = (map.values[below], map.values[(below + 1).min(map.codes - 1)]);
                let mut sum = 0.0;
                for draw in 0..1000 {
                    let value = map.values[usize::from(map.encode(x, (draw as f32 + 0.5) / 1000.0))];
                    assert!(value == low || value == high, "{x}: {value} is neither {low} nor {high}");
                    sum += f64::from(value);
                }
                let error = (sum / 1000.0 - f64::from(x)).abs();
                assert!(error <= 2e-3 * f64::from(high - low) + 1e-12, "{x}: mean {}", sum / 1000.0);
            }
            for (code, value) in map.values[..map.codes].iter().enumerate() {
                assert_eq!(usize::from(map.encode(*value, 0.0)), code, "a code's own value");
            }
        }
    }
}
