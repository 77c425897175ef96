//! Hugging Face's `rope_parameters` and `rope_scaling`.

use super::{OfLayers, RotaryRules, yarn_attention};
use crate::error::{Error, Result};
use crate::model::config::keys::{Key, Keys, hf};
use crate::model::config::{AS_PUBLISHED, IN_PYTHON, RopeScaling, RotaryConfig, short};
use serde_json::{Map, Value};

const SCALING: Key = hf("rope_scaling");
const PARAMETERS: Key = hf("rope_parameters");
const PART: Key = hf("partial_rotary_factor");
const ORIGINAL: &str = "original_max_position_embeddings";

impl Keys<'_> {
    pub(super) fn hf_rotary(
        &self,
        head_dim: usize,
        max_position_embeddings: usize,
        rules: RotaryRules,
        layers: Option<OfLayers>,
    ) -> Result<RotaryConfig> {
        let old = self.hf_object(SCALING)?;
        // Where transformers 5 keeps base and scaling.
        let new = self.hf_object(PARAMETERS)?;
        let outer_part = self.number(PART)?.value();
        let outer_original = self.count(hf(ORIGINAL))?.value().or(rules.original_context);
        let theta_key = layers.map_or(OfLayers::FULL.theta, |layers| layers.theta);
        let outer_theta = self.number(theta_key)?.value();
        let new = new.map(|new| self.of_layers(PARAMETERS, new, layers)).transpose()?.flatten();
        let old = match layers {
            Some(layers) if !layers.scaled => None,
            _ => old,
        };
        let named = |place: &'static str, keys: Map<String, Value>| Parameters {
            place,
            keys,
            config: self.whole_place(),
        };
        let old = old.map(|keys| named("rope_scaling", keys));
        let new = new.map(|keys| named("rope_parameters", keys));
        let given = || new.iter().chain(&old);
        let mut part = outer_part;
        let mut theta = None;
        for parameters in given() {
            part = parameters.number("partial_rotary_factor")?.or(part);
            theta = theta.or(parameters.number("rope_theta")?);
        }
        let part = part.unwrap_or(rules.part);
        if !(part > 0.0 && part <= 1.0) || !rules.any_part && part != 1.0 {
            let expected = if rules.any_part { "a share of the head, up to 1" } else { "1" };
            return Err(Error::unsupported(format!(
                "{}: expected {expected}, found {part}",
                self.place(PART)
            ))
            .hint(format!("models that rotate part of a head: {IN_PYTHON} may run this one")));
        }
        let context = Context { max_position_embeddings, outer: outer_original };
        let scalings = given()
            .map(|parameters| parameters.scaling(&context, &rules))
            .collect::<Result<Vec<_>>>()?;
        if let [new, old] = scalings.as_slice()
            && new != old
        {
            return Err(Error::input(
                "config.json: expected one scaling of RoPE, found another under rope_scaling than \
                 under rope_parameters",
            )
            .hint("keep the one that the model was trained with"));
        }
        let channels = (head_dim as f64 * part) as usize;
        let rotary = RotaryConfig {
            theta: theta.or(outer_theta).unwrap_or(rules.theta) as f32,
            channels,
            pairs: rules.pairs,
            scaling: scalings.into_iter().next().unwrap_or(RopeScaling::None),
        };
        self.check_rotary(rotary, head_dim)
    }

    /// transformers takes an empty one for none.
    fn hf_object(&self, key: Key) -> Result<Option<Map<String, Value>>> {
        Ok(self.object(key)?.value().filter(|keys| !keys.is_empty()))
    }

    /// Picks the parameters of some layers out of those by kind of layer; `None`: there are none
    /// for them.
    fn of_layers(
        &self,
        key: Key,
        parameters: Map<String, Value>,
        layers: Option<OfLayers>,
    ) -> Result<Option<Map<String, Value>>> {
        const KINDS: [&str; 2] = ["full_attention", "sliding_attention"];
        let by_kind = KINDS.iter().any(|kind| parameters.contains_key(*kind));
        let Some(layers) = layers.filter(|_| by_kind) else { return Ok(Some(parameters)) };
        // transformers 4.57 left those of old configs beside them.
        match parameters.get(layers.kind) {
            Some(Value::Object(own)) => Ok(Some(own.clone())),
            None | Some(Value::Null) => Ok(None),
            Some(other) => Err(Error::input(format!(
                "{}.{}: expected an object, found {}",
                self.place(key),
                layers.kind,
                short(other)
            ))
            .hint(AS_PUBLISHED)),
        }
    }
}

