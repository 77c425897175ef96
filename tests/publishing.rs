//! Results where people talk: one line for a log, a badge, a model card; and the command line in shells
//! and manuals.

#[allow(dead_code)]
#[path = "common/cli.rs"]
mod cli;
#[path = "common/folder.rs"]
mod folder;
#[path = "common/skip.rs"]
mod skip;

use cli::{good_with, kvgauge, run, run_command};
use folder::names_in;
use serde_json::Value;
use skip::skip;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary folders have UTF-8 names")
}

/// The larger mean KLD of both protocols, as it is written for people.
fn kld(result: &Value, codec: usize) -> String {
    let of = |result: &Value| result["codecs"][codec]["kld_mean"].as_f64().unwrap();
    let larger = of(result).max(of(&result["decode"]));
    if larger < 0.001 { format!("{larger:.1e}") } else { format!("{larger:.4}") }
}

#[test]
fn a_summary_is_one_line() {
    let codecs = ["--codec", "f16,int2-g64,int4-g64-ctr", "--max-ppl-change", "0.2"];
    let line = good_with(&[&codecs[..], &["--summary"]].concat()).succeeds().stdout;
    let result = good_with(&[&codecs[..], &["--json"]].concat()).succeeds().json();
    assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
    let begins = "kvgauge: builtin on builtin, 2 windows of 64 tokens: 1 of 3 codecs pass within \
                  ±0.2 % perplexity under prefix and decode; pass: f16 (16.00 bits, KLD ";
    assert!(line.starts_with(begins), "{line}");
    let worst = format!("int2-g64 (2.25 bits, KLD {})", kld(&result, 1));
    assert!(line.contains(&worst), "{worst} in {line}");
    assert!(
        line.contains("; no verdict: int4-g64-ctr (4.26 bits")
            || line.contains("no verdict: int4-g64-ctr"),
        "{line}"
    );
    good_with(&["--summary", "--json"]).is_refused(&["--summary", "--json"]);
    let strict = ["--summary", "--strict", "--max-ppl-change", "0", "--protocol", "prefix"];
    let missed = good_with(&strict).ends_with_result(1).stdout;
    assert!(
        missed.contains(": 0 of 1 codec passes within ±0 % perplexity under prefix; "),
        "{missed}"
    );

    let folder = TempDir::new().unwrap();
    let config = folder.path().join("x.toml");
    fs::write(&config, "model = \"builtin\"\ncontext = [64, 96]\nwindows = 4\ncodec = [\"q8_0\"]")
        .unwrap();
    let output = folder.path().join("out");
    let sweep = ["sweep", utf8(&config), "--output", utf8(&output), "--summary"];
    let answer = run(&[&sweep[..], &["--max-ppl-change", "50"]].concat());
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", answer.stdout);
    let begins =
        "kvgauge: builtin on builtin, 4 windows of 64 tokens: recommended: q8_0 (8.50 bits, KLD ";
    assert!(lines[0].starts_with(begins), "{}", lines[0]);
    assert!(
        lines[1].ends_with(", within ±50 % perplexity under prefix and decode"),
        "{}",
        lines[1]
    );
    // A badge of each.
    for (at, name) in ["1-badge", "2-badge"].iter().enumerate() {
        let json: Value =
            serde_json::from_slice(&fs::read(output.join(format!("{name}.json"))).unwrap())
                .unwrap();
        let results: Value =
            serde_json::from_slice(&fs::read(output.join("results.json")).unwrap()).unwrap();
        let subject = &results["subjects"][at];
        let of = |part: &Value| part["cells"][0]["kld_mean"].as_f64().unwrap();
        let larger = of(subject).max(of(&subject["decode"]));
        let shown = if larger < 0.001 { format!("{larger:.1e}") } else { format!("{larger:.4}") };
        assert_eq!(json["message"], format!("pass, KLD {shown}"));
        assert!(
            fs::read_to_string(output.join(format!("{name}.svg"))).unwrap().starts_with("<svg")
        );
    }
}

