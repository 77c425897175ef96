//! `kvgauge completions` and `kvgauge man`: from the command line's own definitions.

use super::{Cli, Outcome, output};
use crate::error::{Error, Result};
use crate::whole_file::{self, Existing, Kind, MANUAL_MARK};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::path::PathBuf;

/// The arguments of `kvgauge completions`.
#[derive(Args)]
#[command(after_help = "bash: source <(kvgauge completions bash)\n\
    zsh: source <(kvgauge completions zsh)\n\
    fish: kvgauge completions fish | source")]
pub struct CompletionsArguments {
    /// Shell that reads them
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// The arguments of `kvgauge man`.
#[derive(Args)]
pub struct ManArguments {
    /// Folder for kvgauge.1 and a page for each command, such as ~/.local/share/man/man1
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Replace files that kvgauge did not write; its own are replaced without
    #[arg(long)]
    force: bool,
}

impl CompletionsArguments {
    /// Prints the script.
    pub fn run(self) -> Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "kvgauge", &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(Outcome::Done)
    }
}

impl ManArguments {
    /// Writes the pages, each whole or not at all.
    pub fn run(self) -> Result<Outcome> {
        if !self.folder.is_dir() {
            return Err(Error::input(format!(
                "{}: expected a folder for the manual's pages, found none",
                self.folder.display()
            ))
            .hint("make it first: mkdir -p, for instance ~/.local/share/man/man1"));
        }
        let mut command = Cli::command().disable_help_subcommand(true);
        // Gives commands the names that their pages have.
        command.build();
        let pages = std::iter::once(&command).chain(command.get_subcommands());
        let mut told = String::new();
        for page in pages.map(|command| Man::new(command.clone())) {
            let mut text = MANUAL_MARK.as_bytes().to_vec();
            page.render(&mut text).map_err(|e| Error::system(format!("the manual: {e}")))?;
            let path = self.folder.join(page.get_filename());
            whole_file::write(&path, &text, Existing::own(Kind::Manual, self.force))?;
            told.push_str(&format!("{}\n", path.display()));
        }
        output::print(&told)?;
        Ok(Outcome::Done)
    }
}
