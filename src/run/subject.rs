//! The subject of a run: a model and a text, opened, tokenised and checked against each other,
//! before a weight is fetched or read.

use crate::codec::FixedScale;
use crate::corpus::{COUNTED, Text, TextSource, TextTokens, Window, WindowPlan, WindowShape};
use crate::error::{Error, Result};
use crate::eval::protocol::{Protocol, Protocols};
use crate::eval::{LayerTreatment, Treatment};
use crate::hub::Hub;
use crate::model::ModelConfig;
use crate::model::source::{ModelWeights, OpenModel, Provenance};
use crate::results::subject::{ModelInfo, SubjectInfo, TextInfo};
use crate::results::validation::RefusedCodec;
use crate::settings::{Bos, Given, Settings};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::rc::Rc;

/// Hears what is going on before the long part begins.
pub trait Stages {
    /// A stage begins, in a few words.
    fn stage(&mut self, what: &str);
    /// Something worth knowing that is not an error.
    fn note(&mut self, text: &str);
}

type TokensOf = (String, TextSource, bool);

/// Models and texts that the subjects of one run share: each is opened once, also when that fails.
#[derive(Default)]
pub struct SharedInputs {
    models: HashMap<String, Result<Rc<OpenModel>>>,
    texts: HashMap<TextSource, Result<Rc<Text>>>,
    /// Texts about which all was said that there is to note.
    noted: HashSet<TextSource>,
    /// Texts that were tokenised whole for want of places to cut.
    noted_whole: HashSet<TextSource>,
    /// Models of which [`scales_note`] was told.
    pub noted_scales: HashSet<String>,
    /// By model and text, and whether control tokens in it are the model's own.
    tokens: HashMap<TokensOf, TextTokens>,
}

/// A model and a text, opened and cut into windows.
pub struct Subject {
    /// The open model; its weights are not read yet.
    pub model: Rc<OpenModel>,
    /// The text.
    pub text: Rc<Text>,
    /// Tokens of the whole text, where the windows needed it all or it is short.
    pub text_tokens: Option<usize>,
    /// Tokens of a window.
    pub context: usize,
    /// Replaces the first token of every window.
    pub bos: Option<u32>,
    /// At least one.
    pub windows: Vec<Window>,
}

impl Subject {
    /// `check` sees the model's configuration and the context before the text is read.
    pub fn open(
        settings: &Settings,
        hub: &Hub,
        shared: &mut SharedInputs,
        stages: &mut dyn Stages,
        check: impl FnOnce(&ModelConfig, usize) -> Result<()>,
    ) -> Result<Self> {
        let mut text = || {
            once(&mut shared.texts, settings.text.clone(), || match &settings.text {
                TextSource::File(path) => Text::file(path),
                TextSource::Builtin => Ok(Text::builtin()),
                TextSource::Wikitext2 => Text::wikitext2(hub),
            })
        };
        // A text on disk first: a mistyped path is found before gigabytes of weights are fetched.
        if settings.text.path().is_some() {
            text()?;
        }

        stages.stage("opening the model");
        let model = once(&mut shared.models, settings.model.clone(), || {
            settings.source.open(&settings.model, hub)
        })?;
        let context = settings.context_for(model.config.max_context())?;
        check(&model.config, context)?;
        let bos = window_bos(settings, &model)?;

        stages.stage("reading the text");
        let text = text()?;
        if let Some(note) = text.note().filter(|_| shared.noted.insert(settings.text.clone())) {
            stages.note(&note);
        }
        let parse_special = settings.parse_special;
        let key = (settings.model.clone(), settings.text.clone(), parse_special);
        let tokenizer = &model.tokenizer;
        let make = || TextTokens::new(tokenizer, parse_special);
        let tokens = shared.tokens.entry(key).or_insert_with(make);
        let long = text.bytes > COUNTED;
        if long && !tokens.has_cuts() && shared.noted_whole.insert(settings.text.clone()) {
            stages.note(&format!(
                "{}: tokenised to its end, in memory: this tokenizer has no places at which a text \
                 can surely be cut",
                text.source
            ));
        }
        let (first, count) = (settings.first_window, settings.windows.limit());
        let plan = WindowPlan { context, first, count, bos };
        let needed = plan.tokens().filter(|_| long);
        tokens.read(&text, tokenizer, needed.unwrap_or(usize::MAX))?;
        // The same whatever else in this run has read the text.
        let text_tokens = tokens.count().filter(|all| needed.is_none_or(|needed| needed > *all));
        let tokens = tokens.ids();
        let vocab_size = model.config.vocab_size;
        if let Some(id) = tokens.iter().chain(&bos).find(|id| **id as usize >= vocab_size) {
            return Err(Error::input(format!(
                "tokenizer: expected ids below the model's vocabulary of {vocab_size}, found {id}"
            ))
            .hint("tokenizer and weights do not belong together"));
        }
        let windows = plan.cut(tokens, &text.source)?;
        if let Some(asked) = count.filter(|asked| *asked > windows.len()) {
            stages.note(&format!(
                "windows: {} of {context} tokens instead of {asked}: {} ends there",
                windows.len(),
                text.source
            ));
        }
        Ok(Self { model, text, text_tokens, context, bos, windows })
    }
}

