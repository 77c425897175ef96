//! Any bytes as a safetensors file: an error, or a round trip that keeps names, dtypes, shapes,
//! metadata and every tensor that is not float; in every layout.

#![no_main]

use kvgauge::container::{AxisOrder, Layout, Plan, Target, compress, decompress};
use kvgauge::whole_file::Existing;
use libfuzzer_sys::fuzz_target;
use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::sync::LazyLock;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

fn plans() -> [Plan; 4] {
    let plan = |codec: &str, layout| Plan { layout, ..Plan::all(codec.parse().expect("a codec")) };
    let tokens_first =
        |kv_axis| Layout { order: AxisOrder::TokensHeadsDim, kv_axis, head_dim: None };
    [
        plan("int4-g32", Layout::default()),
        plan("int4-g32+f16@-1", Layout::default()),
        plan("int4-g32-ch", tokens_first(None)),
        plan("k:int4-g16/v:f16", tokens_first(Some(0))),
    ]
}

fuzz_target!(|data: &[u8]| {
    let path = |name: &str| FOLDER.path().join(name);
    let (input, packed, restored) = (path("in"), path("packed"), path("restored"));
    fs::write(&input, data).expect("written");
    let target = |path| Target { path, existing: Existing::Replace, sync: false };
    for plan in plans() {
        if compress(&input, Some(target(&packed)), &plan, &()).is_err() {
            continue;
        }
        let source = SafeTensors::deserialize(data).expect("refused by the safetensors crate");
        decompress(&packed, target(&restored), &()).expect("what was compressed comes back");
        let bytes = fs::read(&restored).expect("restored");
        let found = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let metadata = |bytes| SafeTensors::read_metadata(bytes).expect("a header").1;
        assert_eq!(metadata(&bytes).metadata(), metadata(data).metadata());
        assert_eq!(found.len(), source.len());
        for (name, expected) in source.tensors() {
            let found = found.tensor(&name).expect("every tensor");
            assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()));
            if !matches!(expected.dtype(), Dtype::F16 | Dtype::BF16 | Dtype::F32) {
                assert_eq!(found.data(), expected.data());
            }
        }
    }
});
