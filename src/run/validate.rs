//! The main job, from settings to result: text → tokens → windows → model → scores → report.

use crate::corpus::Window;
use crate::error::{Error, Kind, Result};
use crate::eval::attribution::CacheParts;
use crate::eval::{Arm, Evaluator, Observer, Protocol, Scope, Treatment};
use crate::hub::Hub;
use crate::model::oracle::{self, Oracle, WeightsRef};
use crate::model::source::ModelWeights;
use crate::model::{Model, ModelConfig};
use crate::platform;
use crate::results::timings::DryRun;
use crate::results::validation::{CrossCheck, ProtocolRun, RefusedCodec, Run, Validation};
use crate::run::estimate::{estimate, together};
use crate::run::load::choose;
use crate::run::subject::{Refusal, SharedInputs, Stages, Subject, check_codecs, scales_note};
use crate::settings::Settings;
use candle_core::DType;
use std::time::Instant;

/// Hears what is going on; [`Observer`] for the long part.
pub trait ValidationObserver: Observer + Stages {
    /// The evaluation begins: `tokens` will go through the model.
    fn begin(&mut self, tokens: usize);
}

/// Runs the path from settings to result.
///
/// # Errors
/// A wrong request or input, before anything long is done where it can be known; files, network, memory.
pub fn run(
    settings: &Settings,
    hub: &Hub,
    progress: &mut dyn ValidationObserver,
) -> Result<Validation> {
    let start = Instant::now();
    let device = settings.device.open()?;
    let dtype = settings.dtype.dtype();

    let (subject, refused) = open(settings, hub, progress)?;
    let choice = choose(settings, &subject.model)?;
    progress.stage("opening the weights");
    let opened = subject.model.weights()?;
    if let Some(note) = scales_note(settings, &opened) {
        progress.note(&note);
    }
    let ModelWeights { weights, provenance, .. } = opened;
    let prepare = start.elapsed();

    progress.stage("loading the weights");
    let clock = Instant::now();
    let model = choice.load(settings, &subject.model, weights.as_ref(), &device, progress)?;
    let load = clock.elapsed();

    let clock = Instant::now();
    let cross_check = match settings.cross_check {
        true => {
            progress.stage("cross-checking with candle-transformers");
            Some(cross_check(&model, weights, subject.windows[0].tokens(), subject.context)?)
        }
        false => None,
    };
    let cross_checking = clock.elapsed();

    let context = subject.context;
    let mut runs = Vec::new();
    for protocol in settings.protocols().each() {
        let beside = !runs.is_empty();
        let codecs = taken(settings, &refused, beside);
        let parts = parts(settings, model.config(), beside);
        // Behind the codecs' own arms, with which they share the baseline.
        let alone = codecs.iter().flat_map(|c| parts.iter().flat_map(|parts| parts.arms(c)));
        let own = codecs.iter().cloned().map(Arm::of);
        let mut arms: Vec<Arm> = own.chain(alone).collect();
        let asked = arms.len();
        let floor = settings.dtype.floor().map(|control| {
            // Once is enough where it was asked for as well.
            codecs.iter().position(|codec| *codec == control).unwrap_or_else(|| {
                arms.push(Arm::of(control));
                asked
            })
        });
        runs.push((protocol, arms, parts, (floor, asked)));
    }
    let tokens = |(protocol, arms, ..): &(Protocol, Vec<Arm>, _, _)| -> usize {
        let of = |window: &Window| protocol.model_tokens(window.shape(), arms.len());
        subject.windows.iter().map(of).sum()
    };
    progress.begin(runs.iter().map(tokens).sum());
    let mut done = Vec::new();
    for (protocol, arms, parts, (floor, asked)) in runs {
        let evaluator = Evaluator::new(&model, protocol, context, settings.seed);
        let mut evaluation =
            evaluator.evaluate(&subject.windows, &arms, progress).map_err(|e| explain(e, dtype))?;
        let floor = floor.and_then(|at| evaluation.codecs.get(at).cloned());
        evaluation.codecs.truncate(asked);
        let subject = subject.info(settings, protocol, provenance.clone());
        done.push(ProtocolRun { subject, evaluation, floor, parts });
    }
    let mut done = done.into_iter();
    let first = done.next().ok_or_else(|| Error::system("a run without a protocol"))?;

    Ok(Validation::new(Run {
        settings,
        first,
        decode: done
            .next()
            .map(|decode| (decode, refused.iter().map(RefusedCodec::from).collect())),
        threads: rayon::current_num_threads(),
        cross_check,
        prepare,
        load,
        cross_checking,
        total: start.elapsed(),
        peak_rss_bytes: platform::peak_rss_bytes(),
    }))
}

