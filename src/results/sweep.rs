#![doc = include_str!("SCHEMA.md")]

use super::answers::{self, WithinBytes, WithinKld};
use super::comparison::{Comparison, comparisons};
use super::figures::{Baseline, CodecResult};
use super::names::Headlines;
pub use super::recommendation::Recommendation;
use super::recommendation::{front, recommendations};
use super::subject::SubjectInfo;
use super::validation::RefusedCodec;
use crate::codec::shown_name;
use crate::eval::Protocol;
use crate::eval::verdict::{Limits, Verdict};
use serde::{Deserialize, Serialize};

/// Version of a sweep's JSON.
pub const SCHEMA: &str = "kvgauge.sweep/1";

/// The report of a sweep: `results.json`.
#[derive(Debug, Clone, Serialize)]
pub struct SweepReport {
    /// [`SCHEMA`]
    pub schema: &'static str,
    /// Version of the binary that wrote the report.
    pub kvgauge_version: &'static str,
    /// How to make it again; several where logs of several sweeps were merged.
    pub sweeps: Vec<SweepSource>,
    /// The limits behind the verdicts.
    #[serde(flatten)]
    pub limits: Limits,
    /// Sequences behind `gb_saved`.
    pub batch: usize,
    /// At least one finished cell each.
    pub subjects: Vec<SubjectReport>,
    /// One a text, context and protocol that several models have results of.
    pub comparisons: Vec<Comparison>,
    /// Cells that ended in an error.
    pub failed: Vec<UnfinishedCell>,
    /// Cells without a result so far.
    pub missing: Vec<UnfinishedCell>,
}

/// The request behind a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepSource {
    /// The command line.
    pub command: String,
    /// The config file, as named on it.
    pub config_path: String,
    /// Its text.
    pub config: String,
}

impl SweepSource {
    /// Whether the same was asked for, wherever the config lay and however its path was spelt.
    pub fn is_same_sweep(&self, other: &Self) -> bool {
        let without_path = |source: &Self| source.command.replacen(&source.config_path, "", 1);
        self.config == other.config && without_path(self) == without_path(other)
    }

    /// For results judged by limits and of a batch where the sweep itself had `own` ones.
    pub fn with_terms(&self, own: (&Limits, usize), (limits, batch): (&Limits, usize)) -> Self {
        const FLAGS: [&str; 6] = [
            "--max-ppl-change",
            "--max-ppl-increase",
            "--max-kld",
            "--min-top1",
            "--max-bytes-per-token",
            "--batch",
        ];
        let mut source = self.clone();
        if (limits, batch) != own {
            let mut words = self.command.split(' ');
            let mut kept: Vec<String> = Vec::new();
            while let Some(word) = words.next() {
                match FLAGS.iter().find_map(|flag| word.strip_prefix(flag)) {
                    Some("") => _ = words.next(),
                    Some(value) if value.starts_with('=') => {}
                    _ => kept.push(word.into()),
                }
            }
            kept.push(format!("--max-ppl-change {}", limits.max_ppl_change));
            kept.extend(limits.max_kld.map(|most| format!("--max-kld {most}")));
            kept.extend(limits.min_top1.map(|least| format!("--min-top1 {least}")));
            let most = limits.max_bytes_per_token;
            kept.extend(most.map(|most| format!("--max-bytes-per-token {most}")));
            kept.extend((batch > 1).then(|| format!("--batch {batch}")));
            source.command = kept.join(" ");
        }
        source
    }
}

/// One model, text and context, and the codecs tried on it.
#[derive(Debug, Clone, Serialize)]
pub struct SubjectReport {
    /// Model, text and windows, under the first protocol.
    #[serde(flatten)]
    pub subject: SubjectInfo,
    /// The untouched cache under it.
    pub baseline: Baseline,
    /// Protocols under which a recommended codec passes.
    pub recommended_under: Vec<&'static str>,
    /// For `max_ppl_increase` first, then for usual limits in rising order.
    pub recommended: Vec<Recommendation>,
    /// For `max_kld` first, where it is set, then for usual limits in rising order.
    pub cheapest_within_kld: Vec<WithinKld>,
    /// For `max_bytes_per_token` first, where it is set, then for parts of 16 bits' bytes.
    pub best_within_bytes: Vec<WithinBytes>,
    /// In the order asked for.
    pub cells: Vec<CellReport>,
    /// Where both protocols ran: what is above is `prefix`'s, and this `decode`'s.
    pub decode: Option<DecodeReport>,
}

