//! What a module of candle-transformers computes, and what it lacks of a model.

use crate::codec::RotaryPairs;
use crate::model::{
    Activation, AttentionBias, AttentionConfig, BlockConfig, ExpertNames, Experts, GatedMlp,
    LayerConfig, MlpConfig, ModelConfig, NormKind, QkNorm, RopeScaling, RotaryConfig,
};

/// What a module computes. [`Abilities::LLAMA`] is the least that any has.
#[derive(Clone, Copy)]
pub(super) struct Abilities {
    pub block: BlockConfig,
    pub norm: NormKind,
    pub qk_norm: QkNorm,
    /// Heads of another size than hidden_size / heads.
    pub any_head_dim: bool,
    /// More key and value heads than one.
    pub several_kv_heads: bool,
    /// The biases of attention that it can have.
    pub biases: &'static [AttentionBias],
    pub mlp_bias: bool,
    /// Others than SiLU.
    pub any_activation: bool,
    /// Whether it asks for q, k and v as one tensor, and for gate and up.
    pub fused: [bool; 2],
    /// What its experts are like, where it has some.
    pub experts: Option<ExpertAbilities>,
    pub windows: Windows,
    pub rotary: RotaryAbilities,
    pub factors: Factors,
    /// Softcaps of scores and of logits.
    pub softcaps: bool,
    /// Whether the head is always the embeddings.
    pub always_tied: bool,
}

#[derive(Clone, Copy)]
pub(super) struct ExpertAbilities {
    pub names: ExpertNames,
    /// Whether there always is one that all tokens go through, or never.
    pub shared: bool,
    /// Whether shares are always divided by their sum.
    pub always_normalised: bool,
    /// Whether only every n-th layer can have experts.
    pub some_layers: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Windows {
    None,
    /// The same in all layers.
    Same,
    /// In all but each n-th layer, and those rotate by a base of their own.
    AllButEvery,
}

#[derive(Clone, Copy)]
pub(super) struct RotaryAbilities {
    pub pairs: RotaryPairs,
    /// Part of a head.
    pub part: bool,
    /// Not in all layers.
    pub some_layers: bool,
    pub llama3: bool,
    /// What it does about LongRoPE.
    pub long_rope: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Factors {
    /// Of scores 1/√head_dim, and no other.
    OfHead,
    /// That, and √hidden_size of the embeddings.
    Gemma,
    /// Any: of embeddings, scores, residual and logits.
    Any,
}

pub(super) const NO_BIAS: AttentionBias = AttentionBias { qkv: false, output: false };
pub(super) const QKV: AttentionBias = AttentionBias { qkv: true, output: false };
pub(super) const ALL: AttentionBias = AttentionBias { qkv: true, output: true };

impl Abilities {
    pub const LLAMA: Self = Self {
        block: BlockConfig::NORM_BEFORE,
        norm: NormKind::Rms,
        qk_norm: QkNorm::None,
        any_head_dim: false,
        several_kv_heads: true,
        biases: &[NO_BIAS],
        mlp_bias: false,
        any_activation: true,
        fused: [false, false],
        experts: None,
        windows: Windows::None,
        rotary: RotaryAbilities {
            pairs: RotaryPairs::Halves,
            part: false,
            some_layers: false,
            llama3: false,
            long_rope: "has no LongRoPE",
        },
        factors: Factors::OfHead,
        softcaps: false,
        always_tied: false,
    };

