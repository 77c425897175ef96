//! How a model gets its tensors, and how it is known which it got.

use super::config::ModelConfig;
use super::matrix::{Matrix, PackedRows};
use super::parts::Linear;
use super::rounding::Rounding;
use super::weights::{Weights, refuse_unread};
use crate::error::{Error, Result};
use crate::tensor::with_f32;
use candle_core::{DType, Device, Tensor};
use half::f16;
use std::cell::RefCell;
use std::collections::BTreeSet;

const HEAD: &str = "lm_head.weight";
const EMBEDDINGS: &str = "model.embed_tokens.weight";

pub(super) struct Loader<'a> {
    weights: &'a dyn Weights,
    /// `None`: tensors are checked and stay empty.
    target: Option<(DType, &'a Device)>,
    /// Whether matrices stay as the source has them.
    packed: bool,
    /// What matrices are rounded to; everything else is in f32 then.
    rounding: Option<Rounding>,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Loader<'a> {
    /// Goes by the headers: no value is read, and what is built holds none.
    pub fn headers(weights: &'a dyn Weights) -> Self {
        Self { weights, target: None, packed: false, rounding: None, asked: RefCell::default() }
    }

    pub fn values(weights: &'a dyn Weights, dtype: DType, device: &'a Device) -> Self {
        let rounding = Rounding::of(dtype, device);
        let dtype = if rounding.is_some() { DType::F32 } else { dtype };
        Self { target: Some((dtype, device)), rounding, ..Self::headers(weights) }
    }

    /// On the CPU, matrices as the source has them.
    pub fn packed(weights: &'a dyn Weights, dtype: DType) -> Self {
        Self { packed: true, ..Self::values(weights, dtype, &Device::Cpu) }
    }

    /// Of activations and of all weights but matrices.
    pub fn dtype(&self) -> DType {
        self.target.map_or(DType::F32, |(dtype, _)| dtype)
    }

    pub fn rounding(&self) -> Option<Rounding> {
        self.rounding
    }

    pub fn device(&self) -> &Device {
        self.target.map_or(&Device::Cpu, |(_, device)| device)
    }

    /// After everything was asked for: refuses tensors that nothing asked for.
    pub fn finish(&self, config: &ModelConfig) -> Result<()> {
        let mut asked = self.asked.borrow_mut();
        if config.tie_word_embeddings && self.weights.contains(HEAD) {
            self.check_tied_head(config).map_err(|e| self.in_file(e, &asked))?;
            asked.insert(HEAD.into());
        }
        refuse_unread(&self.weights.unread(&asked), config)
    }

    /// Names the file that holds the head, which was not asked for.
    fn in_file(&self, error: Error, asked: &BTreeSet<String>) -> Error {
        let unread = self.weights.unread(asked);
        match unread.into_iter().find(|tensor| tensor.name == HEAD) {
            Some(head) => error.within(head.place),
            None => error,
        }
    }

    /// A head beside tied embeddings may only be a copy of them.
    fn check_tied_head(&self, config: &ModelConfig) -> Result<()> {
        let shape = [config.vocab_size, config.hidden_size];
        let (embeddings, head) =
            (self.weights.tensor(EMBEDDINGS, &shape)?, self.weights.tensor(HEAD, &shape)?);
        let differs = embeddings.ne(&head)?.flatten_all()?.max(0)?.to_scalar::<u8>()?;
        if differs == 0 {
            return Ok(());
        }
        Err(Error::input(format!(
            "tensor {HEAD}: expected the embeddings, as the config's tie_word_embeddings is true, \
             found other values"
        ))
        .hint(
            "where the model uses this head, its config says \"tie_word_embeddings\": false: do \
             weights and config belong together?",
        ))
    }

    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.read(name, shape, |weights| weights.tensor(name, shape))
    }

    /// 1 + w.
    pub fn tensor_plus_one(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.read(name, shape, |weights| weights.tensor_plus_one(name, shape))
    }

    fn read(
        &self,
        name: &str,
        shape: &[usize],
        get: impl FnOnce(&dyn Weights) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let Some((dtype, device)) = self.target else {
            self.weights.check(name, shape)?;
            self.asked.borrow_mut().insert(name.into());
            return Ok(Tensor::zeros(0, DType::F32, &Device::Cpu)?);
        };
        let tensor = get(self.weights)?;
        if dtype == DType::F16 || self.rounding == Some(Rounding::F16) {
            check_f16(&tensor, name)?;
        }
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }

    /// A matrix of weights.
    pub fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix> {
        self.matrices(&[(name.to_string(), shape[0])], shape[1])
    }

    /// Matrices of one width below each other. `parts`: names and rows.
    fn matrices(&self, parts: &[(String, usize)], width: usize) -> Result<Matrix> {
        if self.packed {
            let packed = parts.iter().map(|(name, rows)| self.weights.packed(name, [*rows, width]));
            let packed: Option<Vec<PackedRows>> = packed.collect::<Result<_>>()?;
            if let Some(packed) = packed {
                return Ok(Matrix::Packed(packed.into(), self.rounding));
            }
        }
        if let (Some(rounding), Some(_)) = (self.rounding, self.target) {
            let kept = parts.iter().map(|(name, rows)| {
                let shape = [*rows, width];
                if let Some(kept) = self.weights.kept(name, shape, rounding)? {
                    return Ok(kept);
                }
                let tensor = self.tensor(name, &shape)?;
                let kept =
                    with_f32([&tensor], |[values]| PackedRows::rounded(values, width, rounding))?;
                kept.ok_or_else(|| Error::system(format!("tensor {name}: expected f32")))
            });
            let kept = kept.collect::<Result<Vec<_>>>()?;
            return match rounding {
                Rounding::Bf16 => Matrix::in_bf16(kept),
                Rounding::F16 => Ok(Matrix::Packed(kept.into(), Some(rounding))),
            };
        }
        let read = |(name, rows): &(String, usize)| self.tensor(name, &[*rows, width]);
        let tensors = parts.iter().map(read).collect::<Result<Vec<_>>>()?;
        self.below(&tensors).map(Matrix::Dense)
    }

    /// Tensors below each other.
    fn below(&self, tensors: &[Tensor]) -> Result<Tensor> {
        match tensors {
            [one, ..] if self.target.is_none() => Ok(one.clone()),
            [one] => Ok(one.clone()),
            several => Ok(Tensor::cat(several, 0)?),
        }
    }

    /// Stacks projections that read the same input into one.
    pub fn linear(&self, parts: &[(String, usize)], input: usize, bias: bool) -> Result<Linear> {
        let named = |suffix: &str| {
            let part = |(name, out): &(String, usize)| (format!("{name}.{suffix}"), *out);
            parts.iter().map(part).collect::<Vec<_>>()
        };
        let bias = match bias {
            false => None,
            true => {
                let read = |(name, out): &(String, usize)| self.tensor(name, &[*out]);
                let biases = named("bias").iter().map(read).collect::<Result<Vec<_>>>()?;
                Some(self.below(&biases)?)
            }
        };
        Ok(Linear { weight: self.matrices(&named("weight"), input)?, bias })
    }
}

/// Weights that f16 cannot hold would be infinite.
fn check_f16(tensor: &Tensor, name: &str) -> Result<()> {
    let largest = tensor.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    if largest <= f16::MAX.to_f32() {
        return Ok(());
    }
    Err(Error::input(format!(
        "tensor {name}: expected at most {} for --dtype f16, found {largest}",
        f16::MAX
    ))
    .hint("use --dtype f32 or bf16"))
}
