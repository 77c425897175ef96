//! The command line from outside: what a user types, what comes back, and how it ends.

#[path = "common/cli.rs"]
mod cli;
#[path = "common/folder.rs"]
mod folder;
#[path = "common/skip.rs"]
mod skip;

use cli::{GOOD, ModelFolder, Stored, WEIGHTS, good_with, kvgauge, run, run_command, validate};
use folder::names_in;
use safetensors::tensor::Dtype;
use serde_json::Value;
use skip::skip;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary folders have UTF-8 names")
}

// --- Models

#[test]
fn a_model_that_is_not_there_is_refused() {
    let takes = "--model takes builtin";
    let absent = validate(&["--model", "/no/such/folder"]);
    absent.is_refused(&["/no/such/folder", "no such file"]);
    absent.hints(takes);
    let absent = validate(&["--model", "./none.gguf", "--text", "builtin"]);
    absent.is_refused(&["./none.gguf", "no such file"]);
    absent.hints(takes);
    let absent = validate(&["--model", "nonsense"]);
    absent.is_refused(&["nonsense", "OWNER/NAME"]);
    absent.hints(takes);
    validate(&["--model", ""]).is_refused(&["OWNER/NAME"]);
    let misspelt = validate(&["--model", "bultin"]);
    misspelt.is_refused(&["bultin", "OWNER/NAME"]);
    misspelt.hints("did you mean builtin? --model takes");
    // A repository that the cache does not hold, offline.
    let absent = validate(&["--model", "someone/something", "--text", "builtin"]);
    absent.is_refused(&["someone/something", "config.json", "offline"]);
}

#[test]
fn a_file_that_is_no_model_is_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("notes.txt");
    fs::write(&file, "not a model").unwrap();
    validate(&["--model", utf8(&file)]).is_refused(&["notes.txt", "folder or a .gguf file"]);
    for content in ["", "GGUF", "this is no GGUF file at all, whatever its name says"] {
        let file = folder.path().join("broken.gguf");
        fs::write(&file, content).unwrap();
        validate(&["--model", utf8(&file), "--text", "builtin"]).is_refused(&["broken.gguf"]);
    }
    // A folder, whatever its name ends in.
    let named = folder.path().join("folder.gguf");
    fs::create_dir(&named).unwrap();
    validate(&["--model", utf8(&named), "--text", "builtin"])
        .is_refused(&["folder.gguf", "config.json"]);
}

#[test]
fn a_model_folder_works_like_the_embedded_model() {
    let model = ModelFolder::new();
    let ours = model.validate(&["--json"]).succeeds().json();
    let text = utf8(&model.text);
    let embedded = good_with(&["--json", "--text", text]).succeeds().json();
    assert_eq!(ours["codecs"], embedded["codecs"]);
    assert_eq!(ours["baseline"], embedded["baseline"]);
    assert_eq!(ours["model"]["source"], utf8(model.folder.path()));

    // The same weights in two shards.
    let tensors = model.tensors();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    model.remove(WEIGHTS);
    model.write_tensors("a.safetensors", first);
    model.write_tensors("b.safetensors", second);
    let place = |tensors: &[Stored], file: &str| -> Vec<(String, Value)> {
        tensors.iter().map(|tensor| (tensor.name.clone(), file.into())).collect()
    };
    let map: serde_json::Map<String, Value> =
        [place(first, "a.safetensors"), place(second, "b.safetensors")]
            .concat()
            .into_iter()
            .collect();
    let index = |map: &Value| serde_json::json!({ "weight_map": map }).to_string();
    const INDEX: &str = "model.safetensors.index.json";
    model.write(INDEX, index(&map.clone().into()));
    let sharded = model.validate(&["--json"]).succeeds().json();
    assert_eq!(sharded["codecs"], embedded["codecs"]);

    model.remove("b.safetensors");
    model.validate(&[]).is_refused(&[INDEX, "b.safetensors", "no such file"]);
    model.write(INDEX, index(&serde_json::json!({ "x": "../b.safetensors" })));
    model.validate(&[]).is_refused(&[INDEX, "../b.safetensors"]);
    model.write(INDEX, "{}");
    model.validate(&[]).is_refused(&[INDEX, "weight_map"]);
    model.write(INDEX, "{\"weight_map\": {");
    model.validate(&[]).is_refused(&[INDEX, "not valid JSON"]);
}

#[test]
fn a_folder_without_one_of_its_files_is_refused() {
    for file in ["config.json", "tokenizer.json", WEIGHTS] {
        let model = ModelFolder::new();
        model.remove(file);
        model.validate(&[]).is_refused(&[utf8(model.folder.path()), file, "found"]);
    }
}

#[test]
fn a_config_of_an_architecture_that_is_not_computed_is_refused() {
    let model = ModelFolder::new();
    let file = "config.json";
    model.edit_config(|config| config["architectures"] = serde_json::json!(["Qwen3_5ForCausalLM"]));
    model.validate(&[]).is_refused(&[file, "LlamaForCausalLM", "Qwen3_5ForCausalLM"]);
    model.edit_config(|config| {
        config["architectures"] = serde_json::json!(["LlamaForCausalLM"]);
        config["num_key_value_heads"] = 3.into();
    });
    model.validate(&[]).is_refused(&[file, "num_key_value_heads", "found 3"]);
    model.edit_config(|config| config["hidden_size"] = "wide".into());
    model.validate(&[]).is_refused(&[file, "wide"]);
    model.edit_config(|config| _ = config.as_object_mut().unwrap().remove("hidden_size"));
    model.validate(&[]).is_refused(&[file, "hidden_size"]);
    for broken in ["", "{", "[]", "{\"architectures\": [\"LlamaForCausalLM\"", "\u{0}"] {
        model.write(file, broken);
        model.validate(&[]).is_refused(&[file]);
    }
}

#[test]
fn a_broken_tokenizer_is_refused() {
    let model = ModelFolder::new();
    for broken in ["", "{}", "{\"version\": \"1.0\""] {
        model.write("tokenizer.json", broken);
        model.validate(&[]).is_refused(&["tokenizer.json"]);
    }
    // Broken in the middle, where the tokenizers crate panics.
    let model = ModelFolder::new();
    let whole = fs::read_to_string(model.path("tokenizer.json")).unwrap();
    let decoder = whole.find("\"decoder\"").expect("a decoder");
    for cut in [decoder + 12, decoder + 30] {
        model.write("tokenizer.json", &whole[..cut]);
        model.validate(&[]).is_refused(&["tokenizer.json"]);
    }
    let model = ModelFolder::new();
    model.edit_config(|config| config["vocab_size"] = 100.into());
    model.validate(&[]).is_refused(&["vocabulary of 100"]);
}

// --- Weights

const UP: &str = "model.layers.1.mlp.up_proj.weight";

#[test]
fn a_tensor_missing_or_of_the_wrong_kind_is_refused() {
    let model = ModelFolder::new();
    let tensors = model.tensors();
    let rest: Vec<Stored> = tensors.into_iter().filter(|tensor| tensor.name != UP).collect();
    model.write_tensors(WEIGHTS, &rest);
    model.validate(&[]).is_refused(&[WEIGHTS, UP, "missing"]);

    let model = ModelFolder::new();
    model.edit_tensor(UP, |tensor| tensor.shape.swap(0, 1));
    model.validate(&[]).is_refused(&[WEIGHTS, UP, "expected shape [704, 256]", "[256, 704]"]);

    let model = ModelFolder::new();
    model.edit_tensor(UP, |tensor| {
        tensor.dtype = Dtype::I64;
        tensor.bytes = vec![0; 4 * tensor.bytes.len()];
    });
    model.validate(&[]).is_refused(&[WEIGHTS, UP, "expected F32, F16 or BF16", "I64"]);
}

#[test]
fn a_weight_that_is_not_finite_is_refused() {
    const NAN: u16 = 0x7e00;
    const MINUS_INFINITY: u16 = 0xfc00;
    for (bits, word) in [(NAN, "NaN"), (MINUS_INFINITY, "-inf")] {
        let model = ModelFolder::new();
        model.edit_tensor(UP, |tensor| {
            assert_eq!(tensor.dtype, Dtype::F16);
            tensor.bytes[2 * 4321..2 * 4322].copy_from_slice(&bits.to_le_bytes());
        });
        model.validate(&[]).is_refused(&[WEIGHTS, UP, "index 4321", word]);
    }
}

#[test]
fn a_model_too_large_for_f16_is_told_what_to_try() {
    let model = ModelFolder::new();
    model.edit_tensor(UP, |tensor| {
        let halves = tensor.bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b));
        let mut values: Vec<f32> = halves.map(f32::from).collect();
        values[4321] = 1e6;
        tensor.dtype = Dtype::F32;
        tensor.bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
    });
    model.validate(&["--dtype", "bf16"]).succeeds();
    let answer = model.validate(&["--dtype", "f16"]);
    answer.is_refused(&[UP, "65504", "1000000"]);
    answer.hints("--dtype f32 or bf16");
}

