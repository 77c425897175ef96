//! Models side by side: what each codec does to every model of a sweep, and which one does least to the
//! worst of them for so many bits, of all codecs and of those that an engine has.

use super::subject::SubjectInfo;
use super::sweep::{CellReport, SubjectReport};
use crate::codec::{CacheCodec, ENGINES, Engine, shown_name};
use crate::eval::Protocol;
use crate::eval::verdict::Verdict;
use serde::Serialize;

/// Bits a value that there is an answer for.
const BUDGETS: [f64; 5] = [2.5, 3.5, 4.5, 6.0, 8.5];
/// Of a cache that nothing was done to.
const SERVED_BITS: f64 = 16.0;

/// Several models on one text, with one context, under one protocol.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The text as asked for.
    pub text: String,
    /// For headlines.
    #[serde(skip)]
    pub text_name: String,
    /// Tokens of a window.
    pub context: usize,
    /// How the cache is compressed.
    #[serde(flatten)]
    pub protocol: Protocol,
    /// Two or more, each once, in the order asked for.
    pub models: Vec<ComparedModel>,
    /// Smallest mean over the models first, codecs without one last.
    pub codecs: Vec<ComparedCodec>,
    /// Of all codecs, then of each engine that has one of them, in rising order of bits.
    pub best_within_bits: Vec<WithinBits>,
}

/// A model of a comparison.
#[derive(Debug, Clone, Serialize)]
pub struct ComparedModel {
    /// As asked for.
    pub model: String,
    /// For headlines.
    #[serde(skip)]
    pub name: String,
    /// Its own path of the text.
    #[serde(skip)]
    pub text: String,
    /// Windows evaluated.
    pub windows: usize,
}

/// A codec on each of the models; `None`: no result that says something.
#[derive(Debug, Clone, Serialize)]
pub struct ComparedCodec {
    /// Its name.
    pub codec: String,
    /// Bits a value, one a model.
    pub bits_per_value: Vec<Option<f64>>,
    /// Mean KL divergence, nats a token, one a model.
    pub kld_mean: Vec<Option<f64>>,
    /// Its 95 % interval, one a model.
    pub kld_mean_ci95: Vec<Option<[f64; 2]>>,
    /// Geometric mean over the models; `None` where one has no result.
    pub kld_geometric_mean: Option<f64>,
    /// Index of the model with the largest KL divergence; `None` where one has no result.
    pub worst_model: Option<usize>,
}

/// The codec whose largest mean KL divergence over the models is the smallest, of those that take no more
/// bits on any of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WithinBits {
    /// `None`: of all codecs.
    pub engine: Option<&'static str>,
    /// Bits a value. A limit is left out where a lower one has the same answer.
    pub max_bits_per_value: f64,
    /// Its name.
    pub codec: String,
    /// How the engine is asked for it.
    pub flag: Option<String>,
    /// The largest over the models.
    pub bits_per_value: f64,
    /// The largest mean KL divergence over the models, nats a token.
    pub kld_mean: f64,
    /// Index of the model that has it.
    pub worst_model: usize,
}

/// Of subjects that share text, context and protocol, where they are of several models. A model with two
/// such subjects has that of more windows. Baselines that mean nothing are left out.
pub fn comparisons(subjects: &[SubjectReport]) -> Vec<Comparison> {
    let views: Vec<SubjectReport> = subjects
        .iter()
        .filter(|s| s.baseline.meaningless(s.subject.model.vocab_size).is_none())
        .flat_map(SubjectReport::by_protocol)
        .collect();
    let mut groups: Vec<Vec<&SubjectReport>> = Vec::new();
    for view in &views {
        let own = &view.subject;
        let Some(group) = groups.iter_mut().find(|group| comparable(&group[0].subject, own)) else {
            groups.push(vec![view]);
            continue;
        };
        let same =
            |other: &&mut &SubjectReport| other.subject.model.provenance == own.model.provenance;
        match group.iter_mut().find(same) {
            Some(other) if other.subject.windows < own.windows => *other = view,
            Some(_) => {}
            None => group.push(view),
        }
    }
    groups.iter().filter(|group| group.len() > 1).map(|group| Comparison::of(group)).collect()
}

fn comparable(a: &SubjectInfo, b: &SubjectInfo) -> bool {
    let terms = |s: &SubjectInfo| (s.text.parse_special, s.context, s.protocol);
    a.text.sha256 == b.text.sha256 && terms(a) == terms(b)
}

