//! The keys of annotations that OCI predefines.

/// The prefix of OCI's predefined keys.
pub const OCI: &str = "org.opencontainers.image.";
/// The name of an image or of a file.
pub const TITLE: &str = "org.opencontainers.image.title";
/// Who made it.
pub const VENDOR: &str = "org.opencontainers.image.vendor";
/// What it is, for people.
pub const DESCRIPTION: &str = "org.opencontainers.image.description";
/// The URL of its source.
pub const SOURCE: &str = "org.opencontainers.image.source";
/// The version of its source in a version control system.
pub const REVISION: &str = "org.opencontainers.image.revision";
/// When it was made.
pub const CREATED: &str = "org.opencontainers.image.created";
/// The tag, on a descriptor in the index of a layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The version of what is in it.
pub const VERSION: &str = "org.opencontainers.image.version";