/// Checkpoints that were calibrated for vLLM hold scales of the cache beside the weights: they are no
/// weights, and a codec that divides by 1 is not what vLLM would run.
#[test]
fn scales_of_a_models_own_cache_are_named() {
    const NOTE: &str = "its files have scales of its cache (k_scale, v_scale)";
    let model = ModelFolder::new();
    let plain = model.validate(&["--codec", "fp8-e4m3,q8_0", "--json"]).succeeds().json();
    let mut tensors = model.tensors();
    for (name, shape, scale) in [
        ("0.self_attn.k", vec![1], 0.03f32),
        ("0.self_attn.v", vec![], 0.01),
        ("2.kv", vec![1], 0.02),
    ] {
        tensors.push(Stored {
            name: format!("model.layers.{name}_scale"),
            dtype: Dtype::F32,
            shape,
            bytes: scale.to_le_bytes().to_vec(),
        });
    }
    model.write_tensors(WEIGHTS, &tensors);
    let folder = utf8(model.folder.path());

    let noted = model.validate(&["--codec", "fp8-e4m3,q8_0", "--json"]);
    assert!(noted.stderr.contains(NOTE), "{}", noted.stderr);
    assert!(noted.stderr.contains(&format!("--kv-scale {folder}")), "{}", noted.stderr);
    assert_eq!(noted.json()["codecs"], plain["codecs"]);

    // None divides by 1 where vLLM would not, or it is asked for.
    model.validate(&["--codec", "fp8-e5m2,fp8-e4m3-scale0.5,turboquant-k8v4"]).succeeds();
    model.validate(&["--codec", "fp8-e4m3", "--kv-scale", "1"]).succeeds();
    let scaled = model.validate(&["--codec", "fp8-e4m3", "--kv-scale", folder, "--json"]);
    let scaled = scaled.succeeds().json();
    assert_eq!(
        scaled["codecs"][0]["codec"],
        "fp8-e4m3+k:fp8-e4m3-scale0.03/v:fp8-e4m3-scale0.01@0+fp8-e4m3-scale0.02@2"
    );
    let kld = |run: &Value| run["codecs"][0]["kld_mean"].as_f64().unwrap();
    assert_ne!(kld(&scaled), kld(&plain));

    // Once a model, of a sweep under both protocols.
    let text = utf8(&model.text);
    let grid =
        format!("model = {folder:?}\ntext = {text:?}\ncodec = \"fp8-e4m3\"\nprotocol = \"both\"\n");
    model.write("grid.toml", grid);
    let (grid, out) = (model.path("grid.toml"), model.path("sweep"));
    let args = ["sweep", utf8(&grid), "--output", utf8(&out), "--context", "64", "--windows", "1"];
    let sweep = run(&args);
    assert_eq!(sweep.status, Some(0), "{}", sweep.stderr);
    assert_eq!(sweep.stderr.matches(NOTE).count(), 1, "{}", sweep.stderr);
}

#[test]
fn safetensors_cut_short_or_too_long_are_refused() {
    let model = ModelFolder::new();
    let whole = fs::read(model.path(WEIGHTS)).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let end = whole.len();
    for cut in [0, 1, 7, 8, 9, header / 2, header - 1, header, header + 1, end / 2, end - 1] {
        model.write(WEIGHTS, &whole[..cut]);
        let answer = model.validate(&[]);
        answer.is_refused(&[WEIGHTS]);
        answer.hints(if cut == 0 { "no bytes" } else { "cut short" });
    }
    model.write(WEIGHTS, [&whole[..], &[0]].concat());
    model.validate(&[]).is_refused(&[WEIGHTS]);
    // A header length that no file has.
    model.write(WEIGHTS, [&[0xff; 8], &whole[8..]].concat());
    model.validate(&[]).is_refused(&[WEIGHTS]);
}

// --- Texts

#[test]
fn a_text_that_cannot_be_used_is_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("text.txt");
    let path = utf8(&file);
    let absent = good_with(&["--text", path]);
    absent.is_refused(&[path, "no such file"]);
    absent.hints("--text takes builtin, wikitext-2");
    fs::write(&file, "").unwrap();
    good_with(&["--text", path]).is_refused(&[path, "empty"]);
    fs::write(&file, "Too short for one window.").unwrap();
    good_with(&["--text", path]).is_refused(&[path, "at least 64 tokens", "found"]);
    fs::write(&file, b"sixteen letters.\xff and more").unwrap();
    good_with(&["--text", path]).is_refused(&[path, "UTF-8", "0xff", "offset 16"]);
    // Cut inside a character.
    fs::write(&file, b"caf\xc3").unwrap();
    good_with(&["--text", path]).is_refused(&[path, "UTF-8", "0xc3", "offset 3"]);
    good_with(&["--text", utf8(folder.path())]).is_refused(&[utf8(folder.path())]);
    // Offline, and not in the cache.
    good_with(&["--text", "wikitext-2"]).is_refused(&["wikitext-2", "offline"]);
}

#[test]
fn a_mistyped_text_is_found_before_the_model_is_fetched() {
    validate(&["--model", "someone/something", "--text", "/no/such/text"])
        .is_refused(&["/no/such/text"]);
}

#[test]
fn fewer_windows_than_asked_for_are_noted() {
    let folder = TempDir::new().unwrap();
    let text = cli::short_text(folder.path());
    let answer =
        validate(&["--model", "builtin", "--text", utf8(&text), "--context", "1024", "--json"]);
    let windows = answer.json()["windows"].as_u64().unwrap();
    assert!((2..20).contains(&windows), "{windows}");
    let note =
        format!("windows: {windows} of 1024 tokens instead of 20: {} ends there", utf8(&text));
    assert_eq!(answer.stderr, format!("note: {note}\n"));
}

// --- Numbers

#[test]
fn numbers_out_of_range_are_refused() {
    let builtin = |args: &[&str]| validate(&[&["--model", "builtin"], args].concat());
    let long = builtin(&["--context", "1025"]);
    long.is_refused(&["--context", "at most 1024", "found 1025"]);
    long.hints("--context 1024");
    for context in ["0", "1", "2", "3"] {
        builtin(&["--context", context]).is_refused(&["--context", "at least 4", context]);
    }
    builtin(&["--windows", "0"]).is_refused(&["--windows", "at least 1", "found 0"]);
    builtin(&["--threads", "0"]).is_refused(&["--threads", "1 to 1024", "found 0"]);
    builtin(&["--threads", "100000"]).is_refused(&["--threads", "1 to 1024", "found 100000"]);
    let beyond = good_with(&["--first-window", "2321"]);
    beyond.is_refused(&["--first-window", "at most 2320", "found 2321"]);
    good_with(&["--first-window", "18446744073709551615"]).is_refused(&["--first-window"]);
    for limit in ["nan", "inf", "-1", "-1e9"] {
        let refused = good_with(&["--max-ppl-increase", limit]);
        refused.is_refused(&["--max-ppl-change", "a percentage, 0 or more"]);
        good_with(&["--max-kld", limit]).is_refused(&["--max-kld", "0 or more"]);
        good_with(&["--min-top1", limit]).is_refused(&["--min-top1", "a share from 0 to 1"]);
    }
    let percent = good_with(&["--min-top1", "95"]);
    percent.is_refused(&["--min-top1", "a share from 0 to 1", "found 95"]);
    percent.hints("0.95");
}

#[test]
fn the_shortest_window_and_the_last_window_work() {
    let shortest =
        validate(&["--model", "builtin", "--context", "4", "--codec", "int4-g8", "--json"]);
    let result = shortest.succeeds().json();
    assert_eq!((&result["prefix"], &result["scored_tokens"]), (&2.into(), &20.into()));
    let last = good_with(&["--first-window", "2320", "--json"]);
    assert_eq!(last.json()["windows"], 1);
    let note = "windows: 1 of 64 tokens instead of 2: builtin ends there";
    assert_eq!(last.stderr, format!("note: {note}\n"));
}

// --- Codecs

#[test]
fn codec_names_that_mean_nothing_are_refused_with_help() {
    let group = good_with(&["--codec", "int4-g0"]);
    group.is_refused(&["int4-g0", "at least 8", "found 0"]);
    good_with(&["--codec", "int4-g7"]).is_refused(&["int4-g7", "at least 8", "found 7"]);
    // 32 prefix tokens × 2 KV heads × 64
    good_with(&["--codec", "int4-g4097"]).is_refused(&["int4-g4097", "at most 4096", "4097"]);
    good_with(&["--codec", "int4-g99999999999999999999"])
        .is_refused(&["at most", "99999999999999999999"]);
    for (name, close) in [
        ("int4-64", "did you mean int4-g64?"),
        ("int-4", "did you mean int4-g64?"),
        ("int4_g64", "did you mean int4-g64?"),
        ("q4", "q4_0"),
        ("kivi", "kivi4"),
        ("", "int4-g64"),
    ] {
        let answer = good_with(&["--codec", name]);
        answer.is_refused(&[&format!("`{name}`"), "no codec of that name"]);
        answer.hints(close);
    }
    good_with(&["--codec", "k:int4/v:int4-prerope"]).is_refused(&["they have no position"]);
    good_with(&["--codec", "int6-lm"]).is_refused(&["at most 5 bits"]);
    // One bad name among good ones stops the run.
    good_with(&["--codec", "f16", "--codec", "q4"]).is_refused(&["`q4`"]);
}

