//! Peak memory and time of `kvgauge validate` on TinyLlama's exact shape: random bf16 weights in
//! a local folder (2.2 GB under target/), context 2048, one window, f32 arithmetic.
//!
//! `cargo bench --bench memory` (Linux). Anonymous memory is sampled from /proc while the
//! command runs: mapped file pages are not the program's to count.

#[path = "../tests/common/shapes.rs"]
mod shapes;

use candle_core::DType;
use kvgauge::model::RandomWeights;
use kvgauge::model::{MlpConfig, ModelConfig, Weights};
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let config = shapes::tinyllama();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tinyllama-shape");
    let weights = write_folder(&config, &folder);
    println!("weights in f32: {:.0} MB", weights as f64 * 4e-6);
    let clock = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvgauge"))
        .args([
            "validate",
            "--text",
            "builtin",
            "--context",
            "2048",
            "--windows",
            "1",
            "--json",
            "--model",
        ])
        .arg(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("kvgauge starts");
    let mut peak = 0;
    while child.try_wait().expect("a child").is_none() {
        peak = peak.max(anonymous_bytes(child.id()));
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("output");
    assert!(output.status.success(), "kvgauge failed");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    println!("time: {:.1} s, by stage {}", clock.elapsed().as_secs_f64(), result["timings_s"]);
    println!("peak anonymous memory: {:.0} MB", peak as f64 * 1e-6);
    println!("over the f32 weights: {:.3} ×", peak as f64 / (weights as f64 * 4.0));
}

/// Returns the number of weights.
fn write_folder(config: &ModelConfig, folder: &Path) -> usize {
    std::fs::create_dir_all(folder).expect("a folder");
    let c = config;
    let kv = c.kv_heads() * c.head_dim();
    let MlpConfig::Gated(mlp) = &c.layers[0].mlp else { panic!("a Llama") };
    let intermediate = mlp.intermediate_size;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_string(), vec![c.vocab_size, c.hidden_size]),
        ("lm_head.weight".to_string(), vec![c.vocab_size, c.hidden_size]),
        ("model.norm.weight".to_string(), vec![c.hidden_size]),
    ];
    for layer in 0..c.layers.len() {
        for (part, shape) in [
            ("input_layernorm", vec![c.hidden_size]),
            ("post_attention_layernorm", vec![c.hidden_size]),
            ("self_attn.q_proj", vec![c.hidden_size, c.hidden_size]),
            ("self_attn.k_proj", vec![kv, c.hidden_size]),
            ("self_attn.v_proj", vec![kv, c.hidden_size]),
            ("self_attn.o_proj", vec![c.hidden_size, c.hidden_size]),
            ("mlp.gate_proj", vec![intermediate, c.hidden_size]),
            ("mlp.up_proj", vec![intermediate, c.hidden_size]),
            ("mlp.down_proj", vec![c.hidden_size, intermediate]),
        ] {
            shapes.push((format!("model.layers.{layer}.{part}.weight"), shape));
        }
    }
    let count = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let file = folder.join("model.safetensors");
    if !file.exists() {
        let tensors: HashMap<String, _> = shapes
            .into_iter()
            .map(|(name, shape)| {
                let tensor = RandomWeights.tensor(&name, &shape).expect("random weights");
                (name, tensor.to_dtype(DType::BF16).expect("bf16"))
            })
            .collect();
        candle_core::safetensors::save(&tensors, &file).expect("2.2 GB of disk");
    }
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": intermediate,
        "num_hidden_layers": c.layers.len(),
        "num_attention_heads": c.heads(),
        "num_key_value_heads": c.kv_heads(),
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.norm.eps,
        "rope_theta": c.rotary[0].theta,
    });
    std::fs::write(folder.join("config.json"), json.to_string()).expect("config.json");
    std::fs::copy("data/builtin/tokenizer.json", folder.join("tokenizer.json"))
        .expect("a tokenizer");
    count
}

fn anonymous_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024
}
