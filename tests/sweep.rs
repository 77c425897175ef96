//! `kvgauge sweep` and `kvgauge report` as users run them: the same results whole, in shards and
//! after any number of kills; nothing done twice, nothing torn trusted; a failed cell is not the
//! others' failure.

#[allow(dead_code)]
#[path = "common/cli.rs"]
mod cli;

use cli::{Answer, ModelFolder, kvgauge, run, run_command, validate};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Two contexts, ten cells, about a second.
const CONFIG: &str = r#"
model = "builtin"
protocol = "prefix"
context = [96, 128]
windows = 6
codec = ["f16", "k:int4-g64/v:f16"]
[grid]
group = [16, 64, 256]
"#;

struct Sweep {
    folder: TempDir,
    config: PathBuf,
}

impl Sweep {
    fn new(config: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("sweep.toml");
        fs::write(&path, config).unwrap();
        Self { folder, config: path }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, output: &str, flags: &[&str]) -> std::process::Command {
        let mut command = kvgauge();
        command.arg("sweep").arg(&self.config).arg("--output").arg(self.path(output)).args(flags);
        command
    }

    fn run(&self, output: &str, flags: &[&str]) -> Answer {
        run_command(self.command(output, flags))
    }

    /// Runs to the end, and gives the bytes of `results.json`.
    fn results(&self, output: &str, flags: &[&str]) -> Vec<u8> {
        let answer = self.run(output, flags);
        assert_eq!(answer.status, Some(0), "{}", answer.stderr);
        self.read(output, "results.json")
    }

    fn report(&self, folders: &[&str], output: &str, flags: &[&str]) -> Answer {
        let mut command = kvgauge();
        command.arg("report").args(folders.iter().map(|folder| self.path(folder)));
        command.arg("--output").arg(self.path(output)).args(flags);
        run_command(command)
    }

    fn read(&self, output: &str, file: &str) -> Vec<u8> {
        fs::read(self.path(output).join(file)).unwrap()
    }

    fn lines(&self, output: &str) -> usize {
        self.read(output, "cells.jsonl").split(|byte| *byte == b'\n').count() - 1
    }

    fn json(&self, output: &str) -> Value {
        serde_json::from_slice(&self.read(output, "results.json")).unwrap()
    }
}

/// All finished cells.
fn cells(results: &Value) -> Vec<&Value> {
    let subjects = results["subjects"].as_array().unwrap();
    subjects.iter().flat_map(|subject| subject["cells"].as_array().unwrap()).collect()
}

#[test]
fn shards_put_together_are_the_whole() {
    let sweep = Sweep::new(CONFIG);
    let whole = sweep.results("whole", &[]);
    for index in 1..=3 {
        let shard = format!("{index}/3");
        let answer = sweep.run(&format!("apart-{index}"), &["--shard", &shard, "--threads", "1"]);
        assert!(answer.stdout.starts_with(&format!("shard {shard}: ")), "{}", answer.stdout);
        assert_eq!(sweep.run("together", &["--shard", &shard]).status, Some(0));
    }
    for (folders, output) in [
        (&["apart-1", "apart-2", "apart-3"][..], "from-apart"),
        (&["apart-3", "apart-1", "apart-2"], "from-any-order"),
        (&["together"], "from-together"),
        (&["whole", "together"], "from-both"),
    ] {
        assert_eq!(sweep.report(folders, output, &[]).status, Some(0));
        for file in ["results.json", "results.csv", "report.md", "report.html"] {
            let (ours, theirs) = (sweep.read(output, file), sweep.read("whole", file));
            assert!(ours == theirs, "{output}/{file}");
        }
    }
    assert_eq!(whole, sweep.read("from-apart", "results.json"));
    // A shard alone: the rest is missing, and said to be.
    sweep.report(&["apart-2"], "part", &[]).succeeds();
    let part = sweep.json("part");
    let missing = part["missing"].as_array().unwrap().len();
    assert_eq!((cells(&part).len(), missing), (3, 7));
    // A whole sweep in the shards' folder has nothing left to do.
    assert_eq!(sweep.results("together", &[]), whole);
}

/// Two texts of one file name, and a third that is too short.
#[test]
fn texts_of_one_name_are_told_apart_wherever_they_are_named() {
    let sweep = Sweep::new("");
    let novel: Vec<char> = fs::read_to_string("data/builtin/text.txt").unwrap().chars().collect();
    let part = |from: usize, chars: usize| novel[from..from + chars].iter().collect::<String>();
    let texts = [("a", part(0, 9000)), ("b", part(20_000, 9000)), ("c", part(0, 9))];
    let texts = texts.map(|(folder, text)| {
        fs::create_dir(sweep.path(folder)).unwrap();
        let path = sweep.path(folder).join("x.txt");
        fs::write(&path, text).unwrap();
        format!("{path:?}")
    });
    let config = "model = \"builtin\"\ncontext = 64\nwindows = 2\nprotocol = \"prefix\"\n";
    fs::write(&sweep.config, format!("{config}text = [{}]\n", texts.join(", "))).unwrap();
    let planned = sweep.run("out", &["--dry-run"]);
    let ran = sweep.run("out", &[]);
    let file = |name: &str| String::from_utf8(sweep.read("out", name)).unwrap();
    for told in [
        planned.stdout.as_str(),
        ran.stdout.as_str(),
        ran.stderr.split("\nerror: ").next().unwrap(),
        &file("report.md"),
    ] {
        for name in ["a/x.txt", "b/x.txt", "c/x.txt"] {
            assert!(told.contains(name), "{name} in {told}");
        }
        assert!(!told.contains(" x.txt") && !told.contains("`x.txt"), "{told}");
    }
    let page = file("report.html");
    assert!(page.contains("on builtin, c/x.txt"), "{page}");
}