#[test]
fn codecs_are_echoed_in_the_order_asked_for() {
    let flags = ["--codec", "k:int4-g32/v:f16,int4", "--codec", "k:f16/v:f16"];
    let result = good_with(&[&flags[..], &["--json"]].concat()).succeeds().json();
    let codecs = result["codecs"].as_array().unwrap();
    let echoed: Vec<&str> = codecs.iter().map(|codec| codec["codec"].as_str().unwrap()).collect();
    assert_eq!(echoed, ["k:int4-g32/v:f16", "int4-g64", "f16"]);
    // 4.5 bits for the keys, 16 for the values.
    assert_eq!(codecs[0]["bits_per_value"], 10.25);
    assert_eq!(codecs[1]["bits_per_value"], 4.25);
    assert_eq!(codecs[2]["bits_per_value"], 16.0);
}

// --- Arithmetic

#[test]
fn devices_that_this_build_lacks_are_refused() {
    for (device, built) in [("cuda", cfg!(feature = "cuda")), ("metal", cfg!(feature = "metal"))] {
        if built {
            continue;
        }
        let answer = good_with(&["--device", device]);
        answer.is_refused(&[&format!("--device {device}"), "this build has no"]);
        answer.hints(&format!("--features {device}"));
    }
    good_with(&["--device", "cpu"]).succeeds();
}

#[test]
fn half_precision_gives_nearly_the_same_perplexity() {
    let perplexities = |dtype: &str| {
        let result = good_with(&["--dtype", dtype, "--codec", "int4-g64", "--json"]);
        let result = result.succeeds().json();
        assert_eq!(result["config"]["dtype"], dtype);
        let codec = &result["codecs"][0];
        let snr = codec["key"]["snr_db"].as_f64().unwrap();
        assert!((10.0..30.0).contains(&snr), "{dtype}: {snr} dB");
        [&result["baseline"]["perplexity"], &codec["perplexity"]].map(|p| p.as_f64().unwrap())
    };
    let exact = perplexities("f32");
    for dtype in ["bf16", "f16"] {
        for (exact, found) in exact.into_iter().zip(perplexities(dtype)) {
            assert!((found / exact - 1.0).abs() < 0.02, "{dtype}: {found} beside {exact}");
        }
    }
}

/// In 16 bits f16 beside a codec leaves a side as it is.
#[test]
fn an_exact_side_has_no_error_and_no_infinity() {
    let flags = ["--dtype", "f16", "--codec", "k:f16/v:q8_0", "--protocol", "prefix"];
    let answer = good_with(&[&flags[..], &["--json"]].concat()).succeeds();
    let codec = &answer.json()["codecs"][0];
    assert_eq!(codec["key"], serde_json::json!({ "rmse": 0.0, "snr_db": null, "cosine": 1.0 }));
    assert!(codec["value"]["snr_db"].as_f64().unwrap() > 30.0);
    let table = good_with(&flags).succeeds().stdout;
    assert!(table.contains('∞') && !table.contains("inf"), "{table}");
}

/// What rounding to the run's 16 bits makes by itself is there whether it was asked for or not, under
/// each protocol, and is what control f16 shows.
#[test]
fn a_run_in_16_bits_shows_its_floor() {
    let run = |dtype: &str, codec: &str| {
        good_with(&["--dtype", dtype, "--codec", codec, "--json"]).succeeds().json()
    };
    for dtype in ["bf16", "f16"] {
        let (asked, other) = (run(dtype, "f16,q8_0"), run(dtype, "q8_0"));
        for part in [|json: &Value| json.clone(), |json: &Value| json["decode"].clone()] {
            let floor = &part(&asked)["baseline"]["floor"];
            assert!(floor["kld_mean"].as_f64().unwrap() > 1e-9, "{dtype}: {floor}");
            assert_eq!(floor["kld_mean"], part(&asked)["codecs"][0]["kld_mean"]);
            assert_eq!(*floor, part(&other)["baseline"]["floor"], "{dtype}");
        }
    }
    assert!(run("f32", "f16")["baseline"].get("floor").is_none());
    let table = good_with(&["--dtype", "bf16"]).succeeds().stdout;
    assert!(table.contains("floor     KLD of another rounding to bf16: prefix "), "{table}");
}

#[test]
fn bos_replaces_the_first_token_when_asked() {
    let bos = |choice: &str| {
        let result = good_with(&["--bos", choice, "--json"]).succeeds().json();
        assert_eq!(result["config"]["bos"], choice);
        (result["bos_id"].clone(), result["baseline"]["perplexity"].as_f64().unwrap())
    };
    let (always, never) = (bos("always"), bos("never"));
    assert_eq!(always.0, 0);
    assert_eq!(never.0, Value::Null);
    assert_ne!(always.1, never.1);
    assert!([&always, &never].contains(&&bos("auto")));

    // A model without such a token.
    let model = ModelFolder::new();
    model.edit_config(|config| config["bos_token_id"] = Value::Null);
    model.validate(&["--bos", "always"]).is_refused(&["--bos", "beginning-of-sequence"]);
    model.validate(&["--bos", "never"]).succeeds();
}

#[test]
fn the_cross_check_agrees() {
    let result = good_with(&["--cross-check", "--json"]).succeeds().json();
    let check = &result["cross_check"];
    let [largest, difference] =
        ["largest_logit", "largest_difference"].map(|key| check[key].as_f64().unwrap());
    assert!(difference <= 1e-3 * largest && largest > 1.0, "{check}");
}

// --- Usage

#[test]
fn usage_errors_look_like_all_others() {
    let typo = validate(&["--modle", "builtin"]);
    typo.is_refused(&["--modle"]);
    typo.hints("--model");
    validate(&["--model"]).is_refused(&["--model", "value"]);
    validate(&["--context", "many"]).is_refused(&["--context", "many"]);
    validate(&["--context", "-5"]).is_refused(&["-5"]);
    validate(&["--windows", "some"]).is_refused(&["--windows", "some", "all"]);
    validate(&["--windows=-1"]).is_refused(&["--windows", "-1"]);
    validate(&["--strict=yes"]).is_refused(&["--strict", "yes"]);
    validate(&["--seed", "x"]).is_refused(&["--seed"]);
    validate(&["stray"]).is_refused(&["stray"]);
    validate(&["--model", "builtin", "--model", "builtin"]).is_refused(&["--model"]);
    validate(&["--protocol", "suffix"]).is_refused(&["--protocol", "`both`, `prefix` or `decode`"]);
    validate(&["--protocol", "prefix", "--chunk", "32"])
        .is_refused(&["--chunk", "nothing to the prefix protocol"]);
    validate(&["--protocol", "decode", "--chunk", "0"]).is_refused(&["--chunk", "at least 1"]);
    good_with(&["--protocol", "decode", "--codec", "int4-g64-ctr"])
        .is_refused(&["--codec: codec int4-g64-ctr", "the mean over all tokens"]);
    let bos = validate(&["--bos", "perhaps"]);
    bos.is_refused(&["--bos", "perhaps"]);
    bos.hints("auto, always, never");
    let command = run(&["valdate"]);
    command.is_refused(&["valdate"]);
    command.hints("validate");
    // Values that would break the two lines.
    validate(&["--model", "two\nlines"]).is_refused(&["two lines"]);
    validate(&["--windows", "two\nlines"]).is_refused(&["--windows"]);
}

#[test]
fn help_and_version_go_to_stdout() {
    let version = run(&["--version"]).succeeds().stdout;
    assert_eq!(version, format!("kvgauge {}\n", env!("CARGO_PKG_VERSION")));
    let help = run(&["--help"]).succeeds().stdout;
    assert!(help.contains("validate") && help.contains("Exit status"), "{help}");
    let help = validate(&["--help"]).succeeds().stdout;
    let flags = "model text context windows first-window codec protocol bos parse-special dtype \
        device threads seed max-ppl-change max-ppl-increase max-kld min-top1 strict json output \
        config offline cross-check";
    for flag in flags.split_whitespace() {
        let listed = [" ", "[=", "]"].iter().any(|end| help.contains(&format!("--{flag}{end}")));
        assert!(listed, "no --{flag} in\n{help}");
    }
}

