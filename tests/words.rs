//! Words of people who come from other tools, and files of other kinds: no wrong number, and a hint
//! that says what to do.

#[allow(dead_code)]
#[path = "common/cli.rs"]
mod cli;

use cli::{ModelFolder, good_with, kvgauge, run, run_command, validate};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary folders have UTF-8 names")
}

/// For the command line alone: no file gets better by reading it.
const HELP: &str = "--help, after a command too, lists what can be asked for";
/// For what has no hint of its own, which nothing should.
const NEUTRAL: &str = "look at what the error names";

fn novel() -> String {
    let novel = fs::read_to_string("data/builtin/text.txt").expect("the embedded text");
    novel.chars().take(20_000).collect()
}

// --- Codecs

#[test]
fn commas_part_codecs_and_none_may_come_twice() {
    let result = good_with(&["--codec", "q4_0, q8_0", "--codec", "k:f16/v:q4_0", "--json"]);
    let result = result.succeeds().json();
    let names: Vec<&str> = result["codecs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|codec| codec["codec"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["q4_0", "q8_0", "k:f16/v:q4_0"]);
    for twice in [
        &["--codec", "q4_0", "--codec", "q4_0"][..],
        &["--codec", "q4_0,q8_0,q4_0"],
        &["--codec", "int4", "--codec", "int4-g64"],
        &["--codec", "int4-g32-ext,q4_0"],
    ] {
        good_with(twice).is_refused(&["--codec: expected every value once", "twice"]);
    }
    let pair = good_with(&["--codec", "k:q8_0,v:q4_0"]);
    pair.is_refused(&["`k:q8_0,v:q4_0`", "no `/v:`"]);
    pair.hints("did you mean k:q8_0/v:q4_0?");
    good_with(&["--codec", "q4_0,"]).hints("a name is expected");
    good_with(&["--codec", "q4_0,nf4"]).is_refused(&["codec `nf4`: no codec of that name"]);
}

#[test]
fn every_way_to_name_a_codec_gets_the_same_hint() {
    let hint = "nf4 is bitsandbytes' 4-bit NormalFloat, which kvgauge does not build; nearest is \
                int4-g64-lm";
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("x.toml");
    fs::write(&file, "codec = \"nf4\"").unwrap();
    for answer in [
        good_with(&["--codec", "nf4"]),
        good_with(&["--config", utf8(&file)]),
        run(&["sweep", utf8(&file)]),
        run(&["kv-compress", "-input", "a", "-output", "b", "-codec", "nf4"]),
    ] {
        answer.is_refused(&["codec `nf4`: no codec of that name"]);
        answer.hints(hint);
    }
    let list = run(&["kv-compress", "-input", "a", "-output", "b", "-codec", "q4_0,q8_0"]);
    list.is_refused(&["--codec: codec `q4_0,q8_0`"]);
    list.hints("one name here");
}

#[test]
fn codecs_lists_what_there_is() {
    let table = run(&["codecs"]).succeeds().stdout;
    for words in ["kvgauge4", "llama.cpp: -ctk q4_0", "--kv-cache-dtype nvfp4", "no decode"] {
        assert!(table.contains(words), "no {words} in\n{table}");
    }
    let json = run(&["codecs", "--json"]).succeeds().json();
    assert_eq!(json["schema"], "kvgauge.codecs/1");
    assert_eq!(json["measured_on"]["head_dims"], serde_json::json!([64, 128]));
    let codecs = json["codecs"].as_array().unwrap();
    let names: Vec<&str> = codecs.iter().map(|codec| codec["codec"].as_str().unwrap()).collect();
    // Each can be run, at the bits that are listed: heads of 64 in the embedded model.
    let asked = ["--codec", &names.join(","), "--json"];
    let result = validate(&[&["--model", "builtin", "--windows", "2"], &asked[..]].concat());
    let result = result.succeeds().json();
    for (listed, run) in codecs.iter().zip(result["codecs"].as_array().unwrap()) {
        // Names that fields had before them go by their fields.
        let name = listed["codec"].as_str().unwrap();
        assert!(
            run["codec"] == name || ["q6_0", "q3_0", "q2_0", "kivi2"].contains(&name),
            "{name}: {run}"
        );
        let bits = [&listed["bits_per_value"][0], &run["bits_per_value"]].map(|b| b.as_f64());
        let difference = bits[0].unwrap() - bits[1].unwrap();
        // 1024 tokens of context: the same 512 in the prefix, on fewer heads.
        assert!(difference.abs() < 0.01, "{listed}: {bits:?}");
    }
}

/// Results keep the fields that these stand for, under which there are results already.
#[test]
fn people_are_shown_the_name_that_they_asked_for() {
    let asked = ["--codec", "q6_0,kivi2"];
    let json = good_with(&[&asked[..], &["--json"]].concat()).succeeds().json();
    let codecs = ["int6-g32-ext", "k:int2-g32-asym-ch/v:int2-g32-asym"];
    assert_eq!([0, 1].map(|at| json["codecs"][at]["codec"].as_str().unwrap()), codecs);
    let table = good_with(&asked).succeeds().stdout;
    let line = good_with(&[&asked[..], &["--summary"]].concat()).succeeds().stdout;
    for name in ["q6_0", "kivi2"] {
        assert!(table.contains(&format!("\n{name} ")), "{name} in\n{table}");
        assert!(line.contains(&format!("{name} (")), "{name} in {line}");
    }
    for name in codecs {
        assert!(!table.contains(name) && !line.contains(name), "{name} in\n{table}{line}");
    }
}

#[test]
fn an_engine_has_its_own_words() {
    let of = |engine: &str, more: &[&str]| {
        let flags = ["--model", "builtin", "--windows", "2", "--protocol", "prefix", "--json"];
        validate(&[&flags[..], &["--engine", engine], more].concat())
    };
    let names = |json: &Value| -> Vec<String> {
        let codecs = json["codecs"].as_array().unwrap().iter();
        codecs.map(|codec| codec["codec"].as_str().unwrap().to_string()).collect()
    };
    let json = of("llama.cpp:q8_0/q4_0,SGLang", &["--codec", "q8_0"]).succeeds().json();
    assert_eq!(names(&json), ["q8_0", "k:q8_0-had/v:q4_0-had64", "fp8-e4m3", "fp8-e5m2"]);
    assert_eq!(json["config"]["engine"], serde_json::json!(["llama.cpp:q8_0/q4_0", "SGLang"]));
    let json = of("transformers", &[]).succeeds().json();
    assert_eq!(names(&json), ["quanto4", "quanto2"]);
    let unknown = of("vlm", &[]);
    unknown.is_refused(&["--engine: expected an engine, found `vlm`"]);
    unknown.hints("did you mean vllm?");
    let word = of("vllm:q4_0", &[]);
    word.is_refused(&["expected a word of vLLM's, found `q4_0`"]);
    word.hints("fp8_e4m3");
    // Where it runs, and what runs nowhere.
    let listed = run(&["codecs", "--json"]).succeeds().json();
    let listed = |name: &str| {
        let codecs = listed["codecs"].as_array().unwrap();
        codecs.iter().find(|codec| codec["codec"] == name).unwrap()["runs_on"].clone()
    };
    assert_eq!(listed("q4_0-had")[0]["engine"], "llama.cpp");
    assert_eq!(listed("q4_0-had")[0]["flag"], "-ctk q4_0 -ctv q4_0");
    assert_eq!(listed("kvgauge4"), serde_json::json!([]));
}

// --- Flags

#[test]
fn flags_of_other_tools_say_which_flag_here_it_is() {
    for (typed, flag) in [
        ("-m model.gguf", "--model"),
        ("--hf-repo OWNER/NAME", "--model"),
        ("-f wiki.test.raw", "--text FILE"),
        ("-c 512", "--context N"),
        ("--ctx-size 512", "--context N"),
        ("-ctk q8_0", "--codec q8_0"),
        ("-ctv q4_0", "--codec k:q8_0/v:q4_0"),
        ("--cache-type-k q8_0", "--codec q8_0"),
        ("--cache-type-v=q8_0", "--codec q8_0"),
        ("-ngl 99", "--device"),
        ("-t 4", "--threads N"),
        ("--chunks 20", "--windows N"),
        ("-b 2048", "leave it out"),
        ("-ub 512", "leave it out"),
        ("-fa on", "leave it out"),
        ("--kl-divergence", "come with every run"),
        ("-s 1", "--seed N"),
        ("--kv-cache-dtype fp8", "--codec fp8-e4m3"),
        ("--max-model-len 2048", "--context N"),
        ("--tensor-parallel-size 2", "leave it out"),
        ("--revision main", "OWNER/NAME@REVISION"),
        ("--hf-token x", "HF_TOKEN"),
        ("--group-size 32", "--codec int4-g64"),
        ("--nbits 4", "--codec int4-g64"),
        ("--limit 20", "--windows N"),
        ("--fp16", "--dtype"),
        ("--shard 1/2", "kvgauge sweep"),
        ("model.gguf", "--model model.gguf"),
        ("settings.toml", "--config settings.toml"),
        ("q4_0", "--codec q4_0"),
    ] {
        let words: Vec<&str> = typed.split(' ').collect();
        let answer = validate(&words);
        answer.is_refused(&["unexpected argument"]);
        answer.hints(flag);
    }
    run(&["kv-compress", "-input", "a", "-output", "b", "-ctk", "q4_0"]).hints("--codec q8_0");
    run(&["kv-compress", "-i", "a"]).hints("--input FILE");
    run(&["sweep", "--config", "x.toml"]).hints("kvgauge sweep FILE.toml");
    run(&["sweep", "a.toml", "b.toml"]).hints("one settings file a sweep");
}

#[test]
fn units_get_a_word_and_percent_is_taken() {
    let limit = |limit: &str| {
        let result = good_with(&["--max-ppl-change", limit, "--json"]).succeeds().json();
        result["config"]["max_ppl_increase"].as_f64()
    };
    assert_eq!(limit("1.5%"), Some(1.5));
    assert_eq!(limit("2 %"), Some(2.0));
    for (flag, value, hint) in [
        ("--context", "2k", "--context 2048, or 2000"),
        ("--context", "2,048", "--context 2048"),
        ("--context", "1_024", "--context 1024"),
        ("--context", "512 tokens", "--context 512"),
        ("--context", "all", "leaving --context out"),
        ("--context", "1e3", "a whole number"),
        ("--windows", "20%", "--windows 20"),
        ("--windows", "most", "a whole number or all"),
        ("--threads", "two", "a whole number"),
        ("--context", "99999999999999999999k", "a number without a unit"),
        ("--max-ppl-change", "one", "--max-ppl-change 1"),
        ("--max-kld", "1%", "a number without a unit: --max-kld 1"),
        ("--max-kld", "low", "--max-kld 0.01"),
        ("--min-top1", "95%", "a share of 1, without a unit: --min-top1 0.95"),
        ("--min-top1", "0,95", "written with a point: --min-top1 0.95"),
        ("--max-bytes-per-token", "1.5MB", "bytes, without a unit: --max-bytes-per-token 1500000"),
        ("--max-bytes-per-token", "16KiB", "--max-bytes-per-token 16384"),
    ] {
        let answer = validate(&[flag, value]);
        answer.is_refused(&[flag, value]);
        answer.hints(hint);
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("x.toml");
    for (content, hint) in [
        ("max_ppl_increase = \"1%\"", "without quotes and unit, as in = 1;"),
        ("context = \"2048\"", "without quotes and unit, as in = 2048;"),
        ("strict = \"true\"", "without quotes, as in = true;"),
    ] {
        fs::write(&file, content).unwrap();
        validate(&["--config", utf8(&file)]).hints(hint);
    }
}

#[test]
fn a_command_line_that_is_not_whole_shows_one_that_is() {
    for (typed, hint) in [
        ("validate --codec", "--codec q4_0"),
        ("validate --model", "--model builtin"),
        ("validate --text", "--text builtin"),
        ("validate --context", "--context 20"),
        ("validate --output", "--output FILE"),
        ("validate --max-ppl-change", "--max-ppl-change 1"),
        ("validate --seed -1", "below 0"),
        ("validate --strict yes", "--strict=false"),
        ("validate -", "/dev/stdin"),
        ("validate --text a --text b", "`kvgauge sweep` takes several"),
        ("validate --windows 1 --windows 2", "leave one of the two out"),
        ("--codec x", "kvgauge validate --codec"),
        ("--json", "kvgauge validate --json"),
        ("model.gguf", "kvgauge validate --model model.gguf"),
        ("OWNER/NAME", "kvgauge validate --model OWNER/NAME"),
        ("x.toml", "kvgauge sweep x.toml"),
        ("perplexity", "`kvgauge validate`"),
        ("quantize", "`kvgauge kv-compress`"),
        ("valdate", "`kvgauge validate`"),
        ("xyz", "validate, sweep, report, tune, extract, kv-compress, figures, codecs"),
        ("sweep", "kvgauge sweep configs/quickstart.toml"),
        ("report", "kvgauge report results/quickstart --output report"),
        ("extract", "--output kv_cache.safetensors"),
        ("kv-compress", "--input kv_cache.safetensors"),
        ("kv-compress -input x", "--input kv_cache.safetensors --output"),
        ("kv-compress a.safetensors b.safetensors", "behind its flag: kv-compress --input"),
        ("kv-compress inspct a", "did you mean inspect?"),
        ("kv-compress inspect", "kv-compress inspect compressed.safetensors"),
        ("kv-compress -input x -output y -min-cosine 99%", "--min-cosine 0.99"),
        ("kv-compress -input x -output y -min-snr-db 16dB", "--min-snr-db 16"),
        ("tune --bits 4bit", "--bits 4"),
        ("figures", "kvgauge figures measurement.json"),
        ("figures absent.json", "docs/python.md"),
        ("man", "kvgauge man ~/"),
        ("completions", "kvgauge completions bash"),
        ("report Cargo.toml --output x", "the folder that kvgauge sweep wrote to"),
        ("sweep absent.toml", "kvgauge sweep --help shows one"),
        ("sweep a.toml --shard 1", "--shard 2/8"),
        ("sweep a.toml --cuts 4", "--shard 2/3 --cuts"),
        ("sweep a.toml --submit slurm -p gpu", "behind --, at the end: -- -p"),
        ("sweep a.toml --submit slurm --partition=gpu", "behind --, at the end: -- --partition"),
        ("sweep a.toml -- -p gpu", "--submit slurm --"),
    ] {
        let words: Vec<&str> = typed.split(' ').collect();
        let answer = run(&words);
        // Without any word at all, a command shows its help.
        if !answer.stderr.starts_with("error: ") {
            assert!(answer.stderr.contains("Usage:"), "{typed}: {}", answer.stderr);
            continue;
        }
        answer.is_refused(&[]);
        answer.hints(hint);
    }
    // Nothing better is known: the one place for this hint.
    validate(&["--nonsense"]).hints(HELP);
}

// --- Texts

#[test]
fn what_a_text_has_is_noted_once_and_not_changed() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("text.txt");
    let plain = novel();
    let run = |content: &str| {
        fs::write(&file, content).unwrap();
        let answer = good_with(&["--text", utf8(&file), "--codec", "f16,int4", "--json"]);
        let bytes = answer.json()["text"]["bytes"].as_u64().unwrap();
        assert_eq!(bytes as usize, content.len());
        (answer.stderr.clone(), answer.json()["baseline"]["perplexity"].as_f64().unwrap())
    };
    let (quiet, exact) = run(&plain);
    assert_eq!(quiet, "");
    for (content, words) in [
        (plain.replace('\n', "\r\n"), "Windows line ends (CRLF)"),
        (format!("\u{feff}{plain}"), "has one byte order mark: it changes the perplexity"),
        (plain.replacen("the", "the\0", 20), "has 20 NUL characters: they change"),
    ] {
        let (note, perplexity) = run(&content);
        assert_eq!(note.lines().count(), 1, "{note}");
        assert!(note.starts_with(&format!("note: {}", utf8(&file))), "{note}");
        assert!(note.contains(words), "{note}");
        // That is why it is said.
        assert_ne!(perplexity, exact, "{words}");
    }
}

#[test]
fn files_that_are_no_texts_are_refused_by_what_they_are() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("text.txt");
    let utf16: Vec<u8> = novel().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [b"\xff\xfe", &utf16[..]].concat();
    let latin1: Vec<u8> = b"caf\xe9 ".iter().copied().cycle().take(5000).collect();
    for (bytes, found, hint) in [
        (&utf16[..], "found UTF-16", "iconv -f UTF-16"),
        (&marked, "found UTF-16", "iconv -f UTF-16"),
        (&[0; 50_000], "nothing but zeros", "let it finish"),
        (b"\x1f\x8b\x08\0rest", "a gzip file", "gunzip"),
        (b"PK\x03\x04rest\0", "a zip archive", "unpack"),
        (b"PAR1\xff\0", "a Parquet table", "column of text"),
        (&latin1, "0xe9 at offset 3", "WINDOWS-1252"),
        (b"%PDF-1.4\n", "a PDF document", "UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer", "git lfs pull"),
    ] {
        fs::write(&file, bytes).unwrap();
        let answer = good_with(&["--text", utf8(&file)]);
        answer.is_refused(&[utf8(&file), found]);
        answer.hints(hint);
    }
    let stdin = good_with(&["--text", "-"]);
    stdin.is_refused(&["-: no such file"]);
    stdin.hints("--text /dev/stdin");
    good_with(&["--text", "https://example.org/a.txt"]).hints("fetch it first");
    good_with(&["--text", "wikitext2"]).hints("did you mean wikitext-2");
    good_with(&["--text", "wikitext"]).hints("did you mean wikitext-2");
    good_with(&["--text", ""]).is_refused(&["--text: expected a text, found an empty name"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_texts_path_need_not_be_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join(OsStr::from_bytes(b"caf\xe9.txt"));
    fs::write(&file, novel()).unwrap();
    let mut command = kvgauge();
    command.args(["validate"]).args(cli::GOOD).arg("--json").arg("--text").arg(&file);
    let result = run_command(command).succeeds().json();
    let shown = file.to_string_lossy();
    assert!(shown.contains('\u{fffd}'));
    assert_eq!(result["text"]["source"], *shown);
    assert_eq!(result["config"]["text"], *shown);

    let other = folder.path().join("text.txt");
    fs::copy(&file, &other).unwrap();
    let same = good_with(&["--json", "--text", utf8(&other)]).succeeds().json();
    assert_eq!(result["codecs"], same["codecs"]);
    let mut command = kvgauge();
    let absent = folder.path().join(OsStr::from_bytes(b"na\xefve.txt"));
    command.args(["validate"]).args(cli::GOOD).arg("--text").arg(absent);
    run_command(command).is_refused(&["no such file or folder"]);
}

#[test]
fn control_tokens_in_a_text_count_unless_told_otherwise() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("text.txt");
    let text = novel().replacen(' ', "<|endoftext|> ", 10);
    fs::write(&file, &text).unwrap();
    let run = |args: &[&str]| {
        good_with(&[&["--text", utf8(&file), "--json"], args].concat()).succeeds().json()
    };
    let tokens = |result: &Value| result["text"]["tokens"].as_u64().unwrap();
    let own = run(&[]);
    assert_eq!(own["config"]["parse_special"], true);
    assert_eq!(own["text"]["parse_special"], true);
    for flag in [&["--parse-special", "false"][..], &["--parse-special=false"]] {
        let plain = run(flag);
        assert_eq!(plain["config"]["parse_special"], false);
        assert_eq!(plain["text"]["parse_special"], false);
        // Ten tokens of several each.
        assert!(tokens(&plain) >= tokens(&own) + 40, "{} and {}", tokens(&plain), tokens(&own));
        assert_ne!(plain["baseline"], own["baseline"]);
        assert_eq!(plain["text"]["sha256"], own["text"]["sha256"]);
    }
    assert_eq!(run(&["--parse-special"])["baseline"], own["baseline"]);
    assert_eq!(run(&["--parse-special", "true"])["baseline"], own["baseline"]);
    // The builtin text has none: the same numbers.
    let plain = |args: &[&str]| good_with(&[&["--json"], args].concat()).json()["codecs"].clone();
    assert_eq!(plain(&[]), plain(&["--parse-special", "false"]));
}

// --- Every file that can be wrong

#[test]
fn no_error_about_a_file_ends_in_a_hint_to_read_the_help() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let contents: [(&str, &[u8]); 14] = [
        ("empty", b""),
        ("zeros", &[0; 4096]),
        ("text", b"some words, and no more"),
        ("html", b"<!DOCTYPE html><html><body>Sign in</body></html>"),
        ("json", b"{\"a\": 1}"),
        ("list", b"[1, 2"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0"),
        ("zip", b"PK\x03\x04\x14\0\0\0"),
        ("parquet", b"PAR1\x15\x04\xff\xfe"),
        ("pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        ("utf16", b"\xff\xfea\0b\0c\0"),
        ("latin1", b"caf\xe9 au lait"),
        ("gguf", b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("tensors", b"\x02\0\0\0\0\0\0\0{}"),
    ];
    let mut seen = 0;
    let mut check = |words: &[&str]| {
        let answer = run(words);
        // A text of a few words, a file without tensors: some of them are fine.
        if answer.status == Some(0) {
            return;
        }
        assert!(answer.status == Some(2) || answer.status == Some(3), "{words:?}");
        let hint = answer.stderr.lines().find(|line| line.starts_with("hint: "));
        let hint = hint.unwrap_or_else(|| panic!("{words:?}: {}", answer.stderr));
        assert!(!hint.contains(HELP) && !hint.contains(NEUTRAL), "{words:?}: {}", answer.stderr);
        seen += 1;
    };
    for (name, bytes) in contents {
        for ending in ["", ".gguf", ".toml", ".safetensors", ".txt"] {
            fs::write(path(&format!("{name}{ending}")), bytes).unwrap();
        }
        let file = |ending: &str| utf8(&path(&format!("{name}{ending}"))).to_string();
        check(&["validate", "--model", "builtin", "--context", "64", "--text", &file(".txt")]);
        check(&["validate", "--text", "builtin", "--model", &file(".gguf")]);
        check(&["validate", "--text", "builtin", "--model", &file("")]);
        if !["empty"].contains(&name) {
            check(&[
                "validate",
                "--config",
                &file(".toml"),
                "--model",
                "builtin",
                "--windows",
                "x",
            ]);
            check(&["sweep", &file(".toml"), "--offline"]);
        }
        let out = utf8(&path("out")).to_string();
        check(&["kv-compress", "--input", &file(".safetensors"), "--output", &out, "--force"]);
        check(&["kv-compress", "--decompress", "--input", &file(""), "--output", &out, "--force"]);
        check(&["kv-compress", "inspect", &file(".safetensors")]);
        check(&["report", &file(""), "--output", &out]);
    }
    let absent = path("absent");
    check(&["validate", "--config", utf8(&absent)]);
    check(&["sweep", utf8(&absent)]);
    check(&["sweep", utf8(folder.path())]);
    check(&["report", utf8(&absent), "--output", utf8(&absent)]);
    check(&["kv-compress", "--input", utf8(&absent), "--metrics-only"]);
    check(&["kv-compress", "--input", utf8(folder.path()), "--metrics-only"]);
    check(&["kv-compress", "inspect", utf8(folder.path())]);
    check(&["validate", "--model", utf8(folder.path()), "--text", "builtin"]);
    check(&["validate", "--model", "builtin", "--text", utf8(folder.path())]);
    let plan = folder.path().join("sweep");
    fs::create_dir(&plan).unwrap();
    fs::write(plan.join("plan.json"), "{}").unwrap();
    check(&["report", utf8(&plan), "--output", utf8(&absent)]);
    fs::create_dir(plan.join("plan-1-of-2.json")).unwrap();
    fs::remove_file(plan.join("plan.json")).unwrap();
    check(&["report", utf8(&plan), "--output", utf8(&absent)]);
    assert!(seen > 80, "{seen}");
}

#[test]
fn no_error_about_a_models_files_ends_in_a_hint_to_read_the_help() {
    let broken: [&[u8]; 6] =
        [b"", b"{", b"[]", b"{}", &[0; 64], b"version https://git-lfs.github.com/spec/v1\n"];
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        for bytes in broken {
            let model = ModelFolder::new();
            model.write(file, bytes);
            let answer = model.validate(&[]);
            answer.is_refused(&[]);
            let told = !answer.stderr.contains(HELP) && !answer.stderr.contains(NEUTRAL);
            assert!(told, "{file} {bytes:?}: {}", answer.stderr);
        }
    }
    type Edit = fn(&mut Value);
    let edits: [Edit; 12] = [
        |c| c["num_key_value_heads"] = 3.into(),
        |c| c["hidden_size"] = "wide".into(),
        |c| c["hidden_size"] = 0.into(),
        |c| c["rope_theta"] = (-1).into(),
        |c| c["rope_scaling"] = serde_json::json!({"rope_type": "xpos", "factor": 4.0}),
        |c| c["rope_scaling"] = serde_json::json!({"rope_type": "linear"}),
        |c| c["rope_scaling"] = serde_json::json!({"rope_type": "linear", "factor": -1.0}),
        |c| c["architectures"] = serde_json::json!(["Qwen3_5ForCausalLM"]),
        |c| c["vocab_size"] = 100.into(),
        |c| c["hidden_act"] = "quick_gelu".into(),
        |c| c["max_position_embeddings"] = 0.into(),
        |c| c["head_dim"] = 7.into(),
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let model = ModelFolder::new();
        model.edit_config(edit);
        let answer = model.validate(&[]);
        answer.is_refused(&[]);
        assert!(!answer.stderr.contains(HELP), "edit {index}: {}", answer.stderr);
    }
}