#[test]
fn a_badge_is_a_picture_or_what_a_service_reads() {
    let folder = TempDir::new().unwrap();
    let [svg, json] = ["badge.svg", "badge.json"].map(|name| folder.path().join(name));
    let lax = ["--codec", "q8_0,int4-g64,f16", "--max-ppl-change", "1000", "--json"];
    let result = good_with(&[&lax[..], &["--badge", utf8(&json)]].concat()).succeeds().json();
    let badge: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    // The fewest bits of those that pass.
    let expected = serde_json::json!({
        "schemaVersion": 1,
        "label": "KV cache int4-g64",
        "message": format!("pass, KLD {}", kld(&result, 1)),
        "color": "brightgreen",
    });
    assert_eq!(badge, expected);
    let tight = ["--codec", "int4-g64,int2-g64", "--max-kld", "1e-9", "--max-ppl-change", "1000"];
    good_with(&[&tight[..], &["--badge", utf8(&svg)]].concat()).succeeds();
    let picture = fs::read_to_string(&svg).unwrap();
    let document = roxmltree::Document::parse(&picture).unwrap();
    let label = document.root_element().attribute("aria-label").unwrap();
    assert!(label.starts_with("KV cache int4-g64: fail, KLD "), "{label}");
    // Written again, but over nothing of others.
    good_with(&["--badge", utf8(&json)]).succeeds();
    fs::write(&svg, "<svg xmlns=\"http://www.w3.org/2000/svg\"/>").unwrap();
    good_with(&["--badge", utf8(&svg)]).is_refused(&["--badge", "badge.svg", "did not write"]);
    good_with(&["--badge", utf8(&folder.path().join("badge.png"))])
        .is_refused(&["--badge", ".svg or .json"]);
    let both = ["--badge", utf8(&json), "--output", utf8(&json)];
    good_with(&both).is_refused(&["--badge", "other than --output's"]);
    assert_eq!(names_in(folder.path()), ["badge.json", "badge.svg"]);
}

#[test]
fn a_model_card_has_a_result_for_each_codec_and_protocol() {
    let folder = TempDir::new().unwrap();
    let card = folder.path().join("card.yaml");
    let flags = ["--codec", "q8_0,int4-g64", "--json", "--model-card", utf8(&card)];
    let result = good_with(&flags).succeeds().json();
    let text = fs::read_to_string(&card).unwrap();
    assert!(
        text.contains("\nmodel-index:\n- name: \"builtin\"\n  results:\n  - task:\n"),
        "{text}"
    );
    for (key, count) in [
        ("\n      type: text-generation\n", 4),
        ("\n    dataset:\n      type: \"text\"\n      name: \"builtin\"\n", 4),
        ("\n    metrics:\n", 4),
        ("    - type: perplexity\n", 8),
        ("    - type: kl_divergence\n", 4),
        ("    - type: verdict\n", 4),
    ] {
        assert_eq!(text.matches(key).count(), count, "{key} in {text}");
    }
    let values: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("      value: ")).collect();
    assert_eq!(values.len(), 24);
    let number = |at: usize| values[at].parse::<f64>().unwrap();
    let codec = &result["decode"]["codecs"][1];
    assert_eq!(number(18), result["decode"]["baseline"]["perplexity"].as_f64().unwrap());
    assert_eq!(number(19), codec["perplexity"].as_f64().unwrap());
    assert_eq!(number(20), codec["kld_mean"].as_f64().unwrap());
    assert_eq!(number(22), 4.25);
    assert_eq!(values[23], codec["verdict"]);
    good_with(&["--model-card", utf8(&card)]).succeeds();
    fs::write(&card, "model-index: []\n").unwrap();
    good_with(&["--model-card", utf8(&card)]).is_refused(&["--model-card", "did not write"]);
}

/// What a program printed; `None` where it is not here, which is said.
fn output_of(what: &str, command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && errors.is_empty(), "{what}: {errors}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            skip(what, &error.to_string());
            None
        }
    }
}

