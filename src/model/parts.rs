//! Parts that layers are built of: products with weights, norms, MLPs.

use super::config::{Activation, Experts, GatedMlp, MlpConfig, NormConfig, NormKind};
use super::kernels;
use super::loader::Loader;
use super::matrix::Matrix;
use crate::error::Result;
use candle_core::{D, DType, Device, Tensor};

/// x · weightᵀ + bias
#[derive(Clone)]
pub(super) struct Linear {
    pub weight: Matrix, // [out, in]
    pub bias: Option<Tensor>,
}

/// A norm over the last dimension.
#[derive(Clone)]
pub(super) struct Norm {
    weight: Tensor, // 1 + w where the model's has it
    centred: bool,
    eps: f64,
}

#[derive(Clone)]
pub(super) enum Mlp {
    Gated(Gated),
    Mixture(Mixture),
}

/// down(act(gate) · up)
#[derive(Clone)]
pub(super) struct Gated {
    /// Gate and up in one product: [2·intermediate, hidden].
    gate_up: Linear,
    down: Linear,
    activation: Activation,
}

/// Each token through the experts that its router prefers.
#[derive(Clone)]
pub(super) struct Mixture {
    router: Linear, // [experts, hidden]
    experts: Vec<Gated>,
    used: usize,
    normalised: bool,
    /// For every token, and its gate [1, hidden].
    shared: Option<(Gated, Linear)>,
}

/// `x` times a factor, which mostly is 1.
pub(super) fn scaled(x: Tensor, factor: f32) -> Result<Tensor> {
    if factor == 1.0 { Ok(x) } else { Ok((x * f64::from(factor))?) }
}

/// cap · tanh(x / cap)
pub(super) fn softcapped(x: Tensor, cap: Option<f32>) -> Result<Tensor> {
    match cap.map(f64::from) {
        None => Ok(x),
        Some(cap) => Ok(((x / cap)?.tanh()? * cap)?),
    }
}

impl Linear {
    /// [rows, in] → [rows, out]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = self.weight.product(x)?;
        match &self.bias {
            None => Ok(product),
            Some(bias) => Ok(product.broadcast_add(bias)?),
        }
    }
}

impl Norm {
    pub fn load(
        loader: &Loader,
        name: &str,
        shape: &[usize],
        NormConfig { kind, eps }: NormConfig,
    ) -> Result<Self> {
        let weight = match kind {
            NormKind::RmsPlusOne => loader.tensor_plus_one(name, shape)?,
            NormKind::Rms | NormKind::Layer => loader.tensor(name, shape)?,
        };
        Ok(Self { weight, centred: kind == NormKind::Layer, eps })
    }

    /// Over the last dimension of a tensor of any shape; weights [last].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !self.centred {
            return Ok(candle_nn::ops::rms_norm(x, &self.weight, self.eps as f32)?);
        }
        Ok(self.standardised(x)?.broadcast_mul(&self.weight)?)
    }

    /// Over the last dimension of [tokens, heads, head_dim], weights [heads, head_dim] or [head_dim].
    pub fn forward_heads(&self, x: &Tensor) -> Result<Tensor> {
        if self.weight.rank() == 1 {
            return self.forward(x);
        }
        let ones = Tensor::ones(x.dim(D::Minus1)?, x.dtype(), x.device())?;
        let standard = match self.centred {
            true => self.standardised(x)?,
            false => candle_nn::ops::rms_norm(x, &ones, self.eps as f32)?,
        };
        Ok(standard.broadcast_mul(&self.weight)?)
    }

    /// (x − mean) / √(var + ε), in f32.
    fn standardised(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let deviation = (variance + self.eps)?.sqrt()?;
        Ok(centred.broadcast_div(&deviation)?.to_dtype(x.dtype())?)
    }
}

/// Rows that an MLP widens at once: of a long context, whose MLPs would otherwise take several times
/// the memory of everything else.
pub const MLP_ROWS: usize = 4096;

impl Mlp {
    /// `name`: of a part of its layer.
    pub fn load(
        loader: &Loader,
        config: &MlpConfig,
        hidden: usize,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Self> {
        match config {
            MlpConfig::Gated(mlp) => {
                let names =
                    ["gate_proj", "up_proj", "down_proj"].map(|p| name(&format!("mlp.{p}")));
                Gated::load(loader, mlp, hidden, names, &name("mlp.gate_up_proj")).map(Self::Gated)
            }
            MlpConfig::Experts(mixture) => {
                Mixture::load(loader, mixture, hidden, name).map(Self::Mixture)
            }
        }
    }

    /// [rows, hidden] → [rows, hidden]; at most [`MLP_ROWS`] rows are widened at once, but by experts.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mlp = match self {
            Self::Gated(mlp) => mlp,
            // Of an expert's few rows the pieces might be single ones, whose sums are others.
            Self::Mixture(mixture) => return mixture.forward(x),
        };
        let rows = x.dim(0)?;
        let pieces = rows.div_ceil(MLP_ROWS).max(1);
        let start = |piece: usize| piece * rows / pieces;
        let piece = |piece: usize| -> Result<Tensor> {
            mlp.forward(&x.narrow(0, start(piece), start(piece + 1) - start(piece))?)
        };
        match pieces {
            1 => mlp.forward(x),
            _ => Ok(Tensor::cat(&(0..pieces).map(piece).collect::<Result<Vec<_>>>()?, 0)?),
        }
    }
}

