//! A badge: codec, verdict and mean KL divergence in one line, as a picture and as the JSON that a badge
//! service reads (schema of shields.io's endpoint).

use super::text::{one_line, printable, width};
use crate::error::{Error, Result};
use crate::eval::verdict::Verdict;
use crate::results::figures::CodecResult;
use crate::results::print::small;
use crate::results::sweep::{CellReport, SubjectReport};
use crate::results::validation::Validation;
use crate::whole_file::PICTURE_MARK;
use maud::{PreEscaped, html};
use serde::Serialize;

/// Pixels: of the picture, of its text, beside a text.
const HEIGHT: i32 = 20;
const FONT: f64 = 11.0;
const PAD: f64 = 6.0;
const GREY: &str = "#555";

/// What a badge says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Badge {
    schema_version: u8,
    label: String,
    message: String,
    color: &'static str,
}

impl Badge {
    fn new(codec: Option<&str>, message: String, color: &'static str) -> Self {
        let label = one_line(&format!("KV cache {}", codec.unwrap_or_default()));
        Self { schema_version: 1, label, message, color }
    }

    /// `results`: of each protocol.
    fn judged(codec: &str, verdict: Verdict, results: &[&CodecResult]) -> Self {
        let kld = results.iter().map(|result| result.figures.kld_mean).fold(0.0, f64::max);
        let message = match verdict {
            Verdict::Invalid => verdict.word().into(),
            _ => format!("{}, KLD {}", verdict.word(), small(kld)),
        };
        Self::new(Some(codec), message, color(verdict))
    }

    /// Of the codec that passes under every protocol with the fewest bits; where none does, of the first.
    pub fn of_validation(result: &Validation) -> Self {
        let verdicts = result.overall().zip(&result.codecs);
        let all = verdicts.map(|((name, verdict), codec)| (name, verdict, &codec.result));
        let all: Vec<_> = all.collect();
        let passing = all.iter().filter(|(_, verdict, _)| *verdict == Some(Verdict::Pass));
        let bits = |result: &CodecResult| result.figures.bits_per_value;
        let smallest = passing.min_by(|(.., a), (.., b)| bits(a).total_cmp(&bits(b)));
        let Some((name, verdict, own)) = smallest.or(all.first()) else {
            return Self::new(None, "no result".into(), "lightgrey");
        };
        let decode = result.decode.as_ref().and_then(|decode| decode.of(name));
        let results: Vec<&CodecResult> = std::iter::once(*own).chain(decode).collect();
        match verdict {
            Some(verdict) => Self::judged(name, *verdict, &results),
            None => Self::new(Some(name), "no verdict under decode".into(), "lightgrey"),
        }
    }

    /// Of the recommended codec.
    pub fn of_subject(subject: &SubjectReport) -> Self {
        if subject.baseline.meaningless(subject.subject.model.vocab_size).is_some() {
            return Self::new(None, Verdict::Invalid.word().into(), color(Verdict::Invalid));
        }
        match subject.cells.iter().find(|cell| subject.recommends(cell)) {
            Some(cell) => {
                let codec = &cell.result.figures.codec;
                let decode = subject.decode_cell(codec).map(|cell| &cell.result);
                let results: Vec<_> = std::iter::once(&cell.result).chain(decode).collect();
                Self::judged(codec, Verdict::Pass, &results)
            }
            None => {
                let smaller = |cell: &&CellReport| cell.result.figures.compression_ratio > 1.0;
                // What is open or not done is no failure.
                match subject.cells.iter().filter(smaller).all(|cell| subject.fails(cell)) {
                    true => Self::new(None, "no codec passes".into(), color(Verdict::Fail)),
                    false => {
                        let open = color(Verdict::Inconclusive);
                        Self::new(None, "no codec is known to pass".into(), open)
                    }
                }
            }
        }
    }

    /// JSON, with its newline.
    pub fn endpoint(&self) -> Result<String> {
        let object = serde_json::to_string(self);
        Ok(object.map_err(|e| Error::system(format!("JSON: {e}")))? + "\n")
    }

