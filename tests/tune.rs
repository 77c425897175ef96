//! `kvgauge tune` as users run it: the assignment is the best of all there are, its name stands for what
//! was measured, a cut-off run goes on, and what cannot be done is said before anything long is.

#[allow(dead_code)]
#[path = "common/cli.rs"]
mod cli;

use cli::{Answer, run, run_command, short_text, validate};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Four layers, three candidates: 24 measurements.
const FLAGS: [&str; 10] = [
    "--context",
    "64",
    "--windows",
    "3",
    "--validate-windows",
    "4",
    "--protocol",
    "prefix",
    "--candidate",
    "int2-g32-asym,k:int4-g32/v:int3-g32,q8_0",
];

fn tune(output: &Path, flags: &[&str]) -> Answer {
    let mut command = cli::kvgauge();
    command.args(["tune", "builtin", "builtin", "--output"]).arg(output).args(FLAGS).args(flags);
    run_command(command)
}

fn result(output: &Path, flags: &[&str]) -> Value {
    let answer = tune(output, &[flags, &["--json"]].concat());
    assert_eq!(answer.status, Some(0), "{}", answer.stderr);
    answer.json()
}

/// Without what differs from run to run.
fn lasting(mut result: Value) -> Value {
    for key in ["timings_s", "peak_rss_bytes"] {
        assert!(!result[key].take().is_null() || key == "peak_rss_bytes");
    }
    result
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("expected a number, found {value}"))
}

/// Keys and values of each layer.
fn parts(result: &Value) -> Vec<&Value> {
    let layers = result["layers"].as_array().unwrap();
    layers.iter().flat_map(|layer| [&layer["key"], &layer["value"]]).collect()
}

/// The least sum of damages of all assignments whose mean of bits is no more; parts are of one size.
fn by_trying_all(parts: &[&Value], bits: f64) -> f64 {
    let choices: Vec<Vec<[f64; 2]>> = parts
        .iter()
        .map(|part| {
            let choices = part["choices"].as_array().unwrap().iter();
            choices.map(|c| [number(&c["bits_per_value"]), number(&c["kld_mean"])]).collect()
        })
        .collect();
    let mut best = f64::INFINITY;
    for mut index in 0..choices.iter().map(Vec::len).product::<usize>() {
        let mut sum = [0.0; 2];
        for own in &choices {
            let choice = own[index % own.len()];
            index /= own.len();
            (sum[0], sum[1]) = (sum[0] + choice[0], sum[1] + choice[1]);
        }
        if sum[0] / choices.len() as f64 <= bits + 1e-9 {
            best = best.min(sum[1]);
        }
    }
    best
}

#[test]
fn the_assignment_is_the_best_there_is_and_its_name_stands_for_it() {
    let folder = TempDir::new().unwrap();
    let found = result(folder.path(), &["--bits", "4.5"]);
    assert_eq!((&found["schema"], &found["measurements"]), (&"kvgauge.tune/1".into(), &24.into()));
    assert_eq!(found["budget"], serde_json::json!({"bits": 4.5}));
    let parts = parts(&found);
    assert_eq!(parts.len(), 8);
    let best = by_trying_all(&parts, 4.5);
    let sum: f64 = parts.iter().map(|part| number(&part["kld_mean"])).sum();
    assert!((sum - best).abs() < 1e-12 * best, "{sum}, not {best}");
    assert!((number(&found["sum"]["kld_mean"]) - sum).abs() < 1e-12 * sum);
    assert!(number(&found["bits"]) <= 4.5, "{}", found["bits"]);

    // What `validate` says of the name, on the windows behind the measured ones.
    let name = found["codec"].as_str().unwrap();
    let of_name = |name: &str, first: &str, windows: &str| {
        let flags = [
            "--model",
            "builtin",
            "--context",
            "64",
            "--first-window",
            first,
            "--windows",
            windows,
            "--protocol",
            "prefix",
            "--json",
            "--codec",
            name,
        ];
        validate(&flags).succeeds().json()["codecs"][0].clone()
    };
    let unseen = &found["unseen"][0];
    let tuned = &unseen["tuned"];
    let again = of_name(name, "3", "4");
    for key in ["codec", "kld_mean", "kld_mean_ci95", "bits_per_value", "perplexity", "layers"] {
        assert_eq!(tuned[key], again[key], "{key}");
    }
    assert_eq!((&unseen["first_window"], &unseen["windows"]), (&3.into(), &4.into()));
    assert_eq!(found["sum"]["whole_kld_mean"], of_name(name, "0", "3")["kld_mean"]);
    // Of a part alone, too.
    let second = &found["layers"][1]["value"]["choices"][1];
    let alone = of_name("f16+k:f16/v:int3-g32@1", "0", "3");
    assert_eq!(second["codec"], "int3-g32");
    assert_eq!(second["kld_mean"], alone["kld_mean"]);
    assert_eq!(second["bits_per_value"], alone["layers"][1]["value_bits_per_value"]);

    // Uniform candidates of no more bits, and no others.
    let uniform: Vec<&str> = unseen["uniform"]
        .as_array()
        .unwrap()
        .iter()
        .map(|codec| codec["codec"].as_str().unwrap())
        .collect();
    assert_eq!(uniform, ["int2-g32-asym", "k:int4-g32/v:int3-g32"]);
    let klds = unseen["uniform"].as_array().unwrap().iter().map(|c| number(&c["kld_mean"]));
    let best = klds.fold(f64::INFINITY, f64::min);
    let against = &unseen["against_best"];
    let difference = number(&tuned["kld_mean"]) - best;
    assert!((number(&against["kld_difference"]) - difference).abs() < 1e-12);
    assert!(["better", "alike", "worse"].contains(&against["tuned_is"].as_str().unwrap()));

    let written: Value =
        serde_json::from_slice(&fs::read(folder.path().join("tune.json")).unwrap()).unwrap();
    assert_eq!(written, found);
    let picture = fs::read_to_string(folder.path().join("tune.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("layer 3: "));
    let table = tune(folder.path(), &["--bits", "4.5"]).stdout;
    assert!(table.lines().any(|line| line == name), "{table}");
}

/// Copies a folder of files and of folders of files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => _ = fs::copy(&path, &target).unwrap(),
        }
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(String::from).collect()
}

