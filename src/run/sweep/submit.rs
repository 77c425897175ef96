//! A sweep for a scheduler: an array of its parts, and a job behind it that puts them together.
//!
//! Parts share the output folder, each with files of its own, so that a part that is killed, requeued or
//! run twice goes on from its log or finds nothing left to do. The report is made when all parts have
//! ended, whichever way.

use crate::error::{Error, Result};
use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A sweep that is to be cut into parts.
pub struct Job {
    /// This program.
    pub program: PathBuf,
    /// What a part is run with, but which part it is: `sweep`, the config, flags.
    pub words: Vec<String>,
    /// The folder that all parts write to, and the report.
    pub output: PathBuf,
    /// The first cells of the parts after the first.
    pub cuts: Vec<usize>,
    /// Whether files that kvgauge did not write are replaced.
    pub force: bool,
    /// Whether the request says how many threads.
    pub has_threads: bool,
    /// The scheduler's own, for both jobs.
    pub options: Vec<String>,
}

/// Ids of what was submitted.
pub struct Submitted {
    /// Of the array of parts.
    pub parts: String,
    /// Of the report.
    pub report: String,
}

impl Job {
    /// The number of parts.
    pub fn parts(&self) -> usize {
        self.cuts.len() + 1
    }

    /// Of the jobs.
    pub fn name(&self) -> String {
        let folder = self.output.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
        let name: String = folder.chars().map(plain).take(32).collect();
        format!("kvgauge-{name}").trim_end_matches('-').into()
    }

    /// Refuses what no script can hold.
    ///
    /// # Errors
    /// A folder whose name would end a line of a script; an array of the user's own.
    pub fn check(&self) -> Result<()> {
        let folder = self.output.display().to_string();
        if folder.chars().any(|c| c.is_control() || c == '\\') {
            return Err(Error::input(format!(
                "--output: expected a name without control characters and backslashes, found {folder:?}"
            ))
            .hint("it stands in the jobs' scripts"));
        }
        let own = |option: &&String| option.starts_with("--array") || option.starts_with("-a");
        match self.options.iter().find(own) {
            Some(option) => Err(Error::input(format!(
                "{option}: expected options other than --array, which the parts are"
            ))
            .hint("--shards N says how many")),
            None => Ok(()),
        }
    }

    /// The script of the array (sbatch(1)).
    pub fn slurm_parts(&self) -> String {
        let parts = self.parts();
        format!(
            "#!/bin/sh\n\
             # The folder of its logs has to be there: mkdir -p {}\n\
             #SBATCH --job-name={}\n\
             #SBATCH --array=1-{parts}\n\
             #SBATCH --requeue\n\
             #SBATCH --open-mode=append\n\
             {}\
             exec {} --shard \"$SLURM_ARRAY_TASK_ID/{parts}\"{}\n",
            quoted(&self.output.display().to_string()),
            self.name(),
            self.slurm_log("part-%a"),
            self.command(self.words.iter().chain(&self.output_words()).chain(&self.cut_words())),
            self.slurm_threads(),
        )
    }

    /// The script of the report, which starts when the array has ended.
    pub fn slurm_report(&self) -> String {
        format!(
            "#!/bin/sh\n\
             # When the parts have ended: sbatch --dependency=afterany:ID\n\
             #SBATCH --job-name={}-report\n\
             {}\
             exec {}\n",
            self.name(),
            self.slurm_log("report"),
            self.command(&self.report_words()),
        )
    }

