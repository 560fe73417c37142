//! Dates out of seconds since 1970, in UTC, in the two forms that a build needs.

use jiff::Timestamp;

/// `2026-09-11T09:00:34Z`, as RFC 3339 and OCI's `created` have it.
pub fn rfc3339(epoch: u64) -> String {
    timestamp(epoch).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The seconds of a date in RFC 3339; `None`: it is none, or before 1970.
pub fn epoch(text: &str) -> Option<u64> {
    text.parse::<Timestamp>().ok()?.as_second().try_into().ok()
}

/// `Fri Sep 11 09:00:34 UTC 2026`: what `date` prints in the C locale, which is what the kernel puts
/// into `uname -v` by itself, and what `date -d` reads (the kernel's own scripts hand
/// `KBUILD_BUILD_TIMESTAMP` to it).
pub fn date_command(epoch: u64) -> String {
    timestamp(epoch).strftime("%a %b %e %H:%M:%S UTC %Y").to_string()
}

/// A date past the year 9999 is taken for the last one that can be written.
fn timestamp(epoch: u64) -> Timestamp {
    i64::try_from(epoch).ok().and_then(|epoch| Timestamp::from_second(epoch).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_gnu_date() {
        // Each line is `date -u -d @N` and `date -u -d @N +%FT%TZ` of coreutils 9.1.
        for (epoch, date, iso) in [
            (0, "Thu Jan  1 00:00:00 UTC 1970", "1970-01-01T00:00:00Z"),
            (951_782_400, "Tue Feb 29 00:00:00 UTC 2000", "2000-02-29T00:00:00Z"),
            (1_789_117_234, "Fri Sep 11 09:00:34 UTC 2026", "2026-09-11T09:00:34Z"),
            (4_102_444_799, "Thu Dec 31 23:59:59 UTC 2099", "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!((date_command(epoch).as_str(), rfc3339(epoch).as_str()), (date, iso));
            assert_eq!(super::epoch(iso), Some(epoch));
        }
        assert_eq!((super::epoch("yesterday"), super::epoch("1969-12-31T23:59:59Z")), (None, None));
    }
}
