//! Estimates of a run before it is run: bits a value, time and memory.
//!
//! Bits are counted on real payloads and seconds measured, both on one window of a model with one
//! layer of the same shape and random weights, not packed; seconds of layers are then multiplied by their
//! number, each with its layer's codec, and those of scoring by the share of targets scored. On an idle CPU that
//! comes within about a fifth of the truth; on a GPU, where one window pays for the places of several, it is too
//! much. Loading and downloading are not in it, nor that packed weights take longer.

use crate::codec::Codec;
use crate::corpus::{Window, WindowShape};
use crate::error::Result;
use crate::eval::{
    Arm, CodecWindow, Evaluator, LayerTreatment, Protocol, StageTimings, Treatment, passes_at_once,
    scored_at_once, streams_in_memory,
};
use crate::model::{MLP_ROWS, Model, ModelConfig, RandomWeights, caches_at_once};
use crate::platform;
use crate::results::print;
use crate::results::sweep::UnfinishedCell;
use crate::results::timings::{CellEstimate, DryRun, SubjectEstimate};
use crate::run::load::{Choice, beyond, choose, hint};
use crate::run::subject::Subject;
use crate::settings::{DeviceKind, Settings};

/// Of codecs under one protocol on a subject. `passes`: of each codec, more than one where parts of
/// the cache are measured alone.
///
/// # Errors
/// More memory than there is, before anything long is done; codecs that cannot be measured.
pub fn estimate(
    settings: &Settings,
    protocol: Protocol,
    subject: &Subject,
    codecs: &[Treatment],
    passes: impl Fn(&Treatment) -> usize,
) -> Result<SubjectEstimate> {
    let config = &subject.model.config;
    let weights = choose(settings, &subject.model)?;
    let count = codecs.iter().map(&passes).sum();
    let memory_bytes = weights.bytes
        + weights.cross_check
        + beside_weights(settings, subject, &weights, protocol, codecs, count)?;
    if settings.device == DeviceKind::Cpu {
        refuse_beyond(memory_bytes, &weights)?;
    }
    let one_layer = ModelConfig { layers: config.layers[..1].to_vec(), ..config.clone() };
    let device = settings.device.open()?;
    let model = Model::load(&one_layer, &RandomWeights, settings.dtype.dtype(), &device)?;
    let one = &[with_few_targets(&subject.windows[0], config.vocab_size)?];
    // Once to warm up: the first pass pays for memory the later ones have.
    let evaluator = Evaluator::new(&model, protocol, subject.context, settings.seed);
    // Every layer's treatment alone, as that of the one layer.
    let of_layers = |codec: &Treatment| codec.of_layers(config.layers.len());
    let of_layers = codecs.iter().map(of_layers).collect::<Result<Vec<_>>>()?;
    let mut distinct: Vec<LayerTreatment> = Vec::new();
    for layer in of_layers.iter().flatten() {
        if !distinct.contains(layer) {
            distinct.push(*layer);
        }
    }
    let arms: Vec<Arm> = distinct.iter().map(|layer| Arm::of((*layer).into())).collect();
    evaluator.evaluate_windows(one, &arms[..1], &mut (), &mut StageTimings::default())?;
    let mut stages = StageTimings::default();
    let outcome = evaluator.evaluate_windows(one, &arms, &mut (), &mut stages)?;

    let (windows, layers) = (subject.windows.len() as f64, config.layers.len() as f64);
    let of_window = outcome.into_iter().flat_map(|window| window.arms);
    let outcomes = of_window.collect::<Result<Vec<_>>>()?;
    let arms = outcomes.len() as f64;
    let pass = layers * stages.continuation.as_secs_f64() / (arms + 1.0);
    let [targets, scored] =
        [&subject.windows[0], &one[0]].map(|window| window.shape().scored_len());
    let scoring = stages.scoring.as_secs_f64() / (arms + 1.0) * targets as f64 / scored as f64;
    let codec = layers * stages.codec.as_secs_f64() / arms;
    let cell = |(name, of_layers): (&Treatment, &Vec<LayerTreatment>)| {
        let of = |count: fn(&CodecWindow) -> u64| -> u64 {
            let index = |layer| distinct.iter().position(|known| known == layer);
            of_layers.iter().filter_map(index).map(|index| count(&outcomes[index])).sum()
        };
        CellEstimate {
            codec: name.to_string(),
            bits_per_value: 8.0 * of(|arm| arm.stored_bytes) as f64 / of(|arm| arm.values) as f64,
            seconds: windows * (pass + scoring + codec) * passes(name) as f64,
        }
    };
    let cells = codecs.iter().zip(&of_layers).map(cell).collect();
    Ok(SubjectEstimate {
        model: settings.model.clone(),
        text: settings.text.to_string(),
        context: subject.context,
        protocol: protocol.name(),
        windows: subject.windows.len(),
        shared_seconds: windows * (layers * stages.prefill.as_secs_f64() + pass + scoring),
        weights: weights.words,
        memory_bytes,
        cells,
    })
}

