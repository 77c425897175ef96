//! The flags of settings, made from the list of settings.

use crate::error::Result;
use crate::settings::{self, Given, Group, Location, RawSettings, Setting, Takes, Value, Visitor};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// The heading of flags about what is printed and written.
pub const OUTPUT: &str = "Output";

/// The place of rarely needed flags in the help: behind all others.
const LAST: usize = 100;

/// The flags of the settings of one [`Group`].
pub struct SettingFlags<const GROUP: u8> {
    matches: ArgMatches,
}

/// The model, its text, and where it runs.
pub type SubjectFlags = SettingFlags<{ Group::Subject as u8 }>;
/// How much of the text, which codecs, and their limits.
pub type EvaluationFlags = SettingFlags<{ Group::Evaluation as u8 }>;
/// The limits alone.
pub type LimitFlags = SettingFlags<{ Group::Limit as u8 }>;
/// Settings of `validate` alone.
pub type ValidateFlags = SettingFlags<{ Group::Validate as u8 }>;

impl<const GROUP: u8> SettingFlags<GROUP> {
    /// The values of the flags, each given by its flag.
    pub fn into_raw(self) -> Result<RawSettings> {
        let mut raw = RawSettings::default();
        raw.visit(&mut FlagReader::<GROUP> { matches: &self.matches })?;
        raw.codec = settings::distinct(raw.codec)?;
        Ok(raw)
    }
}

impl<const GROUP: u8> Args for SettingFlags<GROUP> {
    fn augment_args(command: Command) -> Command {
        let mut flags = Flags::<GROUP>(Vec::new());
        // Without values there is nothing to be wrong.
        _ = RawSettings::default().visit(&mut flags);
        command.args(flags.0)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const GROUP: u8> FromArgMatches for SettingFlags<GROUP> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        Ok(Self { matches: matches.clone() })
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        self.matches = matches.clone();
        Ok(())
    }
}

/// Whether the flags of `group` are among those named `GROUP`: limits belong to evaluations too.
fn is_in<const GROUP: u8>(group: Group) -> bool {
    group as u8 == GROUP || (group == Group::Limit && GROUP == Group::Evaluation as u8)
}

/// Collects the arguments of a group.
struct Flags<const GROUP: u8>(Vec<Arg>);

impl<const GROUP: u8> Visitor for Flags<GROUP> {
    fn setting<T: Value>(
        &mut self,
        setting: &'static Setting,
        _: &mut Vec<Given<T>>,
    ) -> Result<()> {
        if is_in::<GROUP>(setting.group) {
            self.0.push(argument::<T>(setting));
        }
        Ok(())
    }
}

fn argument<T: Value>(setting: &'static Setting) -> Arg {
    let mut argument = Arg::new(setting.key)
        .long(setting.flag.trim_start_matches("--"))
        .value_name(setting.value_name)
        .value_parser(T::parser())
        .allow_negative_numbers(T::SIGNED)
        .help_heading(setting.purpose.heading())
        .help(setting.help(T::SWITCH));
    if !setting.more.is_empty() {
        argument = argument.long_help(setting.long_help(T::SWITCH));
    }
    if let Some(older) = setting.older {
        argument = argument.visible_alias(older.flag);
    }
    if setting.takes == Takes::List {
        argument = argument.action(ArgAction::Append);
    }
    if T::SWITCH {
        let switch = argument.num_args(0..=1).default_missing_value("true");
        argument = switch.require_equals(!setting.spaced);
    }
    if setting.rare { argument.display_order(LAST) } else { argument }
}

/// Reads what clap parsed into the settings of a group.
struct FlagReader<'a, const GROUP: u8> {
    matches: &'a ArgMatches,
}

impl<const GROUP: u8> Visitor for FlagReader<'_, GROUP> {
    fn setting<T: Value>(
        &mut self,
        setting: &'static Setting,
        given: &mut Vec<Given<T>>,
    ) -> Result<()> {
        if !is_in::<GROUP>(setting.group) {
            return Ok(());
        }
        let values: Vec<T> = match T::FROM_TEXT {
            None => many(self.matches, setting.key).cloned().collect(),
            Some(read) => {
                let texts = many::<String>(self.matches, setting.key).map(|text| read(text));
                let lists = texts.collect::<Result<Vec<_>>>();
                lists.map_err(|e| Location::Flag(setting.flag).locate(e))?.concat()
            }
        };
        given.extend(values.into_iter().map(|value| Given::flag(setting.flag, value)));
        Ok(())
    }
}

/// The values of an argument, none where it was not given.
fn many<'a, T: Clone + Send + Sync + 'static>(
    matches: &'a ArgMatches,
    key: &str,
) -> impl Iterator<Item = &'a T> {
    matches.try_get_many::<T>(key).ok().flatten().into_iter().flatten()
}

/// The value of a command's own flag that is a setting as well.
pub fn given<T>(flag: &'static str, value: Option<T>) -> Vec<Given<T>> {
    value.map(|value| Given::flag(flag, value)).into_iter().collect()
}