#[test]
fn a_run_that_was_cut_off_goes_on_and_another_budget_measures_nothing_again() {
    let folder = TempDir::new().unwrap();
    let [whole, cut] = ["whole", "cut"].map(|name| folder.path().join(name));
    let first = lasting(result(&whole, &["--bits", "4"]));
    copy(&whole, &cut);
    // Ten measurements and a torn one are left, and nothing that came after.
    let cells = cut.join("parts/cells.jsonl");
    let all = lines(&cells);
    assert_eq!(all.len(), 24);
    let torn = &all[10][..all[10].len() / 2];
    fs::write(&cells, format!("{}\n{torn}", all[..10].join("\n"))).unwrap();
    fs::remove_dir_all(cut.join("whole")).unwrap();
    fs::remove_file(cut.join("tune.json")).unwrap();
    assert_eq!(lasting(result(&cut, &["--bits", "4"])), first);
    assert_eq!(lines(&cells).len(), 25);
    assert_eq!(lines(&cells)[..10], all[..10]);

    let before = fs::read(&cells).unwrap();
    let more = result(&cut, &["--bits", "6"]);
    assert!(number(&more["sum"]["kld_mean"]) < number(&first["sum"]["kld_mean"]));
    assert!(before == fs::read(&cells).unwrap());
    // And back: the first answer, with nothing measured at all.
    let whole_cells = cut.join("whole/cells.jsonl");
    let before = fs::read(&whole_cells).unwrap();
    assert_eq!(lasting(result(&cut, &["--bits", "4"])), first);
    assert!(before == fs::read(&whole_cells).unwrap());

    let other = tune(&cut, &["--bits", "4", "--seed", "1"]);
    other.is_refused(&["expected a folder of this tuning", "another model, text, candidates"]);
    other.hints("another --output");
}