/// The same subject under `decode`.
#[derive(Debug, Clone, Serialize)]
pub struct DecodeReport {
    /// `decode`, and its residual and chunk.
    #[serde(flatten)]
    pub protocol: Protocol,
    /// Over all windows.
    pub scored_tokens: usize,
    /// The untouched cache under it.
    pub baseline: Baseline,
    /// In the order asked for.
    pub cells: Vec<CellReport>,
    /// Codecs that `decode` cannot take.
    pub refused: Vec<RefusedCodec>,
}

/// Results of one protocol on a subject.
pub struct ProtocolCells {
    /// Model, text, windows and protocol.
    pub subject: SubjectInfo,
    /// The untouched cache.
    pub baseline: Baseline,
    /// Id and result.
    pub cells: Vec<(String, CodecResult)>,
}

/// The request for a subject: which protocols, and the codecs that `decode` refused.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Names of the protocols asked for.
    pub protocols: Vec<&'static str>,
    /// Codecs that `decode` refused.
    pub refused: Vec<RefusedCodec>,
}

/// A finished cell.
#[derive(Debug, Clone, Serialize)]
pub struct CellReport {
    /// Derived from everything that determines the numbers.
    pub id: String,
    /// Its figures and verdict.
    #[serde(flatten)]
    pub result: CodecResult,
    /// No other codec with as few bits a value or fewer has a perplexity nearer to the baseline's.
    pub on_perplexity_front: bool,
    /// No other codec with as few bits a value or fewer has a smaller mean KLD.
    pub on_kld_front: bool,
}

/// A cell without figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnfinishedCell {
    /// The model as asked for.
    pub model: String,
    /// The text as asked for.
    pub text: String,
    /// `None`: the model's own, and it was never opened.
    pub context: Option<usize>,
    /// `None`: planned by a version that ran one protocol.
    pub protocol: Option<String>,
    /// The codec's name.
    pub codec: String,
    /// `None`: not tried yet.
    pub error: Option<String>,
    /// The error's hint.
    pub hint: Option<String>,
}

impl UnfinishedCell {
    /// Model and text as asked for.
    pub fn sources(&self) -> (&str, &str) {
        (&self.model, &self.text)
    }
}

impl SubjectReport {
    /// `decode`: beside `prefix`.
    pub fn new(
        first: ProtocolCells,
        decode: Option<ProtocolCells>,
        asked: &Asked,
        limits: &Limits,
    ) -> Self {
        let found: Vec<&'static str> = std::iter::once(&first)
            .chain(&decode)
            .map(|part| part.subject.protocol.name())
            .collect();
        // A protocol that was asked for and has no result recommends nothing.
        let complete = asked.protocols.iter().all(|name| found.contains(name));
        let beside = decode.as_ref().map(|part| part.cells.as_slice());
        let recommended = recommendations(&first.cells, beside, complete, limits.max_ppl_change);
        let candidates = answers::candidates(&first.cells, beside, complete);
        let cheapest_within_kld = answers::cheapest_within_kld(&candidates, limits.max_kld);
        let best_within_bytes = answers::best_within_bytes(
            &candidates,
            limits.max_bytes_per_token,
            first.cells.first().map_or(0.0, |(_, result)| result.figures.cache_bytes_per_token_f16),
        );
        let decode = decode.map(|part| DecodeReport {
            protocol: part.subject.protocol,
            scored_tokens: part.subject.scored_tokens,
            baseline: part.baseline,
            cells: cell_reports(part.cells),
            refused: asked.refused.clone(),
        });
        let recommended_under = if complete { found } else { asked.protocols.clone() };
        Self {
            subject: first.subject,
            baseline: first.baseline,
            recommended_under,
            recommended,
            cheapest_within_kld,
            best_within_bytes,
            cells: cell_reports(first.cells),
            decode,
        }
    }