    /// As many threads as a task was given cores, where the request leaves it open.
    fn slurm_threads(&self) -> &'static str {
        match self.has_threads {
            true => "",
            false => " ${SLURM_CPUS_PER_TASK:+--threads \"$SLURM_CPUS_PER_TASK\"}",
        }
    }

    /// Hands both to Slurm.
    ///
    /// # Errors
    /// `sbatch` that is not there, or refuses one of them; a report that is refused is not lost with its
    /// parts: the error says how to make it.
    pub fn submit_to_slurm(&self) -> Result<Submitted> {
        let parts = sbatch(&self.options, &[], &self.slurm_parts())?;
        let after = format!("--dependency=afterany:{parts}");
        let report = sbatch(&self.options, &[after], &self.slurm_report()).map_err(|error| {
            error
                .within(format!("the parts are job {parts}, the report was not submitted"))
                .hint(format!("when they have ended: {}", self.command(&self.report_words())))
        })?;
        Ok(Submitted { parts, report })
    }

    /// An indexed job of the parts, and a suspended one of the report, as JSON that `kubectl apply -f -`
    /// takes (batch/v1). Options are the image, and the volume claim that holds the folder that this
    /// runs in, under the same path.
    ///
    /// # Errors
    /// Options other than these, or one that is missing.
    pub fn kubernetes(&self) -> Result<Json> {
        let (mut image, mut claim) = (None, None);
        for option in &self.options {
            match option.split_once('=') {
                Some(("image", value)) if !value.is_empty() => image = Some(value),
                Some(("claim", value)) if !value.is_empty() => claim = Some(value),
                _ => return Err(expected_of_kubernetes(option)),
            }
        }
        let image = image.ok_or_else(|| expected_of_kubernetes("no image"))?;
        let claim = claim.ok_or_else(|| expected_of_kubernetes("no claim"))?;
        let folder = std::env::current_dir()
            .map_err(|e| Error::system(format!("the folder that this runs in: {e}")))?;
        if !self.output.starts_with(&folder) {
            return Err(Error::input(format!(
                "--output: expected a folder below {}, which the claim holds, found {}",
                folder.display(),
                self.output.display()
            ))
            .hint("parts write to it, and the report reads it"));
        }
        let folder = folder.display().to_string();
        let pod = |command: Vec<String>| {
            // Kubernetes puts variables in for $(NAME).
            let command: Vec<String> = command.iter().map(|word| word.replace('$', "$$")).collect();
            json!({
                "restartPolicy": "Never",
                "containers": [{
                    "name": "kvgauge",
                    "image": image,
                    "command": command,
                    "workingDir": folder,
                    "volumeMounts": [{ "name": "folder", "mountPath": folder }],
                }],
                "volumes": [{ "name": "folder", "persistentVolumeClaim": { "claimName": claim } }],
            })
        };
        let name = self.name().to_ascii_lowercase();
        let report_name = format!("{name}-report");
        let parts = self.parts();
        let program = || vec!["kvgauge".to_string()];
        let mut part = [program(), self.words.clone(), self.output_words()].concat();
        part.extend(["--shard", "auto", "--shards"].map(String::from));
        part.push(parts.to_string());
        part.extend(self.cut_words());
        let next = format!(
            "until kubectl get job {name} -o 'jsonpath={{.status.conditions[*].type}}' | \
             grep -qwE 'Complete|Failed'; do sleep 10; done; \
             kubectl patch job {report_name} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'"
        );
        Ok(json!({
            "apiVersion": "v1",
            "kind": "List",
            "items": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "metadata": { "name": name },
                    "spec": {
                        "completionMode": "Indexed",
                        "completions": parts,
                        "parallelism": parts,
                        // A part whose cells fail does not end the others.
                        "backoffLimitPerIndex": 3,
                        "maxFailedIndexes": parts,
                        "template": { "spec": pod(part) },
                    },
                },
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "metadata": { "name": report_name, "annotations": { "kvgauge/start-with": next } },
                    "spec": {
                        "suspend": true,
                        "backoffLimit": 0,
                        "template": { "spec": pod([program(), self.report_words()].concat()) },
                    },
                },
            ],
        }))
    }

    /// Of a part, without which one it is.
    fn output_words(&self) -> Vec<String> {
        vec!["--output".into(), self.output.display().to_string()]
    }

    fn cut_words(&self) -> Vec<String> {
        let cuts: Vec<String> = self.cuts.iter().map(usize::to_string).collect();
        match cuts.is_empty() {
            true => Vec::new(),
            false => vec!["--cuts".into(), cuts.join(",")],
        }
    }

    fn report_words(&self) -> Vec<String> {
        let folder = self.output.display().to_string();
        let mut words = vec!["report".into(), folder.clone(), "--output".into(), folder];
        words.extend(self.force.then(|| "--force".to_string()));
        words
    }

    /// A command line of this program.
    fn command<'a>(&self, words: impl IntoIterator<Item = &'a String>) -> String {
        let mut line = quoted(&self.program.display().to_string());
        for word in words {
            line.push(' ');
            line.push_str(&quoted(word));
        }
        line
    }

    fn slurm_log(&self, stem: &str) -> String {
        let path = self.output.join(format!("slurm-{stem}.log")).display().to_string();
        // A % of the folder's name is none of sbatch's.
        let (folder, file) = path.split_at(path.len() - stem.len() - "slurm-.log".len());
        format!("#SBATCH --output={}\n", quoted(&format!("{}{file}", folder.replace('%', "%%"))))
    }
}

fn expected_of_kubernetes(found: &str) -> Error {
    Error::input(format!("--submit kubernetes: expected image=NAME claim=NAME, found {found}")).hint(
        "behind --: the image that has kvgauge, and the persistent volume claim that holds the folder \
         that you are in",
    )
}

/// Hands a script to sbatch(1); returns the job's id.
fn sbatch(options: &[String], own: &[String], script: &str) -> Result<String> {
    let system = |what: String| {
        Error::system(format!("sbatch: {what}"))
            .hint("--dry-run prints the scripts, for a machine that submits to Slurm")
    };
    let mut child = Command::new("sbatch")
        .arg("--parsable")
        .args(options)
        .args(own)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| system(e.to_string()))?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(script.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(|e| system(e.to_string()))?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(system(stderr.trim().into()));
    }
    written.map_err(|e| system(e.to_string()))?;
    // With --parsable: the id, and behind a semicolon the cluster.
    let id = stdout.trim().split(';').next().unwrap_or_default();
    match id.chars().all(|c| c.is_ascii_digit()) && !id.is_empty() {
        true => Ok(id.into()),
        false => Err(system(format!("expected a job's id, found {:?}", stdout.trim()))),
    }
}

/// As a shell takes it for one word.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