/// Jobs as they are printed; tests/slurm.sh hands them to Slurm.
#[test]
fn jobs_are_printed_for_a_scheduler() {
    let sweep = Sweep::new(CONFIG);
    let submit = |words: &[&str]| {
        let mut command = kvgauge();
        command.current_dir(sweep.folder.path()).args(["sweep", "sweep.toml"]).args(words);
        run_command(command)
    };
    let out = sweep.folder.path().canonicalize().unwrap().join("results/sweep");
    let out = out.display();
    let slurm = submit(&["--submit", "slurm", "--dry-run", "--shards", "2", "--seed", "3"]);
    let slurm = slurm.succeeds();
    let line = |start: &str| slurm.stdout.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(slurm.stdout.contains("\n#SBATCH --array=1-2\n"), "{}", slurm.stdout);
    let part = line("exec ");
    assert!(part.contains(" sweep sweep.toml --seed 3 "), "{part}");
    assert!(part.contains(&format!(" --output {out} --cuts ")), "{part}");
    assert!(part.contains(" --shard \"$SLURM_ARRAY_TASK_ID/2\" "), "{part}");
    assert!(slurm.stdout.contains(&format!(" report {out} --output {out}\n")), "{}", slurm.stdout);
    assert!(!sweep.folder.path().join("results").exists());
    // What a task of it would run.
    let cuts = part.split(" --cuts ").nth(1).unwrap().split(' ').next().unwrap();
    for (index, shard) in [("1", "1/2"), ("2", "2/2")] {
        let mut command = kvgauge();
        command.current_dir(sweep.folder.path()).args(["sweep", "sweep.toml", "--output", "parts"]);
        command.args(["--cuts", cuts, "--shard", "auto"]);
        for (name, value) in [("ID", index), ("MIN", "1"), ("STEP", "1"), ("COUNT", "2")] {
            command.env(format!("SLURM_ARRAY_TASK_{name}"), value);
        }
        let answer = run_command(command);
        assert_eq!(answer.status, Some(0), "{}", answer.stderr);
        let said = format!("note: shard {shard}, as Slurm's array says");
        assert!(answer.stderr.contains(&said), "{}", answer.stderr);
    }
    sweep.report(&["parts"], "merged", &[]).succeeds();
    assert_eq!(submit(&["--output", "whole"]).status, Some(0));
    assert!(sweep.read("whole", "results.json") == sweep.read("merged", "results.json"));

    let kubernetes = ["--submit", "kubernetes", "--dry-run", "--shards", "2", "--"];
    let jobs = submit(&[&kubernetes[..], &["image=here/kvgauge:1", "claim=data"]].concat());
    let jobs: Value = serde_json::from_str(&jobs.succeeds().stdout).unwrap();
    let spec = &jobs["items"][0]["spec"];
    assert_eq!((&spec["completionMode"], &spec["completions"]), (&"Indexed".into(), &2.into()));
    let command = spec["template"]["spec"]["containers"][0]["command"].as_array().unwrap();
    assert_eq!(command[..3], ["kvgauge", "sweep", "sweep.toml"]);
    assert_eq!(jobs["items"][1]["spec"]["suspend"], true);

    for (words, said) in [
        (&["--submit", "kubernetes"][..], "expected --dry-run beside it"),
        (&["--submit", "kubernetes", "--dry-run"], "found no image"),
        (&["--submit", "kubernetes", "--dry-run", "--", "gpu=1"], "found gpu=1"),
        (&["--shard", "auto"], "expected one of SLURM_ARRAY_TASK_ID"),
        (&["--shard", "1/3", "--cuts", "4"], "expected 2 rising numbers up to 10"),
    ] {
        let answer = submit(words);
        assert_eq!(answer.status, Some(2), "{words:?}");
        assert!(answer.stderr.contains(said), "{words:?}: {}", answer.stderr);
    }
}

/// The answers for a KLD and for so many bytes, beside a plain look at all cells.
#[test]
fn answers_are_the_cheapest_within_a_kld_and_the_best_within_bytes() {
    let config = "model = \"builtin\"\ncontext = 96\nwindows = 6\nbatch = 4\n\
        codec = [\"f16\", \"q8_0\", \"int4-g16\", \"int4-g64\", \"int3-g64\", \"int2-g64\"]\n\
        max_kld = 0.05\nmax_bytes_per_token = 600";
    let sweep = Sweep::new(config);
    sweep.results("out", &[]);
    let results = sweep.json("out");
    assert_eq!((&results["batch"], &results["max_bytes_per_token"]), (&4.into(), &600.0.into()));
    let subject = &results["subjects"][0];
    let number = |cell: &Value, key: &str| cell[key].as_f64().unwrap();
    // Codec, bytes a token, the larger KLD and the larger upper end of its interval.
    let cells: Vec<(&str, f64, f64, f64)> = (0..6)
        .map(|i| {
            let [a, b] = [&subject["cells"][i], &subject["decode"]["cells"][i]];
            assert_eq!(a["codec"], b["codec"]);
            let both = |key: &str| number(a, key).max(number(b, key));
            let end = |cell: &Value| cell["kld_mean_ci95"][1].as_f64().unwrap();
            let name = a["codec"].as_str().unwrap();
            (name, both("cache_bytes_per_token"), both("kld_mean"), end(a).max(end(b)))
        })
        .filter(|(name, ..)| *name != "f16")
        .collect();
    let mut answered = 0;
    for (answer, limit) in
        subject["cheapest_within_kld"].as_array().unwrap().iter().zip([0.05, 0.001, 0.01, 0.1])
    {
        assert_eq!(answer["max_kld"], limit);
        let within = cells.iter().filter(|(.., end)| *end <= limit);
        let best = within.min_by(|a, b| a.1.total_cmp(&b.1)).map(|cell| cell.0);
        assert_eq!(answer["codec"].as_str(), best, "{limit}");
        answered += usize::from(best.is_some());
    }
    for (answer, limit) in subject["best_within_bytes"].as_array().unwrap().iter().zip([
        600.0,
        1024.0,
        2048.0 / 3.0,
        512.0,
    ]) {
        assert_eq!(answer["max_bytes_per_token"], limit);
        let within = cells.iter().filter(|cell| cell.1 <= limit);
        let best = within.min_by(|a, b| a.2.total_cmp(&b.2)).map(|cell| cell.0);
        assert_eq!(answer["codec"].as_str(), best, "{limit}");
        answered += usize::from(best.is_some());
    }
    assert!(answered >= 5, "{answered}: {subject}");
    let told = |answer: &Value| answer["codec"].as_str().unwrap_or("none").to_string();
    let told = told(&subject["best_within_bytes"][0]);
    let text = String::from_utf8(sweep.read("out", "report.md")).unwrap();
    let line = format!("Smallest KLD within bytes a token of 600: `{told}`; 1024: ");
    assert!(text.contains(&line), "{text}");
    // Another limit and batch, without another run.
    let flags = ["--batch", "8", "--max-bytes-per-token", "1", "--json"];
    let again = sweep.report(&["out"], "again", &flags).succeeds().json();
    let saved = |results: &Value| number(&results["subjects"][0]["cells"][3], "gb_saved");
    assert!((saved(&again) - 2.0 * saved(&results)).abs() < 1e-15);
    assert!((saved(&results) - 4.0 * 96.0 * (2048.0 - 544.0) / 1e9).abs() < 1e-15);
    assert_eq!(again["subjects"][0]["cells"][3]["verdicts"]["bytes_per_token"], "fail");
    let command = again["sweeps"][0]["command"].as_str().unwrap();
    assert!(command.ends_with("--max-bytes-per-token 1 --batch 8"), "{command}");
}

