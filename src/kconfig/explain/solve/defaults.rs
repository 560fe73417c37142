//! Simulates the defaults of symbols that become visible.

use super::{MAX_STEPS, Search, text};

impl Search<'_> {
    /// Gives symbols that the changes make visible their defaults, as `olddefconfig` does. Returns these defaults.
    pub(super) fn apply_defaults(&mut self) -> Vec<(String, String)> {
        let mut changed: Vec<String> = self.trail.iter().map(|step| step.symbol.clone()).collect();
        let (mut defaults, mut visits) = (Vec::new(), 0);
        while let Some(symbol) = changed.pop() {
            let dependents = self.dependents.get(symbol.as_str()).cloned().unwrap_or_default();
            for name in dependents {
                visits += 1;
                if visits > MAX_STEPS {
                    return defaults;
                }
                let Some(symbol) = self.model.defined(name) else { continue };
                let is_known = self.original.symbols.contains_key(name) || self.is_set(name);
                let Some(default) = symbol.default_level(&self.config).filter(|_| !is_known) else {
                    continue;
                };
                if default > self.level(name) {
                    let mark = self.trail.len();
                    self.record(name, text(default), false);
                    self.select_targets(name);
                    changed.extend(self.trail[mark..].iter().map(|step| step.symbol.clone()));
                    defaults.push((name.to_owned(), text(default).to_owned()));
                }
            }
        }
        defaults
    }
}
