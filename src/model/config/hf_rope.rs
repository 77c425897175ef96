//! `rope_scaling` and `rope_parameters`: every key there must be understood, or the keys that go
//! into the cache are other keys than the model's.

use super::{IN_PYTHON, RopeScaling};
use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// Theta and scaling. `config`: the whole config.json.
pub fn read(config: &Value, max_position_embeddings: usize) -> Result<(f32, RopeScaling)> {
    let old = Rope::read(config, "rope_scaling")?;
    // Where transformers 5 keeps theta and scaling.
    let new = Rope::read(config, "rope_parameters")?;
    let number = |key: &str| match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => number(value).map(Some).ok_or_else(|| wrong(key, "a number", value)),
    };
    let part = number("partial_rotary_factor")?;
    let parts =
        [&old, &new].map(|rope| rope.as_ref().map(|rope| rope.number("partial_rotary_factor")));
    for part in [Ok(part)].into_iter().chain(parts.into_iter().flatten()) {
        if let Some(part) = part?.filter(|part| *part != 1.0) {
            return Err(Error::input(format!(
                "config.json: partial_rotary_factor: expected 1, found {part}"
            ))
            .hint(format!("models that rotate part of a head: {IN_PYTHON} may run this one")));
        }
    }
    let nested_theta = new.as_ref().or(old.as_ref()).map(|rope| rope.number("rope_theta"));
    let theta = nested_theta.transpose()?.flatten().or(number("rope_theta")?);
    let original = number("original_max_position_embeddings")?.map(|n| n as usize);
    let context = original.unwrap_or(max_position_embeddings);
    let scaling =
        |rope: &Option<Rope>| rope.as_ref().map(|rope| rope.scaling(context, original)).transpose();
    let (old, new) = (scaling(&old)?, scaling(&new)?);
    if let (Some(old), Some(new)) = (&old, &new)
        && old != new
    {
        return Err(Error::input(
            "config.json: expected one scaling of RoPE, found another under rope_scaling than \
             under rope_parameters",
        )
        .hint("keep the one that the model was trained with"));
    }
    Ok((theta.unwrap_or(10_000.0) as f32, new.or(old).unwrap_or(RopeScaling::None)))
}

struct Rope<'a> {
    /// Where it stands in the config.
    place: &'static str,
    keys: &'a Map<String, Value>,
}

impl<'a> Rope<'a> {
    fn read(config: &'a Value, place: &'static str) -> Result<Option<Self>> {
        match config.get(place) {
            None | Some(Value::Null) => Ok(None),
            // transformers takes an empty one for none.
            Some(Value::Object(keys)) if keys.is_empty() => Ok(None),
            Some(Value::Object(keys)) => Ok(Some(Self { place, keys })),
            Some(other) => Err(wrong(place, "an object", other)),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => number(value)
                .map(Some)
                .ok_or_else(|| wrong(&format!("{}.{key}", self.place), "a number", value)),
        }
    }

    fn positive(&self, key: &str) -> Result<f32> {
        let place = format!("config.json: {}.{key}", self.place);
        match self.number(key)?.map(|value| value as f32) {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => {
                Err(Error::input(format!("{place}: expected a positive number, found {value}"))
                    .hint(AS_PUBLISHED))
            }
            None => Err(Error::input(format!("{place}: missing")).hint(AS_PUBLISHED)),
        }
    }