/// As they stand, with the embedded model for those that nobody else has. A measurement of another program is
/// not at hand; what its example says can be typed is held by a unit test.
#[test]
fn the_examples_of_the_help_run() {
    let folder = TempDir::new().unwrap();
    let text = std::path::Path::new("data/builtin/text.txt");
    fs::copy(text, folder.path().join("my-prompts.txt")).unwrap();
    let in_folder = |line: &str| {
        let mut command = kvgauge();
        let words = line.split(' ').skip(usize::from(line.starts_with("kvgauge")));
        command.current_dir(&folder).args(words);
        let answer = run_command(command);
        assert_eq!(answer.status, Some(0), "{line}: {}", answer.stderr);
        answer.stdout
    };
    let mut ran = 0;
    for name in ["validate", "extract", "kv-compress", "sweep", "report", "tune"] {
        let help = run(&[name, "--help"]).succeeds().stdout;
        assert_eq!(examples(&help), examples(&run(&[name, "-h"]).succeeds().stdout));
        let config = help.lines().skip_while(|line| !line.ends_with("quick.toml:")).skip(1);
        let config: Vec<&str> = config.take_while(|line| !line.is_empty()).collect();
        if !config.is_empty() {
            fs::write(folder.path().join("quick.toml"), config.join("\n")).unwrap();
            in_folder("sweep quick.toml --windows 2 --shard 2/2 --output part-2");
        }
        for example in examples(&help) {
            let line = example.replace("OWNER/NAME", "builtin").replace("model.gguf", "builtin");
            let line = match name {
                "validate" | "tune" if !line.contains("--dry-run") => line + " --dry-run",
                "extract" | "report" => line + " --force",
                "sweep" if line.contains("--submit") => line.replace(" -- ", " --dry-run -- "),
                "sweep" => line + " --windows 2",
                _ => line,
            };
            in_folder(&line);
            ran += 1;
        }
    }
    assert!(ran >= 18, "{ran}");
    let names = names_in(folder.path());
    for name in ["kv_cache.safetensors", "restored.safetensors", "results", "report"] {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
}

/// The command lines at the end of a help.
fn examples(help: &str) -> Vec<String> {
    let behind = help.lines().skip_while(|line| !line.starts_with("Example"));
    behind.filter_map(|line| Some(format!("k{}", line.strip_prefix("  k")?))).collect()
}

#[test]
fn nothing_asked_for_shows_what_it_is_and_three_commands() {
    let answer = run(&[]);
    assert_eq!((answer.status, answer.stdout.as_str()), (Some(2), ""));
    assert!(answer.stderr.contains("\nUsage: kvgauge COMMAND\n"), "{}", answer.stderr);
    let shown = answer.stderr.lines().filter_map(|line| line.strip_prefix("  kvgauge "));
    let shown: Vec<Vec<&str>> = shown.map(|line| line.split(' ').collect()).collect();
    assert_eq!(shown.len(), 3);
    for words in shown {
        // Complete as it stands, but for a model that is not here and its text.
        let help = run(&[&words[..], &["--help"]].concat()).succeeds();
        assert!(help.stdout.contains("Usage: kvgauge"), "{}", help.stdout);
    }
    assert!(answer.stderr.lines().all(|line| line.chars().count() <= 60), "{}", answer.stderr);
}

#[test]
fn errors_are_the_same_without_backtraces() {
    let mut command = kvgauge();
    command.env_remove("RUST_BACKTRACE").args(["validate", "--model", "/no/such"]);
    let plain = run_command(command);
    plain.is_refused(&["/no/such"]);
    assert_eq!(plain.stderr, validate(&["--model", "/no/such"]).stderr);
}

// --- JSON

/// Every key that the schema fixes (docs/json.md), with its type. `?` in front: may be null.
const FIXED: &[(&str, &str)] = &[
    ("/schema", "string"),
    ("/protocol", "string"),
    ("/model/source", "string"),
    ("/model/revision", "?string"),
    ("/text/source", "string"),
    ("/text/sha256", "string"),
    ("/context", "count"),
    ("/prefix", "count"),
    ("/windows", "count"),
    ("/scored_tokens", "count"),
    ("/baseline/perplexity", "number"),
    ("/baseline/nll_per_window", "numbers"),
    ("/timings_s", "object"),
    ("/peak_rss_bytes", "?count"),
];

const FIXED_OF_CODEC: &[(&str, &str)] = &[
    ("/codec", "string"),
    ("/bits_per_value", "number"),
    ("/compression_ratio", "number"),
    ("/perplexity", "number"),
    ("/perplexity_change_percent", "number"),
    ("/perplexity_change_percent_ci95", "?interval"),
    ("/kld_mean", "number"),
    ("/kld_mean_ci95", "?interval"),
    ("/kld_p50", "number"),
    ("/kld_p90", "number"),
    ("/kld_p99", "number"),
    ("/kld_p999", "number"),
    ("/kld_max", "number"),
    ("/top1_agreement", "number"),
    ("/rms_delta_p", "number"),
    ("/nll_per_window", "numbers"),
    ("/key", "distortion"),
    ("/value", "distortion"),
    ("/layers/0/key", "distortion"),
    ("/layers/3/value", "distortion"),
    ("/layers/3/layer", "count"),
    ("/verdict", "string"),
    ("/windows_needed", "?count"),
    ("/targets_affected", "number"),
    ("/verdicts/perplexity_change", "string"),
];

fn has_type(value: &Value, kind: &str) -> bool {
    let numbers = |n: Option<usize>| {
        let values = value.as_array();
        values.is_some_and(|v| v.iter().all(Value::is_number) && n.is_none_or(|n| v.len() == n))
    };
    match kind.strip_prefix('?') {
        Some(kind) => value.is_null() || has_type(value, kind),
        None => match kind {
            "string" => value.as_str().is_some_and(|text| !text.is_empty()),
            "count" => value.is_u64(),
            "number" => value.is_number(),
            "numbers" => numbers(None),
            "interval" => numbers(Some(2)) && value[0].as_f64() <= value[1].as_f64(),
            "object" => value.is_object(),
            "distortion" => ["rmse", "snr_db", "cosine"].iter().all(|key| value[key].is_number()),
            _ => panic!("no such kind: {kind}"),
        },
    }
}

#[track_caller]
fn check_keys(object: &Value, keys: &[(&str, &str)]) {
    for (key, kind) in keys {
        let found = object.pointer(key);
        assert!(
            found.is_some_and(|v| has_type(v, kind)),
            "{key}: expected {kind}, found {found:?}"
        );
    }
}

#[test]
fn json_holds_every_fixed_key() {
    let asked = ["int4-g64", "f16", "k:int4-g32/v:f16"];
    let flags = asked.map(|name| ["--codec", name]).concat();
    let answer = good_with(&[&flags[..], &["--json"]].concat()).succeeds();
    for token in ["NaN", "nan", "Infinity", "inf,", "inf\n"] {
        assert!(!answer.stdout.contains(token), "{token}");
    }
    assert!(answer.stdout.starts_with('{') && answer.stdout.ends_with("}\n"));
    let result = answer.json();
    check_keys(&result, FIXED);
    assert_eq!(result["schema"], "kvgauge.validation/1");
    assert_eq!(result["protocol"], "prefix");
    assert_eq!((&result["context"], &result["prefix"]), (&64.into(), &32.into()));
    assert_eq!((&result["windows"], &result["scored_tokens"]), (&2.into(), &62.into()));
    let codecs = result["codecs"].as_array().unwrap();
    assert_eq!(codecs.len(), asked.len());
    for (codec, name) in codecs.iter().zip(asked) {
        check_keys(codec, FIXED_OF_CODEC);
        assert_eq!(codec["codec"], name);
        assert!(codec["perplexity_change_percent_ci95"].is_array(), "two windows have one");
        assert_eq!(codec["layers"].as_array().unwrap().len(), 4);
        let verdict = codec["verdict"].as_str().unwrap();
        assert!(["pass", "fail", "inconclusive"].contains(&verdict), "{verdict}");
        let share = codec["top1_agreement"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share), "{share}");
    }
    // Beside them the same keys of the other protocol.
    let decode = &result["decode"];
    assert_eq!(decode["protocol"], "decode");
    assert_eq!((&decode["residual"], &decode["chunk"]), (&0.into(), &32.into()));
    assert_eq!((&decode["scored_tokens"], &decode["refused"]), (&62.into(), &Value::Array(vec![])));
    check_keys(&decode["baseline"], &[("/perplexity", "number"), ("/nll_per_window", "numbers")]);
    for (codec, beside) in decode["codecs"].as_array().unwrap().iter().zip(codecs) {
        check_keys(codec, FIXED_OF_CODEC);
        let keys = |codec: &Value| codec.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!((keys(codec), &codec["codec"]), (keys(beside), &beside["codec"]));
    }
}

/// One assignment, one name, from a flag and from a settings file; each layer as its own codec has it.
#[test]
fn layers_have_codecs_of_their_own() {
    let layered = "int4-g64+q8_0@0,-1";
    let asked = ["--codec", "int4+q8_0@-1+q8_0@0,q8_0", "--protocol", "prefix", "--json"];
    let found = good_with(&asked).succeeds().json();
    let [mixed, plain] = [0, 1].map(|codec| &found["codecs"][codec]);
    assert_eq!((&mixed["codec"], &plain["codec"]), (&layered.into(), &"q8_0".into()));
    for side in ["key", "value"] {
        let bits = |layer: usize| &mixed["layers"][layer][format!("{side}_bits_per_value")];
        assert_eq!([0, 1, 2, 3].map(|layer| bits(layer).as_f64().unwrap()), [8.5, 4.25, 4.25, 8.5]);
        for layer in [0, 3] {
            assert_eq!(mixed["layers"][layer][side], plain["layers"][layer][side]);
        }
    }
    assert_eq!(mixed["bits_per_value"], 6.375);
    assert_eq!(mixed["exact_share"], 0.0);
    let config =
        format!("model = \"builtin\"\ncontext = 64\nwindows = 2\ncodec = [\"{layered}\"]\n");
    let again = with_config(&config, &["--protocol", "prefix", "--json"]).succeeds().json();
    assert_eq!(again["codecs"][0]["kld_mean"], mixed["kld_mean"]);
    let told = ["--dry-run", "--json", "--protocol", "prefix", "--codec", layered];
    let told = good_with(&told).succeeds().json();
    assert_eq!(told["subjects"][0]["cells"][0]["bits_per_value"], 6.375);
    let refused = good_with(&["--codec", "int4-g64+q8_0@4"]);
    refused.is_refused(&["--codec: codec int4-g64+q8_0@4", "layer 4: expected one of 4 layers"]);
    refused.hints("-1 is the last");
    good_with(&["--codec", "int4+q8_0@0,1", "--codec", "int4+q8_0@0-1"])
        .is_refused(&["--codec: expected every value once"]);
}

