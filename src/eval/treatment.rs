//! Treatments of a cache, by name: a codec, or noise as large as its error.

use crate::codec::{
    ByLayer, CacheCodec, Codec, FixedScale, NOISE, Packing, Scheme, Side, TensorCodec,
};
use crate::codec::{Named, no_codec, parse_codec_name, parse_sides};
use crate::error::Result;
use std::fmt;

/// The codec whose error the name `noise` alone is as large as.
const DEFAULT: Codec = {
    let codec = TensorCodec::Packed(Packing::Scheme(Scheme::DEFAULT));
    Codec { key: codec, value: codec }
};

/// The treatment of a cache, layer by layer.
pub type Treatment = ByLayer<LayerTreatment>;

/// The treatment of a layer: a codec, or for keys and for values the control beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerTreatment {
    /// The codec; under noise, the one whose error the noise is as large as.
    pub codec: Codec,
    /// Whether keys get noise in place of the codec, and whether values do.
    noise: [bool; 2],
}

/// The treatment of keys or of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SideTreatment {
    /// The codec; under noise, the one whose error the noise is as large as.
    pub codec: TensorCodec,
    /// Whether there is noise in its place.
    pub noise: bool,
    /// Whether it is [`Treatment::floor`]'s: that of all layers.
    pub floor: bool,
}

impl Treatment {
    /// The control `f16`. In 16 bits, which a round trip through f16 leaves as they are, it rounds
    /// otherwise: see [`super::noise::rounded_otherwise`].
    pub fn floor() -> Self {
        Codec { key: TensorCodec::F16, value: TensorCodec::F16 }.into()
    }

    /// The codec, where there is no noise.
    pub fn as_codec(&self) -> Option<CacheCodec> {
        self.try_map(LayerTreatment::as_codec)
    }

    /// The same with [`Codec::with_scales`] in every layer that can have them; `None` where none can.
    pub fn with_scales(&self, key: FixedScale, value: FixedScale) -> Option<Self> {
        let scaled = |own: &LayerTreatment| {
            let codec = own.codec.with_scales(key, value)?;
            Some(LayerTreatment { codec, ..*own })
        };
        self.each()
            .any(|own| scaled(own).is_some())
            .then(|| self.map(|own| scaled(own).unwrap_or(*own)))
    }

    /// The codecs that layers of a model of `count` layers have, each once; under noise, those whose
    /// error it is as large as.
    ///
    /// # Errors
    /// A layer that is named and not there.
    pub fn codecs(&self, count: usize) -> Result<Vec<Codec>> {
        let mut codecs = Vec::new();
        for LayerTreatment { codec, .. } in self.of_layers(count)? {
            if !codecs.contains(&codec) {
                codecs.push(codec);
            }
        }
        Ok(codecs)
    }
}

impl From<Codec> for Treatment {
    fn from(codec: Codec) -> Self {
        LayerTreatment::from(codec).into()
    }
}

impl From<&CacheCodec> for Treatment {
    fn from(codec: &CacheCodec) -> Self {
        codec.map(|own| (*own).into())
    }
}

impl LayerTreatment {
    /// That of the keys or that of the values.
    pub fn side(&self, side: Side) -> SideTreatment {
        let (codec, noise) = (self.codec.side(side), self.noise[side as usize]);
        SideTreatment { codec, noise, floor: false }
    }

    /// The codec, where there is no noise.
    pub fn as_codec(&self) -> Option<Codec> {
        (self.noise == [false; 2]).then_some(self.codec)
    }

    /// Noise as large as the error of a codec; `None` where keys or values are not packed, or noise
    /// already.
    fn noise_of(like: Self) -> Option<Self> {
        let packed = [like.codec.key, like.codec.value].map(|codec| codec.packing().is_some());
        let codec = like.as_codec()?;
        (packed == [true; 2]).then_some(Self { codec, noise: [true; 2] })
    }
}

impl From<Codec> for LayerTreatment {
    fn from(codec: Codec) -> Self {
        Self { codec, noise: [false; 2] }
    }
}

impl fmt::Display for SideTreatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.noise, self.codec) {
            (true, codec) if codec == DEFAULT.key => f.write_str(NOISE),
            (true, codec) => write!(f, "{NOISE}-{codec}"),
            (false, codec) => write!(f, "{codec}"),
        }
    }
}

impl fmt::Display for LayerTreatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.codec.to_string();
        match self.noise {
            [false, false] => f.write_str(&name),
            [true, true] if self.codec == DEFAULT => f.write_str(NOISE),
            // A name for keys and values alike.
            [true, true] if !name.starts_with("k:") => write!(f, "{NOISE}-{name}"),
            _ => write!(f, "k:{}/v:{}", self.side(Side::Key), self.side(Side::Value)),
        }
    }
}