/// A process that is killed as it measures.
#[test]
fn a_killed_run_goes_on() {
    let folder = TempDir::new().unwrap();
    let [killed, whole] = ["killed", "whole"].map(|name| folder.path().join(name));
    let flags = ["--bits", "5", "--windows", "12", "--json"];
    let flags: Vec<&str> =
        FLAGS.iter().filter(|f| !["--windows", "3"].contains(f)).copied().chain(flags).collect();
    let command = |output: &PathBuf| {
        let mut command = cli::kvgauge();
        command.args(["tune", "builtin", "builtin", "--output"]).arg(output).args(&flags);
        command
    };
    let mut process = command(&killed)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let windows = killed.join("parts/windows.jsonl");
    let clock = std::time::Instant::now();
    while fs::metadata(&windows).map_or(0, |file| file.len()) == 0
        && process.try_wait().unwrap().is_none()
    {
        assert!(clock.elapsed().as_secs() < 120, "nothing was measured");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    let answer = |output| {
        let answer = run_command(command(output));
        assert_eq!(answer.status, Some(0), "{}", answer.stderr);
        lasting(answer.json())
    };
    assert_eq!(answer(&killed), answer(&whole));
}

#[test]
fn damage_may_be_the_budget() {
    let folder = TempDir::new().unwrap();
    let [loose, tight] = ["0.05", "0.01"].map(|limit| {
        let found = result(folder.path(), &["--max-kld", limit]);
        assert_eq!(found["budget"], serde_json::json!({"max_kld": limit.parse::<f64>().unwrap()}));
        let limit: f64 = limit.parse().unwrap();
        assert!(number(&found["sum"]["whole_kld_mean"]) <= limit, "{}", found["sum"]);
        number(&found["bits"])
    });
    assert!(loose < tight && tight < 8.5, "{loose} {tight}");
}

#[test]
fn one_candidate_is_a_uniform_answer() {
    let folder = TempDir::new().unwrap();
    let mut command = cli::kvgauge();
    command.args(["tune", "--model", "builtin", "--bits", "4.25", "--candidate", "int4-g64"]);
    command.args(["--context", "64", "--windows", "2", "--validate-windows", "2", "--output"]);
    let answer = run_command({
        command.arg(folder.path());
        command
    });
    assert_eq!(answer.status, Some(0), "{}", answer.stderr);
    assert!(answer.stdout.contains("\nint4-g64\n"), "{}", answer.stdout);
    assert!(answer.stdout.contains("no uniform candidate takes as few bits"), "{}", answer.stdout);
    // Both protocols check, where nothing else is asked for.
    for protocol in ["protocol `prefix`", "protocol `decode, residual 0, chunk 32`"] {
        assert!(answer.stdout.contains(protocol), "{}", answer.stdout);
    }
}

#[test]
fn parts_are_measured_under_decode_where_that_is_asked_for() {
    let folder = TempDir::new().unwrap();
    let flags: Vec<&str> =
        FLAGS.iter().map(|flag| if *flag == "prefix" { "decode" } else { flag }).collect();
    let mut command = cli::kvgauge();
    command.args(["tune", "builtin", "--bits", "5", "--json", "--output"]).arg(folder.path());
    let answer = run_command({
        command.args(flags);
        command
    });
    let found = answer.json();
    assert_eq!(
        (&found["protocol"], &found["unseen"][0]["protocol"]),
        (&"decode".into(), &"decode".into())
    );
    assert_eq!(found["unseen"].as_array().unwrap().len(), 1);
    let parts = parts(&found);
    let best = by_trying_all(&parts, 5.0);
    let sum: f64 = parts.iter().map(|part| number(&part["kld_mean"])).sum();
    assert!((sum - best).abs() < 1e-12 * best, "{sum}, not {best}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("out");
    let output = output.to_str().unwrap();
    let text = short_text(folder.path());
    let text = text.to_str().unwrap();
    let base = ["tune", "builtin", text, "--output", output, "--context", "64"];
    let with = |flags: &[&str]| run(&[&base, flags].concat());

    let low = tune(&folder.path().join("low"), &["--bits", "2.9"]);
    let error = low.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert_eq!(low.status, Some(2), "{}", low.stderr);
    // Two bits, and scale and minimum in 16 bits each for 32 values.
    assert!(
        error.contains("--bits: expected at least 3.00") && error.contains("found 2.9"),
        "{error}"
    );
    let exact = tune(&folder.path().join("exact"), &["--bits", "3"]);
    assert!(exact.stdout.contains("\nint2-g32-asym\n"), "{}", exact.stdout);

    let neither = with(&[]);
    neither.is_refused(&["expected --bits or --max-kld, found neither"]);
    neither.hints("--bits 4");
    with(&["--bits", "17"]).is_refused(&["--bits: expected 1 to 16 bits a value, found 17"]);
    let unknown = with(&["--bits", "4", "--candidate", "nf4"]);
    unknown.is_refused(&["--candidate: codec `nf4`: no codec of that name"]);
    unknown.hints("int4-g64-lm");
    with(&["--bits", "4", "--candidate", "noise-q4_0"])
        .is_refused(&["--candidate: expected a codec for all layers, found noise-q4_0"]);
    with(&["--bits", "4", "--candidate", "q4_0+q8_0@0"])
        .is_refused(&["--candidate: expected a codec for all layers, found q4_0+q8_0@0"]);
    with(&["--bits", "4", "--candidate", "f16"]).is_refused(&["expected a codec that packs"]);
    let all = with(&["--bits", "4", "--windows", "all"]);
    all.is_refused(&["--windows: expected a number, found all"]);
    let short = with(&["--bits", "4", "--windows", "5000"]);
    assert_eq!(short.status, Some(2), "{}", short.stderr);
    assert!(short.stderr.contains("none is left to check on"), "{}", short.stderr);
    with(&["--bits", "4", "--model", "builtin"]).is_refused(&["expected one MODEL", "--model"]);
    with(&["--bits", "4", "--validate-windows", "0"]).is_refused(&["expected at least 1, found 0"]);
    // Nothing was written for any of them.
    assert!(!Path::new(output).exists());
}

#[test]
fn a_summary_is_one_line_and_a_run_in_16_bits_has_its_floor() {
    let folder = TempDir::new().unwrap();
    let flags = ["--bits", "4.5", "--dtype", "bf16"];
    let answer = tune(folder.path(), &[&flags[..], &["--summary"]].concat());
    assert_eq!(answer.status, Some(0), "{}", answer.stderr);
    let found = result(folder.path(), &flags);
    let (unseen, name) = (&found["unseen"][0], found["codec"].as_str().unwrap());
    let line = &answer.stdout;
    let begins = format!(
        "kvgauge: builtin on builtin, 4 windows of 64 tokens, unseen: tuned within 4.5 bits a value: \
         {:.2} bits; within ±1 % perplexity: prefix {}, KLD ",
        number(&found["bits"]),
        unseen["tuned"]["verdict"].as_str().unwrap()
    );
    assert!(line.starts_with(&begins) && line.ends_with(&format!("; {name}\n")), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    let both = tune(folder.path(), &[&flags[..], &["--summary", "--json"]].concat());
    both.is_refused(&["--summary", "--json"]);

    // What `validate` has for it on these windows; and it is no candidate.
    let on_unseen =
        ["--model", "builtin", "--context", "64", "--first-window", "3", "--windows", "4"];
    let asked = ["--protocol", "prefix", "--dtype", "bf16", "--codec", "q8_0", "--json"];
    let validated = validate(&[&on_unseen[..], &asked].concat()).succeeds().json();
    assert_eq!(unseen["baseline"]["floor"], validated["baseline"]["floor"]);
    assert!(number(&unseen["baseline"]["floor"]["kld_mean"]) > 0.0);
    let uniform = unseen["uniform"].as_array().unwrap();
    assert!(uniform.iter().all(|codec| codec["codec"] != "f16"), "{uniform:?}");
    let table = tune(folder.path(), &flags).stdout;
    assert!(table.contains("\nfloor: KLD ") && table.contains("rounding to bf16"), "{table}");
}

#[test]
fn a_dry_run_estimates_and_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("out");
    let answer = tune(&output, &["--bits", "4", "--dry-run"]).succeeds();
    assert!(answer.stdout.contains("protocol prefix") && answer.stdout.contains("about"));
    assert!(!output.exists());
}

/// Which layers an engine leaves alone is what tune finds out; scales by layer are none of that.
#[test]
fn an_engines_layers_are_left_to_tune_and_scales_by_layer_are_refused() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("engine.toml");
    fs::write(&config, "engine = \"vllm:turboquant_k8v4\"\n").unwrap();
    let text = short_text(folder.path());
    let base = ["tune", "builtin", text.to_str().unwrap(), "--context", "64", "--windows", "2"];
    let base = [&base[..], &["--validate-windows", "2", "--bits", "8", "--dry-run"]].concat();
    let with = |flags: &[&str]| run(&[&base, flags].concat());
    with(&["--engine", "vllm:turboquant_k8v4"]).succeeds();
    with(&["--config", config.to_str().unwrap()]).succeeds();

    let scales = folder.path().join("scales.safetensors");
    let scale = 0.05f32.to_le_bytes();
    let of = |name: &str| {
        let view = TensorView::new(Dtype::F32, Vec::new(), &scale).unwrap();
        (format!("model.layers.0.self_attn.{name}"), view)
    };
    let bytes = safetensors::serialize(["k_scale", "v_scale"].map(of), None).unwrap();
    fs::write(&scales, bytes).unwrap();
    with(&["--engine", "vllm:fp8", "--kv-scale", scales.to_str().unwrap()])
        .is_refused(&["expected a codec for all layers, found fp8-e4m3+fp8-e4m3-scale0.05@0"]);
}
