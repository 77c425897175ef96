//! Measurements: what is logged of a codec, window by window, and what every figure follows from.
//!
//! A window's line holds −ln p and KL divergence of each scored target, whether the likeliest
//! token stayed, and sums of squares of each layer's cache: no mean, no interval, no verdict. So a
//! figure that nobody has thought of yet can be had from a log of today, and quantiles over all
//! targets are those of the targets themselves, not of a histogram.
//!
//! Numbers of targets are strings in JSON, base64 of little-endian f64: 11 bytes a number in place
//! of 20, and every bit. Plain arrays are read too, from programs that write those.

use super::subject::SubjectInfo;
use crate::error::{Error, Result};
use crate::eval::scores::TokenScore;
use crate::eval::{CodecWindow, LayerDistortion};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One number for each of a window's scored targets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PerTarget(pub Vec<f64>);

/// A codec on all windows of a subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CodecMeasurement {
    /// The codec's name.
    pub codec: String,
    /// One a window.
    pub windows: Vec<CodecWindow>,
}

/// Version of a [`Measurement`]'s JSON.
pub const SCHEMA: &str = "kvgauge.measurement/1";

/// A measurement that another program made, as `kvgauge figures` reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    pub subject: SubjectInfo,
    /// −ln p of every scored target under the untouched cache, nats, by window.
    pub baseline: Vec<PerTarget>,
    /// One a codec.
    pub codecs: Vec<CodecMeasurement>,
}

impl Measurement {
    /// A measurement from its JSON: `schema` ([`SCHEMA`]), `subject`, `baseline` and `codecs`.
    ///
    /// # Errors
    /// Other JSON, another version (by its name), and windows, layers or numbers that are not what
    /// the subject says.
    pub fn read(json: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            schema: Option<String>,
        }
        #[derive(Deserialize)]
        struct Contents {
            subject: SubjectInfo,
            baseline: Vec<PerTarget>,
            codecs: Vec<CodecMeasurement>,
        }
        let broken = |e: serde_json::Error| {
            Error::input(format!("expected a measurement of schema {SCHEMA}: {e}"))
                .hint("docs/python.md says what is in it")
        };
        let Versioned { schema } = serde_json::from_str(json).map_err(broken)?;
        if schema.as_deref() != Some(SCHEMA) {
            let found = schema.map_or("none".into(), |schema| format!("{schema:?}"));
            return Err(Error::input(format!("expected schema {SCHEMA:?}, found {found}"))
                .hint("program and kvgauge have to be of one version"));
        }
        let Contents { subject, baseline, codecs } = serde_json::from_str(json).map_err(broken)?;
        let scored: usize = baseline.iter().map(|window| window.0.len()).sum();
        for (what, expected, found) in [
            ("windows of the baseline", subject.windows, baseline.len()),
            ("scored tokens", subject.scored_tokens, scored),
        ] {
            if expected != found {
                let message = format!("expected {expected} {what}, as subject says, found {found}");
                return Err(Error::input(message));
            }
        }
        if baseline.is_empty() || codecs.is_empty() {
            return Err(Error::input("expected at least one window and one codec, found none"));
        }
        // Figures are means over windows, and those of tokens too.
        let mut lengths = baseline.iter().map(|window| window.0.len());
        let first = lengths.next().unwrap_or(0);
        if let Some(other) = lengths.find(|other| *other != first) {
            return Err(Error::input(format!(
                "expected as many scored targets in every window, found {first} and {other}"
            )));
        }
        for codec in &codecs {
            check(&codec.windows, &baseline, subject.model.layers)
                .map_err(|e| e.within(format!("codec {}", codec.codec)))?;
        }
        Ok(Self { subject, baseline, codecs })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PerTargetJson {
    Base64(String),
    Plain(Vec<f64>),
}

impl Serialize for PerTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|number| number.to_le_bytes()).collect();
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for PerTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = match PerTargetJson::deserialize(deserializer)? {
            PerTargetJson::Plain(numbers) => return Ok(Self(numbers)),
            PerTargetJson::Base64(text) => text,
        };
        let bytes = BASE64_STANDARD.decode(text).map_err(de::Error::custom)?;
        match bytes.as_chunks::<8>() {
            (numbers, []) => {
                Ok(Self(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()))
            }
            _ => Err(de::Error::custom("expected whole numbers of eight bytes")),
        }
    }
}

/// A window as JSON has it.
#[derive(Serialize, Deserialize)]
struct WindowJson {
    #[serde(default)]
    nll: PerTarget,
    #[serde(default)]
    kld: PerTarget,
    /// `1` or `0`, a character a target.
    #[serde(default)]
    same_top: String,
    /// In the place of the three: how version 1 of the log had them, with Δp as a fourth.
    #[serde(default, skip_serializing)]
    scores: Vec<[f64; 4]>,
    #[serde(default)]
    targets_affected: Option<u64>,
    layers: Vec<LayerDistortion>,
    stored_bytes: u64,
    values: u64,
    cached_tokens: u64,
}

