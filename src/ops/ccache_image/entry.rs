//! Checks the path and the bytes of an entry of ccache.
//!
//! The format is that of ccache 4.7 and later (`src/core/CacheEntry` and `src/storage/local/LocalStorage` in
//! its source). A header has the magic number 0xccac, a version, a type, and whether the entry is
//! self-contained. After the payload is an XXH3 of 128 bits over everything before it, big endian. The name
//! is a digest of 20 bytes, of which two are in base 16 and the others in base 32. Its first two to four
//! digits are directories, and a letter at the end is the type.

/// The format of ccache 4.7 and later.
const MAGIC: [u8; 3] = [0xcc, 0xac, 1];
/// The size of the checksum.
const CHECKSUM: usize = 16;
/// The least size of an entry that is accepted.
const MIN_ENTRY: usize = 24 + CHECKSUM;

/// Returns whether `path` is the relative path of an entry, such as `b/e/b2kit19mmgpatc1bd2a2i35ir6lf5naR`.
pub fn is_entry(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let Some((name, dirs)) = parts.split_last() else { return false };
    let whole: Vec<u8> = dirs.concat().bytes().chain(name.bytes()).collect();
    let base16 = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let base32 = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'v');
    (2..=4).contains(&dirs.len())
        && dirs.iter().all(|dir| dir.len() == 1)
        && whole.len() == 34
        && whole[..4].iter().all(base16)
        && whole[4..33].iter().all(base32)
        && matches!(whole[33], b'R' | b'M')
}

/// Returns whether `path` is the relative path of a directory of entries.
pub(super) fn is_directory(path: &str) -> bool {
    let digit = |part: &str| matches!(part.as_bytes(), [b'0'..=b'9' | b'a'..=b'f']);
    path.split('/').count() <= 4 && path.split('/').all(digit)
}

/// Checks that `bytes` are an undamaged entry for `path`.
///
/// # Errors
///
/// They are not, for this reason.
pub fn check(path: &str, bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.len() < MIN_ENTRY || !bytes.starts_with(&MAGIC) {
        return Err("not in the format of ccache 4.7 and later");
    }
    // Header and name must have the same type, which is a result (R) or a manifest of results (M).
    if !matches!((bytes[3], path.as_bytes().last()), (0, Some(b'R')) | (1, Some(b'M'))) {
        return Err("its type does not match its name");
    }
    // With `file_clone` and `hard_link`, ccache uses separate files, which have no checksum.
    if bytes[6] != 1 {
        return Err("not self-contained: the object is in another file");
    }
    let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
    if xxhash_rust::xxh3::xxh3_128(content).to_be_bytes() == *checksum {
        Ok(())
    } else {
        Err("damaged: its checksum does not match")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_ccache() {
        for path in ["b/e/b2kit19mmgpatc1bd2a2i35ir6lf5naR", "7/5/2/aratgrc4ihlc5r502elkplskfjrrgcM"] {
            assert!(is_entry(path), "{path}");
        }
        for path in [
            "",
            "be/b2kit19mmgpatc1bd2a2i35ir6lf5naR",
            "b/b2kit19mmgpatc1bd2a2i35ir6lf5naeR",
            "b/e/b2kit19mmgpatc1bd2a2i35ir6lf5naW",
            "b/e/b2kit19mmgpatc1bd2a2i35ir6lf5nR",
            "b/e/b2kit19mmgpatc1bd2a2i35ir6lf5naaR",
            "b/e/B2kit19mmgpatc1bd2a2i35ir6lf5naR",
            "b/e/b2kit19mmgpatc1bd2a2i35ir6lf5nwR",
            "b/z/b2kit19mmgpatc1bd2a2i35ir6lf5naR",
            "../e/b2kit19mmgpatc1bd2a2i35ir6lf5naR",
            "/b/e/b2kit19mmgpatc1bd2a2i35ir6lf5naR",
            "b/./b2kit19mmgpatc1bd2a2i35ir6lf5naR",
            "b/e/stats",
            "ccache.conf",
        ] {
            assert!(!is_entry(path), "{path}");
        }
        assert!(is_directory("b") && is_directory("b/e/1/2"));
        assert!(
            !is_directory("b/e/1/2/3") && !is_directory("tmp") && !is_directory("..") && !is_directory("")
        );
    }

    /// An entry with an empty payload, as ccache 4.7.5 writes it.
    fn entry(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0xcc, 0xac, 1, kind, 1, 0, 1];
        bytes.resize(30, 7);
        bytes.extend(xxhash_rust::xxh3::xxh3_128(&bytes).to_be_bytes());
        bytes
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        assert_eq!(check("b/e/xR", &entry(0)), Ok(()));
        assert_eq!(check("b/e/xM", &entry(1)), Ok(()));
        assert!(check("b/e/xM", &entry(0)).unwrap_err().contains("its type does not match"));
        assert!(check("b/e/xR", b"\x7fELF").unwrap_err().contains("format"));
        assert!(check("b/e/xR", &[]).is_err());
        let mut sibling = entry(0);
        sibling[6] = 0;
        assert!(check("b/e/xR", &sibling).unwrap_err().contains("self-contained"));
        for place in [3, 10, 29, 30, 45] {
            let mut flipped = entry(0);
            flipped[place] ^= 1;
            assert!(check("b/e/xR", &flipped).is_err(), "{place}");
        }
        assert!(check("b/e/xR", &entry(0)[..40]).is_err());
    }
}
