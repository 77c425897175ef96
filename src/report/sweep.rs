#![doc = include_str!("SCHEMA.md")]

use super::figures::{Baseline, CodecResult, SubjectInfo};
use serde::{Deserialize, Serialize};

pub const SCHEMA: &str = "kvgauge.sweep/1";
/// Limits that recommendations are given for beside the one asked for, percent.
const USUAL_LIMITS: [f64; 5] = [0.1, 0.5, 1.0, 2.0, 5.0];

#[derive(Debug, Clone, Serialize)]
pub struct SweepReport {
    pub schema: &'static str,
    pub kvgauge_version: &'static str,
    /// How to make it again; several where logs of several sweeps were merged.
    pub sweeps: Vec<SweepSource>,
    /// The highest accepted perplexity increase, percent, which verdicts are against.
    pub max_ppl_increase: f64,
    /// At least one finished cell each.
    pub subjects: Vec<SubjectReport>,
    /// Cells that ended in an error.
    pub failed: Vec<UnfinishedCell>,
    /// Cells without a result so far.
    pub missing: Vec<UnfinishedCell>,
}

/// What was asked for.
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

    /// For results judged by `limit` where the sweep itself had the limit `own`.
    pub fn at_limit(&self, own: f64, limit: f64) -> Self {
        const FLAG: &str = "--max-ppl-increase";
        let mut source = self.clone();
        if limit != own {
            let mut words = self.command.split(' ');
            let mut kept = Vec::new();
            while let Some(word) = words.next() {
                match word.strip_prefix(FLAG) {
                    Some("") => _ = words.next(),
                    Some(value) if value.starts_with('=') => {}
                    _ => kept.push(word),
                }
            }
            source.command = format!("{} {FLAG} {limit}", kept.join(" "));
        }
        source
    }
}

/// One model, text and context, and the codecs tried on it.
#[derive(Debug, Clone, Serialize)]
pub struct SubjectReport {
    #[serde(flatten)]
    pub subject: SubjectInfo,
    pub baseline: Baseline,
    /// For `max_ppl_increase` first, then for usual limits in rising order.
    pub recommended: Vec<Recommendation>,
    /// In the order asked for.
    pub cells: Vec<CellReport>,
}

/// The codec with the fewest bits a value whose whole 95 % interval of the perplexity change lies
/// within ± the limit and that is smaller than f16.
///
/// The lower end counts too: a perplexity that *falls* by more than the limit is a changed model,
/// not a better one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// Percent.
    pub max_ppl_increase: f64,
    /// `None`: no codec of this sweep.
    pub codec: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct CellReport {
    /// Derived from everything that determines the numbers.
    pub id: String,
    #[serde(flatten)]
    pub result: CodecResult,
    /// No other codec with as few bits a value or fewer has a perplexity nearer to the baseline's.
    pub on_perplexity_front: bool,
    /// No other codec with as few bits a value or fewer has a smaller mean KLD.
    pub on_kld_front: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnfinishedCell {
    pub model: String,
    pub text: String,
    /// `None`: the model's own, and it was never opened.
    pub context: Option<usize>,
    pub codec: String,
    /// `None`: not tried yet.
    pub error: Option<String>,
    pub hint: Option<String>,
}

impl SubjectReport {
    /// `cells`: id and result.
    pub fn new(
        subject: SubjectInfo,
        baseline: Baseline,
        cells: Vec<(String, CodecResult)>,
        limit: f64,
    ) -> Self {
        let results: Vec<&CodecResult> = cells.iter().map(|(_, result)| result).collect();
        let usual = USUAL_LIMITS.into_iter().filter(|usual| *usual != limit);
        let recommended = std::iter::once(limit)
            .chain(usual)
            .map(|limit| Recommendation {
                max_ppl_increase: limit,
                codec: recommend(&results, limit).map(|result| result.figures.codec.clone()),
            })
            .collect();
        let perplexity = front(&results, |result| result.figures.perplexity_change_percent.abs());
        let kld = front(&results, |result| result.figures.kld_mean);
        let cells = cells
            .into_iter()
            .zip(perplexity.into_iter().zip(kld))
            .map(|((id, result), (on_perplexity_front, on_kld_front))| CellReport {
                id,
                result,
                on_perplexity_front,
                on_kld_front,
            })
            .collect();
        Self { subject, baseline, recommended, cells }
    }

    /// For the limit asked for.
    pub fn recommended_codec(&self) -> Option<&str> {
        self.recommended.first()?.codec.as_deref()
    }

    /// Whether this is the codec recommended for the limit asked for.
    pub fn recommends(&self, cell: &CellReport) -> bool {
        self.recommended_codec() == Some(cell.result.figures.codec.as_str())
    }
}

fn recommend<'a>(results: &[&'a CodecResult], limit: f64) -> Option<&'a CodecResult> {
    let within = |result: &&&CodecResult| match result.figures.perplexity_change_percent_ci95 {
        Some([low, high]) => high <= limit && low >= -limit,
        None => false,
    };
    results
        .iter()
        .filter(|result| result.figures.compression_ratio > 1.0)
        .filter(within)
        .copied()
        .min_by(|a, b| {
            let size = a.figures.bits_per_value.total_cmp(&b.figures.bits_per_value);
            size.then(a.figures.kld_mean.total_cmp(&b.figures.kld_mean))
        })
}