    fn show_names(&mut self) {
        let answers = self.recommended.iter_mut().map(|answer| &mut answer.codec);
        let answers = answers.chain(self.cheapest_within_kld.iter_mut().map(|a| &mut a.codec));
        let answers = answers.chain(self.best_within_bytes.iter_mut().map(|a| &mut a.codec));
        let cells = self.cells.iter_mut();
        let (refused, beside) = match &mut self.decode {
            Some(decode) => (&mut decode.refused[..], &mut decode.cells[..]),
            None => Default::default(),
        };
        let cells = cells.chain(beside).map(|cell| &mut cell.result.figures.codec);
        let refused = refused.iter_mut().map(|refused| &mut refused.codec);
        for name in answers.flatten().chain(cells).chain(refused) {
            *name = shown_name(name);
        }
    }

    /// For the limit asked for.
    pub fn recommended_codec(&self) -> Option<&str> {
        self.recommended.first()?.codec.as_deref()
    }

    /// Whether this is the codec recommended for the limit asked for.
    pub fn recommends(&self, cell: &CellReport) -> bool {
        self.recommended_codec() == Some(cell.result.figures.codec.as_str())
    }

    /// Whether this codec fails under a protocol that has a result of it.
    pub fn fails(&self, cell: &CellReport) -> bool {
        let decode = self.decode_cell(&cell.result.figures.codec);
        let verdict = |cell: &CellReport| cell.result.judgement.verdict;
        std::iter::once(cell).chain(decode).any(|cell| verdict(cell) == Verdict::Fail)
    }

    /// Protocol by protocol, each as a subject of its own; the recommendation is that of all.
    pub fn by_protocol(&self) -> Vec<SubjectReport> {
        let first = Self { decode: None, ..self.clone() };
        let decode = self.decode.as_ref().map(|decode| Self {
            subject: SubjectInfo { protocol: decode.protocol, ..self.subject.clone() },
            baseline: decode.baseline.clone(),
            cells: decode.cells.clone(),
            ..first.clone()
        });
        std::iter::once(first).chain(decode).collect()
    }

    /// The cell of this codec under `decode`.
    pub fn decode_cell(&self, codec: &str) -> Option<&CellReport> {
        self.decode.as_ref()?.cells.iter().find(|cell| cell.result.figures.codec == codec)
    }

    /// Why `decode` has no cell of this codec, where it refused it.
    pub fn why_refused(&self, codec: &str) -> Option<&str> {
        let refused = &self.decode.as_ref()?.refused;
        refused.iter().find(|refused| refused.codec == codec).map(|refused| refused.error.as_str())
    }

    /// The answers for a KL divergence and for so many bytes.
    pub fn answers_in_words(&self, named: impl Fn(&Option<String>) -> String) -> [String; 2] {
        answers::in_words(&self.cheapest_within_kld, &self.best_within_bytes, named)
    }

    /// `prefix and decode`
    pub fn under(&self) -> String {
        self.recommended_under.join(" and ")
    }
}

fn cell_reports(cells: Vec<(String, CodecResult)>) -> Vec<CellReport> {
    let results: Vec<&CodecResult> = cells.iter().map(|(_, result)| result).collect();
    let perplexity = front(&results, |result| result.figures.perplexity_change_percent.abs());
    let kld = front(&results, |result| result.figures.kld_mean);
    let fronts = perplexity.into_iter().zip(kld);
    let report = |((id, result), (on_perplexity_front, on_kld_front))| CellReport {
        id,
        result,
        on_perplexity_front,
        on_kld_front,
    };
    cells.into_iter().zip(fronts).map(report).collect()
}

impl SweepReport {
    /// A report of this version.
    pub fn new(
        sweeps: Vec<SweepSource>,
        limits: Limits,
        batch: usize,
        subjects: Vec<SubjectReport>,
        failed: Vec<UnfinishedCell>,
        missing: Vec<UnfinishedCell>,
    ) -> Self {
        let (schema, kvgauge_version) = (SCHEMA, env!("CARGO_PKG_VERSION"));
        let mut report = Self {
            schema,
            kvgauge_version,
            sweeps,
            limits,
            batch,
            comparisons: Vec::new(),
            subjects,
            failed,
            missing,
        };
        let headlines = report.headlines();
        for SubjectReport { subject, .. } in &mut report.subjects {
            subject.model.headline = headlines.longer_model(&subject.model.provenance.source);
            subject.text.headline = headlines.longer_text(&subject.text.source);
        }
        // With the names that tell models apart.
        report.comparisons = comparisons(&report.subjects);
        report
    }

