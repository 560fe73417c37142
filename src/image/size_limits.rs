//! Size limits for CI. They apply to the kernel file and to all modules as they are loaded,
//! not as they are compressed.

use crate::image::inspect::ImageInfo;
use crate::util::text::{format_size, parse_size, pluralize};

/// The limits of an image, in bytes.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct SizeLimits {
    /// Fail if the kernel is larger than SIZE
    ///
    /// SIZE is the size of the kernel file, such as 48MB or 45MiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_bin_size: Option<u64>,
    /// Fail if the modules are larger than SIZE
    ///
    /// SIZE is the size of all modules together, uncompressed.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_modules_size: Option<u64>,
}

impl SizeLimits {
    /// Returns whether there is a limit.
    pub fn is_set(&self) -> bool {
        self.max_bin_size.is_some() || self.max_modules_size.is_some()
    }

    /// Returns a message for each limit that the image exceeds.
    pub fn exceeded(&self, image: &ImageInfo) -> Vec<String> {
        let mut exceeded = Vec::new();
        let mut check = |what: String, bytes: u64, limit: Option<u64>| {
            if let Some(limit) = limit.filter(|&limit| bytes > limit) {
                // Rounded sizes may look the same, so the message has both.
                let (found, limit_text) = (format_size(bytes), format_size(limit));
                exceeded
                    .push(format!("{what}, {found} ({bytes} bytes), is over {limit_text} ({limit} bytes)"));
            }
        };
        for kernel in &image.kernels {
            check(format!("the kernel {}", kernel.path), kernel.bytes, self.max_bin_size);
        }
        if let Some(modules) = &image.modules {
            check(
                format!("the size of {}", pluralize(modules.count, "module", "modules")),
                modules.bytes,
                self.max_modules_size,
            );
        }
        exceeded
    }
}