impl Gated {
    fn load(
        loader: &Loader,
        config: &GatedMlp,
        hidden: usize,
        [gate, up, down]: [String; 3],
        gate_up: &str,
    ) -> Result<Self> {
        let width = config.intermediate_size;
        let gate_up = match config.fused {
            true => loader.linear(&[(gate_up.into(), 2 * width)], hidden, config.bias)?,
            false => loader.linear(&[(gate, width), (up, width)], hidden, config.bias)?,
        };
        let down = loader.linear(&[(down, hidden)], width, config.bias)?;
        Ok(Self { gate_up, down, activation: config.activation })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gate_up = self.gate_up.forward(x)?; // [rows, 2·intermediate]
        self.down.forward(&gated(&gate_up, self.activation)?)
    }
}

/// act(gate) · up for [gate | up], [rows, 2·width] → [rows, width].
fn gated(gate_up: &Tensor, activation: Activation) -> Result<Tensor> {
    if let Some(fused) = kernels::gated(gate_up, activation)? {
        return Ok(fused);
    }
    let halves = gate_up.chunk(2, 1)?;
    let (gate, up) = (halves[0].contiguous()?, halves[1].contiguous()?);
    let gate = match activation {
        Activation::Silu => gate.silu()?,
        Activation::Gelu => gate.gelu_erf()?,
        Activation::GeluTanh => gate.gelu()?,
        Activation::Relu => gate.relu()?,
    };
    Ok((gate * up)?)
}

impl Mixture {
    fn load(
        loader: &Loader,
        config: &Experts,
        hidden: usize,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Self> {
        let expert = |width: usize| GatedMlp {
            intermediate_size: width,
            activation: config.activation,
            bias: false,
            fused: false,
        };
        let (prefix, projections) = (config.names.expert, config.names.projections);
        let experts = (0..config.count).map(|index| {
            let names = projections.map(|part| name(&format!("{prefix}{index}.{part}")));
            Gated::load(loader, &expert(config.intermediate_size), hidden, names, "")
        });
        let shared = config.shared.map(|width| {
            let names = ["gate_proj", "up_proj", "down_proj"]
                .map(|part| name(&format!("mlp.shared_expert.{part}")));
            let shared = Gated::load(loader, &expert(width), hidden, names, "")?;
            let gate = loader.linear(&[(name("mlp.shared_expert_gate"), 1)], hidden, false)?;
            Ok::<_, crate::error::Error>((shared, gate))
        });
        Ok(Self {
            router: loader.linear(&[(name(config.names.router), config.count)], hidden, false)?,
            experts: experts.collect::<Result<_>>()?,
            used: config.used,
            normalised: config.normalised,
            shared: shared.transpose()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let scores = self.router.forward(x)?.to_dtype(DType::F32)?;
        let probabilities = candle_nn::ops::softmax_last_dim(&scores)?.to_device(&Device::Cpu)?;
        let probabilities = probabilities.to_vec2::<f32>()?; // [rows, experts]
        // Of each expert: the rows that go through it, and what each is multiplied by.
        let mut rows = vec![(Vec::<u32>::new(), Vec::<f32>::new()); self.experts.len()];
        for (row, of_experts) in (0..).zip(&probabilities) {
            for (expert, share) in highest(of_experts, self.used, self.normalised) {
                rows[expert].0.push(row);
                rows[expert].1.push(share);
            }
        }
        let mut sum = x.zeros_like()?;
        for (expert, (rows, shares)) in self.experts.iter().zip(rows) {
            if rows.is_empty() {
                continue;
            }
            let count = rows.len();
            let rows = Tensor::from_vec(rows, count, x.device())?;
            let shares = Tensor::from_vec(shares, (count, 1), x.device())?.to_dtype(x.dtype())?;
            let out = expert.forward(&x.index_select(&rows, 0)?)?.broadcast_mul(&shares)?;
            sum = sum.index_add(&rows, &out, 0)?;
        }
        if let Some((shared, gate)) = &self.shared {
            let share = candle_nn::ops::sigmoid(&gate.forward(x)?)?; // [rows, 1]
            sum = (sum + shared.forward(x)?.broadcast_mul(&share)?)?;
        }
        Ok(sum)
    }
}

/// The `count` highest of a row with their index, the first of equal ones first.
fn highest(row: &[f32], count: usize, normalised: bool) -> Vec<(usize, f32)> {
    let mut ranked: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(count);
    if normalised {
        let sum: f32 = ranked.iter().map(|(_, share)| share).sum();
        ranked.iter_mut().for_each(|(_, share)| *share /= sum);
    }
    ranked
}
