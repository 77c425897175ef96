//! Names for people: presets by the names they are asked for by, where results, ids and files keep the
//! fields that stood for the same codec before it had a name.

use super::presets::{PRESETS, Preset};

/// A codec's name, by layer or not, with the shorter names of what has one.
pub fn shown_name(codec: &str) -> String {
    let of_layers = |part: &str| {
        let (name, layers) = part.split_at(part.find('@').unwrap_or(part.len()));
        let bare = name.strip_prefix("noise-").unwrap_or(name);
        let noise = &name[..name.len() - bare.len()];
        let shown = alias_of(bare).map(String::from).or_else(|| {
            let (key, value) = bare.strip_prefix("k:")?.split_once("/v:")?;
            let [key, value] = [key, value].map(|side| alias_of(side).unwrap_or(side));
            Some(format!("k:{key}/v:{value}"))
        });
        format!("{noise}{}{layers}", shown.unwrap_or(bare.into()))
    };
    codec.split('+').map(of_layers).collect::<Vec<_>>().join("+")
}

/// The name that a codec is asked for by and does not go by.
fn alias_of(fields: &str) -> Option<&'static str> {
    let is_it = |preset: &&Preset| preset.is_alias() && preset.codec.to_string() == fields;
    PRESETS.iter().find(is_it).map(|preset| preset.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::CacheCodec;

    #[test]
    fn what_is_shown_is_shorter_and_means_the_same() {
        for (name, shown) in [
            ("int6-g32-ext", "q6_0"),
            ("k:int2-g32-asym-ch/v:int2-g32-asym", "kivi2"),
            ("k:int6-g32-ext/v:q8_0", "k:q6_0/v:q8_0"),
            ("kvgauge4+k:int2-g32-asym-ch/v:int2-g32-asym@0,-1", "kvgauge4+kivi2@0,-1"),
            ("int6-g32-ext+k:f16/v:int6-g32-ext@2-3", "q6_0+k:f16/v:q6_0@2-3"),
        ] {
            assert_eq!(shown_name(name), shown);
            let [name, shown] = [name, shown].map(|name| name.parse::<CacheCodec>().expect(name));
            assert_eq!(name, shown);
        }
        assert_eq!(shown_name("noise-int6-g32-ext"), "noise-q6_0");
        for same in
            ["int4-g64", "int6-g32-ext-sink4", "k:int2-g32-asym-ch/v:int4-g64", "noise", "a/b"]
        {
            assert_eq!(shown_name(same), same);
        }
    }
}