    /// `rope_type`, or its old name; transformers 4.43 and later write both.
    fn kind(&self) -> Result<&str> {
        let name = |key: &str| match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) => Ok(Some(name.as_str())),
            Some(other) => Err(wrong(&format!("{}.{key}", self.place), "a name", other)),
        };
        let (new, old) = (name("rope_type")?, name("type")?);
        match (new, old) {
            (Some(new), Some(old)) if new != old => Err(Error::input(format!(
                "config.json: {}: expected one type, found rope_type {new} and type {old}",
                self.place
            ))
            .hint("keep the one that the model was trained with")),
            (Some(name), _) | (None, Some(name)) => Ok(name),
            (None, None) => Ok("default"),
        }
    }

    fn scaling(&self, context: usize, outer: Option<usize>) -> Result<RopeScaling> {
        let kind = self.kind()?;
        let used: &[&str] = match kind {
            "default" => &[],
            "linear" => &["factor"],
            "llama3" => &["factor", "low_freq_factor", "high_freq_factor"],
            other => return Err(self.unsupported(other)),
        };
        self.refuse_unknown(kind, used)?;
        Ok(match kind {
            "linear" => RopeScaling::Linear { factor: self.positive("factor")? },
            "llama3" => {
                let (low, high) =
                    (self.positive("low_freq_factor")?, self.positive("high_freq_factor")?);
                if low == high {
                    return Err(Error::input(format!(
                        "config.json: {}: expected high_freq_factor above low_freq_factor, found \
                         {high} twice",
                        self.place
                    ))
                    .hint(AS_PUBLISHED));
                }
                RopeScaling::Llama3 {
                    factor: self.positive("factor")?,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_context: self.original_context(context, outer)?,
                }
            }
            _ => RopeScaling::None,
        })
    }

    fn original_context(&self, context: usize, outer: Option<usize>) -> Result<usize> {
        const KEY: &str = "original_max_position_embeddings";
        let place = format!("{}.{KEY}", self.place);
        match (self.keys.get(KEY), outer) {
            (None | Some(Value::Null), _) => Ok(context),
            (Some(value), outer) => {
                let found = value.as_u64().and_then(|n| usize::try_from(n).ok());
                let found = found.filter(|n| *n > 0);
                let found = found.ok_or_else(|| wrong(&place, "a number of tokens", value))?;
                // transformers lets the outer one win.
                match outer {
                    Some(outer) if outer != found => Err(Error::input(format!(
                        "config.json: {place}: expected {outer}, as outside, found {found}"
                    ))
                    .hint("keep the one that the model was trained with")),
                    _ => Ok(found),
                }
            }
        }
    }

    /// Keys that this kind of scaling does not have, unless their value means nothing.
    fn refuse_unknown(&self, kind: &str, used: &[&str]) -> Result<()> {
        const ALWAYS: [&str; 5] = [
            "rope_type",
            "type",
            "rope_theta",
            "partial_rotary_factor",
            "original_max_position_embeddings",
        ];
        for (key, value) in self.keys {
            let known = ALWAYS.contains(&key.as_str()) || used.contains(&key.as_str());
            let means_nothing =
                value.is_null() || key == "factor" && number(value).is_some_and(|f| f == 1.0);
            if known || means_nothing {
                continue;
            }
            let place = self.place;
            let found = match value {
                Value::Object(_) => "scaling of its own for some layers".to_string(),
                other => short(other),
            };
            return Err(Error::input(format!(
                "config.json: {place}.{key}: expected no such key for rope_type {kind}, found {found}"
            ))
            .hint(format!(
                "kvgauge does not know what it does to the keys: {IN_PYTHON} runs the model as \
                 transformers does"
            )));
        }
        Ok(())
    }

    fn unsupported(&self, kind: &str) -> Error {
        let why = match kind {
            "yarn" => {
                "YaRN's frequencies do not change with the context, but kvgauge does not \
                       compute them yet"
            }
            "dynamic" => {
                "dynamic scaling changes the frequencies with the length of the text, \
                          which kvgauge does not compute"
            }
            "longrope" | "su" => {
                "longrope has two sets of divisors, for short and for long \
                                  texts, which kvgauge does not compute yet"
            }
            _ => "kvgauge does not compute this scaling",
        };
        Error::input(format!(
            "config.json: {}.rope_type: expected default, linear or llama3, found {kind}",
            self.place
        ))
        .hint(format!("{why}; {IN_PYTHON} does"))
    }
}

const AS_PUBLISHED: &str = "compare config.json with the one that the model's author published";

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

fn wrong(place: &str, expected: &str, found: &Value) -> Error {
    Error::input(format!("config.json: {place}: expected {expected}, found {}", short(found)))
        .hint(AS_PUBLISHED)
}

/// Short enough for a line.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
