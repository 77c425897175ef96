//! `kvgauge tune`.

use super::flags::{EvaluationFlags, OUTPUT, SubjectFlags};
use super::live::SweepProgress;
use super::progress::{DownloadBars, TerminalProgress};
use super::submit::command_line;
use super::{Outcome, output, sweep};
use crate::codec::split_names;
use crate::corpus::TextSource;
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::hub::{Hub, HubOptions};
use crate::report::{self, tuning_table};
use crate::results::tuning::Budget;
use crate::run::tune::{self, DEFAULT_UNSEEN, DEFAULT_WINDOWS, Request};
use crate::settings::{
    ConfigFile, Given, Location, RawSettings, Settings, Value, WindowCount, distinct,
};
use clap::error::Error as ClapError;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The arguments of `kvgauge tune`.
#[derive(Args)]
#[command(after_help = "Prints a name for --codec everywhere, such as q4_0+q8_0@0,-1.

Examples:
  kvgauge tune builtin --bits 4
  kvgauge tune OWNER/NAME --max-kld 0.01 --candidate q4_0,q8_0 --dry-run
  kvgauge tune model.gguf my-prompts.txt --bits 5 --engine llama.cpp")]
pub struct Arguments {
    /// The model, as behind --model
    #[arg(value_name = "MODEL")]
    model_word: Option<String>,
    /// The text, as behind --text
    #[arg(value_name = "TEXT", value_parser = TextSource::parser())]
    text_word: Option<TextSource>,
    /// Budget in bits a value, such as 4: the least damage within them is looked for. Without it,
    /// --max-kld is the budget: the fewest bytes within that damage
    ///
    /// 16 is an uncompressed cache; tokens that are kept exact count in.
    #[arg(long, value_name = "B")]
    bits: Option<f64>,
    /// Codec that a layer's keys or values may get, such as q4_0; repeat for several, or put commas
    /// between [default: five of 2 to 8.5 bits; with --engine, that engine's]
    #[arg(long, value_name = "NAME")]
    candidate: Vec<String>,
    /// Windows behind those of --windows, on which the codec that was found is checked
    #[arg(long, value_name = "N", default_value_t = DEFAULT_UNSEEN)]
    validate_windows: usize,
    /// Folder for the result, and for the logs from which a run that was stopped goes on
    /// [default: results/tune-NAME for the model's NAME]
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    output: Option<PathBuf>,
    /// Measure nothing: estimate time and memory, and refuse what does not fit into memory
    #[arg(long)]
    dry_run: bool,
    /// Replace files in the output folder that kvgauge did not write, and go on in the folder of
    /// another tuning
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
    /// Print one JSON object instead of tables
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
    /// Print one line instead of tables, for a CI log
    #[arg(long, conflicts_with = "json", help_heading = OUTPUT)]
    summary: bool,
    #[command(flatten)]
    subject: SubjectFlags,
    #[command(flatten)]
    evaluation: TuneFlags,
    /// Read settings from a TOML file: keys are long flags with underscores, its codecs the candidates;
    /// flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// [`EvaluationFlags`] whose help says what they are to `tune`.
struct TuneFlags(EvaluationFlags);

impl Args for TuneFlags {
    fn augment_args(command: Command) -> Command {
        let windows = format!("Windows to measure each part on [default: {DEFAULT_WINDOWS}]");
        let engine = "Candidates of an engine: llama.cpp for all its codecs, llama.cpp:q4_0 for the one that its \
                      own flag calls q4_0";
        let max_kld = "Limit: largest accepted mean KL divergence, in nats a token, such as 0.01; without --bits, \
                       the budget [default: none]";
        EvaluationFlags::augment_args(command)
            // Under its own name here.
            .mut_arg("codec", |argument| argument.hide(true))
            .mut_arg("engine", |argument| argument.help(engine).long_help(engine))
            .mut_arg("max_kld", |argument| argument.help(max_kld).long_help(max_kld))
            .mut_arg("windows", |argument| argument.value_name("N").help(windows))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TuneFlags {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, ClapError> {
        Ok(Self(EvaluationFlags::from_arg_matches(matches)?))
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), ClapError> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Arguments {
    /// Measures, assigns, checks, writes and prints.
    pub fn run(self) -> Result<Outcome> {
        let (json, summary) = (self.json, self.summary);
        let (dry_run, bits) = (self.dry_run, self.bits);
        let (unseen_windows, force) = (self.validate_windows, self.force);
        let (output, config) = (self.output.clone(), self.config.clone());
        if unseen_windows == 0 {
            return Err(Error::input("--validate-windows: expected at least 1, found 0")
                .hint("what is found has to be checked on windows that nothing was chosen on"));
        }
        let raw = self.into_raw()?;
        let named_candidates = !raw.codec.is_empty() || !raw.engine.is_empty();
        let settings = Settings::resolve(raw)?;
        let request = Request {
            named_candidates,
            budget: budget(bits, &settings)?,
            unseen_windows,
            command: command_line(std::env::args_os()),
            output: output.unwrap_or_else(|| default_output(&settings.model)),
            force,
            settings,
        };
        sweep::check_inputs(
            &request.output,
            std::slice::from_ref(&request.settings),
            config.as_deref(),
        )?;
        if !dry_run {
            output::on_interrupt(output::kept_in(&request.output));
        }
        super::use_threads(request.settings.threads)?;
        let options = HubOptions::from_env(request.settings.offline);
        let hub = Hub::new(options, Arc::new(DownloadBars::new()))?;
        if dry_run {
            let mut progress = TerminalProgress::new();
            let estimate = tune::dry_run(&request, &hub, &mut progress);
            progress.clear();
            output::print_estimate(&estimate?, json, "codec")?;
            return Ok(Outcome::Done);
        }
        let mut progress = SweepProgress::of_many();
        let tuning = tune::run(&request, &hub, &mut progress);
        progress.clear();
        let tuning = tuning?;

        let written = tune::write_results(&tuning, &request);
        // A long run is told even where its files cannot be written any more.
        let print = if json || summary { output::print } else { output::print_text };
        let shown = tuning.for_people();
        let table = || tuning_table::render(&shown, output::stdout_width());
        print(&match &written {
            _ if json => report::json(&tuning)?,
            _ if summary => report::summary::of_tuning(&shown),
            Ok([result, picture]) => format!(
                "{}\nresult: {}\npicture: {}\n",
                table(),
                result.display(),
                picture.display()
            ),
            Err(_) => table(),
        })?;
        written?;
        Ok(match request.settings.strict && tuning.misses_limit() {
            true => Outcome::LimitMissed,
            false => Outcome::Done,
        })
    }

    /// Words and flags over file.
    fn into_raw(self) -> Result<RawSettings> {
        let mut flags = self.subject.into_raw()?.or(self.evaluation.0.into_raw()?);
        word("MODEL", self.model_word, &mut flags.model)?;
        word("TEXT", self.text_word, &mut flags.text)?;
        let located = |e: Error| Location::Flag("--candidate").locate(e);
        for names in self.candidate {
            let codecs = split_names(&names).into_iter().map(str::parse::<Treatment>);
            let codecs = codecs.collect::<Result<Vec<_>>>().map_err(located)?;
            flags.codec.extend(codecs.into_iter().map(|codec| Given::flag("--candidate", codec)));
        }
        flags.codec = distinct(flags.codec)?;
        let file = match &self.config {
            Some(path) => {
                ConfigFile::read(path)
                    .map_err(|e| e.hint("--config takes a TOML file; see configs/"))?
                    .raw
            }
            None => RawSettings::default(),
        };
        let mut raw = flags.or(file);
        if raw.windows.is_empty() {
            raw.windows.push(Given::flag("--windows", WindowCount::AtMost(DEFAULT_WINDOWS)));
        }
        Ok(raw)
    }
}

/// Adds a word without a flag to the values of its setting.
fn word<T: Value>(name: &'static str, word: Option<T>, given: &mut Vec<Given<T>>) -> Result<()> {
    match (word, given.first()) {
        (Some(_), Some(Given { location, .. })) => {
            Err(Error::input(format!("expected one {name}, found {location} beside the word"))
                .hint("leave one of the two out"))
        }
        (Some(value), None) => {
            given.push(Given::flag(name, value));
            Ok(())
        }
        (None, _) => Ok(()),
    }
}

fn budget(bits: Option<f64>, settings: &Settings) -> Result<Budget> {
    match (bits, settings.max_kld) {
        (Some(bits), _) if (1.0..=16.0).contains(&bits) => Ok(Budget::Bits(bits)),
        (Some(bits), _) => {
            Err(Error::input(format!("--bits: expected 1 to 16 bits a value, found {bits}"))
                .hint("4 is a quarter of f16"))
        }
        (None, Some(kld)) => Ok(Budget::MaxKld(kld)),
        (None, None) => Err(Error::input("expected --bits or --max-kld, found neither").hint(
            "--bits 4 asks for the least damage within four bits a value, --max-kld 0.01 for the \
             fewest bits within that damage",
        )),
    }
}

/// By the last part of a model's path or name, without what a shell or a file system minds.
fn default_output(model: &str) -> PathBuf {
    let last = Path::new(model).file_name().unwrap_or_default().to_string_lossy();
    let last = last.strip_suffix(".gguf").unwrap_or(&last);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    Path::new("results").join(format!("tune-{}", last.chars().map(plain).collect::<String>()))
}