/// A note, if the model's own files have scales of its cache, which vLLM would divide by, and a codec of
/// these settings divides by 1 without having been told to.
pub fn scales_note(settings: &Settings, weights: &ModelWeights) -> Option<String> {
    let folder = weights.kv_scales_folder.as_ref().filter(|_| settings.kv_scale.is_none())?;
    // vLLM takes none for E5M2, and none for TurboQuant's keys.
    let divides_by_one = |own: &LayerTreatment| {
        own.codec.with_scales(FixedScale::ONE, FixedScale::ONE).is_some()
            && (own.codec.key.is_plain_e4m3() || own.codec.value.is_plain_e4m3())
    };
    let mut codecs = settings.codec.iter().flat_map(|codec| codec.value.each());
    codecs.any(divides_by_one).then(|| {
        format!(
            "{}: its files have scales of its cache (k_scale, v_scale), by which vLLM divides; fp8-e4m3 \
             divides by 1; validate and sweep take the model's own with --kv-scale {}",
            settings.model,
            folder.display()
        )
    })
}

impl Subject {
    /// Everything that determines the numbers, as results record it.
    pub fn info(
        &self,
        settings: &Settings,
        protocol: Protocol,
        provenance: Provenance,
    ) -> SubjectInfo {
        let Self { model, text, text_tokens, context, bos, windows } = self;
        let config = &model.config;
        SubjectInfo {
            protocol,
            model: ModelInfo {
                headline: None,
                provenance,
                architecture: config.architecture.clone(),
                layers: config.layers.len(),
                heads: config.heads(),
                kv_heads: config.kv_heads(),
                head_dim: config.head_dim(),
                vocab_size: config.vocab_size,
                max_position_embeddings: config.max_position_embeddings,
                sliding_windows: config.sliding_windows(),
            },
            text: TextInfo {
                headline: None,
                source: text.source.clone(),
                sha256: text.sha256.clone(),
                bytes: text.bytes as usize,
                tokens: *text_tokens,
                windows_available: text_tokens.map(|tokens| tokens / context),
                parse_special: settings.parse_special,
            },
            context: *context,
            prefix: WindowShape::halves(*context).prefix(),
            first_window: settings.first_window,
            windows: windows.len(),
            scored_tokens: windows.iter().map(|window| window.shape().scored_len()).sum(),
            bos_id: *bos,
            dtype: settings.dtype,
            device: settings.device,
            instruction_set: settings.instruction_set().into(),
            seed: settings.seed,
        }
    }
}

/// A codec that `decode` cannot take, and why.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The codec.
    pub codec: Treatment,
    /// Why, and what would do.
    pub error: Error,
}

impl From<&Refusal> for RefusedCodec {
    fn from(refusal: &Refusal) -> Self {
        Self {
            codec: refusal.codec.to_string(),
            error: refusal.error.to_string(),
            hint: refusal.error.hint_text().map(str::to_string),
        }
    }
}

/// Whether the codecs can be used on this model under all of a run's protocols, before its weights
/// are read; those that `decode` cannot take beside `prefix` are returned.
///
/// # Errors
/// The first of [`check_codec`].
pub fn check_codecs(
    config: &ModelConfig,
    protocols: Protocols,
    context: usize,
    codecs: &[Given<Treatment>],
) -> Result<Vec<Refusal>> {
    let mut refused = Vec::new();
    for codec in codecs {
        for protocol in protocols.each() {
            refused.extend(check_codec(config, protocols, protocol, context, codec)?);
        }
    }
    Ok(refused)
}

/// Whether a codec can be used on this model under one of a run's protocols. Beside `prefix`,
/// `decode` may refuse it: then it has no verdict under it.
///
/// # Errors
/// A codec that cannot be used, where it was given.
pub fn check_codec(
    config: &ModelConfig,
    protocols: Protocols,
    protocol: Protocol,
    context: usize,
    Given { value: codec, location }: &Given<Treatment>,
) -> Result<Option<Refusal>> {
    let shape = WindowShape::halves(context);
    let Err(error) = protocol.check(config, &shape, codec) else { return Ok(None) };
    // A residual that leaves nothing to feel was asked for, and is a mistake.
    let beside = match (protocols, protocol) {
        (Protocols::Both { residual, .. }, Protocol::Decode { .. }) => {
            let felt = protocol
                .seen_of(codec, config.layers.len(), &config.sliding_windows())
                .and_then(|codecs| protocol.targets_affected(config.head_dim(), &shape, &codecs));
            residual == 0 || felt.is_err()
        }
        _ => false,
    };
    match beside {
        true => Ok(Some(Refusal { codec: codec.clone(), error })),
        false => Err(location.locate(error)),
    }
}

/// The entry of `key`, made now where there is none yet.
fn once<K: Eq + Hash, T>(
    shared: &mut HashMap<K, Result<Rc<T>>>,
    key: K,
    make: impl FnOnce() -> Result<T>,
) -> Result<Rc<T>> {
    shared.entry(key).or_insert_with(|| make().map(Rc::new)).clone()
}

/// The token that replaces the first of every window, if one does.
fn window_bos(settings: &Settings, open: &OpenModel) -> Result<Option<u32>> {
    let wanted = match settings.bos {
        Bos::Never => false,
        Bos::Always => true,
        Bos::Auto => open.adds_bos,
    };
    match (wanted, open.bos_id) {
        (false, _) => Ok(None),
        (true, Some(id)) => Ok(Some(id)),
        (true, None) => Err(Error::input(format!(
            "--bos: expected a beginning-of-sequence token, and {} names none",
            settings.model
        ))
        .hint("use --bos never")),
    }
}
