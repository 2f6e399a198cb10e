//! What a key is: its name, type, rules and documentation, and the macro that makes both the
//! structs and the table from one listing, so that neither can forget what the other has.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// The type of a key, as an operator writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number, not negative.
    Number,
    /// `true` or `false`.
    Switch,
    /// A file or folder.
    Path,
    /// A list of texts.
    List,
    /// A list of files or folders.
    Paths,
    /// A mapping of names to texts.
    Mapping,
}

impl Kind {
    /// The word for it in documentation and messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "whole number",
            Self::Switch => "true or false",
            Self::Path => "path",
            Self::List => "list",
            Self::Paths => "list of paths",
            Self::Mapping => "mapping",
        }
    }
}

/// A bound of a key beyond its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The number lies between these two, both included.
    Range(u64, u64),
    /// The text is one of these.
    OneOf(&'static [&'static str]),
    /// Every value of the mapping is one of these.
    ValuesOneOf(&'static [&'static str]),
    /// Must be set, and not empty.
    Required,
    /// Must not be empty.
    NotEmpty,
    /// A file that is there.
    ExistingFile,
    /// A folder that is there.
    ExistingFolder,
    /// An `http://` or `https://` address.
    Url,
    /// Each item is a network (`10.0.0.0/8`), an address or a host name.
    Networks,
    /// A name that can stand as an HTTP header.
    HeaderName,
    /// A log level or filter.
    LogFilter,
    /// Never shown.
    Secret,
}

/// One key that an operator may set.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The section it stands in; `redis.tls` for a section inside another.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it may be left empty (`null`).
    pub optional: bool,
    /// What it is for, and in which unit.
    pub doc: &'static str,
    /// Its bounds.
    pub rules: &'static [Rule],
}

impl Key {
    /// `section.name`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it: `NETPULSE_SECTION__NAME`.
    #[must_use]
    pub fn env(&self) -> String {
        format!("NETPULSE_{}", self.path().replace('.', "__").to_ascii_uppercase())
    }

    /// Its value in the whole configuration as a tree.
    pub(crate) fn find<'t>(&self, tree: &'t Value) -> Option<&'t Value> {
        self.path().split('.').try_fold(tree, |tree, name| tree.get(name))
    }

    /// The same, to be changed.
    pub(crate) fn find_mut<'t>(&self, tree: &'t mut Value) -> Option<&'t mut Value> {
        self.path().split('.').try_fold(tree, |tree, name| tree.get_mut(name))
    }

    /// Whether its value is never shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.rules.contains(&Rule::Secret)
    }

    /// The documentation on one line.
    #[must_use]
    pub fn summary(&self) -> String {
        self.doc.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// The kind of a Rust type, so that the table cannot say another one than the struct has.
pub(crate) trait Typed {
    const KIND: Kind;
    const OPTIONAL: bool = false;
}

macro_rules! typed {
    ($($ty:ty => $kind:ident),+) => { $(impl Typed for $ty { const KIND: Kind = Kind::$kind; })+ };
}
typed! {
    String => Text, u16 => Number, u64 => Number, usize => Number, bool => Switch, PathBuf => Path,
    Vec<String> => List, Vec<PathBuf> => Paths, BTreeMap<String, String> => Mapping
}

impl<T: Typed> Typed for Option<T> {
    const KIND: Kind = T::KIND;
    const OPTIONAL: bool = true;
}

/// A field's name without the mark of a name that the language keeps for itself.
pub(crate) const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', rest @ ..] => match std::str::from_utf8(rest) {
            Ok(plain) => plain,
            Err(_) => name,
        },
        _ => name,
    }
}

/// One listing of every section and key: makes the structs, their defaults, a `Debug` that masks
/// secrets, and the table. After a section's keys, `with { ... }` holds sections inside it.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $ty:ty = $default:expr $(, $rule:expr)*; )+
        }
        $(with {
            $(
                $(#[doc = $inner_doc:literal])+
                $inner:ident: $Inner:ident {
                    $( $(#[doc = $ikey_doc:literal])+ $ikey:ident: $ity:ty = $idefault:expr $(, $irule:expr)*; )+
                }
            )+
        })?
    )+) => {
        /// The whole configuration. Every key has a default but `server.api_key`.
        #[derive(Debug, Clone, Default, serde::Deserialize, serde::Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $Section, )+
        }

        $(
            section! {
                $(#[doc = $section_doc])+
                $Section {
                    $( $(#[doc = $doc])+ $key: $ty = $default $(, $rule)*; )+
                    $($( $(#[doc = $inner_doc])+ $inner: $Inner = $Inner::default(); )+)?
                }
            }
            $($(
                section! {
                    $(#[doc = $inner_doc])+
                    $Inner { $( $(#[doc = $ikey_doc])+ $ikey: $ity = $idefault $(, $irule)*; )+ }
                }
            )+)?
        )+

        /// Every section with what it is about, in the order of the documentation; one inside
        /// another follows it, with its path (`redis.tls`).
        pub const SECTIONS: &[(&str, &str)] = &[$(
            (stringify!($section), concat!($($section_doc),+)),
            $($( (concat!(stringify!($section), ".", stringify!($inner)), concat!($($inner_doc),+)), )+)?
        )+];

        /// Every key, in the order of the documentation.
        pub const KEYS: &[Key] = &[$(
            $(Key {
                section: stringify!($section),
                name: crate::table::plain(stringify!($key)),
                kind: <$ty as Typed>::KIND,
                optional: <$ty as Typed>::OPTIONAL,
                doc: concat!($($doc),+),
                rules: &[$($rule),*],
            },)+
            $($($(Key {
                section: concat!(stringify!($section), ".", stringify!($inner)),
                name: stringify!($ikey),
                kind: <$ity as Typed>::KIND,
                optional: <$ity as Typed>::OPTIONAL,
                doc: concat!($($ikey_doc),+),
                rules: &[$($irule),*],
            },)+)+)?
        )+];
    };
}
pub(crate) use sections;

/// One section's struct.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        $Section:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $ty:ty = $default:expr $(, $rule:expr)*; )+
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, serde::Deserialize, serde::Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $Section { $( $(#[doc = $doc])+ pub $key: $ty, )+ }

        impl Default for $Section {
            fn default() -> Self {
                Self { $( $key: $default, )+ }
            }
        }

        impl std::fmt::Debug for $Section {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut shown = f.debug_struct(stringify!($Section));
                $(
                    let rules: &[Rule] = &[$($rule),*];
                    if rules.contains(&Rule::Secret) {
                        shown.field(stringify!($key), &netpulse_model::secret::MASK);
                    } else {
                        shown.field(stringify!($key), &self.$key);
                    }
                )+
                shown.finish()
            }
        }
    };
}
pub(crate) use section;