/// Which results no other one beats: as few bits or fewer, and `damage` smaller; or fewer bits
/// and as little damage.
fn front(results: &[&CodecResult], damage: impl Fn(&CodecResult) -> f64) -> Vec<bool> {
    let point = |result: &CodecResult| (result.figures.bits_per_value, damage(result));
    let beats = |a: (f64, f64), b: (f64, f64)| a.0 <= b.0 && a.1 <= b.1 && a != b;
    let points: Vec<_> = results.iter().map(|result| point(result)).collect();
    points.iter().map(|point| !points.iter().any(|other| beats(*other, *point))).collect()
}

impl SweepReport {
    pub fn new(
        sweeps: Vec<SweepSource>,
        max_ppl_increase: f64,
        subjects: Vec<SubjectReport>,
        failed: Vec<UnfinishedCell>,
        missing: Vec<UnfinishedCell>,
    ) -> Self {
        let (schema, kvgauge_version) = (SCHEMA, env!("CARGO_PKG_VERSION"));
        Self { schema, kvgauge_version, sweeps, max_ppl_increase, subjects, failed, missing }
    }

    /// True when a cell has no result, or a subject no codec to recommend at the limit, which
    /// `--strict` turns into exit status 1.
    pub fn misses_limit(&self) -> bool {
        !self.failed.is_empty()
            || !self.missing.is_empty()
            || self.subjects.iter().any(|subject| subject.recommended_codec().is_none())
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

    /// What to know where there are several.
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

    /// Results over all subjects.
    pub fn cells(&self) -> impl Iterator<Item = (&SubjectReport, &CellReport)> {
        self.subjects
            .iter()
            .flat_map(|subject| subject.cells.iter().map(move |cell| (subject, cell)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_the_limit_of_the_results() {
        let at = |command: &str, own: f64| {
            let (config_path, config) = (String::new(), String::new());
            SweepSource { command: command.into(), config_path, config }.at_limit(own, 2.5).command
        };
        assert_eq!(at("kvgauge sweep a.toml", 2.5), "kvgauge sweep a.toml");
        for typed in ["", " --max-ppl-increase 1", " --max-ppl-increase=1"] {
            let command = at(&format!("kvgauge sweep a.toml{typed} --windows 5"), 1.0);
            assert_eq!(command, "kvgauge sweep a.toml --windows 5 --max-ppl-increase 2.5");
        }
    }
}