/// Estimates what [`run`] would take; opens what it would open, but no weights.
///
/// # Errors
/// Those of opening; a run that does not fit into memory.
pub fn dry_run(settings: &Settings, hub: &Hub, stages: &mut dyn Stages) -> Result<DryRun> {
    settings.device.open()?;
    let (subject, refused) = open(settings, hub, stages)?;
    // Program, text, tokenizer.
    let base = platform::peak_rss_bytes().unwrap_or(0);
    let mut estimates = Vec::new();
    for protocol in settings.protocols().each() {
        stages.stage("measuring one layer");
        let beside = !estimates.is_empty();
        let codecs = taken(settings, &refused, beside);
        if codecs.is_empty() {
            continue;
        }
        let parts = parts(settings, &subject.model.config, beside);
        let of_asked = 1 + parts.as_ref().map_or(0, CacheParts::count);
        let control = settings.dtype.floor().filter(|control| !codecs.contains(control));
        let passes = |codec: &Treatment| if Some(codec) == control.as_ref() { 1 } else { of_asked };
        let codecs: Vec<Treatment> = codecs.into_iter().chain(control.clone()).collect();
        estimates.push(estimate(settings, protocol, &subject, &codecs, passes)?);
    }
    Ok(together(estimates, Vec::new(), base))
}

/// The subject, and the codecs that the second protocol does not take.
fn open(
    settings: &Settings,
    hub: &Hub,
    stages: &mut dyn Stages,
) -> Result<(Subject, Vec<Refusal>)> {
    let mut refused = Vec::new();
    let subject =
        Subject::open(settings, hub, &mut SharedInputs::default(), stages, |config, context| {
            if settings.cross_check {
                oracle::supported(config, context)?;
            }
            refused = check_codecs(config, settings.protocols(), context, &settings.codec)?;
            Ok(())
        })?;
    Ok((subject, refused))
}

/// The codecs of a protocol, which is the first or `beside` it.
fn taken(settings: &Settings, refused: &[Refusal], beside: bool) -> Vec<Treatment> {
    let takes =
        |codec: &Treatment| !beside || refused.iter().all(|refused| refused.codec != *codec);
    settings.codecs().into_iter().filter(takes).collect()
}

/// The parts of the cache that are measured alone under a protocol, which is the first or `beside` it:
/// as many passes again for each, and once is enough to tell which carry the damage.
fn parts(settings: &Settings, config: &ModelConfig, beside: bool) -> Option<CacheParts<Scope>> {
    let asked = settings.attribute && !beside;
    asked.then(|| CacheParts::of(config.layers.len(), config.kv_heads()))
}

/// Adds the hint for an error of a model that runs: NaN or infinities in the cache or the logits.
pub(crate) fn explain(error: Error, dtype: DType) -> Error {
    match (error.kind(), dtype) {
        (Kind::Input, DType::F16) => error.hint("activations overflowed: try --dtype f32 or bf16"),
        (Kind::Input, _) => error.hint("are these weights what their author published?"),
        _ => error,
    }
}

/// Compares last-position logits on one window of a run whose windows have `context` tokens.
/// Different summation orders leave about 1e-5 of the largest logit in f32 over tens of layers; the
/// bounds are far above that and far below what any mistake makes.
pub(crate) fn cross_check(
    model: &Model,
    weights: WeightsRef,
    window: &[u32],
    context: usize,
) -> Result<CrossCheck> {
    let oracle = Oracle::load(model.config(), weights, context)?;
    let module = oracle.module();
    let theirs = oracle.last_logits(window)?;
    drop(oracle);
    let model = model.for_context(context);
    let hidden = model.forward(window, &mut model.empty_cache())?;
    let ours =
        model.logits(&hidden.narrow(0, window.len() - 1, 1)?)?.squeeze(0)?.to_vec1::<f32>()?;
    let largest = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
    let difference = theirs.iter().zip(&ours).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    let bound = if model.dtype() == DType::F32 { 1e-3 } else { 1e-1 };
    // max passes over NaN, so finiteness is asked for apart.
    let finite = ours.iter().chain(&theirs).all(|logit| logit.is_finite());
    let agrees = finite && difference <= bound * largest;
    if !agrees {
        return Err(Error::system(format!(
            "cross-check: expected the logits of candle-transformers' {module} to within {bound} of \
             the largest, {largest}, found a difference of {difference}"
        ))
        .hint("please report this model: its numbers cannot be trusted"));
    }
    Ok(CrossCheck {
        oracle: format!("candle-transformers {module}, f32, last position of the first window"),
        module,
        largest_logit: largest,
        largest_difference: difference,
    })
}
