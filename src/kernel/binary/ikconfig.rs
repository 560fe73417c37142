//! The `.config` that a kernel file carries with CONFIG_IKCONFIG.

use flate2::read::GzDecoder;
use memchr::memmem;
use std::io::{self, Read};

/// What `kernel/configs.c` puts before the config, and the first two bytes of gzip: a driver's own
/// text may hold the mark alone.
const START: &[u8] = b"IKCFG_ST\x1f\x8b";
/// Of that, the mark.
const MARK: usize = 8;
/// A kernel's `.config` has about 150 kB.
const MAX_CONFIG: u64 = 16 << 20;

/// Looks through an uncompressed kernel for its `.config`; `None`: it carries none. Reads in pieces,
/// whatever the size of the kernel.
///
/// Errors: reading fails; what stands there is not gzip, not UTF-8, or larger than 16 MiB.
pub fn extract_config(mut kernel: impl Read) -> io::Result<Option<String>> {
    let start = memmem::Finder::new(START);
    let mut chunk = Vec::new();
    loop {
        // The end of the last piece may be the first part of the mark.
        let overlap = chunk.len().min(START.len() - 1);
        chunk.drain(..chunk.len() - overlap);
        if Read::take(&mut kernel, 1 << 16).read_to_end(&mut chunk)? == 0 {
            return Ok(None);
        }
        if let Some(at) = start.find(&chunk) {
            return unpack(chunk[at + MARK..].chain(kernel), MAX_CONFIG).map(Some);
        }
    }
}

fn unpack(packed: impl Read, largest: u64) -> io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(packed).take(largest + 1).read_to_string(&mut text)?;
    match text.len() as u64 > largest {
        true => Err(io::Error::other(format!("the config inside it unpacks to more than {largest} bytes"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn kernel(before: usize, text: &str) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        [vec![7; before], START[..MARK].to_vec(), gzip.finish().unwrap(), b"IKCFG_ED and more".to_vec()]
            .concat()
    }

    #[test]
    fn the_config_is_found_wherever_it_lies() {
        // Around the border of two pieces, too.
        for before in [0, 100, 65_520, 65_527, 65_528, 65_529, 65_535, 65_536, 200_000] {
            let found = extract_config(&kernel(before, "CONFIG_A=y\n")[..]).unwrap();
            assert_eq!(found.as_deref(), Some("CONFIG_A=y\n"), "{before}");
        }
        assert_eq!(extract_config(&[7; 100_000][..]).unwrap(), None);
        let decoy = [b"IKCFG_ST is a mark".to_vec(), kernel(10, "CONFIG_B=m\n")].concat();
        assert_eq!(extract_config(&decoy[..]).unwrap().as_deref(), Some("CONFIG_B=m\n"));
    }

    #[test]
    fn a_damaged_or_endless_config_is_an_error() {
        assert!(extract_config(&kernel(10, "CONFIG_A=y\n")[..25]).is_err());
        let packed = &kernel(0, "CONFIG_A=y\n")[MARK..];
        assert_eq!(unpack(packed, 11).unwrap(), "CONFIG_A=y\n");
        assert!(unpack(packed, 10).unwrap_err().to_string().contains("more than 10 bytes"));
    }
}