/// Each codec under each protocol, the recommendation under both, and what `decode` cannot take.
#[test]
fn both_protocols_run_by_default() {
    let config = "model = \"builtin\"\ncontext = 96\nwindows = 6\n\
        codec = [\"f16\", \"int4-g16\", \"int4-g64-ctr\", \"int4-g64\"]\nmax_ppl_change = 1000";
    let sweep = Sweep::new(config);
    let whole = sweep.results("whole", &[]);
    let results = sweep.json("whole");
    let subjects = results["subjects"].as_array().unwrap();
    let subject = &subjects[0];
    assert_eq!((subjects.len(), &subject["protocol"]), (1, &"prefix".into()));
    assert_eq!(subject["recommended_under"], serde_json::json!(["prefix", "decode"]));
    let names = |cells: &Value| -> Vec<String> {
        let cells = cells.as_array().unwrap().iter();
        cells.map(|cell| cell["codec"].as_str().unwrap().to_string()).collect()
    };
    let decode = &subject["decode"];
    assert_eq!(names(&subject["cells"]), ["f16", "int4-g16", "int4-g64-ctr", "int4-g64"]);
    assert_eq!(names(&decode["cells"]), ["f16", "int4-g16", "int4-g64"]);
    assert_eq!(names(&decode["refused"]), ["int4-g64-ctr"]);
    // The smallest of those that pass under both; the refused one is larger.
    assert_eq!(subject["recommended"][0]["codec"], "int4-g64");

    // The figures are those of `validate`.
    let single = ["--config", sweep.config.to_str().unwrap(), "--json"];
    let single = validate(&single).succeeds().json();
    for (ours, theirs) in
        [(&subject["cells"], &single["codecs"]), (&decode["cells"], &single["decode"]["codecs"])]
    {
        for (ours, theirs) in ours.as_array().unwrap().iter().zip(theirs.as_array().unwrap()) {
            for (key, value) in theirs.as_object().unwrap() {
                assert_eq!(&ours[key], value, "{key} of {}", ours["codec"]);
            }
        }
    }
    assert_eq!(decode["baseline"], single["decode"]["baseline"]);

    // In shards, in a folder each and in one: the same bytes.
    for index in 1..=3 {
        let shard = format!("{index}/3");
        for output in [&format!("part-{index}"), "parts"] {
            let answer = sweep.run(output, &["--shard", &shard]);
            assert_eq!(answer.status, Some(0), "{}", answer.stderr);
        }
    }
    for (folders, output) in
        [(&["part-3", "part-1", "part-2"][..], "apart"), (&["parts"], "together")]
    {
        sweep.report(folders, output, &[]).succeeds();
        assert!(sweep.read(output, "results.json") == whole, "{output}");
        assert!(sweep.read(output, "report.html") == sweep.read("whole", "report.html"));
    }
    // Without the part that has decode's cells nothing is recommended.
    sweep.report(&["part-1"], "some", &[]).succeeds();
    let some = sweep.json("some");
    assert_eq!(some["subjects"][0]["recommended"][0]["codec"], Value::Null);
    let missing = some["missing"].as_array().unwrap();
    assert!(missing.iter().any(|cell| cell["protocol"] == "decode"), "{missing:?}");

    // Limits: each by itself, and as strict as they are.
    let judge = |output: &str, flags: &[&str]| {
        sweep.report(&["whole"], output, flags).succeeds();
        sweep.json(output)["subjects"][0].clone()
    };
    let tight = judge("tight", &["--max-kld", "1e-5"]);
    let verdicts = |cells: &Value| -> Vec<String> {
        let cells = cells.as_array().unwrap().iter();
        cells.map(|cell| cell["verdicts"]["kld"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(verdicts(&tight["cells"]), ["pass", "fail", "fail", "fail"]);
    assert_eq!(verdicts(&tight["decode"]["cells"]), ["pass", "fail", "fail"]);
    assert_eq!(tight["recommended"][0]["codec"], Value::Null);
    sweep.report(&["whole"], "strict", &["--max-kld", "1e-5", "--strict"]).ends_with_result(1);
    for (file, words) in [
        ("report.md", "prefix: ppl change, 95 % | KLD, 95 % | verdict | decode: ppl change"),
        (
            "report.md",
            "Recommended** within ±1000 % perplexity, under prefix and decode: `int4-g64`",
        ),
        ("report.html", "<h3>Both protocols</h3>"),
        ("report.html", "no verdict: codec int4-g64-ctr: ctr, the mean over all tokens"),
        ("results.csv", "builtin"),
        ("decode-kld.svg", "</svg>"),
    ] {
        let text = String::from_utf8(sweep.read("whole", file)).unwrap();
        assert!(text.contains(words), "no {words} in {file}:\n{text}");
    }
    let rows = sweep.read("whole", "results.csv");
    assert_eq!(rows.split(|byte| *byte == b'\n').filter(|row| !row.is_empty()).count(), 8);
    // One protocol alone: nothing of it is computed again.
    let told = sweep.run("whole", &["--protocol", "decode", "--codec", "f16"]);
    assert!(told.stderr.contains("1 cell is there already"), "{}", told.stderr);
}

#[test]
fn a_killed_sweep_goes_on_where_it_stopped() {
    let sweep = Sweep::new(&CONFIG.replace("windows = 6", "windows = 30"));
    let clock = Instant::now();
    let whole = sweep.results("whole", &[]);
    let took = clock.elapsed();
    let mut cut_off = 0;
    for moment in 0..10 {
        let mut child = sweep.command("killed", &[]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20) + took * moment / 14);
        child.kill().unwrap();
        cut_off += usize::from(!child.wait().unwrap().success());
    }
    assert!(cut_off >= 3, "the sweep was cut off {cut_off} times only");
    assert_eq!(sweep.results("killed", &[]), whole);
    assert_eq!(sweep.lines("killed"), 10, "each cell once");
    let left: Vec<_> = fs::read_dir(sweep.path("killed"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.') || name.starts_with("windows"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nothing_is_done_twice_and_nothing_torn_is_trusted() {
    let sweep = Sweep::new(CONFIG);
    let whole = sweep.results("out", &[]);
    let log = sweep.path("out").join("cells.jsonl");
    let lines = fs::read_to_string(&log).unwrap();
    let again = sweep.run("out", &[]);
    assert!(again.stderr.contains("10 cells are there already"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(&log).unwrap(), lines);

    // Torn in the last line, changed in the third, foreign at the end.
    let mut damaged: Vec<String> = lines.lines().map(str::to_string).collect();
    damaged[2] = damaged[2].replacen("\"stored_bytes\":", "\"stored_bytes\":1", 1);
    let half = damaged[9].len() / 2;
    damaged[9].truncate(half);
    fs::write(&log, damaged.join("\n")).unwrap();
    let again = sweep.run("out", &[]);
    assert!(again.stderr.contains("2 lines are torn"), "{}", again.stderr);
    assert!(again.stderr.contains("8 cells are there already"), "{}", again.stderr);
    assert_eq!(sweep.read("out", "results.json"), whole);

    // One more codec is two more cells.
    fs::write(&sweep.config, CONFIG.replace("[16, 64,", "[16, 32, 64,")).unwrap();
    let more = sweep.run("out", &[]);
    assert!(more.stderr.contains("10 cells are there already"), "{}", more.stderr);
    let (before, after): (Value, Value) =
        (serde_json::from_slice(&whole).unwrap(), sweep.json("out"));
    assert_eq!(cells(&after).len(), 12);
    let codec = |cell: &Value, name: &str| cell["codec"] == name;
    for name in ["f16", "int4-g16", "int4-g256"] {
        let find = |results: &Value| {
            let found = cells(results).into_iter().find(|cell| codec(cell, name)).cloned();
            (found.as_ref().unwrap()["id"].clone(), found.unwrap()["kld_mean"].clone())
        };
        assert_eq!(find(&before), find(&after));
    }
}

/// A cell is what `validate` says of the same model, text, context and codec, key by key.
#[test]
fn a_cell_is_what_validate_says() {
    let sweep = Sweep::new(CONFIG);
    sweep.results("out", &[]);
    let results = sweep.json("out");
    for (subject, context) in results["subjects"].as_array().unwrap().iter().zip(["96", "128"]) {
        for cell in subject["cells"].as_array().unwrap() {
            let codec = cell["codec"].as_str().unwrap();
            let flags = ["--model", "builtin", "--context", context, "--windows", "6", "--json"];
            let alone = validate(&[&flags[..], &["--codec", codec]].concat()).succeeds().json();
            for (key, value) in alone["codecs"][0].as_object().unwrap() {
                assert_eq!(cell[key], *value, "{codec}: {key}");
            }
            for key in ["baseline", "model", "text", "scored_tokens", "prefix", "windows"] {
                assert_eq!(subject[key], alone[key], "{key}");
            }
        }
    }
}

/// Finished cells stay in the results when their model is gone for a while.
#[test]
fn finished_cells_outlive_their_model() {
    let model = ModelFolder::new();
    let path = model.folder.path().to_str().unwrap();
    let sweep = Sweep::new(&format!(
        "model = ['{path}', 'builtin']\ntext = 'builtin'\ncontext = 64\nwindows = 2\n\
         codec = ['f16', 'int4-g32']"
    ));
    let whole = sweep.results("out", &[]);
    fs::rename(model.path("model.safetensors"), model.path("away")).unwrap();
    let answer = sweep.run("out", &[]);
    assert_eq!(answer.status, Some(0), "{}", answer.stderr);
    assert!(answer.stderr.contains("cells of an earlier run are kept"), "{}", answer.stderr);
    assert_eq!(sweep.read("out", "results.json"), whole);
    // A codec that was not there before cannot be had now.
    let more = sweep.run("out", &["--codec", "f16", "--codec", "int4-g64"]);
    assert_eq!(more.status, Some(2), "{}", more.stderr);
}

/// A window of another shape than the subject has, in a line with a right checksum, is left out.
#[test]
fn windows_of_another_shape_are_not_trusted() {
    let sweep = Sweep::new(&CONFIG.replace("windows = 6", "windows = 60"));
    let whole = sweep.results("whole", &[]);
    let log = sweep.path("cut").join("windows.jsonl");
    let mut child = sweep.command("cut", &[]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let clock = Instant::now();
    while fs::metadata(&log).map_or(0, |log| log.len()) < 200_000 {
        assert!(clock.elapsed() < Duration::from_secs(60), "no window was logged");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let lines = fs::read_to_string(&log).unwrap();
    let forged: Vec<String> = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .enumerate()
        .map(|(index, mut line)| {
            let record = &mut line["record"];
            // Three numbers of eight bytes.
            let three = Value::from("A".repeat(32));
            match index % 3 {
                0 => record["baseline"] = three,
                1 => record["arms"][0]["outcome"]["kld"] = three,
                _ => record["arms"][1]["outcome"]["layers"].as_array_mut().unwrap().truncate(3),
            }
            let record = record.to_string();
            let crc = crc32fast::hash(record.as_bytes());
            format!("{{\"crc32\":\"{crc:08x}\",\"record\":{record}}}\n")
        })
        .collect();
    assert!(forged.len() > 3);
    fs::write(&log, forged.concat()).unwrap();
    assert_eq!(sweep.results("cut", &[]), whole);
}

/// Perplexities that overflow and intervals without an end are `null`, and come back as such.
#[test]
fn figures_beyond_f64_survive_a_second_run() {
    let model = ModelFolder::new();
    model.edit_tensor("model.norm.weight", |tensor| {
        tensor.bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|x| {
            *x = half::f16::from_f32(half::f16::from_le_bytes(*x).to_f32() * 2000.0).to_le_bytes()
        });
    });
    let sweep = Sweep::new(&format!(
        "model = '{}'\ntext = 'builtin'\ncontext = 32\nwindows = 2\n\
         protocol = 'prefix'\ncodec = ['int4-g8', 'f16']",
        model.folder.path().display()
    ));
    let first = sweep.results("out", &[]);
    assert!(sweep.json("out")["subjects"][0]["baseline"]["perplexity"].is_null());
    let again = sweep.run("out", &[]);
    assert!(again.stderr.contains("2 cells are there already"), "{}", again.stderr);
    assert_eq!(sweep.read("out", "results.json"), first);
}

/// NaN in the weights of one model: its cells fail, the others do not.
#[test]
fn a_failed_cell_is_recorded_and_the_rest_go_on() {
    let broken = ModelFolder::new();
    broken.edit_tensor("model.norm.weight", |tensor| {
        tensor.bytes[..2].copy_from_slice(&half::f16::NAN.to_le_bytes())
    });
    let model = broken.folder.path().to_str().unwrap();
    let sweep = Sweep::new(&format!(
        "model = ['{model}', 'builtin']\ntext = 'builtin'\ncontext = 64\nwindows = 2\n\
         protocol = 'prefix'\ncodec = ['f16', 'int4-g32']"
    ));
    for attempt in 1..=2 {
        let answer = sweep.run("out", &[]);
        assert_eq!(answer.status, Some(2), "{}", answer.stderr);
        let error = answer.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains("2 of 4 cells failed") && error.contains("NaN"), "{error}");
        assert!(answer.stderr.lines().any(|line| line.starts_with("hint: ")));
        let results = sweep.json("out");
        assert_eq!((cells(&results).len(), results["failed"].as_array().unwrap().len()), (2, 2));
        let failed = &results["failed"][1];
        assert_eq!(
            (failed["model"].as_str(), failed["codec"].as_str()),
            (Some(model), Some("int4-g32"))
        );
        assert!(failed["error"].as_str().unwrap().contains("NaN"), "{failed}");
        // Failed cells are tried again; finished ones are not.
        assert_eq!(sweep.lines("out"), 2 + 2 * attempt);
        let page = String::from_utf8(sweep.read("out", "report.html")).unwrap();
        assert!(page.contains("Failed cells"));
    }
    // Once the model is mended, so are its cells.
    fs::copy("data/builtin/model.safetensors", broken.path("model.safetensors")).unwrap();
    assert_eq!(sweep.run("out", &[]).status, Some(0));
    let results = sweep.json("out");
    assert_eq!((cells(&results).len(), results["failed"].as_array().unwrap().len()), (2, 0));
}

/// What does not suit one model, text, context or codec of a grid fails its cells alone. Where nothing
/// else is asked for, the request is refused.
#[test]
fn what_does_not_suit_fails_its_cells_and_the_rest_go_on() {
    let folders = [
        ("rope_scaling", serde_json::json!({ "rope_type": "linear", "factor": 2.0 })),
        ("architectures", serde_json::json!(["SphinxForCausalLM"])),
        ("max_position_embeddings", 32.into()),
        ("bos_token_id", Value::Null),
    ]
    .map(|(key, value)| {
        let model = ModelFolder::new();
        model.edit_config(|config| config[key] = value);
        model
    });
    let quoted = |path: &Path| format!("'{}'", path.display());
    let [linear, sphinx, short, no_bos] = folders.each_ref().map(|m| quoted(m.folder.path()));
    let few = folders[0].path("few.txt");
    fs::write(&few, "too few words").unwrap();
    let few = quoted(&few);
    let decode = "--protocol=decode --residual=8";
    for (key, odd, good, flags, words) in [
        ("model", &*linear, "'builtin'", "--cross-check", ["--cross-check", "linear"]),
        ("model", &sphinx, "'builtin'", "", ["SphinxForCausalLM", "config.json"]),
        ("model", &short, "'builtin'", "--context=64", ["at most 32", "found 64"]),
        ("model", &no_bos, "'builtin'", "--bos=always", ["--bos", "names none"]),
        ("text", &few, "'builtin'", "", ["few.txt", "tokens"]),
        ("context", "8", "128", decode, ["codec int4-g64", "residual"]),
        ("codec", "'int4-g4096'", "'int4-g64'", "", ["codec int4-g4096", "at most 2048"]),
    ] {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let config = |value: &str| {
            let all = [
                ("model", "'builtin'"),
                ("text", "'builtin'"),
                ("context", "32"),
                ("protocol", "'prefix'"),
                ("codec", "'int4-g64'"),
            ];
            let line =
                |(name, usual)| format!("{name} = {}\n", if name == key { value } else { usual });
            Sweep::new(&format!("windows = 2\n{}", all.map(line).concat()))
        };
        config(odd).run("out", &flags).is_refused(&words);

        let sweep = config(&format!("[{odd}, {good}]"));
        let answer = sweep.run("out", &flags);
        assert_eq!(answer.status, Some(2), "{}", answer.stderr);
        let error = answer.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains("1 of 2 cells failed, the first: "), "{error}");
        let results = sweep.json("out");
        let failed = results["failed"].as_array().unwrap();
        assert_eq!((cells(&results).len(), failed.len()), (1, 1), "{odd}: {}", answer.stderr);
        assert_eq!(failed[0][key].to_string().replace('"', "'"), odd);
        for text in [error, failed[0]["error"].as_str().unwrap()] {
            assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        }
        assert!(failed[0]["hint"].is_string());

        // A shard that has nothing else says so in its folder.
        for (shard, status) in [("1/2", 2), ("2/2", 0)] {
            let answer = sweep.run("parts", &[&flags[..], &["--shard", shard]].concat());
            assert_eq!(answer.status, Some(status), "{}", answer.stderr);
        }
        sweep.report(&["parts"], "whole", &[]).succeeds();
        assert_eq!(sweep.json("whole")["failed"], results["failed"], "{odd}");
    }
}

/// Else its figures would stand in the report, with other settings, as if nothing had failed.
#[test]
fn a_cell_that_an_earlier_run_finished_may_not_fail_for_good() {
    let sweep = Sweep::new(
        "windows = 2\nmodel = 'builtin'\ntext = 'builtin'\ncontext = [8, 128]\n\
         protocol = 'decode'\ncodec = 'int4-g64'\n",
    );
    let done = sweep.run("out", &[]);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    let before = sweep.json("out");
    let again = sweep.run("out", &["--residual", "8"]);
    assert_eq!(again.status, Some(2), "{}", again.stderr);
    let error = again.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    for words in ["builtin, int4-g64", "an earlier run", "another --output", "residual"] {
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(sweep.json("out"), before);
    let kept = sweep.run("out", &[]);
    assert_eq!(kept.status, Some(0), "{}", kept.stderr);
    assert_eq!(cells(&sweep.json("out")).len(), 2);
}

#[test]
fn an_output_that_cannot_be_written_is_found_at_once() {
    let sweep = Sweep::new(CONFIG);
    fs::write(sweep.path("file"), "").unwrap();
    sweep.run("file", &[]).is_refused(&["--output", "file"]);
    fs::create_dir_all(sweep.path("out/report.html")).unwrap();
    sweep.run("out", &[]).is_refused(&["--output", "report.html"]);
    if cfg!(target_os = "linux") {
        let config = sweep.config.to_str().unwrap();
        let answer = run(&["sweep", config, "--output", "/proc/kvgauge"]);
        assert!(matches!(answer.status, Some(2 | 3)), "{}", answer.stderr);
        assert!(answer.stderr.contains("--output /proc/kvgauge"), "{}", answer.stderr);
    }
    assert!(!sweep.path("file").is_dir());
}

/// Shards that call their config by different paths.
#[test]
fn a_config_is_one_by_whatever_path() {
    let sweep = Sweep::new(CONFIG);
    let whole = sweep.results("whole", &[]);
    let shard = |config: &str, shard: &str| {
        let mut command = kvgauge();
        command.current_dir(sweep.folder.path()).args(["sweep", config, "--shard", shard]);
        let answer = run_command({
            command.args(["--output", "shards"]);
            command
        });
        assert_eq!(answer.status, Some(0), "{}", answer.stderr);
        assert!(!answer.stderr.contains("kept"), "{}", answer.stderr);
    };
    fs::create_dir(sweep.path("sub")).unwrap();
    shard("./sweep.toml", "1/3");
    shard(sweep.config.to_str().unwrap(), "2/3");
    shard("sub/../sweep.toml", "3/3");
    sweep.report(&["shards"], "merged", &[]).succeeds();
    let (merged, whole): (Value, Value) =
        (sweep.json("merged"), serde_json::from_slice(&whole).unwrap());
    assert_eq!(merged["missing"].as_array().unwrap().len(), 0);
    assert_eq!(merged["subjects"], whole["subjects"]);
    assert_eq!(merged["sweeps"].as_array().unwrap().len(), 1);
}

/// Eight rows are not replaced by one.
#[test]
fn another_sweeps_cells_in_the_folder_are_kept() {
    let sweep = Sweep::new(CONFIG);
    sweep.results("out", &[]);
    let other = ["--codec", "int3-g64", "--context", "96"];
    let answer = sweep.run("out", &other);
    assert_eq!(answer.status, Some(0), "{}", answer.stderr);
    assert!(answer.stderr.contains("10 finished cells of other sweeps are kept"));
    assert_eq!(cells(&sweep.json("out")).len(), 11);
    assert_eq!(sweep.json("out")["sweeps"].as_array().unwrap().len(), 2);
    // So they are for `report`, and for the first sweep when it is run again.
    sweep.report(&["out"], "again", &[]).succeeds();
    assert_eq!(sweep.read("again", "results.json"), sweep.read("out", "results.json"));
    let answer = sweep.run("out", &[]);
    assert!(answer.stderr.contains("one finished cell of another sweep is kept"));
    assert_eq!(cells(&sweep.json("out")).len(), 11);
    // Other windows under the same names.
    sweep.results("out", &["--windows", "2"]);
    assert_eq!(cells(&sweep.json("out")).len(), 21);

    // A report alone, of cells that its folder does not have.
    let lone = ["--codec", "f16", "--context", "96"];
    sweep.results("single", &lone);
    sweep.report(&["out"], "merged", &[]).succeeds();
    let merged = sweep.read("merged", "results.json");
    sweep.run("merged", &lone).is_refused(&["results.json", "of others"]);
    sweep.report(&["single"], "merged", &[]).is_refused(&["results.json", "of others"]);
    sweep.report(&["single"], "out", &[]).is_refused(&["results.json", "of others"]);
    assert_eq!(sweep.read("merged", "results.json"), merged);
    sweep.report(&["single"], "merged", &["--force"]).succeeds();
    assert_eq!(cells(&sweep.json("merged")).len(), 1);
    // Not in the way of a report of them.
    sweep.report(&["out", "single"], "merged", &[]).succeeds();
    // Strictness is about this sweep, whatever is in its folder beside it.
    fs::write(sweep.path("out/plan-9-of-9.json"), sweep.read("single", "plan.json")).unwrap();
    let strict = ["--codec", "int8-g64", "--max-ppl-increase", "50", "--strict"];
    assert_eq!(sweep.run("out", &strict).status, Some(0));
}

/// The windows of a sweep that was cut off outlive another one in its folder.
#[test]
fn windows_of_another_sweep_are_kept() {
    let sweep = Sweep::new(&CONFIG.replace("windows = 6", "windows = 60"));
    let log = sweep.path("out").join("windows.jsonl");
    let mut child = sweep.command("out", &[]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let clock = Instant::now();
    while fs::metadata(&log).map_or(0, |log| log.len()) < 200_000 {
        assert!(clock.elapsed() < Duration::from_secs(60), "no window was logged");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // A plan without a finished cell is not kept, but where it has some its windows are.
    let before = fs::read(&log).unwrap().len();
    let done = sweep.lines("out");
    let answer = sweep.run("out", &["--codec", "int8-g64", "--context", "96", "--windows", "2"]);
    assert_eq!(answer.status, Some(0), "{}", answer.stderr);
    if done > 0 {
        assert!(fs::read(&log).unwrap().len() >= before);
    }
    sweep.results("out", &[]);
    assert!(!log.exists());
}

/// Whatever a sweep would write over that it did not write.
#[test]
fn files_of_others_are_kept_in_a_sweeps_folder() {
    let sweep = Sweep::new(CONFIG);
    let flags = ["--context", "96", "--codec", "f16", "--windows", "2"];
    let json = "{\n  \"schema\": \"kvgauge.validation/1\"\n}\n";
    for (name, bytes) in [
        ("report.html", "<!doctype html><title>mine</title>"),
        ("results.json", json),
        ("results.csv", "a,b\n"),
        ("report.md", "# Mine\n"),
        ("kld.svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"/>"),
        ("2-snr-key.svg", "<svg/>"),
        ("plan.json", "{\"steps\": []}"),
        ("timings.json", "{\"threads\": 2}"),
        ("cells.jsonl", "{\"mine\": 1}\n"),
        ("windows.jsonl", "{\"mine\": 1}\n"),
    ] {
        fs::create_dir(sweep.path("out")).unwrap();
        fs::write(sweep.path("out").join(name), bytes).unwrap();
        sweep.run("out", &flags).is_refused(&["--output", name]);
        assert_eq!(sweep.read("out", name), bytes.as_bytes(), "{name}");
        // A log is never written into such a file.
        let forced = sweep.run("out", &[&flags[..], &["--force"]].concat());
        let expected = if name.ends_with(".jsonl") { 2 } else { 0 };
        assert_eq!(forced.status, Some(expected), "{name}: {}", forced.stderr);
        if expected == 0 && !name.starts_with('2') {
            assert_ne!(sweep.read("out", name), bytes.as_bytes(), "{name}");
            sweep.results("out", &flags);
        }
        fs::remove_dir_all(sweep.path("out")).unwrap();
    }
    // `kvgauge report` is no other; files beside the report are nobody's business.
    sweep.results("one", &flags);
    fs::create_dir(sweep.path("out")).unwrap();
    fs::write(sweep.path("out/notes.md"), "mine").unwrap();
    fs::write(sweep.path("out/report.md"), "mine").unwrap();
    sweep.report(&["one"], "out", &[]).is_refused(&["report.md", "did not write"]);
    sweep.report(&["one"], "out", &["--force"]).succeeds();
    assert_eq!(sweep.read("out", "notes.md"), b"mine");
}

/// A config, text or model that the sweep itself would write over.
#[test]
fn a_sweep_does_not_write_over_what_it_reads() {
    let sweep = Sweep::new(CONFIG);
    let model = ModelFolder::new();
    fs::create_dir(sweep.path("out")).unwrap();
    fs::write(sweep.path("out/plan.json"), CONFIG).unwrap();
    fs::write(sweep.path("out/report.md"), "a text ".repeat(2000)).unwrap();
    let at = |path: &str| sweep.path(path).to_str().unwrap().to_string();
    let (config, text) = (at("out/./plan.json"), at("out/report.md"));
    let model = model.folder.path().to_str().unwrap();
    let words = ["expected a", "other than"];
    run(&["sweep", &config, "--output", &at("out"), "--force"]).is_refused(&words);
    sweep.run("out", &["--text", &text, "--force"]).is_refused(&words);
    run(&["sweep", &at("sweep.toml"), "--model", model, "--output", model]).is_refused(&words);
    assert_eq!(sweep.read("out", "plan.json"), CONFIG.as_bytes());
    // A config beside its results is fine.
    fs::write(sweep.path("out/mine.toml"), CONFIG).unwrap();
    let flags = ["--context", "96", "--codec", "f16", "--output"];
    fs::remove_file(sweep.path("out/plan.json")).unwrap();
    fs::remove_file(sweep.path("out/report.md")).unwrap();
    let fine = run(&[&["sweep", &at("out/mine.toml")], &flags[..], &[&at("out")]].concat());
    assert_eq!(fine.status, Some(0), "{}", fine.stderr);
}

#[test]
fn one_folder_has_one_writer() {
    let sweep = Sweep::new(CONFIG);
    fs::create_dir(sweep.path("out")).unwrap();
    let log = fs::File::create(sweep.path("out").join("cells.jsonl")).unwrap();
    log.lock().unwrap();
    sweep.run("out", &[]).is_refused(&["cells.jsonl", "another sweep"]);
    assert_eq!(sweep.run("out", &["--shard", "1/2"]).status, Some(0));
}

#[test]
fn a_dry_run_tells_bits_as_they_turn_out_and_writes_nothing() {
    let sweep = Sweep::new(CONFIG);
    let told = sweep.run("out", &["--dry-run", "--json"]).succeeds().json();
    assert!(!sweep.path("out").exists());
    sweep.results("out", &[]);
    let results = sweep.json("out");
    let planned: Vec<&Value> = told["subjects"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|subject| subject["cells"].as_array().unwrap())
        .collect();
    assert_eq!(planned.len(), 10);
    for (planned, cell) in planned.iter().zip(cells(&results)) {
        assert_eq!(planned["codec"], cell["codec"]);
        assert_eq!(planned["bits_per_value"], cell["bits_per_value"]);
    }
    for figure in ["seconds", "memory_bytes"] {
        assert!(told[figure].as_f64().unwrap() > 0.0);
    }
    let text = sweep.run("out", &["--dry-run"]).succeeds().stdout;
    assert!(text.contains("10 cells") && text.contains("int4-g256"), "{text}");
}

/// A dry run goes on past what does not fit into memory, and tells of each cell what a sweep does.
#[cfg(target_os = "linux")]
#[test]
fn a_dry_run_tells_which_cells_would_fail() {
    let large = ModelFolder::new();
    large.edit_config(|config| config["intermediate_size"] = (1 << 28).into());
    let model = large.folder.path().to_str().unwrap();
    let sweep = Sweep::new(&format!(
        "model = ['{model}', 'builtin']\ntext = 'builtin'\ncontext = 8\nwindows = 2\n\
         protocol = 'prefix'\ncodec = ['f16', 'int4-g64', 'int4-g4096']"
    ));
    let [json, text] = [&["--dry-run", "--json"][..], &["--dry-run"]].map(|flags| {
        let answer = sweep.run("out", flags);
        assert_eq!(answer.status, Some(2), "{}", answer.stderr);
        // A sweep finds out about codecs before it loads a model.
        let error = answer.stderr.lines().next().unwrap();
        assert!(error.starts_with("error: 4 of 6 cells would fail, the first: "), "{error}");
        assert!(error.contains("codec int4-g4096"), "{error}");
        answer
    });
    assert!(!sweep.path("out").exists());
    let told = json.json();
    assert_eq!(told["subjects"].as_array().unwrap().len(), 1);
    assert_eq!(told["subjects"][0]["model"], "builtin");

    let two = sweep.run("out", &["--codec", "f16,int4-g64"]);
    let dry = sweep.run("out", &["--codec", "f16,int4-g64", "--dry-run"]);
    for (answer, verb) in [(&two, "failed"), (&dry, "would fail")] {
        assert_eq!(answer.status, Some(3), "{}", answer.stderr);
        let error = answer.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains(&format!("2 of 4 cells {verb}, the first: memory: ")), "{error}");
        answer.hints("smaller model");
    }
    sweep.run("out", &[]);
    let results = sweep.json("out");
    assert_eq!(cells(&results).len(), 2);
    // A dry run has them in the order in which they fail, a report in that of the plan.
    let of = |list: &Value| -> Vec<Vec<Value>> {
        let fields = ["model", "text", "context", "protocol", "codec", "hint"];
        let list = list.as_array().unwrap().iter();
        let mut cells: Vec<Vec<Value>> =
            list.map(|cell| fields.map(|field| cell[field].clone()).to_vec()).collect();
        cells.sort_by_key(|cell| format!("{cell:?}"));
        cells
    };
    assert_eq!(of(&told["failed"]), of(&results["failed"]));

    let told = &text.stdout;
    let name = Path::new(model).file_name().unwrap().to_str().unwrap();
    let title = format!("{name} on builtin, context 8, protocol prefix fails: f16, int4-g64\n");
    assert!(told.contains(&title), "{told}");
    let (_, why) = told.split_once(&title).unwrap();
    let mut lines = why.lines();
    assert!(lines.next().unwrap().starts_with("  error: memory: expected at most "), "{told}");
    assert!(lines.next().unwrap().starts_with("  hint: take a smaller model"), "{told}");
    assert!(told.contains("\n2 cells: about "), "{told}");
    // Where nothing is left there is nothing to estimate.
    let nothing = sweep.run("out", &["--model", model, "--codec", "f16", "--dry-run"]);
    assert_eq!(nothing.status, Some(3), "{}", nothing.stderr);
    assert!(nothing.stdout.contains("fails: f16") && !nothing.stdout.contains("about"));
}

#[test]
fn a_report_can_be_made_again_for_another_limit() {
    let sweep = Sweep::new(CONFIG);
    sweep.results("out", &[]);
    let verdicts = |folder: &str| -> Vec<String> {
        let results = sweep.json(folder);
        cells(&results).iter().map(|cell| cell["verdict"].to_string()).collect()
    };
    let strict = ["--max-ppl-increase", "0", "--strict", "--json"];
    let answer = sweep.report(&["out"], "never", &strict).ends_with_result(1).json();
    assert_eq!(answer["max_ppl_increase"], 0.0);
    assert!(verdicts("never").iter().all(|verdict| verdict != "\"pass\""));
    sweep.report(&["out"], "x", &["--max-ppl-increase", "-5"]).is_refused(&["0 or more", "-5"]);
    sweep.report(&["out"], "always", &["--max-ppl-increase", "50", "--strict"]).succeeds();
    assert!(verdicts("always").iter().all(|verdict| verdict == "\"pass\""));

    // Two sweeps with limits of their own have none in common.
    fs::write(&sweep.config, format!("max_ppl_increase = 3{CONFIG}")).unwrap();
    sweep.results("other", &[]);
    sweep.report(&["out", "other"], "both", &[]).is_refused(&["different limits", "1 % and 3 %"]);
    sweep.report(&["out", "other"], "both", &["--max-ppl-increase", "2"]).succeeds();
    assert_eq!(sweep.json("both")["sweeps"].as_array().unwrap().len(), 2);
    assert_eq!(cells(&sweep.json("both")).len(), 10, "the same cells, once");
}

#[test]
fn a_folder_without_a_sweep_is_refused() {
    let sweep = Sweep::new(CONFIG);
    sweep.report(&["nowhere"], "out", &[]).is_refused(&["nowhere"]);
    fs::create_dir(sweep.path("empty")).unwrap();
    sweep.report(&["empty"], "out", &[]).is_refused(&["empty", "plan.json"]);
    for bytes in ["", "{}", "\0\0", "[1]", "{\"schema\":\"kvgauge.sweep-plan/9\"}"] {
        fs::write(sweep.path("empty").join("plan.json"), bytes).unwrap();
        sweep.report(&["empty"], "out", &[]).is_refused(&["plan.json"]);
    }
    assert!(!sweep.path("out").exists());
}

/// The table is printed, and the path of the rest.
#[test]
fn the_table_is_on_stdout_and_progress_is_not() {
    let sweep = Sweep::new(CONFIG);
    let answer = sweep.run("out", &[]);
    assert_eq!(answer.stdout.matches("int4-g64").count(), 2 + 2, "{}", answer.stdout);
    assert!(answer.stdout.trim_end().ends_with("report.html"), "{}", answer.stdout);
    assert_eq!(answer.stderr.lines().count(), 10, "{}", answer.stderr);
    let json = sweep.run("out", &["--json"]).json();
    assert_eq!(json, sweep.json("out"));
    assert_eq!(json["schema"], "kvgauge.sweep/1");
    // Without --output, beside the reader: under the config's name.
    let mut command = kvgauge();
    command.current_dir(sweep.folder.path()).args(["sweep", "sweep.toml", "--context", "96"]);
    assert_eq!(run_command(command).status, Some(0));
    assert!(Path::new(&sweep.path("results/sweep/report.md")).is_file());
}

/// The folder of a sweep that version 1 of the logs wrote: every file that follows from it is the
/// same byte for byte, and so it is with lines of this version beside them.
#[test]
fn a_folder_of_version_1_is_read_for_ever() {
    let sweep = Sweep::new(
        "model = \"builtin\"\ncontext = 16\nwindows = 3\nprotocol = \"prefix\"\ncodec = \"q8_0\"",
    );
    let golden = Path::new("tests/data/sweep-v1");
    fs::create_dir(sweep.path("old")).unwrap();
    for file in ["plan.json", "cells.jsonl"] {
        fs::copy(golden.join(file), sweep.path("old").join(file)).unwrap();
    }
    let answer = sweep.report(&["old"], "new", &[]);
    assert_eq!((answer.status, answer.stderr.as_str()), (Some(0), ""));
    for file in ["results.json", "results.csv", "report.md"] {
        assert!(sweep.read("new", file) == fs::read(golden.join(file)).unwrap(), "{file}");
    }
    sweep.results("old", &[]);
    assert_eq!((sweep.lines("old"), cells(&sweep.json("old")).len()), (7, 4));
}

/// A log line with its checksum.
fn logged(record: &Value) -> String {
    let record = record.to_string();
    let crc32 = crc32fast::hash(record.as_bytes());
    format!("{{\"crc32\":\"{crc32:08x}\",\"record\":{record}}}\n")
}

/// What was called fp8-e4m3 is fp8-e4m3-per-tensor now, and another codec has its name: a sweep that a
/// former version began goes on, no finished cell is lost, and none passes for another codec's.
#[test]
fn a_folder_of_former_codec_names() {
    let settings = "model = \"builtin\"\ncontext = 32\nwindows = 2\nprotocol = \"prefix\"\n";
    let sweep = Sweep::new(&format!("{settings}codec = [\"f16\", \"fp8-e4m3-per-tensor\"]"));
    sweep.results("out", &[]);
    let before = sweep.json("out");
    // As that version wrote them: ids are made of the name that the codec had then.
    let log = sweep.path("out").join("cells.jsonl");
    let lines = fs::read_to_string(&log).unwrap();
    let former = |line: &str| -> String {
        let record = &serde_json::from_str::<Value>(line).unwrap()["record"];
        let record = record.to_string().replace("fp8-e4m3-per-tensor", "fp8-e4m3");
        logged(&serde_json::from_str(&record.replace("sweep-cell/3", "sweep-cell/2")).unwrap())
    };
    fs::write(&log, lines.lines().map(former).collect::<String>()).unwrap();
    let path = sweep.path("out").join("plan.json");
    let plan = fs::read_to_string(&path).unwrap().replace("fp8-e4m3-per-tensor", "fp8-e4m3");
    fs::write(&path, plan.replace("sweep-plan/2", "sweep-plan/1")).unwrap();
    fs::remove_file(sweep.path("out").join("results.json")).unwrap();

    // Read as what it is, and the settings as they would be written today.
    let answer = sweep.report(&["out"], "read", &[]);
    assert_eq!((answer.status, answer.stderr.as_str()), (Some(0), ""));
    let read = sweep.json("read");
    assert_eq!(cells(&read), cells(&before));
    let config = &read["sweeps"][0]["config"];
    assert!(config.as_str().unwrap().contains("\"fp8-e4m3-per-tensor\""), "{config}");
    // Gone on with, by its name of today.
    assert!(sweep.run("out", &[]).stderr.contains("2 cells are there already"));
    // The codec that has the name now is computed, beside the other.
    fs::write(&sweep.config, format!("{settings}codec = \"fp8-e4m3\"")).unwrap();
    sweep.results("out", &[]);
    let results = sweep.json("out");
    let all = cells(&results);
    let of = |codec: &str| -> Vec<&&Value> {
        all.iter().filter(|cell| cell["codec"] == codec).collect()
    };
    let (new, old) = (of("fp8-e4m3"), of("fp8-e4m3-per-tensor"));
    assert_eq!((all.len(), new.len(), old.len()), (3, 1, 1));
    assert_ne!(new[0]["id"], old[0]["id"]);
    assert_ne!(new[0]["kld_mean"], old[0]["kld_mean"]);
}

/// A field that a later version adds costs no cell, and a later version's line is told by its name.
#[test]
fn lines_of_later_versions() {
    let sweep = Sweep::new(
        "model = \"builtin\"\ncontext = 32\nwindows = 2\nprotocol = \"prefix\"\ncodec = [\"f16\", \"int4-g64\"]",
    );
    let results = sweep.results("out", &[]);
    let log = sweep.path("out").join("cells.jsonl");
    let lines = fs::read_to_string(&log).unwrap();
    let mut records: Vec<Value> =
        lines.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["record"].take()).collect();
    records[0]["measured"]["windows"][0]["entropy"] = serde_json::json!([1.5]);
    records[0]["rating"] = 5.into();
    fs::write(&log, records.iter().map(logged).collect::<String>()).unwrap();
    let answer = sweep.report(&["out"], "more", &[]);
    assert_eq!((answer.status, answer.stderr.as_str()), (Some(0), ""));
    assert!(sweep.read("more", "results.json") == results);
    // Nothing is computed again.
    assert!(sweep.run("out", &[]).stderr.contains("2 cells are there already"));

    records[1]["schema"] = "kvgauge.sweep-cell/9".into();
    fs::write(&log, records.iter().map(logged).collect::<String>() + "{\"crc32\":\"0").unwrap();
    let answer = sweep.report(&["out"], "fewer", &[]);
    assert_eq!(answer.status, Some(0));
    for told in ["one line is of version kvgauge.sweep-cell/9", "one line is torn or damaged"] {
        assert!(answer.stderr.contains(told), "{}", answer.stderr);
    }
    assert_eq!(cells(&sweep.json("fewer")).len(), 1);
}

/// `kvgauge figures` on what the log holds has the figures and verdicts of the sweep.
#[test]
fn figures_of_a_measurement_are_those_of_the_sweep() {
    let sweep = Sweep::new(
        "model = \"builtin\"\ncontext = 32\nwindows = 9\nprotocol = \"decode\"\nresidual = 4\nchunk = 4\ncodec = [\"int3-g64\", \"kvgauge4\"]",
    );
    let limits = ["--max-kld", "0.001", "--min-top1", "0.9"];
    sweep.results("out", &limits);
    let lines = fs::read_to_string(sweep.path("out").join("cells.jsonl")).unwrap();
    let records: Vec<Value> =
        lines.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["record"].take()).collect();
    let measurement = serde_json::json!({
        "schema": "kvgauge.measurement/1",
        "subject": records[0]["subject"],
        "baseline": records[0]["baseline"],
        "codecs": records.iter().map(|record| &record["measured"]).collect::<Vec<_>>(),
    });
    let path = sweep.path("measurement.json");
    let figures = |measurement: &Value, flags: &[&str]| {
        fs::write(&path, measurement.to_string()).unwrap();
        let mut command = kvgauge();
        command.arg("figures").arg(&path).args(flags);
        run_command(command)
    };
    let found = figures(&measurement, &[&limits[..], &["--json"]].concat()).json();
    let results = sweep.json("out");
    let subject = &results["subjects"][0];
    assert_eq!(found["schema"], "kvgauge.figures/1");
    assert_eq!(found["baseline"], subject["baseline"]);
    for (ours, cell) in found["codecs"].as_array().unwrap().iter().zip(cells(&results)) {
        for (key, value) in ours.as_object().unwrap() {
            assert_eq!(*value, cell[key], "{key}");
        }
    }
    let table = figures(&measurement, &["--strict"]);
    assert_eq!(table.status, Some(1));
    assert!(table.stdout.contains("int3-g64: ") && table.stdout.contains("kvgauge4"));

    let with = |pointer: &str, value: Value| {
        let mut odd = measurement.clone();
        *odd.pointer_mut(pointer).unwrap() = value;
        odd
    };
    for (odd, says) in [
        (with("/schema", "kvgauge.measurement/7".into()), "kvgauge.measurement/7"),
        (with("/baseline", serde_json::json!([])), "found 0"),
        (with("/subject/windows", 3.into()), "expected 3 windows"),
        (with("/codecs/1/windows/4/nll", serde_json::json!([1.0])), "of one length"),
        (with("/codecs/1/windows/4/layers", serde_json::json!([])), "codec kvgauge4: window 4"),
        (with("/codecs", serde_json::json!([])), "at least one window and one codec"),
        (serde_json::json!([1]), "kvgauge.measurement/1"),
    ] {
        figures(&odd, &[]).is_refused(&["measurement.json", says]);
    }
}
