//! Search: finds products by their words with `PostgreSQL`'s full text search, and mistyped words
//! by their trigrams.
//!
//! A product matches if it has all words of the question in its name, category or description. A
//! word of the question also matches longer words that begin with it. A word is treated as mistyped
//! only if no known word begins with it.
//!
//! Matches come in two tiers: first the products that have all words in their names, then the
//! others. A tier is ranked if one word of the question is in at most [`RANKED`] products.
//! Otherwise it is ordered by age, the newest first, and a page examines a bounded number of
//! products. If that finds too few, because common words seldom occur together, the index is used
//! after all. So a word that every product has costs no more than a rare one.

mod apply;
mod query;
mod terms;
mod words;

pub(crate) use apply::Search;
pub use query::Cursor;
pub use terms::{InvalidSearch, Question};

/// Largest number of products that are ranked against each other for one answer.
pub const RANKED: i64 = 500;

/// A word in more products than this is never looked up in the index, because the index would
/// return all of them.
const MANY: i64 = 10_000;
