//! The macro that turns the list of settings into types.

/// Makes of `key: Type = default, Setting;` entries with comments: `SETTINGS`, the plain facts;
/// [`RawSettings`](super::RawSettings), each setting's values as given; and
/// [`Settings`](super::Settings), each setting's value in a run. All of it in the list's order.
macro_rules! settings {
    ($($(#[doc = $meaning:literal])* $key:ident: $type:ty = $default:expr, $setting:expr;)*) => {
        /// Every setting, in the order of files, echo and help.
        pub static SETTINGS: [Setting; [$(stringify!($key)),*].len()] = [$(Setting {
            key: stringify!($key),
            meaning: concat!($($meaning),*),
            default: || {
                let default = || -> Result<$type> { Ok($default) };
                default().ok()?.text()
            },
            ..$setting
        }),*];

        /// Settings as given; empty where nothing was.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct RawSettings {
            $($(#[doc = $meaning])* pub $key: Vec<Given<<$type as Resolved>::Value>>,)*
        }

        /// The settings of one run, with every question answered; echoed in the result.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $($(#[doc = $meaning])* pub $key: $type,)*
            /// Where `context` was given, for errors that need the model to be found.
            pub context_location: Location,
            /// The model, by the kind of place where it is.
            pub source: ModelSource,
        }

        impl RawSettings {
            /// The settings of `self`, and those of `other` where `self` leaves them open.
            pub fn or(self, other: Self) -> Self {
                Self {$(
                    $key: if self.$key.is_empty() { other.$key } else { self.$key },
                )*}
            }

            /// Shows every setting with its values to `visitor`, until an error.
            pub(crate) fn visit(&mut self, visitor: &mut impl Visitor) -> Result<()> {
                let [$($key),*] = &SETTINGS;
                $(visitor.setting($key, &mut self.$key)?;)*
                Ok(())
            }
        }

        impl Settings {
            /// The first values given, and defaults where there are none.
            pub(super) fn of(given: &RawSettings, source: ModelSource) -> Result<Self> {
                let context = given.context.first().map(|given| given.location.clone());
                Ok(Self {
                    $($key: match <$type as Resolved>::from_given(&given.$key) {
                        Some(value) => value,
                        None => $default,
                    },)*
                    context_location: context.unwrap_or(Location::Flag("--context")),
                    source,
                })
            }
        }

        impl Serialize for Settings {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                let [$($key),*] = &SETTINGS;
                let mut map = serializer.serialize_map(None)?;
                $(if !$key.decode_only || self.protocol != ProtocolName::Prefix {
                    map.serialize_entry($key.json_key(), &self.$key.echo())?;
                })*
                map.end()
            }
        }
    };
}

pub(super) use settings;
