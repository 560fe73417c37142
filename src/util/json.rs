//! The form of all JSON output. docs/reference/json.md describes it.

use serde::Serialize;

/// The version of the form. A field that is removed or changes its meaning increases it.
const SCHEMA: u32 = 1;

/// A JSON object that begins with `schema`. `content` is an object too.
#[derive(Debug, Serialize)]
pub struct Versioned<T> {
    schema: u32,
    #[serde(flatten)]
    content: T,
}

impl<T: Serialize> Versioned<T> {
    pub fn new(content: T) -> Versioned<T> {
        Versioned { schema: SCHEMA, content }
    }
}
