//! The settings of a run: given on the command line or in a file, checked, defaults filled in.
//!
//! Every setting is an entry of one list (`list`). [`RawSettings`] is what was given, by flags or
//! in a TOML file (`file`), each value with its [`Location`]; flags override the file key by key.
//! [`Settings::resolve_all`] checks it and makes one [`Settings`] of each model, text and context;
//! [`Settings::resolve`] is for commands that take one of each.

#[cfg(test)]
mod documentation;
mod engine;
mod entry;
mod file;
mod grid;
mod kv_scale;
mod list;
mod location;
mod resolve;
mod setting;
mod table;
mod types;
mod value;

pub use entry::distinct;
pub use file::ConfigFile;
pub(crate) use list::Visitor;
pub use list::{DEFAULT_MODEL, RawSettings, SETTINGS, Settings};
pub use location::{Given, Location};
pub use setting::{Group, Setting, Takes};
pub use types::{Bos, DeviceKind, FloatType, Percent, ProtocolName, WeightForm, WindowCount};
pub use value::Value;
