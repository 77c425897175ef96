//! llama.cpp's names of tensors, by Hugging Face's.

use crate::model::config::{ExpertNames, MlpConfig, ModelConfig};

/// A tensor of Hugging Face's as a GGUF file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub name: String,
    /// Index and number of the experts that share the tensor, of which this is one.
    pub expert: Option<(usize, usize)>,
    /// Heads whose rows are in the order of the pairs that rotate together, where the file has
    /// them so.
    pub heads: Option<usize>,
}

/// `permuted`: whether files of the architecture hold q and k in the order of pairs; `None`: no
/// GGUF file has such a tensor.
pub fn stored(config: &ModelConfig, permuted: bool, name: &str) -> Option<Stored> {
    let plain = |name: String| Stored { name, expert: None, heads: None };
    let whole = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(plain(whole.into()));
    }
    let (index, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let layer = config.layers.get(index.parse::<usize>().ok()?)?;
    let (part, kind) = part.rsplit_once('.')?;
    let named = |part: &str| plain(format!("blk.{index}.{part}.{kind}"));
    if let MlpConfig::Experts(mlp) = &layer.mlp {
        if part == mlp.names.router {
            return Some(named("ffn_gate_inp"));
        }
        if let Some((expert, part)) = of_expert(&mlp.names, part) {
            let stored = named(&format!("{part}_exps"));
            return Some(Stored { expert: Some((expert, mlp.count)), ..stored });
        }
    }
    let block = &config.block;
    let norms = [
        (block.before_attention, "attn_norm"),
        (block.after_attention, "post_attention_norm"),
        (block.before_mlp, "ffn_norm"),
        (block.after_mlp, "post_ffw_norm"),
    ];
    if let Some((_, ours)) = norms.iter().find(|(theirs, _)| *theirs == Some(part)) {
        return Some(named(ours));
    }
    let attention = &layer.attention;
    let rows =
        |part: &str, heads: usize| Some(Stored { heads: permuted.then_some(heads), ..named(part) });
    match part {
        "self_attn.q_proj" => return rows("attn_q", attention.heads),
        "self_attn.k_proj" => return rows("attn_k", attention.kv_heads),
        _ => {}
    }
    Some(named(match part {
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        // Gate and up, below each other.
        "mlp.up_proj" | "mlp.gate_up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "mlp.shared_expert.gate_proj" => "ffn_gate_shexp",
        "mlp.shared_expert.up_proj" => "ffn_up_shexp",
        "mlp.shared_expert.down_proj" => "ffn_down_shexp",
        "mlp.shared_expert_gate" => "ffn_gate_inp_shexp",
        _ => return None,
    }))
}

/// The index of an expert, and llama.cpp's name of one of its projections.
fn of_expert(names: &ExpertNames, part: &str) -> Option<(usize, &'static str)> {
    let (index, part) = part.strip_prefix(names.expert)?.split_once('.')?;
    let ours = ["ffn_gate", "ffn_up", "ffn_down"];
    let which = names.projections.iter().position(|projection| *projection == part)?;
    Some((index.parse().ok()?, ours[which]))
}
