//! The `.config` inside a kernel file, which CONFIG_IKCONFIG puts there.

use flate2::read::GzDecoder;
use memchr::memmem;
use std::io::{self, Read};

/// The marker that `kernel/configs.c` puts before the config, and the first two bytes of gzip. The marker
/// alone may be part of another text.
const START: &[u8] = b"IKCFG_ST\x1f\x8b";
/// The length of the marker alone.
const MARKER: usize = 8;
/// A kernel's `.config` has about 150 kB.
const MAX_CONFIG: u64 = 16 << 20;

/// Finds the `.config` in an uncompressed kernel, which is read in chunks.
///
/// # Errors
///
/// Reading fails, or the config is not gzip, not UTF-8, or larger than 16 MiB.
pub fn extract_config(mut kernel: impl Read) -> io::Result<Option<String>> {
    let start = memmem::Finder::new(START);
    let mut chunk = Vec::new();
    loop {
        // The end of the last chunk may be the first part of the marker.
        let overlap = chunk.len().min(START.len() - 1);
        chunk.drain(..chunk.len() - overlap);
        if Read::take(&mut kernel, 1 << 16).read_to_end(&mut chunk)? == 0 {
            return Ok(None);
        }
        if let Some(at) = start.find(&chunk) {
            return decompress(chunk[at + MARKER..].chain(kernel), MAX_CONFIG).map(Some);
        }
    }
}

/// Decompresses a `.config`.
///
/// # Errors
///
/// Reading fails. The text is not gzip, not UTF-8, or larger than `limit` bytes.
pub fn decompress(compressed: impl Read, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(compressed).take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes when decompressed")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn kernel(before: usize, text: &str) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        [vec![7; before], START[..MARKER].to_vec(), gzip.finish().unwrap(), b"IKCFG_ED and more".to_vec()]
            .concat()
    }

    #[test]
    fn the_config_is_found_wherever_it_lies() {
        // Some of them across the border of two chunks.
        for before in [0, 100, 65_520, 65_527, 65_528, 65_529, 65_535, 65_536, 200_000] {
            let found = extract_config(&kernel(before, "CONFIG_A=y\n")[..]).unwrap();
            assert_eq!(found.as_deref(), Some("CONFIG_A=y\n"), "{before}");
        }
        assert_eq!(extract_config(&[7; 100_000][..]).unwrap(), None);
        let decoy = [b"IKCFG_ST is a marker".to_vec(), kernel(10, "CONFIG_B=m\n")].concat();
        assert_eq!(extract_config(&decoy[..]).unwrap().as_deref(), Some("CONFIG_B=m\n"));
    }

    #[test]
    fn a_damaged_or_endless_config_is_an_error() {
        assert!(extract_config(&kernel(10, "CONFIG_A=y\n")[..25]).is_err());
        let compressed = &kernel(0, "CONFIG_A=y\n")[MARKER..];
        assert_eq!(decompress(compressed, 11).unwrap(), "CONFIG_A=y\n");
        assert!(decompress(compressed, 10).unwrap_err().to_string().contains("larger than 10 bytes"));
    }
}
