//! A model's weights into memory, in the form that was asked for or that fits.

use super::subject::Stages;
use crate::error::{Error, Result};
use crate::model::source::OpenModel;
use crate::model::{Model, Weights};
use crate::platform;
use crate::results::print;
use crate::settings::{DeviceKind, FloatType, Settings, WeightForm};
use candle_core::{DType, Device};

/// Of the free memory, what weights of the arithmetic's type may take before a file's own are kept: the rest is for the
/// windows.
const SHARE: f64 = 0.8;

/// How a model's weights will be kept.
pub struct Choice {
    /// Whether they stay as a GGUF file has them.
    pub is_packed: bool,
    /// `packed`, or the numbers that they are.
    pub words: String,
    /// Of memory, about.
    pub bytes: u64,
    /// Of memory, of candle-transformers' model for --cross-check.
    pub cross_check: u64,
    /// Of the forms that were not taken, what asks for each.
    others: Vec<(&'static str, u64)>,
    /// What there is to say about a choice that was not asked for.
    note: Option<String>,
}

impl Choice {
    /// Loads the weights of `model` onto `device`, which is the settings'; a choice that was not asked
    /// for is noted.
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn load(
        &self,
        settings: &Settings,
        model: &OpenModel,
        weights: &dyn Weights,
        device: &Device,
        stages: &mut dyn Stages,
    ) -> Result<Model> {
        if let Some(note) = &self.note {
            stages.note(note);
        }
        match self.is_packed {
            true => Model::load_packed(&model.config, weights, settings.dtype.dtype()),
            false => Model::load(&model.config, weights, settings.dtype.dtype(), device),
        }
    }

    /// Flags of the forms that take no more than `fits` allows.
    pub fn smaller(&self, fits: impl Fn(u64) -> bool) -> Vec<String> {
        let fitting = self.others.iter().filter(|(_, bytes)| *bytes < self.bytes && fits(*bytes));
        fitting.map(|(flag, _)| flag.to_string()).collect()
    }
}

/// Chooses by the settings, the model's headers and the memory that is free now.
///
/// # Errors
/// Packed weights that the model or the arithmetic has not; weights that cannot fit into memory.
pub fn choose(settings: &Settings, model: &OpenModel) -> Result<Choice> {
    let choice = preferred(settings, model)?;
    // On a GPU the model's own are not in this memory; candle-transformers' are.
    let own = if settings.device == DeviceKind::Cpu { choice.bytes } else { 0 };
    let other = choice.cross_check;
    let Some(free) = platform::free_memory_and_swap().filter(|free| own + other > *free) else {
        return Ok(choice);
    };
    if own <= free {
        let what = format!("{} for --cross-check beside the weights", print::bytes(other));
        return Err(
            beyond(free, &what).hint("it loads the weights a second time, in f32: leave it out")
        );
    }
    let what = format!("weights of {} ({})", print::bytes(own), choice.words);
    Err(beyond(free, &what).hint(hint(choice.smaller(|bytes| bytes <= free))))
}

/// The error for something that takes more memory than there is.
pub fn beyond(free: u64, found: &str) -> Error {
    let free = print::bytes(free);
    Error::system(format!("memory: expected at most the {free} that are free, found {found}"))
}

/// What would take less memory.
pub fn hint(less: Vec<String>) -> String {
    match less.is_empty() {
        true => "take a smaller model, a larger machine, or a GGUF file of fewer bits".into(),
        false => format!("what would fit: {}", less.join(", or ")),
    }
}

/// The choice as if everything fitted.
fn preferred(settings: &Settings, model: &OpenModel) -> Result<Choice> {
    let (dtype, device) = (settings.dtype, settings.device);
    // A value of a packed matrix may be beyond f16.
    let can_pack = dtype != FloatType::F16 && device == DeviceKind::Cpu;
    let values = model.config.weights();
    let of = |dtype: DType| values * dtype.size_in_bytes() as u64;
    let packed = model.packed_bytes();
    let (full, halved) = (of(dtype.dtype()), of(DType::BF16));
    let cross_check = if settings.cross_check { of(DType::F32) } else { 0 };
    let kept_full = || Choice {
        is_packed: false,
        words: dtype.to_string(),
        bytes: full,
        cross_check,
        others: packed
            .filter(|bytes| can_pack && *bytes < full)
            .map(|bytes| ("--weights packed", bytes))
            .into_iter()
            .chain([("--dtype bf16", halved)])
            .collect(),
        note: None,
    };
    let kept_packed = |bytes, note| Choice {
        is_packed: true,
        words: WeightForm::Packed.to_string(),
        bytes,
        cross_check,
        // Of a form that was asked for, another is asked for.
        others: match settings.weights {
            WeightForm::Auto => vec![("--dtype bf16", halved)],
            _ => vec![("--weights f32 --dtype bf16", halved)],
        },
        note,
    };
    match (settings.weights, packed) {
        (WeightForm::F32, _) | (WeightForm::Auto, None) => Ok(kept_full()),
        (WeightForm::Packed, None) => {
            Err(Error::input("--weights packed: expected a model in a GGUF file, found another")
                .hint("only GGUF files have weights that are dequantised; leave --weights out"))
        }
        (WeightForm::Packed, Some(_)) if !can_pack => Err(Error::input(format!(
            "--weights packed: expected --dtype f32 or bf16 and --device cpu, found {dtype} and \
             {device}"
        ))
        .hint("packed weights are multiplied on the CPU, in f32 or bf16; leave --device out")),
        (WeightForm::Packed, Some(bytes)) => Ok(kept_packed(bytes, None)),
        (WeightForm::Auto, Some(bytes)) => match platform::free_memory() {
            Some(free) if can_pack && bytes < full && full as f64 > SHARE * free as f64 => {
                let note = format!(
                    "weights: kept packed, as in the file; in {dtype} they take {}, and {} of \
                     memory are free (--weights f32 insists)",
                    print::bytes(full),
                    print::bytes(free)
                );
                Ok(kept_packed(bytes, Some(note)))
            }
            _ => Ok(kept_full()),
        },
    }
}
