//! Each fused operation against its composed form: values, and the gradient of a random linear function of the result for every argument.

use super::*;
use crate::key::Key;
use candle_core::{Device, Var};

const SHAPE: AttentionShape = AttentionShape { heads: 6, kv_heads: 2, head_dim: 8 };

fn random(name: &str, dims: &[usize]) -> Var {
    let mut stream = Key::new(1, "ops").name(name).stream();
    let data: Vec<f32> = (0..dims.iter().product()).map(|_| stream.normal() as f32).collect();
    Var::from_tensor(&Tensor::from_vec(data, dims, &Device::Cpu).unwrap()).unwrap()
}

fn layout(lengths: &[usize]) -> Layout {
    let positions = lengths.iter().flat_map(|n| 0..*n as u32).collect();
    let bounds = std::iter::once(0).chain(lengths.iter().scan(0, |sum, n| {
        *sum += n;
        Some(*sum)
    }));
    Layout { positions: Arc::new(positions), bounds: Arc::new(bounds.collect()) }
}

fn table() -> Arc<RopeTable> {
    let angles = |f: fn(f32) -> f32| (0..200 * 4).map(|i| f((i / 4) as f32 * 0.7f32.powi(i % 4))).collect();
    Arc::new(RopeTable { cos: angles(f32::cos), sin: angles(f32::sin), positions: 200 })
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

fn check(name: &str, inputs: &[&Var], f: impl Fn(bool) -> Result<Tensor>) {
    let (fused, composed) = (f(true).unwrap(), f(false).unwrap());
    assert!(largest_difference(&fused, &composed) < 2e-4, "{name}: values");
    let weight = random("weights of the result", fused.dims());
    let gradients = |y: &Tensor| (y * weight.as_detached_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    let (a, b) = (gradients(&fused), gradients(&composed));
    for (i, input) in inputs.iter().enumerate() {
        let (a, b) = (a.get(input).unwrap(), b.get(input).unwrap());
        let scale: f32 = b.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap();
        assert!(scale > 1e-3, "{name}: the gradient of argument {i} is not zero");
        assert!(largest_difference(a, b) < 5e-5 * scale.max(1.0), "{name}: gradient of argument {i}");
    }
}

#[test]
fn fused_and_composed_forms_agree_in_values_and_gradients() {
    let lengths = [5, 130, 1, 64];
    let n: usize = lengths.iter().sum();
    let width = SHAPE.width();
    let (x, w, bias) = (random("x", &[n, 24]), random("w", &[40, 24]), random("bias", &[40]));
    check(
        "linear",
        &[&x, &w, &bias],
        |fused| if fused { linear(&x, &w, Some(&bias), None) } else { reference::linear(&x, &w, Some(&bias)) },
    );
    let (a, b) = (random("a", &[6, 24]), random("b", &[22, 3]));
    let shape = Arc::new(AdditionShape { rank: 3, scale: 0.5, parts: vec![4..14, 20..32] });
    let frozen = (w.as_detached_tensor(), bias.as_detached_tensor());
    for dropout in [None, Some(Dropout { rate: 0.3, key: Key::new(5, "dropout") })] {
        let with = |fused: bool| {
            let (weight, factors) = ((&frozen.0, Some(&frozen.1)), (a.as_tensor(), b.as_tensor()));
            if fused {
                linear_with(&x, weight, factors, &shape, dropout)
            } else {
                reference::linear_with(&x, weight, factors, &shape, dropout)
            }
        };
        check("low-rank addition", &[&x, &a, &b], with);
    }
    let merged = merged(&w, &a, &b, &shape).unwrap();
    let added = linear_with(&x, (&frozen.0, Some(&frozen.1)), (&a, &b), &shape, None).unwrap();
    assert!(largest_difference(&linear(&x, &merged, Some(&bias), None).unwrap(), &added) < 2e-5 * 24.0);
    check("linear without bias", &[&x, &w], |fused| if fused { linear(&x, &w, None, None) } else { reference::linear(&x, &w, None) });
    let ids = Arc::new((0..n as u32).map(|i| i * 7 % 40).collect::<Vec<_>>());
    check("rows", &[&w], |fused| if fused { embed(&w, &ids, None) } else { reference::rows(&w, &ids) });
    let norm = random("norm", &[24]);
    check("rms_norm", &[&x, &norm], |fused| if fused { rms_norm(&x, &norm, 1e-6) } else { reference::rms_norm(&x, &norm, 1e-6) });
    let (qkv, q_norm, k_norm) = (random("qkv", &[n, width]), random("q", &[8]), random("k", &[8]));
    check("head_norm", &[&qkv, &q_norm, &k_norm], |fused| {
        if fused { head_norm(&qkv, &q_norm, &k_norm, SHAPE, 1e-6) } else { reference::head_norm(&qkv, &q_norm, &k_norm, SHAPE, 1e-6) }
    });
    let (layout, table) = (layout(&lengths), table());
    check("rope", &[&qkv], |fused| {
        if fused { rope(&qkv, &layout.positions, &table, SHAPE) } else { reference::rope(&qkv, &layout.positions, &table, SHAPE) }
    });
    check("attention", &[&qkv], |fused| if fused { attention(&qkv, &layout, SHAPE) } else { reference::attention(&qkv, &layout, SHAPE) });
    let gate_up = random("gate and up", &[n, 48]);
    check("swiglu", &[&gate_up], |fused| if fused { swiglu(&gate_up) } else { reference::swiglu(&gate_up) });
}

#[test]
fn token_stats_agree_with_their_composed_form_with_and_without_a_reference() {
    let n = 70;
    let (h, w) = (random("h", &[n, 24]), random("w", &[33, 24]));
    let h_ref = random("h_ref", &[n, 16]).as_detached_tensor();
    let targets: Vec<u32> = (0..n as u32).map(|i| i * 5 % 30).collect();
    // A reference may have more ids than the model, or fewer.
    let of = |rows: usize, divergence| {
        Some(Reference { hidden: h_ref.clone(), head: random("w_ref", &[rows, 16]).as_detached_tensor(), divergence })
    };
    let divergences = [Divergence::Forward, Divergence::Reverse, Divergence::JensenShannon(0.3)];
    let all = [33, 30, 40].into_iter().flat_map(|rows| divergences.map(|divergence| of(rows, divergence)));
    for reference in std::iter::once(None).chain(all) {
        check(&format!("token_stats with {reference:?}"), &[&h, &w], |fused| {
            if fused {
                token_stats(&h, &w, &targets, 1.7, reference.clone(), None)
            } else {
                reference::token_stats(&h, &w, &targets, 1.7, reference.clone())
            }
        });
    }
    let few = of(20, Divergence::Reverse);
    assert!(token_stats(&h, &w, &targets, 1.0, few, None).unwrap_err().to_string().contains("outside the vocabulary of 20"));
}

#[test]
fn ids_and_positions_out_of_range_are_errors() {
    let (h, w) = (random("h", &[2, 8]), random("w", &[5, 8]));
    assert!(token_stats(&h, &w, &[1, 5], 1.0, None, None).unwrap_err().to_string().contains("target id 5"));
    assert!(embed(&w, &Arc::new(vec![0, 9]), None).unwrap_err().to_string().contains("row 9"));
    let qkv = random("qkv", &[1, SHAPE.width()]);
    assert!(rope(&qkv, &Arc::new(vec![200]), &table(), SHAPE).unwrap_err().to_string().contains("position 200"));
}

#[test]
fn a_sink_takes_the_gradients_that_the_graph_would_have_and_adds_up_all_uses_of_a_weight() {
    let (n, d, v) = (70, 24, 40);
    let (w, bias) = (random("w", &[v, d]), random("bias", &[v]));
    let ids = Arc::new((0..n as u32).map(|i| i * 7 % 40).collect::<Vec<_>>());
    let targets: Vec<u32> = (0..n as u32).map(|i| i * 3 % 40).collect();
    // One weight in three roles, as where embeddings are tied.
    let loss = |into: Option<&Sink>| -> Result<Tensor> {
        let x = embed(&w, &ids, into)?;
        let y = linear(&x, &w, Some(&bias), into)?.sqr()?.mean_all()?;
        y + token_stats(&x, &w, &targets, 1.3, None, into)?.sum_all()?
    };
    let graph = loss(None).unwrap().backward().unwrap();
    let sink = Sink::default();
    let left = loss(Some(&sink)).unwrap().backward().unwrap();
    assert!(left.get(&w).is_none(), "the graph keeps no gradient of the weight");
    assert!(left.get(&bias).is_some());
    let sum = Tensor::from_vec(sink.take().unwrap(), (v, d), &Device::Cpu).unwrap();
    let expected = graph.get(&w).unwrap();
    let scale: f32 = expected.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap();
    assert!(scale > 1e-2 && largest_difference(&sum, expected) < 1e-5 * scale);
    assert!(sink.take().is_none());
    // A frozen weight fills no sink, and its inputs have their gradient all the same.
    let (x, frozen) = (random("x", &[n, d]), w.as_detached_tensor());
    let y = (linear(&x, &frozen, None, Some(&sink)).unwrap().sum_all().unwrap()
        + token_stats(&x, &frozen, &targets, 1.0, None, Some(&sink)).unwrap().sum_all().unwrap())
    .unwrap();
    assert!(y.backward().unwrap().get(&x).is_some() && sink.take().is_none());
}

#[test]
fn what_the_head_keeps_for_its_backward_pass_changes_no_bit() {
    let (h, w) = (random("h", &[600, 24]), random("w", &[40, 24]));
    let targets: Vec<u32> = (0..600).map(|i| i * 3 % 40).collect();
    let stats = token_stats(&h, &w, &targets, 0.7, None, None).unwrap();
    let loss = (stats.sqr().unwrap() * 0.1).unwrap().sum_all().unwrap();
    // The first pass takes what was kept, the second has to compute it again.
    let (kept, again) = (loss.backward().unwrap(), loss.backward().unwrap());
    for x in [&h, &w] {
        assert_eq!(largest_difference(kept.get(x).unwrap(), again.get(x).unwrap()), 0.0);
    }
}