/// Exact tokens are named apart, and a residual holds for both protocols.
#[test]
fn exact_tokens_are_told_apart() {
    let codecs = ["--codec", "int4-g64,int4-g64-sink4", "--residual", "8"];
    let table = good_with(&codecs).succeeds().stdout;
    assert!(
        table.contains("prefix, residual 8") && table.contains("decode, residual 8"),
        "{table}"
    );
    assert!(table.contains("exact: values kept in 16 bits"), "{table}");
    let found = good_with(&[&codecs[..], &["--json"]].concat()).succeeds().json();
    assert_eq!((&found["protocol"], &found["residual"]), (&"prefix".into(), &8.into()));
    let share = |result: &Value, codec: usize| result["codecs"][codec]["exact_share"].as_f64();
    // Of 32 tokens of the prefix, and of 63 of the window.
    assert_eq!([0, 1].map(|codec| share(&found, codec)), [Some(0.25), Some(0.375)]);
    assert_eq!(share(&found["decode"], 0), Some(8.0 / 63.0));
    let plain = good_with(&["--json"]).succeeds().json();
    assert!(plain["residual"].is_null() && share(&plain, 0) == Some(0.0));
}

/// Both protocols by default; each alone gives the same numbers.
#[test]
fn both_protocols_run_unless_one_is_chosen() {
    let codecs = ["--codec", "int4-g64", "--codec", "int4-g64-ctr", "--json"];
    let run = |protocol: &[&str]| good_with(&[&codecs[..], protocol].concat());
    let both = run(&[]).succeeds().json();
    assert_eq!(
        (&both["protocol"], &both["config"]["protocol"]),
        (&"prefix".into(), &"both".into())
    );
    let prefix = run(&["--protocol", "prefix"]).succeeds().json();
    assert_eq!((&prefix["codecs"], &prefix["baseline"]), (&both["codecs"], &both["baseline"]));
    assert!(prefix.get("decode").is_none());
    let decode = good_with(&["--json", "--protocol", "decode"]).succeeds().json();
    assert_eq!(decode["codecs"][0], both["decode"]["codecs"][0]);
    assert_eq!(decode["baseline"], both["decode"]["baseline"]);
    // A codec that needs the whole prefix has no verdict under decode, and says why.
    let refused = &both["decode"]["refused"];
    assert_eq!(both["decode"]["codecs"].as_array().unwrap().len(), 1);
    assert_eq!(refused[0]["codec"], "int4-g64-ctr");
    assert!(
        refused[0]["error"].as_str().unwrap().contains("the mean over all tokens"),
        "{refused}"
    );
    // Hence it does not pass under both.
    let lax = ["--max-ppl-change", "1000", "--strict"];
    run(&lax).ends_with_result(1);
    run(&[&lax[..], &["--protocol", "prefix"]].concat()).succeeds();
    let table = good_with(&["--codec", "int4-g64", "--codec", "int4-g64-ctr"]).succeeds().stdout;
    for words in [
        "protocols `prefix` and `decode, residual 0, chunk 32`",
        "\nint4-g64: 1 prediction in ",
        "% (decode); cache of 64 tokens 0.03 MB, not 0.13\n  prefix: ",
        "\n  decode: ",
        "\n  decode: no verdict: codec int4-g64-ctr: ctr, the mean over all tokens",
        "prefix: what a prompt's cache costs",
        "decode: what a server pays",
        "no codec passes under both protocols",
    ] {
        assert!(table.contains(words), "no {words} in\n{table}");
    }
    let lax = good_with(&["--max-ppl-change", "1000", "--codec", "int4-g64"]).succeeds().stdout;
    assert!(lax.contains("passes under both protocols: int4-g64\n"), "{lax}");
}

/// A codec that no scored target can feel has no verdict, least of all a pass.
#[test]
fn a_codec_that_nothing_feels_is_refused() {
    let unfelt = |flags: &[&str]| {
        let flags = [&["--codec", "int4-g64"], flags].concat();
        let refused = good_with(&flags);
        refused
            .is_refused(&["--codec: codec int4-g64", "none of the 31 scored targets would feel"]);
        refused.hints("--residual 31 or less");
    };
    unfelt(&["--protocol", "decode", "--residual", "5000"]);
    unfelt(&["--residual", "5000"]);
    let blocks = ["--residual", "0", "--codec", "int4-g64-ch"];
    let refused = good_with(&[&blocks[..], &["--protocol", "decode"]].concat());
    refused.is_refused(&["int4-g64-ch", "blocks of 64", "none of the 31 scored targets"]);
    refused.hints("--context 66 or more");
    let both = good_with(&[&blocks[..], &["--json"]].concat()).succeeds().json();
    assert_eq!(both["decode"]["refused"][0]["codec"], "int4-g64-ch");
    let sinks = good_with(&["--codec", "int4-g64-sink32"]);
    sinks.is_refused(&["int4-g64-sink32", "all 32 tokens of the prefix kept exact"]);
    // Felt by a part: the share is in the result, and in the table.
    let some = ["--protocol", "decode", "--residual", "40", "--chunk", "8"];
    let part = good_with(&[&some[..], &["--json"]].concat()).succeeds().json();
    // Positions 48 … 62 of 32 … 62.
    let share = part["codecs"][0]["targets_affected"].as_f64().unwrap();
    assert!((share - 15.0 / 31.0).abs() < 1e-12, "{share}");
    let table = good_with(&some).succeeds().stdout;
    assert!(table.contains("48.4 %") && table.contains("felt: "), "{table}");
    assert!(
        table.contains("only 48.4 % of the scored targets attend to a stored token"),
        "{table}"
    );
    let all = good_with(&["--json"]).succeeds().json();
    assert_eq!(all["codecs"][0]["targets_affected"], 1.0);
    assert_eq!(all["decode"]["codecs"][0]["targets_affected"], 1.0);
}

/// A baseline that is no better than a guess says nothing of a codec.
#[test]
fn a_baseline_that_means_nothing_is_invalid() {
    let model = ModelFolder::new();
    let zeros = |tensors: Vec<u8>| {
        let mut bytes = tensors;
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[header..].fill(0);
        bytes
    };
    let file = model.folder.path().join("model.safetensors");
    fs::write(&file, zeros(fs::read(&file).unwrap())).unwrap();
    let answer = model.validate(&["--json", "--codec", "int4-g64", "--codec", "f16"]).succeeds();
    let result = answer.json();
    let perplexity = result["baseline"]["perplexity"].as_f64().unwrap();
    assert!((perplexity - 2048.0).abs() < 1e-3, "{perplexity}");
    for codecs in [&result["codecs"], &result["decode"]["codecs"]] {
        for codec in codecs.as_array().unwrap() {
            assert_eq!(codec["verdict"], "invalid");
            let reason = codec["invalid_because"].as_str().unwrap();
            assert!(reason.contains("not below the vocabulary's size, 2048"), "{reason}");
        }
    }
    let table = model.validate(&["--codec", "int4-g64", "--codec", "f16"]).succeeds().stdout;
    assert_eq!(table.matches("INVALID").count(), 1, "{table}");
    assert!(table.contains("check that model, tokenizer and text belong together"), "{table}");
    assert!(!table.contains("PASS") && !table.contains("passes under"), "{table}");
    let lax = ["--strict", "--max-ppl-change", "1000"];
    model.validate(&lax).ends_with_result(1);
}

/// Further limits are judged on their own intervals, and the worst counts.
#[test]
fn limits_on_kld_and_top1_are_judged() {
    let judged = |flags: &[&str]| {
        let lax = ["--protocol", "prefix", "--max-ppl-change", "1000", "--json"];
        let result = good_with(&[&lax[..], flags].concat()).succeeds().json();
        let codec = &result["codecs"][0];
        [&codec["verdict"], &codec["verdicts"]["kld"], &codec["verdicts"]["top1"]]
            .map(|verdict| verdict.as_str().unwrap_or("none").to_string())
    };
    assert_eq!(judged(&[]), ["pass", "none", "none"]);
    assert_eq!(judged(&["--max-kld", "10"]), ["pass", "pass", "none"]);
    assert_eq!(judged(&["--max-kld", "1e-9"]), ["fail", "fail", "none"]);
    assert_eq!(judged(&["--min-top1", "0"]), ["pass", "none", "pass"]);
    assert_ne!(judged(&["--min-top1", "1", "--max-kld", "10"])[2], "pass");
    let table = good_with(&["--max-kld", "1e-9", "--max-ppl-change", "1000"]).succeeds().stdout;
    assert!(
        table.contains(
            "FAIL, take more bits or another codec: the whole interval of the mean KLD is above"
        ),
        "{table}"
    );
}

