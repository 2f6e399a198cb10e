//! Distribution of plugins: packed into component versions, kept in registries and archives, and put
//! into the folder of plugins only after every check.
//!
//! A plugin travels as a resource of type `ocmPlugin` in an OCM component version. [`pack()`] makes
//! one from a constructor file, [`push()`] stores it in an OCI registry, [`install()`] brings the
//! right resource for this machine into the folder, and [`Lock`] knows afterwards what every file was.
//!
//! Nothing that came from elsewhere is run before its digests, the digest in its descriptor and its
//! signature were checked; nothing is visible in the folder before it has said what it can do; and
//! everything that is read has a limit.

mod catalogue;
mod credentials;
mod descriptor;
mod digest;
mod error;
#[allow(clippy::module_inception)]
mod install;
mod local;
mod lock;
mod media;
mod normalise;
mod pack;
pub mod platform;
mod probe;
mod push;
mod reference;
mod registry;
mod remove;
mod select;
mod signature;
mod stage;
mod store;
mod unpack;

pub use catalogue::{Listed, pick, read as read_catalogue};
pub use credentials::usual_files as credential_files;
pub use digest::Digest;
pub use error::{InstallError, Result, Trouble};
pub use install::{Change, Installed, Order, install};
pub use local::Local;
pub use lock::{Entry, FILE as LOCK_FILE, Lock, PinnedResource, Verdict};
pub use media::Limits;
pub use pack::{Packed, Packing, pack};
pub use push::{Pushed, push};
pub use reference::{Base, Reference, Repository, Target};
pub use registry::Asking;
pub use remove::{Removed, User, remove, users};
pub use select::{Wanted, identity_text};
pub use signature::Trust;
pub use stage::Guard;
pub use store::{Unwatched, Watch};

/// The type of a resource that is a plugin.
pub const PLUGIN_TYPE: &str = "ocmPlugin";