impl Comparison {
    fn of(group: &[&SubjectReport]) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for cell in group.iter().flat_map(|view| &view.cells) {
            let name = cell.result.figures.codec.as_str();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut codecs: Vec<_> = names.iter().map(|name| ComparedCodec::of(name, group)).collect();
        codecs.sort_by(|a, b| match (a.kld_geometric_mean, b.kld_geometric_mean) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        let first = &group[0].subject;
        let model = |view: &&SubjectReport| ComparedModel {
            model: view.subject.model.provenance.source.clone(),
            name: view.subject.model.name().trim_end_matches(".gguf").into(),
            text: view.subject.text.source.clone(),
            windows: view.subject.windows,
        };
        Self {
            text: first.text.source.clone(),
            text_name: first.text.name().into(),
            context: first.context,
            protocol: first.protocol,
            models: group.iter().map(model).collect(),
            best_within_bits: best_within_bits(&codecs),
            codecs,
        }
    }

    /// With codecs by the names that people are shown.
    pub fn show_names(&mut self) {
        let of_codecs = self.codecs.iter_mut().map(|codec| &mut codec.codec);
        let of_answers = self.best_within_bits.iter_mut().map(|answer| &mut answer.codec);
        for name in of_codecs.chain(of_answers) {
            *name = shown_name(name);
        }
    }

    /// The cells of a model, in the order of the codecs.
    pub fn cells_of<'a>(&self, view: &'a SubjectReport) -> Vec<&'a CellReport> {
        let of = |codec: &ComparedCodec| cell(view, &codec.codec);
        self.codecs.iter().filter_map(of).collect()
    }

    /// Whether this is the subject of one of its models.
    pub fn is_of(&self, view: &SubjectReport) -> bool {
        let s = &view.subject;
        let is = |model: &ComparedModel| {
            (&model.model, &model.text) == (&s.model.provenance.source, &s.text.source)
                && model.windows == s.windows
        };
        (self.context, self.protocol) == (s.context, s.protocol) && self.models.iter().any(is)
    }
}

fn cell<'a>(view: &'a SubjectReport, codec: &str) -> Option<&'a CellReport> {
    view.cells.iter().find(|cell| cell.result.figures.codec == codec)
}

impl ComparedCodec {
    fn of(codec: &str, group: &[&SubjectReport]) -> Self {
        let says = |cell: &&CellReport| cell.result.judgement.verdict != Verdict::Invalid;
        let figures: Vec<_> = group
            .iter()
            .map(|view| Some(&cell(view, codec).filter(says)?.result.figures))
            .collect();
        let kld_mean: Vec<Option<f64>> = figures.iter().map(|f| Some((*f)?.kld_mean)).collect();
        let all: Option<Vec<f64>> = kld_mean.iter().copied().collect();
        let mean =
            |all: &Vec<f64>| (all.iter().map(|kld| kld.ln()).sum::<f64>() / all.len() as f64).exp();
        let worst = |all: &Vec<f64>| (0..all.len()).max_by(|a, b| all[*a].total_cmp(&all[*b]));
        Self {
            codec: codec.into(),
            bits_per_value: figures.iter().map(|f| Some((*f)?.bits_per_value)).collect(),
            kld_mean_ci95: figures.iter().map(|f| (*f)?.kld_mean_ci95).collect(),
            kld_geometric_mean: all.as_ref().map(mean),
            worst_model: all.as_ref().and_then(worst),
            kld_mean,
        }
    }

    /// The fewest and the most over the models.
    pub fn bits_range(&self) -> [f64; 2] {
        let bits = || self.bits_per_value.iter().flatten().copied();
        [bits().fold(f64::INFINITY, f64::min), bits().fold(0.0, f64::max)]
    }
}

fn best_within_bits(codecs: &[ComparedCodec]) -> Vec<WithinBits> {
    let mut answers: Vec<WithinBits> = Vec::new();
    for engine in std::iter::once(None).chain(ENGINES.iter().map(Some)) {
        let candidates: Vec<WithinBits> =
            codecs.iter().filter_map(|codec| candidate(codec, engine)).collect();
        let mut last: Option<&str> = None;
        for most in BUDGETS {
            let within = candidates.iter().filter(|of| of.bits_per_value <= most);
            let best = within.min_by(|a, b| {
                let kld = a.kld_mean.total_cmp(&b.kld_mean);
                kld.then(a.bits_per_value.total_cmp(&b.bits_per_value))
            });
            let Some(best) = best.filter(|best| last != Some(best.codec.as_str())) else {
                continue;
            };
            last = Some(best.codec.as_str());
            answers.push(WithinBits { max_bits_per_value: most, ..best.clone() });
        }
    }
    answers
}

