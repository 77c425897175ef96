//! The flags that say what the keys of a file were rotated by.

use crate::codec::RotaryPairs;
use crate::container::RopeParameters;
use crate::error::{Error, Result};
use clap::Args;

/// One rotary embedding for all keys.
#[derive(Args)]
pub struct RopeFlags {
    /// Base of the keys' rotary embedding (rope_theta of the model's config), for codecs with `prerope`
    /// [default: as `kvgauge extract` wrote it, layer by layer]
    #[arg(long, value_name = "BASE", conflicts_with = "decompress")]
    rope_theta: Option<f32>,
    /// Channels of a head that rotate, from the first on; 0: the keys do not rotate [default: all]
    #[arg(long, value_name = "N", conflicts_with = "decompress")]
    rope_channels: Option<usize>,
    /// Which channels rotate together: halves, i and i + half of those that rotate (Llama, Qwen, Gemma), or
    /// neighbours, 2i and 2i + 1 (Cohere, GLM) [default: halves]
    #[arg(long, value_name = "ORDER", conflicts_with = "decompress")]
    rope_pairs: Option<String>,
}

impl RopeFlags {
    /// What they say; `None`: nothing.
    pub fn parameters(&self) -> Result<Option<RopeParameters>> {
        let pairs = match &self.rope_pairs {
            Some(name) => pairs(name).map_err(|e| e.within("--rope-pairs"))?,
            None => RotaryPairs::Halves,
        };
        if let Some(odd) = self.rope_channels.filter(|channels| !channels.is_multiple_of(2)) {
            return Err(Error::input(format!(
                "--rope-channels: expected an even number, found {odd}"
            ))
            .hint(
                "channels rotate in pairs; the model's config has head_dim · partial_rotary_factor",
            ));
        }
        let theta = match (self.rope_theta, self.rope_channels, &self.rope_pairs) {
            (Some(theta), _, _) if !(1.0..=1e12).contains(&theta) => {
                return Err(Error::input(format!(
                    "--rope-theta: expected 1 or more, found {theta}"
                ))
                .hint("the model's config has it as rope_theta; 10000 is usual"));
            }
            (Some(theta), _, _) => theta,
            // Of nothing that rotates.
            (None, Some(0), _) => 1.0,
            (None, None, None) => return Ok(None),
            (None, channels, _) => {
                let flag = if channels.is_some() { "--rope-channels" } else { "--rope-pairs" };
                return Err(Error::input(format!("{flag}: expected --rope-theta too, found none"))
                    .hint("the model's config has it as rope_theta; 10000 is usual"));
            }
        };
        Ok(Some(RopeParameters { theta, channels: self.rope_channels, pairs }))
    }
}

fn pairs(name: &str) -> Result<RotaryPairs> {
    let lower = name.to_ascii_lowercase();
    let meant = match lower.as_str() {
        "halves" if name == lower => return Ok(RotaryPairs::Halves),
        "neighbours" if name == lower => return Ok(RotaryPairs::Neighbours),
        "halves" | "half" | "split" | "neox" | "gpt-neox" | "rotate_half" => Some("halves"),
        "neighbours" | "neighbors" | "interleaved" | "interleave" | "adjacent" | "norm"
        | "gptj" | "gpt-j" => Some("neighbours"),
        _ => None,
    };
    let found: String = name.chars().take(40).collect();
    let error = Error::input(format!("expected halves or neighbours, found {found:?}"));
    Err(match meant {
        Some(name) => error.hint(format!("did you mean {name}?")),
        None => error
            .hint("Llama, Qwen and Gemma of Hugging Face rotate halves, Cohere and GLM neighbours"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(theta: Option<f32>, channels: Option<usize>, pairs: Option<&str>) -> RopeFlags {
        let rope_pairs = pairs.map(String::from);
        RopeFlags { rope_theta: theta, rope_channels: channels, rope_pairs }
    }

    #[test]
    fn flags() {
        assert_eq!(said(None, None, None).parameters().unwrap(), None);
        let found = said(Some(1e4), None, None).parameters().unwrap();
        assert_eq!(found, Some(RopeParameters::of_theta(1e4)));
        let found = said(Some(1e6), Some(64), Some("neighbours")).parameters().unwrap();
        let pairs = RotaryPairs::Neighbours;
        assert_eq!(found, Some(RopeParameters { theta: 1e6, channels: Some(64), pairs }));
        let none = said(None, Some(0), None).parameters().unwrap().unwrap();
        assert_eq!(none.channels, Some(0));
        for (flags, words) in [
            (said(Some(0.5), None, None), "--rope-theta: expected 1 or more, found 0.5"),
            (said(Some(f32::NAN), None, None), "--rope-theta: expected 1 or more, found NaN"),
            (said(Some(1e4), Some(7), None), "--rope-channels: expected an even number, found 7"),
            (said(None, Some(64), None), "--rope-channels: expected --rope-theta too"),
            (said(None, None, Some("halves")), "--rope-pairs: expected --rope-theta too"),
            (said(Some(1e4), None, Some("thirds")), "--rope-pairs: expected halves or neighbours"),
        ] {
            assert!(flags.parameters().unwrap_err().to_string().contains(words), "{words}");
        }
        for (typed, meant) in
            [("Halves", "halves"), ("neighbors", "neighbours"), ("neox", "halves")]
        {
            let error = said(Some(1e4), None, Some(typed)).parameters().unwrap_err();
            assert_eq!(error.hint_text(), Some(&*format!("did you mean {meant}?")), "{typed}");
        }
    }
}
