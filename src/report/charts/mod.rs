//! The pictures of a sweep, of an attribution and of `tune`, one SVG each.
//!
//! Figures that a scale cannot hold are drawn at its end, never left out: a KL divergence of zero
//! has a line of its own under a logarithmic axis, an infinite SNR a colour of its own.

mod attribution;
mod axis;
mod canvas;
mod heat;
mod key;
mod numbers;
mod scatter;
mod series;
pub(crate) mod theme;
mod tuning;

pub use canvas::Chart;

use super::text::one_line;
use crate::results::sweep::{CellReport, SubjectReport};
use crate::results::tuning::Tuning;
use crate::results::validation::Validation;

/// A picture of a subject.
pub struct NamedChart {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// Its caption, one sentence or two.
    pub caption: String,
    /// The picture itself.
    pub chart: Chart,
}

/// Of the pictures of [`all`].
pub const NAMES: [&str; 6] =
    ["perplexity", "kld", "position", "kld-distribution", "snr-key", "snr-value"];

/// `limit`: the largest accepted change of the perplexity, percent. `subject`: of one protocol.
pub fn all(subject: &SubjectReport, limit: f64) -> Vec<NamedChart> {
    let charts = [
        scatter::perplexity(subject, limit),
        scatter::kld(subject),
        series::position(subject, limit),
        series::distribution(subject),
        heat::snr(subject, heat::Tensor::Key),
        heat::snr(subject, heat::Tensor::Value),
    ];
    let named = |(name, (chart, caption))| NamedChart { name, caption, chart };
    NAMES.into_iter().zip(charts).map(named).collect()
}

/// The parts of the cache; `None` where nothing was attributed.
pub fn attribution(result: &Validation) -> Option<Chart> {
    let codecs = result.codecs.iter();
    let attributed = codecs.filter_map(|c| Some((&c.result.figures, c.attribution.as_ref()?)));
    let codecs: Vec<_> = attributed.collect();
    if codecs.is_empty() {
        return None;
    }
    Some(attribution::picture(result.subject.model.name(), &codecs))
}

/// The codec of each part of the cache, and the damage of each.
pub fn tuning(result: &Tuning) -> Chart {
    tuning::picture(result)
}

/// The codec's name as it stands in labels: one line, or one each for keys and values.
fn name_lines(name: &str, longest: usize) -> Vec<String> {
    let name = one_line(name);
    match name.split_once("/v:") {
        Some((key, value)) if name.chars().count() > longest => {
            vec![shorten(key, longest), shorten(&format!("v:{value}"), longest)]
        }
        _ => vec![shorten(&name, longest * 3 / 2)],
    }
}

/// Cut in the middle where it is longer than `most` characters.
fn shorten(name: &str, most: usize) -> String {
    let length = name.chars().count();
    if length <= most {
        return name.into();
    }
    let (head, tail) = (most / 2, most - most / 2 - 1);
    let head: String = name.chars().take(head).collect();
    let tail: String = name.chars().skip(length - tail).collect();
    format!("{head}…{tail}")
}

/// On either front or recommended, by size; at most `most`, spread over the sizes, the recommended one among
/// them. With it how many there are.
fn front_cells(subject: &SubjectReport, most: usize) -> (Vec<(usize, &CellReport)>, usize) {
    let on_front = |(_, cell): &(usize, &CellReport)| {
        cell.on_perplexity_front || cell.on_kld_front || subject.recommends(cell)
    };
    let mut cells: Vec<_> = subject.cells.iter().enumerate().filter(on_front).collect();
    let bits = |cell: &CellReport| cell.result.figures.bits_per_value;
    cells.sort_by(|(_, a), (_, b)| bits(a).total_cmp(&bits(b)));
    let all = cells.len();
    if all <= most {
        return (cells, all);
    }
    let mut kept: Vec<usize> = (0..most).map(|i| i * (all - 1) / (most - 1)).collect();
    let recommended = cells.iter().position(|(_, cell)| subject.recommends(cell));
    if let Some(at) = recommended.filter(|at| !kept.contains(at)) {
        let nearest = (1..most - 1).min_by_key(|i| kept[*i].abs_diff(at)).unwrap_or(0);
        kept[nearest] = at;
    }
    (kept.into_iter().map(|i| cells[i]).collect(), all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;

    #[test]
    fn the_recommended_codec_is_named_though_others_beat_it() {
        let all = fixture::all();
        let (_, report) = all.iter().find(|(name, _)| *name == "dominated").unwrap();
        let subject = &report.subjects[0];
        let recommended = subject.cells.iter().find(|cell| subject.recommends(cell)).unwrap();
        assert!(!recommended.on_perplexity_front && !recommended.on_kld_front);
        let (cells, _) = front_cells(subject, 8);
        assert!(cells.iter().any(|(_, cell)| subject.recommends(cell)));
        let name = format!(">{} ★<", recommended.result.figures.codec);
        for picture in &super::all(subject, report.limits.max_ppl_change)[..2] {
            let svg = picture.chart.standalone();
            assert!(svg.contains(&name), "{}", picture.name);
            assert!(picture.caption.contains('★'), "{}", picture.caption);
        }
    }

    #[test]
    fn a_star_is_explained_where_one_is_drawn() {
        for (fixture, report) in fixture::all() {
            for subject in &report.by_protocol() {
                for picture in all(subject, report.limits.max_ppl_change) {
                    let drawn = picture.chart.standalone().contains('★');
                    assert_eq!(drawn, picture.caption.contains('★'), "{fixture} {}", picture.name);
                }
            }
        }
    }
}