/// 4 layers × 2 KV heads × 64 channels × keys and values are 1024 values a token: 2048 bytes in 16 bits,
/// 544 in 4.25.
#[test]
fn memory_is_told_in_mb_and_gb_and_can_have_a_limit() {
    let lax = ["--max-ppl-change", "1000", "--batch", "1000"];
    let run = |more: &[&str]| good_with(&[&lax[..], more].concat());
    let result = run(&["--json"]).succeeds().json();
    for codec in [&result["codecs"][0], &result["decode"]["codecs"][0]] {
        for (key, expected) in [
            ("cache_bytes_per_token_f16", 2048.0),
            ("cache_bytes_per_token", 544.0),
            ("cache_mb_per_sequence_f16", 0.131072),
            ("cache_mb_per_sequence", 0.034816),
            ("cache_mb_per_1000_tokens_f16", 2.048),
            ("cache_mb_per_1000_tokens", 0.544),
            ("gb_saved", 0.096256),
        ] {
            let found = codec[key].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-12, "{key}: {found}");
        }
    }
    assert_eq!(result["config"]["batch"], 1000);
    let table = run(&[]).succeeds().stdout;
    let cache = "cache     0.13 MB a sequence of 64 tokens in 16 bits, 2.05 MB per 1000 tokens\n";
    assert!(table.contains(cache) && table.contains("  3.76×  0.03 "), "{table}");

    let judged = |most: &str| {
        let result = run(&["--max-bytes-per-token", most, "--json"]).succeeds().json();
        let codec = &result["codecs"][0];
        [&codec["verdict"], &codec["verdicts"]["bytes_per_token"]]
            .map(|verdict| verdict.as_str().unwrap().to_string())
    };
    assert_eq!(judged("544"), ["pass", "pass"]);
    assert_eq!(judged("543.9"), ["fail", "fail"]);
    let fails = run(&["--max-bytes-per-token", "500", "--strict"]).ends_with_result(1).stdout;
    assert!(fails.contains("FAIL, take fewer bits: 544 bytes a token, more than 500"), "{fails}");
    run(&["--max-bytes-per-token", "-1"]).is_refused(&["--max-bytes-per-token", "0 or more"]);
    validate(&["--batch", "0"]).is_refused(&["--batch", "at least 1", "found 0"]);
}

#[test]
fn one_window_has_no_interval() {
    let one = ["--model", "builtin", "--context", "64", "--windows", "1"];
    let result = validate(&[&one[..], &["--json"]].concat()).succeeds().json();
    let codec = &result["codecs"][0];
    check_keys(codec, FIXED_OF_CODEC);
    for key in ["perplexity_change_percent_ci95", "kld_mean_ci95", "windows_needed"] {
        assert!(codec[key].is_null(), "{key}");
    }
    assert_eq!(codec["verdict"], "inconclusive");
    // Not decided is not passed.
    validate(&[&one[..], &["--strict"]].concat()).ends_with_result(1);
}

/// Without what differs from run to run.
fn lasting(mut result: Value) -> Value {
    let object = result.as_object_mut().unwrap();
    object.remove("timings_s").expect("timings");
    object.remove("peak_rss_bytes").expect("memory");
    result
}

#[test]
fn the_same_request_gives_the_same_numbers() {
    let request = ["--codec", "int4-g32", "--codec", "int4-g128", "--json"];
    let once = lasting(good_with(&request).succeeds().json());
    assert_eq!(once, lasting(good_with(&request).succeeds().json()));
    // Alone, in another place of the list, and twice.
    let alone = good_with(&["--codec", "int4-g128", "--json"]).succeeds().json();
    assert_eq!(alone["codecs"][0], once["codecs"][1]);
    assert_eq!(alone["baseline"], once["baseline"]);
}

#[test]
fn the_number_of_threads_hardly_matters() {
    let figures = |threads: &str| {
        let result = good_with(&["--threads", threads, "--json"]).succeeds().json();
        ["/baseline/perplexity", "/codecs/0/perplexity", "/codecs/0/kld_mean", "/codecs/0/key/rmse"]
            .map(|key| result.pointer(key).and_then(Value::as_f64).unwrap())
    };
    for (one, two) in figures("1").into_iter().zip(figures("2")) {
        assert!((one / two - 1.0).abs() <= 1e-6, "{one} and {two}");
    }
}

// --- Limits

#[test]
fn strict_turns_a_missed_limit_into_status_1() {
    let with = |limit: &str, strict: &[&str]| {
        good_with(&[&["--max-ppl-increase", limit, "--json"], strict].concat())
    };
    let missed = with("0", &["--strict"]).ends_with_result(1).json();
    assert_ne!(missed["codecs"][0]["verdict"], "pass");
    assert_ne!(with("0", &[]).succeeds().json()["codecs"][0]["verdict"], "pass");
    with("0", &["--strict=false"]).succeeds();
    let kept = with("1000", &["--strict"]).succeeds().json();
    assert_eq!(kept["codecs"][0]["verdict"], "pass");
    // One codec that fails is enough, and the table comes all the same.
    let table = good_with(&[
        "--codec",
        "f16",
        "--codec",
        "int4-g4096",
        "--max-ppl-increase",
        "0.2",
        "--strict",
    ])
    .ends_with_result(1);
    assert!(table.stdout.contains("\nf16: no prediction changes"), "{}", table.stdout);
    assert!(table.stdout.contains("\n  prefix: PASS, use it: "), "{}", table.stdout);
    assert!(table.stdout.contains("passes under both protocols: f16\n"), "{}", table.stdout);
}

// --- Files

#[test]
fn output_writes_the_object_that_json_prints() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("result.json");
    // Longer than any result: what is left of it would show.
    let longer = format!("{{\"schema\": \"kvgauge.validation/1\"{}}}", " ".repeat(1 << 20));
    fs::write(&file, longer).unwrap();
    let printed = good_with(&["--json", "--output", utf8(&file)]).succeeds().stdout;
    assert_eq!(fs::read_to_string(&file).unwrap(), printed);
    assert_eq!(names_in(folder.path()), ["result.json"]);
    // Beside the table, too; a bare name is one in the current folder.
    let mut command = kvgauge();
    command.current_dir(&folder).args(["validate"]).args(GOOD).args(["--output", "other.json"]);
    let table = run_command(command).succeeds().stdout;
    assert!(table.contains("int4-g64"), "{table}");
    let other = fs::read(folder.path().join("other.json")).unwrap();
    let other: Value = serde_json::from_slice(&other).unwrap();
    assert_eq!(lasting(other), lasting(serde_json::from_str(&printed).unwrap()));
    assert_eq!(names_in(folder.path()).len(), 2);
}

/// Whoever wrote it, and whatever kvgauge writes of another kind.
#[test]
fn what_validate_did_not_write_is_kept() {
    let folder = TempDir::new().unwrap();
    let [file, picture] = ["report.md", "report.svg"].map(|name| folder.path().join(name));
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 9 9\"></svg>";
    let long = ["--model", "builtin", "--windows", "all"];
    for (bytes, word) in [
        ("# Mine\n", "did not write"),
        (
            "<!-- written by kvgauge -->\n## What compressing the KV cache costs\n",
            "Markdown report",
        ),
        ("{\"schema\": \"kvgauge.sweep/1\"}", "results.json"),
        ("{\"perplexity\": 5}", "did not write"),
        ("\0\u{1}", "did not write"),
        (svg, "did not write"),
    ] {
        fs::write(&file, bytes).unwrap();
        let answer = validate(&[&long[..], &["--output", utf8(&file)]].concat());
        answer.is_refused(&["--output", utf8(&file), word]);
        answer.hints("--force");
        assert!(answer.took < Duration::from_secs(2), "{:?}", answer.took);
        assert_eq!(fs::read(&file).unwrap(), bytes.as_bytes());
        fs::write(&picture, bytes).unwrap();
        let drawn = ["--attribute", "--picture", utf8(&picture)];
        validate(&[&long[..], &drawn].concat()).is_refused(&["--picture", utf8(&picture)]);
        assert_eq!(fs::read(&picture).unwrap(), bytes.as_bytes());
    }
    good_with(&["--output", utf8(&file), "--force"]).succeeds();
    // Its own, once more; and a file that has nothing to lose.
    good_with(&["--output", utf8(&file)]).succeeds();
    fs::write(&picture, "").unwrap();
    good_with(&["--attribute", "--picture", utf8(&picture)]).succeeds();
    good_with(&["--attribute", "--picture", utf8(&picture)]).succeeds();
    good_with(&["--output", utf8(&picture)]).is_refused(&["a picture of kvgauge"]);
}

