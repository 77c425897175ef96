//! Parts of a cache, keys or values of a layer: each alone in each codec that it may get, as cells of a
//! sweep, and what was measured of them.

use super::assign::{self, Choice};
use super::candidates::{Candidate, F16, beside_f16, of_side};
use crate::codec::{Codec, Side, TensorCodec};
use crate::error::{Error, Result};
use crate::eval::attribution::LayerParts;
use crate::eval::{LayerTreatment, Treatment};
use crate::results::figures::CodecFigures;
use crate::results::tuning::{Budget, PartChoice, TunedPart};

/// Keys or values of a layer, and how they may be stored.
pub struct Part {
    layer: usize,
    side: Side,
    /// The candidate's name, and how it stores this side.
    codecs: Vec<(String, TensorCodec)>,
}

/// All parts of a cache, each layer's keys before its values.
pub struct Parts(Vec<Part>);

impl Parts {
    /// Of a model of so many layers.
    pub fn of(layers: usize, candidates: &[Candidate]) -> Self {
        let of_layer = |layer| {
            [Side::Key, Side::Value].map(|side| {
                let codecs = of_side(candidates, side);
                Part { layer, side, codecs }
            })
        };
        Self((0..layers).flat_map(of_layer).collect())
    }

    /// Each part alone in each codec, the rest of the cache in f16, as a treatment of the whole
    /// cache. f16 itself is nothing to measure.
    pub fn alone(&self) -> Vec<Treatment> {
        let packed = |part: &Part, codec: &TensorCodec| {
            (*codec != TensorCodec::F16).then(|| part.alone(*codec))
        };
        let of_part = |part: &Part| -> Vec<Treatment> {
            part.codecs.iter().filter_map(|(_, codec)| packed(part, codec)).collect()
        };
        self.0.iter().flat_map(of_part).collect()
    }

    /// What was measured: `figures` of [`Parts::alone`], in its order.
    pub fn measured<'a>(self, figures: impl IntoIterator<Item = &'a CodecFigures>) -> Measured {
        let mut figures = figures.into_iter().peekable();
        let windows = figures.peek().map_or(0, |figures| figures.kld_per_window.len());
        let f16_bytes = figures.peek().map_or(0.0, |figures| figures.cache_bytes_per_token_f16);
        let mut parts = Vec::with_capacity(self.0.len());
        for part in self.0 {
            let mut choice = |(name, codec): &(String, TensorCodec)| match codec {
                TensorCodec::F16 => Some(PartChoice::f16(windows)),
                TensorCodec::Packed(_) => Some(part.choice(name, figures.next()?)),
            };
            let choices = part.codecs.iter().filter_map(&mut choice).collect();
            parts.push(MeasuredPart { part, choices });
        }
        Measured { parts, f16_bytes }
    }
}

impl Part {
    fn alone(&self, codec: TensorCodec) -> Treatment {
        let own = beside_f16(self.side, codec);
        Treatment::with_layer(F16.into(), self.layer, own.into())
    }

    fn choice(&self, name: &str, figures: &CodecFigures) -> PartChoice {
        let layer = figures.layers.get(self.layer);
        let bits = layer.and_then(|layer| match self.side {
            Side::Key => layer.key_bits_per_value,
            Side::Value => layer.value_bits_per_value,
        });
        let CodecFigures { cache_bytes_per_token_f16, cache_bytes_per_token, .. } = figures;
        PartChoice {
            codec: name.into(),
            bits_per_value: bits.unwrap_or(figures.bits_per_value),
            kld_mean: figures.kld_mean,
            kld_mean_ci95: figures.kld_mean_ci95,
            saved_bytes_per_token: cache_bytes_per_token_f16 - cache_bytes_per_token,
            kld_per_window: figures.kld_per_window.clone(),
        }
    }
}

impl PartChoice {
    /// A part that stays in f16.
    fn f16(windows: usize) -> Self {
        Self {
            codec: "f16".into(),
            bits_per_value: 16.0,
            kld_mean: 0.0,
            kld_mean_ci95: None,
            saved_bytes_per_token: 0.0,
            kld_per_window: vec![0.0; windows],
        }
    }
}

/// A part and what each of its choices saves and costs.
struct MeasuredPart {
    part: Part,
    choices: Vec<PartChoice>,
}

/// All parts as they were measured.
pub struct Measured {
    parts: Vec<MeasuredPart>,
    /// Of the whole cache in f16, a token.
    f16_bytes: f64,
}