    /// What the module lacks of a model, to follow its name; `Ok`: nothing. Each field of the
    /// configuration is named here, so that none that comes later is passed over.
    pub fn check(&self, parts: &Parts) -> Result<(), String> {
        let ModelConfig {
            architecture: _,
            vocab_size: _,
            hidden_size,
            layers,
            rotary: _,
            max_position_embeddings: _,
            norm,
            block,
            embedding_scale,
            residual_scale,
            logit_scale,
            logit_softcap,
            tie_word_embeddings,
            bos_token_id: _,
        } = parts.config;
        lacks(norm.kind != self.norm, "has norms of another kind")?;
        lacks(*block != self.block, "has its norms in other places")?;
        let root = (*hidden_size as f64).sqrt() as f32;
        let embedding = if self.factors == Factors::Gemma { root } else { 1.0 };
        if self.factors != Factors::Any {
            lacks(!close(*embedding_scale, embedding), "has no such factor of the embeddings")?;
            lacks(*residual_scale != 1.0, "has no factor of the residual stream")?;
            lacks(*logit_scale != 1.0, "has no factor of the logits")?;
        }
        lacks(logit_softcap.is_some() && !self.softcaps, "has no softcap of the logits")?;
        lacks(self.always_tied && !tie_word_embeddings, "has no output head of its own")?;
        for LayerConfig { attention, mlp: _ } in layers {
            self.check_attention(parts, attention)?;
        }
        self.check_windows(parts)?;
        self.check_rotary(parts)?;
        self.check_mlp(parts)
    }

    fn check_attention(&self, parts: &Parts, attention: &AttentionConfig) -> Result<(), String> {
        let AttentionConfig {
            heads,
            kv_heads,
            head_dim,
            scale,
            softcap,
            window: _,
            rotary: _,
            qk_norm,
            bias,
            fused,
            temperature,
        } = attention;
        let first = parts.attention();
        let other_size = head_dim * heads != parts.config.hidden_size;
        lacks(other_size && !self.any_head_dim, "has no head_dim apart from hidden_size / heads")?;
        let several = *kv_heads > 1 && !self.several_kv_heads;
        lacks(several, "fails with more than one key and value head")?;
        let of_head = close(*scale, (*head_dim as f64).powf(-0.5) as f32);
        lacks(!of_head && self.factors != Factors::Any, "has no scale but 1/√head_dim")?;
        lacks(softcap.is_some() && !self.softcaps, "has no softcap of the scores")?;
        lacks(*qk_norm != self.qk_norm, "has another norm of queries and keys")?;
        lacks(!self.biases.contains(bias), "has no such biases of attention")?;
        lacks(*fused != self.fused[0], "has another form of the weights of q, k and v")?;
        // 1 within the first period.
        let grows = temperature.is_some_and(|temperature| parts.context > temperature.period);
        lacks(grows, "has no queries that grow with the position")?;
        let alike = scale == &first.scale && softcap == &first.softcap && bias == &first.bias;
        lacks(!alike, "has layers that are all alike")
    }

    fn check_windows(&self, parts: &Parts) -> Result<(), String> {
        let windows = || parts.config.layers.iter().map(|layer| parts.binding(layer));
        let Some(window) = windows().flatten().max() else { return Ok(()) };
        match self.windows {
            Windows::None => Err(format!(
                "has no sliding window: the model's is {window} tokens, fewer than the context's {}",
                parts.context
            )),
            Windows::Same => {
                let same = windows().all(|other| other == Some(window));
                lacks(!same, "has the same sliding window in all layers")
            }
            Windows::AllButEvery => {
                let same = windows().flatten().all(|other| other == window);
                lacks(!same || window < 2, "has one sliding window of two tokens or more")
            }
        }
    }

