//! Tensors that a file has and the model does not read: they belong to another model than the
//! config describes, and the numbers would come out wrong without a word.

use crate::error::{Error, Result};
use crate::model::config::ModelConfig;

/// A tensor that was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The file.
    pub place: String,
    /// As the file has it.
    pub name: String,
}

/// An error if there is any.
pub fn refuse_unread(unread: &[Unread], config: &ModelConfig) -> Result<()> {
    let Some((Unread { place, name }, more)) = unread.split_first() else { return Ok(()) };
    let more = match more.len() {
        0 => String::new(),
        count => format!(" and {count} more that the model does not use"),
    };
    let (why, hint) = explain(name, config);
    Err(Error::input(format!("{place}: tensor {name}: expected none{why}, found one{more}"))
        .hint(hint))
}

/// The words after "expected none", and the hint.
fn explain(name: &str, config: &ModelConfig) -> (String, &'static str) {
    const TOGETHER: &str = "do weights and config belong together?";
    const OTHER_MODEL: &str = "the model has more than its architecture, so the numbers would not be \
                               its own: are architecture and config those of its author?";
    let in_gguf = name.strip_prefix("blk.");
    let layer = in_gguf.or_else(|| name.strip_prefix("model.layers."));
    let layer = layer.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    if layer.is_some_and(|layer| layer >= config.layers.len()) {
        let key = if in_gguf.is_some() { "block_count" } else { "num_hidden_layers" };
        return (format!(", as {key} is {}", config.layers.len()), TOGETHER);
    }
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if ends(&["_proj.bias"]) && name.contains(".self_attn.") {
        return (", as the config's attention_bias has it".into(), TOGETHER);
    }
    if ends(&["_proj.bias"]) && name.contains(".mlp.") {
        return (", as the config's mlp_bias has it".into(), TOGETHER);
    }
    if ends(&[".bias"]) && in_gguf.is_some() {
        return (
            ", as the first layer lacks others of its kind".into(),
            "biases are computed where all of a kind (q, k and v; gate, up and down) have one in \
             every layer, and nowhere else",
        );
    }
    let in_family = format!(" in a {}", config.architecture);
    if name.contains(".lora_") {
        return (
            in_family,
            "merge the adapter into its base model with peft's merge_and_unload and save that",
        );
    }
    let quantised = [
        "_scale",
        "_scale_inv",
        ".scale",
        ".scales",
        ".qweight",
        ".qzeros",
        ".g_idx",
        ".SCB",
        ".absmax",
        ".quant_map",
        ".quant_state",
    ];
    if ends(&quantised) {
        return (
            in_family,
            "the weights are quantised, and it scales them: use the repository with the original \
             ones, or a GGUF file",
        );
    }
    (in_family, OTHER_MODEL)
}
