//! How a model gets its tensors, and how it is known which it got.

use super::config::ModelConfig;
use super::parts::Linear;
use super::weights::{Weights, refuse_unread};
use crate::error::{Error, Result};
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
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Loader<'a> {
    /// Goes by the headers: no value is read, and what is built holds none.
    pub fn headers(weights: &'a dyn Weights) -> Self {
        Self { weights, target: None, asked: RefCell::default() }
    }

    pub fn values(weights: &'a dyn Weights, dtype: DType, device: &'a Device) -> Self {
        Self { weights, target: Some((dtype, device)), asked: RefCell::default() }
    }

    pub fn dtype(&self) -> DType {
        self.target.map_or(DType::F32, |(dtype, _)| dtype)
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
        if dtype == DType::F16 {
            let largest = tensor.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            if largest > f16::MAX.to_f32() {
                return Err(Error::input(format!(
                    "tensor {name}: expected at most {} for --dtype f16, found {largest}",
                    f16::MAX
                ))
                .hint("use --dtype f32 or bf16"));
            }
        }
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }

    /// Stacks projections that read the same input into one.
    pub fn linear(&self, parts: &[(String, usize)], input: usize, bias: bool) -> Result<Linear> {
        let stack = |suffix: &str, width: Option<usize>| -> Result<Tensor> {
            let tensors = parts
                .iter()
                .map(|(name, out)| {
                    let shape: Vec<usize> = std::iter::once(*out).chain(width).collect();
                    self.tensor(&format!("{name}.{suffix}"), &shape)
                })
                .collect::<Result<Vec<_>>>()?;
            match tensors.as_slice() {
                [one, ..] if self.target.is_none() => Ok(one.clone()),
                [one] => Ok(one.clone()),
                several => Ok(Tensor::cat(several, 0)?),
            }
        };
        Ok(Linear {
            weight: stack("weight", Some(input))?,
            bias: if bias { Some(stack("bias", None)?) } else { None },
        })
    }
}