/// The window with its last targets alone, as many as are scored at once: of a small model with a large
/// vocabulary, scores take longer than the layers.
fn with_few_targets(window: &Window, vocab_size: usize) -> Result<Window> {
    let shape = window.shape().with_last_targets(scored_at_once(vocab_size));
    Window::new(window.tokens().to_vec(), shape)
}

/// All subjects of a run, one after the other, and the cells that would fail.
pub fn together(subjects: Vec<SubjectEstimate>, failed: Vec<UnfinishedCell>, base: u64) -> DryRun {
    let seconds = |subject: &SubjectEstimate| -> f64 {
        subject.cells.iter().map(|cell| cell.seconds).sum::<f64>() + subject.shared_seconds
    };
    DryRun {
        seconds: subjects.iter().map(seconds).fold(0.0, |sum, seconds| sum + seconds),
        memory_bytes: base + subjects.iter().map(|subject| subject.memory_bytes).max().unwrap_or(0),
        free_memory_bytes: platform::free_memory(),
        subjects,
        failed,
    }
}

/// An error for more memory than there is, with what would take less.
fn refuse_beyond(needed: u64, weights: &Choice) -> Result<()> {
    let Some(free) = platform::free_memory().filter(|free| needed > *free) else { return Ok(()) };
    // Of the windows, and of --cross-check.
    let rest = needed - weights.bytes;
    let shorter = (weights.bytes < free).then(|| "a shorter --context".to_string());
    let less = weights.smaller(|bytes| bytes + rest <= free).into_iter().chain(shorter);
    let what = format!(
        "a run of about {}, {} of them weights ({})",
        print::bytes(needed),
        print::bytes(weights.bytes),
        weights.words
    );
    Err(beyond(free, &what).hint(hint(less.collect())))
}

/// Caches, and the largest activations and logits that are there at one time, bytes. Pages of
/// mapped files come on top, which the system takes back when it needs them.
fn beside_weights(
    settings: &Settings,
    subject: &Subject,
    weights: &Choice,
    protocol: Protocol,
    codecs: &[Treatment],
    passes: usize,
) -> Result<u64> {
    let config = &subject.model.config;
    let dtype = settings.dtype.dtype();
    let ModelConfig { hidden_size, vocab_size, .. } = *config;
    let queries = config.heads() * config.head_dim();
    let keys = config.kv_heads() * config.head_dim();
    let layers = config.layers.len();
    let widest = config.layers.iter().map(|layer| layer.mlp.widths().used).max().unwrap_or(0);

    let (shape, context) = (WindowShape::halves(subject.context), subject.context);
    let prefix = shape.prefix();
    let at_once = passes_at_once(context);
    let arms = ((1 + passes) * subject.windows.len()).min(at_once);
    let computed = match protocol {
        Protocol::Prefix { .. } => context - prefix,
        Protocol::Decode { .. } => context,
    };
    let is_cpu = settings.device == DeviceKind::Cpu;
    let caches = |tokens| caches_at_once(config, dtype, !is_cpu, weights.is_packed, tokens);
    let most = caches(computed);
    let pass = arms.min(most);
    // Of whole caches the prefix's, and those of arms that run in chunks; of others one layer, as it
    // was restored and with the new tokens behind it.
    let head_dim = config.head_dim();
    let of_layers = codecs.iter().map(|codec| codec.codecs(layers)).collect::<Result<Vec<_>>>()?;
    let in_chunks = |codecs: &&Vec<Codec>| protocol.runs_in_chunks(codecs, head_dim);
    let chunked = of_layers.iter().filter(in_chunks).count() * passes.div_ceil(codecs.len().max(1));
    let (windows, streams) = match protocol {
        Protocol::Prefix { .. } => (caches(prefix), 0),
        Protocol::Decode { chunk, .. } => {
            (caches(chunk), caches(chunk).min(streams_in_memory(context)))
        }
    };
    let windows = (at_once / (1 + passes)).clamp(1, windows).min(subject.windows.len());
    let streams = (windows * chunked).min(at_once).min(streams);
    // Codecs with a memory keep what was written beside what is stored.
    let remembers = of_layers.iter().flatten().any(Codec::has_memory);
    let streams = if remembers { 2 * streams } else { streams };
    let whole = match protocol {
        Protocol::Prefix { .. } => windows * prefix,
        Protocol::Decode { .. } => streams * context,
    };
    let caches = 2 * keys * (layers * whole + pass * (prefix + context));
    let rows = if is_cpu { pass } else { most } * computed;
    let activations =
        rows * (4 * hidden_size + 2 * queries + 2 * keys) + rows.min(MLP_ROWS) * 3 * widest;
    let hidden = (1 + arms) * computed * hidden_size;
    let logits = 2 * scored_at_once(vocab_size) * vocab_size;
    let scores = passes * subject.windows.len() * shape.scored_len();

    // Logits and scores are f32 and four f64 whatever the model's type; so are activations on the CPU,
    // where a layer's keys and values are widened once more.
    let kept = dtype.size_in_bytes();
    let (computed, widened) = match is_cpu && kept < 4 {
        true => (4, 4 * pass * 2 * keys * context),
        false => (kept, 0),
    };
    let values = kept * caches + computed * (hidden + activations) + widened;
    Ok((values + 4 * logits + 32 * scores) as u64)
}
