//! Weights that stay packed (`--weights packed`) beside the same weights in f32: prefill of a GGUF
//! file of random Q4_K blocks in TinyLlama's shape, in turn. A pass runs all tokens and ends with the
//! last position's logits.
//!
//! `cargo bench --bench packed`: a line a length, medians of tokens/s and of the paired ratio
//! packed/f32. `-- NAME --write FOLDER` leaves a file in that folder for `kvgauge validate` and
//! measures nothing; names: tinyllama, llama7b (4 GB).

#[path = "common/paired.rs"]
mod paired;
#[path = "../tests/common/random.rs"]
mod random;
#[path = "../tests/common/random_model.rs"]
mod random_model;
#[path = "../tests/common/raw_gguf.rs"]
mod raw_gguf;

use candle_core::{DType, Device};
use kvgauge::model::{Model, WeightType};
use paired::paired;
use random_model::Spec;
use raw_gguf::Head;
use std::path::Path;
use std::time::Instant;

/// Name, width, that of the MLP, layers, KV heads.
type Shape = (&'static str, [usize; 4]);

const SHAPES: [Shape; 2] = [("tinyllama", [2048, 5632, 22, 4]), ("llama7b", [4096, 11008, 32, 32])];
const HEADS: usize = 32;
const VOCAB: usize = 32_000;
const TOKENS: [usize; 2] = [512, 2048];
const ROUNDS: usize = 3;

/// As the programs have it.
#[global_allocator]
static ALLOCATOR: kvgauge::LargeBlocks = kvgauge::LargeBlocks;

fn main() -> kvgauge::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.iter().position(|a| a == "--write").map(|at| arguments[at + 1].as_str());
    for (name, sizes) in SHAPES {
        let file = format!("{name}.gguf");
        match folder {
            Some(folder) if arguments.iter().any(|argument| argument == name) => {
                write(sizes, &Path::new(folder).join(file));
            }
            // What fits into memory in f32.
            None if name == "tinyllama" => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join(file);
                write(sizes, &path);
                measure(name, &path)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn measure(name: &str, path: &Path) -> kvgauge::Result<()> {
    let open = random_model::open(path)?;
    let weights = open.weights()?.weights;
    let packed = Model::load_packed(&open.config, weights.as_ref(), DType::F32)?;
    let pass = |model: &Model, tokens: usize| -> kvgauge::Result<f64> {
        let ids: Vec<u32> = (0..tokens).map(|i| (i * 7919 % VOCAB) as u32).collect();
        let clock = Instant::now();
        let hidden = model.forward(&ids, &mut model.empty_cache())?;
        std::hint::black_box(model.logits(&hidden.narrow(0, tokens - 1, 1)?)?);
        Ok(tokens as f64 / clock.elapsed().as_secs_f64())
    };
    let full = Model::load(&open.config, weights.as_ref(), DType::F32, &Device::Cpu)?;
    println!("model      tokens  f32 tok/s  packed tok/s  ratio (median of pairs; least, most)");
    for tokens in TOKENS {
        let paired = paired(ROUNDS, || pass(&packed, tokens), || pass(&full, tokens))?;
        let (of_packed, of_full) = paired.medians();
        let ratio = paired.ratio();
        println!("{name:<10} {tokens:>6} {of_full:>10.0} {of_packed:>13.0}  {ratio}");
    }
    Ok(())
}

/// Matrices of random Q4_K blocks around zero, norms of 1.
fn write([hidden, intermediate, layers, kv_heads]: [usize; 4], path: &Path) {
    let spec = Spec {
        vocab: VOCAB,
        hidden,
        intermediate,
        layers,
        heads: HEADS,
        kv_heads,
        head_dim: hidden / HEADS,
        context: TOKENS[1],
        ..Spec::default()
    };
    let tensors = tensors(&spec);
    let [q4_k, f32] = [12, 0].map(|number| (number, WeightType::of(number).unwrap()));
    let heads: Vec<Head> = tensors
        .iter()
        .map(|(name, shape)| {
            let (kind, of) = if shape.len() == 2 { q4_k } else { f32 };
            let len = of.bytes_of(shape.iter().product()) as usize;
            Head { name, shape, kind, len }
        })
        .collect();
    // Scale and minimum of a block: their means cancel, as 7.5 · 1e-4 = 7.5e-4.
    let scales = [1e-4, 7.5e-4].map(|x| half::f16::from_f32(x).to_le_bytes()).concat();
    let mut bits = random::wide_bits(7);
    raw_gguf::write_made(path, &spec.gguf_metadata(), &heads, |index, out| {
        let Head { kind, len, .. } = heads[index];
        if kind == 0 {
            return out.write_all(&1f32.to_le_bytes().repeat(len / 4));
        }
        for _ in 0..len / 144 {
            out.write_all(&scales)?;
            for _ in 0..140 / 4 {
                out.write_all(&(bits() as u32).to_le_bytes())?;
            }
        }
        Ok(())
    });
}

fn tensors(spec: &Spec) -> Vec<(String, Vec<usize>)> {
    let Spec { hidden, intermediate, .. } = *spec;
    let keys = spec.head_dim * spec.kv_heads;
    let mut tensors = vec![
        ("token_embd.weight".to_string(), vec![VOCAB, hidden]),
        ("output_norm.weight".into(), vec![hidden]),
        ("output.weight".into(), vec![VOCAB, hidden]),
    ];
    for layer in 0..spec.layers {
        let parts = [
            ("attn_norm", vec![hidden]),
            ("attn_q", vec![hidden, hidden]),
            ("attn_k", vec![keys, hidden]),
            ("attn_v", vec![keys, hidden]),
            ("attn_output", vec![hidden, hidden]),
            ("ffn_norm", vec![hidden]),
            ("ffn_gate", vec![intermediate, hidden]),
            ("ffn_up", vec![intermediate, hidden]),
            ("ffn_down", vec![hidden, intermediate]),
        ];
        tensors.extend(parts.map(|(part, shape)| (format!("blk.{layer}.{part}.weight"), shape)));
    }
    tensors
}
