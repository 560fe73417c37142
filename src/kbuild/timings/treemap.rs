//! Lays out a treemap, in which the areas of nested rectangles are proportional to costs.

/// A rectangle, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Fills `within` with one rectangle for each size, as close to squares as possible. `sizes` are
/// positive and descending. Rows run along the shorter side, and a row takes sizes as long as its
/// worst rectangle does not get worse ("Squarified Treemaps" by Bruls, Huizing and van Wijk).
pub(super) fn squarified(sizes: &[f64], mut within: Rect) -> Vec<Rect> {
    let mut rects = Vec::with_capacity(sizes.len());
    let mut rest = sizes;
    while !rest.is_empty() {
        let side = within.width.min(within.height);
        if side <= 0.0 {
            // Rounding left no room for the smallest ones.
            rects.extend(rest.iter().map(|_| Rect { width: 0.0, height: 0.0, ..within }));
            break;
        }
        let scale = within.width * within.height / rest.iter().sum::<f64>();
        let mut count = 1;
        while count < rest.len() && worst(&rest[..=count], scale, side) <= worst(&rest[..count], scale, side)
        {
            count += 1;
        }
        let (row, after) = rest.split_at(count);
        let thickness = row.iter().sum::<f64>() * scale / side;
        let is_wide = within.width >= within.height;
        let mut along = 0.0;
        for size in row {
            let length = size * scale / thickness;
            rects.push(if is_wide {
                Rect { x: within.x, y: within.y + along, width: thickness, height: length }
            } else {
                Rect { x: within.x + along, y: within.y, width: length, height: thickness }
            });
            along += length;
        }
        if is_wide {
            (within.x, within.width) = (within.x + thickness, (within.width - thickness).max(0.0));
        } else {
            (within.y, within.height) = (within.y + thickness, (within.height - thickness).max(0.0));
        }
        rest = after;
    }
    rects
}

/// Returns the largest aspect ratio in a row.
fn worst(row: &[f64], scale: f64, side: f64) -> f64 {
    let sum = row.iter().sum::<f64>() * scale;
    let (largest, smallest) = (row[0] * scale, row[row.len() - 1] * scale);
    (side * side * largest / (sum * sum)).max(sum * sum / (side * side * smallest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_in_proportion_and_fill_the_whole() {
        let sizes = [6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0];
        let whole = Rect { x: 10.0, y: 20.0, width: 600.0, height: 400.0 };
        let rects = squarified(&sizes, whole);
        assert_eq!(rects.len(), sizes.len());
        for (rect, size) in rects.iter().zip(sizes) {
            assert!((rect.width * rect.height - size * 10_000.0).abs() < 1e-3, "{rect:?}");
            assert!(rect.x >= 9.99 && rect.y >= 19.99, "{rect:?}");
            assert!(rect.x + rect.width <= 610.01 && rect.y + rect.height <= 420.01, "{rect:?}");
            assert!(rect.width / rect.height < 4.0 && rect.height / rect.width < 4.0, "{rect:?}");
        }
        // No two of them overlap.
        for (index, a) in rects.iter().enumerate() {
            for b in &rects[index + 1..] {
                let apart = |from: f64, length: f64, other: f64| other >= from + length - 1e-6;
                assert!(
                    apart(a.x, a.width, b.x)
                        || apart(b.x, b.width, a.x)
                        || apart(a.y, a.height, b.y)
                        || apart(b.y, b.height, a.y),
                    "{a:?} {b:?}"
                );
            }
        }
    }

    #[test]
    fn very_small_sizes_are_accepted() {
        let rects = squarified(&[1e9, 1e-9, 1e-12], Rect { x: 0.0, y: 0.0, width: 9.0, height: 9.0 });
        assert!(rects.iter().all(|rect| rect.width.is_finite() && rect.height.is_finite()), "{rects:?}");
        assert!(squarified(&[], Rect { x: 0.0, y: 0.0, width: 9.0, height: 9.0 }).is_empty());
    }
}