impl Named for LayerTreatment {
    fn of_name(name: &str, whole: &str) -> Result<Self> {
        let [key, value] = parse_sides(name, whole, parse)?;
        Ok(Self {
            codec: Codec { key: key.codec.key, value: value.codec.value },
            noise: [key.noise[0], value.noise[1]],
        })
    }
}

/// For keys and values; `whole` is the name that it was typed in.
fn parse(name: &str, whole: &str) -> Result<LayerTreatment> {
    let like = match name.strip_prefix(NOISE) {
        Some("") => return Ok(LayerTreatment { codec: DEFAULT, noise: [true; 2] }),
        Some(rest) => rest.strip_prefix('-'),
        None => None,
    };
    let Some(like) = like else { return Ok(parse_codec_name(name, whole)?.into()) };
    // Noise like noise, or like f16, is no control of anything.
    LayerTreatment::noise_of(parse(like, whole)?).ok_or_else(|| {
        no_codec(name, whole).hint("noise-NAME is for what packs: noise-q4_0, noise-kvgauge4")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::PRESETS;

    fn printed(name: &str) -> String {
        name.parse::<Treatment>().expect(name).to_string()
    }

    #[test]
    fn every_treatment_survives_print_and_parse() {
        let mut codecs: Vec<Codec> = PRESETS.iter().map(|preset| preset.codec).collect();
        for name in ["int3-g48-asym-ch-sink4", "tc19-prerope-shape", "tc16", "int4-g64-prerope"] {
            codecs.push(name.parse().unwrap());
        }
        let pairs = codecs.iter().flat_map(|key| codecs.iter().map(move |value| (key, value)));
        for (key, value) in pairs {
            let codec = Codec { key: key.key, value: value.value };
            let noise = |codec: TensorCodec| [false, codec != TensorCodec::F16];
            for key in noise(codec.key) {
                for value in noise(codec.value) {
                    let treatment = Treatment::from(LayerTreatment { codec, noise: [key, value] });
                    let name = treatment.to_string();
                    assert_eq!(name.parse::<Treatment>().expect(&name), treatment, "{name}");
                }
            }
        }
        for preset in PRESETS.iter().filter(|preset| !["f16", "int4-g64"].contains(&preset.name)) {
            let name = format!("noise-{}", preset.name);
            let noise = LayerTreatment::noise_of(preset.codec.into()).map(Treatment::from);
            assert_eq!(name.parse::<Treatment>().ok(), noise);
            // Those that go by their fields do so here.
            if preset.codec.to_string() == preset.name {
                assert_eq!(printed(&name), name);
            }
        }
    }

    #[test]
    fn noise_like_int4_needs_no_name() {
        for (typed, name) in [
            ("noise", "noise"),
            ("noise-int4", "noise"),
            ("noise-int4-g64", "noise"),
            ("noise-int8", "noise-int8-g64"),
            ("k:noise/v:noise-int4", "noise"),
            ("k:noise-kvgauge4/v:f16", "k:noise-tc19-prerope-shape/v:f16"),
            ("k:int4-g64/v:noise", "k:int4-g64/v:noise"),
            ("noise-kvgauge4", "noise-kvgauge4"),
            ("int4-g64", "int4-g64"),
            ("int4+noise@0,1+f16@-1", "int4-g64+noise@0-1+f16@-1"),
            ("noise+noise-int4-g64@4", "noise"),
            ("f16+k:noise-q4_0/v:q4_0@2-4", "f16+k:noise-q4_0/v:q4_0@2-4"),
        ] {
            assert_eq!(printed(typed), name, "{typed}");
        }
        assert!("int4-g64".parse::<Treatment>().unwrap().as_codec().is_some());
        assert!("k:int4-g64/v:noise".parse::<Treatment>().unwrap().as_codec().is_none());
        assert!("int4-g64+noise@0".parse::<Treatment>().unwrap().as_codec().is_none());
    }

    #[test]
    fn noise_is_for_what_packs() {
        for (typed, words) in [
            ("noise-f16", ["noise-NAME", "noise-q4_0"]),
            ("noise-noise", ["noise-NAME", "noise-q4_0"]),
            ("k:int4/v:noise-f16", ["noise-NAME", "noise-q4_0"]),
            ("noise-nf4", ["bitsandbytes", "nearest is int4-g64-lm"]),
            ("NOISE", ["did you mean noise?", ""]),
            ("nois", ["did you mean noise?", ""]),
            ("k:noise,v:q4_0", ["did you mean k:noise/v:q4_0?", ""]),
            ("noise,q4_0", ["one name here", ""]),
        ] {
            let error = typed.parse::<Treatment>().expect_err(typed);
            let hint = error.hint_text().expect(typed);
            assert!(words.iter().all(|word| hint.contains(word)), "{typed}: {hint}");
        }
        for name in ["noise-", "noise-k:int4/v:int4", "noiseint4"] {
            let error = name.parse::<Treatment>().expect_err(name).to_string();
            assert!(error.contains("no codec of that name"), "{error}");
        }
    }
}
