//! The scale of 8-bit floats as a setting.

use super::location::Given;
use super::value::{ReadText, Value, mismatch};
use crate::codec::{FixedScale, Layers};
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::model::source::kv_scales;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::de::DeValue;

/// One scale for keys and values, `0.05`; one for each, `0.05,0.1`; or a checkpoint that holds those of
/// each layer.
#[derive(Debug, Clone, PartialEq)]
pub enum KvScale {
    Of { key: FixedScale, value: FixedScale },
    Checkpoint(PathBuf),
}

impl KvScale {
    /// Gives it to the codecs that were asked for without a scale of their own and can have one.
    ///
    /// # Errors
    /// A scale that no codec takes; a checkpoint without scales; one for codecs by layer.
    pub fn give_to(asked: &[Given<Self>], codecs: &mut [Given<Treatment>]) -> Result<()> {
        let Some(Given { value: scale, location }) = asked.first() else { return Ok(()) };
        let of_layers = match scale {
            Self::Of { .. } => Vec::new(),
            Self::Checkpoint(path) => of_checkpoint(path).map_err(|e| location.locate(e))?,
        };
        let mut taken = false;
        for codec in codecs {
            let scaled = match scale {
                Self::Of { key, value } => codec.value.with_scales(*key, *value),
                Self::Checkpoint(_) => {
                    in_layers(&codec.value, &of_layers).map_err(|e| codec.location.locate(e))?
                }
            };
            if let Some(scaled) = scaled {
                (codec.value, taken) = (scaled, true);
            }
        }
        if taken {
            return Ok(());
        }
        let error = Error::input("expected a codec that takes a scale, found none");
        Err(location.locate(error.hint("fp8-e4m3 and fp8-e5m2 do: --codec fp8-e4m3")))
    }
}

/// By layer, of keys and of values.
fn of_checkpoint(path: &Path) -> Result<Vec<(usize, [FixedScale; 2])>> {
    let number = |scale: f32| {
        let error = || Error::input(format!("{}: a scale of {scale}", path.display()));
        FixedScale::new(scale).ok_or_else(error)
    };
    let scales = kv_scales(path)?.into_iter();
    scales.map(|(layer, [key, value])| Ok((layer, [number(key)?, number(value)?]))).collect()
}

/// With scales of their own in layers that have them; in others it stays as it is, as in vLLM. `None` of
/// a codec that takes none.
fn in_layers(codec: &Treatment, scales: &[(usize, [FixedScale; 2])]) -> Result<Option<Treatment>> {
    if codec.with_scales(FixedScale::ONE, FixedScale::ONE).is_none() {
        return Ok(None);
    }
    if !codec.is_uniform() {
        let error =
            format!("codec {codec}: expected one for all layers beside --kv-scale of a checkpoint");
        return Err(Error::input(error)
            .hint("the scales of layers can be said in its name: fp8-e4m3-scale0.05"));
    }
    let own = |(layer, [key, value]): &(usize, [FixedScale; 2])| {
        let scaled = codec.with_scales(*key, *value).unwrap_or_else(|| codec.clone());
        (Layers::of_indices([*layer]), *scaled.base())
    };
    Ok(Some(Treatment::new(*codec.base(), scales.iter().map(own).collect())))
}

impl FromStr for KvScale {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_number = |c: char| c.is_ascii_digit() || ".,-+ ".contains(c);
        if !text.chars().all(is_number) && text.parse::<f64>().is_err() {
            return Ok(Self::Checkpoint(text.into()));
        }
        let (key, value) = text.split_once(',').unwrap_or((text, text));
        Ok(Self::Of { key: key.trim().parse()?, value: value.trim().parse()? })
    }
}

impl fmt::Display for KvScale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of { key, value } if key == value => write!(f, "{key}"),
            Self::Of { key, value } => write!(f, "{key},{value}"),
            Self::Checkpoint(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Value for KvScale {
    const FROM_TEXT: Option<ReadText<Self>> = Some(|text| Ok(vec![text.parse()?]));

    fn expected() -> String {
        "a scale, two with a comma between them, or a checkpoint".into()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        match value {
            DeValue::String(text) => text.parse(),
            DeValue::Float(number) => number.as_str().parse(),
            DeValue::Integer(number) => number.as_str().parse(),
            other => Err(mismatch(&Self::expected(), other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(scale: &str, codecs: &[&str]) -> Result<Vec<String>> {
        let asked = [Given::flag("--kv-scale", scale.parse()?)];
        let codec = |name: &&str| Given::flag("--codec", name.parse().expect(name));
        let mut codecs: Vec<_> = codecs.iter().map(codec).collect();
        KvScale::give_to(&asked, &mut codecs)?;
        Ok(codecs.iter().map(|codec| codec.value.to_string()).collect())
    }

    #[test]
    fn a_scale_goes_to_codecs_without_one() {
        let codecs = [
            "q4_0",
            "fp8-e4m3",
            "noise-fp8-e5m2",
            "fp8-e4m3-scale2",
            "k:fp8-e4m3/v:q8_0",
            "f16+fp8-e5m2@1",
            "turboquant-k8v4",
        ];
        let names = given("0.5,0.25", &codecs).unwrap();
        assert_eq!(
            names,
            [
                "q4_0",
                "k:fp8-e4m3-scale0.5/v:fp8-e4m3-scale0.25",
                "k:noise-fp8-e5m2-scale0.5/v:noise-fp8-e5m2-scale0.25",
                "fp8-e4m3-scale2",
                "k:fp8-e4m3-scale0.5/v:q8_0",
                "f16+k:fp8-e5m2-scale0.5/v:fp8-e5m2-scale0.25@1",
                "turboquant-k8v4",
            ]
        );
        assert_eq!(given("", &[]).unwrap_err().to_string(), "expected a scale, found ``");
        assert_eq!(given("0.5", &["fp8-e4m3"]).unwrap(), ["fp8-e4m3-scale0.5"]);
        assert_eq!(given("1", &["fp8-e4m3"]).unwrap(), ["fp8-e4m3"]);
        for (scale, codecs, expected) in [
            ("0.5", &["q4_0"][..], "expected a codec that takes a scale"),
            ("0", &["fp8-e4m3"], "expected a scale, found `0`"),
            ("0.5,", &["fp8-e4m3"], "expected a scale, found ``"),
            ("no/such/file", &["fp8-e4m3"], "no/such/file"),
        ] {
            let error = given(scale, codecs).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn layers_have_those_of_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let scale =
            |layer: usize, side: &str| format!("model.layers.{layer}.self_attn.{side}_scale");
        let names = [scale(0, "k"), scale(0, "v"), scale(1, "k"), scale(1, "v"), scale(3, "k")];
        let numbers = [0.5f32, 0.25, 0.5, 0.25, 2.0].map(f32::to_le_bytes);
        let view = |bytes| {
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], bytes).unwrap()
        };
        let tensors = names.iter().zip(numbers.iter().map(|bytes| view(bytes)));
        std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        for path in [path.to_str().unwrap(), folder.path().to_str().unwrap()] {
            let names = given(path, &["fp8-e4m3", "q4_0"]).unwrap();
            let own = "fp8-e4m3+k:fp8-e4m3-scale0.5/v:fp8-e4m3-scale0.25@0-1+fp8-e4m3-scale2@3";
            assert_eq!(names, [own, "q4_0"]);
            let error = given(path, &["f16+fp8-e4m3@1"]).unwrap_err();
            assert!(error.to_string().contains("expected one for all layers"), "{error}");
        }
    }
}
