//! Suggests names for an unknown symbol.

const MAX_SUGGESTIONS: usize = 3;
/// The least similarity of a suggestion, in thousandths.
const MIN_SIMILARITY: usize = 700;

/// Returns up to three of `names` that are nearest to `name`, by edit distance or by common words.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let parts: Vec<&str> = name.split('_').collect();
    let mut row = Vec::new();
    let mut near: Vec<(usize, &str)> = names
        .map(|other| (by_distance(name, other, &mut row).max(by_words(&parts, other)), other))
        .filter(|(alike, _)| *alike >= MIN_SIMILARITY)
        .collect();
    near.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    near.into_iter().take(MAX_SUGGESTIONS).map(|(_, other)| other).collect()
}

fn by_distance(a: &str, b: &str, row: &mut Vec<usize>) -> usize {
    let longer = a.len().max(b.len());
    // Most of a misspelled name is right.
    let limit = (longer / 6).clamp(1, 3);
    distance(a.as_bytes(), b.as_bytes(), limit, row).map_or(0, |distance| 1000 - 1000 * distance / longer)
}

/// Returns the edit distance of `a` and `b`, if it is at most `limit`. A kernel has 20,000 names, so this computes
/// only the band around the diagonal, and reuses `row`.
fn distance(a: &[u8], b: &[u8], limit: usize, row: &mut Vec<usize>) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    row.clear();
    row.extend(0..=b.len());
    for (i, x) in a.iter().enumerate() {
        let (from, to) = (i.saturating_sub(limit), (i + limit + 1).min(b.len()));
        let mut diagonal = row[from];
        // Distances left of the band exceed the limit.
        row[from] = if from == 0 { i + 1 } else { limit + 1 };
        let mut least = row[from];
        for (j, y) in b.iter().enumerate().take(to).skip(from) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
            least = least.min(row[j + 1]);
        }
        if least > limit {
            return None;
        }
    }
    row.last().copied().filter(|&distance| distance <= limit)
}

/// Returns 90 % of the share of common words, so that a misspelled name ranks above a related one.
fn by_words(parts: &[&str], other: &str) -> usize {
    let others = other.split('_').count();
    let shared = other.split('_').filter(|word| parts.contains(word)).count();
    (1800 * shared.min(parts.len())) / (parts.len() + others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_and_related_names_are_found() {
        let names =
            ["VIRTIO_BLK", "VIRTIO_BLK_SCSI", "VIRTIO_NET", "VIRTIO_MMIO", "NET", "NF_NAT", "NF_TABLES"];
        let find = |name| nearest(name, names.into_iter());
        assert_eq!(find("VIRTIO_BLCK"), ["VIRTIO_BLK"]);
        assert_eq!(find("VIRTIO_BLK_SCSIX"), ["VIRTIO_BLK_SCSI", "VIRTIO_BLK"]);
        assert_eq!(find("NF_NAT_IPV4"), ["NF_NAT"]);
        assert_eq!(find("NET_VIRTIO"), ["VIRTIO_NET"]);
        assert!(find("SOMETHING_ELSE").is_empty() && find("").is_empty());
    }

    #[test]
    fn distances_up_to_the_limit() {
        let distance = |a: &str, b: &str| distance(a.as_bytes(), b.as_bytes(), 2, &mut Vec::new());
        for (a, b, expected) in [
            ("abcdef", "abcdef", Some(0)),
            ("abcdef", "abcdxf", Some(1)),
            ("abcdef", "bcdef", Some(1)),
            ("abcdef", "xabcdef", Some(1)),
            ("abcdef", "bcdefx", Some(2)),
            ("abcdef", "abefcd", None),
            ("abcdef", "uvwxyz", None),
            ("", "ab", Some(2)),
            ("", "abc", None),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
