//! Qwen 2 and 3 with a mixture of experts in all or some layers; Qwen 2's has an expert besides
//! that every token goes through.

use super::Architecture;
use crate::error::{Error, Result};
use crate::model::config::keys::{Keys, gguf, hf, key};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::{Defaults, Sizes};
use crate::model::config::{
    AttentionBias, AttentionConfig, ExpertNames, Experts, LayerConfig, MlpConfig, ModelConfig,
    QkNorm, unknown_hint,
};

pub(super) const QWEN2_MOE: Architecture = Architecture {
    gguf: Some("qwen2moe"),
    mixture: true,
    ..Architecture::new("Qwen2MoeForCausalLM", "qwen2_moe", read_qwen2)
};

pub(super) const QWEN3_MOE: Architecture = Architecture {
    gguf: Some("qwen3moe"),
    mixture: true,
    ..Architecture::new("Qwen3MoeForCausalLM", "qwen3_moe", read_qwen3)
};

pub(in crate::model) const NAMES: ExpertNames = ExpertNames {
    router: "mlp.gate",
    expert: "mlp.experts.",
    projections: ["gate_proj", "up_proj", "down_proj"],
};

fn read_qwen2(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults { kv_heads: Some(16), ..Defaults::NONE })?;
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, RotaryRules::PLAIN)?;
    let bias = match keys.is_gguf() {
        true => keys.attention_bias(true)?,
        false => AttentionBias { qkv: keys.flag(hf("qkv_bias"))?.or(true), output: false },
    };
    let used = keys.flag(hf("use_sliding_window"))?.or(false);
    let window = keys.count(hf("sliding_window"))?.or_absent(Some(4096)).filter(|_| used);
    keys.count(hf("max_window_layers"))?;
    // transformers 4 and 5 disagree on which layers slide where the config does not say it.
    if window.is_some() && keys.texts_by_layer(hf("layer_types"), sizes.layers)?.value().is_none() {
        return Err(Error::unsupported(format!(
            "{}: expected layer_types beside use_sliding_window, found none",
            keys.place(hf("layer_types"))
        ))
        .hint(unknown_hint()));
    }
    let windows = keys.windows(sizes.layers, window, |_| false)?;
    // The key is read even where no layer has experts.
    let shared = keys
        .count(key("shared_expert_intermediate_size", "expert_shared_feed_forward_length"))?
        .or(if keys.is_gguf() { sizes.intermediate_size } else { 5632 });
    let mixture = Experts { shared: Some(shared), ..experts(keys, &sizes, [60, 4, 1408], false)? };
    let layers = layers(keys, &sizes, mixture, windows, |window| AttentionConfig {
        bias,
        window,
        ..sizes.attention()
    })?;
    Ok(sizes.model(QWEN2_MOE.class, layers, vec![rotary]))
}

fn read_qwen3(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults { kv_heads: Some(4), ..Defaults::NONE })?;
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, RotaryRules::PLAIN)?;
    let bias = keys.attention_bias(false)?;
    keys.expect_qk_norm()?;
    let used = keys.flag(hf("use_sliding_window"))?.or(false);
    let window = keys.count(hf("sliding_window"))?.or_absent(Some(4096)).filter(|_| used);
    // Neither changes anything: the window is every layer's.
    keys.count(hf("max_window_layers"))?;
    keys.texts_by_layer(hf("layer_types"), sizes.layers)?;
    let mixture = experts(keys, &sizes, [128, 8, 768], true)?;
    let windows = vec![window; sizes.layers];
    let layers = layers(keys, &sizes, mixture, windows, |window| AttentionConfig {
        bias,
        window,
        qk_norm: QkNorm::Head,
        ..sizes.attention()
    })?;
    Ok(sizes.model(QWEN3_MOE.class, layers, vec![rotary]))
}

/// `defaults`: experts, those used, width of each. `in_gguf`: whether llama.cpp divides the
/// probabilities of those used by their sum, which its files do not say.
fn experts(
    keys: &Keys,
    sizes: &Sizes,
    [count, used, width]: [usize; 3],
    in_gguf: bool,
) -> Result<Experts> {
    let used = keys.count(key("num_experts_per_tok", "expert_used_count"))?.or(used);
    let other_name = keys.count(hf("num_local_experts"))?.value();
    let width = match keys.is_gguf() {
        true => sizes.intermediate_size / used.max(1),
        false => width,
    };
    Ok(Experts {
        count: keys
            .count(key("num_experts", "expert_count"))?
            .value()
            .or(other_name)
            .unwrap_or(count),
        used,
        intermediate_size: keys
            .count(key("moe_intermediate_size", "expert_feed_forward_length"))?
            .or(width),
        activation: keys.activation("hidden_act")?,
        normalised: match keys.is_gguf() {
            true => in_gguf,
            false => keys.flag(hf("norm_topk_prob"))?.or(false),
        },
        shared: None,
        names: NAMES,
    })
}

/// Layers with experts, but those of `mlp_only_layers` and between the steps of
/// `decoder_sparse_step`.
fn layers(
    keys: &Keys,
    sizes: &Sizes,
    experts: Experts,
    windows: Vec<Option<usize>>,
    attention: impl Fn(Option<usize>) -> AttentionConfig,
) -> Result<Vec<LayerConfig>> {
    let dense = keys.indices(hf("mlp_only_layers"))?.or(Vec::new());
    let step = keys.count(hf("decoder_sparse_step"))?.or(1).max(1);
    keys.count(gguf("expert_group_count"))?;
    let gated = sizes.mlp(experts.activation);
    let layer = |(index, window): (usize, Option<usize>)| {
        let has_experts =
            !dense.contains(&index) && experts.count > 0 && (index + 1).is_multiple_of(step);
        let mlp = match has_experts {
            true => MlpConfig::Experts(experts.clone()),
            false => MlpConfig::Gated(gated.clone()),
        };
        LayerConfig { attention: attention(window), mlp }
    };
    Ok(windows.into_iter().enumerate().map(layer).collect())
}