    fn check_rotary(&self, parts: &Parts) -> Result<(), String> {
        let layers = &parts.config.layers;
        let rotary: Vec<_> = layers.iter().map(|layer| parts.rotary(layer)).collect();
        let some = rotary.iter().any(Option::is_none);
        lacks(some && !self.rotary.some_layers, "has no layers without RoPE")?;
        match self.windows {
            Windows::AllButEvery => {
                lacks(parts.full_every().is_none(), "has no such order of sliding layers")?;
                for kind in [false, true] {
                    let of_kind = layers
                        .iter()
                        .zip(&rotary)
                        .filter(|(layer, _)| layer.attention.window.is_some() == kind)
                        .filter_map(|(_, rotary)| rotary.as_ref());
                    lacks(!alike(of_kind), "has no such rotary embeddings by layer")?;
                }
            }
            _ => {
                let same = alike(rotary.iter().flatten());
                lacks(!same, "has one rotary embedding for all layers")?;
            }
        }
        for RotaryConfig { theta: _, channels, pairs, scaling } in rotary.iter().flatten() {
            let part = *channels != parts.attention().head_dim;
            lacks(part && !self.rotary.part, "has no RoPE on part of a head")?;
            lacks(*pairs != self.rotary.pairs, "has other pairs of channels in RoPE")?;
            lacks(
                !(matches!(scaling, RopeScaling::None)
                    || self.rotary.llama3 && matches!(scaling, RopeScaling::Llama3 { .. })),
                match scaling {
                    RopeScaling::LongRope { .. } => self.rotary.long_rope,
                    RopeScaling::None | RopeScaling::Llama3 { .. } => "has no llama3 RoPE scaling",
                    RopeScaling::Linear { .. } => "has no linear RoPE scaling",
                    RopeScaling::Divisors(_) => "has no RoPE divisors from a file",
                    RopeScaling::Yarn { .. } => "has no YaRN",
                    RopeScaling::Dynamic { .. } => "has no dynamic RoPE scaling",
                },
            )?;
        }
        Ok(())
    }

    fn check_mlp(&self, parts: &Parts) -> Result<(), String> {
        let first = (parts.gated(), parts.experts());
        for LayerConfig { attention: _, mlp } in &parts.config.layers {
            let (activation, alike) = match mlp {
                MlpConfig::Gated(gated) => {
                    let GatedMlp { intermediate_size: _, activation, bias, fused } = gated;
                    lacks(*bias && !self.mlp_bias, "has no biases of the MLP")?;
                    let other = *fused != self.fused[1];
                    lacks(other, "has another form of the weights of gate and up")?;
                    let dense = self.experts.is_none_or(|experts| experts.some_layers);
                    lacks(!dense, "has no layers without experts")?;
                    (activation, first.0 == Some(gated))
                }
                MlpConfig::Experts(experts) => {
                    let Some(abilities) = &self.experts else {
                        return Err("has no experts".into());
                    };
                    abilities.check(experts)?;
                    (&experts.activation, first.1 == Some(experts))
                }
            };
            lacks(!alike, "has layers that are all alike")?;
            let other = *activation != Activation::Silu && !self.any_activation;
            lacks(other, "has no activation but SiLU")?;
            lacks(*activation != parts.activation(), "has the same activation in all layers")?;
        }
        let every = self.experts.is_none() || parts.experts_every().is_some();
        lacks(!every, "has experts in each n-th layer only")
    }
}

impl ExpertAbilities {
    fn check(&self, experts: &Experts) -> Result<(), String> {
        let Experts {
            count: _,
            used: _,
            intermediate_size: _,
            activation: _,
            normalised,
            shared,
            names,
        } = experts;
        lacks(*names != self.names, "has other names of experts")?;
        lacks(shared.is_some() != self.shared, "has another kind of experts")?;
        lacks(self.always_normalised && !normalised, "always divides experts' shares by their sum")
    }
}

fn lacks(it: bool, what: &str) -> Result<(), String> {
    if it { Err(what.into()) } else { Ok(()) }
}

fn alike<'a>(mut all: impl Iterator<Item = &'a RotaryConfig>) -> bool {
    let first = all.next();
    all.all(|other| Some(other) == first)
}

/// Apart from rounding.
fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-6 * b.abs()
}

/// A model at windows of some length. The methods that return one number for all layers hold for
/// a model that [`Abilities::check`] let pass.
pub(super) struct Parts<'a> {
    pub config: &'a ModelConfig,
    /// Tokens of the longest pass. Modules get it for max_position_embeddings, from which they
    /// compute nothing but the length of their tables.
    pub context: usize,
}

