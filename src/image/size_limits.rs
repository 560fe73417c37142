//! How large an image may be before a CI job fails: of the kernel file and of all modules, as they are
//! loaded, not as they are compressed.

use crate::image::inspect::Inspected;
use crate::util::text::{counted, size};

/// The most that an image may have, in bytes; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Budget {
    /// Fail (exit code 1) where the kernel file is larger than SIZE: bytes, or kB, MB, GB, KiB, MiB, GiB
    #[arg(long, value_name = "SIZE", value_parser = parse)]
    pub max_bin_size: Option<u64>,
    /// Fail (exit code 1) where all modules together are larger than SIZE
    #[arg(long, value_name = "SIZE", value_parser = parse)]
    pub max_modules_size: Option<u64>,
}

impl Budget {
    /// Is there any limit?
    pub fn is_set(&self) -> bool {
        self.max_bin_size.is_some() || self.max_modules_size.is_some()
    }

    /// What an image has more than it may, in words; what it has not at all is no matter.
    pub fn exceeded(&self, image: &Inspected) -> Vec<String> {
        let mut exceeded = Vec::new();
        let mut check = |what: String, bytes: u64, limit: Option<u64>| {
            if let Some(limit) = limit.filter(|&limit| bytes > limit) {
                // In full: rounded, the two may look the same.
                let (found, limit_text) = (size(bytes), size(limit));
                exceeded
                    .push(format!("{what}, {found} ({bytes} bytes), is over {limit_text} ({limit} bytes)"));
            }
        };
        for kernel in &image.kernels {
            check(format!("the kernel {}", kernel.path), kernel.bytes, self.max_bin_size);
        }
        if let Some(modules) = &image.modules {
            check(
                format!("the size of {}", counted(modules.count, "module", "modules")),
                modules.bytes,
                self.max_modules_size,
            );
        }
        exceeded
    }
}

/// `48000000`, `48 MB`, `45.8MiB`.
fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: expected a number and B, kB, MB, GB, KiB, MiB or GiB");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number = number.trim();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match number.parse::<f64>() {
        Ok(number) if plain && number * (factor as f64) < 1e18 => Ok((number * factor as f64) as u64),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in
            [("48000000", 48_000_000), ("48 MB", 48_000_000), ("1.5MiB", 1_572_864), ("2k", 2000), ("0", 0)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "MB", "-1", "1e3", "3 apples", "inf", "99999999999999999999 GB", "1.2.3"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