/// Somebody writes there while it runs: that file is kept, and the result is told all the same.
#[test]
fn a_file_that_appears_meanwhile_is_kept() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("result.json");
    let request = ["--model", "builtin", "--context", "256", "--windows", "60", "--json"];
    let child = kvgauge()
        .args([&["validate"], &request[..], &["--output", utf8(&file)]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(400));
    fs::write(&file, "mine").unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("did not write"), "{errors}");
    assert!(serde_json::from_slice::<Value>(&output.stdout).unwrap().is_object());
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn two_outputs_are_two_files() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let in_folder = |output: &str, picture: &str| {
        let mut command = kvgauge();
        command.current_dir(&folder).args(["validate"]).args(GOOD);
        command.args(["--attribute", "--output", output, "--picture", picture]);
        run_command(command)
    };
    let absolute = folder.path().join("a.svg");
    let mut pairs = vec![
        ("a.svg", "a.svg"),
        ("a.svg", "./a.svg"),
        ("./sub/../a.svg", "a.svg"),
        ("sub//a.svg", "sub/./a.svg"),
        ("a.svg", utf8(&absolute)),
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("sub", folder.path().join("link")).unwrap();
        pairs.push(("sub/a.svg", "link/a.svg"));
    }
    for (output, picture) in pairs {
        in_folder(output, picture).is_refused(&["--picture", "other than --output's", picture]);
    }
    assert!(names_in(&folder.path().join("sub")).is_empty() && !absolute.exists());
    in_folder("sub/a.svg", "a.svg").succeeds();
}

