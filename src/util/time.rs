//! Formats seconds since 1970 as dates in UTC.

use jiff::Timestamp;

/// Formats a date for RFC 3339 and OCI's `created`: `2026-09-11T09:00:34Z`.
pub fn rfc3339(epoch: u64) -> String {
    timestamp(epoch).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Reads a date in RFC 3339. Returns `None` for other texts and for dates before 1970.
pub fn epoch(text: &str) -> Option<u64> {
    text.parse::<Timestamp>().ok()?.as_second().try_into().ok()
}

/// Formats a date as `date` prints it in the C locale: `Fri Sep 11 09:00:34 UTC 2026`. The kernel uses this
/// form in `uname -v`, and passes `KBUILD_BUILD_TIMESTAMP` to `date -d`.
pub fn date_command(epoch: u64) -> String {
    timestamp(epoch).strftime("%a %b %e %H:%M:%S UTC %Y").to_string()
}

/// Converts to a timestamp, at most the last one of the year 9999.
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
