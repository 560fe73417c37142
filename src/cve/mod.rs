//! Which CVEs of the kernel's CNA affect what was compiled. Reads CVE records, decides by version, and joins
//! the result with the files that a build compiled. Does no IO.

mod assess;
mod changes;
mod compiled;
mod index;
mod record;
mod severity;
mod version_status;
mod vex;

pub use assess::{Assessment, Finding, FixingRelease, Join, Subject, TouchedFile, Verdict};
pub use changes::CveChanges;
pub use compiled::{CompiledFile, CompiledFiles, KernelSource};
pub use index::{Index, RecordsOrigin};
pub use record::{MAX_RECORD, SkipReason};
pub use severity::{Score, Severity};
pub use vex::{MEDIA_TYPE as VEX_MEDIA_TYPE, Product, document as vex_document};
