//! Scales of a cache in 8-bit floats, as calibrated checkpoints for vLLM hold them.

use super::{Safetensors, Weights};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// The scale of each layer's keys and that of its values.
pub type KvScales = BTreeMap<usize, [f32; 2]>;

/// What scales of keys, of values and of both are called behind the layer's number.
const NAMES: [(&str, &[usize]); 5] = [
    // An older form, which counts where there is no other.
    (".kv_scale", &[0, 1]),
    (".k_proj.output_scale", &[0]),
    (".v_proj.output_scale", &[1]),
    (".k_scale", &[0]),
    (".v_scale", &[1]),
];

/// Whether a tensor is a scale of a layer's keys or values, which no weight is read with. One of queries
/// is none: who stores it has attention computed in 8 bits too.
pub(super) fn is_kv_scale(name: &str) -> bool {
    layer_of(name).is_some() && NAMES.iter().any(|(end, _)| name.ends_with(end))
}

impl Safetensors {
    /// Whether it has scales of a cache.
    pub fn has_kv_scales(&self) -> bool {
        self.names().any(|(name, _)| is_kv_scale(name))
    }

    /// The scales of all layers that have one; what has one side only has it for both, as in vLLM.
    ///
    /// # Errors
    /// A scale for each head; one that is not above 0; a tensor that cannot be read.
    pub fn kv_scales(&self) -> Result<KvScales> {
        let mut found: BTreeMap<usize, [Option<f32>; 2]> = BTreeMap::new();
        // Of two spellings in one layer the same one counts every time.
        let mut names: Vec<_> = self.names().collect();
        names.sort_unstable();
        for (end, sides) in NAMES {
            for (name, shape) in names.iter().filter(|(name, _)| name.ends_with(end)) {
                let Some(layer) = layer_of(name) else { continue };
                if shape.iter().product::<usize>() != 1 {
                    let error = format!("tensor {name}: expected one scale, found shape {shape:?}");
                    return Err(Error::input(error)
                        .hint("a scale for each head of a layer is nothing that kvgauge builds"));
                }
                let scale: f32 = self.tensor(name, shape)?.flatten_all()?.to_vec1()?[0];
                if scale <= 0.0 {
                    let error = format!("tensor {name}: expected a scale above 0, found {scale}");
                    return Err(Error::input(error));
                }
                let of_layer = found.entry(layer).or_default();
                sides.iter().for_each(|side| of_layer[*side] = Some(scale));
            }
        }
        let both = |(layer, [key, value]): (usize, [Option<f32>; 2])| {
            Some((layer, [key.or(value)?, value.or(key)?]))
        };
        Ok(found.into_iter().filter_map(both).collect())
    }
}

/// The number behind `layers.`
fn layer_of(name: &str) -> Option<usize> {
    let mut parts = name.split('.').skip_while(|part| *part != "layers");
    parts.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    /// Name, shape and values.
    type Scale<'a> = (&'a str, &'a [usize], &'a [f32]);

    fn of(tensors: &[Scale]) -> Result<KvScales> {
        let view = |(name, shape, values): &Scale| {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes.leak());
            (name.to_string(), view.unwrap())
        };
        let all = safetensors::serialize(tensors.iter().map(view), None).unwrap();
        Safetensors::from_static("a", all.leak())?.kv_scales()
    }

    #[test]
    fn scales_go_by_the_names_that_vllm_takes() {
        let found = of(&[
            ("model.layers.0.self_attn.k_scale", &[], &[0.5]),
            ("model.layers.0.self_attn.v_scale", &[1], &[0.25]),
            ("model.layers.1.self_attn.k_proj.k_scale", &[1], &[2.0]),
            ("model.layers.1.self_attn.v_proj.v_scale", &[1], &[3.0]),
            ("model.layers.2.self_attn.k_proj.output_scale", &[1], &[4.0]),
            ("model.layers.2.self_attn.v_proj.output_scale", &[1], &[5.0]),
            ("model.layers.3.self_attn.kv_scale", &[1], &[6.0]),
            ("model.layers.4.self_attn.attn.k_scale", &[1], &[7.0]),
            ("model.layers.10.self_attn.k_scale", &[1], &[8.0]),
            ("model.layers.10.self_attn.kv_scale", &[1], &[9.0]),
            ("model.layers.5.self_attn.q_scale", &[1], &[1.0]),
            ("model.layers.5.mlp.up_proj.weight_scale", &[1], &[1.0]),
            ("k_scale", &[1], &[1.0]),
        ])
        .unwrap();
        let expected = [
            (0, [0.5, 0.25]),
            (1, [2.0, 3.0]),
            (2, [4.0, 5.0]),
            (3, [6.0, 6.0]),
            (4, [7.0, 7.0]),
            (10, [8.0, 9.0]),
        ];
        assert_eq!(found, KvScales::from(expected));
        assert!(of(&[("x", &[1], &[1.0])]).unwrap().is_empty());
        for (shape, values, words) in [
            (&[2][..], &[1.0, 2.0][..], "expected one scale, found shape [2]"),
            (&[1], &[-1.0], "expected a scale above 0, found -1"),
            (&[1], &[f32::NAN], "expected a finite number"),
        ] {
            let error = of(&[("model.layers.0.self_attn.k_scale", shape, values)]).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