    /// With codecs by the names that people are shown: for everything but JSON and CSV.
    pub fn for_people(&self) -> Self {
        let mut shown = self.clone();
        shown.subjects.iter_mut().for_each(SubjectReport::show_names);
        shown.comparisons.iter_mut().for_each(Comparison::show_names);
        for cell in shown.failed.iter_mut().chain(&mut shown.missing) {
            cell.codec = shown_name(&cell.codec);
        }
        shown
    }

    /// Of all its models and texts, those of cells without a result too.
    pub fn headlines(&self) -> Headlines {
        let subjects = self.subjects.iter().map(|SubjectReport { subject, .. }| {
            (subject.model.provenance.source.as_str(), subject.text.source.as_str())
        });
        let unfinished = self.failed.iter().chain(&self.missing);
        Headlines::of(subjects.chain(unfinished.map(UnfinishedCell::sources)))
    }

    /// True when a cell has no result, or a subject no codec to recommend at the limit, which
    /// `--strict` turns into exit status 1.
    pub fn misses_limit(&self) -> bool {
        !self.failed.is_empty()
            || !self.missing.is_empty()
            || self.subjects.iter().any(|subject| subject.recommended_codec().is_none())
    }

    /// Subjects protocol by protocol.
    pub fn by_protocol(&self) -> Vec<SubjectReport> {
        self.subjects.iter().flat_map(SubjectReport::by_protocol).collect()
    }

    /// Of the results, each once. Where there are several, results of one are not the bytes of
    /// another.
    pub fn instruction_sets(&self) -> Vec<&str> {
        let mut sets: Vec<&str> =
            self.subjects.iter().map(|s| s.subject.instruction_set.as_str()).collect();
        sets.sort_unstable();
        sets.dedup();
        sets
    }

    /// The warning where there are several.
    pub fn instruction_sets_note(&self) -> Option<String> {
        let sets = self.instruction_sets();
        (sets.len() > 1).then(|| {
            format!(
                "Computed on {} instruction sets ({}): the last digits depend on it, so that these \
                 are not the bytes of one run, and cells of one are not held against cells of \
                 another.",
                sets.len(),
                sets.join("; ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_the_limits_of_the_results() {
        let at = |command: &str, own: f64, kld: Option<f64>| {
            let (config_path, config) = (String::new(), String::new());
            let limits =
                |change| Limits { max_ppl_change: change, max_kld: kld, ..Limits::default() };
            let source = SweepSource { command: command.into(), config_path, config };
            let own = Limits { max_ppl_change: own, ..Limits::default() };
            source.with_terms((&own, 1), (&limits(2.5), 1)).command
        };
        assert_eq!(at("kvgauge sweep a.toml", 2.5, None), "kvgauge sweep a.toml");
        for typed in ["", " --max-ppl-increase 1", " --max-ppl-change=1", " --max-kld 3"] {
            let command = at(&format!("kvgauge sweep a.toml{typed} --windows 5"), 1.0, None);
            assert_eq!(command, "kvgauge sweep a.toml --windows 5 --max-ppl-change 2.5");
        }
        assert_eq!(
            at("kvgauge sweep a.toml --min-top1 0.9", 2.5, Some(0.1)),
            "kvgauge sweep a.toml --max-ppl-change 2.5 --max-kld 0.1"
        );
        let limits = Limits { max_bytes_per_token: Some(9000.0), ..Limits::default() };
        let source = SweepSource {
            command: "kvgauge sweep a.toml --batch 8".into(),
            config_path: String::new(),
            config: String::new(),
        };
        assert_eq!(source.with_terms((&limits, 8), (&limits, 8)), source);
        assert_eq!(
            source.with_terms((&limits, 8), (&limits, 4)).command,
            "kvgauge sweep a.toml --max-ppl-change 1 --max-bytes-per-token 9000 --batch 4"
        );
    }
}
