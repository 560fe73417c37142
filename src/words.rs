//! Numbers as people read them.

use std::time::Duration;

/// `1 patch`, `3 patches`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Bytes in decimal units, as disks and registries count them: `139.3 MB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// `0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`.
pub fn duration(took: Duration) -> String {
    let seconds = took.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", took.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A TOML error in one line: it spans several, with a drawing of the place; its position and its words
/// are kept.
pub fn toml_error(error: &impl std::fmt::Display) -> String {
    let message = error.to_string();
    let words =
        message.lines().filter(|line| !line.trim_start().starts_with(['|', '^']) && !line.contains(" | "));
    words.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let text = |seconds: f64| duration(Duration::from_secs_f64(seconds));
        assert_eq!(
            [text(0.44), text(12.7), text(185.0), text(3720.0)],
            ["0.4 s", "12 s", "3 min 05 s", "1 h 02 min"]
        );
        assert_eq!([size(999), size(139_331_676)], ["999 B", "139.3 MB"]);
        assert_eq!(
            [counted(1, "patch", "patches"), counted(2, "patch", "patches")],
            ["1 patch", "2 patches"]
        );
    }
}