impl Serialize for CodecWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let of =
            |number: fn(&TokenScore) -> f64| PerTarget(self.scores.iter().map(number).collect());
        WindowJson {
            nll: of(|score| score.nll),
            kld: of(|score| score.kld),
            same_top: self.scores.iter().map(|s| if s.same_top { '1' } else { '0' }).collect(),
            scores: Vec::new(),
            targets_affected: Some(self.targets_affected),
            layers: self.layers.clone(),
            stored_bytes: self.stored_bytes,
            values: self.values,
            cached_tokens: self.cached_tokens,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CodecWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let json = WindowJson::deserialize(deserializer)?;
        let (nll, kld, tops) = (json.nll.0, json.kld.0, json.same_top.as_bytes());
        if nll.len() != kld.len() || nll.len() != tops.len() {
            return Err(de::Error::custom(format!(
                "expected nll, kld and same_top of one length, found {}, {} and {}",
                nll.len(),
                kld.len(),
                tops.len()
            )));
        }
        let scores: Vec<TokenScore> = match json.scores.is_empty() {
            true => {
                let pairs = nll.into_iter().zip(kld).zip(tops);
                pairs
                    .map(|((nll, kld), top)| TokenScore { nll, kld, same_top: *top == b'1' })
                    .collect()
            }
            false => {
                let score = |[nll, kld, same_top, _]: [f64; 4]| TokenScore {
                    nll,
                    kld,
                    same_top: same_top != 0.0,
                };
                json.scores.into_iter().map(score).collect()
            }
        };
        Ok(Self {
            // Of lines from before it was counted, whoever goes on with them counts it.
            targets_affected: json.targets_affected.unwrap_or(scores.len() as u64),
            scores,
            layers: json.layers,
            stored_bytes: json.stored_bytes,
            values: json.values,
            cached_tokens: json.cached_tokens,
        })
    }
}

/// Whether windows and baseline have one shape and nothing but finite numbers, as everything that
/// is written has.
///
/// # Errors
/// The first thing that is otherwise: where, expected and found.
pub fn check(windows: &[CodecWindow], baseline: &[PerTarget], layers: usize) -> Result<()> {
    let count = |what: &str, expected: usize, found: usize| match expected == found {
        true => Ok(()),
        false => Err(Error::input(format!("expected {expected} {what}, found {found}"))),
    };
    count("windows", baseline.len(), windows.len())?;
    for (index, (window, PerTarget(base))) in windows.iter().zip(baseline).enumerate() {
        let of_window = |e: Error| e.within(format!("window {index}"));
        let targets = "targets, as the baseline has";
        count(targets, base.len(), window.scores.len()).map_err(of_window)?;
        count("layers", layers, window.layers.len()).map_err(of_window)?;
        let mut numbers =
            window.scores.iter().flat_map(|s| [s.nll, s.kld]).chain(base.iter().copied());
        let odd = numbers.find(|number| !number.is_finite());
        let empty = base.is_empty() || window.values == 0 || window.cached_tokens == 0;
        if let Some(number) = odd {
            return Err(of_window(Error::input(format!(
                "expected finite numbers, found {number}"
            ))));
        }
        if empty || window.targets_affected > base.len() as u64 {
            return Err(of_window(Error::input(
                "expected scored targets, cached tokens and values of them, and at most all targets \
                 affected",
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> CodecWindow {
        let score = |nll, kld, same_top| TokenScore { nll, kld, same_top };
        CodecWindow {
            scores: vec![score(0.1 + 0.2, 1e-310, true), score(f64::MAX, 1.0 / 3.0, false)],
            targets_affected: 1,
            layers: vec![LayerDistortion::default(); 2],
            stored_bytes: 17,
            values: 32,
            cached_tokens: 4,
        }
    }

    #[test]
    fn a_window_comes_back_to_the_last_bit() {
        let json = serde_json::to_string(&window()).unwrap();
        assert_eq!(serde_json::from_str::<CodecWindow>(&json).unwrap(), window());
        // 0.3 and -0.0 as numpy's tobytes().
        let bytes: PerTarget = serde_json::from_str("\"MzMzMzMz0z8AAAAAAAAAgA==\"").unwrap();
        assert_eq!(bytes.0[0], 0.3);
        assert!(bytes.0[1] == 0.0 && bytes.0[1].is_sign_negative());
        assert!(serde_json::from_str::<PerTarget>("\"AAAA\"").is_err());
    }

    /// Unknown fields, plain arrays, and lines of version 1.
    #[test]
    fn what_others_write_is_read() {
        let mut json = serde_json::to_value(window()).unwrap();
        json["entropy"] = serde_json::json!([1, 2]);
        json["nll"] = serde_json::json!(window().scores.iter().map(|s| s.nll).collect::<Vec<_>>());
        assert_eq!(serde_json::from_value::<CodecWindow>(json).unwrap(), window());
        let old = serde_json::json!({
            "scores": [[0.1 + 0.2, 1e-310, 1.0, 0.5], [f64::MAX, 1.0 / 3.0, 0.0, -0.5]],
            "layers": [LayerDistortion::default(), LayerDistortion::default()],
            "stored_bytes": 17, "values": 32, "cached_tokens": 4,
        });
        let expected = CodecWindow { targets_affected: 2, ..window() };
        assert_eq!(serde_json::from_value::<CodecWindow>(old).unwrap(), expected);
    }

    #[test]
    fn windows_of_another_shape_are_refused() {
        let base = || vec![PerTarget(vec![0.5, 0.5])];
        assert!(check(&[window()], &base(), 2).is_ok());
        let refused = |windows: &[CodecWindow], layers, says: &str| {
            let error = check(windows, &base(), layers).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        refused(&[], 2, "expected 1 windows, found 0");
        refused(&[window()], 3, "window 0: expected 3 layers, found 2");
        refused(&[CodecWindow { scores: vec![], ..window() }], 2, "expected 2 targets");
        refused(&[CodecWindow { values: 0, ..window() }], 2, "values");
        refused(&[CodecWindow { targets_affected: 3, ..window() }], 2, "affected");
        let mut odd = window();
        odd.scores[1].kld = f64::NAN;
        refused(&[odd], 2, "found NaN");
    }
}