/// Each shell reads the script, and is asked for a flag and a command.
#[test]
fn shells_complete_commands_and_flags() {
    let folder = TempDir::new().unwrap();
    let script = |shell: &str| {
        let path = folder.path().join(shell);
        fs::write(&path, run(&["completions", shell]).succeeds().stdout).unwrap();
        path
    };
    let bash = script("bash");
    let asked = "source \"$0\"; for word in \"$@\"; do COMP_WORDS=(kvgauge $word); \
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); \
        _kvgauge kvgauge \"${COMP_WORDS[-1]}\" \"${COMP_WORDS[-2]}\"; \
        printf '%s\\n' \"${COMPREPLY[@]}\"; done";
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", asked, utf8(&bash), "validate --max-k", "valid"]);
    let found = output_of("completions in bash", &mut command);
    assert!(found.is_none_or(|found| found == "--max-kld\nvalidate\n"));
    let fish = script("fish");
    let asked = format!(
        "source {}; complete -C 'kvgauge validate --max-k'; complete -C 'kvgauge valid'",
        utf8(&fish)
    );
    if let Some(found) =
        output_of("completions in fish", Command::new("fish").args(["--no-config", "-c", &asked]))
    {
        let names: Vec<&str> = found.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(names, ["--max-kld", "validate"], "{found}");
    }
    // A shell without a line to type on cannot be asked: a pseudo terminal is.
    let zsh = script("zsh");
    let asked = format!(
        "zmodload zsh/zpty; autoload -U compinit; \
         zpty z zsh -f -i; zpty -w z 'PROMPT=; autoload -U compinit; compinit -u -D; source {}; \
         bindkey \"^X\" list-choices; LISTMAX=999; echo ready'; \
         zpty -r z line '*ready*ready*'; zpty -w -n z $'kvgauge validate --max-k\\t'; \
         zpty -r z line '*--max-kld*'; print -r -- found",
        utf8(&zsh)
    );
    let mut command = Command::new("timeout");
    command.args(["20", "zsh", "-f", "-c", &asked]);
    match Command::new("zsh").arg("--version").output() {
        Ok(_) => {
            let found = output_of("completions in zsh", &mut command);
            assert!(found.is_none_or(|found| found.contains("found")));
        }
        Err(error) => skip("completions in zsh", &error.to_string()),
    }
    run(&["completions", "tcsh"]).is_refused(&["tcsh"]);
}

#[test]
fn man_pages_have_no_warnings() {
    let folder = TempDir::new().unwrap();
    let path = utf8(folder.path());
    run(&["man", path]).succeeds();
    let names = names_in(folder.path());
    for page in ["kvgauge.1", "kvgauge-validate.1", "kvgauge-sweep.1", "kvgauge-kv-compress.1"] {
        assert!(names.iter().any(|name| name == page), "{page} in {names:?}");
    }
    for name in &names {
        let mut command = Command::new("groff");
        command.args(["-ww", "-K", "utf8", "-man", "-Tutf8"]).arg(folder.path().join(name));
        let Some(text) = output_of("man pages", &mut command) else { return };
        // Bold letters are struck twice.
        let mut plain = String::new();
        for c in text.chars() {
            _ = if c == '\u{8}' {
                plain.pop().is_some()
            } else {
                plain.push(c);
                true
            };
        }
        let text = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("SYNOPSIS"), "{name}: {text}");
        if name == "kvgauge-validate.1" {
            assert!(
                text.contains("max-kld") && text.contains("largest accepted mean KL divergence"),
                "{text}"
            );
        }
    }
    run(&["man", path]).succeeds();
    fs::write(folder.path().join("kvgauge.1"), ".TH mine 1\n").unwrap();
    run(&["man", path]).is_refused(&["kvgauge.1", "did not write"]);
    let mut command = kvgauge();
    command.current_dir(&folder).args(["man", "absent"]);
    run_command(command).is_refused(&["absent", "expected a folder"]);
}
