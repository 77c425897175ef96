//! Estimates of a sweep before it is run: bits a value, time and memory.
//!
//! Bits are counted on real payloads and seconds measured, both on one window of a model with one
//! layer of the same shape and random weights; seconds of layers are then multiplied by their
//! number. On an idle machine that comes within about a fifth of the truth. Loading and
//! downloading are not in it.

use super::{Opened, Request, open};
use crate::corpus::WindowShape;
use crate::error::Result;
use crate::eval::{
    ARMS_AT_ONCE, Arm, Evaluator, Protocol, SCORED_AT_ONCE, StageTimings, Treatment,
};
use crate::hub::Hub;
use crate::model::{MlpConfig, Model, ModelConfig, RandomWeights};
use crate::platform;
use crate::results::timings::{CellEstimate, DryRun, SubjectEstimate};
use crate::run::subject::{Stages, Subject};
use crate::settings::Settings;

/// Opens what [`super::run`] would open, but no weights, and writes nothing.
pub fn dry_run(request: &Request, hub: &Hub, stages: &mut dyn Stages) -> Result<DryRun> {
    let mut subjects = Vec::new();
    let opened = open(request, hub, stages)?;
    // Program, texts, tokenizers.
    let base = platform::peak_rss_bytes().unwrap_or(0);
    for Opened { settings, protocol, cells, subject, .. } in opened {
        if cells.is_empty() {
            continue;
        }
        stages.stage("measuring one layer");
        let codecs: Vec<Treatment> = cells.iter().map(|(_, codec)| *codec).collect();
        subjects.push(estimate(settings, protocol, &subject?, &codecs)?);
    }
    let cell_seconds = |subject: &SubjectEstimate| -> f64 {
        subject.cells.iter().map(|cell| cell.seconds).sum::<f64>() + subject.shared_seconds
    };
    Ok(DryRun {
        seconds: subjects.iter().map(cell_seconds).fold(0.0, |sum, seconds| sum + seconds),
        memory_bytes: base + subjects.iter().map(|subject| subject.memory_bytes).max().unwrap_or(0),
        subjects,
    })
}

fn estimate(
    settings: &Settings,
    protocol: Protocol,
    subject: &Subject,
    codecs: &[Treatment],
) -> Result<SubjectEstimate> {
    let config = &subject.model.config;
    let one_layer = ModelConfig { layers: config.layers[..1].to_vec(), ..config.clone() };
    let device = settings.device.open()?;
    let model = Model::load(&one_layer, &RandomWeights, settings.dtype.dtype(), &device)?;
    let window = &subject.windows[0];
    // Once to warm up: the first pass pays for memory the later ones have.
    let evaluator = Evaluator::new(&model, protocol, subject.context, settings.seed);
    let arms: Vec<Arm> = codecs.iter().copied().map(Arm::of).collect();
    evaluator.evaluate_window(window, &arms[..1], &mut (), &mut StageTimings::default())?;
    let mut stages = StageTimings::default();
    let outcome = evaluator.evaluate_window(window, &arms, &mut (), &mut stages)?;

    let (windows, layers) = (subject.windows.len() as f64, config.layers.len() as f64);
    let arms = codecs.len() as f64;
    let pass = layers * stages.continuation.as_secs_f64() / (arms + 1.0);
    let scoring = stages.scoring.as_secs_f64() / (arms + 1.0);
    let codec = layers * stages.codec.as_secs_f64() / arms;
    let cells = codecs
        .iter()
        .zip(outcome.arms)
        .map(|(name, arm)| {
            let arm = arm?;
            Ok(CellEstimate {
                codec: name.to_string(),
                bits_per_value: 8.0 * arm.stored_bytes as f64 / arm.values as f64,
                seconds: windows * (pass + scoring + codec),
            })
        })
        .collect::<Result<_>>()?;
    Ok(SubjectEstimate {
        model: settings.model.clone(),
        text: settings.text.to_string(),
        context: subject.context,
        protocol: protocol.name(),
        windows: subject.windows.len(),
        shared_seconds: windows * (layers * stages.prefill.as_secs_f64() + pass + scoring),
        memory_bytes: memory(&model, config, subject, protocol, codecs.len()),
        cells,
    })
}

/// Weights, caches, and the largest activations and logits that are there at one time, bytes.
/// Pages of mapped files come on top, which the system takes back when it needs them.
fn memory(
    model: &Model,
    config: &ModelConfig,
    subject: &Subject,
    protocol: Protocol,
    codecs: usize,
) -> u64 {
    let ModelConfig { hidden_size, vocab_size, .. } = *config;
    let queries = config.heads() * config.head_dim();
    let keys = config.kv_heads() * config.head_dim();
    let layers = config.layers.len();
    // Gate, up and down of all experts; a pass goes through those used.
    let mlps = config.layers.iter().map(|layer| match &layer.mlp {
        MlpConfig::Gated(mlp) => (mlp.intermediate_size, mlp.intermediate_size),
        MlpConfig::Experts(mlp) => {
            let shared = mlp.shared.unwrap_or(0);
            let width = mlp.intermediate_size;
            (mlp.count * width + shared, mlp.used * width + shared)
        }
    });
    let mlps: Vec<(usize, usize)> = mlps.collect();
    let widths: usize = mlps.iter().map(|(all, _)| all).sum();
    let intermediate_size = mlps.iter().map(|(_, used)| *used).max().unwrap_or(0);
    let tables = if config.tie_word_embeddings { 1 } else { 2 };
    let weights =
        hidden_size * (layers * (2 * queries + 2 * keys) + 3 * widths + tables * vocab_size);

    let (shape, context) = (WindowShape::halves(subject.context), subject.context);
    let prefix = shape.prefix();
    let arms = (1 + codecs).min(ARMS_AT_ONCE);
    let computed = match protocol {
        Protocol::Prefix => context - prefix,
        Protocol::Decode { .. } => context,
    };
    let pass = (1 + codecs).min(model.caches_at_once(computed));
    // The prefix's own; each arm's as it was restored, and as the continuation extends it.
    let caches = 2 * layers * keys * (prefix + pass * (prefix + context));
    let rows = pass * computed;
    let activations = rows * (4 * hidden_size + 3 * intermediate_size + 2 * queries + 2 * keys);
    let hidden = (1 + arms) * computed * hidden_size;
    let logits = 2 * SCORED_AT_ONCE * vocab_size;
    let scores = codecs * subject.windows.len() * shape.scored_len();

    let size = model.dtype().size_in_bytes();
    // Logits and scores are f32 and four f64 whatever the model's type.
    (size * (weights + caches + hidden + activations) + 4 * logits + 32 * scores) as u64
}
