//! Results as the `model-index` of a Hugging Face model card: YAML for the head of its README.md. Names of
//! keys are those of the hub's documentation; strings are written as JSON has them, which YAML reads.

use super::text::one_line;
use crate::results::figures::CodecResult;
use crate::results::print::windows;
use crate::results::subject::SubjectInfo;
use crate::results::validation::Validation;
use crate::whole_file::CARD_MARK;
use std::fmt::Write;

/// One result a protocol and codec. Figures that are infinite are left out: the hub takes numbers.
pub fn render(result: &Validation) -> String {
    let Validation { subject, baseline, codecs, decode, kvgauge_version, .. } = result;
    let name = subject.model.name();
    let mut out = format!(
        "{CARD_MARK} {kvgauge_version}: its place is between the lines of --- at the top of\n\
         # README.md. A `source` with a name and the url of your report can be added to each result.\n\
         model-index:\n- name: {}\n  results:\n",
        quoted(name.rsplit('/').next().unwrap_or(name))
    );
    for codec in codecs {
        entry(&mut out, subject, baseline.perplexity, &codec.result);
    }
    if let Some(decode) = decode {
        let subject = SubjectInfo { protocol: decode.protocol, ..subject.clone() };
        for codec in &decode.codecs {
            entry(&mut out, &subject, decode.baseline.perplexity, &codec.result);
        }
    }
    out
}

fn entry(out: &mut String, subject: &SubjectInfo, baseline: f64, result: &CodecResult) {
    let f = &result.figures;
    let text = subject.text.source.as_str();
    let (kind, name) = match text {
        "wikitext-2" => ("Salesforce/wikitext", "WikiText-2 (raw), test"),
        text => ("text", text),
    };
    let task = format!(
        "Text generation with the KV cache in {}, protocol {}, {} of {} tokens",
        f.codec,
        subject.protocol,
        windows(subject.windows),
        subject.context
    );
    let metrics = [
        ("perplexity", "Perplexity, untouched KV cache", baseline),
        ("perplexity", "Perplexity", f.perplexity),
        (
            "kl_divergence",
            "Mean KL divergence from the untouched KV cache, nats a token",
            f.kld_mean,
        ),
        ("top1_agreement", "Share of predictions whose likeliest token stays", f.top1_agreement),
        ("bits_per_value", "Bits a value of the KV cache", f.bits_per_value),
    ];
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "  - task:\n      type: text-generation\n      name: {}\n    dataset:\n      type: {}\n      \
         name: {}\n    metrics:\n",
        quoted(&task),
        quoted(kind),
        quoted(name)
    );
    for (kind, name, value) in metrics.iter().filter(|(.., value)| value.is_finite()) {
        let _ = write!(
            out,
            "    - type: {kind}\n      value: {}\n      name: {}\n",
            number(*value),
            quoted(name)
        );
    }
    let _ = write!(
        out,
        "    - type: verdict\n      value: {}\n      name: {}\n",
        result.judgement.verdict.word(),
        quoted("Verdict of kvgauge")
    );
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(one_line(text)).to_string()
}

/// Digits that YAML 1.1 takes for a number: a power of ten stands behind a point and a sign.
fn number(value: f64) -> String {
    let digits = format!("{value:?}");
    let Some((digits, power)) = digits.split_once('e') else { return digits };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if power.starts_with('-') { "" } else { "+" };
    format!("{digits}{point}e{sign}{power}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers_in_yaml_1_1() {
        let written = [1e-7, 2.5e-7, 1e20, 1.5e300, 0.25, 35.0].map(number);
        assert_eq!(written, ["1.0e-7", "2.5e-7", "1.0e+20", "1.5e+300", "0.25", "35.0"]);
        assert_eq!(quoted("a\"b: # \n c"), r#""a\"b: # c""#);
    }
}
