//! What the benches share: the two shapes, the command line, the clock, and the lines they print.
//!
//! Shapes and definitions are those of `benches/peer/speed.py`, so that the lines of both can stand in one table. Knows nothing of what is timed.

use candle_core::{Device, Tensor};
use distill::key::Key;
use distill::model::{Decoder, Shape};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fewest timed repetitions behind a median.
const REPEATS: usize = 5;

/// Seconds that repetitions go on for, at least.
static SECONDS: AtomicU64 = AtomicU64::new(1);

/// A model shape that is measured: Qwen2, tied embeddings, random weights.
pub struct Bench {
    pub name: &'static str,
    pub shape: Shape,
    pub vocabulary: usize,
    /// Sequences of a training batch and their tokens.
    pub train: (usize, usize),
}

/// The tiny recipe's teacher, and 97.8M parameters.
pub fn benches() -> [Bench; 2] {
    let shape = |hidden_size, layers, heads, kv_heads, intermediate_size| Shape {
        hidden_size,
        layers,
        heads,
        kv_heads,
        intermediate_size,
        positions: 512,
    };
    [
        Bench { name: "tiny", shape: shape(96, 2, 4, 2, 256), vocabulary: 128, train: (32, 36) },
        Bench { name: "base", shape: shape(768, 12, 12, 2, 2048), vocabulary: 32_000, train: (4, 256) },
    ]
}

impl Bench {
    pub fn decoder(&self) -> Decoder {
        Decoder::fresh(&self.shape, self.vocabulary, 0, 0, Key::new(1, "bench"), &Device::Cpu).expect("the shape is a valid one")
    }

    /// `n` token ids drawn under a name.
    pub fn ids(&self, name: &str, n: usize) -> Vec<u32> {
        let mut stream = Key::new(7, name).stream();
        (0..n).map(|_| stream.below(self.vocabulary as u32)).collect()
    }

    /// (inputs, outputs) of every product with weights that a token goes through.
    pub fn products(&self) -> Vec<(usize, usize)> {
        let s = &self.shape;
        let qkv = (s.heads + 2 * s.kv_heads) * (s.hidden_size / s.heads);
        let layer = [
            (s.hidden_size, qkv),
            (s.hidden_size, s.hidden_size),
            (s.hidden_size, 2 * s.intermediate_size),
            (s.intermediate_size, s.hidden_size),
        ];
        let mut all = layer.repeat(s.layers);
        all.push((s.hidden_size, self.vocabulary));
        all
    }

    /// Tokens per second of the products alone, over `rows` tokens, in candle's `matmul`: the ceiling of a step.
    ///
    /// Each layer has weights of its own. Training adds dX = dY W and dW = dY^T X for each product.
    pub fn ceiling(&self, rows: usize, training: bool, quick: bool) -> f64 {
        let random = |name: &str, r: usize, c: usize| {
            let mut stream = Key::new(3, name).stream();
            let data: Vec<f32> = (0..r * c).map(|_| stream.unit() as f32 - 0.5).collect();
            Tensor::from_vec(data, (r, c), &Device::Cpu).expect("as many numbers as the shape has")
        };
        let work: Vec<_> = self.products().iter().map(|&(i, o)| (random("x", rows, i), random("w", o, i), random("dy", rows, o))).collect();
        let product = |a: &Tensor, b: &Tensor| std::hint::black_box(a.matmul(b).expect("the inner sizes agree"));
        let transposed = |t: &Tensor| t.t().expect("a matrix has two dimensions");
        let set = || {
            for (x, w, dy) in &work {
                product(x, &transposed(w));
                if training {
                    product(dy, w);
                    product(&transposed(dy), x);
                }
            }
        };
        let flops: usize = self.products().iter().map(|(i, o)| 2 * rows * i * o).sum::<usize>() * if training { 3 } else { 1 };
        let repeat = (2e9 / flops as f64).max(1.0) as usize;
        let time = time(quick, || (0..repeat).for_each(|_| set()));
        (rows * repeat) as f64 / time.median
    }
}

pub struct Timing {
    /// Seconds.
    pub median: f64,
    /// Slowest over fastest repetition.
    pub spread: f64,
}

/// Times `run` after one untimed run: `REPEATS` times at least, and more of short ones, for some seconds in all; three times if `quick`.
pub fn time(quick: bool, mut run: impl FnMut()) -> Timing {
    run();
    let (fewest, budget) = if quick { (3, Duration::ZERO) } else { (REPEATS, Duration::from_secs(SECONDS.load(Ordering::Relaxed))) };
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < fewest || start.elapsed() < budget {
        let before = Instant::now();
        run();
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Timing { median: times[times.len() / 2], spread: times[times.len() - 1] / times[0] }
}

/// The command line: `[FILTER] [--quick] [--threads N] [--seconds N]`. A measurement runs where the filter is part of its name, such as `tiny/decode/64`.
pub struct Options {
    pub filter: String,
    pub quick: bool,
    pub threads: usize,
}

impl Options {
    /// Reads the command line and starts the threads.
    pub fn read() -> Self {
        distill::memory::keep_freed();
        let mut options =
            Self { filter: String::new(), quick: false, threads: std::thread::available_parallelism().map_or(1, usize::from) };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {} // cargo's
                "--quick" => options.quick = true,
                "--threads" | "--seconds" => {
                    let n = arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                    let n: usize = n.unwrap_or_else(|| exit(&format!("{argument} wants a number from 1")));
                    if argument == "--threads" { options.threads = n } else { SECONDS.store(n as u64, Ordering::Relaxed) }
                }
                flag if flag.starts_with('-') => exit(&format!("unknown flag {flag}: [FILTER] [--quick] [--threads N] [--seconds N]")),
                name => options.filter = name.to_owned(),
            }
        }
        // SAFETY: nothing else runs yet. candle reads the first where it multiplies; the second is as the program has it.
        unsafe {
            std::env::set_var("RAYON_NUM_THREADS", options.threads.to_string());
            std::env::set_var("CANDLE_NUM_THREADS", "1");
        }
        rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global().expect("no other pool was started");
        options
    }

    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// Prints one measurement as the line that `speed.py` prints, and as text for people on stderr.
    pub fn report(&self, bench: &Bench, what: &str, batch: usize, tokens: usize, timing: &Timing, ceiling: f64) {
        let rate = tokens as f64 / timing.median;
        let round = |x: f64| (x * 100.0).round() / 100.0;
        let line = json!({
            "peer": "distill", "shape": bench.name, "what": what, "batch": batch, "threads": self.threads, "tokens_per_s": round(rate),
            "spread": round(timing.spread), "products_per_s": round(ceiling), "share_of_products": round(rate / ceiling),
        });
        println!("{line}");
        let name = format!("{}/{what}/{batch}", bench.name);
        eprintln!(
            "{name:<18} {rate:>10.0} tokens/s   {:>3.0} % of the products   spread {:.2}   {} threads",
            100.0 * rate / ceiling,
            timing.spread,
            self.threads
        );
    }
}

fn exit(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2)
}
