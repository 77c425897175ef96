//! Candidates: the codecs that parts of a cache may get.

use crate::codec::{Codec, Side, TensorCodec};
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::eval::protocol::Protocols;
use crate::model::ModelConfig;
use crate::run::subject::check_codec;
use crate::settings::{Given, Location};

/// Candidates where none is named: two to 8.5 bits, all of which store tokens as they come but for
/// `kivi2`'s keys. Those have a scale for each channel, for models on which a rotation of keys does
/// harm.
pub const DEFAULTS: [&str; 5] = ["kvgauge2", "kivi2", "kvgauge3", "kvgauge4", "q8_0"];

/// A codec for keys and one for values, under the name it was given by.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// As printed.
    pub name: String,
    /// The codec of every layer.
    pub codec: Codec,
}

impl Candidate {
    /// As a treatment of the whole cache.
    pub fn treatment(&self) -> Treatment {
        self.codec.into()
    }

    /// What it is called on one side: of `k:NAME/v:NAME`, the name there.
    fn on(&self, side: Side) -> &str {
        match self.name.strip_prefix("k:").and_then(|pair| pair.split_once("/v:")) {
            Some((key, value)) => match side {
                Side::Key => key,
                Side::Value => value,
            },
            None => &self.name,
        }
    }
}

/// Those that were asked for, or of [`DEFAULTS`] those that suit model and protocol.
///
/// # Errors
/// One that was asked for and is none, or that the protocol cannot take on this model.
pub fn of(
    asked: &[Given<Treatment>],
    protocols: Protocols,
    config: &ModelConfig,
    context: usize,
) -> Result<Vec<Candidate>> {
    let check = |given: &Given<Treatment>| -> Result<Candidate> {
        for protocol in protocols.each() {
            check_codec(config, protocols, protocol, context, given)?;
        }
        // Which layers an engine leaves alone by itself is what tune finds out.
        let of_engine = match &given.location {
            Location::Flag(flag) => *flag == "--engine",
            Location::File { key, .. } => key.rsplit('.').next() == Some("engine"),
        };
        let codec = given.value.as_codec().filter(|codec| {
            let left_alone = || codec.others().iter().all(|(_, own)| own.is_f16());
            codec.is_uniform() || (of_engine && left_alone())
        });
        let codec = codec.ok_or_else(|| {
            let error = format!("expected a codec for all layers, found {}", given.value);
            given
                .location
                .locate(Error::input(error).hint("tune gives layers their own; noise is no codec"))
        })?;
        Ok(Candidate { name: codec.base().to_string(), codec: *codec.base() })
    };
    if !asked.is_empty() {
        let candidates = asked.iter().map(check).collect::<Result<Vec<_>>>()?;
        if candidates.iter().all(|candidate| candidate.codec.is_f16()) {
            return Err(Error::input("--candidate: expected a codec that packs, found f16 alone")
                .hint("leave --candidate out for a list of two to 8.5 bits"));
        }
        return Ok(candidates);
    }
    let defaults = DEFAULTS.iter().map(|name| Ok(Given::flag("--candidate", name.parse()?)));
    let defaults = defaults.collect::<Result<Vec<_>>>()?;
    let fitting: Vec<Candidate> = defaults.iter().filter_map(|given| check(given).ok()).collect();
    match fitting.is_empty() {
        // The first says why.
        true => defaults.first().map(check).into_iter().collect(),
        false => Ok(fitting),
    }
}

/// The distinct ways in which candidates store keys or values, with the name of the first that does.
pub fn of_side(candidates: &[Candidate], side: Side) -> Vec<(String, TensorCodec)> {
    let mut distinct: Vec<(String, TensorCodec)> = Vec::new();
    for candidate in candidates {
        let own = candidate.codec.side(side);
        if distinct.iter().all(|(_, known)| *known != own) {
            distinct.push((candidate.on(side).into(), own));
        }
    }
    distinct
}

/// The control that stands for a part that is left as it is.
pub const F16: Codec = Codec { key: TensorCodec::F16, value: TensorCodec::F16 };

/// A codec on one side, f16 on the other.
pub fn beside_f16(side: Side, codec: TensorCodec) -> Codec {
    match side {
        Side::Key => Codec { key: codec, ..F16 },
        Side::Value => Codec { value: codec, ..F16 },
    }
}

/// The distinct ways to pack keys or values, each with f16 on the other side.
pub fn alone(candidates: &[Candidate], side: Side) -> Vec<Treatment> {
    let packed = of_side(candidates, side).into_iter().map(|(_, codec)| codec);
    let packed = packed.filter(|codec| *codec != TensorCodec::F16);
    packed.map(|codec| beside_f16(side, codec).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(names: &[&str]) -> Vec<Candidate> {
        let candidate = |name: &&str| {
            let treatment: Treatment = name.parse().unwrap();
            let codec = *treatment.as_codec().unwrap().base();
            Candidate { name: treatment.to_string(), codec }
        };
        names.iter().map(candidate).collect()
    }

    #[test]
    fn every_default_is_a_codec() {
        assert_eq!(candidates(&DEFAULTS).len(), DEFAULTS.len());
    }

    #[test]
    fn a_side_that_two_candidates_share_is_one_choice() {
        let all = candidates(&["kivi2", "int2-g32-asym", "k:q8_0/v:q4_0", "q8_0"]);
        let names = |side| -> Vec<String> {
            of_side(&all, side).into_iter().map(|(name, _)| name).collect()
        };
        // kivi2 goes by its fields.
        assert_eq!(names(Side::Key), ["int2-g32-asym-ch", "int2-g32-asym", "q8_0"]);
        assert_eq!(names(Side::Value), ["int2-g32-asym", "q4_0", "q8_0"]);
    }
}