struct Context {
    max_position_embeddings: usize,
    /// `original_max_position_embeddings` outside RoPE's keys.
    outer: Option<usize>,
}

/// `rope_scaling`, `rope_parameters`, or its part for some layers.
struct Parameters {
    /// Where it stands in the config.
    place: &'static str,
    keys: Map<String, Value>,
    config: &'static str,
}

impl Parameters {
    fn at(&self, key: &str) -> String {
        format!("{}: {}.{key}", self.config, self.place)
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        Error::input(format!("{}: expected {expected}, found {}", self.at(key), short(found)))
            .hint(AS_PUBLISHED)
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number", value))
            }
        }
    }

    fn positive_or(&self, key: &str, default: Option<f64>) -> Result<f32> {
        match self.number(key)?.or(default).map(|value| value as f32) {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => Err(Error::input(format!(
                "{}: expected a positive number, found {value}",
                self.at(key)
            ))
            .hint(AS_PUBLISHED)),
            None => Err(Error::input(format!("{}: missing", self.at(key))).hint(AS_PUBLISHED)),
        }
    }

    fn positive(&self, key: &str) -> Result<f32> {
        self.positive_or(key, None)
    }

    fn divisors(&self, key: &str) -> Result<Vec<f32>> {
        let list = |value: &Value| -> Option<Vec<f32>> {
            let number = |v: &Value| v.as_f64().map(|v| v as f32);
            value
                .as_array()?
                .iter()
                .map(|v| number(v).filter(|v| v.is_finite() && *v > 0.0))
                .collect()
        };
        match self.keys.get(key) {
            None => Err(Error::input(format!("{}: missing", self.at(key))).hint(AS_PUBLISHED)),
            Some(value) => {
                list(value).ok_or_else(|| self.wrong(key, "a list of positive numbers", value))
            }
        }
    }

    /// `rope_type`, or its old name; transformers 4.43 and later write both.
    fn kind(&self) -> Result<&str> {
        let name = |key: &str| match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) => Ok(Some(name.as_str())),
            Some(other) => Err(self.wrong(key, "a name", other)),
        };
        let (new, old) = (name("rope_type")?, name("type")?);
        match (new, old) {
            // Qwen2-VL's: transformers writes the one and keeps the other.
            (Some("default"), Some("mrope")) | (Some("mrope"), Some("default")) => Ok("mrope"),
            (Some(new), Some(old)) if new != old => Err(Error::input(format!(
                "{}: {}: expected one type, found rope_type {new} and type {old}",
                self.config, self.place
            ))
            .hint("keep the one that the model was trained with")),
            (Some(name), _) | (None, Some(name)) => Ok(name),
            (None, None) => Ok("default"),
        }
    }

    fn scaling(&self, context: &Context, rules: &RotaryRules) -> Result<RopeScaling> {
        let kind = self.kind()?;
        let kind = if rules.long_rope_names.contains(&kind) { "longrope" } else { kind };
        let used: &[&str] = match kind {
            "default" if self.keys.contains_key("mrope_section") => &["mrope_section"],
            "default" => &[],
            // Of images and videos: a text's positions are the same on all its axes.
            "mrope" => &["mrope_section"],
            "linear" | "dynamic" => &["factor"],
            "llama3" => &["factor", "low_freq_factor", "high_freq_factor"],
            "yarn" => &[
                "factor",
                "attention_factor",
                "beta_fast",
                "beta_slow",
                "mscale",
                "mscale_all_dim",
                "truncate",
            ],
            "longrope" => &["factor", "attention_factor", "short_factor", "long_factor"],
            other => {
                return Err(Error::unsupported(format!(
                    "{}: expected default, linear, llama3, yarn, longrope or dynamic, found {other}",
                    self.at("rope_type")
                ))
                .hint(format!("kvgauge does not compute this scaling; {IN_PYTHON} does")));
            }
        };
        self.refuse_unknown(kind, used, rules)?;
        Ok(match kind {
            "linear" => RopeScaling::Linear { factor: self.positive("factor")? },
            "dynamic" => RopeScaling::Dynamic {
                factor: self.positive("factor")?,
                original_context: context.max_position_embeddings,
            },
            "llama3" => {
                let (low, high) =
                    (self.positive("low_freq_factor")?, self.positive("high_freq_factor")?);
                if low == high {
                    return Err(Error::input(format!(
                        "{}: {}: expected high_freq_factor above low_freq_factor, found {high} twice",
                        self.config, self.place
                    ))
                    .hint(AS_PUBLISHED));
                }
                RopeScaling::Llama3 {
                    factor: self.positive("factor")?,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_context: self.original_context(context)?,
                }
            }
            "yarn" => self.yarn(context)?,
            "longrope" => {
                let original_context = self.original_context(context)?;
                let ratio = context.max_position_embeddings as f64 / original_context as f64;
                // The ratio first where the config has the original length outside RoPE's keys, as
                // transformers 4 had it and Phi-3's authors.
                let factor = match context.outer {
                    Some(_) => ratio,
                    None => self.number("factor")?.unwrap_or(ratio),
                };
                let computed = match factor {
                    factor if factor <= 1.0 => 1.0,
                    factor => (1.0 + factor.ln() / (original_context as f64).ln()).sqrt(),
                };
                RopeScaling::LongRope {
                    short: self.divisors("short_factor")?,
                    long: self.divisors("long_factor")?,
                    attention_factor: self.positive_or("attention_factor", Some(computed))?,
                    original_context,
                }
            }
            _ => RopeScaling::None,
        })
    }

    fn yarn(&self, context: &Context) -> Result<RopeScaling> {
        let original_context = self.original_context(context)?;
        let ratio = context.max_position_embeddings as f64 / original_context as f64;
        let factor = self.number("factor")?.unwrap_or(ratio);
        let stretch = |scale: f64| yarn_attention(factor, scale);
        let given = |key| Ok::<_, Error>(self.number(key)?.filter(|value| *value != 0.0));
        let computed = match (given("mscale")?, given("mscale_all_dim")?) {
            (Some(mscale), Some(all)) => stretch(mscale) / stretch(all),
            _ => stretch(1.0),
        };
        let truncate = match self.keys.get("truncate") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(truncate)) => *truncate,
            Some(other) => return Err(self.wrong("truncate", "true or false", other)),
        };
        Ok(RopeScaling::Yarn {
            factor: self.positive_or("factor", Some(ratio))?,
            beta_fast: given("beta_fast")?.unwrap_or(32.0) as f32,
            beta_slow: given("beta_slow")?.unwrap_or(1.0) as f32,
            attention_factor: self.positive_or("attention_factor", Some(computed))?,
            original_context,
            truncate,
        })
    }

    fn original_context(&self, context: &Context) -> Result<usize> {
        let place = format!("{}.{ORIGINAL}", self.place);
        let found = match self.keys.get(ORIGINAL) {
            None | Some(Value::Null) => None,
            Some(value) => {
                let found = value.as_u64().and_then(|n| usize::try_from(n).ok());
                let found = found.filter(|n| *n > 1);
                Some(found.ok_or_else(|| self.wrong(ORIGINAL, "a number of tokens", value))?)
            }
        };
        match (found, context.outer) {
            // transformers lets the outer one win.
            (Some(found), Some(outer)) if outer != found => Err(Error::input(format!(
                "{}: {place}: expected {outer}, as outside, found {found}",
                self.config
            ))
            .hint("keep the one that the model was trained with")),
            (found, outer) => Ok(found.or(outer).unwrap_or(context.max_position_embeddings).max(2)),
        }
    }

    /// Keys that this kind of scaling does not have, unless their value means nothing.
    fn refuse_unknown(&self, kind: &str, used: &[&str], rules: &RotaryRules) -> Result<()> {
        const ALWAYS: [&str; 5] =
            ["rope_type", "type", "rope_theta", "partial_rotary_factor", ORIGINAL];
        for (key, value) in &self.keys {
            let known = ALWAYS.contains(&key.as_str())
                || used.contains(&key.as_str())
                || rules.more_keys.contains(&key.as_str());
            let means_nothing = value.is_null() || key == "factor" && value.as_f64() == Some(1.0);
            if known || means_nothing {
                continue;
            }
            let found = match value {
                Value::Object(_) => "scaling of its own for some layers".to_string(),
                other => short(other),
            };
            return Err(Error::unsupported(format!(
                "{}: expected no such key for rope_type {kind}, found {found}",
                self.at(key)
            ))
            .hint(format!(
                "kvgauge does not know what it does to the keys: {IN_PYTHON} runs the model as \
                 transformers does"
            )));
        }
        Ok(())
    }
}
