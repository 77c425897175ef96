//! Names of codecs with a scale that is given to them: a preset that has a scale of 1, and another behind
//! it, as in `fp8-e4m3-scale0.05`.

use super::fields::shown;
use super::presets;
use crate::codec::packing::Packing;
use crate::codec::scheme::{FixedScale, ScaleFormat, Scheme};
use crate::codec::tensor_codec::TensorCodec;
use crate::error::{Error, Result};
use std::fmt;

/// Between the preset and the scale.
const FIELD: &str = "-scale";

/// `None` of a name of another form; `whole` is what it was typed in.
pub fn parse(name: &str, whole: &str) -> Result<Option<TensorCodec>> {
    let Some((preset, scale)) = name.split_once(FIELD) else { return Ok(None) };
    let of_both = presets::find(preset).filter(|codec| codec.key.for_both() == *codec);
    let Some(codec) = of_both.and_then(|codec| codec.key.with_scale(FixedScale::ONE)) else {
        return Ok(None);
    };
    let scale: FixedScale =
        scale.parse().map_err(|e: Error| e.within(format!("codec `{}`", shown(whole))))?;
    Ok(codec.with_scale(scale))
}

/// The name of `scheme`, which has that scale.
pub fn write(scheme: &Scheme, scale: FixedScale, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let plain = Scheme { scales: ScaleFormat::Fixed(FixedScale::ONE), ..*scheme };
    let plain = TensorCodec::Packed(Packing::Scheme(plain)).for_both();
    write!(f, "{}{FIELD}{scale}", presets::name_of(&plain).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use crate::codec::{CacheCodec, Codec};

    #[test]
    fn a_scale_stands_behind_the_preset() {
        for (typed, printed) in [
            ("fp8-e4m3-scale0.05", "fp8-e4m3-scale0.05"),
            ("fp8-e5m2-scale.50", "fp8-e5m2-scale0.5"),
            ("fp8-e4m3-scale1.0", "fp8-e4m3"),
            ("fp8-e4m3-scale0.000001", "fp8-e4m3-scale0.000001"),
            ("k:fp8-e4m3-scale2/v:fp8-e4m3", "k:fp8-e4m3-scale2/v:fp8-e4m3"),
            ("k:fp8-e4m3-scale2/v:fp8-e4m3-scale2.0", "fp8-e4m3-scale2"),
            ("fp8-e4m3+fp8-e4m3-scale0.5@1", "fp8-e4m3+fp8-e4m3-scale0.5@1"),
        ] {
            let codec: CacheCodec = typed.parse().expect(typed);
            assert_eq!(codec.to_string(), printed, "{typed}");
            assert_eq!(printed.parse::<CacheCodec>().expect(printed), codec, "{typed}");
        }
    }

    #[test]
    fn what_is_no_scale_is_refused() {
        for scale in ["", "0", "-1", "1e-3", "nan", "inf", "0.05x", "0,05", "1e39"] {
            let name = format!("fp8-e4m3-scale{scale}");
            let error = name.parse::<Codec>().expect_err(&name);
            assert!(error.to_string().contains("expected a scale, found"), "{error}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("0.05")), "{error}");
        }
        // Others have scales of their own.
        for name in [
            "q4_0-scale2",
            "int8-per-token-head-scale2",
            "fp8-e4m3-per-tensor-scale2",
            "turboquant-k8v4-scale2",
        ] {
            let error = name.parse::<Codec>().expect_err(name);
            assert!(error.to_string().contains("no codec of that name"), "{error}");
        }
    }
}