impl Parts<'_> {
    pub fn attention(&self) -> &AttentionConfig {
        &self.config.layers[0].attention
    }

    /// The sliding window of a layer, where the context is longer.
    fn binding(&self, layer: &LayerConfig) -> Option<usize> {
        layer.attention.window.filter(|window| *window < self.context)
    }

    /// The sliding window as candle-transformers counts it, without the token itself.
    pub fn window(&self) -> Option<usize> {
        self.config.layers.iter().find_map(|layer| self.binding(layer)).map(|window| window - 1)
    }

    /// [`Parts::window`] for modules that cannot go without.
    pub fn window_or_all(&self) -> usize {
        self.window().unwrap_or(self.context)
    }

    /// n, where each n-th layer does not slide and all others do.
    pub fn full_every(&self) -> Option<usize> {
        self.every(|layer| layer.attention.window.is_none())
    }

    /// n, where each n-th layer has experts and no other does.
    pub fn experts_every(&self) -> Option<usize> {
        self.every(|layer| matches!(layer.mlp, MlpConfig::Experts(_)))
    }

    fn every(&self, is: impl Fn(&LayerConfig) -> bool) -> Option<usize> {
        let layers = &self.config.layers;
        (1..=layers.len() + 1)
            .find(|n| (1..).zip(layers).all(|(i, layer): (usize, _)| is(layer) == (i % n == 0)))
    }

    /// The rotary embedding of a layer, without a scaling that changes nothing at this context.
    pub fn rotary(&self, layer: &LayerConfig) -> Option<RotaryConfig> {
        let rotary = &self.config.rotary[layer.attention.rotary?];
        let unchanged = match &rotary.scaling {
            RopeScaling::Linear { factor } => *factor == 1.0,
            RopeScaling::Divisors(divisors) => divisors.iter().all(|divisor| *divisor == 1.0),
            RopeScaling::Dynamic { original_context, .. } => self.context <= *original_context,
            _ => false,
        };
        let scaling = if unchanged { RopeScaling::None } else { rotary.scaling.clone() };
        Some(RotaryConfig { scaling, ..rotary.clone() })
    }

    /// Base of the frequencies in layers that attend to everything (`sliding`: that slide).
    pub fn theta(&self, sliding: bool) -> f64 {
        let of_kind = |layer: &&LayerConfig| layer.attention.window.is_some() == sliding;
        let layers = || self.config.layers.iter().filter(|layer| layer.attention.rotary.is_some());
        let layer = layers().find(of_kind).or_else(|| layers().next());
        let theta = layer.and_then(|layer| self.rotary(layer)).map(|rotary| rotary.theta);
        f64::from(theta.unwrap_or(1e4))
    }

    /// Channels that rotate.
    pub fn rotated(&self) -> usize {
        let layers = &mut self.config.layers.iter();
        let rotary = layers.find_map(|layer| self.rotary(layer));
        rotary.map_or(self.attention().head_dim, |rotary| rotary.channels)
    }

    /// The MLP of layers without experts.
    pub fn gated(&self) -> Option<&GatedMlp> {
        self.config.layers.iter().find_map(|layer| match &layer.mlp {
            MlpConfig::Gated(mlp) => Some(mlp),
            MlpConfig::Experts(_) => None,
        })
    }

    /// The mixture of layers with experts.
    pub fn experts(&self) -> Option<&Experts> {
        self.config.layers.iter().find_map(|layer| match &layer.mlp {
            MlpConfig::Experts(mlp) => Some(mlp),
            MlpConfig::Gated(_) => None,
        })
    }

    /// Width of the MLP of layers without experts.
    pub fn intermediate_size(&self) -> usize {
        self.gated().map_or(0, |mlp| mlp.intermediate_size)
    }

    fn activation(&self) -> Activation {
        match &self.config.layers[0].mlp {
            MlpConfig::Gated(mlp) => mlp.activation,
            MlpConfig::Experts(mlp) => mlp.activation,
        }
    }

    /// As candle names it.
    pub fn their_activation(&self) -> candle_nn::Activation {
        match self.activation() {
            Activation::Silu => candle_nn::Activation::Silu,
            Activation::Gelu => candle_nn::Activation::Gelu,
            Activation::GeluTanh => candle_nn::Activation::GeluPytorchTanh,
            Activation::Relu => candle_nn::Activation::Relu,
        }
    }
}
