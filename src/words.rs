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

/// `text` in lines of at most `width` characters, broken between words; a longer word has a line
/// of its own.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
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

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("one two  three fourteen", 9), ["one two", "three", "fourteen"]);
        assert_eq!(wrapped("incomprehensible", 4), ["incomprehensible"]);
        assert!(wrapped(" ", 4).is_empty());
    }
}