/// `None`: without a result on every model, not smaller than 16 bits, or not the engine's.
fn candidate(codec: &ComparedCodec, engine: Option<&'static Engine>) -> Option<WithinBits> {
    let worst_model = codec.worst_model?;
    let [_, bits_per_value] = codec.bits_range();
    let flag = match engine {
        Some(engine) => Some(engine.flag_of(&codec.codec.parse::<CacheCodec>().ok()?)?),
        None => None,
    };
    (bits_per_value < SERVED_BITS).then_some(WithinBits {
        engine: engine.map(|engine| engine.name),
        max_bits_per_value: bits_per_value,
        codec: codec.codec.clone(),
        flag,
        bits_per_value,
        kld_mean: codec.kld_mean[worst_model]?,
        worst_model,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture::{self, made_up, subject};
    use crate::results::sweep::SweepReport;

    fn several() -> SweepReport {
        let found = fixture::all().into_iter().find(|(name, _)| *name == "several-models");
        found.unwrap().1
    }

    /// The fixture draws a cell's KLDs around its own; what is checked here are the rules.
    #[test]
    fn means_are_over_all_models_and_of_logarithms() {
        let report = several();
        let [prefix, decode] = &report.comparisons[..] else { panic!("two protocols") };
        assert_eq!((prefix.protocol.name(), decode.protocol.name()), ("prefix", "decode"));
        let windows: Vec<_> = prefix.models.iter().map(|m| (m.name.as_str(), m.windows)).collect();
        let expected = [("HuggingFaceTB/SmolLM2-135M", 10), ("qwen-0.5b", 6), ("gemma-270m", 1)];
        assert_eq!(windows, expected);
        let of = |name: &str| prefix.codecs.iter().find(|codec| codec.codec == name).unwrap();
        let klds: Vec<f64> = of("q4_0-had").kld_mean.iter().map(|kld| kld.unwrap()).collect();
        let mean = (klds[0] * klds[1] * klds[2]).cbrt();
        assert!((of("q4_0-had").kld_geometric_mean.unwrap() / mean - 1.0).abs() < 1e-12);
        assert_eq!(of("q4_0-had").worst_model, Some(1));
        assert!(klds[1] > klds[0] && klds[1] > klds[2], "{klds:?}");
        // One window has no interval; a codec that a model lacks has neither mean nor worst, and is last.
        let ends: Vec<bool> = of("q4_0-had").kld_mean_ci95.iter().map(Option::is_some).collect();
        assert_eq!(ends, [true, true, false]);
        let last = prefix.codecs.last().unwrap();
        assert_eq!((last.codec.as_str(), last.worst_model), ("mlx4", None));
        assert_eq!(last.kld_mean.iter().flatten().count(), 2);
        let means: Vec<_> = prefix.codecs.iter().filter_map(|c| c.kld_geometric_mean).collect();
        assert!(
            means.windows(2).all(|pair| pair[0] <= pair[1])
                && means.len() + 1 == prefix.codecs.len()
        );
    }

    #[test]
    fn the_best_for_the_worst_model_is_named_for_every_engine() {
        let report = several();
        let told: Vec<_> = report.comparisons[0]
            .best_within_bits
            .iter()
            .map(|a| (a.engine.unwrap_or("any"), a.max_bits_per_value, a.codec.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("any", 3.5, "k:int2-g32-asym-ch/v:int2-g32-asym"),
                ("any", 4.5, "kvgauge4"),
                ("any", 8.5, "q8_0-had"),
                ("llama.cpp", 4.5, "q4_0-had"),
                ("llama.cpp", 8.5, "q8_0-had"),
                ("BeeLlama", 4.5, "q4_0-had"),
                ("BeeLlama", 8.5, "q8_0-had"),
                ("vLLM", 8.5, "fp8-e4m3"),
                ("SGLang", 8.5, "fp8-e4m3"),
                ("TensorRT-LLM", 8.5, "fp8-e4m3"),
            ]
        );
        let flags: Vec<_> =
            report.comparisons[0].best_within_bits.iter().map(|a| a.flag.as_deref()).collect();
        assert_eq!(flags[1], None);
        assert_eq!(flags[3], Some("-ctk q4_0 -ctv q4_0"));
    }

    #[test]
    fn only_what_can_be_compared_is() {
        let codecs = [made_up("q4_0", 4.5, [0.01, 0.01], 0.01, [16.0, 19.0])];
        let of = |model: &str, windows| subject(model, windows, 2, &codecs);
        let count = |subjects: &[SubjectReport]| comparisons(subjects).len();
        assert_eq!(count(&[of("a/b", 8)]), 0);
        // The same model twice is one model, with the more windows.
        assert_eq!(count(&[of("a/b", 8), of("a/b", 4)]), 0);
        let both = comparisons(&[of("a/b", 4), of("c/d", 4), of("a/b", 8)]);
        let windows: Vec<usize> = both[0].models.iter().map(|model| model.windows).collect();
        assert_eq!((both.len(), windows), (1, vec![8, 4]));
        let apart = |change: fn(&mut SubjectInfo)| {
            let mut other = of("c/d", 8);
            change(&mut other.subject);
            count(&[of("a/b", 8), other])
        };
        assert_eq!(apart(|_| {}), 1);
        assert_eq!(apart(|s| s.context = 1024), 0);
        assert_eq!(apart(|s| s.text.sha256 = "00".into()), 0);
        assert_eq!(apart(|s| s.protocol = Protocol::Prefix { residual: 8 }), 0);
        // A baseline no better than guessing.
        assert_eq!(apart(|s| s.model.vocab_size = 2), 0);
    }
}