/// Not even with --force.
#[test]
fn an_output_is_no_input() {
    let model = ModelFolder::new();
    let config = model.path("config.toml");
    fs::write(&config, "context = 64\nwindows = 2\n").unwrap();
    let (text, weights) = (utf8(&model.text), model.path("model.safetensors"));
    for output in [text, utf8(&config), utf8(&weights)] {
        let before = fs::read(output).unwrap();
        let flags = ["--config", utf8(&config), "--force", "--output", output];
        let folder = utf8(model.folder.path());
        let answer = validate(&[&["--model", folder, "--text", text], &flags[..]].concat());
        answer.is_refused(&["--output", "other than", output]);
        let extract = ["extract", "--model", folder, "--text", text, "--context", "64"];
        if output != utf8(&config) {
            let answer = run(&[&extract[..], &["--force", "--output", output]].concat());
            answer.is_refused(&["--output", "other than", output]);
        }
        assert_eq!(fs::read(output).unwrap(), before);
    }
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_any_work() {
    let folder = TempDir::new().unwrap();
    let absent = folder.path().join("absent/result.json");
    let slash = format!("{}/", folder.path().join("new").display());
    for (path, word) in [
        (utf8(&absent), "no such file or folder"),
        (utf8(folder.path()), "found a folder"),
        (slash.as_str(), "found a folder"),
        ("", "--output"),
        #[cfg(unix)]
        ("/dev/null", "found a device"),
    ] {
        // All windows of the longest context take a minute.
        let answer = validate(&["--model", "builtin", "--windows", "all", "--output", path]);
        answer.is_refused(&[path, word]);
        assert!(answer.took < Duration::from_secs(2), "{path}: {:?}", answer.took);
    }
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("result.json");
    let mut child = kvgauge()
        .args(["validate"])
        .args(GOOD)
        .args(["--json", "--output", utf8(&file)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    assert!(file.is_file());
}

#[test]
fn nobody_reading_errors_changes_no_status() {
    let mut child =
        kvgauge().args(["validate", "--model", "/no/such"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

// --- Settings from a file

/// Writes a settings file beside nothing else and validates with it.
fn with_config(content: impl AsRef<[u8]>, args: &[&str]) -> cli::Answer {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("settings.toml");
    fs::write(&file, content).unwrap();
    validate(&[&["--config", utf8(&file)], args].concat())
}

const EVERYTHING: &str = r#"
model = "builtin"
text = "builtin"
context = 48
windows = 3
first_window = 5
codec = ["int4-g32", "f16"]
protocol = "prefix"
bos = "always"
parse_special = false
dtype = "bf16"
device = "cpu"
threads = 1
seed = 7
max_ppl_increase = 1000
strict = true
offline = true
cross_check = true
attribute = true
"#;

#[test]
fn a_settings_file_sets_everything_and_flags_override_it() {
    let result = with_config(EVERYTHING, &["--json"]).succeeds().json();
    let settings: Value = serde_json::to_value(toml::from_str::<toml::Table>(EVERYTHING).unwrap())
        .expect("TOML fits JSON");
    for (key, value) in settings.as_object().unwrap() {
        let found = &result["config"][key];
        assert!(found == value || found.as_f64() == value.as_f64(), "{key}: {found}, not {value}");
    }
    assert_eq!(result["first_window"], 5);
    assert_eq!(result["bos_id"], 0);
    assert!(result["cross_check"].is_object());
    assert!(result["codecs"][1]["attribution"].is_object());

    let folder = TempDir::new().unwrap();
    let text = cli::short_text(folder.path());
    let flags = [
        ("text", utf8(&text)),
        ("context", "64"),
        ("windows", "all"),
        ("first-window", "90"),
        ("codec", "int4-g128"),
        ("bos", "never"),
        ("parse-special", "true"),
        ("dtype", "f32"),
        ("threads", "2"),
        ("seed", "8"),
        ("max-ppl-increase", "999.5"),
    ];
    let typed: Vec<String> =
        flags.iter().flat_map(|(flag, value)| [format!("--{flag}"), value.to_string()]).collect();
    let typed: Vec<&str> = typed.iter().map(String::as_str).chain(["--json"]).collect();
    let result = with_config(EVERYTHING, &typed).succeeds().json();
    for (flag, value) in flags {
        let found = &result["config"][flag.replace('-', "_")];
        let found = if found.is_array() { &found[0] } else { found };
        let found = found.as_str().map_or(found.to_string(), String::from);
        assert_eq!(found, value, "--{flag}");
    }
    assert_eq!(result["config"]["codec"].as_array().unwrap().len(), 1);
    // The model, which no flag named.
    assert_eq!(result["model"]["source"], "builtin");
}

#[test]
fn all_windows_can_be_asked_for_in_a_file() {
    let folder = TempDir::new().unwrap();
    let text = cli::short_text(folder.path());
    let content = format!(
        "model = \"builtin\"\ntext = {:?}\ncontext = 1024\nwindows = \"all\"\n",
        utf8(&text)
    );
    let result = with_config(content, &["--json"]).succeeds().json();
    assert_eq!(result["windows"], result["text"]["windows_available"]);
    assert_eq!(result["config"]["windows"], "all");
}

#[test]
fn a_settings_file_that_is_wrong_is_refused() {
    let place =
        |line: usize, column: usize| format!("settings.toml: line {line}, column {column}: ");
    for (content, line, column, words) in [
        ("model = \"builtin\"\nmodle = 1\n", 2, 1, ["modle", "no key"]),
        ("context = \"64\"\n", 1, 11, ["64", "whole number"]),
        ("\n\nthreads = -2\n", 3, 11, ["-2", "whole number"]),
        ("max_ppl_increase = \"low\"", 1, 20, ["low", "number"]),
        ("codec = [\"f16\", 16]\n", 1, 17, ["16", "name"]),
        ("[grid]\ngroup = [32, \"64\"]\n", 2, 14, ["grid.group", "whole number"]),
        ("windows = \"some\"\n", 1, 11, ["number", "all"]),
        ("windows = -1\n", 1, 11, ["number", "all"]),
        ("bos = \"perhaps\"\n", 1, 7, ["perhaps", "`always`"]),
        ("dtype = \"f64\"\n", 1, 9, ["f64", "`bf16`"]),
        ("strict = 1\n", 1, 10, ["1", "boolean"]),
        ("seed = 1\nseed = 2\n", 2, 1, ["duplicate", "key"]),
        ("model = \n", 1, 9, ["", ""]),
    ] {
        let answer = with_config(content, &[]);
        answer.is_refused(&[&place(line, column)]);
        answer.is_refused(&words);
        answer.hints("configs/");
    }
    with_config("modle = 1\n", &[]).hints("did you mean `model`?");
    for (content, line, column, words) in [
        ("codec = []", 1, 9, ["codec", "at least one"]),
        ("codec = [\"q4\"]", 1, 10, ["codec", "`q4`"]),
        ("context = 3", 1, 11, ["context", "at least 4"]),
        ("windows = 0", 1, 11, ["windows", "at least 1"]),
        ("threads = 0", 1, 11, ["threads", "1 to 1024"]),
        ("text = \"/no/such/text\"", 1, 8, ["text", "no such file"]),
        ("protocol = \"suffix\"", 1, 12, ["protocol", "`both`, `prefix` or `decode`"]),
        ("protocol = \"prefix\"\nchunk = 3", 2, 9, ["chunk", "prefix protocol"]),
        ("codec = \"int4\"\n[grid]\ngroup = [32, 64]", 3, 14, ["grid.group", "line 1, column 9"]),
        ("codec = \"f16\"\ngrid.sink = [0, 9999999999]", 2, 17, ["grid.sink", "at most"]),
        (
            "grid.group = 4097\nmodel = \"builtin\"\ncontext = 64",
            1,
            14,
            ["grid.group", "at most 4096"],
        ),
        ("model = \"builtin\"\ncontext = 1025", 2, 11, ["context", "at most 1024"]),
    ] {
        let answer = with_config(content, &[]);
        answer.is_refused(&[&place(line, column)]);
        answer.is_refused(&words);
    }
    with_config(b"\xff\xfe", &[]).is_refused(&["settings.toml", "UTF-16"]);
    with_config(b"seed = \xff", &[]).is_refused(&["settings.toml", "UTF-8"]);
    let absent = validate(&["--config", "/no/such.toml"]);
    absent.is_refused(&["/no/such.toml", "no such file"]);
    absent.hints("--config takes a TOML file");
}

#[test]
fn an_empty_settings_file_leaves_the_defaults() {
    let result = with_config("", &[&GOOD[..], &["--json"]].concat()).succeeds().json();
    assert_eq!(lasting(result), lasting(good_with(&["--json"]).succeeds().json()));
}

#[test]
fn a_file_for_several_runs_needs_flags_that_choose_one() {
    let content = "model = \"builtin\"\ncontext = [32, 64]\nwindows = 2\n[grid]\ngroup = [32, 64]";
    let answer = with_config(content, &[]);
    answer.is_refused(&["settings.toml: line 2, column 16: context: ", "second"]);
    answer.hints("--context");
    let names = |args: &[&str]| {
        let result = with_config(content, &[&["--json", "--context", "64"], args].concat());
        let result = result.succeeds().json();
        assert_eq!(result["context"], 64);
        result["config"]["codec"].clone()
    };
    assert_eq!(names(&[]), serde_json::json!(["int4-g32", "int4-g64"]));
    assert_eq!(names(&["--codec", "f16"]), serde_json::json!(["f16"]));
}

#[test]
fn every_shipped_settings_file_is_read() {
    for entry in fs::read_dir("configs").unwrap() {
        let path = entry.unwrap().path();
        // Refused for its context alone: all else was read, and nothing was computed.
        validate(&["--config", utf8(&path), "--context", "3"]).is_refused(&["--context"]);
    }
}

// --- Terminal

#[test]
fn the_table_fits_a_terminal() {
    let table = good_with(&["--max-ppl-increase", "0.25"]).succeeds().stdout;
    // Too few windows left to decide.
    let few =
        good_with(&["--first-window", "2319", "--max-ppl-increase", "1.25"]).succeeds().stdout;
    assert!(few.contains("the text has 2 windows: take a longer one; a limit of ±"), "{few}");
    for line in table.lines().chain(few.lines()) {
        assert!(line.chars().count() <= 110, "{} columns: {line}", line.chars().count());
    }
    assert!(!table.contains('\u{1b}'), "{table}");
    for word in ["kvgauge", "`prefix`", "builtin", "no BOS", "baseline", "\n  decode: ", "3.76×"] {
        assert!(table.contains(word), "no {word} in\n{table}");
    }
    let one = validate(&["--model", "builtin", "--context", "64", "--windows", "1"]);
    let one = one.succeeds().stdout;
    assert!(one.contains("one window has no interval"), "{one}");
}

/// Where the embedded model was tried, and nowhere else, two lines say what to type next.
#[test]
fn the_embedded_model_s_table_ends_with_what_to_type_next() {
    let table = good_with(&[]).succeeds().stdout;
    let last: Vec<&str> = table.lines().rev().take(2).collect();
    assert!(last[1].starts_with("next: your model  kvgauge validate --model "), "{table}");
    assert!(last[0].starts_with("      your text   kvgauge validate --model "), "{table}");
    assert!(!good_with(&["--json"]).succeeds().stdout.contains("next:"));
    let model = ModelFolder::new();
    let table = model.validate(&[]).succeeds().stdout;
    assert!(!table.contains("next:"), "{table}");
    // A headline names the folder and the file, not where they are.
    let name = model.folder.path().file_name().unwrap().to_str().unwrap();
    assert!(table.contains(&format!("\nmodel     {name}\n")), "{table}");
    assert!(table.contains("\ntext      short.txt (") && !table.contains(utf8(&model.text)));
    let json = model.validate(&["--json"]).succeeds().json();
    assert_eq!(json["text"]["source"], utf8(&model.text));
}

/// On a terminal of 60 columns no line is longer, and the same figures are there.
#[cfg(target_os = "linux")]
#[test]
fn a_narrow_terminal_is_not_exceeded() {
    let binary = env!("CARGO_BIN_EXE_kvgauge");
    let line = format!(
        "stty rows 24 cols 60; '{binary}' validate {} --codec q8_0,int4-g64",
        GOOD.join(" ")
    );
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env("TERM", "xterm");
    let output = match script.output() {
        Ok(output) => output,
        Err(error) => return skip("a narrow terminal", &format!("script: {error}")),
    };
    let seen = String::from_utf8_lossy(&output.stdout).replace('\r', "\n");
    assert!(output.status.success(), "{seen}");
    // What a terminal shows of a line: all but what tells it where to write.
    let shown = |line: &str| -> String {
        let mut parts = line.split('\u{1b}');
        let first = parts.next().unwrap_or_default().to_string();
        let rest = parts.map(|part| part.trim_start_matches(|c: char| "[?;0123456789".contains(c)));
        first + &rest.map(|part| part.chars().skip(1).collect::<String>()).collect::<String>()
    };
    let mut figures = 0;
    for line in seen.lines().map(shown) {
        // A bar is filled up with spaces.
        let line = line.trim_end();
        assert!(line.chars().count() <= 60, "{} columns: {line}", line.chars().count());
        figures += line.matches(" … ").count();
    }
    assert_eq!(figures, 4, "{seen}");
    for words in ["\nprefix\n", "\ndecode\n", "evaluating [", "\nnext: your model"] {
        assert!(seen.contains(words), "no {words} in {seen}");
    }
}

/// `script` runs a command on a pseudo terminal and copies what appears there to its stdout.
#[cfg(target_os = "linux")]
#[test]
fn the_bar_appears_on_a_terminal_and_stdout_stays_clean() {
    let folder = TempDir::new().unwrap();
    let result = folder.path().join("result.json");
    let binary = env!("CARGO_BIN_EXE_kvgauge");
    let line = format!("'{binary}' validate {} --json > '{}'", GOOD.join(" "), utf8(&result));
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env("TERM", "xterm");
    let output = match script.output() {
        Ok(output) => output,
        Err(error) => return skip("the bar on a pseudo terminal", &format!("script: {error}")),
    };
    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{seen}");
    assert!(seen.contains("evaluating ["), "{seen:?}");
    // Whatever was drawn is wiped at the end.
    assert!(seen.contains("\u{1b}[2K"), "{seen:?}");
    let result: Value = serde_json::from_slice(&fs::read(&result).unwrap()).unwrap();
    check_keys(&result, FIXED);
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_long_run_at_once_says_so_and_leaves_nothing() {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Instant;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("result.json");
    let mut child = kvgauge()
        .args(["validate", "--model", "builtin", "--windows", "all", "--output", utf8(&file)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Says how long it takes as soon as it knows: then it is in the middle of the evaluation.
    let mut said = String::new();
    let mut errors = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut errors, &mut said).unwrap();
    assert!(said.starts_with("note: this takes about "), "{said}");
    assert!(child.try_wait().unwrap().is_none(), "the run must be long enough to interrupt");
    let clock = Instant::now();
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(clock.elapsed() < Duration::from_secs(1), "{:?}", clock.elapsed());
    const SIGINT: i32 = 2;
    assert_eq!(output.status.signal(), Some(SIGINT));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut errors, &mut rest).unwrap();
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    assert_eq!(rest.lines().count(), 1, "{rest}");
    assert!(rest.starts_with("note: stopped; validate keeps nothing"), "{rest}");
    assert!(names_in(folder.path()).is_empty());
}

/// Reads lines up to one that has `words`.
#[cfg(unix)]
fn read_up_to(errors: &mut impl std::io::BufRead, words: &str) {
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "no line with {words}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_of_a_sweep_says_what_is_kept_and_that_is_true() {
    use std::os::unix::process::ExitStatusExt;
    let folder = TempDir::new().unwrap();
    let (config, output) = (folder.path().join("x.toml"), folder.path().join("out"));
    let content =
        "model = \"builtin\"\ncontext = [64, 1024]\nwindows = 100\nprotocol = \"prefix\"\n";
    fs::write(&config, content).unwrap();
    // The second time it has the first context's cell from the first time.
    for words in ["int4-g64 on builtin, builtin, context 64", "1 cell is there already"] {
        let mut child = kvgauge()
            .args(["sweep", utf8(&config), "--output", utf8(&output)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = std::io::BufReader::new(child.stderr.take().unwrap());
        read_up_to(&mut errors, words);
        let id = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut errors, &mut rest).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(ended.stdout.is_empty() && ended.status.signal() == Some(2), "{rest}");
        let told = format!(
            "note: stopped; finished windows are kept in {}, and the same command goes on where it \
             stopped\n",
            output.display()
        );
        assert!(rest.ends_with(&told), "{rest}");
    }
    let log = fs::read_to_string(output.join("cells.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
}

/// As a shell does with what runs in the background.
#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_that_was_ignored_before_stays_so() {
    let script = "trap '' INT; exec \"$0\" validate --model builtin --windows all";
    let mut child = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_kvgauge")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = std::io::BufReader::new(child.stderr.take().unwrap());
    read_up_to(&mut errors, "note: this takes about ");
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it runs on");
    child.kill().unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut errors, &mut rest).unwrap();
    assert!(!rest.contains("stopped"), "{rest}");
    child.wait().unwrap();
}