    /// SVG, with its newline.
    pub fn svg(&self) -> String {
        let text = [&self.label, &self.message].map(|text| width(text, FONT).ceil());
        let [label, message] = text.map(|width| width + 2.0 * PAD);
        let whole = label + message;
        let said = format!("{}: {}", self.label, self.message);
        let write = |text: &str, from: f64, width: f64| {
            html! {
                text x=(from + PAD) y="14" textLength=(width - 2.0 * PAD)
                    lengthAdjust="spacingAndGlyphs" { (text) }
            }
        };
        let svg = html! {
            (PreEscaped(format!("<svg{PICTURE_MARK} viewBox=\"0 0 {whole} {HEIGHT}\" width=\"{whole}\" height=\"{HEIGHT}\" role=\"img\"")))
            (PreEscaped(" aria-label=\"")) (said) (PreEscaped("\">\n"))
            rect width=(whole) height=(HEIGHT) rx="3" fill=(GREY) {} "\n"
            rect x=(label) width=(message) height=(HEIGHT) rx="3" fill=(fill(self.color)) {} "\n"
            // Its left end is straight.
            rect x=(label) width="4" height=(HEIGHT) fill=(fill(self.color)) {} "\n"
            g fill="#fff" font-family="Verdana, DejaVu Sans, sans-serif" font-size=(FONT) {
                (write(&self.label, 0.0, label)) (write(&self.message, label, message))
            }
            (PreEscaped("\n</svg>\n"))
        };
        svg.into_string().chars().map(printable).collect()
    }
}

/// A name that badge services know.
fn color(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "brightgreen",
        Verdict::Inconclusive => "yellow",
        Verdict::Fail => "red",
        Verdict::Invalid => "lightgrey",
    }
}

/// Dark enough for white letters.
fn fill(color: &str) -> &'static str {
    match color {
        "brightgreen" => "#2b7d2b",
        "yellow" => "#8a6d00",
        "red" => "#b3261e",
        _ => "#767676",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture::{self, HOSTILE};
    use roxmltree::Document;

    fn of(name: &str) -> Badge {
        let all = fixture::all();
        let (_, report) = all.iter().find(|(found, _)| *found == name).unwrap();
        Badge::of_subject(&report.subjects[0])
    }

    #[test]
    fn a_badge_says_codec_verdict_and_kld() {
        let badge = of("usual");
        assert_eq!((badge.label.as_str(), badge.color), ("KV cache int4-g16", "brightgreen"));
        assert!(badge.message.starts_with("pass, KLD 0.0"), "{badge:?}");
        let open = of("one-window");
        assert_eq!((open.message.as_str(), open.color), ("no codec is known to pass", "yellow"));
        assert_eq!(of("meaningless-baseline").message, "invalid");
        let json: serde_json::Value = serde_json::from_str(&badge.endpoint().unwrap()).unwrap();
        assert_eq!(json["schemaVersion"], 1);
        let keys: Vec<_> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["color", "label", "message", "schemaVersion"]);
    }

    #[test]
    fn a_picture_holds_any_name_and_has_a_size() {
        let badge = Badge::new(Some(HOSTILE), "fail, KLD 0.2".into(), "red");
        let svg = badge.svg();
        let document = Document::parse(&svg).unwrap();
        let root = document.root_element();
        assert_eq!(root.attribute("height"), Some("20"));
        let size: Vec<f64> =
            root.attribute("viewBox").unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
        assert_eq!(root.attribute("width").unwrap().parse(), Ok(size[2]));
        let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).collect();
        assert!(texts.contains(&badge.label.as_str()), "{texts:?}");
        // Every text stays within its half.
        for text in document.descendants().filter(|node| node.has_tag_name("text")) {
            let of = |name: &str| text.attribute(name).unwrap().parse::<f64>().unwrap();
            assert!(of("x") + of("textLength") < size[2], "{svg}");
        }
        assert!(!svg.contains("<script"), "{svg}");
    }
}