/// A choice for each part.
pub struct Assignment(Vec<usize>);

impl Measured {
    /// The best assignment within a budget.
    ///
    /// # Errors
    /// A budget that no assignment keeps to, with the least that one does.
    pub fn assign(&self, budget: Budget) -> Result<Assignment> {
        // Costs count from each part's smallest choice.
        let smallest = |part: &MeasuredPart| {
            part.choices.iter().map(|c| c.saved_bytes_per_token).fold(0.0, f64::max)
        };
        let least_bytes = self.f16_bytes - self.parts.iter().map(smallest).sum::<f64>();
        let choices = |part: &MeasuredPart| -> Vec<Choice> {
            let most = smallest(part);
            let of = |choice: &PartChoice| {
                let (bytes, kld) = (most - choice.saved_bytes_per_token, choice.kld_mean);
                match budget {
                    Budget::Bits(_) => Choice { cost: bytes, damage: kld },
                    Budget::MaxKld(_) => Choice { cost: kld, damage: bytes },
                }
            };
            part.choices.iter().map(of).collect()
        };
        let parts: Vec<Vec<Choice>> = self.parts.iter().map(choices).collect();
        let most = match budget {
            Budget::Bits(bits) => self.f16_bytes * (bits / 16.0 + ROUNDING) - least_bytes,
            Budget::MaxKld(kld) => kld,
        };
        assign::assign(&parts, most).map(Assignment).ok_or_else(|| match budget {
            Budget::Bits(bits) => below(bits, 16.0 * least_bytes / self.f16_bytes),
            Budget::MaxKld(kld) => Error::input(format!(
                "--max-kld: expected at least {:.1e}, the sum of the least damages of all parts, \
                 found {kld}",
                assign::least_cost(&parts)
            ))
            .hint("name a --candidate of more bits, or allow more"),
        })
    }

    /// Its name stands for it on a model of this many layers.
    ///
    /// # Errors
    /// A name that is not read back as what it was made of: a fault of the names.
    pub fn treatment(&self, assignment: &Assignment) -> Result<Treatment> {
        let codec = |index: usize| self.parts[index].part.codecs[assignment.0[index]].1;
        let layer = |layer: usize| {
            let codec = Codec { key: codec(2 * layer), value: codec(2 * layer + 1) };
            LayerTreatment::from(codec)
        };
        let layers: Vec<LayerTreatment> = (0..self.parts.len() / 2).map(layer).collect();
        let whole = Treatment::of_each(&layers)
            .ok_or_else(|| Error::system("a model without layers has nothing to tune"))?;
        let name = whole.to_string();
        match name.parse::<Treatment>()?.of_layers(layers.len())? == layers {
            true => Ok(whole),
            false => Err(Error::system(format!("codec {name}: read back as another"))),
        }
    }

    /// Bits a value of a codec for all layers: its bytes over f16's, times 16, as served.
    pub fn bits_of(&self, codec: &Codec) -> f64 {
        let saved = |MeasuredPart { part, choices }: &MeasuredPart| {
            let own = codec.side(part.side);
            let index = part.codecs.iter().position(|(_, known)| *known == own);
            index.map_or(0.0, |index| choices[index].saved_bytes_per_token)
        };
        16.0 * (1.0 - self.parts.iter().map(saved).sum::<f64>() / self.f16_bytes)
    }

    /// What each layer got, and what it could get.
    pub fn layers(&self, assignment: &Assignment) -> Vec<LayerParts<TunedPart>> {
        let tuned = |index: usize| {
            let choices = self.parts[index].choices.clone();
            TunedPart { chosen: choices[assignment.0[index]].clone(), choices }
        };
        let layer =
            |layer| LayerParts { layer, key: tuned(2 * layer), value: tuned(2 * layer + 1) };
        (0..self.parts.len() / 2).map(layer).collect()
    }
}

/// The error for a budget that the smallest candidates do not keep to.
pub fn below(bits: f64, least: f64) -> Error {
    Error::input(format!(
        "--bits: expected at least {:.2}, the smallest candidates' everywhere, found {bits}",
        ((least - ROUNDING) * 100.0).ceil() / 100.0
    ))
    .hint("name a --candidate of fewer bits, or allow more")
}

/// Of a budget, what sums of sizes may be off by.
const ROUNDING: f64 = 1e-9;
